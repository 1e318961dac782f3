"""The replay pool: human seeds and generated tasks that come and go with the policy (RODS section 6).

    staged -> trial -> active -> retired {mastered, hard, pruned}

A generated task waits in the staged queue until the epoch after its synthesis, is on trial until
its first measurement, and leaves when the policy masters it or cannot do it.  All functions are
pure; the state is a small host record.

No class and no call pattern takes more than `max_share` of the pool by injection: neither do tasks that
are overrepresented, the queue counted in, become seeds, nor do candidates enter that would make them so.

Left out on purpose: retirement for staleness (every active task is in every epoch, so no measurement is
older than one epoch) and choosing seeds (boundary.py, on device).
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import cache
from statistics import linear_regression
from typing import Literal, NamedTuple

import numpy as np

from rods_jax.config import ReplaySettings
from rods_jax.task_files import task_from_json, task_to_json
from rods_jax.types import Json, Task

REASONS = ("mastered", "hard", "pruned", "duplicate")


class Measurement(NamedTuple):
    """Turns passed out of all turns of a task's rollouts (G * U), at a training step."""

    passed: int
    total: int
    step: int


@dataclass(frozen=True)
class Item:
    """A task in the pool."""

    task: Task
    measurements: tuple[Measurement, ...] = ()  # the latest few, newest last
    seeded: int | None = None  # step at which it was last dispatched as a seed

    @property
    def status(self) -> Literal["human", "trial", "active"]:
        """Burn-in is one measurement long (RODS section 14, 12)."""
        if not self.task.ancestry:
            return "human"
        return "active" if self.measurements else "trial"


class Staged(NamedTuple):
    """A validated candidate and the epoch that made it."""

    task: Task
    epoch: int


class Retired(NamedTuple):
    """A task that left, why, and its last measurement."""

    task_id: str
    reason: str  # one of REASONS
    epoch: int
    last: Measurement | None


class Events(NamedTuple):
    """What the start of an epoch changed."""

    retired: tuple[Retired, ...] = ()
    injected: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReplayState:
    """The pool; generated items live in a ring of `settings.capacity` slots."""

    settings: ReplaySettings
    seeds: tuple[Item, ...]
    slots: tuple[Item | None, ...]
    cursor: int = 0  # the slot at which the search for a free one begins
    staged: tuple[Staged, ...] = ()  # oldest first
    retired: tuple[Retired, ...] = ()  # the latest few
    retired_counts: tuple[int, ...] = (0,) * len(REASONS)  # all, in the order of REASONS
    injected: int = 0
    epoch: int = -1  # the last one begun

    @property
    def items(self) -> Iterator[Item]:
        """All that is trained on: human seeds, then generated items in slot order."""
        yield from self.seeds
        yield from (item for item in self.slots if item is not None)


def create(tasks: Sequence[Task], settings: ReplaySettings) -> ReplayState:
    """A pool of human seeds; raises ValueError on a repeated id or a task that has ancestors."""
    ids = [task.id for task in tasks]
    if len(set(ids)) < len(ids):
        raise ValueError(
            f"task ids must be unique: {sorted(i for i in set(ids) if ids.count(i) > 1)} are repeated"
        )
    if generated := [task.id for task in tasks if task.ancestry]:
        raise ValueError(f"human seeds have no ancestry: {generated} do")
    return ReplayState(settings, tuple(map(Item, tasks)), (None,) * settings.capacity)


def stage(state: ReplayState, tasks: Sequence[Task], epoch: int) -> ReplayState:
    """Queues what `epoch` synthesised; an id that is already in the pool or queue is counted as duplicate."""
    if human := [task.id for task in tasks if not task.ancestry]:
        raise ValueError(f"a generated task names its ancestry: {human} do not")
    taken = {item.task.id for item in state.items} | {entry.task.id for entry in state.staged}
    staged, duplicates = list(state.staged), []
    for task in tasks:
        if task.id in taken:
            duplicates.append(Retired(task.id, "duplicate", epoch, None))
        else:
            taken.add(task.id)
            staged.append(Staged(task, epoch))
    return _log(replace(state, staged=tuple(staged)), duplicates)


def begin_epoch(state: ReplayState, epoch: int) -> tuple[ReplayState, Events]:
    """Retires, prunes and injects, in this order (RODS section 6); each epoch begins once.

    At most floor(injection_fraction * pool after retirement) candidates enter, oldest first (or by the
    boundary scores foreseen of their seeds, newest first in ties), only ones that an earlier epoch staged
    and that keep to `max_share` of the same pool, and no more than there are free slots.  The others wait.
    """
    if epoch <= state.epoch:
        raise ValueError(f"epoch {epoch} cannot begin after epoch {state.epoch}")
    settings = state.settings

    retired = [
        Retired(item.task.id, reason, epoch, item.measurements[-1])
        for item in state.items
        if (reason := _retirement(item, settings)) is not None
    ]
    state = _remove(state, retired)

    active = active_tasks(state)
    due = [entry.task for entry in state.staged if entry.epoch < epoch]
    if settings.nearest_first:
        scores = _foreseen_scores(state)
        due = sorted(due[::-1], key=lambda task: -scores.get(task.ancestry[-1], 0))
    due = _varied(due, active, settings)[: int(_exact(settings.injection_fraction) * len(active))]
    free = state.slots.count(None)
    if settings.replace and len(due) > free:
        measured = [item for item in state.slots if item is not None and item.measurements]
        measured.sort(key=lambda i: (_boundary_score(_mean(i, settings)), i.measurements[-1].step, i.task.id))
        pruned = [Retired(i.task.id, "pruned", epoch, i.measurements[-1]) for i in measured[: len(due) - free]]
        state = _remove(state, pruned)
        retired += pruned
        free += len(pruned)

    injected = due[:free]
    state = _log(_insert(replace(state, epoch=epoch), injected), retired)
    return state, Events(tuple(retired), tuple(task.id for task in injected))


def observe(state: ReplayState, task_id: str, passed: int, total: int, step: int) -> ReplayState:
    """Records that `passed` of `total` (> 0) turns of the task's rollouts succeeded at `step`.

    Raises KeyError when the task is not in the pool: read a step's results before the next epoch begins.
    """
    if not 0 <= passed <= total or total == 0:
        raise ValueError(f"task {task_id}: {passed} passed turns of {total} is no measurement")
    measurement = Measurement(int(passed), int(total), int(step))

    def measured(item: Item) -> Item:
        return replace(item, measurements=(*item.measurements, measurement)[-state.settings.history :])

    return _change(state, task_id, measured)


def mark_seed(state: ReplayState, task_id: str, step: int) -> ReplayState:
    """Starts the cooldown of a task that was dispatched as a seed; KeyError when it is not in the pool."""
    return _change(state, task_id, lambda item: replace(item, seeded=int(step)))


def eligible(state: ReplayState, task_ids: Sequence[str], step: int) -> list[bool]:
    """Whether each task's cooldown is over and the pool has room for its like; KeyError: one is not in the pool.

    What became of the seeds of the step before does not count yet: it arrives when the update is under way, or
    earlier, where the run was stopped between the two.
    """
    cooldown, active = state.settings.cooldown, active_tasks(state)
    fresh = {item.task.id for item in state.items if item.seeded == step - 1}
    queued = [entry.task for entry in state.staged if entry.task.ancestry[-1] not in fresh]
    counts, limit = _traits_of((*active, *queued)), _limit(active, state.settings)
    items = [_find(state, task_id) for task_id in task_ids]
    return [
        (item.seeded is None or step - item.seeded >= cooldown) and _has_room(item.task, counts, limit)
        for item in items
    ]


def earlier(state: ReplayState, task_id: str, step: int) -> tuple[float, float]:
    """Turns passed and all turns that were measured before `step`, halved after every `half_life` steps.

    (0, 0) without a half-life. KeyError: the task is not in the pool.
    """
    return _discounted(_find(state, task_id).measurements, step, state.settings.half_life)


def enter_stage(state: ReplayState, tasks: Sequence[Task]) -> ReplayState:
    """Replaces the human seeds by those of a curriculum stage; generated items, queue and counts stay."""
    known = {item.task.id: item for item in state.seeds}
    return replace(state, seeds=tuple(known.get(task.id, Item(task)) for task in tasks))


def all_tasks(state: ReplayState) -> tuple[Task, ...]:
    """Everything in the pool and in the queue: what a new candidate must not repeat."""
    return active_tasks(state) + tuple(entry.task for entry in state.staged)


def active_tasks(state: ReplayState) -> tuple[Task, ...]:
    """What an epoch trains on, human seeds first, in a fixed order."""
    return tuple(item.task for item in state.items)


def epoch_batches(state: ReplayState, *, seed: int, epoch: int, batch_size: int) -> tuple[tuple[Task, ...], ...]:
    """Every active task once, shuffled by (seed, epoch); the first ones again to fill the last batch."""
    tasks = active_tasks(state)
    if len(tasks) < batch_size:
        raise ValueError(f"a batch of {batch_size} different tasks cannot be drawn from a pool of {len(tasks)}")
    order = np.random.default_rng([seed, epoch]).permutation(len(tasks))
    shuffled = [tasks[i] for i in order]
    shuffled += shuffled[: -len(tasks) % batch_size]
    return tuple(tuple(shuffled[i : i + batch_size]) for i in range(0, len(shuffled), batch_size))


def counts(state: ReplayState) -> dict[str, int]:
    """Pool composition, zones of the latest measurements, and totals since the start, as metrics."""
    result = {f"pool_{status}": 0 for status in ("human", "trial", "active")}
    result |= {"pool_staged": len(state.staged)}
    result |= {f"zone_{zone}": 0 for zone in ("hard", "boundary", "mastered")}
    for item in state.items:
        result[f"pool_{item.status}"] += 1
        if item.measurements:
            result[f"zone_{_zone(item, state.settings)}"] += 1
    result |= {f"retired_{reason}": n for reason, n in zip(REASONS, state.retired_counts, strict=True)}
    return result | {"injected": state.injected}


def to_json(state: ReplayState) -> dict[str, Json]:
    """The whole state as plain JSON values."""
    return {
        "settings": asdict(state.settings),
        "seeds": [_item_to_json(item) for item in state.seeds],
        "slots": [item and _item_to_json(item) for item in state.slots],
        "cursor": state.cursor,
        "staged": [[task_to_json(entry.task), entry.epoch] for entry in state.staged],
        "retired": [[*entry[:-1], entry.last and list(entry.last)] for entry in state.retired],
        "retired_counts": list(state.retired_counts),
        "injected": state.injected,
        "epoch": state.epoch,
    }


def from_json(record: Mapping[str, Json]) -> ReplayState:
    """Inverse of `to_json`: `from_json(to_json(state)) == state`."""
    return ReplayState(
        settings=ReplaySettings(**record["settings"]),
        seeds=tuple(_item_from_json(item) for item in record["seeds"]),
        slots=tuple(item and _item_from_json(item) for item in record["slots"]),
        cursor=record["cursor"],
        staged=tuple(Staged(task_from_json(task), epoch) for task, epoch in record["staged"]),
        retired=tuple(Retired(*entry, last and Measurement(*last)) for *entry, last in record["retired"]),
        retired_counts=tuple(record["retired_counts"]),
        injected=record["injected"],
        epoch=record["epoch"],
    )


# ------------------------------------------------------------------------------------------ rules
@cache
def _exact(threshold: float) -> Fraction:
    """0.2 as 1/5: the decimal that was written, not the binary number nearest to it."""
    return Fraction(repr(float(threshold)))


def _discounted(measurements: Sequence[Measurement], step: int, half_life: float) -> tuple[float, float]:
    weights = [2.0 ** ((m.step - step) / half_life) if half_life else 0.0 for m in measurements]
    passed = sum(weight * m.passed for weight, m in zip(weights, measurements, strict=True))
    return float(passed), float(sum(weight * m.total for weight, m in zip(weights, measurements, strict=True)))


def _mean(item: Item, settings: ReplaySettings) -> Fraction:
    """Of the latest measurement, and of the ones before it as far as the half-life remembers them."""
    *before, latest = item.measurements
    passed, total = _discounted(before, latest.step, settings.half_life)
    return (latest.passed + Fraction(passed)) / (latest.total + Fraction(total))


def _boundary_score(mean: Fraction | float) -> Fraction | float:
    return 4 * mean * (1 - mean)


def _foreseen_scores(state: ReplayState) -> dict[str, float]:
    """Boundary scores of the measured tasks half an epoch ahead, if their means go on as the human seeds' do.

    How far those come in a step is the slope of the line through their measurements: an epoch visits them in random
    order, so the ones of its beginning are like the ones of its end.  An epoch is as long as the latest lie apart.
    """
    measured = [item for item in state.items if item.measurements]
    latest = [item.measurements[-1].step for item in measured]
    known = [(m.step, m.passed / m.total) for item in state.seeds for m in item.measurements]
    slope = linear_regression(*zip(*known)).slope if len({step for step, _ in known}) > 1 else 0.0
    first, last = min(latest, default=0), max(latest, default=0)
    then = last + (last - first + 1) / 2

    def foreseen(item: Item) -> float:
        return float(_mean(item, state.settings)) + slope * (then - item.measurements[-1].step)

    return {item.task.id: _boundary_score(min(max(foreseen(item), 0.0), 1.0)) for item in measured}


def _zone(item: Item, settings: ReplaySettings) -> str:
    mean = _mean(item, settings)
    if mean < _exact(settings.lower):
        return "hard"
    return "boundary" if mean <= _exact(settings.upper) else "mastered"


def _retirement(item: Item, settings: ReplaySettings) -> str | None:
    """A human seed leaves only when mastered, and only by choice; a hard one stays to be learned."""
    human = item.status == "human"
    if not item.measurements or not (settings.retire_seeds if human else settings.retire_generated):
        return None
    mean = _mean(item, settings)
    if mean > _exact(settings.retire_above):
        return "mastered"
    return "hard" if mean < _exact(settings.lower) and not human else None


def _varied(candidates: Sequence[Task], active: Sequence[Task], settings: ReplaySettings) -> list[Task]:
    """The candidates, in order, that can enter without overrepresenting a class or a call pattern."""
    counts, limit, varied = _traits_of(active), _limit(active, settings), []
    for task in candidates:
        if _has_room(task, counts, limit):
            varied.append(task)
            counts.update(_traits(task))
    return varied


def _limit(active: Sequence[Task], settings: ReplaySettings) -> Fraction | float:
    """How many tasks may have a trait in common."""
    return math.inf if settings.max_share == 1 else _exact(settings.max_share) * len(active)


def _traits_of(tasks: Iterable[Task]) -> Counter:
    """How many of the tasks have each trait."""
    return Counter(trait for task in tasks for trait in _traits(task))


def _traits(task: Task) -> frozenset:
    """The classes of a task and its call pattern: the tools of each turn, in order."""
    pattern = tuple(tuple(call.name for call in turn.gold) for turn in task.turns)
    return frozenset((*task.classes, pattern))


def _has_room(task: Task, counts: Counter, limit: Fraction | float) -> bool:
    return all(counts[trait] + 1 <= limit for trait in _traits(task))


# -------------------------------------------------------------------------------------- the store
def _insert(state: ReplayState, tasks: Sequence[Task]) -> ReplayState:
    """Moves staged tasks into the next free slots, from the cursor on; a live item is never overwritten."""
    slots, cursor = list(state.slots), state.cursor
    for task in tasks:
        while slots[cursor] is not None:
            cursor = (cursor + 1) % len(slots)
        slots[cursor] = Item(task)
        cursor = (cursor + 1) % len(slots)
    ids = {task.id for task in tasks}
    staged = tuple(entry for entry in state.staged if entry.task.id not in ids)
    return replace(state, slots=tuple(slots), cursor=cursor, staged=staged, injected=state.injected + len(tasks))


def _remove(state: ReplayState, retired: Sequence[Retired]) -> ReplayState:
    ids = {entry.task_id for entry in retired}
    seeds = tuple(item for item in state.seeds if item.task.id not in ids)
    slots = tuple(None if item is not None and item.task.id in ids else item for item in state.slots)
    return replace(state, seeds=seeds, slots=slots)


def _log(state: ReplayState, retired: Sequence[Retired]) -> ReplayState:
    reasons = [entry.reason for entry in retired]
    totals = tuple(n + reasons.count(reason) for n, reason in zip(state.retired_counts, REASONS, strict=True))
    return replace(state, retired=(*state.retired, *retired)[-state.settings.log_size :], retired_counts=totals)


def _find(state: ReplayState, task_id: str) -> Item:
    for item in state.items:
        if item.task.id == task_id:
            return item
    raise KeyError(f"task {task_id} is not in the pool")


def _change(state: ReplayState, task_id: str, change: Callable[[Item], Item]) -> ReplayState:
    new = change(_find(state, task_id))
    seeds = tuple(new if item.task.id == task_id else item for item in state.seeds)
    slots = tuple(new if item is not None and item.task.id == task_id else item for item in state.slots)
    return replace(state, seeds=seeds, slots=slots)


def _item_to_json(item: Item) -> dict[str, Json]:
    return {
        "task": task_to_json(item.task),
        "measurements": [list(m) for m in item.measurements],
        "seeded": item.seeded,
    }


def _item_from_json(record: Mapping[str, Json]) -> Item:
    measurements = tuple(Measurement(*m) for m in record["measurements"])
    return Item(task_from_json(record["task"]), measurements, record["seeded"])
