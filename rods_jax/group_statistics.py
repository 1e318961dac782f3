"""Public kernel: mean, variance and advantages of groups of rewards, dense or ragged, on device.

Left out on purpose: any filter of degenerate groups (they get advantage 0 and stay in the batch), and running
statistics over steps.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax

HUGE = 2.0**50  # a group whose rewards span more is computed in units of UNIT
UNIT = 2.0**80
LARGEST = float(jnp.finfo(jnp.float32).max)


class GroupStatistics(NamedTuple):
    """Statistics of N groups; the ragged form has N = num_groups and advantages of shape [B]."""

    mean_N: jax.Array  # float32
    variance_N: jax.Array  # float32, population variance (divides by the count)
    advantages_NG: jax.Array  # float32, 0 where masked
    count_N: jax.Array  # int32, unmasked rewards of the group


def group_statistics(
    rewards_NG: jax.Array,
    mask_NG: jax.Array | None = None,
    *,
    normalize: Literal["std", "none"] = "std",
    epsilon: float = 1e-6,
    axis_name: str | Sequence[str] | None = None,
) -> GroupStatistics:
    """Group-relative advantages (R - mean) / (std + epsilon), or R - mean, with the statistics behind them.

    `variance_N` is the population variance, so variance <= r(1 - r) for rewards in [0, 1]; `std` is the
    sample deviation (divides by count - 1).  Equal rewards give variance and advantage exactly 0.  An empty
    group has mean, variance and count 0; a singleton has its reward as mean and variance 0; both have
    advantages 0.  No value and no gradient is NaN, whatever stands in the masked entries, and however large finite
    rewards are: a variance beyond float32 is its largest number.

    Args:
      rewards_NG: [N, G] real numbers; computed in float32.
      mask_NG: [N, G] bool, True where the reward counts; None counts all.
      normalize: "std", or "none" for mean-centred advantages (Dr. GRPO).
      epsilon: added to the deviation, in units of reward.
      axis_name: mapped axis (pmap, shard_map, vmap) over which G is split; N is then the same everywhere.
        Under plain jit with shardings leave it None: the compiler inserts the collectives.

    Raises AssertionError (shapes, dtypes) and ValueError (normalize).  Source: RODS sections 2.1 and 3.
    """
    chex.assert_rank(rewards_NG, 2)
    return _statistics(
        rewards_NG,
        _mask(mask_NG, rewards_NG),
        total=lambda *xs_NG: _psum(_reduced(xs_NG, 0, operator.add), axis_name),
        largest=lambda *xs_NG: _pmax(_reduced(xs_NG, -jnp.inf, jnp.maximum), axis_name),
        spread=lambda x_N: x_N[:, None],
        normalize=normalize,
        epsilon=epsilon,
    )


def segment_group_statistics(
    rewards_B: jax.Array,
    group_ids_B: jax.Array,
    *,
    num_groups: int,
    mask_B: jax.Array | None = None,
    normalize: Literal["std", "none"] = "std",
    epsilon: float = 1e-6,
    axis_name: str | Sequence[str] | None = None,
) -> GroupStatistics:
    """`group_statistics` of ragged groups: row b belongs to group `group_ids_B[b]`, in any order.

    A row whose id is outside [0, num_groups) is ignored like a masked one.  `advantages_NG` has shape [B].
    `axis_name` names the mapped axis over which B is split; ids are then global.

    Args:
      rewards_B: [B] real numbers; computed in float32.
      group_ids_B: [B] integers.
      num_groups: static, at least 1.
      mask_B: [B] bool, True where the reward counts; None counts all.

    Raises AssertionError (shapes, dtypes) and ValueError (num_groups, normalize).  Source: RODS 2.1 and 3.
    """
    chex.assert_rank(rewards_B, 1)
    chex.assert_equal_shape([rewards_B, group_ids_B])
    chex.assert_type(group_ids_B, int)
    if num_groups < 1:
        raise ValueError(f"num_groups must be at least 1, got {num_groups}")
    in_range_B = (group_ids_B >= 0) & (group_ids_B < num_groups)
    ids_B = jnp.where(in_range_B, group_ids_B, 0)  # ignored rows add 0 to group 0; negative ids would wrap around
    return _statistics(
        rewards_B,
        _mask(mask_B, rewards_B) & in_range_B,
        total=lambda *xs_B: _psum([jax.ops.segment_sum(x_B, ids_B, num_groups) for x_B in xs_B], axis_name),
        largest=lambda *xs_B: _pmax([jax.ops.segment_max(x_B, ids_B, num_groups) for x_B in xs_B], axis_name),
        spread=lambda x_N: x_N[ids_B],
        normalize=normalize,
        epsilon=epsilon,
    )


def _statistics(
    rewards: jax.Array,
    mask: jax.Array,
    *,
    total: Callable[..., Sequence[jax.Array]],
    largest: Callable[..., Sequence[jax.Array]],
    spread: Callable[[jax.Array], jax.Array],
    normalize: str,
    epsilon: float,
) -> GroupStatistics:
    """The formula of both forms.  `total` and `largest` reduce entries to groups, `spread` maps groups to entries."""
    if normalize not in ("std", "none"):
        raise ValueError(f'normalize must be "std" or "none", got {normalize!r}')
    # Count each group's rewards; an empty group divides by 1.
    rewards = rewards.astype(jnp.float32)
    (count_N,) = total(mask.astype(jnp.int32))
    divisor_N = jnp.maximum(count_N, 1).astype(jnp.float32)

    # Shift each group by its largest reward: equal rewards become exact zeros, and their mean has no rounding error.
    # Every shard agrees on the largest.  The shift cancels, so it carries no gradient.
    members = lax.stop_gradient(rewards)
    largest_N, least_N = largest(jnp.where(mask, members, -jnp.inf), jnp.where(mask, -members, -jnp.inf))
    pivot_N = jnp.where(count_N > 0, largest_N, 0.0)
    # Compute a group whose squares would overflow in larger units; a power of two rounds nothing.
    unit_N = jnp.where(largest_N + least_N > HUGE, jnp.float32(UNIT), 1.0)
    scale_N = 1 / unit_N
    shifted = jnp.where(mask, rewards * spread(scale_N) - spread(pivot_N * scale_N), 0.0)
    # Sums of the shifted rewards and of their squares, in one pass.
    total_N, total_squares_N = total(shifted, jnp.square(shifted))
    shifted_mean_N = total_N / divisor_N
    # The sum of squared deviations. Its relative error is at most about `count` roundings, because the pivot is a
    # member of the group. Squares of centered rewards have an error of a few roundings, but need a second pass.
    squares_N = jnp.maximum(total_squares_N - divisor_N * jnp.square(shifted_mean_N), 0.0)

    # Center, and divide by the sample deviation. A group without variance keeps its exact zeros.
    advantages = centered = jnp.where(mask, shifted - spread(shifted_mean_N), 0.0)
    if normalize == "none":
        advantages = centered * spread(unit_N)
    else:
        # The inner `where` keeps the root's infinite slope at 0 out of the gradient.
        varied_N = squares_N > 0
        deviation_N = jnp.sqrt(jnp.where(varied_N, squares_N, 1.0) / jnp.maximum(divisor_N - 1, 1.0))
        advantages = centered / spread(jnp.where(varied_N, deviation_N + epsilon * scale_N, 1.0))
    # Undo the shift and the unit; a variance beyond float32 is its largest number.
    mean_N = (pivot_N * scale_N + shifted_mean_N) * unit_N
    variance_N = jnp.minimum(squares_N / divisor_N * unit_N, LARGEST * scale_N) * unit_N
    return GroupStatistics(mean_N, variance_N, advantages, count_N)


def _mask(mask: jax.Array | None, rewards: jax.Array) -> jax.Array:
    if mask is None:
        return jnp.ones(rewards.shape, bool)
    chex.assert_equal_shape([mask, rewards])
    chex.assert_type(mask, bool)
    return mask


def _reduced(xs_NG: Sequence[jax.Array], start: float, combine: Callable) -> Sequence[jax.Array]:
    """All arrays reduced over their groups at once: a CPU then reads the rewards once and stores no array."""
    starts = tuple(jnp.full((), start, x_NG.dtype) for x_NG in xs_NG)
    return lax.reduce(xs_NG, starts, lambda totals, xs: tuple(map(combine, totals, xs)), (1,))


def _psum(xs: Sequence[jax.Array], axis_name: str | Sequence[str] | None) -> Sequence[jax.Array]:
    return xs if axis_name is None else lax.psum(xs, axis_name)


def _pmax(xs: Sequence[jax.Array], axis_name: str | Sequence[str] | None) -> Sequence[jax.Array]:
    return xs if axis_name is None else lax.pmax(xs, axis_name)


def max_variance(rewards_NG: jax.Array, valid_NG: jax.Array, *, keep: int) -> jax.Array:
    """Of each group the `keep` valid rollouts with the largest variance of rewards: bool [N, G].

    They are the i best and the keep - i worst for some i; of equal variances the largest i counts.  A group with no more
    valid rollouts keeps them all, and so does one with a reward that is not finite, which must not go unseen.
    Source: PODS (arXiv 2504.13818), which normalises over the subset alone.
    """
    size, count_N1 = rewards_NG.shape[1], valid_NG.sum(1)[:, None, None]
    order_NG = jnp.lexsort((-rewards_NG, ~valid_NG), axis=1)  # the best first, and what is not valid last
    sorted_NG = jnp.take_along_axis(jnp.where(valid_NG, rewards_NG, 0.0), order_NG, axis=1)
    # Every split into best and worst, the one with most of the best first.
    best_K, rank_G = jnp.arange(keep, -1, -1)[None, :, None], jnp.arange(size)[None, None, :]
    chosen_NKG = ((rank_G < best_K) | (rank_G >= count_N1 - (keep - best_K))) & (rank_G < count_N1)
    total_NK = jnp.maximum(chosen_NKG.sum(2), 1)
    mean_NK1 = (jnp.sum(sorted_NG[:, None, :] * chosen_NKG, 2) / total_NK)[..., None]
    variance_NK = jnp.sum(jnp.square(sorted_NG[:, None, :] - mean_NK1) * chosen_NKG, 2) / total_NK
    # What rounding alone sets apart is equal.
    split_N = jnp.argmax(variance_NK >= (1 - 1e-6) * variance_NK.max(axis=1, keepdims=True), axis=1)
    best_NG = jnp.take_along_axis(chosen_NKG, split_N[:, None, None], axis=1)[:, 0]
    subset_NG = jnp.take_along_axis(best_NG, jnp.argsort(order_NG, axis=1), axis=1)
    odd_N1 = (valid_NG & ~jnp.isfinite(rewards_NG)).any(1, keepdims=True)
    return jnp.where(odd_N1, valid_NG, subset_NG)
