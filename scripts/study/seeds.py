"""What the seeds of a study's runs were: exploration, from the folders of the runs that are here.

    python -m scripts.study.seeds --config configs/study_office.py    docs/study/office_seeds.jsonl and .png

A task is stuck if its mean reward lies in the band and its rollouts all pass equally many checks: at the boundary by
RODS' rule, and without a gradient.  It is unfit if its gold dialogue is longer than a rollout may be, so that no rollout can
solve it.  How the pool fared in each third stands beside.  Lines of runs whose folders are elsewhere stay as they are.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from rods_jax.boundary import BAND
from rods_jax.commands.common import running
from rods_jax.config import Config
from rods_jax.files import write_atomically
from rods_jax.journal import read_log
from rods_jax.lengths import exceeded, limits_of, measure
from rods_jax.metrics import read_metrics
from rods_jax.run import directory as place
from rods_jax.run.fidelity import read_outcomes
from rods_jax.types import Json, Task
from scripts.study.draw import COLORS, save
from scripts.study.one import RESULT
from scripts.study.plan import LINES, Planned, Study, config_of, folder_of, load, planned
from scripts.study.pool import bounds_of, drops_groups, stretches
from scripts.study.report import STRETCHES, stretch_rows

PARTS = 3  # of a run's steps
WORDS = {  # of the groups that were trained on, and of the tasks that became seeds of synthesis
    "informative": "groups that differ",
    "stuck": "groups that are stuck",
    "seeds_stuck": "seeds that are stuck",
    "seeds_unfit": "seeds that are unfit",
}
BESIDE = {"stuck_unfit": "... of those that are stuck"}  # in the table alone


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A study's seeds."""

    config: Path
    """a Python file that holds STUDY = Study(...), whose runs are in runs/study/"""


def main() -> None:
    settings, console = tyro.cli(Settings, description=__doc__), Console()
    with running(console):
        study = load(settings.config)
        path = LINES / f"{study.name}_seeds.jsonl"
        found = (line_of(study, run) for run in planned(study))
        lines = merged(path, [line for line in found if line is not None])
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in lines))
        console.print(table_of(study, lines))
        console.print(pool_table_of(study, lines))
        draw(study, lines, path.with_suffix(".png"))
        console.print(f"written: {path} and its picture")


def merged(path: Path, found: Sequence[Mapping[str, Json]]) -> list[Mapping[str, Json]]:
    """The lines that are there, with those of the runs that are here in their places."""
    before = [entry.record for entry in read_log(path)] if path.exists() else []
    lines = {(line["arm"], line["seed"]): line for line in (*before, *found)}
    return list(lines.values())


# ------------------------------------------------------------------------------------------- a run
def line_of(study: Study, run: Planned) -> dict[str, Json] | None:
    """None: the run's folder is not here, or the run has not ended."""
    folder = folder_of(study, run)
    if not (folder / RESULT).exists():
        return None
    records = [record for record in read_metrics(folder / "metrics.jsonl") if record["step"] > 0]
    tasks, tokenizer = place.read_inputs(folder)
    outcomes = list(read_outcomes(read_metrics(folder / "candidates.jsonl"), tasks.seeds))
    variants = [one.candidate for one in outcomes if one.candidate is not None]
    unfit = unfit_of(config_of(study, run), tokenizer, (*tasks.seeds, *variants))
    chosen = [(one.dispatched, one.seed.id) for one in outcomes]
    return {
        "arm": run.arm.name,
        "seed": run.seed,
        "unfit_seed_tasks": [len(unfit & {task.id for task in tasks.seeds}), len(tasks.seeds)],
        "unfit_variants": [len(unfit & {task.id for task in variants}), len(variants)],
        "parts": parts_of(records, chosen, unfit),
        "stretches": stretches(folder, records, PARTS),
    }


def unfit_of(config: Config, tokenizer: Any, tasks: Sequence[Task]) -> set[str]:
    lengths = measure(config.domain(), config.codec(tokenizer), tasks)
    return {name for name, length in lengths.items() if exceeded(length, limits_of(config.rollout))}


def parts_of(records: Sequence[Mapping[str, Any]], chosen: Sequence[tuple[int, str]], unfit: set[str]) -> list[Json]:
    """Of each part of a run's steps: shares of the groups that were trained on, and of the tasks that became seeds.

    chosen: (step, task id) of each seed, whose group was played at that step.  A run that drops groups has no shares of
    groups: its places hold those that were chosen because they differ.
    """
    measured = {
        (record["step"], name): (mean, variance)
        for record in records
        for name, mean, variance in zip(record["task_ids"], record["task_mean"], record["task_variance"], strict=True)
        if mean is not None and variance is not None
    }
    dropping, found = drops_groups(records), []
    for low, high in bounds_of(records, PARTS):
        trained = [group for (step, _), group in measured.items() if low < step <= high and not dropping]
        seeds = [(name, measured[step, name]) for step, name in chosen if low < step <= high]
        found.append(
            {
                "steps": [low + 1, high],
                "informative": _share([variance > 0 for _, variance in trained]),
                "stuck": _share([is_stuck(*group) for group in trained]),
                "seeds": len(seeds),
                "seeds_in_band": _share([BAND[0] <= mean <= BAND[1] for _, (mean, _) in seeds]),
                "seeds_stuck": _share([is_stuck(*group) for _, group in seeds]),
                "seeds_unfit": _share([name in unfit for name, _ in seeds]),
                "stuck_unfit": _share([name in unfit for name, group in seeds if is_stuck(*group)]),
            }
        )
    return found


def is_stuck(mean: float, variance: float) -> bool:
    return variance == 0 and BAND[0] <= mean <= BAND[1]


def _share(found: Sequence[bool]) -> float | None:
    return round(float(np.mean(found)), 4) if found else None


# ---------------------------------------------------------------------------------- table and picture
def means_of(lines: Sequence[Mapping[str, Json]], arm: str, key: str) -> list[float]:
    """Of each part, the mean over the arm's runs that have one; NaN where there is none."""
    values = [[part[key] for part in line["parts"]] for line in lines if line["arm"] == arm]
    mean = np.ma.masked_invalid(np.array(values, float).reshape(-1, PARTS)).mean(0)
    return np.ma.filled(mean, np.nan).tolist()


def table_of(study: Study, lines: Sequence[Mapping[str, Json]]) -> Table:
    """An arm a row: each share in the three parts of a run."""
    shown = WORDS | BESIDE
    table = Table("arm", "runs", *shown.values(), box=None)
    for arm in study.arms:
        if count := sum(line["arm"] == arm.name for line in lines):
            shares = (" ".join(f"{one:.2f}" for one in means_of(lines, arm.name, key)) for key in shown)
            table.add_row(arm.name, str(count), *(text.replace("nan", "-") for text in shares))
    return table


def pool_table_of(study: Study, lines: Sequence[Mapping[str, Json]]) -> Table:
    """A third of an arm a row: what became of its pool and what was written."""
    table = Table(*STRETCHES.split(" | "), box=None)
    for arm in study.arms:
        for row in stretch_rows(lines, arm.name):
            table.add_row(*row)
    return table


def draw(study: Study, lines: Sequence[Mapping[str, Json]], path: Path) -> None:
    """A panel for each share, over the parts of a run."""

    def panels(figure: Figure) -> None:
        for axes, (key, words) in zip(figure.subplots(1, len(WORDS), sharey=True), WORDS.items(), strict=True):
            for number, arm in enumerate(study.arms):
                color = COLORS[number % len(COLORS)]
                for line in lines:
                    if line["arm"] == arm.name and line["parts"][0][key] is not None:
                        axes.plot(range(PARTS), [part[key] for part in line["parts"]], color=color, alpha=0.3, lw=0.6)
                if not np.isnan(means := means_of(lines, arm.name, key)).all():
                    axes.plot(range(PARTS), means, "o-", color=color, lw=2.2, label=arm.name)
            axes.set_xticks(range(PARTS), ["first", "second", "last third"])
            axes.set(title=words, ylim=(0, 1))
            axes.title.set_fontsize(11)
        figure.axes[0].set(ylabel="share")
        figure.axes[0].legend(fontsize=8)

    save(path, (12.4, 3.6), panels)


if __name__ == "__main__":
    main()
