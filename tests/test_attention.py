"""Merged attention is the softmax over all keys together: value, gradients, and blocks that show nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import attention

N, G, T, K, Q, E = 2, 3, 4, 2, 2, 8
P, S = 6, 5  # keys of the prompt, and of the cache


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# The query is large enough that the softmax is far from uniform.
QUERY = 2 * normal(0, N, G, K, Q, T, E)
KEYS_AND_VALUES = (
    (normal(1, N, K, P, E), normal(2, N, K, P, E)),
    (normal(3, N, G, K, S, E), normal(4, N, G, K, S, E)),
    (normal(5, N, G, K, T, E), normal(6, N, G, K, T, E)),
)
DIRECTION = normal(7, *QUERY.shape)
# Ragged: prompts of 6 and 2 tokens, caches of 0 to 5 tokens.
PROMPT = np.arange(P) < np.array([[6], [2]])
CACHE = np.arange(S) < np.array([[0, 5, 3], [1, 0, 4]])[..., None]
CAUSAL = np.broadcast_to(np.tri(T, dtype=bool), (N, G, T, T))
NO_PROMPT = np.zeros_like(PROMPT)


def own(mask_NGS):
    return np.broadcast_to(mask_NGS[:, :, None], (N, G, T, mask_NGS.shape[-1]))


MASKS = {
    "ragged": (PROMPT, own(CACHE), CAUSAL),
    "no prompt": (NO_PROMPT, own(CACHE), CAUSAL),
    "own token only": (NO_PROMPT, own(np.zeros_like(CACHE)), CAUSAL),
    "holes": (PROMPT, np.random.default_rng(8).random((N, G, T, S)) < 0.5, CAUSAL),
}


def merged(query, pairs, masks):
    kinds = attention.Shared, attention.Own, attention.Own
    return attention.attend(
        query, tuple(kind(*pair, jnp.asarray(mask)) for kind, pair, mask in zip(kinds, pairs, masks, strict=True))
    )


# What models/decoder.py does to a layer: its attention's output is kept, all else is computed again.
keeping = jax.checkpoint_policies.save_only_these_names(attention.SAVED)
FORMS = {"plain": merged, "recomputed": jax.checkpoint(merged, policy=keeping)}


def dense(query, pairs, masks):
    """softmax(q k^T) v, and its gradient along DIRECTION, in NumPy float64: the whole row at once."""
    query, direction = query.astype(np.float64), DIRECTION.astype(np.float64)
    shared = np.broadcast_to(masks[0][:, None, None], (N, G, T, P))
    visible = np.concatenate([shared, *masks[1:]], axis=-1)[:, :, None, None]
    keys, values = (
        np.concatenate([np.broadcast_to(x[:, None], (N, G, *x.shape[1:])), *rest], axis=3).astype(np.float64)
        for x, *rest in zip(*pairs, strict=True)
    )
    scores = np.where(visible, np.einsum("ngkqte,ngkse->ngkqts", query, keys), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    output = np.einsum("ngkqts,ngkse->ngkqte", weights, values)

    d_weights = np.einsum("ngkqte,ngkse->ngkqts", direction, values)
    d_scores = weights * (d_weights - (weights * d_weights).sum(-1, keepdims=True))
    d_query = np.einsum("ngkqts,ngkse->ngkqte", d_scores, keys)
    d_keys = np.einsum("ngkqts,ngkqte->ngkse", d_scores, query)
    d_values = np.einsum("ngkqts,ngkqte->ngkse", weights, direction)
    cuts = [P, P + S]
    d_pairs = [list(pair) for pair in zip(np.split(d_keys, cuts, 3), np.split(d_values, cuts, 3), strict=True)]
    d_pairs[0] = [x.sum(1) for x in d_pairs[0]]  # one prompt for all rollouts
    return output, d_query, d_pairs


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, atol=2e-6 * np.abs(expected).max() + 1e-30, rtol=0)


def gradients(form, masks, pairs=KEYS_AND_VALUES):
    def functional(query, pairs):
        return jnp.sum(form(query, pairs, masks) * DIRECTION)

    return jax.jit(jax.grad(functional, argnums=(0, 1)))(QUERY, pairs)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
def test_value_and_gradients_are_those_of_the_dense_softmax(form, masks):
    output, d_query, d_pairs = dense(QUERY, KEYS_AND_VALUES, masks)
    close(form(QUERY, KEYS_AND_VALUES, masks), output)
    found_query, found_pairs = gradients(form, masks)
    close(found_query, d_query)
    for found, expected in zip(jax.tree.leaves(found_pairs), jax.tree.leaves(d_pairs), strict=True):
        close(found, expected)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_what_no_query_sees_contributes_exactly_nothing(form):
    masks = MASKS["no prompt"]
    unseen_cache = ~CACHE[:, :, None, :, None] & np.ones((1, 1, K, 1, E), bool)
    pairs = tuple(tuple(x.copy() for x in pair) for pair in KEYS_AND_VALUES)
    for x in pairs[0]:
        x[...] = 1e4 * normal(9, *x.shape)  # would be the whole softmax, if it were seen
    for x in pairs[1]:
        x[unseen_cache] = 1e4
    np.testing.assert_array_equal(form(QUERY, pairs, masks), form(QUERY, KEYS_AND_VALUES, masks))

    with_, without = gradients(form, masks, pairs), gradients(form, masks)
    jax.tree.map(np.testing.assert_array_equal, with_, without)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(with_))
    d_pairs = with_[1]
    assert all(not np.any(x) for x in d_pairs[0])
    assert all(not np.any(np.asarray(x)[unseen_cache]) for x in d_pairs[1])
    assert all(np.any(x) for x in d_pairs[2])


def test_a_block_without_a_visible_key_is_as_if_it_were_not_there():
    blocks = tuple(attention.Own(*pair, mask) for pair, mask in zip(KEYS_AND_VALUES[1:], MASKS["ragged"][1:]))
    alone = attention.attend(QUERY, blocks)
    np.testing.assert_array_equal(merged(QUERY, KEYS_AND_VALUES, MASKS["no prompt"]), alone)


def test_very_different_blocks_do_not_overflow():
    """Scores near +-1e4 in different blocks: the higher block is the answer, and nothing is NaN."""
    pairs = tuple(
        (300 * key * scale, value) for (key, value), scale in zip(KEYS_AND_VALUES, (1, -1, 3), strict=True)
    )
    output, _, _ = dense(QUERY, pairs, MASKS["ragged"])
    np.testing.assert_allclose(merged(QUERY, pairs, MASKS["ragged"]), output, atol=0.02)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients(merged, MASKS["ragged"], pairs)))
