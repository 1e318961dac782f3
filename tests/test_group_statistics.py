"""Group statistics: golden values, exactness, a float64 reference, one answer under every parallelism."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rods_jax.group_statistics import GroupStatistics, group_statistics, max_variance, segment_group_statistics

N, G = 4, 16
DEVICES = np.array(jax.devices())
GOLDEN = [1.0] * 14 + [0.0, 0.8]

few = settings(deadline=None, max_examples=25)
rewards = st.floats(0, 1, width=32, allow_subnormal=False)

jitted = jax.jit(group_statistics, static_argnames=("normalize", "axis_name"))
jitted_segments = jax.jit(segment_group_statistics, static_argnames=("num_groups", "normalize", "axis_name"))


def reference(rows, normalize="std", epsilon=1e-6):
    """Mean, variance and advantages of one group of valid rewards, in float64."""
    rows = np.asarray(rows, np.float64)
    if rows.size == 0:
        return 0.0, 0.0, rows
    centered = rows - rows.mean()
    if normalize == "std":
        deviation = rows.std(ddof=1) if rows.size > 1 else 0.0
        centered = centered / (deviation + epsilon)
    return rows.mean(), rows.var(), centered


def random_batch(rng):
    """Fractional rewards with masked entries, an empty, a singleton and an equal-reward group."""
    rewards_NG = (rng.integers(0, 6, (N, G)) / 5).astype(np.float32)
    mask_NG = rng.random((N, G)) < 0.7
    mask_NG[0] = False
    mask_NG[1] = np.arange(G) == 11
    rewards_NG[2] = rewards_NG[2, 0]
    return rewards_NG, mask_NG


# ---------------------------------------------------------------------------------------- values
def test_golden_values_of_rods_section_3():
    result = group_statistics(jnp.array([GOLDEN]))
    assert result.mean_N[0] == pytest.approx(0.925, abs=1e-6)
    assert result.variance_N[0] == pytest.approx(0.2516611**2 * 15 / 16, abs=1e-6)
    np.testing.assert_allclose(result.advantages_NG[0], [0.298019] * 14 + [-3.675563, -0.496698], rtol=1e-5, atol=1e-6)
    assert result.count_N[0] == 16
    assert [x.dtype for x in result] == [jnp.float32, jnp.float32, jnp.float32, jnp.int32]


def test_a_hand_computed_group_with_a_masked_reward():
    result = group_statistics(jnp.array([[0.0, 1.0, 9.0, 0.5]]), jnp.array([[True, True, False, True]]))
    assert result.mean_N[0] == 0.5 and result.count_N[0] == 3
    assert result.variance_N[0] == pytest.approx(1 / 6, rel=1e-6)  # the sample deviation is 0.5
    np.testing.assert_allclose(result.advantages_NG[0], [-1.0, 1.0, 0.0, 0.0], rtol=1e-5)
    centered = group_statistics(
        jnp.array([[0.0, 1.0, 9.0, 0.5]]), jnp.array([[True, True, False, True]]), normalize="none"
    )
    np.testing.assert_array_equal(centered.advantages_NG[0], [-0.5, 0.5, 0.0, 0.0])


@few
@given(
    hnp.arrays(np.float32, (3, 7), elements=rewards),
    hnp.arrays(bool, (3, 7)),
    st.sampled_from(["std", "none"]),
)
def test_equals_the_float64_reference(rewards_NG, mask_NG, normalize):
    result = jitted(rewards_NG, mask_NG, normalize=normalize)
    for i, (row, valid) in enumerate(zip(rewards_NG, mask_NG)):
        mean, variance, advantages = reference(row[valid], normalize)
        np.testing.assert_allclose(result.mean_N[i], mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(result.variance_N[i], variance, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(result.advantages_NG[i][valid], advantages, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(result.advantages_NG[i][~valid], 0)
        assert result.count_N[i] == valid.sum()


@few
@given(
    hnp.arrays(np.float32, 20, elements=rewards),
    hnp.arrays(np.int32, 20, elements=st.integers(-2, 6)),
    hnp.arrays(bool, 20),
    st.sampled_from(["std", "none"]),
)
def test_segments_equal_the_float64_reference(rewards_B, ids_B, mask_B, normalize):
    result = jitted_segments(rewards_B, ids_B, num_groups=5, mask_B=mask_B, normalize=normalize)
    assert result.advantages_NG.shape == (20,)
    for i in range(5):
        valid = mask_B & (ids_B == i)
        mean, variance, advantages = reference(rewards_B[valid], normalize)
        np.testing.assert_allclose(result.mean_N[i], mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(result.variance_N[i], variance, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(result.advantages_NG[valid], advantages, rtol=1e-4, atol=1e-5)
        assert result.count_N[i] == valid.sum()
    np.testing.assert_array_equal(result.advantages_NG[~mask_B | (ids_B < 0) | (ids_B >= 5)], 0)


def test_segments_equal_the_dense_form_in_any_order():
    rng = np.random.default_rng(0)
    rewards_NG, mask_NG = random_batch(rng)
    order = rng.permutation(N * G)
    dense = jitted(rewards_NG, mask_NG)
    ragged = jitted_segments(
        rewards_NG.ravel()[order], (np.arange(N * G) // G)[order], num_groups=N, mask_B=mask_NG.ravel()[order]
    )
    for name in ("mean_N", "variance_N", "count_N"):
        np.testing.assert_allclose(getattr(ragged, name), getattr(dense, name), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(ragged.advantages_NG, np.ravel(dense.advantages_NG)[order], rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------- exactness
FRACTIONS = sorted({k / u for u in range(1, 9) for k in range(u + 1)})


@pytest.mark.parametrize("group_size", [2, 7, 16, 31])
def test_equal_rewards_give_exactly_zero(group_size):
    rewards_NG = np.repeat(np.float32(FRACTIONS)[:, None], group_size, axis=1)
    mask_NG = np.arange(group_size) != np.arange(len(FRACTIONS))[:, None] % group_size
    ids_B = np.repeat(np.arange(len(FRACTIONS)), group_size)
    for result in (
        jitted(rewards_NG),
        jitted(rewards_NG, mask_NG),
        jitted_segments(rewards_NG.ravel(), ids_B, num_groups=len(FRACTIONS)),
    ):
        np.testing.assert_array_equal(result.variance_N, 0.0)
        np.testing.assert_array_equal(result.advantages_NG, 0.0)
        np.testing.assert_array_equal(result.mean_N, np.float32(FRACTIONS))


def test_the_plain_formula_would_not_give_zero():
    """Guards the test above: without the shift, float32 invents a deviation for equal fractions."""
    rewards_NG = np.repeat(np.float32(FRACTIONS)[:, None], 31, axis=1)
    assert (jnp.var(rewards_NG, axis=1) != 0).any()


@few
@given(hnp.arrays(np.float32, (5, 16), elements=rewards))
def test_bhatia_davis_and_popoviciu_bound_the_population_variance(rewards_NG):
    result = jitted(rewards_NG)
    mean_N, variance_N = np.float64(result.mean_N), np.float64(result.variance_N)
    assert (variance_N <= mean_N * (1 - mean_N) + 1e-6).all()
    assert (variance_N <= 0.25 + 1e-6).all()
    binary = jitted(np.float32(rewards_NG > 0.5))
    np.testing.assert_allclose(binary.variance_N, binary.mean_N * (1 - binary.mean_N), atol=1e-6)  # equality


# -------------------------------------------------------------------------------------- edges
@pytest.mark.parametrize("normalize", ["std", "none"])
@pytest.mark.parametrize("epsilon", [1e-6, 0.0])
def test_empty_and_singleton_groups_are_defined(normalize, epsilon):
    rewards_NG = jnp.array([[0.3, 0.7], [0.3, 0.7]])
    result = jitted(rewards_NG, jnp.array([[False, False], [False, True]]), normalize=normalize, epsilon=epsilon)
    np.testing.assert_array_equal(result.mean_N, np.float32([0, 0.7]))
    np.testing.assert_array_equal(result.variance_N, 0)
    np.testing.assert_array_equal(result.advantages_NG, 0)
    np.testing.assert_array_equal(result.count_N, [0, 1])


@pytest.mark.parametrize("normalize", ["std", "none"])
def test_masked_nan_reaches_neither_values_nor_gradients(normalize):
    """Groups: ordinary, equal, singleton, empty; the masked entries hold NaN and infinity."""
    rewards_NG = jnp.array(
        [[0.0, 1.0, 0.5, jnp.nan], [0.2, 0.2, 0.2, jnp.inf], [0.7, jnp.nan, 1.0, 1.0], [jnp.nan] * 4]
    )
    mask_NG = jnp.array([[1, 1, 1, 0], [1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    weights_NG = jnp.arange(16.0).reshape(4, 4)

    def total(result, weights):
        return result.mean_N.sum() + result.variance_N.sum() + (result.advantages_NG * weights).sum()

    def dense(rewards_NG):
        return total(group_statistics(rewards_NG, mask_NG, normalize=normalize), weights_NG)

    def ragged(rewards_B):
        ids_B = jnp.repeat(jnp.arange(4), 4)
        result = segment_group_statistics(rewards_B, ids_B, num_groups=4, mask_B=mask_NG.ravel(), normalize=normalize)
        return total(result, weights_NG.ravel())

    value, gradient_NG = jax.jit(jax.value_and_grad(dense))(rewards_NG)
    assert jnp.isfinite(value) and jnp.isfinite(gradient_NG).all()
    assert (gradient_NG[~mask_NG] == 0).all() and (gradient_NG[0, :3] != 0).all()
    np.testing.assert_allclose(jax.jit(jax.grad(ragged))(rewards_NG.ravel()), gradient_NG.ravel(), rtol=1e-5, atol=1e-6)


def test_gradients_of_mean_and_variance_are_the_formulas():
    rewards_NG = jnp.array([GOLDEN])
    mean_slopes_NG, variance_slopes_NG = (
        jax.grad(lambda r: getattr(jitted(r), name)[0])(rewards_NG) for name in ("mean_N", "variance_N")
    )
    np.testing.assert_allclose(mean_slopes_NG, 1 / 16, rtol=1e-6)
    np.testing.assert_allclose(variance_slopes_NG, 2 / 16 * (rewards_NG - 0.925), atol=1e-6)


def test_wrong_arguments_are_refused():
    with pytest.raises(AssertionError, match="rank"):
        group_statistics(jnp.ones(3))
    with pytest.raises(AssertionError, match="equal_shape"):
        group_statistics(jnp.ones((2, 3)), jnp.ones((3, 2), bool))
    with pytest.raises(AssertionError, match="type"):
        group_statistics(jnp.ones((2, 3)), jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="normalize"):
        group_statistics(jnp.ones((2, 3)), normalize="mean")
    with pytest.raises(AssertionError, match="equal_shape|rank"):
        segment_group_statistics(jnp.ones(3), jnp.zeros(2, int), num_groups=1)
    with pytest.raises(AssertionError, match="type"):
        segment_group_statistics(jnp.ones(3), jnp.zeros(3), num_groups=1)
    with pytest.raises(ValueError, match="num_groups"):
        segment_group_statistics(jnp.ones(3), jnp.zeros(3, int), num_groups=0)


# --------------------------------------------------------------------------------- parallelism
def under_pmap(rewards_NG, mask_NG):
    """G over eight devices; the [N] results are the same on each, the advantages are put back together."""
    shard = lambda x: np.stack(np.split(np.asarray(x), 8, axis=1))
    result = jax.pmap(lambda r, m: group_statistics(r, m, axis_name="g"), axis_name="g")(
        shard(rewards_NG), shard(mask_NG)
    )
    result = jax.tree.map(np.asarray, result)
    for x in (result.mean_N, result.variance_N, result.count_N):
        np.testing.assert_array_equal(x, np.broadcast_to(x[0], x.shape))
    first = jax.tree.map(lambda x: x[0], result)
    return first._replace(advantages_NG=np.concatenate(list(result.advantages_NG), axis=1))


def under_vmap(rewards_NG, mask_NG):
    shard = lambda x: np.stack(np.split(np.asarray(x), 8, axis=1))
    split = jax.vmap(lambda r, m: group_statistics(r, m, axis_name="g"), axis_name="g")
    result = jax.jit(split)(shard(rewards_NG), shard(mask_NG))
    first = jax.tree.map(lambda x: x[0], result)
    return first._replace(advantages_NG=np.concatenate(list(result.advantages_NG), axis=1))


def under_shard_map(rewards_NG, mask_NG):
    """Tasks over two devices, G over four."""
    mesh = Mesh(DEVICES.reshape(2, 4), ("n", "g"))
    specs = PartitionSpec("n"), PartitionSpec("n"), PartitionSpec("n", "g"), PartitionSpec("n")
    return jax.jit(
        jax.shard_map(
            lambda r, m: group_statistics(r, m, axis_name="g"),
            mesh=mesh,
            in_specs=(PartitionSpec("n", "g"), PartitionSpec("n", "g")),
            out_specs=GroupStatistics(*specs),
        )
    )(rewards_NG, mask_NG)


def under_sharded_jit(rewards_NG, mask_NG):
    mesh = Mesh(DEVICES.reshape(2, 4), ("n", "g"))
    sharding = NamedSharding(mesh, PartitionSpec("n", "g"))
    return jitted(jax.device_put(rewards_NG, sharding), jax.device_put(mask_NG, sharding))


@pytest.mark.parametrize("run", [jitted, under_pmap, under_vmap, under_shard_map, under_sharded_jit])
def test_one_answer_under_every_kind_of_parallelism(run):
    rewards_NG, mask_NG = random_batch(np.random.default_rng(3))
    expected = group_statistics(jnp.asarray(rewards_NG), jnp.asarray(mask_NG))
    result = run(jnp.asarray(rewards_NG), jnp.asarray(mask_NG))
    for name in result._fields:
        np.testing.assert_allclose(getattr(result, name), getattr(expected, name), rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(result.count_N, expected.count_N)
    np.testing.assert_array_equal(result.variance_N[:3], 0)  # empty, singleton, equal: exact everywhere
    np.testing.assert_array_equal(result.advantages_NG[:3], 0)


def test_segments_split_over_eight_devices_equal_the_whole():
    rng = np.random.default_rng(5)
    ids_B = np.int32(rng.integers(-1, 6, 64))
    rewards_B = np.where(ids_B == 4, 1 / 3, rng.integers(0, 4, 64) / 3).astype(
        np.float32
    )  # an equal-reward group that every shard holds a part of
    whole = jitted_segments(rewards_B, ids_B, num_groups=5)
    spec = PartitionSpec("b")
    split = jax.jit(
        jax.shard_map(
            lambda r, i: segment_group_statistics(r, i, num_groups=5, axis_name="b"),
            mesh=Mesh(DEVICES, ("b",)),
            in_specs=(spec, spec),
            out_specs=GroupStatistics(PartitionSpec(), PartitionSpec(), spec, PartitionSpec()),
        )
    )(rewards_B, ids_B)
    for name in whole._fields:
        np.testing.assert_allclose(getattr(split, name), getattr(whole, name), rtol=1e-5, atol=1e-6, err_msg=name)
    assert split.variance_N[4] == 0 and (split.advantages_NG[ids_B == 4] == 0).all()


def test_gradients_agree_between_one_device_and_a_split_group():
    rng = np.random.default_rng(7)
    rewards_NG, mask_NG = map(jnp.asarray, random_batch(rng))
    weights_NG = jnp.asarray(rng.normal(size=(N, G)), jnp.float32)
    spec = PartitionSpec(None, "g")
    split = jax.shard_map(
        lambda r, m: group_statistics(r, m, axis_name="g").advantages_NG,
        mesh=Mesh(DEVICES, ("g",)),
        in_specs=(spec, spec),
        out_specs=spec,
    )
    whole = lambda r, m: group_statistics(r, m).advantages_NG
    gradient_NG, expected_NG = (
        jax.jit(jax.grad(lambda r: (weights_NG * f(r, mask_NG)).sum()))(rewards_NG) for f in (split, whole)
    )
    np.testing.assert_allclose(gradient_NG, expected_NG, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("largest", [1e12, 1e18, 1e20, 1e30, 3e38])
@pytest.mark.parametrize("ragged", [False, True])
def test_huge_finite_rewards_are_normalised_like_small_ones(largest, ragged):
    """Beside one huge reward the others are equal: (1, 1, 1, -3) / 2 of four. The group beside it keeps its units."""
    rewards = np.float32([[0.0, 1.0, 0.5, -largest], [1e-6, 0.0, 0.0, 0.0]])
    if ragged:
        found = segment_group_statistics(rewards.ravel(), np.repeat([0, 1], 4), num_groups=2)
    else:
        found = group_statistics(rewards)
    advantages = np.reshape(found.advantages_NG, (2, 4))
    np.testing.assert_allclose(advantages[0], [0.5, 0.5, 0.5, -1.5], rtol=1e-6)
    np.testing.assert_allclose(advantages[1], np.array([3, -1, -1, -1]) * 0.25e-6 / 1.5e-6, rtol=1e-5)
    np.testing.assert_allclose(found.mean_N, [-largest / 4, 0.25e-6], rtol=1e-6)
    variance = min(largest**2 * 3 / 16, float(np.finfo(np.float32).max))
    np.testing.assert_allclose(found.variance_N, [variance, 3e-12 / 16], rtol=1e-5)


def test_the_span_from_the_least_to_the_largest_number_is_no_nan():
    limit = np.finfo(np.float32).max
    rewards = np.float32([[limit, limit, -limit, -limit]])
    found = group_statistics(rewards)
    np.testing.assert_allclose(found.advantages_NG, np.array([[1, 1, -1, -1]]) * 0.75**0.5, rtol=1e-6)
    assert found.mean_N == 0 and found.variance_N == limit
    np.testing.assert_array_equal(group_statistics(rewards, normalize="none").advantages_NG, rewards)
    slope = jax.grad(lambda x: group_statistics(x).advantages_NG[0, 0])(jnp.asarray(rewards))
    assert np.isfinite(slope).all()


# ----------------------------------------------------------------------------------- max variance
jitted_max_variance = jax.jit(max_variance, static_argnames="keep")


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.int8, (3, 6), elements=st.integers(0, 4)), hnp.arrays(bool, (3, 6)))
def test_max_variance_keeps_the_subset_that_no_other_exceeds(quarters_NG, valid_NG):
    rewards_NG, keep = quarters_NG / 4, 3
    used_NG = np.asarray(jitted_max_variance(jnp.asarray(rewards_NG, jnp.float32), jnp.asarray(valid_NG), keep=keep))
    for rewards_G, valid_G, used_G in zip(rewards_NG, valid_NG, used_NG):
        own = rewards_G[valid_G]
        assert not (used_G & ~valid_G).any() and used_G.sum() == min(keep, len(own))
        if len(own) > keep:
            assert rewards_G[used_G].var() == pytest.approx(max(np.var(some) for some in combinations(own, keep)))


def test_a_reward_that_is_not_finite_stays_in_its_group_and_no_invalid_rollout_takes_its_place():
    rewards_NG = jnp.array([[1.0, jnp.nan, 0.0, 0.2], [1.0, -jnp.inf, 0.0, 0.2], [1.0, 0.5, jnp.nan, 0.0]])
    valid_NG = jnp.array([[True, True, True, False], [True, True, True, False], [True, True, False, True]])
    used_NG = jitted_max_variance(rewards_NG, valid_NG, keep=2)
    assert used_NG.tolist() == [*valid_NG[:2].tolist(), [True, False, False, True]]


def test_max_variance_by_hand():
    rewards_NG, valid_NG = jnp.array([[0.5, 1.0, 0.0, 0.5], [1.0, 1.0, 1.0, 1.0]]), jnp.ones((2, 4), bool)
    used_NG = jitted_max_variance(rewards_NG, valid_NG, keep=2)
    assert used_NG.tolist() == [[False, True, True, False], [True, True, False, False]]
    assert jitted_max_variance(rewards_NG, valid_NG, keep=4).all()


@pytest.mark.parametrize("ones", range(1, G))
@pytest.mark.parametrize("keep", range(2, G))
def test_of_equal_variances_of_binary_rewards_the_one_with_most_of_the_best_counts(ones, keep):
    """Of `keep` rollouts the i best and the others: i (keep - i), as near one half as the group allows, in integers."""
    rewards_NG = jnp.arange(G)[None] < ones
    used_NG = jitted_max_variance(rewards_NG.astype(jnp.float32), jnp.ones((1, G), bool), keep=keep)
    solved = lambda i: min(i, ones) + max(0, ones - (G - (keep - i)))
    best = max(range(keep + 1), key=lambda i: (solved(i) * (keep - solved(i)), i))
    assert int((used_NG & rewards_NG).sum()) == solved(best) and int(used_NG.sum()) == keep
