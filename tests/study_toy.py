"""A study in small: two arms of the toy run, two points on the way.  Importable by the processes of the command."""

from dataclasses import replace

from training_toy import CONFIG as TOY

from scripts.study.plan import Arm, Study


def synthesis(config):
    return replace(config, stages=(replace(config.stages[0], synthesis=True),))


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
        Arm(name="other", about="a secondary arm", seeds=1),
        Arm(name="rods", about="synthesis", change=synthesis, seeds=2),
    ),
    points=2,
    held_out_rollouts=2,
)
