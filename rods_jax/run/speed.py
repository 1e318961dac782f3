"""How fast a step was: tokens a second, and the share of the devices' arithmetic that the model needed."""

from collections.abc import Mapping
from typing import Any

import jax

from rods_jax.run.learner import Learner

# FLOPs a second of one device in bfloat16 without sparsity, by JAX's name of its kind: the vendors' datasheets.
PEAKS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU7x": 1153.5e12,  # half a chip
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_of(learner: Learner) -> float | None:
    """FLOPs a second of all devices that train; None where their kind is not in the table, as CPUs."""
    one = PEAKS.get(jax.devices()[0].device_kind)
    return None if one is None else one * (1 if learner.mesh is None else learner.mesh.size)


def speeds(values: Mapping[str, Any], peak: float | None) -> dict[str, float]:
    """Metrics of a step's record: `tokens_per_second` of its rollouts and, where the peak is known, `mfu` of all of it."""
    found = {}
    if "seconds_rollout" in values:
        found["tokens_per_second"] = values["tokens_generated"] / values["seconds_rollout"]
    if "flops" in values and peak is not None:
        found["mfu"] = values["flops"] / (values["seconds_step"] * peak)
    return found
