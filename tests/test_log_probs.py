"""Chunked log-probabilities: equal to the dense computation, and no array of all the logits anywhere."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import rods_jax
from rods_jax.log_probs import log_probs

T, D, V = 37, 8, 53


def dense(hidden, unembedding, targets, temperature=1.0):
    """All the logits at once: log-probabilities of the targets, and entropy."""
    log_all = jax.nn.log_softmax(
        jnp.einsum("...d,vd->...v", hidden, unembedding, preferred_element_type=jnp.float32) / temperature
    )
    taken = jnp.take_along_axis(log_all, targets[..., None], axis=-1)[..., 0]
    return taken, -(jnp.exp(log_all) * log_all).sum(-1)


jitted = jax.jit(log_probs, static_argnames=("chunk_size", "with_entropy"))
jitted_dense = jax.jit(dense)


def inputs(shape=(T,)):
    """Hidden states, unembedding, targets, and two sets of weights for a loss."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: np.float32(rng.normal(size=shape))
    return normal(*shape, D), normal(V, D), np.int32(rng.integers(0, V, shape)), normal(2, *shape)


def test_uniform_and_hand_computed_distributions():
    uniform = jitted(jnp.zeros((3, D)), jnp.ones((V, D)), jnp.array([0, 1, V - 1]), with_entropy=True)
    np.testing.assert_allclose(uniform.log_probs_T, -math.log(V), rtol=1e-6)
    np.testing.assert_allclose(uniform.entropy_T, math.log(V), rtol=1e-6)
    # logits (ln 3, 0): probabilities (3/4, 1/4); at temperature 1/2 they are (9/10, 1/10)
    hidden, unembedding = jnp.array([[math.log(3)]]), jnp.array([[1.0], [0.0]])
    result = jitted(hidden, unembedding, jnp.array([1]), with_entropy=True)
    assert result.log_probs_T[0] == pytest.approx(math.log(1 / 4), rel=1e-6)
    assert result.entropy_T[0] == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)), rel=1e-6)
    cold = log_probs(hidden, unembedding, jnp.array([0]), temperature=0.5)
    assert cold.log_probs_T[0] == pytest.approx(math.log(0.9), rel=1e-6)


@pytest.mark.parametrize("shape, chunk_size", [((T,), 8), ((T,), 1000), ((2, 3, 11), 16), ((5, 4), 2)])
def test_value_and_gradient_equal_the_dense_computation(shape, chunk_size):
    hidden, unembedding, targets, weights = inputs(shape)

    chunked = lambda h, u, t: tuple(log_probs(h, u, targets, temperature=t, chunk_size=chunk_size, with_entropy=True))

    def run(function):
        def loss(*arguments):
            values = function(*arguments)
            return sum((w * x).sum() for w, x in zip(weights, values)), values

        (_, values), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(
            hidden, unembedding, jnp.float32(0.7)
        )
        return values, gradients

    values, gradients = run(chunked)
    expected_values, expected_gradients = run(lambda h, u, t: dense(h, u, targets, t))
    for result, expected in zip(values, expected_values):
        assert result.shape == shape and result.dtype == jnp.float32
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
    for result, expected in zip(gradients, expected_gradients):
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5 * (1 + np.abs(expected).max()))


def test_entropy_is_zero_unless_asked_for():
    hidden, unembedding, targets, _ = inputs()
    without, with_entropy = (jitted(hidden, unembedding, targets, with_entropy=flag) for flag in (False, True))
    assert (without.entropy_T == 0).all() and (with_entropy.entropy_T > 0).all()
    np.testing.assert_array_equal(without.log_probs_T, with_entropy.log_probs_T)


def test_masked_tokens_give_exactly_zero_and_no_gradient():
    hidden, unembedding, targets, _ = inputs()
    mask = np.arange(T) % 3 != 0
    poisoned = np.where(mask[:, None], hidden, np.float32(np.nan))
    wild = np.where(mask, targets, -100)

    def loss(hidden, unembedding):
        result = log_probs(hidden, unembedding, wild, mask_T=mask, chunk_size=5, with_entropy=True)
        return (result.log_probs_T + result.entropy_T).sum(), result

    (_, result), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(poisoned, unembedding)
    expected = jitted_dense(hidden, unembedding, targets)[0]
    np.testing.assert_allclose(result.log_probs_T, np.where(mask, expected, 0), rtol=1e-5, atol=1e-5)
    assert (result.log_probs_T[~mask] == 0).all() and (result.entropy_T[~mask] == 0).all()
    assert (gradients[0][~mask] == 0).all()
    wanted = jax.jit(jax.grad(lambda u: jnp.where(mask, sum(dense(hidden, u, targets)), 0).sum()))(unembedding)
    np.testing.assert_allclose(gradients[1], wanted, rtol=1e-4, atol=1e-4)


def test_bfloat16_gradients_add_up_in_float32():
    """1,024 chunks of one token: a bfloat16 running sum would stop growing, a float32 one does not."""
    unembedding = jnp.zeros((2, 1), jnp.bfloat16)
    hidden, targets = jnp.ones((1024, 1), jnp.bfloat16), jnp.zeros(1024, jnp.int32)
    gradient = jax.jit(jax.grad(lambda u: log_probs(hidden, u, targets, chunk_size=1).log_probs_T.sum()))(unembedding)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient.astype(jnp.float32), [[512.0], [-512.0]])


def sizes(jaxpr):
    """Element counts of every array in a jaxpr and the jaxprs inside it."""
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            yield math.prod(variable.aval.shape)
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            if hasattr(parameter, "jaxpr") or hasattr(parameter, "eqns"):
                yield from sizes(getattr(parameter, "jaxpr", parameter))


def test_no_array_holds_all_the_logits():
    hidden, unembedding, targets, _ = inputs((4, 64))

    def largest(function):
        return max(sizes(jax.make_jaxpr(jax.value_and_grad(function, argnums=(0, 1)))(hidden, unembedding).jaxpr))

    chunked = largest(lambda h, u: sum(x.sum() for x in log_probs(h, u, targets, chunk_size=8, with_entropy=True)))
    assert chunked == max(8 * V, hidden.size)  # one chunk of logits, or the hidden states themselves
    assert largest(lambda h, u: sum(x.sum() for x in dense(h, u, targets))) == targets.size * V


def test_sharded_rows_stay_where_they_are():
    """Chunking moves no hidden state between devices, and every device computes an eighth of every chunk."""
    hidden, unembedding, targets, _ = inputs((8, 64))
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    function = jax.jit(lambda h, u, t: log_probs(h, u, t, chunk_size=64).log_probs_T)
    arguments = jax.device_put(hidden, sharding), unembedding, jax.device_put(targets, sharding)
    text = function.lower(*arguments).compile().as_text()
    assert not any(name in text for name in ("all-gather", "all-to-all", "collective-permute"))
    logits = [math.prod(map(int, shape.split(","))) for shape in re.findall(rf"f32\[((?:\d+,)*{V})\]", text)]
    assert max(logits) == 8 * V
    expected = jitted_dense(hidden, unembedding, targets)[0]
    np.testing.assert_allclose(function(*arguments), expected, rtol=1e-5, atol=1e-5)


def test_gradients_under_shard_map_are_summed_over_the_devices():
    hidden, unembedding, targets, _ = inputs((8, 16))
    mask = np.random.default_rng(1).random(targets.shape) < 0.5
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def loss(hidden, unembedding, targets, mask):
        return log_probs(hidden, unembedding, targets, mask_T=mask, chunk_size=4).log_probs_T.sum()

    spread, everywhere = PartitionSpec("data"), PartitionSpec()
    apart = jax.shard_map(
        lambda *arguments: jax.lax.psum(loss(*arguments), "data"),
        mesh=mesh,
        in_specs=(spread, everywhere, spread, spread),
        out_specs=everywhere,
    )
    found, expected = (jax.jit(jax.grad(f, argnums=(0, 1)))(hidden, unembedding, targets, mask) for f in (apart, loss))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)


@settings(deadline=None, max_examples=4)
@given(st.data())
def test_any_mask_any_chunk(data):
    """Ragged masks, empty rows and chunks without any token included."""
    shape = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 12))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    mask = rng.random(shape) < data.draw(st.sampled_from([0.0, 0.2, 0.7, 1.0]))
    hidden, unembedding, targets, (w_taken, w_entropy) = inputs(shape)

    def loss(function):
        def total(hidden, unembedding, temperature):
            taken, entropy = function(hidden, unembedding, temperature)
            return jnp.where(mask, w_taken * taken + w_entropy * entropy, 0.0).sum()

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(hidden, unembedding, jnp.float32(0.7))

    keywords = dict(mask_T=mask, chunk_size=data.draw(st.integers(1, 9)), with_entropy=True)
    found = loss(lambda h, u, t: log_probs(h, u, targets, temperature=t, **keywords))
    expected = loss(lambda h, u, t: dense(h, u, targets, t))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=3e-5), found, expected)


def test_chunks_without_an_action_are_skipped(monkeypatch):
    """Rows of 3, 0 and 5 actions among 64 tokens, 4 tokens of each row at a time: 2 of 16 chunks hold logits."""
    computed = []
    logits = rods_jax.log_probs.__globals__["_logits"]

    def counted(*arguments):
        jax.debug.callback(lambda: computed.append(1))
        return logits(*arguments)

    monkeypatch.setitem(rods_jax.log_probs.__globals__, "_logits", counted)
    hidden, unembedding, targets, _ = inputs((3, 64))
    mask = np.zeros((3, 64), bool)
    mask[0, [5, 17, 63]] = mask[2, ::13] = True
    assert mask.sum() == 8
    loss = lambda h: log_probs(h, unembedding, targets, mask_T=mask, chunk_size=12).log_probs_T.sum()
    jax.block_until_ready(jax.grad(loss)(hidden))
    jax.effects_barrier()
    assert len(computed) == 2 * 2  # forward and backward


def test_wrong_arguments_are_refused():
    hidden, unembedding, targets, _ = inputs()
    with pytest.raises(AssertionError, match="shape"):
        log_probs(hidden[:-1], unembedding, targets)
    with pytest.raises(AssertionError, match="type"):
        log_probs(hidden, unembedding, targets.astype(jnp.float32))
    with pytest.raises(AssertionError, match="equal_shape"):
        log_probs(hidden, unembedding, targets, mask_T=jnp.ones(1, bool))
    with pytest.raises(AssertionError, match="type"):
        log_probs(hidden, unembedding, targets, mask_T=jnp.ones(T))
    with pytest.raises(ValueError, match="chunk_size"):
        log_probs(hidden, unembedding, targets, chunk_size=0)
