"""The decoder's promises: causality, cache = no cache, shared prompt = unshared, ragged lengths do not leak."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.decoder import DecoderConfig
from models.policy import callables
from rods_jax.types import Policy

CONFIG = DecoderConfig(
    vocab_size=31, layers=3, width=16, query_heads=4, key_value_heads=2, head_width=8, feed_forward=24
)
N, G, P, S = 3, 4, 7, 9


@pytest.fixture(scope="module")
def policy():
    p = Policy(**callables(CONFIG))
    return p._replace(
        forward=jax.jit(p.forward), prefill=jax.jit(p.prefill, static_argnums=3), extend=jax.jit(p.extend)
    )


@pytest.fixture(scope="module")
def params(policy):
    # Larger weights than a fresh model's, so that attention is far from uniform.
    return jax.tree.map(lambda x: x * 8 if x.ndim > 2 else x, policy.init(jax.random.key(0)))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    prompt = rng.integers(0, 31, (N, P)).astype(np.int32)
    suffix = rng.integers(0, 31, (N, G, S)).astype(np.int32)
    return prompt, np.array([7, 4, 1], np.int32), suffix


def test_shared_prompt_equals_unshared(policy, params, batch):
    prompt, prompt_lengths, suffix = batch
    shared = policy.forward(params, *batch)
    for n in range(N):
        for g in range(G):
            start = prompt_lengths[n] - 1  # the whole sequence as one rollout whose prompt is its first token
            whole = np.zeros((1, 1, P + S), np.int32)
            whole[0, 0, : start + 1 + S] = np.concatenate([prompt[n, : start + 1], suffix[n, g]])
            alone = policy.forward(params, whole[:, 0, :1], np.array([1], np.int32), whole[:, :, 1:])
            np.testing.assert_allclose(shared[n, g], alone[0, 0, start : start + S], atol=2e-5)


def test_shared_gradient_equals_unshared(policy, params, batch):
    prompt, prompt_lengths, suffix = batch
    weight = jax.random.normal(jax.random.key(1), (N, G, S, CONFIG.width))

    def shared(params):
        return jnp.sum(policy.forward(params, *batch) * weight)

    def unshared(params):  # the same rollouts as N*G tasks of one rollout each
        repeat = lambda x: np.repeat(x, G, axis=0)
        hidden = policy.forward(params, repeat(prompt), repeat(prompt_lengths), suffix.reshape(N * G, 1, S))
        return jnp.sum(hidden.reshape(weight.shape) * weight)

    (a, grad_a), (b, grad_b) = jax.value_and_grad(shared)(params), jax.value_and_grad(unshared)(params)
    np.testing.assert_allclose(a, b, rtol=1e-5)

    def close(x, y):
        np.testing.assert_allclose(x, y, atol=1e-5 * np.abs(y).max() + 1e-7, rtol=0)

    jax.tree.map(close, grad_a, grad_b)


def test_what_is_kept_changes_no_gradient_and_spares_its_products(policy, params, batch):
    weight = jax.random.normal(jax.random.key(1), (N, G, S, CONFIG.width))

    def gradient(keep):
        forward = callables(replace(CONFIG, keep=keep))["forward"]
        return jax.jit(jax.grad(lambda params: jnp.sum(forward(params, *batch) * weight))).lower(params)

    nothing, gate_and_up = gradient(()), gradient(("gate", "up"))
    close = lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6 * np.abs(y).max(), rtol=0)
    jax.tree.map(close, gate_and_up.compile()(params), nothing.compile()(params))
    products = [lowered.as_text().count("stablehlo.dot_general") for lowered in (nothing, gate_and_up)]
    assert products[0] - products[1] == 2  # of the one layer that is scanned
    with pytest.raises(ValueError, match=r"model.keep must be some of .*'gate'.*: got \('gates',\)"):
        replace(CONFIG, keep=("gates",))


def test_causality(policy, params, batch):
    prompt, prompt_lengths, suffix = batch
    hidden = policy.forward(params, *batch)
    for s in range(S):
        changed = suffix.copy()
        changed[:, :, s] = (changed[:, :, s] + 1) % 31
        other = policy.forward(params, prompt, prompt_lengths, changed)
        np.testing.assert_array_equal(hidden[:, :, : s + 1], other[:, :, : s + 1])
        if s + 1 < S:
            assert np.abs(hidden[:, :, s + 1 :] - other[:, :, s + 1 :]).max() > 1e-4


def test_prompt_padding_does_not_leak(policy, params, batch):
    prompt, prompt_lengths, suffix = batch
    changed = np.where(np.arange(P)[None] < prompt_lengths[:, None], prompt, 5)
    np.testing.assert_array_equal(
        policy.forward(params, *batch), policy.forward(params, changed, prompt_lengths, suffix)
    )


def test_cache_equals_no_cache_in_ragged_chunks(policy, params, batch):
    prompt, prompt_lengths, suffix = batch
    expected = policy.forward(params, *batch)
    hidden, prompts = policy.prefill(params, prompt, prompt_lengths, S)
    suffixes = policy.empty(N, G, S)
    np.testing.assert_allclose(jnp.broadcast_to(hidden[:, None], expected[:, :, 0].shape), expected[:, :, 0], atol=2e-5)
    rng = np.random.default_rng(1)
    done = np.zeros((N, G), np.int64)
    T = 4
    while (done < S - 1).any():
        lengths = np.minimum(rng.integers(0, T + 1, (N, G)), S - 1 - done)
        chunk = np.full((N, G, T), 30, np.int32)
        for n, g in np.ndindex(N, G):
            chunk[n, g, : lengths[n, g]] = suffix[n, g, done[n, g] : done[n, g] + lengths[n, g]]
        seen, lengths = done.astype(np.int32), lengths.astype(np.int32)
        hidden, suffixes = policy.extend(params, prompts, suffixes, seen, chunk, lengths)
        for n, g in np.ndindex(N, G):
            start, stop = done[n, g] + 1, done[n, g] + 1 + lengths[n, g]
            np.testing.assert_allclose(hidden[n, g, : lengths[n, g]], expected[n, g, start:stop], atol=2e-5)
        done += lengths


def test_bfloat16_activations_and_float32_parameters(policy, params, batch):
    half = Policy(**callables(replace(CONFIG, compute_dtype="bfloat16")))
    weight = jax.random.normal(jax.random.key(1), (N, G, S, CONFIG.width))

    def score(policy):
        return jax.jit(jax.grad(lambda params: jnp.sum(policy.forward(params, *batch) * weight)))(params)

    def error(x, y):
        return np.linalg.norm(np.float32(x) - y) / np.linalg.norm(y)

    hidden = jax.jit(half.forward)(params, *batch)
    assert hidden.dtype == jnp.bfloat16
    assert 1e-4 < error(hidden, policy.forward(params, *batch)) < 0.05
    gradient = score(half)
    assert {x.dtype for x in jax.tree.leaves(gradient)} == {jnp.dtype(jnp.float32)}
    # As a whole: a single small leaf (a norm before a sharp softmax) may be further off than the step is.
    whole = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (gradient, score(policy)))
    assert error(*whole) < 0.1
    _, prompts = jax.eval_shape(lambda: half.prefill(params, batch[0], batch[1], S))
    assert half.empty(N, G, S).keys_NGKSE[0].dtype == prompts.keys_NKPE[0].dtype == jnp.bfloat16


def test_the_update_and_the_prefill_do_not_grow_with_depth(batch):
    """So neither does the time that they take to compile."""

    def lines(layers):
        policy = Policy(**callables(replace(CONFIG, layers=layers)))
        params = jax.eval_shape(policy.init, jax.random.key(0))
        gradient = jax.grad(lambda params, *batch: policy.forward(params, *batch).sum())
        forward = jax.jit(gradient).lower(params, *batch).as_text()
        hidden = jax.jit(lambda *batch: policy.prefill(*batch, S)[0]).lower(params, *batch[:2]).as_text()
        return forward.count("\n"), hidden.count("\n")

    assert lines(2) == lines(9)


def test_impossible_shapes_are_refused():
    with pytest.raises(ValueError, match="query_heads"):
        DecoderConfig(vocab_size=8, layers=1, width=8, query_heads=3, key_value_heads=2, head_width=4, feed_forward=8)
    for key in ("layers", "width", "key_value_heads", "head_width", "feed_forward", "vocab_size"):
        with pytest.raises(ValueError, match=f"^model.{key} must be above 0: got 0$"):
            replace(CONFIG, **{key: 0})
