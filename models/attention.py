"""Attention over [shared prompt | own suffix], as partial softmaxes that are merged exactly.

Each part returns its unnormalised output with the maximum and the sum of its softmax, so parts
with different batch structure (one prompt for G rollouts, one cache per rollout) never have to be
concatenated.  Shapes: N tasks, G rollouts, T query tokens, P prompt keys, S own keys, K key/value
heads, Q queries per key/value head, E head width.  Heads stand before tokens, so that every product
is a plain batched matrix product.

Left out on purpose: blockwise scores and platform kernels; a part's score matrix exists as a whole.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Part(NamedTuple):
    """softmax(scores) @ values = output / total, before normalisation, relative to exp(maximum)."""

    output_NGKQTE: jax.Array
    maximum_NGKQT: jax.Array
    total_NGKQT: jax.Array


def attend_shared(query_NGKQTE, key_NKPE, value_NKPE, mask_NP) -> Part:
    """Every rollout's queries attend to its task's one prompt."""
    n, g, k, q, t, e = query_NGKQTE.shape
    rows = jnp.moveaxis(query_NGKQTE, 1, 2).reshape(n * k, g * q * t, e)
    mask = jnp.repeat(mask_NP, k, axis=0)[:, None]
    parts = _attend(rows, key_NKPE.reshape(n * k, -1, e), value_NKPE.reshape(n * k, -1, e), mask)
    return Part(*(jnp.moveaxis(x.reshape(n, k, g, q, t, *x.shape[2:]), 2, 1) for x in parts))


def attend_own(query_NGKQTE, key_NGKSE, value_NGKSE, mask_NGTS) -> Part:
    """Each rollout's queries attend to its own keys."""
    n, g, k, q, t, e = query_NGKQTE.shape
    mask = jnp.broadcast_to(mask_NGTS[:, :, None, None], (n, g, k, q, *mask_NGTS.shape[2:]))
    parts = _attend(
        query_NGKQTE.reshape(n * g * k, q * t, e),
        key_NGKSE.reshape(n * g * k, -1, e),
        value_NGKSE.reshape(n * g * k, -1, e),
        mask.reshape(n * g * k, q * t, -1),
    )
    return Part(*(x.reshape(n, g, k, q, t, *x.shape[2:]) for x in parts))


def merge(*parts: Part) -> jax.Array:
    """Exact softmax over the union of all parts' keys, `[N,G,K,Q,T,E]`."""
    maximum = lax.stop_gradient(jnp.stack([part.maximum_NGKQT for part in parts]).max(0))
    scales = [jnp.exp(part.maximum_NGKQT - maximum) for part in parts]
    total = sum(part.total_NGKQT * scale for part, scale in zip(parts, scales))
    output = sum(part.output_NGKQTE * scale[..., None] for part, scale in zip(parts, scales))
    return output / total[..., None]


def causal_mask(queries: int, leading: tuple[int, ...]) -> jax.Array:
    """`[*leading, T, T]`: token t sees tokens 0..t of its own chunk."""
    return jnp.broadcast_to(jnp.tri(queries, dtype=bool), (*leading, queries, queries))


def rotate(x_NGKQTE, positions_NGT, theta: float) -> jax.Array:
    """Rotary position embedding, halves convention (as in the Hugging Face checkpoints)."""
    half = x_NGKQTE.shape[-1] // 2
    frequency_e = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle_NGTe = positions_NGT[..., None].astype(jnp.float32) * frequency_e[None, None, None]
    sin, cos = (f(angle_NGTe)[:, :, None, None] for f in (jnp.sin, jnp.cos))
    first, second = jnp.split(x_NGKQTE.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_NGKQTE.dtype)


def _attend(query_BME, key_BSE, value_BSE, mask_BMS):
    # A part with no visible key keeps maximum = -1e30, so that merging gives it weight exp(-1e30) = 0.
    scores = jnp.einsum("bme,bse->bms", query_BME, key_BSE, preferred_element_type=jnp.float32)
    scores = jnp.where(mask_BMS, scores, -jnp.inf)
    maximum = lax.stop_gradient(jnp.maximum(scores.max(-1), -1e30))
    weights = jnp.exp(scores - maximum[..., None])
    output = jnp.einsum("bms,bse->bme", weights.astype(value_BSE.dtype), value_BSE)
    return output, maximum, weights.sum(-1)
