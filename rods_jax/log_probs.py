"""Public kernel: log-probabilities (and entropy) of taken tokens, without ever holding all the logits.

The chunk is over tokens, not over the vocabulary: tokens are independent, so a chunk is a plain softmax over
the whole vocabulary, to be recomputed in the backward pass, with no running maximum to carry and rescale; the
matrix product keeps its widest side, and an unembedding sharded over the vocabulary stays so.

Left out on purpose: sampling filters (top-p, top-k), which are the generator's.
"""

from typing import NamedTuple

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
      chunk_size: static; tokens per chunk.  A chunk takes the same number of positions, at least one, from
        every row of the leading axes, so it holds at least as many tokens as there are rows.
      with_entropy: static; False computes nothing and returns zeros.

    Raises ValueError (shapes, chunk_size) and TypeError (dtypes).  Source: RODS section 3 (loss per token).
    """
    if targets_T.ndim == 0 or hidden_TD.shape != (*targets_T.shape, unembedding_VD.shape[1]):
        shapes = (hidden_TD.shape, unembedding_VD.shape, targets_T.shape)
        raise ValueError(f"expected shapes [..., T, D], [V, D] and [..., T], got {shapes}")
    if not jnp.issubdtype(targets_T.dtype, jnp.integer):
        raise TypeError(f"targets_T must be integers, got {targets_T.dtype}")
    if mask_T is None:
        mask_T = jnp.ones(targets_T.shape, bool)
    if mask_T.shape != targets_T.shape:
        raise ValueError(f"mask_T and targets_T must have one shape, got {mask_T.shape} and {targets_T.shape}")
    if mask_T.dtype != bool:
        raise TypeError(f"mask_T must be bool, got {mask_T.dtype}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")

    length = targets_T.shape[-1]
    rows = targets_T.size // max(length, 1)
    num_chunks = max(1, -(-length // max(1, chunk_size // max(rows, 1))))
    width = -(-length // num_chunks)
    unembedding_VD = unembedding_VD.astype(jnp.float32)  # the gradient adds up over the chunks: in float32

    def split(x: jax.Array) -> jax.Array:
        # Position t goes to chunk t % num_chunks: an axis that is sharded stays sharded inside every chunk,
        # while contiguous chunks of a sharded axis would leave all devices but one idle.
        axis = targets_T.ndim - 1
        padding = [(0, width * num_chunks - length if i == axis else 0) for i in range(x.ndim)]
        x = jnp.pad(x, padding)
        return jnp.moveaxis(x.reshape(*x.shape[:axis], width, num_chunks, *x.shape[axis + 1 :]), axis + 1, 0)

    def join(x: jax.Array) -> jax.Array:
        x = jnp.moveaxis(x, 0, -1)
        return x.reshape(*x.shape[:-2], width * num_chunks)[..., :length]

    def chunk(arrays: tuple[jax.Array, jax.Array, jax.Array]) -> LogProbs:
        hidden, targets, mask = arrays
        hidden = jnp.where(mask[..., None], hidden, 0)  # a NaN behind the mask would reach the gradient
        logits = jnp.einsum(
            "...d,vd->...v",
            hidden,
            unembedding_VD.astype(hidden.dtype),
            preferred_element_type=jnp.float32,
        )
        log_all = jax.nn.log_softmax(logits / temperature, axis=-1)
        taken = jnp.take_along_axis(log_all, jnp.where(mask, targets, 0)[..., None], axis=-1)[..., 0]
        entropy = -(jnp.exp(log_all) * log_all).sum(axis=-1) if with_entropy else jnp.zeros_like(taken)
        return LogProbs(jnp.where(mask, taken, 0.0), jnp.where(mask, entropy, 0.0))

    # prevent_cse: the loop already keeps the compiler from merging the two computations.
    chunks = lax.map(jax.checkpoint(chunk, prevent_cse=False), (split(hidden_TD), split(targets_T), split(mask_T)))
    return LogProbs(*map(join, chunks))
