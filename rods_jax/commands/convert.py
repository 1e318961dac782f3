"""Writes what a run or an evaluation played for other packages: a line for each episode.

    python -m scripts.convert --run-dir runs/quickstart --to chat --out sft.jsonl --passed

chat: OpenAI messages with tool calls, to fine-tune on.  atif: documents of the Agent Trajectory Interchange Format.
A run keeps a few trajectories of every tenth step.  --journal names the journal.jsonl of an evaluation on its tasks
instead, which holds every episode.
"""

from functools import partial
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from rods_jax import terminal
from rods_jax.adapters import trajectories
from rods_jax.codecs.tokenizer import load_tokenizer
from rods_jax.commands.common import program, running
from rods_jax.metrics import read_metrics
from rods_jax.run.directory import read_inputs
from rods_jax.run.played import run_config
from rods_jax.task_files import task_from_json
from rods_jax.types import Task


def convert(
    run_dir: Path,
    to: Literal["chat", "atif"],
    out: Path,
    journal: Path | None = None,
    config: Path | None = None,
    passed: bool = False,
) -> None:
    """Reads the run, writes `out`, and says how much it holds.

    Args:
        run_dir: the run; of an evaluation, the one whose tasks were played.
        to: the form.
        out: the file to write; must be new.
        journal: of the evaluation whose episodes are written.
        config: the run's, where it has moved.
        passed: writes the episodes of which every check passed, and no others.
    """
    if out.exists():
        raise ValueError(f"{out} is there already: choose another --out")
    settings = run_config(run_dir, config)
    domain = settings.domain()
    if journal is None:
        parse = settings.codec(load_tokenizer(run_dir / "tokenizer")).parse
        records = trajectories.read_run(run_dir / "trajectories.jsonl", parse)
    else:
        records = trajectories.read_evaluation(journal)
    kept = [one for one in records if not one.failure and (all(one.rods) or not passed)]
    form = trajectories.chat if to == "chat" else partial(trajectories.atif, session=str(journal or run_dir))
    number = trajectories.export(out, kept, tasks_of(run_dir), domain, form)
    terminal.say(Console(), f"{out}: {number} of {len(records)} episodes")


def tasks_of(run_dir: Path) -> list[Task]:
    """The tasks that a run began with, and the variants that joined them."""
    path = run_dir / "candidates.jsonl"
    lines = read_metrics(path) if path.exists() else []
    variants = [task_from_json(line["candidate"]) for line in lines if line.get("candidate")]
    return [*(task for part in read_inputs(run_dir).tasks for task in part), *variants]


def main() -> None:
    with running(Console(stderr=True)):
        tyro.cli(convert, prog=program("convert"), description=__doc__)
