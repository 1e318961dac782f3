"""Public kernel: which tasks sit at the policy's capability boundary, and which become seeds, on device.

Left out on purpose: cooldown bookkeeping (the caller clears `eligible_N`) and retirement (replay).
"""

from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp

HARD, BOUNDARY, MASTERED = 0, 1, 2

_LARGEST_DENOMINATOR = 10_000  # keeps the cross products of `partition` inside int32


class Seeds(NamedTuple):
    """The selected tasks, best first."""

    indices_k: jax.Array  # int32 [sum(quotas)], positions in the batch, -1 after the last seed
    count: jax.Array  # int32 scalar, number of seeds


def boundary_score(mean: jax.Array) -> jax.Array:
    """4 r (1 - r): the bound of the reward variance, scaled to [0, 1]; any shape (RODS section 2.1)."""
    return 4.0 * mean * (1.0 - mean)


def partition(
    passed_turns_N: jax.Array,
    total_turns_N: jax.Array,
    *,
    lower: float | Fraction = 0.20,
    upper: float | Fraction = 0.85,
) -> jax.Array:
    """Zone of each task: HARD if r < lower, MASTERED if r > upper, else BOUNDARY, with r = passed / total.

    Exact at the inclusive edges: a threshold is read as the decimal that it prints as (0.85 is 17/20) and
    compared by cross-multiplied integers.  A task without turns (all masked) is HARD, hence never a seed.

    Args:
      passed_turns_N: [N] integers, turns passed by the task's valid rollouts together.
      total_turns_N: [N] integers, valid rollouts times user turns; at most 214,748.
      lower, upper: 0 <= lower <= upper <= 1, denominator at most 10,000 (four decimals, or a Fraction).

    Returns [N] int32.  Raises ValueError (thresholds) and TypeError (dtypes).  Source: RODS section 2.2.
    """
    for turns_N in (passed_turns_N, total_turns_N):
        if not jnp.issubdtype(turns_N.dtype, jnp.integer):
            raise TypeError(f"turns must be integers, got {turns_N.dtype}")
    low, high = Fraction(str(lower)), Fraction(str(upper))
    if not 0 <= low <= high <= 1:
        raise ValueError(f"thresholds must satisfy 0 <= lower <= upper <= 1, got {lower} and {upper}")
    if max(low.denominator, high.denominator) > _LARGEST_DENOMINATOR:
        raise ValueError(f"thresholds have at most four decimals, got {lower} and {upper}")
    passed_N, total_N = passed_turns_N.astype(jnp.int32), total_turns_N.astype(jnp.int32)
    hard_N = (passed_N * low.denominator < low.numerator * total_N) | (total_N == 0)
    mastered_N = passed_N * high.denominator > high.numerator * total_N
    return jnp.where(hard_N, HARD, jnp.where(mastered_N, MASTERED, BOUNDARY)).astype(jnp.int32)


def select_seeds(
    scores_N: jax.Array,
    zones_N: jax.Array,
    categories_N: jax.Array,
    eligible_N: jax.Array,
    *,
    quotas: tuple[int, ...],
) -> Seeds:
    """The best-scored eligible boundary tasks, at most `quotas[c]` of category c, ties by lower index.

    Unused quota is not redistributed.  A category outside [0, len(quotas)) has no quota.

    Args:
      scores_N: [N] float32, as `boundary_score` gives.
      zones_N: [N] int32, as `partition` gives.
      categories_N: [N] int32.
      eligible_N: [N] bool, False while a task cools down or must not be a seed.
      quotas: static; their sum k may exceed N.

    Raises ValueError (shapes, negative quota).  Source: RODS section 2.3.
    """
    scores_N, zones_N, categories_N, eligible_N = map(jnp.asarray, (scores_N, zones_N, categories_N, eligible_N))
    if scores_N.ndim != 1 or not scores_N.shape == zones_N.shape == categories_N.shape == eligible_N.shape:
        shapes = [x.shape for x in (scores_N, zones_N, categories_N, eligible_N)]
        raise ValueError(f"scores, zones, categories and eligible must all be [N], got {shapes}")
    if min(quotas, default=0) < 0:
        raise ValueError(f"quotas must not be negative, got {quotas}")
    order_N = jnp.argsort(-scores_N, stable=True)
    candidate_N = ((zones_N == BOUNDARY) & eligible_N)[order_N]
    member_NC = candidate_N[:, None] & (categories_N[order_N][:, None] == jnp.arange(len(quotas))[None, :])
    within_NC = jnp.cumsum(member_NC, axis=0) <= jnp.array(quotas, jnp.int32)[None, :]
    chosen_N = (member_NC & within_NC).any(axis=1)
    positions_k = jnp.flatnonzero(chosen_N, size=sum(quotas), fill_value=order_N.size)
    return Seeds(jnp.append(order_N, -1)[positions_k].astype(jnp.int32), chosen_N.sum(dtype=jnp.int32))
