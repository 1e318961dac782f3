"""What a run learned, as a checkpoint: from one device, from a mesh and from two processes, in either type."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forks import host_devices
from safetensors.numpy import load_file
from training_toy import CONFIG as TOY

from models import weights
from models.decoder import LoraConfig
from models.families import Pretrained, read_config
from models.learner import decoder
from models.policy import callables
from rods_jax import checkpoint
from rods_jax import config as configuration
from rods_jax.codecs.tokenizer import load_tokenizer, train_tokenizer
from rods_jax.commands.export import export
from rods_jax.config import ConfigError
from rods_jax.files import FolderError
from rods_jax.older import LAYOUT
from rods_jax.run.learner import Learner, frozen_inputs
from rods_jax.run.learning import learning
from rods_jax.run.played import newest

ROOT = Path(__file__).parent.parent
CONFIG_FILE = Path(__file__).parent / "training_toy.py"


def run_of(directory: Path, config) -> Path:
    """A run directory as training leaves it, as far as export reads it: two checkpoints, the newest at step 3."""
    tokenizer = train_tokenizer(["find the report and close the ticket"], vocab_size=config.model.vocab_size)
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"layout": LAYOUT} | configuration.plain_values(config)))
    tokenizer.save_pretrained(directory / "tokenizer")
    learner = decoder(config)(len(tokenizer))
    create = learning(config, learner).create
    with checkpoint.open_checkpoints(directory / "checkpoints") as checkpoints:
        for step in (2, 3):
            checkpoint.save(checkpoints, step, create(learner.policy.init(jax.random.key(step))), {})
    return directory


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("runs") / "toy", replace(TOY, model=replace(TOY.model, layers=2)))


def exported(run: Path, to: Path, **options) -> dict[str, np.ndarray]:
    export(run, to, CONFIG_FILE, **options)
    return load_file(to / weights.SINGLE)


def state_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_the_newest_policy_leaves_in_either_type(run, tmp_path):
    before = state_of(run)
    exact = exported(run, tmp_path / "exact", dtype="float32")
    assert json.loads((tmp_path / "exact" / "config.json").read_text())["torch_dtype"] == "float32"
    assert exact["model.norm.weight"].dtype == np.float32
    half = exported(run, tmp_path / "half")
    for name, tensor in exact.items():
        np.testing.assert_array_equal(half[name], tensor.astype(jnp.bfloat16))
    model = replace(read_config(tmp_path / "exact"), max_positions=None)
    fresh = callables(model)["init"](jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, weights.load_weights(tmp_path / "exact", model), fresh)
    assert state_of(run) == before  # a reader changes nothing


def test_an_exported_policy_has_the_positions_of_the_longest_stage(tmp_path):
    """A model without a limit of its own; 96 tokens of a prompt and 160 of a suffix, which are 128 elsewhere."""
    file = tmp_path / "long.py"
    file.write_text(
        "from dataclasses import replace\nfrom tests.training_toy import CONFIG\n"
        "CONFIG = replace(CONFIG, stages=(replace(CONFIG.stages[0], max_suffix_tokens=160),))\n"
    )
    config = configuration.load_config(file)
    export(run_of(tmp_path / "run", config), tmp_path / "to", file)
    assert json.loads((tmp_path / "to" / "config.json").read_text())["max_position_embeddings"] == 96 + 160


def test_adapters_are_not_written_over_another_base(tmp_path, monkeypatch):
    """The run's own checkpoint has a digest of what it read and did not train."""
    monkeypatch.setattr(checkpoint, "read_params", lambda *_, **__: (3, "adapters"))
    (tmp_path / "checkpoints/3/host").mkdir(parents=True)
    record = tmp_path / "checkpoints/3/host/metadata"
    first, other = (Learner(None, None, lambda _: None, frozen=(jnp.full(3, x),)) for x in (1.0, 2.0))
    record.write_text(json.dumps({"inputs": {"tasks": "their digest"} | frozen_inputs(first)}))
    assert newest(tmp_path, first) == (3, "adapters")
    with pytest.raises(ConfigError, match="frozen weights changed since the checkpoint was written"):
        newest(tmp_path, other)
    record.write_text("{}")  # of an earlier version
    assert newest(tmp_path, other) == (3, "adapters")


def test_a_mesh_holds_a_part_and_exports_the_same(run, tmp_path):
    """No device ever holds more than its cut of the parameters: neither optimizer nor reference policy is read."""
    config = replace(TOY, mesh=(2, 4, 1, 1), model=replace(TOY.model, layers=2))
    learner = decoder(config)(len(load_tokenizer(run / "tokenizer")))
    held = bytes_by_device(jax.live_arrays())
    step, params = newest(run, learner)
    added = {device: size - held.get(device, 0) for device, size in bytes_by_device(jax.live_arrays()).items()}
    whole = sum(x.nbytes for x in jax.tree.leaves(params))
    assert step == 3 and 8 * max(added.values()) < 1.2 * whole  # norms are whole on every device
    cut, whole = exported(run, tmp_path / "cut", mesh=(2, 4, 1, 1)), exported(run, tmp_path / "whole")
    assert cut.keys() == whole.keys()
    assert all(np.array_equal(cut[name], whole[name]) for name in whole)


def bytes_by_device(arrays) -> dict:
    held = {}
    for array in arrays:
        for shard in array.addressable_shards:
            held[shard.device] = held.get(shard.device, 0) + shard.data.nbytes
    return held


def test_two_processes_export_what_one_does(run, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": host_devices(2)}
    command = [sys.executable, "-m", "scripts.export", "--run-dir", str(run), "--to", str(tmp_path / "two")]
    command += ["--config", str(CONFIG_FILE), "--mesh", "2", "2", "1", "1", "--coordinator", address]
    both = [
        subprocess.Popen(
            [*command, "--num-processes", "2", "--process-id", str(index)],
            cwd=ROOT,
            env=os.environ | flags,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    ended = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert "the policy of" in ended[0] and "the policy of" not in ended[1]
    export(run, tmp_path / "one", CONFIG_FILE)
    assert state_of(tmp_path / "two") == state_of(tmp_path / "one")


def test_generation_settings_of_the_source_are_carried_and_adapters_merge_in_float32(tmp_path):
    base = tmp_path / "base"
    model = replace(TOY.model, max_positions=512)
    weights.save_weights(base, callables(model)["init"](jax.random.key(0)), model)
    (base / weights.GENERATION).write_text('{"eos_token_id": [1, 2]}')
    lora = LoraConfig(rank=2, alpha=4.0, targets=("query", "down"))
    chosen = Pretrained(directory=str(base), compute_dtype="float32", lora=lora)
    tokenizer = train_tokenizer(["find the report"], vocab_size=model.vocab_size)
    learner = decoder(replace(TOY, model=chosen))(len(tokenizer))
    adapters = jax.tree.map(lambda x: x + 0.01, learner.policy.init(jax.random.key(1)))
    learner.export(tmp_path / "it", adapters, tokenizer, max_positions=9, dtype=jnp.float32)
    assert (tmp_path / "it" / weights.GENERATION).read_text() == '{"eos_token_id": [1, 2]}'
    merged, start = (weights.load_weights(d, model)["layers"]["query"] for d in (tmp_path / "it", base))
    a, b = (adapters["layers"][f"query_lora_{x}"] for x in "ab")
    change = 2.0 * np.einsum("ldr,lrkqe->ldkqe", a, b)
    np.testing.assert_allclose(merged, start + change, rtol=1e-6, atol=1e-7)  # bfloat16 would lose most of it


@pytest.mark.parametrize("what", ["a run", "another model"])
def test_an_output_that_holds_anything_is_refused_and_left_as_it_is(run, tmp_path, what):
    other = tmp_path / "model"
    other.mkdir()
    (other / "config.json").write_text('{"mine": 1}')
    to = run if what == "a run" else other
    before = state_of(to)
    with pytest.raises(FolderError, match="and is left as it is"):
        export(run, to, CONFIG_FILE)
    assert state_of(to) == before
