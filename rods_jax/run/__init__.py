"""A run as a library: check, train, evaluate, report.

from rods_jax import run

run.check(CONFIG)                                                    what a start would refuse; writes nothing
run.train(CONFIG)                                                    begins, or with resume=True goes on
run.evaluate(run.Evaluation(player="runs/quickstart"))
run.report("runs/quickstart")
"""

from rods_jax.run.checking import check
from rods_jax.run.evaluating import Evaluation, evaluate
from rods_jax.run.learner import Learner, on_one_device
from rods_jax.run.reporting import report
from rods_jax.run.training import train

__all__ = ["Evaluation", "Learner", "check", "evaluate", "on_one_device", "report", "train"]
