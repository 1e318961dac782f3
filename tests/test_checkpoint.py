"""Checkpoints: bit-equal arrays with the shardings that were asked for, and one clear error."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from rods_jax.checkpoint import CheckpointError, open_checkpoints, restore, save
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
    with open_checkpoints(tmp_path, keep=2) as checkpoints:
        save(checkpoints, 5, tree, HOST)
    with open_checkpoints(tmp_path, keep=2) as checkpoints:
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
    with open_checkpoints(tmp_path, keep=1) as checkpoints:
        save(checkpoints, 0, state, {})
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
        jax.jit(lambda x: jax.tree.map(lambda leaf: leaf + 1, x), donate_argnums=0)(state)
        assert jax.tree.map(_bits, restore(checkpoints, like)[1]) == expected


def test_the_oldest_go_and_an_earlier_step_can_be_chosen(tmp_path):
    state = {"x": jnp.zeros(2)}
    with open_checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 3):
            save(checkpoints, step, {"x": jnp.full(2, float(step))}, {"step": step})
        assert restore(checkpoints, state, 2)[2] == {"step": 2}
        assert float(restore(checkpoints, state)[1]["x"][0]) == 3.0
        with pytest.raises(CheckpointError, match=r"no checkpoint of step 1: it has \[2, 3\]"):
            restore(checkpoints, state, 1)
        with pytest.raises(CheckpointError, match="already holds step 3: step 3 is not saved"):
            save(checkpoints, 3, state, {})


def test_missing_mismatched_and_corrupt_checkpoints_say_so(tmp_path):
    state = {"x": jnp.arange(3.0)}
    with open_checkpoints(tmp_path, keep=2) as checkpoints:
        with pytest.raises(CheckpointError, match=r"holds no checkpoint: it has \[\]"):
            restore(checkpoints, state)
        save(checkpoints, 1, state, {})
        with pytest.raises(CheckpointError, match="1 cannot be restored: .*shape"):
            restore(checkpoints, {"x": jnp.arange(4.0)})
        with pytest.raises(CheckpointError, match="1 cannot be restored: .*y"):
            restore(checkpoints, {"y": jnp.arange(3.0)})
        for folder in (tmp_path / "1" / "train_state").iterdir():
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
        with pytest.raises(CheckpointError, match="1 cannot be restored"):
            restore(checkpoints, state)
