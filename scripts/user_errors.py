"""How often the help desk's user errs: errors in a conversation, as the detectors find them, on held-out tasks.

    python -m scripts.user_errors runs/helpdesk_user runs/helpdesk_user_tuned --json errors.json

Each argument is a run on the user's side, such as configs/helpdesk_user.py; its domain's agent, the demonstrator without
bad habits, talks to its policy, sampled as in training.  All play the held-out tasks of the first run.  Brackets are 95 %
bootstrap intervals over tasks.
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from rods_jax import terminal
from rods_jax.dialogue import Record
from rods_jax.environments.conversation import STOP, TRANSFER
from rods_jax.environments.helpdesk.domain import customer
from rods_jax.environments.helpdesk.errors import ACTS, CONTRADICTS, IGNORES, INVENTS, STOPS, user_errors
from rods_jax.environments.scoring import RODS
from rods_jax.environments.turned import back
from rods_jax.evaluation import bootstrap
from rods_jax.files import require_own, write_atomically
from rods_jax.generation import Sampling
from rods_jax.run.directory import read_inputs
from rods_jax.run.played import played, policy_player, run_config
from rods_jax.types import Json, Task

KINDS = IGNORES, CONTRADICTS, ACTS, STOPS, INVENTS


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Errors of models that speak for the user."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """whose policies are users"""
    num_tasks: int = 128
    """held-out tasks of the first run, one conversation each"""
    json: Path | None = None
    """where the table is written as JSON too"""


def main() -> None:
    settings, console = tyro.cli(Settings, description=__doc__), Console()
    terminal.outlive_output()
    try:
        if not settings.runs:
            raise ValueError("name the runs whose policies speak for the user")
        if settings.num_tasks < 1:
            raise ValueError("--num-tasks must be at least 1")
        if settings.json is not None:
            require_own(settings.json, list(map(str, settings.runs)))
        tasks = read_inputs(settings.runs[0]).tasks.held_out[: settings.num_tasks]
        result = {str(run): measured(tasks, conversations_with(run, tasks)) for run in settings.runs}
        if settings.json is not None:
            write_atomically(settings.json, json.dumps(result, indent=2, allow_nan=False) + "\n")
    except (ValueError, OSError) as error:
        terminal.refuse(console, error)
        sys.exit(2)
    print_table(result, len(tasks), console)


def conversations_with(run: Path, tasks: Sequence[Task]) -> list[Record]:
    """A conversation of each task. ValueError: the run is not on a user's side."""
    own = played(run, run_config(run, None))
    domain, sizes = own.config.domain(), own.config.rollout
    if domain.name != customer().name:
        raise ValueError(f"{run} is not on the side of the help desk's user: its domain is {domain.name}")
    sampling = Sampling(sizes.temperature, sizes.top_p, sizes.top_k)
    play = policy_player(own, domain, tasks, rollouts=1, sampling=sampling, seed=own.config.seed, rules=RODS)
    records = {record.task_id: record for record in play([(task, 0) for task in tasks])}
    return [records[task.id] for task in tasks]


def measured(tasks: Sequence[Task], records: Sequence[Record]) -> dict[str, Json]:
    """Errors in a conversation, by kind and together; conversations that broke are counted, and in no mean."""
    whole = [(task, record) for task, record in zip(tasks, records, strict=True) if not record.failure]
    if not records:
        raise ValueError("there are no conversations: the run has no held-out tasks")
    if not whole:
        raise ValueError(f"every conversation broke, the first by {records[0].failure}")
    found = [
        Counter(error.kind for error in user_errors(task, back(record.lines), (STOP, TRANSFER)))
        for task, record in whole
    ]
    rows = {kind: [one[kind] for one in found] for kind in KINDS} | {
        "errors": [one.total() for one in found],
        "flawless": [not one for one in found],
        "solved": [record.rods[0] for _, record in whole],
    }
    intervals = {name: _interval(np.array(values, np.float64)) for name, values in rows.items()}
    return intervals | {"conversations": len(whole), "broke": len(records) - len(whole)}


def _interval(values_T: np.ndarray) -> dict[str, float]:
    _, draws = bootstrap(values_T[:, None], np.random.default_rng(0))
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"mean": float(values_T.mean()), "low": float(low), "high": float(high)}


def print_table(result: Mapping[str, Mapping[str, Json]], num_tasks: int, console: Console) -> None:
    terminal.say(console, f"errors of the user in a conversation, {num_tasks} held-out tasks", "bold")
    table = Table("", *result, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("errors", *KINDS, "flawless", "solved"):
        cells = ("{mean:.2f} [{low:.2f}, {high:.2f}]".format(**one[name]) for one in result.values())
        table.add_row(name, *map(terminal.harmless_text, cells))
    for name in ("conversations", "broke"):
        table.add_row(name, *(str(one[name]) for one in result.values()))
    console.print(table)


if __name__ == "__main__":
    main()
