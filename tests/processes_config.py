"""The run that test_processes.py starts as one process and as two."""

from contextlib import contextmanager
from dataclasses import replace

from tests.training_toy import CONFIG as TOY


@contextmanager
def steps(directory):
    """Appends the number of every step to a file."""
    with (directory / "steps").open("a") as file:
        yield lambda step, values: print(step, file=file, flush=True)


CONFIG = replace(
    TOY,
    mesh=(4, 2, 1, 1),
    stages=(replace(TOY.stages[0], epochs=2),),
    rollout=replace(TOY.rollout, tasks_per_step=4, group_size=4),
    update=replace(TOY.update, micro_batches=2),
    writers=(steps,),
)
