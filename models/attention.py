"""Attention over [shared prompt | own suffix], as partial softmaxes that are merged exactly.

Each part returns its unnormalised output with the maximum and the sum of its softmax, so parts
with different batch structure (one prompt for G rollouts, one cache per rollout) never have to be
concatenated.  Shapes: N tasks, G rollouts, T query tokens, P prompt keys, S own keys, K key/value
heads, Q queries per key/value head, E head width.

Left out on purpose: blockwise scores and platform kernels; a part's score matrix exists as a whole.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Part(NamedTuple):
    """softmax(scores) @ values = output / total, before normalisation, relative to exp(maximum)."""

    output_NGTKQE: jax.Array
    maximum_NGTKQ: jax.Array
    total_NGTKQ: jax.Array


def attend_shared(query_NGTKQE, key_NPKE, value_NPKE, mask_NP) -> Part:
    """Every rollout's queries attend to its task's one prompt."""
    scores = jnp.einsum("ngtkqe,npke->nkgtqp", query_NGTKQE, key_NPKE, preferred_element_type=jnp.float32)
    weights, maximum, total = _softmax_terms(scores, mask_NP[:, None, None, None, None, :])
    output = jnp.einsum("nkgtqp,npke->nkgtqe", weights.astype(value_NPKE.dtype), value_NPKE)
    return Part(*(jnp.moveaxis(x, 1, 3) for x in (output, maximum, total)))


def attend_own(query_NGTKQE, key_NGSKE, value_NGSKE, mask_NGTS) -> Part:
    """Each rollout's queries attend to its own keys."""
    scores = jnp.einsum("ngtkqe,ngske->ngktqs", query_NGTKQE, key_NGSKE, preferred_element_type=jnp.float32)
    weights, maximum, total = _softmax_terms(scores, mask_NGTS[:, :, None, :, None, :])
    output = jnp.einsum("ngktqs,ngske->ngktqe", weights.astype(value_NGSKE.dtype), value_NGSKE)
    return Part(*(jnp.moveaxis(x, 2, 3) for x in (output, maximum, total)))


def merge(*parts: Part) -> jax.Array:
    """Exact softmax over the union of all parts' keys, `[N,G,T,K,Q,E]`."""
    maximum = lax.stop_gradient(jnp.stack([part.maximum_NGTKQ for part in parts]).max(0))
    scales = [jnp.exp(part.maximum_NGTKQ - maximum) for part in parts]
    total = sum(part.total_NGTKQ * scale for part, scale in zip(parts, scales))
    output = sum(part.output_NGTKQE * scale[..., None] for part, scale in zip(parts, scales))
    return output / total[..., None]


def causal_mask(queries: int, leading: tuple[int, ...]) -> jax.Array:
    """`[*leading, T, T]`: token t sees tokens 0..t of its own chunk."""
    return jnp.broadcast_to(jnp.tri(queries, dtype=bool), (*leading, queries, queries))


def rotate(x_BTHE, positions_BT, theta: float) -> jax.Array:
    """Rotary position embedding, halves convention (as in the Hugging Face checkpoints)."""
    half = x_BTHE.shape[-1] // 2
    frequency_e = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions_BT[..., None, None].astype(jnp.float32) * frequency_e.reshape((1,) * (positions_BT.ndim + 1) + (half,))
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    first, second = jnp.split(x_BTHE.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_BTHE.dtype)


def _softmax_terms(scores, mask):
    # A part with no visible key keeps maximum = -1e30, so that merging gives it weight exp(-1e30) = 0.
    scores = jnp.where(mask, scores, -jnp.inf)
    maximum = lax.stop_gradient(jnp.maximum(scores.max(-1), -1e30))
    weights = jnp.exp(scores - maximum[..., None])
    return weights, maximum, weights.sum(-1)
