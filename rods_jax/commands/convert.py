"""Writes what a run or an evaluation played for other packages: a line for each episode, or its tasks.

    python -m scripts.convert --run-dir runs/quickstart --to chat --out sft.jsonl --passed
    python -m scripts.convert --run-dir runs/helpdesk --to chat --side user --out user.jsonl --passed
    python -m scripts.convert --run-dir runs/helpdesk --to tau2 --out helpdesk_tasks

chat: OpenAI messages with tool calls, to fine-tune on.  atif: documents of the Agent Trajectory Interchange Format.
tau2: a folder of the run's tasks in tau2-bench's format, variants among them, with the split file.
A run keeps a few trajectories of every tenth step.  --journal names the journal.jsonl of an evaluation instead, which holds
every episode: on the run's tasks, or on those that --tasks names as the evaluation did.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from rods_jax import terminal
from rods_jax.adapters import trajectories
from rods_jax.chat_rows import Row, chosen, turns_of
from rods_jax.codecs.tokenizer import load_tokenizer
from rods_jax.commands.common import program, running
from rods_jax.dialogue import Record
from rods_jax.environments.protocol import Domain
from rods_jax.environments.tau2 import data
from rods_jax.files import require_object
from rods_jax.held_out import sample_tasks
from rods_jax.journal import read_log
from rods_jax.metrics import read_metrics
from rods_jax.run import tau2_tasks
from rods_jax.run.directory import read_inputs
from rods_jax.run.evaluating import digest_of
from rods_jax.run.played import run_config
from rods_jax.run.splits import Evaluation, split_of
from rods_jax.task_files import task_from_json
from rods_jax.types import Json, Task


def convert(
    to: Literal["chat", "atif", "tau2"],
    out: Path,
    run_dir: Path | None = None,
    journal: Path | None = None,
    tasks: str = "",
    config: Path | None = None,
    passed: bool = False,
    side: Literal["agent", "user"] = "agent",
    each_turn: bool = False,
) -> None:
    """Reads the run, writes `out`, and says how much it holds.

    Args:
        to: the form.
        out: the file to write; must be new.
        run_dir: the run; of an evaluation, the one whose tasks were played.
        journal: of the evaluation whose episodes are written.
        tasks: of the evaluation: tau2-airline-train, bfcl-train or another name that `evaluate --tasks` takes.
        config: the run's, where it has moved.
        passed: writes the episodes of which every check passed, and no others; of the user's side, those without an error of
            the user.
        side: of chat, whose messages are learned from; the user's, with its calls, where the domain is a conversation.
        each_turn: of chat, a row for each message that is learned, which is its last.
    """
    if out.exists():
        raise ValueError(f"{out} is there already: choose another --out")
    if to != "chat" and (side == "user" or each_turn):
        raise ValueError("--side and --each-turn are of --to chat alone")
    if to == "tau2":
        if run_dir is None or journal or tasks or passed:
            raise ValueError(
                "--to tau2 writes all tasks of a run: give its --run-dir, and no --journal, --tasks or --passed"
            )
        terminal.say(Console(), tau2_folder(run_dir, run_config(run_dir, config).domain(), out))
        return
    domain, known, records = episodes_of(run_dir, journal, tasks, config)
    kept = [one for one in records if not one.failure]
    if to == "atif":
        kept = [one for one in kept if all(one.rods) or not passed]
        session = str(journal or run_dir)
        number = trajectories.export(out, kept, known, domain, partial(trajectories.atif, session=session))
        terminal.say(Console(), f"{out}: {number} of {len(records)} episodes")
        return
    form = trajectories.chat if side == "agent" else trajectories.user_chat
    rows: Sequence[Row] = trajectories.formed(kept, known, domain, form)
    counts = {"broke": len(records) - len(kept)}
    if passed:
        rows, found = chosen(rows, faultless_user=side == "user")
        counts |= {fate: count for fate, count in found.items() if fate != "kept"}
    left = ", ".join(f"{count} {fate}" for fate, count in counts.items() if count)
    what = f"{out}: {len(rows)} of {len(records)} episodes" + (f" (left out: {left})" if left else "")
    rows = [part for row in rows for part in turns_of(row)] if each_turn else rows
    trajectories.write(out, rows)
    terminal.say(Console(), what + (f", {len(rows)} rows" if each_turn else ""))


def episodes_of(
    run_dir: Path | None, journal: Path | None, tasks: str, config: Path | None
) -> tuple[Domain, Sequence[Task], list[Record]]:
    """Where they were played, of which tasks, and the episodes.

    ValueError: neither a run nor an evaluation is named, or the evaluation played other tasks.
    """
    if run_dir is None and tasks and journal is not None:
        return *named_tasks(tasks, journal), trajectories.read_evaluation(journal)
    if run_dir is None or tasks:
        raise ValueError("give --run-dir, or --tasks and the --journal of an evaluation of them")
    settings = run_config(run_dir, config)
    if journal is not None:
        require_played(journal, read_header(journal), read_inputs(run_dir).tasks.held_out)
        return settings.domain(), tasks_of(run_dir), trajectories.read_evaluation(journal)
    parse = settings.codec(load_tokenizer(run_dir / "tokenizer")).parse
    return settings.domain(), tasks_of(run_dir), trajectories.read_run(run_dir / "trajectories.jsonl", parse)


def tau2_folder(run_dir: Path, domain: Domain, out: Path) -> str:
    """Writes the run's tasks and says how many. ValueError: the domain cannot say its tasks so, or one is not sound."""
    if domain.reading is None or domain.reading.tau2_entry is None:
        raise ValueError(f"{domain.name} does not say how tau2-bench's files have its tasks")
    parts, tasks = read_inputs(run_dir).tasks, tasks_of(run_dir)
    splits = {"test": [task.id for task in parts.held_out], "validation": [task.id for task in parts.validation]}
    measured = {*splits["test"], *splits["validation"]}
    splits |= {"train": [task.id for task in tasks if task.id not in measured], "base": [task.id for task in tasks]}
    name = domain.name.removesuffix("-workflow")
    folder = data.write_tasks(out, name, [*map(domain.reading.tau2_entry, tasks)], splits)
    read = data.tasks(data.find([out]), name)  # as anybody will
    return f"{folder}: {len(read)} tasks, {len(splits['train'])} to train on and {len(splits['test'])} to test on"


def named_tasks(name: str, journal: Path) -> tuple[Domain, Sequence[Task]]:
    """The tasks that an evaluation knows by a name. ValueError: no such tasks, or it played others."""
    if listing := tau2_tasks.listed(name):
        files, domain, tasks = listing
        return tau2_tasks.silent(files, domain), tasks
    header = {} if name.startswith("bfcl-") else read_header(journal)  # ids of BFCL are of one task each
    count = header.get("num_tasks") if name == "workplace" else None
    split = split_of(Evaluation(player="null", tasks=name, num_tasks=count))
    require_played(journal, header, split.tasks)
    return split.domain, split.tasks


def read_header(journal: Path) -> dict[str, Json]:
    """The settings of an evaluation, of its journal's first line."""
    lines = read_log(journal)
    return require_object(lines[0].record, f"{journal}, line 1") if lines else {}


def require_played(journal: Path, header: Mapping[str, Json], tasks: Sequence[Task]) -> None:
    """ValueError: the evaluation played others. They may have the same ids, as authored tasks of another seed do."""
    digest = header.get("tasks_sha256")  # an evolution's trials have none
    if digest is not None and digest != digest_of(sample_tasks(tasks, header["num_tasks"])):
        raise ValueError(f"{journal} is of {header['tasks']}, whose tasks are not those that are named here")


def tasks_of(run_dir: Path) -> list[Task]:
    """The tasks that a run began with, and the variants that joined them."""
    path = run_dir / "candidates.jsonl"
    lines = read_metrics(path) if path.exists() else []
    variants = [task_from_json(line["candidate"]) for line in lines if line.get("candidate")]
    return [*(task for part in read_inputs(run_dir).tasks for task in part), *variants]


def main() -> None:
    with running(Console(stderr=True)):
        tyro.cli(convert, prog=program("convert"), description=__doc__)
