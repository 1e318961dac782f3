"""The run that test_processes.py starts as one process and as two."""

from dataclasses import replace

from tests.training_toy import CONFIG as TOY

CONFIG = replace(
    TOY,
    mesh=(4, 2, 1, 1),
    stages=(replace(TOY.stages[0], epochs=2),),
    rollout=replace(TOY.rollout, tasks_per_step=4, group_size=4),
    update=replace(TOY.update, micro_batches=2),
)
