"""Writes what a run or an evaluation played for other packages: a line for each episode.

    python -m scripts.convert --run-dir runs/quickstart --to chat --out sft.jsonl --passed

chat: OpenAI messages with tool calls, to fine-tune on.  atif: documents of the Agent Trajectory Interchange Format.
A run keeps a few trajectories of every tenth step.  --journal names the journal.jsonl of an evaluation instead, which holds
every episode: on the run's tasks, or on those that --tasks names as the evaluation did.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from rods_jax import terminal
from rods_jax.adapters import trajectories
from rods_jax.codecs.tokenizer import load_tokenizer
from rods_jax.commands.common import program, running
from rods_jax.environments.protocol import Domain
from rods_jax.metrics import read_metrics
from rods_jax.run import tau2_tasks
from rods_jax.run.directory import read_inputs
from rods_jax.run.played import run_config
from rods_jax.run.splits import Evaluation, split_of
from rods_jax.task_files import task_from_json
from rods_jax.types import Task


def convert(
    to: Literal["chat", "atif"],
    out: Path,
    run_dir: Path | None = None,
    journal: Path | None = None,
    tasks: str = "",
    config: Path | None = None,
    passed: bool = False,
) -> None:
    """Reads the run, writes `out`, and says how much it holds.

    Args:
        to: the form.
        out: the file to write; must be new.
        run_dir: the run; of an evaluation, the one whose tasks were played.
        journal: of the evaluation whose episodes are written.
        tasks: of the evaluation: tau2-airline-train, bfcl-train or another name that `evaluate --tasks` takes.
        config: the run's, where it has moved.
        passed: writes the episodes of which every check passed, and no others.
    """
    if out.exists():
        raise ValueError(f"{out} is there already: choose another --out")
    known: Sequence[Task]
    if run_dir is not None and not tasks:
        settings = run_config(run_dir, config)
        domain, known = settings.domain(), tasks_of(run_dir)
    elif run_dir is None and tasks and journal is not None:
        domain, known = named_tasks(tasks)
    else:
        raise ValueError("give --run-dir, or --tasks and the --journal of an evaluation of them")
    if journal is not None:
        records = trajectories.read_evaluation(journal)
    elif run_dir is not None:
        parse = settings.codec(load_tokenizer(run_dir / "tokenizer")).parse
        records = trajectories.read_run(run_dir / "trajectories.jsonl", parse)
    kept = [one for one in records if not one.failure and (all(one.rods) or not passed)]
    form = trajectories.chat if to == "chat" else partial(trajectories.atif, session=str(journal or run_dir))
    number = trajectories.export(out, kept, known, domain, form)
    terminal.say(Console(), f"{out}: {number} of {len(records)} episodes")


def named_tasks(name: str) -> tuple[Domain, Sequence[Task]]:
    """The tasks that an evaluation knows by a name. ValueError: no such tasks."""
    if listing := tau2_tasks.listed(name):
        files, domain, tasks = listing
        return tau2_tasks.silent(files, domain), tasks
    split = split_of(Evaluation(player="null", tasks=name))
    return split.domain, split.tasks


def tasks_of(run_dir: Path) -> list[Task]:
    """The tasks that a run began with, and the variants that joined them."""
    path = run_dir / "candidates.jsonl"
    lines = read_metrics(path) if path.exists() else []
    variants = [task_from_json(line["candidate"]) for line in lines if line.get("candidate")]
    return [*(task for part in read_inputs(run_dir).tasks for task in part), *variants]


def main() -> None:
    with running(Console(stderr=True)):
        tyro.cli(convert, prog=program("convert"), description=__doc__)
