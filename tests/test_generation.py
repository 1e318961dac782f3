"""Sampling is exact, reproducible by (seed, step, task, rollout, position), and never recompiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.decoder import DecoderConfig
from models.policy import callables
from rods_jax.generation import Sampling, capacities, generator, rollout_keys, sample
from rods_jax.log_probs import log_probs
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
ALL = np.broadcast_to(np.arange(G, dtype=np.int32), (N, G))  # rows that observe


def run(decode, params, sampling=Sampling(), ids=("a", "b"), prompts=PROMPTS, lengths=LENGTHS, step=0):
    """Two actions with an observation of ragged length between them; returns tokens and log-probabilities per row."""
    episodes = decode.start(params, prompts, lengths, rollout_keys(0, step, ids, G))
    rows = [[[], []] for _ in range(len(ids) * G)]
    for turn in range(2):
        generated, episodes = decode.act(params, episodes, np.ones((len(ids), G), bool), sampling)
        for row, tokens, likely, length, _ in zip(
            rows, *(np.asarray(x).reshape(len(ids) * G, *x.shape[2:]) for x in generated)
        ):
            row[0] += tokens[:length].tolist()
            row[1] += likely[:length].tolist()
        if turn == 0:
            seen = np.arange(len(ids) * G).reshape(len(ids), G) % 4
            tokens = np.full((len(ids), G, 4), 7, np.int32)
            episodes = decode.observe(params, episodes, ALL, tokens, seen.astype(np.int32))
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


def test_segments_do_not_show(policy, params, decode):
    """A message decoded one, two or three tokens at a time, other rows asleep between: the same bits."""
    keys = rollout_keys(0, 0, ("a", "b"), G)
    whole, _ = decode.act(params, decode.start(params, PROMPTS, LENGTHS, keys), np.ones((N, G), bool), Sampling())
    for segment in (1, 2, 3):
        short = generator(
            policy, stop_tokens=(STOP,), group_size=G, suffix_capacity=S, max_action_tokens=A, segment=segment
        )
        episodes = short.start(params, PROMPTS, LENGTHS, keys)
        rows, going = [([], []) for _ in range(N * G)], np.ones((N, G), bool)
        rng = np.random.default_rng(segment)
        while going.any():
            awake = going & (rng.random((N, G)) < 0.7)
            part, episodes = short.act(params, episodes, awake, Sampling())
            assert (part.lengths_NG[awake] >= 1).all() and not part.lengths_NG[~awake].any()
            assert part.tokens_NGA.shape == (N, G, segment)
            for b, (n, g) in enumerate(np.ndindex(N, G)):
                length = part.lengths_NG[n, g]
                rows[b][0].extend(part.tokens_NGA[n, g, :length].tolist())
                rows[b][1].extend(part.log_probs_NGA[n, g, :length].tolist())
            going &= ~np.asarray(part.ended_NG)
        for (tokens, likely), (n, g) in zip(rows, np.ndindex(N, G)):
            length = whole.lengths_NG[n, g]
            assert (tokens, likely) == (
                whole.tokens_NGA[n, g, :length].tolist(),
                whole.log_probs_NGA[n, g, :length].tolist(),
            )
        np.testing.assert_array_equal(episodes.said_NG, 0)


def test_a_segment_ends_when_the_ended_cost_as_much_as_a_look(policy, params):
    """Idle row-steps add up to half the rows, or the segment's tokens are said."""
    keys, active = rollout_keys(0, 0, ("a", "b"), G), np.ones((N, G), bool)
    settings = dict(stop_tokens=range(8), group_size=G, suffix_capacity=S, max_action_tokens=A)
    whole, short = generator(policy, **settings), generator(policy, segment=A, **settings)
    said, _ = whole.act(params, whole.start(params, PROMPTS, LENGTHS, keys), active, Sampling(9.0))
    lengths = np.asarray(said.lengths_NG)
    idle = [(t + 1 - lengths[lengths <= t + 1] + 1).sum() for t in range(A)]  # after t + 1 steps
    steps = next(t + 1 for t in range(A) if idle[t] >= N * G / 2 or (lengths <= t + 1).all())
    part, _ = short.act(params, short.start(params, PROMPTS, LENGTHS, keys), active, Sampling(9.0))
    assert part.lengths_NG.max() == steps < lengths.max()
    np.testing.assert_array_equal(part.lengths_NG, np.minimum(lengths, steps))
    np.testing.assert_array_equal(part.ended_NG, lengths <= steps)


def test_a_row_goes_to_another_rollout_in_the_middle_of_the_others_messages(policy, params):
    """Row 1 of task a begins rollout 2, whose noise it gets, from the prompt alone; the others feel nothing."""
    keys = lambda *rollouts: rollout_keys(0, 0, ("a", "b"), G)[:, np.array(rollouts)]
    short = generator(policy, stop_tokens=(STOP,), group_size=2, suffix_capacity=S, max_action_tokens=A, segment=2)
    everybody = np.ones((N, 2), bool)

    def said(episodes, rounds=A):
        parts, going = [], everybody
        for _ in range(rounds):
            part, episodes = short.act(params, episodes, going, Sampling(4.0))
            going = going & ~np.asarray(part.ended_NG)
            parts.append(part)
        rows = [[part.tokens_NGA[n, g, : part.lengths_NG[n, g]] for part in parts] for n, g in np.ndindex(N, 2)]
        return [np.concatenate(row).tolist() for row in rows], episodes

    alone, _ = said(short.start(params, PROMPTS, LENGTHS, keys(0, 2)))
    undisturbed, _ = said(short.start(params, PROMPTS, LENGTHS, keys(0, 1)))
    begun, episodes = said(short.start(params, PROMPTS, LENGTHS, keys(0, 1)), rounds=1)
    fresh = np.array([[False, True], [False, False]])
    episodes = short.renew(episodes, fresh, keys(0, 2))
    assert episodes.lengths_NG[0, 1] == episodes.said_NG[0, 1] == 0
    going_on, _ = said(episodes)
    assert going_on[1] == alone[1] != undisturbed[1]
    for row in (0, 2, 3):
        expected = undisturbed[row]
        assert (begun[row] + going_on[row])[: len(expected)] == expected


def test_a_few_rows_observe_as_all_would(policy, params):
    """Columns of one row in two: what each row reads and says next is what it would be with all rows at once."""
    group, keys = 4, rollout_keys(0, 0, ("a", "b"), 4)
    settings = dict(stop_tokens=(STOP,), group_size=group, suffix_capacity=S, max_action_tokens=A)
    every, few = generator(policy, **settings), generator(policy, columns=2, **settings)
    active = np.ones((N, group), bool)
    rng = np.random.default_rng(0)
    told = rng.integers(2, V, (N, group, 5)).astype(np.int32)
    counts = np.array([[5, 0, 3, 1], [2, 4, 0, 5]], np.int32)
    after = []
    for decode in (every, few):
        _, episodes = decode.act(params, decode.start(params, PROMPTS, LENGTHS, keys), active, Sampling())
        if decode is every:
            rows = np.broadcast_to(np.arange(group, dtype=np.int32), (N, group))
            episodes = decode.observe(params, episodes, rows, told, counts)
        else:
            for rows in (np.array([[1, 3], [0, 2]], np.int32), np.array([[0, 2], [1, 3]], np.int32)):
                n = np.arange(N)[:, None]
                episodes = decode.observe(params, episodes, rows, told[n, rows], counts[n, rows])
        after.append(decode.act(params, episodes, active, Sampling()))
    (expected, whole), (found, parts) = after
    np.testing.assert_array_equal(found.tokens_NGA, expected.tokens_NGA)
    np.testing.assert_allclose(found.log_probs_NGA, expected.log_probs_NGA, atol=1e-5)
    np.testing.assert_array_equal(parts.lengths_NG, whole.lengths_NG)


def test_caches_of_any_size_give_the_same_bits(policy, params):
    """Grown while rows speak and listen, or full from the start: one, two or four blocks of keys."""
    limit, keys = 2048, rollout_keys(0, 0, ("a", "b"), G)
    assert capacities(limit) == (512, 1024, 2048) and capacities(512) == (512,) and capacities(300) == (300,)
    assert capacities(10_240) == (1536, 2560, 5120, 10_240)
    long = generator(policy, stop_tokens=(), group_size=G, suffix_capacity=limit, max_action_tokens=12)
    told = np.random.default_rng(2).integers(2, V, (N, G, 250)).astype(np.int32)
    active = np.ones((N, G), bool)

    def play(sizes):
        """Acts of 12 tokens and observations of 250, each after the caches have the next of `sizes`."""
        episodes, parts = long.start(params, PROMPTS, LENGTHS, keys), []
        for size in sizes:
            if episodes.suffixes.keys_NGKSE[0].shape[3] != size:
                episodes = long.grow(episodes, size)
            part, episodes = long.act(params, episodes, active, Sampling())
            episodes = long.observe(params, episodes, ALL, told, np.full((N, G), 250, np.int32) - ALL)
            parts.append(part)
        return parts, episodes.hidden_NGD

    grown, last = play([512, 1024, 1024, 2048, 2048])
    full, same = play([2048] * 5)
    for part, expected in zip(grown, full, strict=True):
        for x, y in zip(part, expected, strict=True):
            np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(last, same)


def test_a_slot_goes_to_another_task_and_leaves_the_others_alone(policy, params):
    """Task b's slot is given to task c in the middle of task a's messages."""
    short = generator(policy, stop_tokens=(STOP,), group_size=G, suffix_capacity=S, max_action_tokens=A, segment=2)
    keys = lambda *tasks: rollout_keys(0, 0, tasks, G)
    third, length = np.random.default_rng(5).integers(2, V, P).astype(np.int32), np.int32(4)

    def speak(episodes, active, rounds):
        said = [[] for _ in range(N * G)]
        for _ in range(rounds):
            part, episodes = short.act(params, episodes, active, Sampling())
            active = active & ~np.asarray(part.ended_NG)
            for row, (n, g) in zip(said, np.ndindex(N, G)):
                row.extend(part.tokens_NGA[n, g, : part.lengths_NG[n, g]].tolist())
        return said, active, episodes

    everybody = np.ones((N, G), bool)
    first, active, together = speak(short.start(params, PROMPTS, LENGTHS, keys("a", "b")), everybody, 1)
    together = short.admit(params, together, np.int32(1), third, length, keys("c")[0])
    assert together.lengths_NG[1].tolist() == together.said_NG[1].tolist() == [0] * G
    active[1] = True
    second, *_ = speak(together, active, A)
    expected, *_ = speak(short.start(params, PROMPTS, LENGTHS, keys("a", "b")), everybody, A)
    prompts = np.stack([PROMPTS[0], third]), np.array([5, 4], np.int32)
    other, *_ = speak(short.start(params, *prompts, keys("a", "c")), everybody, A)
    assert [a + b for a, b in zip(first[:G], second[:G])] == expected[:G]
    assert second[G:] == other[G:]


def test_ids_without_a_token_are_never_sampled(policy, params):
    """The vocabulary has rows beyond the tokenizer's; log-probabilities are still those of all rows."""
    known = 9
    bounded = generator(policy, stop_tokens=(), group_size=G, suffix_capacity=S, max_action_tokens=A, num_tokens=known)
    active, keys = np.ones((N, G), bool), rollout_keys(0, 0, ("a", "b"), G)
    for sampling in (Sampling(5.0), Sampling(5.0, 0.9, 20), Sampling(0.0)):
        generated, _ = bounded.act(params, bounded.start(params, PROMPTS, LENGTHS, keys), active, sampling)
        assert generated.tokens_NGA.max() < known
    # Greedy: the first token's log-probability is that of the whole vocabulary's softmax.
    hidden, _ = policy.prefill(params, PROMPTS, LENGTHS, 1)
    log_probs = jax.nn.log_softmax(hidden @ policy.unembedding(params).T)
    expected = log_probs[:, :known].max(-1)
    np.testing.assert_allclose(generated.log_probs_NGA[:, 0, 0], expected, atol=1e-5)


def test_sampler_and_update_use_the_same_dtype_of_the_head():
    """In bfloat16 both multiply by the rounded unembedding: the same hidden state, the same log-probability."""
    policy = Policy(**callables(DecoderConfig(V, 1, 16, 2, 1, 8, 16, compute_dtype="bfloat16")))
    params = policy.init(jax.random.key(0))
    decode = generator(policy, stop_tokens=(), group_size=1, suffix_capacity=S, max_action_tokens=1)
    episodes = decode.start(params, PROMPTS, LENGTHS, rollout_keys(0, 0, ("a", "b"), 1))
    hidden = jnp.array(episodes.hidden_NGD)
    generated, _ = decode.act(params, episodes, np.ones((N, 1), bool), Sampling())
    expected = log_probs(hidden, policy.unembedding(params), generated.tokens_NGA[..., 0]).log_probs_T
    np.testing.assert_allclose(generated.log_probs_NGA[..., 0], expected, atol=1e-6)


@pytest.mark.parametrize("seed", [2**31, 20261129143005, 2**63])
def test_seeds_of_any_size_have_noise_of_their_own(seed):
    keys = [jax.random.key_data(rollout_keys(s, 0, ("a",), 2)).tolist() for s in (seed, seed + 1, seed % 2**31)]
    assert len(set(map(str, keys))) == 3


def test_settings_and_content_never_recompile(params, decode):
    run(decode, params)
    before = [f._cache_size() for f in decode[:-1]]
    for sampling in (Sampling(0.3, 0.9, 5), Sampling(0.0), Sampling(2.0, 0.5)):
        run(decode, params, sampling, prompts=(PROMPTS + 1) % V)
    assert [f._cache_size() for f in decode[:-1]] == before


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
    keys = lambda: jax.random.split(jax.random.key(1), (1, rows))  # anew for each use: the same noise, on purpose
    token, _ = sample(keys(), jnp.asarray(logits), Sampling(temperature, top_p, top_k))
    noise = np.asarray(jax.vmap(lambda key: jax.random.gumbel(key, (vocab,)))(keys()[0]))
    for row in range(rows):
        scaled = logits[0, row] / np.float32(temperature)
        exact = np.exp(scaled.astype(np.float64))
        kept = [v for v in range(vocab) if not top_k or (scaled > scaled[v]).sum() < top_k]
        total = exact[kept].sum()
        kept = [v for v in kept if exact[scaled > scaled[v]].sum() < max(top_p * (1 - 1e-6) * total, 1e-9)]
        assert token[0, row] == max(kept, key=lambda v: scaled[v] + noise[row, v])


def test_sampling_does_not_sort():
    logits = jnp.zeros((1, 2, 50))
    compiled = jax.jit(sample).lower(jax.random.split(jax.random.key(0), (1, 2)), logits, Sampling(1.0, 0.9, 5))
    assert " sort(" not in compiled.compile().as_text()


def test_greedy_takes_the_largest():
    logits = jax.random.normal(jax.random.key(0), (2, 3, 50))
    token, _ = sample(jax.random.split(jax.random.key(1), (2, 3)), logits, Sampling(temperature=0.0))
    np.testing.assert_array_equal(token, logits.argmax(-1))
