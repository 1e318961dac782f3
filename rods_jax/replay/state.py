"""What the replay pool is: human seeds, a ring of generated tasks, and the queue before it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rods_jax.config import ReplaySettings
from rods_jax.types import Task

REASONS = ("mastered", "hard", "pruned", "duplicate", "stale", "stuck")  # a new one stands last


class Measurement(NamedTuple):
    """Checks passed out of all checks of a task's rollouts (G of each), at a training step."""

    passed: int
    total: int
    step: int
    low: int = 0  # fewest checks that a valid rollout passed
    high: int = 0  # most of them
    checks: int = 0  # of each rollout; 0: an earlier version measured, which kept none of the three


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


class Away(NamedTuple):
    """A seed that was sent at a step, and whose outcome has not come back."""

    seed: str
    step: int


class Outcome(NamedTuple):
    """The outcome of a seed that was sent at a step; candidate None: no variant."""

    seed: str
    step: int
    candidate: Task | None


class Staged(NamedTuple):
    """A validated candidate, the epoch and the step that it came back in, and the step whose feedback chose its seed."""

    task: Task
    epoch: int
    seeded: int
    taken: int = -1  # -1: by a version that did not write it down


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
    ages: tuple[int, ...] = ()  # steps of each injected task since its seed was chosen


@dataclass(frozen=True)
class ReplayState:
    """The pool; generated items live in a ring of `settings.capacity` slots."""

    settings: ReplaySettings
    seeds: tuple[Item, ...]
    slots: tuple[Item | None, ...]
    cursor: int = 0  # the slot at which the search for a free one begins
    away: tuple[Away, ...] = ()  # oldest first
    settled: int = 0  # seeds whose outcomes came back
    written: int = 0  # outcomes with a variant
    staged: tuple[Staged, ...] = ()  # in the order in which they came back
    retired: tuple[Retired, ...] = ()  # the latest few
    retired_counts: tuple[int, ...] = (0,) * len(REASONS)  # since the start, in the order of REASONS
    injected: int = 0
    injected_ages: int = 0  # steps, summed over all injected variants
    epoch: int = -1  # the last one begun

    @property
    def items(self) -> Iterator[Item]:
        """All that is trained on: human seeds, then generated items in slot order."""
        yield from self.seeds
        yield from (item for item in self.slots if item is not None)
