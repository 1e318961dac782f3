"""Every layout computes what one device computes, and arrays lie where the table says."""

import re
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from grpo_toy import objective_with
from jax.sharding import PartitionSpec

from models.decoder import DecoderConfig, LoraConfig, parameter_axes
from models.layout import Layout, for_rows, rows_of
from models.policy import callables
from rods_jax import grpo, sharding
from rods_jax.generation import Sampling, generator, rollout_keys
from rods_jax.micro_batches import micro_batches
from rods_jax.types import Policy, RolloutBatch, Standing

CONFIG = DecoderConfig(
    vocab_size=64, layers=2, width=32, query_heads=8, key_value_heads=4, head_width=8, feed_forward=48,
    query_key_value_bias=True, tied_embedding=False,
)  # fmt: skip
N, G, P, S = 4, 4, 10, 16  # a prompt that four parts do not divide
OBJECTIVE = objective_with(kl_coefficient=0.0, entropy_coefficient=0.01)
OPTIMIZER = optax.sgd(1.0, momentum=0.9)  # the parameters' change is the gradient; the momentum is a state to cut


def standing() -> Standing:
    return grpo.first_seen(N)._replace(categories_N=np.arange(N, dtype=np.int32))


def batch() -> RolloutBatch:
    rng = np.random.default_rng(0)
    full = lambda value, *shape: np.full(shape, value)
    lengths = rng.integers(4, S + 1, (N, G), np.int32)
    return RolloutBatch(
        prompt_tokens_NP=rng.integers(0, 64, (N, P), np.int32),
        prompt_lengths_N=np.array([10, 5, 1, 7], np.int32),
        suffix_tokens_NGS=rng.integers(0, 64, (N, G, S), np.int32),
        suffix_lengths_NG=lengths,
        action_mask_NGS=(rng.random((N, G, S)) < 0.6) & (np.arange(S) < lengths[..., None]),
        behavior_log_probs_NGS=rng.normal(-4, 0.2, (N, G, S)).astype(np.float32),
        rewards_NG=rng.integers(0, 4, (N, G)).astype(np.float32) / 3,
        valid_NG=rng.random((N, G)) < 0.9,
        passed_NG=rng.integers(0, 4, (N, G), np.int32),
        checks_N=full(np.int32(3), N),
    )


def compute(mesh=None, cuts=(1, 1)):
    """(state after an update, feedback, sampled tokens) on one device, or on a mesh; in micro-batches."""
    policy = Policy(**callables(CONFIG, Layout(**sharding.layout_fields(mesh)) if mesh else Layout()))
    params = Policy(**callables(CONFIG)).init(jax.random.key(0))
    params = jax.tree.map(lambda x: x * 3 if x.ndim > 2 else x + 0.1, params)  # far from uniform; biases are not 0
    state, given, known = grpo.create_state(params, OPTIMIZER, OBJECTIVE), batch(), standing()
    how = {"cuts": cuts}
    if mesh:
        shardings = sharding.parameter_shardings(mesh, params, parameter_axes)
        whole = sharding.state_shardings(mesh, state, shardings, OPTIMIZER)
        places = whole, sharding.batch_shardings(mesh, given), sharding.batch_shardings(mesh, known)
        state, given, known = jax.device_put((state, given, known), places)
        how["place"] = lambda gradient: jax.lax.with_sharding_constraint(gradient, shardings)
    generate = generator(policy, stop_tokens=(63,), group_size=G, suffix_capacity=S, max_action_tokens=8)
    keys = rollout_keys(0, 0, [f"task{n}" for n in range(N)], G)
    episodes = generate.start(state.params, given.prompt_tokens_NP, given.prompt_lengths_N, keys)
    generated, episodes = generate.act(state.params, episodes, np.ones((N, G), bool), Sampling())
    update = grpo.jit_update(policy, OPTIMIZER, OBJECTIVE, **how)
    state, feedback = update(jax.tree.map(jnp.copy, state), given, known, jnp.float32(1.0))
    return state, feedback, generated, episodes


@pytest.fixture(scope="module")
def alone():
    return compute()


SLOW = [(2, 2, 2, 1), (4, 2, 1, 1), (1, 1, 4, 2), (1, 8, 1, 1), (2, 1, 1, 4)]


@pytest.mark.parametrize(
    "sizes, count",
    [
        ((1, 2, 2, 2), 2),
        *(pytest.param(sizes, count, marks=pytest.mark.slow) for sizes in SLOW for count in (1, 2)),
    ],
)
def test_a_layout_computes_what_one_device_computes(alone, sizes, count):
    mesh = sharding.create_mesh(*sizes)
    state, feedback, generated, episodes = compute(mesh, sharding.micro_batch_cuts(count, N, G, sizes))
    expected_state, expected, expected_tokens, _ = alone
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, feedback, expected)
    assert expected.metrics["grad_norm"] > 0.1 and expected.statistics.variance_N.max() > 0
    jax.tree.map(close, state, expected_state)
    np.testing.assert_array_equal(generated.tokens_NGA, expected_tokens.tokens_NGA)
    np.testing.assert_array_equal(generated.lengths_NG, expected_tokens.lengths_NG)
    close(generated.log_probs_NGA, expected_tokens.log_probs_NGA)

    data, fsdp, tensor, sequence = sizes
    shard = lambda x: x.addressable_shards[0].data.shape
    momentum = state.optimizer_state[0].trace
    for tree in (state.params, momentum):
        assert shard(tree["layers"]["gate"]) == (2, 32 // (data * fsdp), 48 // tensor)
        assert shard(tree["layers"]["output"]) == (2, 4 // tensor, 2, 8, 32 // (data * fsdp))
        assert shard(tree["embedding"]) == (64 // tensor, 32 // (data * fsdp))
    if N % data == G % fsdp == 4 % (tensor * sequence) == 0:
        cached = episodes.suffixes.keys_NGKSE[0]
        assert shard(cached) == (N // data, G // fsdp, 4 // (tensor * sequence), S, 8)


def test_a_micro_batch_spans_all_devices_and_moves_nothing():
    mesh = sharding.create_mesh(2, 2, 1, 2)
    given = batch()
    cut = jax.jit(partial(micro_batches, cuts=(2, 2)))
    arrays = jax.device_put(given, sharding.batch_shardings(mesh, given))._asdict()
    suffix = cut(arrays)["suffix_tokens_NGS"]
    assert suffix.shape == (4, 2, 2, 16) and suffix.addressable_shards[0].data.shape == (4, 1, 1, 8)
    assert not re.search("all-|collective|permute", cut.lower(arrays).compile().as_text())


def test_micro_batches_are_cut_from_what_a_device_holds():
    cuts = partial(sharding.micro_batch_cuts, num_tasks=32, group_size=16)
    assert cuts(1, sizes=(8, 2, 4, 1)) == (1, 1)
    assert cuts(4, sizes=(8, 2, 4, 1)) == (4, 1)  # 32 tasks over 8 devices: four parts of whole tasks
    assert cuts(8, sizes=(8, 2, 4, 1)) == (4, 2)  # and then two of a task's 16 rollouts
    assert cuts(32, sizes=(8, 2, 4, 1)) == (4, 8)
    assert cuts(64, sizes=(8, 2, 4, 1)) is None and cuts(3, sizes=(8, 2, 4, 1)) is None
    assert cuts(4, sizes=(32, 2, 1, 1)) == (1, 4)
    assert cuts(8, sizes=(3, 32, 1, 1)) == (8, 1)  # what a mesh does not divide, every device holds whole


# ------------------------------------------------------------------------------------- the table
def test_an_axis_is_cut_by_as_many_mesh_axes_as_divide_it():
    mesh = sharding.create_mesh(2, 2, 1, 2)
    assert sharding.spec(mesh, "NG-", (4, 6, 5)) == PartitionSpec(("data",), ("fsdp",), None)
    assert sharding.spec(mesh, "B", (4,)) == PartitionSpec(("data", "fsdp"))
    assert sharding.spec(mesh, "B", (6,)) == PartitionSpec(("data",))
    assert sharding.spec(mesh, "N", (3,)) == PartitionSpec(None)


def test_an_axis_of_the_mesh_cuts_one_axis_of_an_array():
    mesh = sharding.create_mesh(2, 2, 1, 2)
    assert sharding.spec(mesh, "BP", (4, 8)) == PartitionSpec(("data", "fsdp"), ("sequence",))
    assert sharding.spec(mesh, "BP", (2, 8)) == PartitionSpec(("data",), ("sequence", "fsdp"))


def test_a_batch_lies_as_its_names_say():
    cut = sharding.batch_shardings(sharding.create_mesh(2, 2, 1, 2), batch())
    assert cut.suffix_tokens_NGS.spec == PartitionSpec(("data",), ("fsdp",), ("sequence",))
    assert cut.rewards_NG.spec == PartitionSpec(("data",), ("fsdp",))
    assert cut.prompt_lengths_N.spec == PartitionSpec(("data",))


def test_every_parameter_has_as_many_letters_as_axes():
    for changes in (dict(tied_embedding=True), dict(lora=LoraConfig(2, 1.0)), dict(query_key_norm=False)):
        config = DecoderConfig(**{**CONFIG.__dict__, **changes})
        shapes = jax.eval_shape(callables(config)["init"], jax.random.key(0))
        sharding.parameter_shardings(sharding.create_mesh(1, 2, 4, 1), shapes, parameter_axes)


def test_a_mesh_that_does_not_fit_is_refused_in_one_sentence():
    with pytest.raises(
        ValueError, match="the mesh data 3 x fsdp 1 x tensor 1 x sequence 1 needs 3 devices, and there are 8"
    ):
        sharding.create_mesh(3, 1, 1, 1)
    shapes = jax.eval_shape(callables(CONFIG)["init"], jax.random.key(0))
    with pytest.raises(ValueError, match="the mesh cuts axis K of layers.key into 8 parts, and its size is 4"):
        sharding.parameter_shardings(sharding.create_mesh(1, 1, 8, 1), shapes, parameter_axes)


def test_rows_hold_what_a_device_holds_and_move_nothing():
    mesh = sharding.create_mesh(2, 2, 1, 2)
    place = Layout(**sharding.layout_fields(mesh))
    rows = rows_of((2, 6), (2, 4, 4), place)
    assert rows.cuts == (2, 2) and rows.prompt == 8  # padded
    prompt, suffix = np.arange(16).reshape(2, 1, 8), 100 + np.arange(32).reshape(2, 4, 4)
    joined = rows.join(prompt, suffix)
    # The second row of the first task: the prompt's second quarter, rollouts 2 and 3, the first half of their tokens.
    np.testing.assert_array_equal(joined[0, 1], [2, 3, 108, 109, 112, 113])
    jax.tree.map(np.testing.assert_array_equal, rows.apart(joined), (prompt, suffix))

    there = lambda x, axes: jax.device_put(x, jax.NamedSharding(mesh, sharding.spec(mesh, axes, x.shape)))
    join = jax.jit(lambda prompt, suffix: for_rows(place).constrain(rows.join(prompt, suffix), "NGT"))
    arrays = there(prompt, "N-P"), there(suffix, "NGS")
    assert join(*arrays).addressable_shards[0].data.shape == (1, 1, 6)
    assert not re.search("all-|collective|permute", join.lower(*arrays).compile().as_text())


def test_what_the_cuts_do_not_divide_is_not_cut():
    layout = Layout(cuts=(2, 4))
    assert rows_of((1, 5), (1, 4, 7), layout).cuts == (1, 4)
    assert rows_of((1, 5), (1, 6, 8), layout).cuts == (2, 1)
    assert rows_of((1, 5), (1, 6, 7), layout) == (1, 5, 6, 7, (1, 1))


# --------------------------------------------------------------------------------------- rollouts
def play(policy, params, prompts, lengths, group, columns):
    """Tokens of two messages with an observation of every row between them, column by column."""
    n = len(prompts)
    keys = rollout_keys(0, 0, [f"task{i}" for i in range(n)], group)
    decode = generator(
        policy, stop_tokens=(63,), group_size=group, suffix_capacity=S, max_action_tokens=4, columns=columns
    )
    active, said = np.ones((n, group), bool), []
    episodes = decode.start(params, prompts, lengths, keys)
    for turn in range(2):
        generated, episodes = decode.act(params, episodes, active, Sampling())
        said.append(generated.tokens_NGA)
        for which in range(group // columns if turn == 0 else 0):
            rows = np.broadcast_to(np.arange(columns, dtype=np.int32) * (group // columns) + which, (n, columns))
            told, counts = np.full((n, columns, 3), 7, np.int32), np.full((n, columns), 1 + which, np.int32)
            observe = decode.observe.lower(params, episodes, rows, told, counts).compile()
            episodes = observe(params, episodes, rows, told, counts)
    return np.concatenate(said, -1), episodes, observe.as_text()


@pytest.mark.parametrize("group, columns", [(8, 2), pytest.param(1, 1, marks=pytest.mark.slow)])
def test_rollouts_are_cut_over_all_devices_and_listen_where_they_lie(group, columns):
    """Groups by fsdp, and single rollouts by tasks; parameters lie as the run's mesh says in both."""
    mesh = sharding.create_mesh(2, 2, 1, 2)
    config = replace(CONFIG, layers=1)
    params = Policy(**callables(config)).init(jax.random.key(0))
    params = jax.tree.map(lambda x: x * 3 if x.ndim > 2 else x + 0.1, params)
    rng = np.random.default_rng(0)
    prompts, lengths = rng.integers(0, 60, (4, 6)).astype(np.int32), np.array([6, 3, 5, 6], np.int32)
    expected, _, _ = play(Policy(**callables(config)), params, prompts, lengths, group, columns)
    cut = jax.device_put(params, sharding.parameter_shardings(mesh, params, parameter_axes))
    policy = Policy(**callables(config, Layout(**sharding.layout_fields(sharding.for_groups(mesh, group)))))
    found, episodes, text = play(policy, cut, prompts, lengths, group, columns)
    np.testing.assert_array_equal(found, expected)
    cached = episodes.suffixes.keys_NGKSE[0]
    shape = (2, 4, 2, S, 8) if group == 8 else (1, 1, 2, S, 8)
    assert cached.addressable_shards[0].data.shape == shape
    # No cache moves: nothing that is exchanged has an axis of the suffix.
    exchanged = re.findall(r"\[([\d,]+)\][^=]* all-(?:gather|to-all|reduce)\(", text)
    assert exchanged and not any(str(S) in shape.split(",") for shape in exchanged)
