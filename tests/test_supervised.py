"""The cold start: its loss by hand, nothing learned from padding, and batches that account for every row."""

import random
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from models.decoder import DecoderConfig
from models.policy import callables
from rods_jax.demonstrations import Demonstration
from rods_jax.supervised import DemonstrationBatch, SupervisedState, demonstration_loss, jit_step, stream
from rods_jax.types import Policy

V, P, S = 17, 6, 8


def demonstration(index, length, prompt=3):
    """A row that can be told by its first suffix token; it listens to every third token."""
    tokens = [index, *((index + 3 * s) % (V - 1) + 1 for s in range(1, length))]
    return Demonstration([index % V] * prompt, tokens, [s % 3 != 2 for s in range(length)], (True,))


def batches_of(rows, count, sizes=(4, S), batch_size=2, seed=0):
    keywords = dict(batch_size=batch_size, prompt_size=P, suffix_sizes=sizes, observed_weight=0.25)
    return list(islice(stream(rows, rng=random.Random(seed), **keywords), count))


# ------------------------------------------------------------------------------------------- loss
TABLE = Policy(
    init=None,
    forward=lambda params, prompts, lengths, suffixes: params["hidden"],
    unembedding=lambda params: params["out"],
    prefill=None,
    empty=None,
    extend=None,
)


def table():
    rng = np.random.default_rng(0)
    params = {"hidden": rng.normal(size=(2, 1, 4, 3)), "out": rng.normal(size=(5, 3))}
    weights = [[[1, 0.25, 0, 0]], [[0, 1, 1, 0.25]]]
    batch = DemonstrationBatch(
        np.ones((2, 1), np.int32),
        np.ones(2, np.int32),
        np.array([[[1, 2, 0, 0]], [[3, 4, 0, 1]]], np.int32),
        np.array(weights, np.float32),
    )
    return jax.tree.map(jnp.float32, params), batch, params


def test_loss_is_the_weighted_mean_over_the_whole_batch():
    params, batch, exact = table()
    logits = exact["hidden"] @ exact["out"].T
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    by_hand = -(
        log_probs[0, 0, 0, 1] + 0.25 * log_probs[0, 0, 1, 2]
        + log_probs[1, 0, 1, 4] + log_probs[1, 0, 2, 0] + 0.25 * log_probs[1, 0, 3, 1]
    ) / 3.5  # fmt: skip
    np.testing.assert_allclose(demonstration_loss(params, batch, TABLE), by_hand, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(demonstration_loss, static_argnums=2)(params, batch, TABLE), by_hand, rtol=1e-6)


def test_weight_zero_gives_no_gradient_and_a_quarter_gives_a_quarter():
    params, batch, _ = table()
    gradient = jax.grad(demonstration_loss)(params, batch, TABLE)["hidden"]
    np.testing.assert_array_equal((gradient != 0).any(-1), batch.weights_NGS > 0)
    full = batch._replace(weights_NGS=(batch.weights_NGS > 0).astype(np.float32))
    scale = batch.weights_NGS * full.weights_NGS.sum() / batch.weights_NGS.sum()
    np.testing.assert_allclose(
        gradient, jax.grad(demonstration_loss)(params, full, TABLE)["hidden"] * scale[..., None], rtol=1e-5
    )
    nan = params | {"hidden": jnp.where((batch.weights_NGS > 0)[..., None], params["hidden"], jnp.nan)}
    np.testing.assert_array_equal(jax.grad(demonstration_loss)(nan, batch, TABLE)["hidden"], gradient)


# ----------------------------------------------------------------------------------- tiny decoder
@pytest.fixture(scope="module")
def policy():
    return Policy(**callables(DecoderConfig(V, 1, 16, 2, 1, 8, 24)))


@pytest.fixture(scope="module")
def step(policy):
    return jit_step(policy, optax.adam(0.02))


def fresh(policy, seed=0):
    params = policy.init(jax.random.key(seed))
    return SupervisedState(params, optax.adam(0.02).init(params))


def test_padding_of_prompt_and_suffix_is_never_learned(policy, step):
    (batch,) = batches_of([demonstration(1, 5), demonstration(2, 6, prompt=5)], 1, sizes=(S,))
    other = batch._replace(
        prompt_tokens_NP=np.where(np.arange(P) < batch.prompt_lengths_N[:, None], batch.prompt_tokens_NP, 7),
        suffix_tokens_NGS=np.where(batch.weights_NGS > 0, batch.suffix_tokens_NGS, 9),
    )
    assert (other.prompt_tokens_NP != batch.prompt_tokens_NP).any()
    assert (other.suffix_tokens_NGS != batch.suffix_tokens_NGS).any()
    one, loss_one, _ = step(fresh(policy), batch)
    two, loss_two, _ = step(fresh(policy), other)
    np.testing.assert_allclose(loss_one, loss_two, rtol=1e-6)
    # The first step of Adam is the gradient's sign, so compare its moments, which are linear in the gradient.
    for a, b in zip(jax.tree.leaves(one.optimizer_state[0].mu), jax.tree.leaves(two.optimizer_state[0].mu)):
        np.testing.assert_allclose(a, b, atol=1e-7)


def test_a_step_whose_gradient_is_not_finite_changes_nothing(policy, step):
    (batch,) = batches_of([demonstration(1, 5), demonstration(2, 6)], 1, sizes=(S,))
    before, state = fresh(policy), fresh(policy)
    endless = np.where(batch.weights_NGS > 0, np.float32(np.inf), np.float32(0))
    state, _, finite = step(state, batch._replace(weights_NGS=endless))
    assert not finite
    jax.tree.map(np.testing.assert_array_equal, state, before)
    _, _, finite = step(state, batch)
    assert finite


def test_the_loss_falls_and_the_same_batches_give_the_same_parameters(policy, step):
    rows = [demonstration(i, 7) for i in range(4)]
    ends = []
    for _ in range(2):
        state, losses = fresh(policy), []
        for batch in batches_of(rows, 60, sizes=(S,)):
            state, value, _ = step(state, batch)
            losses.append(float(value))
        ends.append((losses, state.params))
    assert abs(losses[0] - np.log(V)) < 1 and max(losses[-2:]) < 0.25 * losses[0]
    assert ends[0][0] == ends[1][0]
    jax.tree.map(np.testing.assert_array_equal, ends[0][1], ends[1][1])
    assert step._cache_size() == 1


# ------------------------------------------------------------------------------------------ batches
def rows_of(batch):
    return batch.suffix_tokens_NGS[:, 0, 0].tolist()


def test_a_batch_word_for_word():
    a = Demonstration([5, 6], [7, 8, 9], [True, False, True], (True,))
    b = Demonstration([4], [3], [True], (False,))
    (batch,) = batches_of([a, b], 1, sizes=(4,))
    order = 1 if rows_of(batch) == [7, 3] else -1
    np.testing.assert_array_equal(batch.prompt_tokens_NP[::order], [[5, 6, 0, 0, 0, 0], [4, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(batch.prompt_lengths_N[::order], [2, 1])
    np.testing.assert_array_equal(batch.suffix_tokens_NGS[::order, 0], [[7, 8, 9, 0], [3, 0, 0, 0]])
    np.testing.assert_array_equal(batch.weights_NGS[::order, 0], [[1, 0.25, 1, 0], [1, 0, 0, 0]])
    assert [array.dtype for array in batch] == [np.int32, np.int32, np.int32, np.float32]


def test_a_pass_holds_each_row_once_in_the_smallest_size_that_fits():
    lengths = {1: 1, 2: 4, 3: 5, 4: 8, 5: 3, 6: 2, 7: 6, 8: 7}
    rows = [demonstration(index, length) for index, length in lengths.items()]
    first, second = (batches_of(rows, 8)[i : i + 4] for i in (0, 4))
    for one_pass in (first, second):
        assert sorted(index for batch in one_pass for index in rows_of(batch)) == list(lengths)
        for batch in one_pass:
            size = batch.suffix_tokens_NGS.shape[2]
            assert all(4 < lengths[index] <= 8 if size == 8 else lengths[index] <= 4 for index in rows_of(batch))
    assert [rows_of(batch) for batch in first] != [rows_of(batch) for batch in second]
    sizes = {tuple(b.suffix_tokens_NGS.shape[2] for b in batches_of(rows, 4, seed=seed)) for seed in range(20)}
    assert len(sizes) == 6  # every order of two short and two long batches


def test_the_rest_of_a_pass_is_another_rest_in_the_next():
    rows = [demonstration(index, 4) for index in range(1, 4)]
    seen = [rows_of(batch) for batch in batches_of(rows, 30)]
    assert all(len(set(pair)) == 2 for pair in seen)
    assert {index for pair in seen for index in pair} == {1, 2, 3}


def test_what_does_not_fit_is_left_out_and_what_fits_exactly_is_not():
    rows = [
        demonstration(1, S),
        demonstration(2, S, prompt=P),
        demonstration(3, S + 1),
        demonstration(4, 4, prompt=P + 1),
    ]
    assert {tuple(sorted(rows_of(batch))) for batch in batches_of(rows, 5)} == {(1, 2)}


def test_too_few_for_one_batch_is_an_error():
    rows = [demonstration(1, 4), demonstration(3, 9), demonstration(4, 9)]
    with pytest.raises(
        ValueError,
        match=r"the sizes \(4, 8\) hold fewer than the 2 demonstrations of one batch: their prompts have up to \d+ tokens",
    ):
        batches_of(rows, 1)
    with pytest.raises(ValueError, match="hold fewer"):
        batches_of([], 1)


@pytest.mark.parametrize(
    "lengths, sizes",  # of the rows; of the batches of a pass (batches have two rows)
    [
        ((4, 8), [8]),  # one of each: the short one moves up
        ((1, 2, 3, 8), [4, 8]),  # the longest of the three moves up
        ((1, 2, 8), [8]),  # both move, because one alone is no batch
        ((1, 8, 8), [8]),
    ],
)
def test_a_size_with_too_few_rows_shares_its_neighbours_and_every_row_is_learned(lengths, sizes):
    rows = [demonstration(index, length) for index, length in enumerate(lengths, start=1)]
    batches = batches_of(rows, 20 * len(sizes))
    assert sorted(batch.suffix_tokens_NGS.shape[2] for batch in batches[: len(sizes)]) == sizes
    assert {index for batch in batches for index in rows_of(batch)} == set(range(1, len(rows) + 1))


def test_batches_depend_on_the_rng_alone():
    rows = [demonstration(index, 2 + index % 7) for index in range(1, 15)]
    again = [batches_of(rows, 12, seed=seed) for seed in (5, 5, 6)]
    jax.tree.map(np.testing.assert_array_equal, again[0], again[1])
    assert [rows_of(batch) for batch in again[0]] != [rows_of(batch) for batch in again[2]]
