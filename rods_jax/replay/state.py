"""The state of the replay pool: human seeds, a ring of generated tasks, the queue before it; and its JSON form."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

from rods_jax.config import ReplaySettings
from rods_jax.task_files import task_from_json, task_to_json
from rods_jax.types import Json, Task

REASONS = ("mastered", "hard", "pruned", "duplicate", "stale")


class Measurement(NamedTuple):
    """Checks passed out of all checks of a task's rollouts (G of each), at a training step."""

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
    """A validated candidate, the epoch that it came back in, and the step whose feedback chose its seed."""

    task: Task
    epoch: int
    seeded: int


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


def to_json(state: ReplayState) -> dict[str, Json]:
    """The whole state as plain JSON values."""
    return {
        "settings": asdict(state.settings),
        "seeds": [_item_to_json(item) for item in state.seeds],
        "slots": [item and _item_to_json(item) for item in state.slots],
        "cursor": state.cursor,
        "away": [list(entry) for entry in state.away],
        "settled": state.settled,
        "written": state.written,
        "staged": [[task_to_json(task), *rest] for task, *rest in state.staged],
        "retired": [[*entry[:-1], entry.last and list(entry.last)] for entry in state.retired],
        "retired_counts": list(state.retired_counts),
        "injected": state.injected,
        "injected_ages": state.injected_ages,
        "epoch": state.epoch,
    }


def from_json(record: Mapping[str, Json]) -> ReplayState:
    """Inverse of `to_json`: `from_json(to_json(state)) == state`."""
    return ReplayState(
        settings=ReplaySettings(**record["settings"]),
        seeds=tuple(_item_from_json(item) for item in record["seeds"]),
        slots=tuple(item and _item_from_json(item) for item in record["slots"]),
        cursor=record["cursor"],
        away=tuple(Away(*entry) for entry in record["away"]),
        settled=record["settled"],
        written=record["written"],
        staged=tuple(Staged(task_from_json(task), *rest) for task, *rest in record["staged"]),
        retired=tuple(
            Retired(task_id, reason, epoch, last and Measurement(*last))
            for task_id, reason, epoch, last in record["retired"]
        ),
        retired_counts=tuple(record["retired_counts"]),
        injected=record["injected"],
        injected_ages=record["injected_ages"],
        epoch=record["epoch"],
    )


def _item_to_json(item: Item) -> dict[str, Json]:
    return {
        "task": task_to_json(item.task),
        "measurements": [list(m) for m in item.measurements],
        "seeded": item.seeded,
    }


def _item_from_json(record: Mapping[str, Json]) -> Item:
    measurements = tuple(Measurement(*m) for m in record["measurements"])
    return Item(task_from_json(record["task"]), measurements, record["seeded"])
