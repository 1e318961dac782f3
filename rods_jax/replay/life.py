"""The life of a task in the pool, verb by verb: staged, injected, measured, retired."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np

from rods_jax.config import ReplaySettings
from rods_jax.replay.rules import (
    discounted,
    exact,
    foreseen_scores,
    has_room,
    host_boundary_score,
    mean,
    retirement,
    room_of_trait,
    traits_of,
    varied,
    zone,
)
from rods_jax.replay.state import (
    REASONS,
    Away,
    Events,
    Item,
    Measurement,
    Outcome,
    ReplayState,
    Retired,
    Staged,
)
from rods_jax.types import Standing, Task


def create(tasks: Sequence[Task], settings: ReplaySettings) -> ReplayState:
    """A pool of human seeds; raises ValueError on a repeated id or a task that has ancestors."""
    ids = [task.id for task in tasks]
    if len(set(ids)) < len(ids):
        raise ValueError(f"task ids must be unique: {sorted(i for i in set(ids) if ids.count(i) > 1)} are repeated")
    if generated := [task.id for task in tasks if task.ancestry]:
        raise ValueError(f"human seeds have no ancestry: {generated} do")
    return ReplayState(settings, tuple(map(Item, tasks)), (None,) * settings.capacity)


def stage(state: ReplayState, outcomes: Sequence[Outcome], epoch: int, step: int = -1) -> ReplayState:
    """Queues the variants that came back after `step` of `epoch`.  One whose id is in pool or queue counts as a duplicate.

    Without a step they count for `eligible` at once.
    """
    candidates = [outcome.candidate for outcome in outcomes if outcome.candidate is not None]
    if human := [task.id for task in candidates if not task.ancestry]:
        raise ValueError(f"a generated task names its ancestry: {human} do not")
    taken = {item.task.id for item in state.items} | {entry.task.id for entry in state.staged}
    staged, duplicates = list(state.staged), []
    for _, seeded, task in outcomes:
        if task is None:
            continue
        if task.id in taken:
            duplicates.append(Retired(task.id, "duplicate", epoch, None))
        else:
            taken.add(task.id)
            staged.append(Staged(task, epoch, seeded, step))
    # The outcomes' seeds are no longer away.
    back = {(outcome.seed, outcome.step) for outcome in outcomes}
    state = replace(
        state,
        away=tuple(entry for entry in state.away if entry not in back),
        settled=state.settled + len(outcomes),
        written=state.written + len(candidates),
        staged=tuple(staged),
    )
    return _log(state, duplicates)


def begin_epoch(state: ReplayState, epoch: int, step: int) -> tuple[ReplayState, Events]:
    """Retires, prunes and injects, in this order (RODS section 6), before `step`; each epoch begins once.

    A candidate may enter if an earlier epoch staged it and if it keeps to `max_share` of the pool after retirement.  At
    most floor(injection_fraction * that pool) enter, and no more than there are free slots.  The oldest enter first;
    with `nearest_first`, those whose seeds have the best foreseen boundary scores, newest first in ties.  The others
    wait.  They leave as `stale` when more than `max_age` steps have passed since their seeds were chosen.
    """
    if epoch <= state.epoch:
        raise ValueError(f"epoch {epoch} cannot begin after epoch {state.epoch}")
    settings = state.settings

    # Retire what the policy masters or cannot do.
    retired = [
        Retired(item.task.id, reason, epoch, item.measurements[-1])
        for item in state.items
        if (reason := retirement(item, settings)) is not None
    ]
    state = _remove(state, retired)

    # Drop queued variants and seeds under way whose seeds were chosen too many steps ago.
    stale = [entry for entry in state.staged if step - entry.seeded > settings.max_age]
    retired += [Retired(entry.task.id, "stale", epoch, None) for entry in stale]
    staged = tuple(entry for entry in state.staged if step - entry.seeded <= settings.max_age)
    away = tuple(entry for entry in state.away if step - entry.step <= settings.max_age)
    state = replace(state, staged=staged, away=away)

    # Order the candidates that earlier epochs staged, and keep those that may enter.
    active = active_tasks(state)
    due = [entry.task for entry in staged if entry.epoch < epoch]
    if settings.nearest_first:
        scores = foreseen_scores(state)
        due = sorted(due[::-1], key=lambda task: -scores.get(task.ancestry[-1], 0))
    due = varied(due, active, settings)[: int(exact(settings.injection_fraction) * len(active))]

    # With `replace`, a full pool makes room: it prunes the measured variants farthest from the boundary.
    free = state.slots.count(None)
    if settings.replace and len(due) > free:
        measured = [item for item in state.slots if item is not None and item.measurements]
        measured.sort(key=lambda i: (host_boundary_score(mean(i, settings)), i.measurements[-1].step, i.task.id))
        pruned = [Retired(i.task.id, "pruned", epoch, i.measurements[-1]) for i in measured[: len(due) - free]]
        state = _remove(state, pruned)
        retired += pruned
        free += len(pruned)

    # Inject into the free slots, and record each variant's age in steps.
    injected = due[:free]
    seeded = {entry.task.id: entry.seeded for entry in staged}
    ages = tuple(step - seeded[task.id] for task in injected)
    state = replace(state, epoch=epoch, injected_ages=state.injected_ages + sum(ages))
    state = _log(_insert(state, injected), retired)
    return state, Events(tuple(retired), tuple(task.id for task in injected), ages)


def observe(state: ReplayState, found: Iterable[tuple[str, Measurement]]) -> ReplayState:
    """Records what was measured of tasks of the pool, in one look through it, for it may be large.

    KeyError: a task is not in the pool: read a step's results before the next epoch begins.  ValueError: no measurement.
    """
    by_task: dict[str, list[Measurement]] = {}
    for task_id, one in found:
        if not 0 <= one.passed <= one.total or one.total == 0:
            raise ValueError(f"task {task_id}: {one.passed} passed checks of {one.total} is no measurement")
        by_task.setdefault(task_id, []).append(one)

    def measured(item: Item) -> Item:
        return replace(item, measurements=(*item.measurements, *by_task[item.task.id])[-state.settings.history :])

    return _change(state, by_task, measured)


def mark_seeds(state: ReplayState, task_ids: Sequence[str], step: int) -> ReplayState:
    """Sends tasks as seeds, in one look through the pool: their cooldown starts; KeyError: one is not in it."""
    state = _change(state, task_ids, lambda item: replace(item, seeded=int(step)))
    return replace(state, away=(*state.away, *(Away(task_id, int(step)) for task_id in task_ids)))


def eligible(state: ReplayState, task_ids: Sequence[str], step: int) -> list[bool]:
    """Whether each task may become a seed: its cooldown is over, and the pool has room for its traits.

    Variants that came back after the previous step do not count yet.  They usually arrive later, while the update runs.
    A run that was stopped between the two steps has them already, and must choose the same seeds.
    KeyError: a task is not in the pool.
    """
    # Traits of the pool and of the queue, without those variants.
    cooldown, active = state.settings.cooldown, active_tasks(state)
    queued = [entry.task for entry in state.staged if entry.taken < step - 1]
    limit = room_of_trait(active, state.settings)
    counts = traits_of(() if limit == math.inf else (*active, *queued))
    items = _find_all(state, task_ids)
    return [
        (item.seeded is None or step - item.seeded >= cooldown) and has_room(item.task, counts, limit) for item in items
    ]


def standing(state: ReplayState, tasks: Sequence[Task], step: int, strata: Sequence[str]) -> Standing[np.ndarray]:
    """What the update must know of a batch's tasks: strata, which may be seeds, and what was measured before `step`.

    KeyError: a task is not in the pool.  ValueError: its category is none of `strata`.
    """
    ids = [task.id for task in tasks]
    items = _find_all(state, ids)
    passed, total = zip(*(discounted(item.measurements, step, state.settings.half_life) for item in items))
    return Standing(
        categories_N=np.array([strata.index(task.category) for task in tasks], np.int32),
        eligible_N=np.array(eligible(state, ids, step)),
        earlier_passed_N=np.array(passed, np.float32),
        earlier_total_N=np.array(total, np.float32),
        best_before_N=np.array([_best(item) for item in items], np.float32),
        weights_N=np.ones(len(ids), np.float32),
    )


def enter_stage(state: ReplayState, tasks: Sequence[Task]) -> ReplayState:
    """Replaces the human seeds by those of a curriculum stage; generated items, queue and counts stay."""
    known = {item.task.id: item for item in state.seeds}
    return replace(state, seeds=tuple(known.get(task.id, Item(task)) for task in tasks))


def all_tasks(state: ReplayState) -> tuple[Task, ...]:
    """The tasks of the pool and of the queue, which a new candidate must not repeat."""
    return active_tasks(state) + tuple(entry.task for entry in state.staged)


def active_tasks(state: ReplayState) -> tuple[Task, ...]:
    """The tasks that an epoch trains on, human seeds first, in a fixed order."""
    return tuple(item.task for item in state.items)


def epoch_order(state: ReplayState, *, seed: int, epoch: int, batch_size: int) -> tuple[Task, ...]:
    """Every active task once, shuffled by (seed, epoch).  ValueError: they are fewer than a batch."""
    tasks = active_tasks(state)
    if len(tasks) < batch_size:
        raise ValueError(f"a batch of {batch_size} different tasks cannot be drawn from a pool of {len(tasks)}")
    return tuple(tasks[i] for i in np.random.default_rng([seed, epoch]).permutation(len(tasks)))


def from_place(order: Sequence[Task], place: int, batch_size: int) -> tuple[Task, ...]:
    """What is left of an epoch's order; the first tasks come again where that is less than a batch."""
    left = tuple(order[place:])
    return left + tuple(order[: max(0, batch_size - len(left))])


def epoch_batches(state: ReplayState, *, seed: int, epoch: int, batch_size: int) -> tuple[tuple[Task, ...], ...]:
    """The order of an epoch, cut into batches."""
    order = epoch_order(state, seed=seed, epoch=epoch, batch_size=batch_size)
    return tuple(from_place(order, place, batch_size)[:batch_size] for place in range(0, len(order), batch_size))


def counts(state: ReplayState) -> dict[str, int | float]:
    """Pool composition, zones of the latest measurements, and totals since the start, as metrics."""
    result = {f"pool_{status}": 0 for status in ("human", "trial", "active")}
    result |= {"pool_staged": len(state.staged)}
    result |= {f"zone_{zone}": 0 for zone in ("hard", "boundary", "mastered")}
    for item in state.items:
        result[f"pool_{item.status}"] += 1
        if item.measurements:
            result[f"zone_{zone(item, state.settings)}"] += 1
    result |= {f"retired_{reason}": n for reason, n in _totals(state)}
    result |= {"seeds_away": len(state.away), "injected": state.injected}
    # The mean, over all variants injected so far, of the steps from the seed's rollouts to the injection.
    return result | ({"age_at_injection": state.injected_ages / state.injected} if state.injected else {})


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
    totals = tuple(n + reasons.count(reason) for reason, n in _totals(state))
    return replace(state, retired=(*state.retired, *retired)[-state.settings.log_size :], retired_counts=totals)


def _totals(state: ReplayState) -> list[tuple[str, int]]:
    """(reason, tasks that have left for it): none for a reason that an earlier version, which wrote the state, lacked."""
    counts = (*state.retired_counts, *[0] * (len(REASONS) - len(state.retired_counts)))
    return list(zip(REASONS, counts, strict=True))


def _best(item: Item) -> float:
    """The largest share of the checks that a rollout of the kept measurements passed; 0: there is none."""
    return max((m.high / m.checks for m in item.measurements if m.checks), default=0.0)


def _find_all(state: ReplayState, task_ids: Collection[str]) -> list[Item]:
    """In one look through the pool, which may be large."""
    items = {item.task.id: item for item in state.items}
    if missing := [task_id for task_id in task_ids if task_id not in items]:
        raise KeyError(f"task {missing[0]} is not in the pool")
    return [items[task_id] for task_id in task_ids]


def _change(state: ReplayState, task_ids: Collection[str], change: Callable[[Item], Item]) -> ReplayState:
    if not task_ids:
        return state
    new = {item.task.id: change(item) for item in _find_all(state, task_ids)}
    seeds = tuple(new.get(item.task.id, item) for item in state.seeds)
    slots = tuple(item and new.get(item.task.id, item) for item in state.slots)
    return replace(state, seeds=seeds, slots=slots)
