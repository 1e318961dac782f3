"""Sampling is exact, reproducible by (seed, step, task, rollout, position), and never recompiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.decoder import DecoderConfig
from models.policy import callables
from rods_jax.generation import Sampling, generator, rollout_keys, sample
from rods_jax.types import Policy

V, N, G, P, S, A = 23, 2, 3, 5, 24, 6
STOP = 1


@pytest.fixture(scope="module")
def policy():
    return Policy(**callables(DecoderConfig(V, 2, 16, 4, 2, 8, 24)))


@pytest.fixture(scope="module")
def params(policy):
    return jax.tree.map(lambda x: x * 10, policy.init(jax.random.key(0)))


@pytest.fixture(scope="module")
def decode(policy):
    return generator(policy, stop_tokens=(STOP,), group_size=G, suffix_capacity=S, max_action_tokens=A)


PROMPTS = np.random.default_rng(0).integers(2, V, (N, P)).astype(np.int32)
LENGTHS = np.array([5, 3], np.int32)


def run(decode, params, sampling=Sampling(), ids=("a", "b"), prompts=PROMPTS, lengths=LENGTHS, step=0):
    """Two actions with an observation of ragged length between them; returns tokens and log-probabilities per row."""
    episodes = decode.start(params, prompts, lengths, rollout_keys(0, step, ids, G))
    rows = [[[], []] for _ in range(len(ids) * G)]
    for turn in range(2):
        generated, episodes = decode.act(params, episodes, np.ones((len(ids), G), bool), sampling)
        for row, tokens, log_probs, length, _ in zip(
            rows, *(np.asarray(x).reshape(len(ids) * G, *x.shape[2:]) for x in generated)
        ):
            row[0] += tokens[:length].tolist()
            row[1] += log_probs[:length].tolist()
        if turn == 0:
            seen = np.arange(len(ids) * G).reshape(len(ids), G) % 4
            tokens = np.full((len(ids), G, 4), 7, np.int32)
            episodes = decode.observe(params, episodes, tokens, seen.astype(np.int32))
            for row, length in zip(rows, seen.reshape(-1)):
                row[0] += [7] * int(length)
                row[1] += [None] * int(length)
    return rows


def first_action(row):
    tokens = row[0][:A]
    return tokens[: tokens.index(STOP) + 1] if STOP in tokens else tokens


def test_behavior_log_probs_equal_recomputation(policy, params, decode):
    rows = run(decode, params, Sampling(temperature=0.7))
    suffix = np.zeros((N, G, S), np.int32)
    for row, (tokens, _) in enumerate(rows):
        suffix[row // G, row % G, : len(tokens)] = tokens
    hidden = jax.jit(policy.forward)(params, PROMPTS, LENGTHS, suffix)
    log_probs = jax.nn.log_softmax(hidden @ policy.unembedding(params).T / 0.7)
    for row, (tokens, recorded) in enumerate(rows):
        for s, (token, log_prob) in enumerate(zip(tokens, recorded)):
            if log_prob is not None:
                assert abs(log_probs[row // G, row % G, s, token] - log_prob) < 1e-4


def test_noise_depends_on_task_and_step_only(params, decode):
    rows = run(decode, params)
    swapped = run(decode, params, ids=("b", "a"), prompts=PROMPTS[::-1], lengths=LENGTHS[::-1].copy())
    assert [first_action(row) for row in rows[:G]] == [first_action(row) for row in swapped[G:]]
    assert rows == run(decode, params)
    assert rows != run(decode, params, step=1)
    assert len({tuple(row[0]) for row in rows[:G]}) > 1  # rollouts of one task differ


def test_an_action_ends_at_the_stop_token_or_the_limit(params, decode):
    episodes = decode.start(params, PROMPTS, LENGTHS, rollout_keys(0, 0, ("a", "b"), G))
    active = np.ones((N, G), bool)
    active[1, 2] = False
    generated, episodes = decode.act(params, episodes, active, Sampling())
    for n, g in np.ndindex(N, G):
        length = int(generated.lengths_NG[n, g])
        tokens = generated.tokens_NGA[n, g, :length].tolist()
        assert length == (A if STOP not in tokens else tokens.index(STOP) + 1) * active[n, g]
    np.testing.assert_array_equal(episodes.lengths_NG, generated.lengths_NG)


def test_a_message_ends_at_whichever_of_several_stop_tokens_comes_first(policy, params):
    stops = (STOP, 3, 7, 11, 13)
    several = generator(policy, stop_tokens=stops, group_size=G, suffix_capacity=S, max_action_tokens=A)
    episodes = several.start(params, PROMPTS, LENGTHS, rollout_keys(0, 0, ("a", "b"), G))
    generated, _ = several.act(params, episodes, np.ones((N, G), bool), Sampling(temperature=9.0))
    ends = set()
    for n, g in np.ndindex(N, G):
        tokens = generated.tokens_NGA[n, g, : generated.lengths_NG[n, g]].tolist()
        assert len(tokens) == A or tokens[-1] in stops
        assert not set(stops) & set(tokens[:-1])
        ends.add(tokens[-1])
    assert len(ends & set(stops)) > 1  # more than one of them was met


def test_segments_do_not_show(params, decode):
    """A message decoded one, two or three tokens at a time, other rows asleep between: the same bits."""
    keys = rollout_keys(0, 0, ("a", "b"), G)
    whole, _ = decode.act(params, decode.start(params, PROMPTS, LENGTHS, keys), np.ones((N, G), bool), Sampling())
    episodes = decode.start(params, PROMPTS, LENGTHS, keys)
    rows, going = [([], []) for _ in range(N * G)], np.ones((N, G), bool)
    rng = np.random.default_rng(0)
    while going.any():
        awake = going & (rng.random((N, G)) < 0.7)
        steps, enough = np.int32(rng.integers(1, 4)), np.int32(rng.integers(1, N * G))
        part, episodes = decode.act(params, episodes, awake, Sampling(), enough, steps)
        assert (part.lengths_NG[awake] >= 1).all() and not part.lengths_NG[~awake].any()
        assert part.lengths_NG.max() <= steps
        for b, (n, g) in enumerate(np.ndindex(N, G)):
            length = part.lengths_NG[n, g]
            rows[b][0].extend(part.tokens_NGA[n, g, :length].tolist())
            rows[b][1].extend(part.log_probs_NGA[n, g, :length].tolist())
        going &= ~np.asarray(part.ended_NG)
    for (tokens, log_probs), (n, g) in zip(rows, np.ndindex(N, G)):
        length = whole.lengths_NG[n, g]
        assert (tokens, log_probs) == (
            whole.tokens_NGA[n, g, :length].tolist(),
            whole.log_probs_NGA[n, g, :length].tolist(),
        )
    np.testing.assert_array_equal(episodes.said_NG, 0)


def test_a_segment_ends_when_enough_messages_have(params, decode):
    keys = rollout_keys(0, 0, ("a", "b"), G)
    whole, _ = decode.act(params, decode.start(params, PROMPTS, LENGTHS, keys), np.ones((N, G), bool), Sampling())
    lengths = np.sort(np.asarray(whole.lengths_NG).ravel())
    assert lengths[0] < lengths[-1]
    for enough in range(1, N * G + 1):
        episodes = decode.start(params, PROMPTS, LENGTHS, keys)
        part, _ = decode.act(params, episodes, np.ones((N, G), bool), Sampling(), np.int32(enough))
        assert part.lengths_NG.max() == lengths[enough - 1]
        np.testing.assert_array_equal(part.ended_NG, whole.lengths_NG <= lengths[enough - 1])


def test_a_slot_goes_to_another_task_and_leaves_the_others_alone(params, decode):
    """Task b's slot is given to task c in the middle of task a's messages."""
    keys = rollout_keys(0, 0, ("a", "b", "c"), G)
    third, length = np.random.default_rng(5).integers(2, V, P).astype(np.int32), np.int32(4)
    active, steps = np.ones((N, G), bool), np.int32(2)
    together = decode.start(params, PROMPTS, LENGTHS, keys[:2])
    first, together = decode.act(params, together, active, Sampling(), steps=steps)
    together = decode.admit(params, together, np.int32(1), third, length, keys[2])
    assert together.lengths_NG[1].tolist() == together.said_NG[1].tolist() == [0] * G
    more = active & ~np.asarray(first.ended_NG)
    more[1] = True
    second, together = decode.act(params, together, more, Sampling())

    undisturbed = decode.start(params, PROMPTS, LENGTHS, keys[:2])
    expected, _ = decode.act(params, undisturbed, active, Sampling())
    alone = decode.start(params, np.stack([PROMPTS[0], third]), np.array([5, 4], np.int32), keys[np.array([0, 2])])
    other, _ = decode.act(params, alone, active, Sampling())
    for g in range(G):
        said = [part.tokens_NGA[0, g, : part.lengths_NG[0, g]] for part in (first, second)]
        np.testing.assert_array_equal(np.concatenate(said), expected.tokens_NGA[0, g, : expected.lengths_NG[0, g]])
    np.testing.assert_array_equal(second.tokens_NGA[1], other.tokens_NGA[1])
    np.testing.assert_allclose(second.log_probs_NGA[1], other.log_probs_NGA[1], atol=1e-5)


def test_settings_and_content_never_recompile(params, decode):
    run(decode, params)
    before = [f._cache_size() for f in decode]
    for sampling in (Sampling(0.3, 0.9, 5), Sampling(0.0), Sampling(2.0, 0.5)):
        run(decode, params, sampling, prompts=(PROMPTS + 1) % V)
    assert [f._cache_size() for f in decode] == before


@pytest.mark.parametrize("top_p, top_k", [(1.0, 0), (0.6, 0), (1.0, 3), (0.5, 4)])
def test_distribution_is_exact(top_p, top_k):
    logits = np.array([2.0, 1.0, 1.0, 0.2, -0.5, -3.0, 0.9], np.float32)
    order = np.argsort(-logits, kind="stable")
    p = np.exp(logits / 0.8) / np.exp(logits / 0.8).sum()
    keep = np.ones(7, bool)
    if top_k:
        keep = logits >= logits[order[top_k - 1]]
    q = np.where(keep, p, 0) / p[keep].sum()
    cumulative = np.cumsum(q[order])
    edge = logits[order[np.searchsorted(cumulative, top_p - 1e-6)]] if top_p < 1 else -np.inf
    q = np.where(logits >= edge, q, 0) / q[logits >= edge].sum()
    draws = 20_000
    keys = jax.random.split(jax.random.key(3), (1, draws))
    token, log_prob = jax.jit(sample)(keys, jnp.broadcast_to(logits, (1, draws, 7)), Sampling(0.8, top_p, top_k))
    counts = np.bincount(np.asarray(token[0]), minlength=7)
    assert (counts[q == 0] == 0).all()
    chi_square = ((counts - draws * q)[q > 0] ** 2 / (draws * q[q > 0])).sum()
    assert chi_square < 22.5  # 0.999 quantile at 6 degrees of freedom
    np.testing.assert_allclose(log_prob[0], np.log(p)[np.asarray(token[0])], rtol=1e-5)


@pytest.mark.parametrize("top_p, top_k", [(0.0, 0), (0.05, 0), (0.5, 0), (0.95, 0), (1.0, 0), (0.7, 9), (1.0, 1)])
def test_the_token_is_the_largest_noisy_one_of_the_truncated_set(top_p, top_k):
    rows, vocab, temperature = 120, 60, 1.3
    logits = np.asarray(3 * jax.random.normal(jax.random.key(0), (1, rows, vocab)), np.float32)
    logits = np.round(logits, 1)  # ties
    keys = jax.random.split(jax.random.key(1), (1, rows))
    token, _ = sample(keys, jnp.asarray(logits), Sampling(temperature, top_p, top_k))
    for row in range(rows):
        scaled = logits[0, row] / np.float32(temperature)
        exact = np.exp(scaled.astype(np.float64))
        kept = [v for v in range(vocab) if not top_k or (scaled > scaled[v]).sum() < top_k]
        total = exact[kept].sum()
        kept = [v for v in kept if exact[scaled > scaled[v]].sum() < max(top_p * (1 - 1e-6) * total, 1e-9)]
        noise = np.asarray(jax.random.gumbel(keys[0, row], (vocab,)))
        assert token[0, row] == max(kept, key=lambda v: scaled[v] + noise[v])


def test_sampling_does_not_sort():
    logits = jnp.zeros((1, 2, 50))
    compiled = jax.jit(sample).lower(jax.random.split(jax.random.key(0), (1, 2)), logits, Sampling(1.0, 0.9, 5))
    assert " sort(" not in compiled.compile().as_text()


def test_greedy_takes_the_largest():
    logits = jax.random.normal(jax.random.key(0), (2, 3, 50))
    token, _ = sample(jax.random.split(jax.random.key(1), (2, 3)), logits, Sampling(temperature=0.0))
    np.testing.assert_array_equal(token, logits.argmax(-1))
