"""Public kernel: log-probabilities (and entropy) of taken tokens, without ever holding all the logits.

Chunks cut the tokens, not the vocabulary.  Tokens are independent, so a chunk is a plain softmax over the whole
vocabulary, with no running maximum to rescale; the backward pass recomputes it.  The matrix product keeps its widest
side, and an unembedding sharded over the vocabulary stays sharded.  Each row's tokens inside the mask come first, and
chunks without any are skipped: the cost is that of the actions.

Left out on purpose: sampling filters (top-p, top-k), which are the generator's.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax


class LogProbs(NamedTuple):
    """Per-token results, shaped like the targets."""

    log_probs_T: jax.Array  # float32, nats
    entropy_T: jax.Array  # float32, nats; 0 unless asked for


def log_probs(
    hidden_TD: jax.Array,
    unembedding_VD: jax.Array,
    targets_T: jax.Array,
    *,
    mask_T: jax.Array | None = None,
    temperature: float | jax.Array = 1.0,
    chunk_size: int = 1024,
    with_entropy: bool = False,
    gather: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> LogProbs:
    """log softmax(h W^T / temperature)[target], and that softmax's entropy, `chunk_size` tokens at a time.

    Logits exist for one chunk only, in the forward and in the backward pass.  Values and gradients equal the
    dense computation to float32 rounding.

    Args:
      hidden_TD: [..., T, D] final hidden states; the product runs in their dtype and accumulates in float32.
      unembedding_VD: [V, D].
      targets_T: [..., T] integers in [0, V); anything where masked.
      mask_T: [..., T] bool; a token outside gives exactly 0 and no gradient, whatever its hidden state holds.
      temperature: positive scalar, may be traced.
      chunk_size: static; tokens per chunk.  A chunk takes equally many tokens, at least one, from every row of the
        leading axes, so it holds at least one token per row.  The leading axes may be sharded; over a sharded T,
        devices exchange tokens.
      with_entropy: static; False computes nothing and returns zeros.
      gather: applied to a chunk's hidden states, targets and mask.  Where tokens and vocabulary are sharded over the
        same devices, it sends the chunk to all of them: neither the unembedding nor its gradient moves.

    Raises AssertionError (shapes, dtypes) and ValueError (chunk_size).  Source: RODS section 3 (loss per token).
    """
    chex.assert_rank(unembedding_VD, 2)
    chex.assert_shape(hidden_TD, (*targets_T.shape, unembedding_VD.shape[1]))
    chex.assert_type(targets_T, int)
    if mask_T is None:
        mask_T = jnp.ones(targets_T.shape, bool)
    chex.assert_equal_shape([mask_T, targets_T])
    chex.assert_type(mask_T, bool)
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")

    # Cut T into chunks: each takes `size` tokens of every row.
    length = targets_T.shape[-1]
    rows = targets_T.size // max(length, 1)
    num_chunks = max(1, -(-length // max(1, chunk_size // max(rows, 1))))
    size = -(-length // num_chunks)
    axis, padding = targets_T.ndim - 1, size * num_chunks - length
    # Rank each row's tokens: those inside the mask come first.
    inside_T = _pad(mask_T, axis, padding)
    before_T = inside_T.sum(-1, keepdims=True) + jnp.cumsum(~inside_T, axis=-1)
    rank_T = jnp.where(inside_T, jnp.cumsum(inside_T, axis=-1), before_T) - 1
    # Lay the ranks out as [size, num_chunks]. A mesh that cuts the row then cuts within every chunk; with chunks as the
    # major axis, each device would fetch every chunk from the others.
    place_T = rank_T % size * num_chunks + rank_T // size
    order_T = jnp.argsort(place_T, axis=-1)  # the inverse of place_T

    def split(x: jax.Array) -> jax.Array:
        """[..., T, ...] as [num_chunks, ..., size, ...], in that order."""
        index = order_T.reshape(*order_T.shape, *[1] * (x.ndim - axis - 1))
        x = jnp.take_along_axis(_pad(x, axis, padding), index, axis=axis)
        return jnp.moveaxis(x.reshape(*x.shape[:axis], size, num_chunks, *x.shape[axis + 1 :]), axis + 1, 0)

    def join(x: jax.Array) -> jax.Array:
        """The inverse of `split`, without the padding."""
        x = jnp.moveaxis(x, 0, -1).reshape(order_T.shape)
        return jnp.take_along_axis(x, place_T, axis=-1)[..., :length]

    # The weight is float32, so that its gradient sums over the chunks in float32. It is transposed, because a CPU's
    # products are then faster. Under shard_map `never`, which is always False, makes weight and temperature vary by
    # device like the hidden states: their gradients are then summed over the devices.
    never = jnp.zeros_like(hidden_TD, bool).any()
    weight_DV = jnp.where(never, 0.0, unembedding_VD.T.astype(jnp.float32))
    temperature = jnp.where(never, 1.0, jnp.asarray(temperature, jnp.float32))

    def chunk(arrays) -> LogProbs:
        # Gather outside `lax.cond`. Inside, a CPU's devices could meet in different orders and deadlock.
        hidden, targets, mask = map(gather, arrays)
        return _chunk(hidden, weight_DV, temperature, jnp.where(mask, targets, 0).astype(jnp.int32), mask, with_entropy)

    # One chunk after the other, then back to the order of the targets.
    chunks = lax.map(chunk, (split(hidden_TD), split(targets_T), split(mask_T)))
    return LogProbs(*map(join, chunks))


def _pad(x: jax.Array, axis: int, count: int) -> jax.Array:
    return jnp.pad(x, [(0, count if i == axis else 0) for i in range(x.ndim)])


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _chunk(hidden, weight_DV, temperature, targets, mask, with_entropy: bool) -> LogProbs:
    return _forward(hidden, weight_DV, temperature, targets, mask, with_entropy)[0]


def _logits(hidden, weight_DV, temperature, mask):
    hidden = jnp.where(mask[..., None], hidden, 0)  # a NaN behind the mask would reach the gradient
    weight = weight_DV.astype(hidden.dtype)
    return jnp.einsum("...d,dv->...v", hidden, weight, preferred_element_type=jnp.float32) / temperature


def _forward(hidden, weight_DV, temperature, targets, mask, with_entropy: bool):
    def score():
        logits = _logits(hidden, weight_DV, temperature, mask)
        # Subtract the maximum, then log_total. Their sum would round away the small log_total of a sure token.
        maximum = logits.max(axis=-1)
        log_total = jnp.log(jnp.exp(logits - maximum[..., None]).sum(axis=-1))
        taken = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0] - maximum - log_total
        entropy = jnp.zeros_like(taken)
        if with_entropy:
            log_all = logits - maximum[..., None] - log_total[..., None]
            entropy = -jnp.sum(jnp.exp(log_all) * log_all, axis=-1)
        return jnp.where(mask, taken, 0.0), jnp.where(mask, entropy, 0.0), maximum, log_total

    # A chunk without tokens inside the mask costs no product.
    nothing = jnp.zeros_like(hidden[..., 0], jnp.float32)
    taken, entropy, *normalizer = lax.cond(mask.any(), score, lambda: (nothing,) * 4)
    return LogProbs(taken, entropy), (hidden, weight_DV, temperature, targets, mask, entropy, normalizer)


def _backward(with_entropy: bool, saved, cotangents: LogProbs):
    hidden, weight_DV, temperature, targets, mask, entropy, (maximum, log_total) = saved
    d_taken, d_entropy = (jnp.where(mask, d, 0.0)[..., None] for d in cotangents)

    def differentiate():
        # Recompute the softmax from the saved maximum and log_total.
        logits = _logits(hidden, weight_DV, temperature, mask)
        log_all = logits - maximum[..., None] - log_total[..., None]
        probability = jnp.exp(log_all)
        # d log p[target] / dz = 1[target] - p
        is_target = targets[..., None] == lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
        d_logits = jnp.where(is_target, d_taken, 0.0) - d_taken * probability
        if with_entropy:  # dH / dz = -p (log p + H)
            d_logits -= d_entropy * probability * (log_all + entropy[..., None])
        # Through z = h W / temperature.
        d_temperature = -jnp.sum(d_logits * logits) / temperature
        d_scaled = (d_logits / temperature).astype(hidden.dtype)
        weight = weight_DV.astype(hidden.dtype)
        d_hidden = jnp.einsum("...v,dv->...d", d_scaled, weight, preferred_element_type=jnp.float32)
        # The weight's gradient sums over all tokens of the chunk; a NaN behind the mask must not enter it.
        clean, tokens = jnp.where(mask[..., None], hidden, 0), tuple(range(mask.ndim))
        d_weight = jnp.tensordot(clean, d_scaled, axes=(tokens, tokens), preferred_element_type=jnp.float32)
        return jnp.where(mask[..., None], d_hidden, 0).astype(hidden.dtype), d_weight, d_temperature

    zeros = jax.tree.map(jnp.zeros_like, (hidden, weight_DV, temperature))
    return *lax.cond(mask.any(), differentiate, lambda: zeros), None, None


_chunk.defvjp(_forward, _backward)
