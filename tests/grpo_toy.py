"""The paper's objective, but for what a test changes."""

from typing import Any

from rods_jax import grpo
from rods_jax.config import UpdateConfig


def objective_with(**changes: Any) -> UpdateConfig:
    paper = {"learning_rate": 1.0, "ratio": grpo.token_ratio, "aggregate": grpo.sequence_mean}
    return UpdateConfig(**paper | changes)
