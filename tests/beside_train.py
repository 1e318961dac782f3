"""The real training command on a tiny policy, with a judge that is asked beside it, as a process to be killed."""

import io
from dataclasses import replace

from beside_toy import backends
from rich.console import Console
from test_train import CONFIG as TINY

from rods_jax.boundary import any_task
from rods_jax.config import SynthesisConfig
from rods_jax.run import train
from rods_jax.synthesis.llm import llm_roles
from rods_jax.synthesis.pipeline import RULE_BASED


def judged(backends):
    """The rule-based author, whose variants a language model judges."""
    return RULE_BASED._replace(judge=llm_roles(backends).judge)


CONFIG = replace(
    TINY,
    cold_start=None,
    synthesis=SynthesisConfig(backends=backends, roles=judged, workers=2),
    update=replace(TINY.update, signal=any_task, quotas=1),
    replay=replace(TINY.replay, retire_generated=False, capacity=40, cooldown=1, surplus=100.0, max_age=10**6),
    stages=(TINY.stages[0], replace(TINY.stages[1], epochs=6)),
    checkpoint_every=1,
)


def trainer(directory: str, resume: bool) -> None:
    train(replace(CONFIG, run_dir=directory), resume=resume, console=Console(file=io.StringIO()))
