"""The pool with its ancestry, from a run's logs: who descends from whom, how each was measured, when it came and why it left.

The logs are human seeds (tasks/seeds.jsonl), what became of each seed that was sent (candidates.jsonl), and metrics.  A
run of an older version has not recorded who entered and who left: there a variant entered when it was first measured.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from typing import Any, NamedTuple

from rods_jax.types import Json

Records = Sequence[Mapping[str, Any]]
MAX_CHANGES = 200  # between the worlds of a variant and of its parent
_APART = ("id", "version", "scenario", "ancestry", "turns")  # of a task; the rest is its world
_ABSENT = object()


class Forest(NamedTuple):
    """Every task that there ever was, human seeds first."""

    tasks: list[tuple[Mapping[str, Any], Mapping[str, Any] | None]]  # (task, the record of its synthesis)
    by_id: Mapping[str, Mapping[str, Any]]  # the tasks
    rows: list[dict[str, Json]]  # one for each of them
    measured: dict[str, list[tuple[int, int, float, float]]]  # (step, epoch, mean reward, variance) of each group
    recorded: bool  # whether the run wrote down who entered and who left


def _tasks_of(seeds: Records, candidates: Records) -> list[tuple[Mapping[str, Any], Mapping[str, Any] | None]]:
    """(task, the record of its synthesis); one that came twice once."""
    made = [(record["candidate"], record) for record in candidates if record["candidate"]]
    every: dict[str, tuple[Mapping[str, Any], Mapping[str, Any] | None]] = {task["id"]: (task, None) for task in seeds}
    for task, record in made:
        every.setdefault(task["id"], (task, record))
    return list(every.values())


def forest(seeds: Records, candidates: Records, metrics: Records) -> Forest:
    """All of it, of a run's three logs."""
    entered, left = _events(metrics)
    measured = _measurements(metrics)
    recorded = any("entered_ids" in record for record in metrics)
    tasks, rows = _tasks_of(seeds, candidates), []
    for task, record in tasks:
        seen = measured.get(task["id"], [])
        first = entered.get(task["id"], None if recorded or record is None or not seen else seen[0][0])
        gone = left.get(task["id"])
        if gone and seen and seen[-1][0] > gone[0]:  # it came back with a later stage
            gone = None
        ancestry = task.get("ancestry") or [None]
        rows.append(
            {
                "id": task["id"],
                "parent": ancestry[-1],
                "category": task["category"],
                "state": "left" if gone else "in the pool" if record is None or first is not None else "in the queue",
                "written": None if record is None else record["step"],
                "entered": first,
                "left": gone,
                "means": [round(mean, 3) for _, _, mean, _ in seen],
                "variance": round(seen[-1][3], 4) if seen else None,
            }
        )
    return Forest(tasks, {task["id"]: task for task, _ in tasks}, rows, measured, recorded)


def described(found: Forest, number: int) -> dict[str, Json]:
    """The task of a row: its measurements, and what changed against its parent. IndexError: there is no such row."""
    (task, record), row = found.tasks[number], found.rows[number]
    parent = found.by_id.get(row["parent"])
    before, after = ({key: x for key, x in one.items() if key not in _APART} for one in (parent or task, task))
    return row | {
        "turns": task["turns"],
        "parent_turns": parent and parent["turns"],
        "changes": list(islice(changes(before, after), MAX_CHANGES)),
        "measured": found.measured.get(task["id"], []),
        "synthesis": record and {key: record[key] for key in ("seed", "dispatched", "rejections", "exchanges")},
    }


def changes(before: Json, after: Json, path: str = "") -> Iterator[tuple[str, str | None, str | None]]:
    """(dotted path, before, after) of each part in which two JSON values differ, as JSON text; None: it is absent."""
    if isinstance(before, dict) and isinstance(after, dict):
        parts = [(name, before.get(name, _ABSENT), after.get(name, _ABSENT)) for name in before | after]
    elif isinstance(before, list) and isinstance(after, list):
        parts = [(str(n), *pair) for n, pair in enumerate(zip_longest(before, after, fillvalue=_ABSENT))]
    else:
        if before is _ABSENT or after is _ABSENT or json.dumps(before) != json.dumps(after):
            yield path, _text(before), _text(after)
        return
    for name, x, y in parts:
        yield from changes(x, y, f"{path}.{name}" if path else name)


def _text(value: Any) -> str | None:
    return None if value is _ABSENT else json.dumps(value, ensure_ascii=False)


def _events(metrics: Records) -> tuple[dict[str, int], dict[str, tuple[int, str]]]:
    """(step at which each variant entered, step at which and reason for which each task left), the latest of each."""
    entered: dict[str, int] = {}
    left: dict[str, tuple[int, str]] = {}
    for record in metrics:
        entered |= dict.fromkeys(record.get("entered_ids", ()), record["step"])
        for reason, names in record.get("left_ids", {}).items():
            left |= dict.fromkeys(names, (record["step"], reason))
    return entered, left


def _measurements(metrics: Records) -> dict[str, list[tuple[int, int, float, float]]]:
    """(step, epoch, mean reward, variance) of each group, by task; what is not finite is left out."""
    found: dict[str, list[tuple[int, int, float, float]]] = {}
    for record in metrics:
        columns = (record.get(name) or () for name in ("task_ids", "task_mean", "task_variance"))
        for task_id, mean, variance in zip(*columns):
            if mean is not None and variance is not None:
                found.setdefault(task_id, []).append((record["step"], record["epoch"], mean, variance))
    return found
