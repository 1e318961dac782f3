"""What each setting of the update changes, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from grpo_toy import BAG_OF_WORDS, G, N, V, bag_of_words, make_batch, make_standing, objective_with

from rods_jax import grpo
from rods_jax.grpo import create_optimizer
from rods_jax.log_probs import LogProbs
from rods_jax.types import RolloutBatch


def one_token(behavior=-1.0):
    mask, count, one = np.ones((1, 1, 1), bool), np.ones((1, 1), np.int32), np.ones((1, 1), np.float32)
    behavior = np.full((1, 1, 1), behavior, np.float32)
    return RolloutBatch(
        count, count[0], mask.astype(np.int32), count, mask, behavior, one, mask[..., 0], count, count[0]
    )


def test_the_loss_adds_the_kl_penalty_and_takes_the_entropy_bonus_away():
    taken = LogProbs(jnp.full((1, 1, 1), -1.0), jnp.full((1, 1, 1), 2.0))
    objective = objective_with(kl_coefficient=0.5, entropy_coefficient=0.25)
    total, terms = grpo.objective_value(taken, jnp.full((1, 1, 1), -2.0), one_token(), jnp.full((1, 1), 3.0), objective)
    np.testing.assert_allclose(terms["kl"], np.exp(-1.0), rtol=1e-6)
    np.testing.assert_allclose(total, -3.0 + 0.5 * np.exp(-1.0) - 0.25 * 2.0, rtol=1e-6)


@pytest.mark.parametrize("ratio, advantage, expected", [(2.0, 1.0, -1.3), (0.5, -1.0, 0.9), (9.0, -1.0, 4.0)])
def test_the_objective_clips_where_its_settings_say(ratio, advantage, expected):
    objective = objective_with(clip_low=0.1, clip_high=0.3, dual_clip=4.0, kl_coefficient=0.0, entropy_coefficient=0.0)
    taken = LogProbs(jnp.full((1, 1, 1), np.log(ratio) - 1.0), None)
    total, _ = grpo.objective_value(taken, None, one_token(), jnp.full((1, 1), advantage), objective)
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_a_reference_that_is_not_finite_gives_no_loss():
    taken, objective = LogProbs(jnp.full((1, 1, 1), -1.0), jnp.zeros((1, 1, 1))), objective_with(kl_coefficient=0.5)
    for reference in (np.nan, -np.inf):
        total, _ = grpo.objective_value(taken, jnp.full((1, 1, 1), reference), one_token(), jnp.ones((1, 1)), objective)
        assert np.isnan(total)


def test_the_update_scores_tokens_at_the_temperature_that_sampled_them():
    rng = np.random.default_rng(4)
    params = {name: rng.normal(size=(V, 16)).astype(np.float32) for name in ("embedding", "unembedding")}
    batch = make_batch(BAG_OF_WORDS, params)
    found = grpo.action_log_probs(params, batch, 0.5, policy=BAG_OF_WORDS).log_probs_T
    logits = bag_of_words(params, *batch[:3]) @ params["unembedding"].T / 0.5
    taken = jnp.take_along_axis(jax.nn.log_softmax(logits), batch.suffix_tokens_NGS[..., None], -1)[..., 0]
    np.testing.assert_allclose(found, taken * (batch.action_mask_NGS & batch.valid_NG[..., None]), atol=1e-4)


def test_the_learning_rate_warms_up_and_falls_to_a_tenth_at_decay_steps():
    optimizer, w = create_optimizer(1.0, warmup_steps=2, decay_steps=6), {"w": jnp.zeros((2, 2))}
    state, rates = optimizer.init(w), []
    for _ in range(8):  # Adam moves by the rate where the gradient stays the same
        updates, state = optimizer.update({"w": jnp.full((2, 2), 0.1)}, state, w)
        rates.append(-float(updates["w"][0, 0]))
    np.testing.assert_allclose(rates, [1 / 3, 2 / 3, 1, 0.775, 0.55, 0.325, 0.1, 0.1], rtol=1e-4)


def test_the_gradient_is_cut_to_its_norm_and_b2_is_the_settings():
    optimizer, w = create_optimizer(1.0, max_grad_norm=2.0, b2=0.9), {"w": jnp.zeros((1, 1))}
    state = optimizer.init(w)
    for gradient in (100.0, 1.0):
        updates, state = optimizer.update({"w": jnp.full((1, 1), gradient)}, state, w)
    m, v = (0.9 * 0.2 + 0.1) / (1 - 0.9**2), (0.9 * 0.4 + 0.1) / (1 - 0.9**2)
    np.testing.assert_allclose(-updates["w"][0, 0], m / v**0.5, rtol=1e-4)


def updated(
    batch, objective=objective_with(kl_coefficient=0.0, entropy_coefficient=0.0), standing=make_standing(), **how
):
    params = {name: np.ones((V, 16), np.float32) for name in ("embedding", "unembedding")}
    state = grpo.create_state(params, optax.sgd(1.0), objective)
    return grpo.update_step(
        state, batch, standing, 1.0, policy=BAG_OF_WORDS, optimizer=optax.sgd(1.0), objective=objective, **how
    )


def test_means_and_zones_are_of_valid_rollouts_and_of_groups_that_count():
    params = {name: np.ones((V, 16), np.float32) for name in ("embedding", "unembedding")}
    batch = make_batch(BAG_OF_WORDS, params)
    valid_NG = np.arange(G)[None] < np.array([4, 3, 2, 1, 4, 4, 4, 0])[:, None]
    batch = batch._replace(valid_NG=valid_NG, passed_NG=np.zeros((N, G), np.int32))
    _, feedback = updated(batch)
    np.testing.assert_allclose(feedback.metrics["reward_mean"], batch.rewards_NG[valid_NG].mean(), rtol=1e-5)
    assert feedback.metrics["batch_hard"] == 6  # two groups are too small to count


@pytest.mark.parametrize(("first", "reward"), [(0, np.nan), (1, 0.5)])
def test_a_mean_of_nothing_is_no_number(first, reward):
    params = {name: np.ones((V, 16), np.float32) for name in ("embedding", "unembedding")}
    batch = make_batch(BAG_OF_WORDS, params)
    valid_NG = np.zeros((N, G), bool)
    valid_NG[0, :first] = True  # one rollout of the first group at most, which does not make the group count
    state, feedback = updated(batch._replace(valid_NG=valid_NG, rewards_NG=np.full((N, G), 0.5, np.float32)))
    np.testing.assert_array_equal(feedback.metrics["reward_mean"], np.float32(reward))
    assert np.isnan(feedback.metrics["progress_mean"]) and np.isfinite(feedback.metrics["loss"])


def test_mean_centred_advantages_and_the_band_are_the_settings():
    batch = make_batch(BAG_OF_WORDS, {name: np.ones((V, 16), np.float32) for name in ("embedding", "unembedding")})
    _, std = updated(batch)
    objective = objective_with(normalize="none", kl_coefficient=0.0, entropy_coefficient=0.0)
    _, none = updated(batch, objective, quotas=(8,) * 4, band=(0.9, 1.0))
    assert np.abs(none.statistics.advantages_NG - std.statistics.advantages_NG).max() > 0.1
    assert std.seeds.count == 0 and none.seeds.count == (none.statistics.mean_N >= 0.9).sum() < N


def test_a_step_that_is_skipped_counts():
    params = {name: np.ones((V, 16), np.float32) for name in ("embedding", "unembedding")}
    batch, objective = make_batch(BAG_OF_WORDS, params), objective_with()
    batch = batch._replace(behavior_log_probs_NGS=np.full_like(batch.behavior_log_probs_NGS, np.nan))
    state = grpo.create_state(params, optax.sgd(1.0), objective)
    after, feedback = grpo.update_step(
        state, batch, make_standing(), 1.0, policy=BAG_OF_WORDS, optimizer=optax.sgd(1.0), objective=objective
    )
    assert feedback.metrics["skipped"] and after.step == 1
