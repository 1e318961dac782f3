"""Boundary detection: the score's table, exact band edges, and seed selection against plain Python."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rods_jax.boundary import BOUNDARY, HARD, MASTERED, boundary_score, partition, select_seeds

jitted = jax.jit(select_seeds, static_argnames="quotas")


def test_boundary_score_has_the_values_of_rods_section_2():
    means = jnp.array([0.0, 0.20, 0.25, 0.50, 0.75, 0.85, 0.95, 1.0])
    np.testing.assert_allclose(boundary_score(means), [0, 0.64, 0.75, 1, 0.75, 0.51, 0.19, 0], atol=1e-6)


# ------------------------------------------------------------------------------------- partition
def test_partition_is_exact_on_every_grid_of_rollouts_and_turns():
    totals = {rollouts * turns for rollouts in range(1, 33) for turns in range(1, 9)}
    grid = np.array([(passed, total) for total in sorted(totals) for passed in range(total + 1)], np.int32)
    lower, upper = Fraction(1, 5), Fraction(17, 20)
    expected = []
    for passed, total in grid.tolist():
        mean = Fraction(passed, total)
        expected.append(HARD if mean < lower else MASTERED if mean > upper else BOUNDARY)
    zones = jax.jit(partition)(grid[:, 0], grid[:, 1])
    np.testing.assert_array_equal(zones, expected)
    assert zones.dtype == jnp.int32 and set(expected) == {0, 1, 2}


def test_both_edges_belong_to_the_boundary():
    assert partition(jnp.array([15, 16, 68, 69]), jnp.array([80] * 4)).tolist() == [
        HARD, BOUNDARY, BOUNDARY, MASTERED
    ]  # fmt: skip


def test_the_largest_counts_do_not_overflow():
    passed = jnp.array([21_474, 21_475, 214_747, 214_748])
    zones = partition(passed, jnp.full(4, 214_748), lower=0.1, upper=0.9999)
    assert zones.tolist() == [HARD, BOUNDARY, MASTERED, MASTERED]


def test_a_task_without_turns_is_hard():
    assert partition(jnp.array([0]), jnp.array([0]), lower=0.0, upper=1.0).tolist() == [HARD]


def test_thresholds_may_be_fractions():
    zones = partition(jnp.array([1, 2, 3]), jnp.array([3, 3, 3]), lower=Fraction(1, 3), upper=Fraction(2, 3))
    assert zones.tolist() == [BOUNDARY, BOUNDARY, MASTERED]


def test_impossible_thresholds_and_float_turns_are_refused():
    ones = jnp.array([1])
    for lower, upper in ((0.9, 0.1), (-0.1, 0.5), (0.5, 1.1)):
        with pytest.raises(ValueError, match="0 <= lower <= upper <= 1"):
            partition(ones, ones, lower=lower, upper=upper)
    with pytest.raises(ValueError, match="four decimals"):
        partition(ones, ones, lower=0.12345)
    with pytest.raises(AssertionError, match="type"):
        partition(jnp.array([0.5]), ones)


# ---------------------------------------------------------------------------------- select_seeds
def seeds_by_hand(tasks, quotas):
    """Walks the ranked tasks and takes what the quota of the category still allows."""
    left = dict(enumerate(quotas))
    taken = []
    for score, index, zone, category, eligible in sorted((-s, i, z, c, e) for i, (s, z, c, e) in enumerate(tasks)):
        if zone == BOUNDARY and eligible and left.get(category, 0) > 0:
            left[category] -= 1
            taken.append(index)
    return taken


tasks_lists = st.lists(
    st.tuples(st.sampled_from([0.0, 0.51, 0.64, 0.64, 1.0]), st.integers(0, 2), st.integers(-1, 4), st.booleans()),
    min_size=12,
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(tasks_lists, st.sampled_from([(4, 4, 4, 4), (1, 0, 2, 1), (0, 0, 0, 3), (2,), ()]))
def test_selection_equals_plain_python(tasks, quotas):
    columns = [np.array(column) for column in zip(*tasks)]
    seeds = jitted(np.float32(columns[0]), np.int32(columns[1]), np.int32(columns[2]), columns[3], quotas=quotas)
    expected = seeds_by_hand(tasks, quotas)
    assert seeds.count == len(expected)
    assert seeds.indices_k.tolist() == expected + [-1] * (sum(quotas) - len(expected))
    assert seeds.indices_k.dtype == seeds.count.dtype == jnp.int32


def test_unused_quota_is_not_redistributed_and_ties_go_to_the_lower_index():
    scores_N = jnp.array([0.7, 0.9, 0.9, 0.9, 1.0])
    zones_N = jnp.array([BOUNDARY, BOUNDARY, BOUNDARY, BOUNDARY, MASTERED])
    seeds = jitted(scores_N, zones_N, jnp.array([1, 0, 0, 0, 1]), jnp.ones(5, bool), quotas=(2, 4))
    assert seeds.indices_k.tolist() == [1, 2, 0, -1, -1, -1] and seeds.count == 3


def test_fewer_tasks_than_seeds_even_none():
    one = select_seeds(jnp.ones(1), jnp.array([BOUNDARY]), jnp.array([0]), jnp.array([True]), quotas=(4, 4))
    assert one.indices_k.tolist() == [0] + [-1] * 7
    empty = jnp.zeros(0, jnp.int32)
    none = select_seeds(jnp.zeros(0), empty, empty, jnp.zeros(0, bool), quotas=(2, 1))
    assert none.indices_k.tolist() == [-1] * 3 and none.count == 0


def test_wrong_shapes_and_quotas_are_refused():
    ones = jnp.ones(3, jnp.int32)
    with pytest.raises(AssertionError, match="equal_shape|rank"):
        select_seeds(jnp.ones(3), ones, ones, jnp.ones(2, bool), quotas=(1,))
    with pytest.raises(ValueError, match="negative"):
        select_seeds(jnp.ones(3), ones, ones, jnp.ones(3, bool), quotas=(1, -1))
