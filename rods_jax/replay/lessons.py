"""What one step teaches the pool."""

from collections.abc import Sequence
from typing import Any, Protocol

from rods_jax.replay.life import mark_seeds, observe
from rods_jax.replay.pace import spread, wanted
from rods_jax.replay.state import Measurement, ReplayState
from rods_jax.types import Dropped, Task


class Feedback(Protocol):
    """What the pool reads of a `grpo.Feedback`, on the device or on the host."""

    @property
    def passed_N(self) -> Any: ...
    @property
    def total_N(self) -> Any: ...
    @property
    def low_N(self) -> Any: ...
    @property
    def high_N(self) -> Any: ...
    @property
    def checks_N(self) -> Any: ...
    @property
    def seeds(self) -> Any: ...


def learn(
    state: ReplayState,
    tasks: Sequence[Task],
    feedback: Feedback,
    step: int,
    left: int = 1,
    dropped: Sequence[Dropped] = (),
) -> tuple[ReplayState, tuple[Task, ...]]:
    """(the pool with the step's measurements and its seeds' cooldown, the tasks that are to be sent as seeds).

    feedback: of the step's update of these tasks; where it still is on the device, this waits for it.
    left: steps of the epoch that have yet to send seeds, this one among them (`wanted`); 0: none is sent.
    dropped: tasks that were played, and not learnt from.
    KeyError: a task is not in the pool.
    """
    found = [(o.task_id, Measurement(o.passed, o.total, step, o.low, o.high, o.checks)) for o in dropped]
    columns = (feedback.passed_N, feedback.total_N, feedback.low_N, feedback.high_N, feedback.checks_N)
    for task, passed, total, *extremes in zip(tasks, *(column.tolist() for column in columns), strict=True):
        if total:  # else too few rollouts were valid, which is no measurement
            found.append((task.id, Measurement(passed, total, step, *extremes)))
    state = observe(state, found)
    best_first = [tasks[index] for index in feedback.seeds.indices_k.tolist() if index >= 0]
    chosen = spread(best_first, wanted(state, step, left))
    return mark_seeds(state, [task.id for task in chosen], step), chosen
