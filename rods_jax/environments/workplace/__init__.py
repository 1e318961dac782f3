"""The bundled domain: an office of six stateful tool classes, with no download and no model."""

from rods_jax.environments.workplace.domain import WORKPLACE, tool_weights

__all__ = ["WORKPLACE", "tool_weights"]
