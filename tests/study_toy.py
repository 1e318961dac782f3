"""A study in small: two arms of the toy run, two points on the way.  Importable by the processes of the command."""

from dataclasses import replace
from functools import partial

from training_toy import CONFIG as TOY

from rods_jax.synthesis.algebra import the_seed_itself
from scripts.study.arms import synthesis
from scripts.study.plan import Arm, Study

CONFIG = replace(
    TOY,
    stages=(replace(TOY.stages[0], epochs=100, synthesis=False),),
    evaluation=replace(TOY.evaluation, every_epochs=100),
    max_rollouts=24,  # 6 steps of 2 x 2
)
STUDY = Study(
    name="toy",
    config=CONFIG,
    primary=(("rods", "static"),),
    arms=(
        Arm(name="static", about="the seeds", seeds=2),
        Arm(name="other", about="copies", change=partial(synthesis, author=the_seed_itself), seeds=1),
        Arm(name="rods", about="synthesis", change=partial(synthesis, author=None), seeds=2),
    ),
    points=2,
    held_out_rollouts=2,
)
