"""The toy run with a judge that is asked beside it: variants come when they come."""

from dataclasses import replace

import training_toy
from beside_toy import backends
from beside_train import judged

from rods_jax.config import SynthesisConfig

CONFIG = replace(training_toy.CONFIG, synthesis=SynthesisConfig(backends=backends, roles=judged, workers=1))
