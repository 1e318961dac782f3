"""How the pool judges its tasks: means, zones, who leaves, who is foreseen at the boundary, who adds variety."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import cache
from statistics import linear_regression
from typing import TypeVar

from rods_jax.config import ReplaySettings
from rods_jax.replay.state import Item, Measurement, ReplayState
from rods_jax.types import Task


@cache
def exact(threshold: float) -> Fraction:
    """The decimal that was written: 0.2 as 1/5, not as the nearest binary number."""
    return Fraction(repr(float(threshold)))


def discounted(measurements: Sequence[Measurement], step: int, half_life: float) -> tuple[float, float]:
    """(turns passed, all turns), with weights that halve every `half_life` steps before `step`; half_life 0: zeros."""
    weights = [2.0 ** ((m.step - step) / half_life) if half_life else 0.0 for m in measurements]
    passed = sum(weight * m.passed for weight, m in zip(weights, measurements, strict=True))
    return float(passed), float(sum(weight * m.total for weight, m in zip(weights, measurements, strict=True)))


def mean(item: Item, settings: ReplaySettings) -> Fraction:
    """Mean progress of the latest measurement and of earlier ones, whose weight halves every `half_life` steps."""
    *before, latest = item.measurements
    passed, total = discounted(before, latest.step, settings.half_life)
    return (latest.passed + Fraction(passed)) / (latest.total + Fraction(total))


Mean = TypeVar("Mean", Fraction, float)


def host_boundary_score(reached: Mean) -> Mean:
    """`boundary.boundary_score` on the host, exact for a Fraction."""
    return 4 * reached * (1 - reached)


def foreseen_scores(state: ReplayState) -> dict[str, float]:
    """Boundary scores of the measured tasks half an epoch ahead, if their means change as the human seeds' do.

    The change in a step is the slope of the line through all measurements of human seeds.  An epoch visits tasks in random
    order, so its early and late tasks are alike.  The span of the latest measurements is taken for an epoch's steps.
    """
    # The slope, from at least two steps; then the middle of the next epoch.
    measured = [item for item in state.items if item.measurements]
    latest = [item.measurements[-1].step for item in measured]
    known = [(m.step, m.passed / m.total) for item in state.seeds for m in item.measurements]
    slope = linear_regression(*zip(*known)).slope if len({step for step, _ in known}) > 1 else 0.0
    first, last = min(latest, default=0), max(latest, default=0)
    then = last + (last - first + 1) / 2

    def foreseen(item: Item) -> float:
        return float(mean(item, state.settings)) + slope * (then - item.measurements[-1].step)

    return {item.task.id: host_boundary_score(min(max(foreseen(item), 0.0), 1.0)) for item in measured}


def zone(item: Item, settings: ReplaySettings) -> str:
    """The zone of a measured item's mean reward: hard, boundary or mastered."""
    reached = mean(item, settings)
    if reached < exact(settings.lower):
        return "hard"
    return "boundary" if reached <= exact(settings.upper) else "mastered"


def retirement(item: Item, settings: ReplaySettings) -> str | None:
    """Why a task leaves, or None.  A human seed leaves only when mastered, and only with `retire_seeds`."""
    human = item.status == "human"
    if not item.measurements or not (settings.retire_seeds if human else settings.retire_generated):
        return None
    reached = mean(item, settings)
    if reached > exact(settings.retire_above):
        return "mastered"
    if human:
        return None
    if reached < exact(settings.lower):
        return "hard"
    latest = item.measurements[-1]
    # A measurement of an earlier version does not tell the fewest and the most checks.
    return "stuck" if settings.retire_stuck and latest.checks and latest.low == latest.high else None


def varied(candidates: Sequence[Task], active: Sequence[Task], settings: ReplaySettings) -> list[Task]:
    """The candidates, in order, that may enter: none makes a class or a call pattern overrepresented."""
    counts, limit, varied = traits_of(active), room_of_trait(active, settings), []
    for task in candidates:
        if has_room(task, counts, limit):
            varied.append(task)
            counts.update(_traits(task))
    return varied


def room_of_trait(active: Sequence[Task], settings: ReplaySettings) -> Fraction | float:
    """How many tasks may share a trait."""
    return math.inf if settings.max_share == 1 else exact(settings.max_share) * len(active)


def traits_of(tasks: Iterable[Task]) -> Counter:
    """How many of the tasks have each trait."""
    return Counter(trait for task in tasks for trait in _traits(task))


def _traits(task: Task) -> frozenset:
    """The classes of a task and its call pattern: the tools of each turn, in order."""
    pattern = tuple(tuple(call.name for call in turn.gold) for turn in task.turns)
    return frozenset((*task.world.classes, pattern))


def has_room(task: Task, counts: Counter, limit: Fraction | float) -> bool:
    """Whether one more such task keeps each of its traits within the limit."""
    return all(counts[trait] + 1 <= limit for trait in _traits(task))
