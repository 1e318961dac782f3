"""Attention over [shared prompt | own suffix]: partial softmaxes that are merged exactly.

A query's keys lie in blocks of different batch structure (one prompt for G rollouts, one cache per
rollout).  Each block gives its unnormalised output with the maximum and the sum of its softmax; their
merge is the softmax over all keys, and nothing is ever concatenated.  The backward pass recomputes each
block's weights from the saved log-sum-exp, so no weights are stored and no row is reduced twice.

Shapes: N tasks, G rollouts, T query tokens, P prompt keys, S own keys, K key/value heads, Q queries
per key/value head, E head width.  Heads stand before tokens, so that every product is a plain batched
matrix product over rows: B batches, M query rows.

Left out on purpose: blockwise scores and platform kernels; a block's score matrix exists as a whole.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name


SAVED = "attention"


class Shared(NamedTuple):
    """One prompt for all rollouts of a task."""

    key_NKPE: jax.Array
    value_NKPE: jax.Array
    mask_NP: jax.Array

    def rows(self, x_NGKQT):
        """[N,G,K,Q,T,...] as [N*K, G*Q*T, ...]."""
        n, g, k, q, t, *rest = x_NGKQT.shape
        return jnp.moveaxis(x_NGKQT, 1, 2).reshape(n * k, g * q * t, *rest)

    def unrows(self, x_BM, shape):
        n, g, k, q, t = shape
        return jnp.moveaxis(x_BM.reshape(n, k, g, q, t, *x_BM.shape[2:]), 2, 1)

    def mask(self, shape):
        return jnp.repeat(self.mask_NP, shape[2], axis=0)[:, None]


class Own(NamedTuple):
    """Each rollout's own keys."""

    key_NGKSE: jax.Array
    value_NGKSE: jax.Array
    mask_NGTS: jax.Array

    def rows(self, x_NGKQT):
        """[N,G,K,Q,T,...] as [N*G*K, Q*T, ...]."""
        n, g, k, q, t, *rest = x_NGKQT.shape
        return x_NGKQT.reshape(n * g * k, q * t, *rest)

    def unrows(self, x_BM, shape):
        return x_BM.reshape(*shape, *x_BM.shape[2:])

    def mask(self, shape):
        n, g, k, q, t = shape
        mask = jnp.broadcast_to(self.mask_NGTS[:, :, None, None], (*shape, self.mask_NGTS.shape[-1]))
        return mask.reshape(n * g * k, q * t, -1)


@jax.custom_vjp
def attend(query_NGKQTE, blocks: tuple[Shared | Own, ...]):
    """softmax(q k^T) v over the keys of all blocks together, `[N,G,K,Q,T,E]`. Every query sees some key."""
    return _attend(query_NGKQTE, blocks)[0]


def _attend(query, blocks):
    shape = query.shape[:-1]
    parts = []
    for block in blocks:
        # A block with no visible key keeps maximum = -1e30, so that merging gives it weight exp(-1e30) = 0.
        scores = _scores(block.rows(query), block, shape)
        maximum = jnp.maximum(scores.max(-1), -1e30)
        weights = jnp.exp(scores - maximum[..., None])
        output = jnp.einsum("bms,bse->bme", weights.astype(query.dtype), _flat(block[1]))
        parts.append([block.unrows(x, shape) for x in (output, maximum, weights.sum(-1))])
    highest = jnp.stack([maximum for _, maximum, _ in parts]).max(0)
    scales = [jnp.exp(maximum - highest) for _, maximum, _ in parts]
    total = sum(part[2] * scale for part, scale in zip(parts, scales))
    output = sum(part[0] * scale[..., None] for part, scale in zip(parts, scales)) / total[..., None]
    return output.astype(query.dtype), highest + jnp.log(total)


def _forward(query, blocks):
    # Named, so that a layer that is recomputed in the backward pass need not attend again.
    output, log_sum = checkpoint_name(_attend(query, blocks), SAVED)
    return output, (query, blocks, output, log_sum)


def _backward(saved, d_output):
    query, blocks, output, log_sum = saved
    shape = query.shape[:-1]
    delta = jnp.sum(d_output.astype(jnp.float32) * output, axis=-1)
    d_query, d_blocks = 0.0, []
    for block in blocks:
        q, d_out, lse, row_delta = (block.rows(x) for x in (query, d_output, log_sum, delta))
        key, value = _flat(block[0]), _flat(block[1])
        weights = jnp.exp(_scores(q, block, shape) - lse[..., None])
        d_weights = jnp.einsum("bme,bse->bms", d_out, value, preferred_element_type=jnp.float32)
        d_scores = (weights * (d_weights - row_delta[..., None])).astype(q.dtype)
        d_query += block.unrows(jnp.einsum("bms,bse->bme", d_scores, key), shape)
        d_key = jnp.einsum("bms,bme->bse", d_scores, q)
        d_value = jnp.einsum("bms,bme->bse", weights.astype(q.dtype), d_out)
        d_blocks.append(type(block)(d_key.reshape(block[0].shape), d_value.reshape(block[1].shape), None))
    return d_query, tuple(d_blocks)


attend.defvjp(_forward, _backward)


def _scores(rows_BME, block, shape):
    scores = jnp.einsum("bme,bse->bms", rows_BME, _flat(block[0]), preferred_element_type=jnp.float32)
    return jnp.where(block.mask(shape), scores, -jnp.inf)


def _flat(x):
    """[..., S, E] as [B, S, E]."""
    return x.reshape(-1, *x.shape[-2:])


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
