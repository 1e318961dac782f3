"""Merged attention is the softmax over all keys together: value, gradients, tiles of any size, parts that show nothing."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
# (prompt lengths, cache lengths)
LENGTHS = {
    "ragged": (np.array([6, 2]), np.array([[0, 5, 3], [1, 0, 4]])),
    "no prompt": (np.array([0, 0]), np.array([[0, 5, 3], [1, 0, 4]])),
    "own token only": (np.array([0, 0]), np.zeros((N, G), int)),
    "everything": (np.array([6, 6]), np.full((N, G), 5)),
}


def merged(query, pairs, lengths, partial_attention=attention.blockwise):
    prompt, cache, own = pairs
    seen_NGT = jnp.repeat(jnp.asarray(lengths[1])[..., None], query.shape[4], axis=-1)
    parts = (
        attention.Shared(*prompt, jnp.asarray(lengths[0])),
        attention.Own(*cache, seen_NGT),
        attention.Causal(*own),
    )
    return attention.attend(query, parts, partial_attention)


# What models/decoder.py does to a layer: its attention's output is kept, all else is computed again.
keeping = jax.checkpoint_policies.save_only_these_names(attention.SAVED)
FORMS = {"plain": merged, "recomputed": jax.checkpoint(merged, policy=keeping)}


@pytest.fixture
def tiles(request, monkeypatch):
    """As many tiles as the sizes ask for; None: the sizes that are used, which make these shapes one tile."""
    if request.param is not None:
        use_tiles(monkeypatch, request.param, request.param)


# One tile, or tiles that divide neither the keys of the cache nor the causal part.
ONE_OR_MANY = pytest.mark.parametrize("tiles", [None, 3], indirect=True)


def use_tiles(monkeypatch, shortest, longest):
    for name, value in dict(TILE=1, SHORTEST=shortest, LONGEST=longest).items():
        monkeypatch.setattr(attention, name, value)


@pytest.mark.parametrize("heads", [1, 7, 8, 12, 64])
def test_sides_of_tiles_are_whole_vectors_of_an_accelerator(heads):
    keys = jnp.zeros((1, 1, heads, 8192, 1))
    tiles = attention._cut((1, 1, heads, 1, 10240, 1), attention.Causal(keys, keys))
    rows = 10240 // len(tiles.limits)
    assert rows % 128 == tiles.size % 128 == 0
    assert heads * rows * tiles.size <= max(attention.TILE, heads * 128 * 128)


def dense(query, pairs, lengths, direction=DIRECTION):
    """softmax(q k^T) v, and its gradient along a direction, in NumPy float64: the whole row at once."""
    (n, g, _, _, t, _), p, s = query.shape, pairs[0][0].shape[2], pairs[1][0].shape[3]
    query, direction = query.astype(np.float64), direction.astype(np.float64)
    prompt, cache = (np.arange(size) < np.asarray(x)[..., None] for size, x in zip((p, s), lengths))
    shape = n, g, t
    visible = [
        np.broadcast_to(prompt[:, None, None], (*shape, p)),
        np.broadcast_to(cache[:, :, None], (*shape, s)),
        np.broadcast_to(np.tri(t, dtype=bool), (*shape, t)),
    ]
    visible = np.concatenate(visible, axis=-1)[:, :, None, None]
    keys, values = (
        np.concatenate([np.broadcast_to(x[:, None], (n, g, *x.shape[1:])), *rest], axis=3).astype(np.float64)
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
    cuts = [p, p + s]
    d_pairs = [list(pair) for pair in zip(np.split(d_keys, cuts, 3), np.split(d_values, cuts, 3), strict=True)]
    d_pairs[0] = [x.sum(1) for x in d_pairs[0]]  # one prompt for all rollouts
    return output, d_query, d_pairs


def close(actual, expected):
    # The scale of what is added up, of order 1; a sum of it may cancel to much less.
    np.testing.assert_allclose(actual, expected, atol=3e-6 * max(1.0, np.abs(expected).max()), rtol=0)


def differentiated(form, direction=DIRECTION):
    """(query, pairs, lengths) -> (output, (d_query, d_pairs)) along a direction, compiled for one shape."""

    def functional(query, pairs, lengths):
        output = form(query, pairs, lengths)
        return jnp.sum(output * direction), output

    derive = jax.jit(jax.value_and_grad(functional, argnums=(0, 1), has_aux=True))

    def run(query, pairs, lengths):
        (_, output), gradients = derive(query, pairs, lengths)
        return output, gradients

    return run


def check(run, query, pairs, lengths, direction=DIRECTION):
    output, d_query, d_pairs = dense(query, pairs, lengths, direction)
    found_output, (found_query, found_pairs) = run(query, pairs, lengths)
    close(found_output, output)
    close(found_query, d_query)
    for found, expected in zip(jax.tree.leaves(found_pairs), jax.tree.leaves(d_pairs), strict=True):
        close(found, expected)


@pytest.mark.parametrize(
    "form, tiles",
    [("plain", None), ("plain", 1), ("plain", 2), ("plain", 3), ("recomputed", None), ("recomputed", 3)],
    indirect=["tiles"],
)
def test_value_and_gradients_are_those_of_the_dense_softmax(form, tiles):
    run = differentiated(FORMS[form])
    for lengths in LENGTHS.values():
        check(run, QUERY, KEYS_AND_VALUES, lengths)


@settings(deadline=None, max_examples=4)
@given(st.data())
def test_any_shape_any_lengths_any_tiles(data):
    n, g, k, q = (data.draw(st.integers(1, 3)) for _ in range(4))
    t, p, s = (data.draw(st.integers(1, 9)) for _ in range(3))
    longest = data.draw(st.integers(1, 10))
    shapes = (n, k, p, E), (n, g, k, s, E), (n, g, k, t, E)
    pairs = tuple((normal(i, *shape), normal(10 + i, *shape)) for i, shape in enumerate(shapes))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    lengths = rng.integers(0, p + 1, n), rng.integers(0, s + 1, (n, g))
    with pytest.MonkeyPatch.context() as patch:
        use_tiles(patch, data.draw(st.integers(1, longest)), longest)
        query, direction = normal(20, n, g, k, q, t, E), normal(21, n, g, k, q, t, E)
        check(differentiated(merged, direction), 2 * query, pairs, lengths, direction)


@ONE_OR_MANY
def test_what_no_query_sees_contributes_exactly_nothing(tiles):
    run, lengths = differentiated(merged), LENGTHS["no prompt"]
    unseen_cache = (np.arange(S) >= lengths[1][..., None])[:, :, None, :, None] & np.ones((1, 1, K, 1, E), bool)
    pairs = tuple(tuple(x.copy() for x in pair) for pair in KEYS_AND_VALUES)
    for x in pairs[0]:
        x[...] = 1e4 * normal(9, *x.shape)  # would be the whole softmax, if it were seen
    for x in pairs[1]:
        x[unseen_cache] = 1e4
    with_, without = run(QUERY, pairs, lengths), run(QUERY, KEYS_AND_VALUES, lengths)
    jax.tree.map(np.testing.assert_array_equal, with_, without)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(with_))
    _, (_, d_pairs) = with_
    assert all(not np.any(x) for x in d_pairs[0])
    assert all(not np.any(np.asarray(x)[unseen_cache]) for x in d_pairs[1])
    assert all(np.any(x) for x in d_pairs[2])


@ONE_OR_MANY
def test_a_part_without_a_visible_key_is_as_if_it_were_not_there(tiles):
    lengths = LENGTHS["no prompt"]
    seen_NGT = jnp.repeat(jnp.asarray(lengths[1])[..., None], T, axis=-1)
    parts = attention.Own(*KEYS_AND_VALUES[1], seen_NGT), attention.Causal(*KEYS_AND_VALUES[2])
    alone = attention.attend(QUERY, parts, attention.blockwise)
    np.testing.assert_array_equal(merged(QUERY, KEYS_AND_VALUES, lengths), alone)


def test_a_row_does_not_feel_how_long_the_others_are(monkeypatch):
    """More key blocks are visited for a long neighbour's sake; the bits stay."""
    use_tiles(monkeypatch, 2, 2)
    short, long = (np.array([2, 6]), np.array([[1, 0, 0], [0, 0, 0]])), LENGTHS["everything"]
    mixed = np.array([2, 6]), np.array([[1, 5, 5], [5, 5, 5]])
    assert not np.array_equal(short[0], long[0])
    run = jax.jit(lambda lengths: merged(QUERY, KEYS_AND_VALUES, lengths))
    np.testing.assert_array_equal(run(short)[0, 0], run(mixed)[0, 0])


@ONE_OR_MANY
def test_very_different_parts_do_not_overflow(tiles):
    """Scores near +-1e4 in different parts: the highest part is the answer, and nothing is NaN."""
    pairs = tuple((300 * key * scale, value) for (key, value), scale in zip(KEYS_AND_VALUES, (1, -1, 3), strict=True))
    expected, _, _ = dense(QUERY, pairs, LENGTHS["ragged"])
    output, gradients = differentiated(merged)(QUERY, pairs, LENGTHS["ragged"])
    np.testing.assert_allclose(output, expected, atol=0.02)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))


# ---------------------------------------------------------------------------- memory, work and short sequences
def compiled(t, p, s=1, n=1, g=2):
    """The gradient of attention at a shape, compiled, never run."""
    shapes = (n, g, K, Q, t, E), *((n, K, p, E),) * 2, *((n, g, K, s, E),) * 2, *((n, g, K, t, E),) * 2

    def functional(query, *arrays):
        pairs = tuple(zip(arrays[::2], arrays[1::2]))
        lengths = jnp.full((n,), p, jnp.int32), jnp.full((n, g), s, jnp.int32)
        return merged(query, pairs, lengths).sum()

    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(jax.grad(functional, argnums=tuple(range(7)))).lower(*arguments).compile()


def test_memory_is_linear_in_the_tokens():
    one, four = (compiled(size, size).memory_analysis().temp_size_in_bytes for size in (1024, 4096))
    assert four < 4.5 * one
    assert four < 2 * K * Q * 4096 * 4096 * 4 / 4  # a quarter of one whole score matrix


def test_a_short_sequence_is_one_tile_and_no_loop():
    assert " while(" not in compiled(128, 48, n=12, g=8, s=64).as_text()
    assert " while(" in compiled(1024, 48).as_text()


def test_tiles_above_the_diagonal_are_skipped(monkeypatch):
    """Counted as they run: 8 row blocks of a causal sequence meet 1, 2, ... 8 key blocks."""
    use_tiles(monkeypatch, 2, 2)
    visited = []
    count = partial(jax.debug.callback, lambda j: visited.append(int(j)))
    scores = attention._Tiles.scores

    def counted(self, rows, limits, j):
        count(j)
        return scores(self, rows, limits, j)

    monkeypatch.setattr(attention._Tiles, "scores", counted)
    query, key = normal(0, 1, 1, 1, 1, 16, E), normal(1, 1, 1, 1, 16, E)
    jax.block_until_ready(attention.blockwise(query, attention.Causal(key, key)))
    jax.effects_barrier()
    assert sorted(visited) == sorted(j for i in range(8) for j in range(i + 1))
    visited.clear()
    jax.block_until_ready(attention.blockwise(query, attention.Own(key, key, jnp.full((1, 1, 16), 5))))
    jax.effects_barrier()
    assert sorted(visited) == sorted(j for i in range(8) for j in range(3))  # 5 keys lie in 3 blocks of 2
