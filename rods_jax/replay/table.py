"""What a sampler may know of the pool: the latest measurements of every task, as arrays on the host."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rods_jax.replay.state import Measurement, ReplayState


class Table(NamedTuple):
    """The N tasks of the pool in its order, and their W latest measurements, newest first.

    A measurement that is not there has the step -1, the count 0, and nan elsewhere.
    """

    step: int  # that is about to be played
    ids: tuple[str, ...]
    categories: tuple[str, ...]
    means_NW: np.ndarray  # float64, shares of the checks that valid rollouts passed together
    lows_NW: np.ndarray  # float64, share that the worst of them passed
    highs_NW: np.ndarray  # float64, share that the best of them passed
    counts_NW: np.ndarray  # int64, valid rollouts
    steps_NW: np.ndarray  # int64

    @property
    def seen_N(self) -> np.ndarray:
        """bool, measured before."""
        return self.steps_NW[:, 0] >= 0

    @property
    def mean_N(self) -> np.ndarray:
        """float64, the latest mean; nan of a task that was never measured."""
        return self.means_NW[:, 0]

    @property
    def differed_NW(self) -> np.ndarray:
        """bool, rollouts of the measurement passed different numbers of checks."""
        return self.lows_NW < self.highs_NW


def table(state: ReplayState, step: int) -> Table:
    """The pool before `step`.

    The step before counts for nothing: its results are read while this one is played, and a run that stops between the
    two has them already.  So only `history` - 1 measurements of each task are looked at.
    """
    width = state.settings.history - 1
    items = tuple(state.items)
    # Those whose lowest and highest are known, newest first.
    known = [[m for m in item.measurements[::-1] if m.step < step - 1 and m.checks][:width] for item in items]
    missing = Measurement(0, 0, -1)
    rows = [[*some, *[missing] * (width - len(some))] for some in known]

    def column(values: Sequence[Sequence[float]]) -> np.ndarray:
        return np.array(values, np.float64).reshape(len(items), width)

    checks_NW, total_NW = (
        column([[m.checks for m in row] for row in rows]),
        column([[m.total for m in row] for row in rows]),
    )
    with np.errstate(invalid="ignore"):
        return Table(
            step,
            tuple(item.task.id for item in items),
            tuple(item.task.category for item in items),
            column([[m.passed for m in row] for row in rows]) / total_NW,
            column([[m.low for m in row] for row in rows]) / checks_NW,
            column([[m.high for m in row] for row in rows]) / checks_NW,
            (total_NW / np.maximum(checks_NW, 1)).astype(np.int64),
            column([[m.step for m in row] for row in rows]).astype(np.int64),
        )
