"""The update: golden losses, gradient only from action tokens, shared = unshared, one compilation, sharded = not."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from grpo_toy import BAG_OF_WORDS, G, N, V, make_batch, make_standing, objective_with

from models.decoder import DecoderConfig
from models.policy import callables
from rods_jax import grpo
from rods_jax.grpo import create_optimizer
from rods_jax.log_probs import LogProbs
from rods_jax.micro_batches import micro_batches
from rods_jax.types import Policy, RolloutBatch


@pytest.fixture(scope="module")
def policy():
    return Policy(**callables(DecoderConfig(V, 2, 16, 4, 2, 8, 24)))


@pytest.fixture(scope="module")
def params(policy):
    return jax.tree.map(lambda x: x * 6 if x.ndim > 2 else x, policy.init(jax.random.key(0)))


@pytest.mark.parametrize(
    "advantage, ratio, expected",
    [
        (1.0, 1.0, -1.0),
        (1.0, 1.5, -1.28),  # clipped above at 1 + 0.28
        (1.0, 0.5, -0.5),  # pessimistic: a falling ratio of a good action is not clipped
        (-1.0, 0.5, 0.8),  # clipped below at 1 - 0.2
        (-1.0, 1.5, 1.5),
        (-1.0, 50.0, 10.0),  # dual clip
        (-0.5, 50.0, 5.0),
        (0.0, 3.0, 0.0),
    ],
)
def test_clipped_surrogate_golden(advantage, ratio, expected):
    value = grpo.clipped_surrogate(jnp.log(ratio), jnp.float32(advantage), clip_low=0.2, clip_high=0.28, dual_clip=10.0)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_k3_golden():
    np.testing.assert_allclose(grpo.k3(jnp.log(0.5), jnp.log(0.25)), 0.5 + np.log(2) - 1, rtol=1e-5)
    assert grpo.k3(jnp.float32(-1.0), jnp.float32(-1.0)) == 0


def test_aggregations_and_ratios_by_hand():
    x = jnp.array([[[1.0, 2.0, 9.0], [4.0, 9.0, 9.0], [9.0, 9.0, 9.0]]])
    mask = jnp.array([[[True, True, False], [True, False, False], [False, False, False]]])
    whole = grpo.whole_of(mask)
    assert grpo.sequence_mean(x, mask, whole) == (1.5 + 4) / 2
    np.testing.assert_allclose(grpo.token_mean(x, mask, whole), 7 / 3, rtol=1e-6)
    # Parts of a batch: the first sequence's share of the two, and its two tokens' of three.
    assert grpo.sequence_mean(x[:, :1], mask[:, :1], whole) == 1.5 / 2
    np.testing.assert_allclose(grpo.token_mean(x[:, :1], mask[:, :1], whole), 3 / 3, rtol=1e-6)
    # Two groups, of three tokens and of one, and a third that has none: (7 / 3 + 8) / 2.
    y, said = jnp.concatenate([x, 8.0 * jnp.ones((2, 3, 3))]), jnp.zeros((2, 3, 3), bool).at[0, 1, 2].set(True)
    three, whole = jnp.concatenate([mask, said]), grpo.whole_of(jnp.concatenate([mask, said]))
    np.testing.assert_allclose(grpo.group_mean(y, three, whole), (7 / 3 + 8) / 2, rtol=1e-6)
    np.testing.assert_allclose(grpo.group_mean(y[:, :1], three[:, :1], whole), 3 / 3 / 2, rtol=1e-6)
    assert grpo.sequence_ratio(x, mask)[0, 0].tolist() == [1.5, 1.5, 1.5]


@pytest.mark.parametrize("ratio", [grpo.token_ratio, grpo.sequence_ratio])
@pytest.mark.parametrize("aggregate", [grpo.sequence_mean, grpo.token_mean, grpo.group_mean])
def test_only_action_tokens_carry_loss(policy, params, ratio, aggregate):
    """The loss, as a function of the hidden state behind each token, is flat wherever the policy did not act."""
    batch = make_batch(policy, params)
    objective = objective_with(ratio=ratio, aggregate=aggregate)
    advantages = jnp.asarray(np.random.default_rng(2).normal(size=(N, G)), jnp.float32)
    hidden = policy.forward(params, *batch[:3])

    def with_hidden(hidden):
        fixed = policy._replace(forward=lambda params, *_: hidden)
        return grpo.loss(params, params, batch, advantages, 1.0, policy=fixed, objective=objective)[0]

    gradient = np.abs(jax.jit(jax.grad(with_hidden))(hidden)).sum(-1)
    acted = batch.action_mask_NGS & batch.valid_NG[..., None]
    assert (gradient[~acted] == 0).all()
    assert (gradient[acted] > 0).mean() > 0.5  # clipped tokens may be flat


@pytest.mark.parametrize(
    "ratio, ratios, share",  # of four tokens of one rollout; the share of them that the surrogate clips
    [
        (grpo.token_ratio, (1.25, 1.29, 0.81, 0.79), 0.5),
        (grpo.sequence_ratio, (2.0, 0.5, 2.0, 0.5), 0.0),  # the sequence's is 1
        (grpo.sequence_ratio, (2.0, 2.0, 1.0, 1.0), 1.0),
    ],
)
def test_the_clip_fraction_counts_what_the_surrogate_clips(ratio, ratios, share):
    none, all_of = np.zeros((1, 1, 4), np.float32), np.ones((1, 1, 4), bool)
    reward, count = np.ones((1, 1), np.float32), np.ones((1, 1), np.int32)
    batch = RolloutBatch(
        count, count[0], all_of.astype(np.int32), 4 * count, all_of, none, reward, all_of[..., 0], count, count[0]
    )
    taken = LogProbs(jnp.log(jnp.array(ratios, jnp.float32))[None, None], jnp.zeros((1, 1, 4)))
    objective = objective_with(ratio=ratio, kl_coefficient=0.0, entropy_coefficient=0.0)
    _, terms = grpo.objective_value(taken, None, batch, jnp.ones((1, 1)), objective)
    assert float(terms["clip_fraction"]) == share


def test_on_policy_gradient_is_the_policy_gradient(policy, params):
    """At ratio 1, without KL and entropy, the gradient is that of -A log pi."""
    batch = make_batch(policy, params)
    advantages = jnp.asarray(np.random.default_rng(2).normal(size=(N, G)), jnp.float32)
    mask = batch.action_mask_NGS & batch.valid_NG[..., None]

    def taken(params):
        hidden = policy.forward(params, *batch[:3])
        log_probs = jax.nn.log_softmax(hidden @ policy.unembedding(params).T)
        return jnp.take_along_axis(log_probs, batch.suffix_tokens_NGS[..., None], -1)[..., 0]

    exact = batch._replace(behavior_log_probs_NGS=taken(params))
    objective = objective_with(kl_coefficient=0.0, entropy_coefficient=0.0)
    ours = jax.jit(
        jax.grad(lambda p: grpo.loss(p, None, exact, advantages, 1.0, policy=policy, objective=objective)[0])
    )(params)
    plain = jax.jit(
        jax.grad(lambda p: grpo.sequence_mean(-advantages[..., None] * taken(p), mask, grpo.whole_of(mask)))
    )(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-3), ours, plain)


def test_update_step_reports_the_hosts_arithmetic_and_compiles_once(policy, params):
    objective = objective_with()
    optimizer = create_optimizer(1e-3, warmup_steps=2)
    update = grpo.jit_update(policy, optimizer, objective, quotas=(1, 1, 1, 1))
    state = grpo.create_state(jax.tree.map(jnp.copy, params), optimizer, objective)
    for seed in range(3):
        batch = make_batch(policy, params, seed)
        state, feedback = update(state, batch, make_standing(seed), 1.0 - 0.1 * seed)
        valid = batch.valid_NG
        seen = 2 * valid.sum(1) >= G
        np.testing.assert_array_equal(feedback.passed_N, np.where(seen, (batch.passed_NG * valid).sum(1), 0))
        np.testing.assert_array_equal(feedback.total_N, np.where(seen, batch.checks_N * valid.sum(1), 0))
        chosen = np.asarray(feedback.seeds.indices_k)[: int(feedback.seeds.count)]
        assert all(feedback.zones_N[i] == 1 for i in chosen)
        assert all(np.isfinite(x) for x in feedback.metrics.values())
    assert update._cache_size() == 1
    assert int(state.step) == 3
    assert not np.array_equal(state.params["embedding"], params["embedding"])
    np.testing.assert_array_equal(state.reference_params["embedding"], params["embedding"])


RATIOS, AGGREGATES = (grpo.token_ratio, grpo.sequence_ratio), (grpo.sequence_mean, grpo.token_mean)
OBJECTIVES = [
    objective_with(ratio=RATIOS[i], aggregate=AGGREGATES[j], kl_coefficient=0.1 * k, entropy_coefficient=0.1 * e)
    for i, j, k, e in itertools.product(range(2), repeat=4)
]
OBJECTIVES.append(objective_with(aggregate=grpo.group_mean, kl_coefficient=0.1, entropy_coefficient=0.0))
FEW = (0b0000, 0b0111, 0b1010, 0b1101, 16)  # each choice with each of another's, but for one pair; the group mean


@pytest.mark.parametrize(
    "objective",
    [pytest.param(o, marks=() if i in FEW else pytest.mark.slow) for i, o in enumerate(OBJECTIVES)],
)
def test_micro_batches_add_up_to_the_whole_batch(objective):
    """N = 8 and G = 4, cut into parts whose numbers of tokens and of valid rollouts differ."""
    optimizer, rng = optax.sgd(1.0), np.random.default_rng(4)  # the parameters' change is the gradient
    params = {name: rng.normal(size=(V, 16)).astype(np.float32) for name in ("embedding", "unembedding")}
    batch = make_batch(BAG_OF_WORDS, params)
    tokens = (batch.action_mask_NGS & batch.valid_NG[..., None]).sum(-1)
    assert len({*tokens.sum(1).tolist()}) > 4 and len({*batch.valid_NG.sum(1).tolist()}) > 1
    state = grpo.create_state(params, optimizer, objective)
    if objective.kl_coefficient:
        state = state._replace(reference_params=jax.tree.map(lambda x: 0.9 * x, params))

    def update(cuts):
        step = lambda state: grpo.update_step(
            state, batch, make_standing(), 1.0, policy=BAG_OF_WORDS, optimizer=optimizer, objective=objective, cuts=cuts
        )
        return jax.jit(step)(state)

    whole, expected = update((1, 1))
    assert expected.metrics["grad_norm"] > 0.1
    for cuts in ((4, 1), (2, 2), (1, 4)):
        parts, feedback = update(cuts)
        close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)
        jax.tree.map(close, parts, whole)
        jax.tree.map(close, feedback, expected)


def test_a_micro_batch_takes_every_other_task_and_rollout():
    x = np.arange(4 * 4 * 2).reshape(4, 4, 2)
    parts = micro_batches({"x_NGS": x, "y_N": np.arange(4), "z_NP": x[:, 0]}, (2, 2))
    np.testing.assert_array_equal(parts["x_NGS"], [x[a::2, b::2] for a in range(2) for b in range(2)])
    assert parts["y_N"].tolist() == [[0, 2], [0, 2], [1, 3], [1, 3]]
    np.testing.assert_array_equal(parts["z_NP"][1], x[::2, 0])


def test_a_number_that_is_not_finite_in_one_micro_batch_skips_the_whole_step():
    params = {name: np.ones((V, 16), np.float32) for name in ("embedding", "unembedding")}
    batch = make_batch(BAG_OF_WORDS, params)
    acted = np.argwhere(batch.action_mask_NGS & batch.valid_NG[..., None])[-1]
    batch.behavior_log_probs_NGS[tuple(acted)] = np.nan
    objective, optimizer = objective_with(), optax.sgd(1.0)
    state = grpo.create_state(jax.tree.map(jnp.array, params), optimizer, objective)
    after, feedback = grpo.jit_update(BAG_OF_WORDS, optimizer, objective, cuts=(4, 1))(
        state, batch, make_standing(), 1.0
    )
    assert feedback.metrics["skipped"] and np.isnan(feedback.metrics["loss"])
    jax.tree.map(np.testing.assert_array_equal, after.params, params)


def test_a_tasks_weight_scales_its_part_of_the_gradient():
    objective, optimizer = objective_with(kl_coefficient=0.0, entropy_coefficient=0.0), optax.sgd(1.0)
    params = {
        name: np.random.default_rng(4).normal(size=(V, 16)).astype(np.float32) for name in ("embedding", "unembedding")
    }
    batch, update = make_batch(BAG_OF_WORDS, params), grpo.jit_update(BAG_OF_WORDS, optimizer, objective)

    def change(weights_N):
        standing = make_standing()._replace(weights_N=np.array(weights_N, np.float32))
        state = grpo.create_state(jax.tree.map(jnp.array, params), optimizer, objective)
        after, _ = update(state, batch, standing, 1.0)
        return np.asarray(after.params["unembedding"]) - params["unembedding"]

    first, others = np.eye(N)[0], 1 - np.eye(N)[0]
    assert np.abs(change(first)).max() > 1e-3 and not change(np.zeros(N)).any()
    np.testing.assert_allclose(change(2 * first + 0.5 * others), 2 * change(first) + 0.5 * change(others), atol=1e-5)


def test_zero_variance_groups_leave_the_policy_alone(policy, params):
    batch = make_batch(policy, params)
    batch = batch._replace(rewards_NG=np.full((N, G), 1 / 3, np.float32))
    objective = objective_with(kl_coefficient=0.0, entropy_coefficient=0.0)
    optimizer = optax.sgd(1.0)
    state = grpo.create_state(jax.tree.map(jnp.copy, params), optimizer, objective)
    after, feedback = grpo.jit_update(policy, optimizer, objective)(state, batch, make_standing(), 1.0)
    jax.tree.map(np.testing.assert_array_equal, after.params, params)
    assert feedback.metrics["zero_variance"] == 1


def test_sharded_update_equals_single_device(policy, params):
    objective = objective_with()
    optimizer = optax.sgd(0.1)
    batch = make_batch(policy, params)
    update = grpo.jit_update(policy, optimizer, objective)
    alone, expected = update(
        grpo.create_state(jax.tree.map(jnp.copy, params), optimizer, objective), batch, make_standing(), 1.0
    )
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    state = jax.device_put(grpo.create_state(params, optimizer, objective), everywhere)
    together, feedback = update(state, *jax.device_put((batch, make_standing()), split), 1.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), alone.params, together.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), expected, feedback)


@pytest.mark.parametrize("split, aggregate", [("G", grpo.sequence_mean), ("N", grpo.group_mean)])
def test_pmap_over_rollouts_or_tasks_equals_jit(split, aggregate):
    """4 devices hold 2 of 8 tasks each, or one of 4 rollouts, with unequal numbers of tokens and valid rollouts."""
    rng, optimizer = np.random.default_rng(4), optax.sgd(1.0)
    objective = objective_with(aggregate=aggregate, kl_coefficient=0.1)
    params = {name: rng.normal(size=(V, 16)).astype(np.float32) for name in ("embedding", "unembedding")}
    batch = make_batch(BAG_OF_WORDS, params)
    weights_N = np.linspace(0.5, 1.5, N, dtype=np.float32)
    standing = make_standing()._replace(eligible_N=np.arange(N) != 1, weights_N=weights_N)
    state = grpo.create_state(params, optimizer, objective)
    state = state._replace(reference_params=jax.tree.map(lambda x: 0.9 * x, params))
    how = {"policy": BAG_OF_WORDS, "optimizer": optimizer, "objective": objective, "quotas": (4, 4, 4, 4)}
    step = partial(grpo.update_step, **how)
    alone, expected = jax.jit(step)(state, batch, standing, 1.0)

    def axis(name):
        return name.rsplit("_", 1)[1].find(split)

    def cut(fields):
        parts = {n: x if axis(n) < 0 else np.stack(np.split(x, 4, axis=axis(n))) for n, x in fields._asdict().items()}
        return fields._replace(**parts)

    def axes(fields):
        return fields._replace(**{name: None if axis(name) < 0 else 0 for name in fields._fields})

    mapped = jax.pmap(
        partial(step, axis_name="device", split=split),
        axis_name="device",
        in_axes=(None, axes(batch), axes(standing), None),
        devices=jax.devices()[:4],
    )
    together, feedback = mapped(state, cut(batch), cut(standing), 1.0)
    assert expected.metrics["grad_norm"] > 0.1 and expected.seeds.count > 0
    for one in range(4):  # the same on every device
        close = lambda a, b: np.testing.assert_allclose(a[one], b, rtol=1e-5, atol=2e-6)
        jax.tree.map(close, (together, feedback), (alone, expected))


SAY_NOTHING = {
    "equal rewards": lambda batch: batch._replace(rewards_NG=np.full((N, G), 1 / 3, np.float32)),
    "every rollout failed": lambda batch: batch._replace(valid_NG=np.zeros((N, G), bool)),
}


@pytest.mark.parametrize("change", SAY_NOTHING.values(), ids=SAY_NOTHING)
def test_a_batch_that_says_nothing_moves_nothing_whatever_momentum_and_decay_say(change):
    rng = np.random.default_rng(4)
    params = {name: rng.normal(size=(V, 16)).astype(np.float32) for name in ("embedding", "unembedding")}
    batch = make_batch(BAG_OF_WORDS, params)
    objective = objective_with(kl_coefficient=0.0, entropy_coefficient=0.0)
    optimizer = create_optimizer(1e-2, warmup_steps=3, weight_decay=0.1)
    update = jax.jit(partial(grpo.update_step, policy=BAG_OF_WORDS, optimizer=optimizer, objective=objective))
    moved, _ = update(grpo.create_state(params, optimizer, objective), batch, make_standing(), 1.0)
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(moved.params), jax.tree.leaves(params)))
    after, feedback = update(moved, change(batch), make_standing(), 1.0)
    assert feedback.metrics["grad_norm"] == 0 and not feedback.metrics["skipped"]
    jax.tree.map(np.testing.assert_array_equal, after._replace(step=moved.step), moved)
    assert after.step == moved.step + 1
    onward, _ = update(after, batch, make_standing(), 1.0)  # and what has something to say moves it again
    assert (onward.params["embedding"] != moved.params["embedding"]).any()


def test_with_kl_the_reference_pulls_although_the_rewards_say_nothing():
    params = {name: np.ones((V, 16), np.float32) for name in ("embedding", "unembedding")}
    batch = SAY_NOTHING["equal rewards"](make_batch(BAG_OF_WORDS, params))
    objective, optimizer = objective_with(entropy_coefficient=0.0), optax.sgd(1.0)
    state = grpo.create_state(params, optimizer, objective)
    away = np.random.default_rng(0).normal(size=(V, 16)).astype(np.float32)
    state = state._replace(reference_params=params | {"unembedding": away})
    step = partial(grpo.update_step, policy=BAG_OF_WORDS, optimizer=optimizer, objective=objective)
    after, feedback = jax.jit(step)(state, batch, make_standing(), 1.0)
    assert feedback.metrics["zero_variance"] == 1 and feedback.metrics["grad_norm"] > 0
    assert (after.params["unembedding"] != params["unembedding"]).any()


def test_weight_decay_leaves_norms_and_biases_alone():
    """A rate of 1 and no gradient: what decays loses weight_decay times itself, and nothing else moves."""
    params = {
        "embedding": jnp.full((3, 2), 2.0),
        "layers": {"query": jnp.full((2, 3, 4), 2.0), "query_bias": jnp.full((2, 4), 2.0)},
        "attention_norm": jnp.full((2, 3), 2.0),  # of two layers, stacked
        "gain": jnp.full(3, 2.0),
    }
    optimizer = create_optimizer(1.0, weight_decay=0.25)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    moved = {jax.tree_util.keystr(path): float(x.ravel()[0]) for path, x in jax.tree.leaves_with_path(updates)}
    assert moved == {
        "['embedding']": -0.5,
        "['layers']['query']": -0.5,
        "['layers']['query_bias']": 0,
        "['attention_norm']": 0,
        "['gain']": 0,
    }


@pytest.mark.parametrize(
    "field, value",
    [
        ("rewards_NG", np.zeros((2, 3), np.float32)),
        ("valid_NG", np.ones((8, 4), np.int32)),
        ("suffix_lengths_NG", np.zeros(8, np.int32)),
        ("prompt_tokens_NP", np.zeros((8, 5), np.float32)),
    ],
)
def test_a_batch_of_other_shapes_or_dtypes_is_refused_before_anything_is_traced(field, value):
    params = {name: np.zeros((V, 16), np.float32) for name in ("embedding", "unembedding")}
    batch = make_batch(BAG_OF_WORDS, params)
    grpo.check_batch(batch, make_standing())
    with pytest.raises(AssertionError, match="assert_(shape|type) failed"):
        grpo.check_batch(batch._replace(**{field: value}), make_standing())
