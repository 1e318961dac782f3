"""Boundary signals: each formula against exact fractions, what is mapped or sharded, and known truths by simulation."""

from fractions import Fraction
from functools import partial
from math import log, prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from rods_jax.boundary import (
    BOUNDARY,
    HARD,
    MASTERED,
    Evidence,
    any_task,
    beta_posterior,
    binary_band,
    coevolve,
    informative,
    mean_band,
    observed_variance,
    reward_entropy,
    split_band,
)
from scripts.boundary_signals import World, foresight, simulate, visit

SIGNALS = (
    mean_band,
    observed_variance,
    beta_posterior,
    informative,
    reward_entropy,
    split_band,
    binary_band,
    any_task,
    coevolve,
)
LOWER, UPPER = Fraction(1, 5), Fraction(17, 20)
jitted = {signal: jax.jit(partial(signal, lower=0.20, upper=0.85)) for signal in SIGNALS}
G, N = 4, 8


def evidence_of(groups, turns, earlier=None, best=0.0) -> Evidence:
    """Groups of passed turns, None where a rollout is not valid; earlier: (passed, total) of each task."""
    passed = [[-7 if x is None else x for x in group] for group in groups]  # what is masked is not read
    valid = [[x is not None for x in group] for group in groups]
    before = np.array(earlier or [(0, 0)] * len(groups), np.float32)
    best_N = np.broadcast_to(np.float32(best), len(groups))
    turns_N = np.array(turns, np.int32)
    return Evidence(np.array(passed, np.int32), np.array(valid), turns_N, before[:, 0], before[:, 1], best_N)


def zone(mean):
    return HARD if mean < LOWER else MASTERED if mean > UPPER else BOUNDARY


def by_hand(signal, group, turns, earlier):
    """(score, zone) in fractions; an entropy in float64."""
    seen = [x for x in group if x is not None]
    n = len(seen)
    if signal is any_task:
        return Fraction(0), BOUNDARY
    if signal is coevolve:  # never played before
        is_split = any(2 * x >= turns for x in seen) and any(2 * x < turns for x in seen)
        return Fraction(is_split, 2), BOUNDARY if is_split else HARD
    if signal is beta_posterior:
        trials = n + Fraction(earlier[1]) / turns
        a = Fraction(1, 2) + Fraction(sum(seen) + Fraction(earlier[0]), turns)
        size = trials + 1
        return 4 * a * (size - a) / (size * (size + 1)), zone(a / size) if trials else HARD
    if signal is informative:
        mean = Fraction(sum(seen), n * turns) if n else Fraction(0)
        weights = [Fraction(1, turns + 1) + seen.count(level) for level in range(turns + 1)]
        equal = sum(prod((w + i) / (n + 1 + i) for i in range(len(group))) for w in weights)
        return 1 - equal, zone(mean) if n else HARD
    if not n:
        return Fraction(0), HARD
    if signal is reward_entropy:
        shares = [seen.count(level) / n for level in set(seen)]
        return -sum(p * log(p, turns + 1) for p in shares), zone(Fraction(sum(seen), n * turns))
    rewards = [Fraction(x, turns) for x in seen]
    if signal is binary_band:
        rewards = [Fraction(x == turns) for x in seen]
    mean = sum(rewards) / n
    if signal is split_band and len(set(seen)) == 1 and zone(mean) == BOUNDARY:
        return 4 * mean * (1 - mean), HARD
    variance = sum((r - mean) ** 2 for r in rewards) / n
    return 4 * (variance if signal is observed_variance else mean * (1 - mean)), zone(mean)


groups_lists = st.lists(
    st.integers(1, 5).flatmap(
        lambda turns: st.tuples(
            st.lists(st.one_of(st.none(), st.integers(0, turns)), min_size=G, max_size=G),
            st.just(turns),
            st.tuples(st.integers(0, 80), st.integers(0, 80)).map(lambda pair: (min(pair), max(pair))),
        )
    ),
    min_size=N,
    max_size=N,
)


@pytest.mark.parametrize("signal", SIGNALS)
@settings(deadline=None, max_examples=30)
@given(tasks=groups_lists)
def test_each_signal_equals_its_formula(signal, tasks):
    groups, turns, earlier = zip(*tasks)
    scores_N, zones_N = jitted[signal](evidence_of(groups, turns, earlier))
    expected = [by_hand(signal, *task) for task in tasks]
    np.testing.assert_allclose(scores_N, [float(score) for score, _ in expected], atol=2e-6)
    edges = (LOWER, UPPER) if signal is beta_posterior else ()  # a posterior mean on an edge is a rounding error
    for found, (_, wanted), (group, u, before) in zip(zones_N.tolist(), expected, tasks):
        a = Fraction(1, 2) + Fraction(sum(x for x in group if x is not None) + before[0], u)
        mean = a / (1 + sum(x is not None for x in group) + Fraction(before[1], u))
        assert found == wanted or mean in edges
    assert scores_N.dtype == jnp.float32 and zones_N.dtype == jnp.int32


def test_values_by_hand():
    evidence = evidence_of([[0, 0, 2, 2], [1, 1, 1, 1], [2, 2, 2, None]], [2, 2, 2])
    scores = {signal: jitted[signal](evidence).scores_N.tolist() for signal in SIGNALS}
    assert scores[mean_band] == scores[binary_band][:1] + [1.0, 0.0] == [1.0, 1.0, 0.0]
    assert scores[observed_variance] == [1.0, 0.0, 0.0]  # half of the turns in every rollout: no variance
    np.testing.assert_allclose(
        scores[beta_posterior], [4 * 2.5**2 / 30, 4 * 2.5**2 / 30, 4 * 3.5 * 0.5 / 20], rtol=1e-6
    )
    assert scores[informative][0] > 0.75 and scores[informative][1] < 0.5 and scores[informative][2] < 0.5


def test_a_task_that_every_rollout_half_solves_is_in_the_band_of_the_mean_and_does_not_split():
    evidence = evidence_of([[1, 1, 1, 1], [1, 1, 1, None], [1, 1, 2, 1], [2, 2, 2, 2], [0, 0, 0, 0]], [2] * 5)
    assert jitted[mean_band](evidence).zones_N.tolist() == [BOUNDARY, BOUNDARY, BOUNDARY, MASTERED, HARD]
    assert jitted[split_band](evidence).zones_N.tolist() == [HARD, HARD, BOUNDARY, MASTERED, HARD]


def test_an_even_spread_over_all_levels_has_entropy_one():
    evidence = evidence_of([[0, 1, 0, 1], [0, 1, 2, 3], [0, 0, 3, 3], [2, 2, 2, None]], [1, 3, 3, 3])
    scores = jitted[reward_entropy](evidence).scores_N
    np.testing.assert_allclose(scores, [1.0, 1.0, 0.5, 0.0], atol=1e-6)
    assert scores[3] == 0.0


@pytest.mark.parametrize("turns", range(1, 9))
def test_equal_rewards_have_exactly_no_variance(turns):
    evidence = evidence_of([[k] * 7 + [None] for k in range(turns + 1)], [turns] * (turns + 1))
    assert jitted[observed_variance](evidence).scores_N.tolist() == [0.0] * (turns + 1)


def test_the_informative_score_is_the_posterior_predictive():
    """Level probabilities drawn from the Dirichlet posterior, a group from each: how often do its rewards differ?"""
    rng = np.random.default_rng(0)
    group, turns = [0, 1, 1, 3], 3
    weights = [1 / 4 + group.count(level) for level in range(4)]
    probabilities = rng.dirichlet(weights, size=200_000)
    expected = 1 - np.mean(np.sum(probabilities**G, axis=1))
    score = jitted[informative](evidence_of([group], [turns])).scores_N[0]
    np.testing.assert_allclose(score, expected, atol=2e-3)


def test_pooled_evidence_counts_as_if_it_were_seen_now():
    now = jitted[beta_posterior](evidence_of([[0, 1, 2, 2]], [2]))
    halves = jitted[beta_posterior](evidence_of([[0, 1, None, None]], [2], [(4, 4)]))
    np.testing.assert_allclose(now.scores_N, halves.scores_N, rtol=1e-6)
    assert now.zones_N.tolist() == halves.zones_N.tolist()


def test_a_noisy_group_does_not_flip_a_zone_that_was_seen_before():
    unlucky = [[0, 0, 0, 1]]  # 1 of 8 turns, of a task that passed 32 of 64
    assert jitted[mean_band](evidence_of(unlucky, [2], [(32, 64)])).zones_N.tolist() == [HARD]
    assert jitted[beta_posterior](evidence_of(unlucky, [2], [(32, 64)])).zones_N.tolist() == [BOUNDARY]
    assert jitted[beta_posterior](evidence_of(unlucky, [2], [(3, 6)])).zones_N.tolist() == [BOUNDARY]
    assert jitted[beta_posterior](evidence_of([[0, 0, 0, 0]], [2], [(1, 6)])).zones_N.tolist() == [HARD]


def test_coevolve_sees_what_was_forgotten_and_what_some_rollouts_solve():
    groups = [[2, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [2, 1, 2, 2], [2, None, None, 0]]
    detection = jitted[coevolve](evidence_of(groups, [2] * 6, best=[1.0, 0.5, 0.5, 0.49, 1.0, 0.0]))
    # Split; split and forgotten; forgotten; neither; all reach half; split, of the valid ones.
    assert detection.zones_N.tolist() == [BOUNDARY, BOUNDARY, BOUNDARY, HARD, HARD, BOUNDARY]
    assert detection.scores_N.tolist() == [0.5, 1.0, 0.5, 0.0, 0.0, 0.5]


def many(n=16) -> Evidence:
    rng = np.random.default_rng(1)
    turns = rng.integers(1, 6, n).astype(np.int32)
    total = rng.integers(0, 60, n).astype(np.float32)
    return Evidence(
        rng.integers(0, turns[:, None] + 1, (n, G)).astype(np.int32),
        rng.random((n, G)) < 0.9,
        turns,
        np.floor(total * rng.random(n)).astype(np.float32),
        total,
        rng.random(n).astype(np.float32),
    )


@pytest.mark.parametrize("signal", SIGNALS)
def test_tasks_may_be_mapped_or_sharded(signal):
    evidence = many()
    signal = partial(signal, lower=0.20, upper=0.85)
    expected = jax.jit(signal)(evidence)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = PartitionSpec("data")
    split = jax.tree.map(lambda x: x.reshape(8, 2, *x.shape[1:]), evidence)
    found = {
        "shard_map": jax.jit(jax.shard_map(signal, mesh=mesh, in_specs=spec, out_specs=spec))(evidence),
        "sharded": jax.jit(signal)(jax.device_put(evidence, jax.sharding.NamedSharding(mesh, spec))),
        "vmap": jax.tree.map(lambda x: x.reshape(16), jax.jit(jax.vmap(signal))(split)),
        "pmap": jax.tree.map(lambda x: x.reshape(16), jax.pmap(signal)(split)),
    }
    for how, detection in found.items():
        np.testing.assert_allclose(detection.scores_N, expected.scores_N, atol=1e-6, err_msg=how)
        np.testing.assert_array_equal(detection.zones_N, expected.zones_N, err_msg=how)


# --------------------------------------------------------------------------- against known truths
def test_the_world_draws_what_it_says():
    rng = np.random.default_rng(0)
    probability, turns = np.array([0.5, 0.9, 0.5, 0.3]), np.array([4, 2, 3, 5])
    correlation, stuck = np.array([0.0, 0.3, 1.0, 0.3]), np.array([False, False, True, True])
    truth, passed = visit(rng, probability, turns, correlation, stuck, 100_000)
    rewards = passed / turns[:, None]
    np.testing.assert_allclose(truth.mean_N, [0.5, 0.9, 1 / 3, 0.24], atol=1e-12)
    np.testing.assert_allclose(rewards.mean(axis=1), truth.mean_N, atol=5e-3)
    np.testing.assert_allclose(rewards.var(axis=1), truth.variance_N, atol=2e-3)
    np.testing.assert_allclose((passed == turns[:, None]).mean(axis=1), truth.solved_N, atol=5e-3)
    truth, passed = visit(rng, *(np.repeat(x, 20_000) for x in (probability, turns, correlation, stuck)), 4)
    differ = (passed != passed[:, :1]).any(axis=1).reshape(4, -1).mean(axis=1)
    np.testing.assert_allclose(differ, truth.informative_N[::20_000], atol=0.015)


@pytest.fixture(scope="module")
def figures():
    found = simulate(World(tasks=1600), np.random.default_rng(0))
    return {signal.__name__: row for signal, row in found.items()}


def test_each_score_estimates_its_truth_with_little_bias(figures):
    for name in ("mean_band", "observed_variance", "beta_posterior", "informative"):
        assert abs(figures[name]["bias"]) < 0.035, name
    # 4 r (1 - r) of a sample mean is biased by -4 Var(mean); the posterior knows how uncertain it is.
    assert figures["mean_band"]["bias"] < -0.01 < figures["beta_posterior"]["bias"]
    assert figures["beta_posterior"]["error"] < 0.8 * figures["mean_band"]["error"]


def test_the_posterior_flips_less_and_errs_less(figures):
    mean, posterior = figures["mean_band"], figures["beta_posterior"]
    assert posterior["flips"] < 0.65 * mean["flips"] and posterior["wrong"] < 0.9 * mean["wrong"]
    assert mean["flips"] > 2 * mean["true_flips"]  # most flips of single groups are noise
    assert posterior["in_band"] > mean["in_band"] > figures["any_task"]["in_band"] + 0.2


def test_each_signal_is_best_at_what_it_measures(figures):
    bands = {name: figures[name] for name in ("mean_band", "observed_variance", "beta_posterior", "informative")}
    assert max(bands, key=lambda name: bands[name]["in_band"]) == "beta_posterior"
    assert max(bands, key=lambda name: bands[name]["variance"]) == "observed_variance"
    assert max(bands, key=lambda name: bands[name]["informative"]) == "informative"


def test_foresight_by_hand():
    records = [
        {"step": 1, "task_ids": list("abcde"), "task_mean": [0.5, 0.4, 0.3, 0.4, 0.9], "task_variance": [0.0, 0.25, 0.1, 0.0, 0.1]},
        {"step": 2, "task_ids": list("edcba"), "task_mean": [0.5] * 5, "task_variance": [0.2, 0.0, 0.1, 0.25, 0.0]},
        {"step": 3},
        {"step": 4, "task_ids": None, "task_mean": None, "task_variance": None},
    ]  # fmt: skip
    found = foresight(records)
    assert found["pairs"] == 4 and found["all"] == pytest.approx(4 * 0.35 / 4)  # e was outside the band
    assert found["observed r"] == pytest.approx(1) and found["observed best quarter"] == pytest.approx(1)
    assert found["bound best quarter"] == 0  # a, at 1/2, never varies


def test_a_run_that_measured_hardly_a_task_twice_foretells_nothing():
    once = {"step": 1, "task_ids": list("abcde"), "task_mean": [0.5] * 5, "task_variance": [0.1] * 5}
    assert foresight([once]) == foresight([]) == {"pairs": 0}
    again = {"step": 2, "task_ids": list("abc"), "task_mean": [0.5] * 3, "task_variance": [0.1] * 3}
    assert foresight([once, again]) == {"pairs": 3}
