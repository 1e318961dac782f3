"""How a run's pool fares over its length: the same figures for each equal stretch of its steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rods_jax.metrics import read_metrics
from rods_jax.run.fidelity import first_measurements, read_outcomes
from rods_jax.synthesis.diversity import diversity
from rods_jax.synthesis.fidelity import BAND
from rods_jax.task_files import read_tasks
from rods_jax.types import Json, Task


def stretches(run: Path, records: Sequence[Mapping[str, Any]], count: int) -> list[dict[str, Json]]:
    """`count` stretches of the steps of a run and its metrics, each with what was trained on in it and what was written in it.

    "life" is the median number of steps from a variant's first training to its last, over variants that were first trained
    on in the stretch: those of the last stretches are still alive.  "calls" and "turns" are means over a variant, so that a
    drift of the structure shows against the seeds'.
    """
    records = [record for record in records if record["step"] > 0]
    outcomes = read_outcomes(read_metrics(run / "candidates.jsonl"), read_tasks(run / "tasks/seeds.jsonl"))
    written = [(one.settled, one.candidate) for one in outcomes if one.candidate is not None]
    first, last = first_measurements(records), _last_trained(records)
    dropping, found = drops_groups(records), []
    for low, high in bounds_of(records, count):
        inside = [record for record in records if low < record["step"] <= high]
        variants = [task for step, task in written if low < step <= high]
        entered = [task.id for _, task in written if task.id in first and low < first[task.id].step <= high]
        means = np.array([mean for record in inside for mean in record["task_mean"] if mean is not None])
        found.append(
            {
                "steps": [low + 1, high],
                "trained_progress": round(float(means.mean()), 4),
                "in_band": round(float(((means >= BAND[0]) & (means <= BAND[1])).mean()), 4),
                "zero_variance": None if dropping else without_variance(inside),
                "pool": inside[-1]["pool_human"] + inside[-1]["pool_active"],
                "boundary": inside[-1]["zone_boundary"],
                "first_in_band": [sum(BAND[0] <= first[name].mean <= BAND[1] for name in entered), len(entered)],
                "life": float(np.median([last[name] - first[name].step for name in entered])) if entered else None,
                **_structure(variants),
            }
        )
    return found


def drops_groups(records: Sequence[Mapping[str, Any]]) -> bool:
    """The places of such a run's steps say nothing of how many groups were played that teach nothing."""
    return any("tasks_kept" in record for record in records)


def without_variance(records: Sequence[Mapping[str, Any]]) -> float:
    return round(float(np.mean([record["zero_variance"] for record in records])), 4)


def bounds_of(records: Sequence[Mapping[str, Any]], count: int) -> list[tuple[int, int]]:
    """(low, high) of `count` equal stretches of a run's steps: those above low, up to high."""
    bounds = np.linspace(0, records[-1]["step"], count + 1).round().astype(int).tolist()
    return list(zip(bounds, bounds[1:]))


def _last_trained(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {name: record["step"] for record in records for name in record["task_ids"]}


def _structure(tasks: Sequence[Task]) -> dict[str, Json]:
    calls = [sum(len(turn.gold) for turn in task.turns) for task in tasks]
    return {
        "variants": len(tasks),
        "calls": round(float(np.mean(calls)), 3) if calls else None,
        "turns": round(float(np.mean([len(task.turns) for task in tasks])), 3) if calls else None,
        "patterns": round(diversity(tasks).effective_patterns, 2),
    }
