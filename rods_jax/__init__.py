"""RODS in JAX: the leaf kernels, importable with jax and numpy alone.

    >>> import jax.numpy as jnp, rods_jax
    >>> rods_jax.group_statistics(jnp.array([[1.0, 0.0, 0.5, 0.5]])).variance_N
    Array([0.125], dtype=float32)

Everything else is imported from its own module (`from rods_jax.loop import ...`).  The functions `group_statistics` and
`log_probs` hide the modules of the same name as attributes of this package.  `from rods_jax.log_probs import LogProbs`
works as usual; `import rods_jax.log_probs as x` gives the function.
"""

from rods_jax.boundary import (
    BOUNDARY,
    HARD,
    MASTERED,
    Detection,
    Evidence,
    Seeds,
    beta_posterior,
    boundary_score,
    informative,
    mean_band,
    observed_variance,
    partition,
    reward_entropy,
    select_seeds,
)
from rods_jax.group_statistics import GroupStatistics, group_statistics, segment_group_statistics
from rods_jax.log_probs import LogProbs, log_probs

__version__ = "0.2.0"

__all__ = [
    "BOUNDARY",
    "HARD",
    "MASTERED",
    "Detection",
    "Evidence",
    "GroupStatistics",
    "LogProbs",
    "Seeds",
    "beta_posterior",
    "boundary_score",
    "group_statistics",
    "informative",
    "log_probs",
    "mean_band",
    "observed_variance",
    "partition",
    "reward_entropy",
    "segment_group_statistics",
    "select_seeds",
]
