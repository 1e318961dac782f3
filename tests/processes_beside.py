"""The run of processes_config.py whose seeds are sent to workers, of which there are none."""

from dataclasses import replace

from rods_jax.config import SynthesisConfig
from rods_jax.synthesis.pipeline import five_stages
from tests.processes_config import CONFIG as AT_ONCE


def nobody():
    return {}


CONFIG = replace(AT_ONCE, synthesis=SynthesisConfig(backends=nobody, author=five_stages, workers=0))
