"""Checkpoints: bit-equal arrays with the shardings that were asked for, and one clear error."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from rods_jax.checkpoint import (
    BEST_BY,
    MANIFEST,
    CheckpointError,
    damage,
    forget,
    open_checkpoints,
    read_params,
    restore,
    save,
    sizes,
)
from rods_jax.config import RetentionConfig
from rods_jax.types import TrainState

HOST = {"replay": {"z": 1, "a": [0.1 + 0.2, None, {"k": "é"}]}, "position": [3, 2**100]}


def _train_state(sharded=False):
    params = {
        "w": jax.random.normal(jax.random.key(0), (16, 4)),
        "half": (jnp.arange(8.0) / 3).astype(jnp.bfloat16),
        "odd": jnp.array([jnp.nan, -0.0, jnp.inf, 1e-45] * 2, jnp.float32),
    }
    if sharded:
        mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
        params = jax.device_put(params, NamedSharding(mesh, PartitionSpec("data")))
    optimizer = optax.adamw(1e-3)
    state = TrainState(params, {"w": params["w"] * 2}, optimizer.init(params), jnp.int32(7))
    return state, {"train": state, "key": jax.random.key(3), "raw": jax.random.key_data(jax.random.key(4))}


def _bits(x):
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    return str(x.dtype), np.asarray(x).tobytes()


@pytest.mark.parametrize("sharded", [False, True])
def test_what_comes_back_is_what_was_saved(tmp_path, sharded):
    _, tree = _train_state(sharded)
    with open_checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 5, tree, HOST)
    with open_checkpoints(tmp_path) as checkpoints:
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)
        step, restored, host = restore(checkpoints, like)
    assert step == 5
    assert jax.tree.structure(restored) == jax.tree.structure(tree)
    assert jax.tree.map(_bits, restored) == jax.tree.map(_bits, tree)
    assert jax.tree.all(jax.tree.map(lambda x, y: x.sharding.is_equivalent_to(y.sharding, x.ndim), restored, tree))
    assert jax.random.bits(restored["key"]) == jax.random.bits(tree["key"])
    assert json.dumps(host) == json.dumps(HOST)  # the order of keys too


def test_a_saved_state_may_be_donated_at_once(tmp_path):
    state, _ = _train_state()
    expected = jax.tree.map(_bits, state)
    with open_checkpoints(tmp_path, RetentionConfig(latest=1)) as checkpoints:
        save(checkpoints, 0, state, {})
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
        jax.jit(lambda x: jax.tree.map(lambda leaf: leaf + 1, x), donate_argnums=0)(state)
        assert jax.tree.map(_bits, restore(checkpoints, like)[1]) == expected


def test_a_save_that_fails_in_the_background_is_an_error_and_no_traceback_in_the_log(tmp_path, caplog):
    with pytest.raises(TypeError, match="not JSON serializable"):
        with open_checkpoints(tmp_path) as checkpoints:
            save(checkpoints, 1, _train_state(), {"what": object()})
            checkpoints.wait_until_finished()
    assert not any(record.exc_info for record in caplog.records)


def test_an_array_that_memory_did_not_hold_is_an_error_when_it_is_saved(tmp_path):
    """It is one when it is used: the call that makes it returns at once."""
    far_too_large = jax.jit(lambda key: jax.random.normal(key, (4_000_000, 4_000_000)))(jax.random.key(0))
    with open_checkpoints(tmp_path) as checkpoints:
        with pytest.raises(jax.errors.JaxRuntimeError, match="Out of memory allocating"):
            save(checkpoints, 0, {"w": far_too_large}, HOST)
    assert not list(tmp_path.iterdir())


def test_the_oldest_go_and_an_earlier_step_can_be_chosen(tmp_path):
    state = {"x": jnp.zeros(2)}
    with open_checkpoints(tmp_path) as checkpoints:
        for step in (1, 2, 3):
            save(checkpoints, step, {"x": jnp.full(2, float(step))}, {"step": step})
        assert restore(checkpoints, state, 2)[2] == {"step": 2}
        assert float(restore(checkpoints, state)[1]["x"][0]) == 3.0
        with pytest.raises(CheckpointError, match=r"no checkpoint of step 1: it has \[2, 3\]"):
            restore(checkpoints, state, 1)
        with pytest.raises(CheckpointError, match="already holds step 3: step 3 is not saved"):
            save(checkpoints, 3, state, {})


def test_missing_and_mismatched_checkpoints_say_so(tmp_path):
    state = {"x": jnp.arange(3.0)}
    with open_checkpoints(tmp_path) as checkpoints:
        with pytest.raises(CheckpointError, match=r"holds no checkpoint: it has \[\]"):
            restore(checkpoints, state)
        save(checkpoints, 1, state, {})
        with pytest.raises(CheckpointError, match="1 cannot be restored: .*shape"):
            restore(checkpoints, {"x": jnp.arange(4.0)})
        with pytest.raises(CheckpointError, match="1 cannot be restored: .*y"):
            restore(checkpoints, {"y": jnp.arange(3.0)})


# ----------------------------------------------------------------------------------- damage
def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def largest(directory):
    return max((file for file in directory.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: flip_a_bit(largest(path / "train_state")),
        lambda path: flip_a_bit(path / "host" / "metadata"),
        lambda path: flip_a_bit(path / MANIFEST),
        lambda path: os.truncate(largest(path / "train_state"), 100),
        lambda path: largest(path / "train_state").unlink(),
        lambda path: (path / MANIFEST).unlink(),
    ],
    ids=["flipped array", "flipped host", "flipped manifest", "truncated", "missing", "no manifest"],
)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_taken(tmp_path, harm):
    state, said = {"x": jnp.arange(1000.0)}, []
    with open_checkpoints(tmp_path, RetentionConfig(latest=3)) as checkpoints:
        for step in (1, 2, 3):
            save(checkpoints, step, {"x": state["x"] * step}, {"step": step, "text": "a" * 100})
    assert all(damage(tmp_path / str(step)) is None for step in (1, 2, 3))
    harm(tmp_path / "3")
    with open_checkpoints(tmp_path, RetentionConfig(latest=3)) as checkpoints:
        with pytest.raises(CheckpointError, match="3 is damaged"):
            restore(checkpoints, state, 3)  # who asks for a step gets no other
        step, restored, host = restore(checkpoints, state, tell=said.append)
        assert (step, float(restored["x"][1]), host["step"]) == (2, 2.0, 2)
        assert len(said) == 1 and "3 is damaged" in said[0] and "damaged-3" in said[0]
        save(checkpoints, 3, {"x": state["x"] * 3}, {"step": 3})  # the way is free again
    with open_checkpoints(tmp_path, RetentionConfig(latest=3)) as checkpoints:
        assert restore(checkpoints, state, tell=said.append)[0] == 3 and len(said) == 1
    assert (tmp_path / "damaged-3").is_dir()


@pytest.mark.parametrize("text", ["[]", "5", "[" * 100_000])
def test_a_damaged_file_of_orbaxs_own_is_named_and_nothing_changed(tmp_path, text):
    with open_checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            save(checkpoints, step, {"x": jnp.zeros(2)}, {})
    (tmp_path / "2" / "_CHECKPOINT_METADATA").write_text(text)
    with pytest.raises(CheckpointError, match="2/_CHECKPOINT_METADATA.*move .*2 away, and the checkpoint before it is"):
        open_checkpoints(tmp_path)
    shutil.move(tmp_path / "2", tmp_path / "away")
    with open_checkpoints(tmp_path) as checkpoints:
        assert restore(checkpoints, {"x": jnp.zeros(2)})[0] == 1


def test_damaged_checkpoints_alone_are_an_error(tmp_path):
    with open_checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1, {"x": jnp.arange(3.0)}, {})
        checkpoints.wait_until_finished()
        flip_a_bit(largest(tmp_path / "1" / "train_state"))
        with pytest.raises(CheckpointError, match=r"holds damaged checkpoints alone: \[1\]"):
            restore(checkpoints, {"x": jnp.arange(3.0)})


def test_what_a_crash_left_half_written_goes_and_is_never_taken(tmp_path):
    state = {"x": jnp.arange(3.0)}
    with open_checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1, state, {})
    shutil.copytree(tmp_path / "1", tmp_path / "2.orbax-checkpoint-tmp-7")
    with open_checkpoints(tmp_path) as checkpoints:
        assert restore(checkpoints, state)[0] == 1
        assert (tmp_path / "2.orbax-checkpoint-tmp-7").exists()  # it may be a save that is under way elsewhere
        forget(checkpoints, 1, RetentionConfig())
        assert not (tmp_path / "2.orbax-checkpoint-tmp-7").exists()


# --------------------------------------------------------------------------------- retention
RETENTION = RetentionConfig(latest=1, every=3, best=1)


def save_seven(checkpoints):
    for step, reward in {1: 0.1, 2: 0.9, 3: 0.2, 4: 0.3, 5: None, 6: 0.4, 7: 0.1}.items():
        save(checkpoints, step, {"x": jnp.zeros(2)}, {}, None if reward is None else {BEST_BY: reward})


def test_the_latest_every_few_steps_and_the_best_stay(tmp_path):
    with open_checkpoints(tmp_path, RETENTION) as checkpoints:
        save_seven(checkpoints)
    with open_checkpoints(tmp_path, RetentionConfig(latest=1)) as checkpoints:
        assert sorted(checkpoints.all_steps()) == [2, 3, 6, 7]


@pytest.mark.parametrize("after, stay", [(7, [2, 3, 6, 7]), (5, [2, 3, 5]), (9, [2, 3, 6, 7])])
def test_what_a_kill_kept_from_being_removed_goes_when_the_run_goes_on(tmp_path, after, stay):
    with open_checkpoints(tmp_path, RetentionConfig(latest=7, best=7)) as checkpoints:
        save_seven(checkpoints)  # as if every removal had been killed
    with open_checkpoints(tmp_path, RETENTION) as checkpoints:
        assert len(checkpoints.all_steps()) == 7  # who only opens the folder changes nothing
        forget(checkpoints, after, RETENTION)
        assert sorted(checkpoints.all_steps()) == stay
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == stay


def test_an_earlier_step_is_continued_as_if_later_ones_had_never_been(tmp_path):
    state = {"x": jnp.zeros(2)}
    with open_checkpoints(tmp_path, RetentionConfig(latest=5)) as checkpoints:
        for step in (1, 2, 3):
            save(checkpoints, step, state, {})
        forget(checkpoints, 1, RetentionConfig(latest=5))
        assert list(checkpoints.all_steps()) == [1]
        save(checkpoints, 2, state, {})


def test_sizes_by_hand():
    state = TrainState({"w": jnp.zeros((3, 5)), "b": jnp.zeros(4, jnp.bfloat16)}, None, (jnp.zeros(7),), jnp.int32(0))
    assert sizes(state, {"a": "é"}) == {
        "params": 68, "reference_params": 0, "optimizer_state": 28, "step": 4, "host": len('{"a": "\\u00e9"}')
    }  # fmt: skip


def test_another_device_layout_restores_the_same_values(tmp_path):
    def laid_out(devices):
        mesh = jax.sharding.Mesh(np.array(devices), ("data",))
        return {"w": jax.device_put(jnp.arange(32.0).reshape(16, 2), NamedSharding(mesh, PartitionSpec("data")))}

    eight, four = laid_out(jax.devices()), laid_out(jax.devices()[:4])
    with open_checkpoints(tmp_path, RetentionConfig(latest=1)) as checkpoints:
        save(checkpoints, 1, eight, {})
        restored = restore(checkpoints, four)[1]
    assert restored["w"].sharding.is_equivalent_to(four["w"].sharding, 2)
    np.testing.assert_array_equal(restored["w"], eight["w"])


def test_parameters_alone_are_read_and_nothing_is_changed(tmp_path):
    """Beside a save under way, past a damaged checkpoint, with shardings that were not saved."""
    state, _ = _train_state()
    with open_checkpoints(tmp_path) as checkpoints:
        for step in (4, 5):
            save(checkpoints, step, state, HOST)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    place = NamedSharding(mesh, PartitionSpec("data"))
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state.params)
    (tmp_path / "6.orbax-checkpoint-tmp").mkdir()
    part = next((tmp_path / "5" / "train_state" / "params.w").glob("0*"))
    part.write_bytes(part.read_bytes()[:-1])
    (tmp_path / "4" / "train_state" / "optimizer_state.0.count" / "0").unlink()  # it is not read
    before = sorted(tmp_path.rglob("*"))
    told = []
    step, params = read_params(tmp_path, like, tell=told.append)
    assert step == 4 and jax.tree.map(_bits, params) == jax.tree.map(_bits, state.params)
    assert all(x.sharding == place for x in jax.tree.leaves(params))
    assert sorted(tmp_path.rglob("*")) == before
    assert len(told) == 1 and "5 is damaged: 1 files differ" in told[0]
    with pytest.raises(CheckpointError, match="no undamaged checkpoint of step 5: it has .4, 5."):
        read_params(tmp_path, like, 5)
    with pytest.raises(CheckpointError, match="no undamaged checkpoint: it has "):
        read_params(tmp_path / "nowhere", like)


def test_metrics_without_the_best_one_make_no_checkpoint_one_of_the_best(tmp_path):
    with open_checkpoints(tmp_path, RetentionConfig(latest=1, best=1)) as checkpoints:
        for step, metrics in ((1, {"held_out_progress": 1.0}), (2, {BEST_BY: 0.1}), (3, {"held_out_progress": 1.0})):
            save(checkpoints, step, {"x": jnp.zeros(2)}, {}, metrics)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [2, 3]
