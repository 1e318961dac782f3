"""Samplers: the table that they see, the one draw, and each rule by hand."""

from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from replay_toy import human_seeds, observe, pool_of
from test_filtering import CONFIG as FILTERED
from test_filtering import run

from rods_jax import replay, samplers
from rods_jax.config import ConfigError, ReplaySettings
from rods_jax.filtering import differing, varied
from rods_jax.replay import Table

NAN = np.nan
SAMPLERS = [
    samplers.equal,
    samplers.difficulty_pools,
    samplers.thompson,
    samplers.learnability,
    partial(samplers.variance_priority, tasks_per_step=2),
    partial(samplers.recycling, tasks_per_step=2),
    samplers.prompt_replay,
    partial(samplers.nearest_half, tasks_per_step=2),
]


def seen(*means, step=10, steps=None, low=None, high=None, rollouts=8) -> Table:
    """A table of tasks with one measurement each, nan: none; its rollouts differ where its mean is neither 0 nor 1."""
    means_NW = np.array(means, float)[:, None]
    there_NW = ~np.isnan(means_NW)
    column = lambda values: np.array(values, float)[:, None]
    return Table(
        step,
        tuple(f"task{n}" for n in range(len(means))),
        ("base",) * len(means),
        means_NW,
        np.where(there_NW, np.floor(means_NW), NAN) if low is None else column(low),
        np.where(there_NW, np.ceil(means_NW), NAN) if high is None else column(high),
        np.where(there_NW, rollouts, 0),
        np.where(there_NW, 4, -1) if steps is None else np.array(steps)[:, None],
    )


def rng():
    return np.random.default_rng(0)


# --------------------------------------------------------------------------------------- the table
def test_the_table_holds_the_latest_measurements_newest_first_without_those_of_the_step_before():
    state = replay.create(human_seeds(3), ReplaySettings(history=3))
    for step, passed in ((1, 4), (2, 8), (5, 12)):
        state = observe(state, "human1", passed, 16, step, low=passed // 8, high=2, checks=2)
    state = observe(state, "human2", 3, 16, 2)  # as an earlier version measured
    table = replay.table(state, 5)
    assert table.ids == ("human0", "human1", "human2") and table.categories == ("base",) * 3
    np.testing.assert_array_equal(table.means_NW, [[NAN, NAN], [0.5, 0.25], [NAN, NAN]])
    np.testing.assert_array_equal(table.lows_NW[1], [0.5, 0.0])
    np.testing.assert_array_equal(table.highs_NW[1], [1.0, 1.0])
    np.testing.assert_array_equal(table.counts_NW, [[0, 0], [8, 8], [0, 0]])
    np.testing.assert_array_equal(table.steps_NW, [[-1, -1], [2, 1], [-1, -1]])
    assert table.seen_N.tolist() == [False, True, False]
    # What step 5 measures is known from step 7 on, whether it was read before step 6 was played or after.
    before = observe(replay.create(human_seeds(1), state.settings), "human0", 8, 16, 1, 1, 1, 2)
    after = observe(before, "human0", 4, 16, 5, 0, 1, 2)
    for a, b in zip(replay.table(before, 6), replay.table(after, 6), strict=True):
        np.testing.assert_array_equal(a, b)
    assert replay.table(after, 7).mean_N[0] == 0.25


# ---------------------------------------------------------------------------------------- the draw
def test_the_draw_follows_from_seed_and_step_and_holds_every_task_once():
    state = pool_of(30)
    draw = partial(samplers.drawn, state, samplers.equal)
    first = draw(seed=0, step=3)
    assert first == draw(seed=0, step=3) != draw(seed=0, step=4) != draw(seed=1, step=4)
    assert sorted(task.id for task in first) == sorted(task.id for task in replay.active_tasks(state))


def test_arms_share_their_chance():
    """A task keeps its random number when others come, so that equal weights draw the others in the same order."""
    few, many = (samplers.drawn(pool_of(n), samplers.equal, seed=0, step=3) for n in (10, 30))
    names = {task.id for task in few}
    assert [task.id for task in few] == [task.id for task in many if task.id in names]


def test_tasks_are_drawn_as_often_as_their_weights_say():
    state = pool_of(4)
    weights = lambda table, rng: np.array([4.0, 3.0, 2.0, 1.0])
    first = Counter(samplers.drawn(state, weights, seed=0, step=step)[0].id for step in range(4000))
    for n, share in enumerate((0.4, 0.3, 0.2, 0.1)):
        assert abs(first[f"human{n}"] / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5


def test_a_task_of_weight_0_comes_last():
    state = pool_of(4)
    weights = lambda table, rng: np.array([0.0, 1.0, 0.0, 1.0])
    for step in range(20):
        order = [task.id for task in samplers.drawn(state, weights, seed=0, step=step)]
        assert set(order[:2]) == {"human1", "human3"}


def test_where_all_weights_are_0_the_draw_is_even():
    none = lambda table, rng: np.zeros(4)
    assert samplers.drawn(pool_of(4), none, seed=0, step=3) == samplers.drawn(
        pool_of(4), samplers.equal, seed=0, step=3
    )


@pytest.mark.parametrize("weights", [[1.0] * 3, [1.0, 1.0, 1.0, NAN], [1.0, -1.0, 1.0, 1.0], [np.inf] * 4])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match="a finite weight of at least 0 for each of 4 tasks"):
        samplers.drawn(pool_of(4), lambda table, rng: np.array(weights), seed=0, step=1)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("means", [(1.0,) * 6, (0.0,) * 6, (NAN,) * 6, (0.0, 0.2, 0.5, 0.8, 1.0, NAN)])
def test_every_sampler_gives_weights_for_every_pool(sampler, means):
    weights_N = sampler(seen(*means), rng())
    assert weights_N.shape == (6,) and np.isfinite(weights_N).all() and (weights_N >= 0).all()
    np.testing.assert_array_equal(weights_N, sampler(seen(*means), rng()))


# --------------------------------------------------------------------------------------- each rule
def test_difficulty_pools_have_inclusive_upper_edges():
    weights_N = samplers.difficulty_pools(seen(0.0, 0.25, 0.26, 0.75, 0.76, 1.0, NAN), rng())
    assert weights_N.tolist() == [0.2, 0.2, 1.0, 1.0, 0.2, 0.2, 1.0]


def test_thompson_prefers_tasks_whose_groups_differed_and_keeps_a_floor():
    mean = np.mean([samplers.thompson(seen(0.5, 1.0, NAN), np.random.default_rng(n)) for n in range(2000)], axis=0)
    assert mean[0] > mean[2] > mean[1] > 0.05 / 3  # Beta(2, 1), Beta(1, 1), Beta(1, 2)
    assert abs(mean.sum() - 1) < 1e-9


def test_learnability_is_largest_where_half_is_passed():
    mean = np.mean([samplers.learnability(seen(0.0, 0.5, 1.0), np.random.default_rng(n)) for n in range(2000)], axis=0)
    # E[p (1 - p)] of Beta(a, b) is ab / ((a + b)(a + b + 1)), with (1, 9), (5, 5) and (9, 1).
    np.testing.assert_allclose(mean, [9 / 110, 25 / 110, 9 / 110], rtol=0.05)


def priority(table):
    return samplers.variance_priority(table, rng(), tasks_per_step=0)


def test_a_priority_is_of_tasks_whose_success_varies():
    table = seen(0.5, 0.5, 0.5, 0.5, low=[0, 0, 0.5, 0.5], high=[1, 0.75, 1, 0.5])
    assert priority(table).tolist() == [1.0, 0.0, 1.0, 0.0]  # the last is stuck


def test_variance_priority_is_the_boundary_score():
    np.testing.assert_allclose(priority(seen(0.0, 0.25, 0.5, NAN)), [0.0, 0.75, 1.0, 1.0], rtol=1e-12)


def test_a_priority_weighs_what_is_older_by_nine_tenths_a_measurement():
    means = np.array([[0.5, 0.0, 0.0]])  # newest first
    mixed = dict(lows_NW=np.zeros((1, 3)), highs_NW=np.ones((1, 3)))
    table = seen(0.0)._replace(means_NW=means, steps_NW=np.array([[9, 8, 7]]), **mixed)
    np.testing.assert_allclose(priority(table), [1 / (1 + 0.9 + 0.81)], rtol=1e-12)


def test_a_step_is_drawn_evenly_and_priority_chooses_what_replaces():
    """Of six tasks two are stuck: they are drawn first as often as the others, and last of those that replace."""
    table = seen(0.0, 0.0, 0.5, 0.5, 0.5, 0.5)
    first = [samplers.variance_priority(table, np.random.default_rng(n), tasks_per_step=3) for n in range(600)]
    chosen = np.stack(first) == samplers.FIRST
    assert (chosen.sum(1) == 3).all()
    np.testing.assert_allclose(chosen.mean(0), 0.5, atol=0.1)  # five standard errors
    assert {row[n] for row in first for n in (0, 1) if row[n] < samplers.FIRST} == {0.0}
    # Whatever the chance of a task is, those of the step come before all others.
    assert np.log(samplers.FIRST) > -np.log(-np.log(1 - 2.0**-53)) + np.log(-np.log(2.0**-54))


def test_recycling_takes_out_what_taught_until_an_epoch_has_passed():
    sampler = partial(samplers.recycling, tasks_per_step=2)  # an epoch of five tasks has 2.5 steps
    table = seen(0.5, 0.5, 1.0, 0.0, NAN, step=10, steps=[8, 7, 8, 8, -1])
    assert sampler(table, rng()).tolist() == [0.0, 1.0, 1.0, 1.0, 1.0]


def test_prompt_replay_gives_a_share_to_rested_tasks_in_the_band():
    table = seen(0.5, 0.25, 0.2, 0.5, NAN, step=10, steps=[4, 4, 4, 5, -1])
    np.testing.assert_allclose(
        samplers.prompt_replay(table, rng()), np.array([0.1 + 1 / 3, 0.1 + 1 / 6, 0.1, 0.1, 0.1]), rtol=1e-12
    )


def test_nearest_half_draws_the_candidates_nearest_to_one_half():
    table = seen(0.0, 0.5, 1.0, 0.9, 0.4, rollouts=1000)
    weights_N = samplers.nearest_half(table, rng(), tasks_per_step=2, candidates=3)
    assert np.argmax(weights_N) == 1
    few_N = samplers.nearest_half(table, rng(), tasks_per_step=2, candidates=1)
    assert (few_N > 0).sum() == 2


# ----------------------------------------------------------------------------------------- gates
def test_gates_of_graded_rewards():
    partly, same = np.array([1, 1, 0, 1]), np.array([1, 1, 1, 1])
    assert differing(partly, 2) and not differing(same, 2)
    assert not differing(np.array([1]), 2)  # one valid rollout has no advantage
    # k of 8 rollouts pass a single check: k (8 - k) / 16 of the largest variance.
    groups = [np.array([1] * k + [0] * (8 - k)) for k in range(9)]
    assert [varied(group, 1, least=0.8) for group in groups] == [3 <= k <= 5 for k in range(9)]
    assert [varied(group, 1) for group in groups] == [1 <= k <= 7 for k in range(9)]


# ------------------------------------------------------------------------------------------ in a run
def with_weights(weights, keep=None, **changes):
    return replace(FILTERED, rollout=replace(FILTERED.rollout, weights=weights, keep=keep), **changes)


def test_a_run_draws_by_weight_and_resumes_after_every_step():
    """Weights that hang on what was measured: a step more or less would change them."""
    config = with_weights(partial(samplers.difficulty_pools, weights=(0.0, 1.0, 0.0)))
    whole, _, final = run(config)
    tasks = [one["task_ids"] for one in whole]
    assert len(tasks) == 9  # three epochs of six tasks, two a step
    # Only a and d lie between; when all are known they alone are played.
    assert {chr(int(name)) for ids in tasks[5:] for name in ids} == {"a", "d"}
    for until in (1, 4):
        first, _, stopped = run(config, until=until)
        rest, _, resumed = run(config, start=stopped)
        assert [one["task_ids"] for one in first + rest] == tasks and resumed.replay == final.replay


def test_a_run_ends_with_the_step_that_reaches_its_rollouts():
    records, _, final = run(with_weights(None, keep=differing, max_rollouts=20))
    # Steps of two tasks or three, four rollouts each.
    spent = [one["rollouts_spent"] for one in records]
    assert spent[-2] < 20 <= spent[-1] == final.rollouts
    assert spent[-1] == 4 * sum(one.get("tasks_played", 2) for one in records)
    again, _, same = run(with_weights(None, keep=differing, max_rollouts=20), start=final)
    assert again == [] and same == final  # it has ended


def test_history_of_one_is_refused_with_a_sampler():
    with pytest.raises(ConfigError, match="replay.history must be above 1 where rollout.weights draws"):
        with_weights(samplers.equal, replay=ReplaySettings(history=1))


def test_the_random_numbers_of_a_sampler_follow_from_seed_and_step():
    drawn = {}
    for seed, step in ((0, 1), (0, 2), (1, 1)):

        def weights(table, rng):
            return drawn.setdefault((seed, step), rng.random(4))

        samplers.drawn(pool_of(4), weights, seed=seed, step=step)
    assert len({tuple(some) for some in drawn.values()}) == 3


def test_thompson_spreads_its_floor_evenly():
    class Sure:
        def beta(self, a, b):
            return np.array([1.0, 0.0, 0.0])

    np.testing.assert_allclose(samplers.thompson(seen(0.5, 1.0, 1.0), Sure(), floor=0.3), [0.8, 0.1, 0.1])


def test_nearest_half_falls_with_the_distance_over_the_width():
    table = seen(0.5, 0.4, rollouts=1000)
    narrow, wide = (samplers.nearest_half(table, rng(), tasks_per_step=1, width=w) for w in (0.01, 0.1))
    np.testing.assert_allclose(narrow[1] ** 0.1, wide[1], rtol=1e-6)
    assert wide[1] == pytest.approx(np.exp(-(0.5 - 401 / 1002) / 0.1))


def test_what_taught_rests_for_the_steps_of_an_epoch_and_not_one_less():
    table = seen(0.5, 0.5, 0.5, 1.0, step=10, steps=[9, 8, 7, 8])  # an epoch of four tasks has two steps
    assert samplers.recycling(table, rng(), tasks_per_step=2).tolist() == [0.0, 0.0, 1.0, 1.0]
