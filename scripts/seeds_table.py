"""One row of a table from several evaluations: a policy's scores by category, over the seeds it was trained with.

    python -m scripts.evaluate --player runs/seed0 --tasks bfcl-held-out --protocol table1 --out runs/evaluations/0
    python -m scripts.seeds_table runs/evaluations/0 runs/evaluations/1 runs/evaluations/2

Each folder holds an evaluation's scores.json.  All must have the same protocol, rules, tasks and sizes: a difference is
named and refused.  Prints mean, standard deviation (n - 1) and range over the folders; --json FILE writes them too.
Left out on purpose: intervals over tasks, which each evaluation has, and tests between policies.
"""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from rods_jax import strict_json, terminal
from rods_jax.files import require_own, write_atomically
from rods_jax.run.scores_table import METRICS
from rods_jax.types import Json

SAME = (
    "protocol",
    "tasks",
    "tasks_sha256",
    "num_tasks",
    "rollouts",
    "rules",
    "max_attempts",
    "temperature",
    "top_p",
)
ALSO_SAME = ("max_tokens", "user", "judge", "extra")  # where an evaluation has them


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Scores of one policy over several seeds."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """of finished evaluations, one for each seed"""
    json: Path | None = None
    """where the table is written as JSON too"""


def main() -> None:
    settings, console = tyro.cli(Settings, description=__doc__), Console()
    terminal.outlive_output()
    try:
        if len({folder.resolve() for folder in settings.folders}) < len(settings.folders):
            raise ValueError("a folder is given twice, which is no second seed")
        if settings.json is not None:
            require_own(settings.json, ("players", "rows"))
        result = over_seeds([read_scores(folder) for folder in settings.folders])
        if settings.json is not None:
            write_atomically(settings.json, json.dumps(result, indent=2, allow_nan=False) + "\n")
    except (ValueError, OSError) as error:
        terminal.refuse(console, error)
        sys.exit(2)
    print_table(result, console)


def read_scores(folder: Path) -> Mapping[str, Json]:
    """ValueError: the folder holds no finished evaluation."""
    path = folder / "scores.json"
    if not path.is_file():
        raise ValueError(f"{folder} holds no finished evaluation: {path.name} is missing")
    scores = strict_json.loads(path.read_bytes(), str(path))
    if not isinstance(scores, dict):
        raise ValueError(f"{path} holds no scores")
    if missing := [key for key in (*SAME, "player", "scores") if key not in scores]:
        raise ValueError(f"{path} lacks {', '.join(missing)}: it was written by another version")
    return scores


def over_seeds(results: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """Mean, standard deviation and range of each score; ValueError: none, or of different protocols."""
    if not results:
        raise ValueError("give the folders of finished evaluations, one for each seed")
    first = results[0]
    for other in results[1:]:
        if changed := [key for key in (*SAME, *ALSO_SAME) if other.get(key) != first.get(key)]:
            values = f"{first.get(changed[0])} and {other.get(changed[0])}"
            raise ValueError(f"evaluations of another {', '.join(changed)} make no one row: {values}")
        if odd := first["scores"]["rows"].keys() ^ other["scores"]["rows"].keys():
            raise ValueError(f"evaluations of another set of rows make no one row: {', '.join(sorted(odd))}")
    rows = {}
    for name in first["scores"]["rows"]:
        rows[name] = {}
        for metric in METRICS:
            some = [result["scores"]["rows"][name][metric] for result in results]
            rows[name][metric] = None if None in some else _spread([one["mean"] for one in some])
    return {key: first[key] for key in SAME} | {"players": [result["player"] for result in results], "rows": rows}


def _spread(values: Sequence[float]) -> dict[str, Json]:
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "sd": deviation, "low": min(values), "high": max(values)}


def print_table(result: Mapping[str, Json], console: Console) -> None:
    seeds = len(result["players"])
    title = f"{result['tasks']}, protocol {result['protocol']}, {result['num_tasks']} tasks, {seeds} seeds"
    terminal.say(console, title, "bold")
    terminal.say(console, f"sha256 of the tasks: {result['tasks_sha256']}")
    table = Table("mean (sd) [range]", *METRICS.values(), box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name, row in result["rows"].items():
        table.add_row(*map(terminal.harmless_text, (name, *(_shown(row[metric]) for metric in METRICS))))
    console.print(table)


def _shown(one: Mapping[str, float] | None) -> str:
    if one is None:
        return "-"
    deviation = "" if one["sd"] is None else f" ({one['sd']:.3f})"
    return f"{one['mean']:.3f}{deviation} [{one['low']:.3f}, {one['high']:.3f}]"


if __name__ == "__main__":
    main()
