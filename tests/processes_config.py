"""The run that test_processes.py starts as one process and as two."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from tests.training_toy import CONFIG as TOY


@contextmanager
def steps(directory):
    """Appends the number of every step to a file."""
    with (directory / "steps").open("a") as file:
        yield lambda step, values: print(step, file=file, flush=True)


def every_other(table, group_size):
    """Half as many rollouts of every other task of the pool."""
    return np.where(np.arange(len(table.ids)) % 2, group_size, group_size // 2)


CONFIG = replace(
    TOY,
    mesh=(4, 2, 1, 1),
    stages=(replace(TOY.stages[0], epochs=2),),
    rollout=replace(TOY.rollout, tasks_per_step=4, group_size=4, group_sizes=every_other, replay_success=True),
    update=replace(TOY.update, micro_batches=2),
    writers=(steps,),
)
