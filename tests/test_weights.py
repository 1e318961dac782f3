"""Checkpoints: in and out without loss, in bounded memory, into shards; and what is wrong with one is named."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from make_golden_logits import FAMILIES, reference_model
from safetensors.numpy import load_file, save_file

from models import presets, weights
from models.families import read_config
from models.policy import callables
from rods_jax.codecs.tokenizer import load_tokenizer, train_tokenizer
from rods_jax.files import CheckpointError, FolderError

TINY = [presets.TINY_QWEN2_5, presets.TINY_QWEN3, presets.TINY_LLAMA3]
ROOT = Path(__file__).parent.parent


def fresh(config):
    """Parameters none of which is constant, as numpy arrays."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(callables(config)["init"], jax.random.key(0))
    return jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), shapes)


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def checkpoint(tmp_path):
    weights.save_weights(tmp_path / "it", fresh(presets.TINY_QWEN3), presets.TINY_QWEN3, dtype=jnp.float32)
    return tmp_path / "it"


# ------------------------------------------------------------------------------------ round trip
@pytest.mark.parametrize("config", TINY)
@pytest.mark.parametrize("max_file_bytes", [10**9, 20_000])
def test_what_was_saved_is_loaded_bit_for_bit(config, max_file_bytes, tmp_path):
    params = fresh(config)
    weights.save_weights(tmp_path, params, config, dtype=jnp.float32, max_file_bytes=max_file_bytes)
    files = list(tmp_path.glob("*.safetensors"))
    assert (tmp_path / weights.INDEX).exists() == (len(files) > 1) == (max_file_bytes < 10**9)
    assert max(file.stat().st_size for file in files) < max_file_bytes + 4096
    assert read_config(tmp_path) == config
    equal(weights.load_weights(tmp_path, config), params)


def test_tensors_have_the_orientation_of_the_format(checkpoint):
    params, tensors = fresh(presets.TINY_QWEN3), load_file(checkpoint / weights.SINGLE)
    layer = jax.tree.map(lambda x: x[1], params["layers"])
    q = tensors["model.layers.1.self_attn.q_proj.weight"]  # [heads * head width, width]
    assert q.shape == (64, 32)
    np.testing.assert_array_equal(q[16 * 3 + 5], layer["query"][:, 1, 1, 5])  # head 3 is the second of key head 1
    o = tensors["model.layers.1.self_attn.o_proj.weight"]
    np.testing.assert_array_equal(o[7, 16 * 2 : 16 * 3], layer["output"][1, 0, :, 7])
    np.testing.assert_array_equal(tensors["model.layers.1.mlp.down_proj.weight"], layer["down"].T)
    np.testing.assert_array_equal(tensors["model.embed_tokens.weight"], params["embedding"])


def test_bfloat16_is_what_is_written_and_any_float_is_what_is_read(tmp_path):
    config, params = presets.TINY_LLAMA3, fresh(presets.TINY_LLAMA3)
    weights.save_weights(tmp_path, params, config)
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"
    equal(weights.load_weights(tmp_path, config), jax.tree.map(lambda x: x.astype(np.float32), rounded))
    loaded = weights.load_weights(tmp_path, config, dtype=jnp.bfloat16)
    equal(loaded, rounded)
    assert {x.dtype for x in jax.tree.leaves(loaded)} == {jnp.dtype(jnp.bfloat16)}


def test_nothing_that_is_there_is_written_over(checkpoint, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "pytorch_model.bin").write_bytes(b"mine")
    for directory, name in ((checkpoint, r"(model\.safetensors|config\.json)"), (other, "pytorch_model.bin")):
        before = {path: path.read_bytes() for path in directory.iterdir()}
        with pytest.raises(FolderError, match=f"holds '{name}' and is left as it is"):
            weights.save_weights(directory, fresh(presets.TINY_QWEN3), presets.TINY_QWEN3)
        assert {path: path.read_bytes() for path in directory.iterdir()} == before


def test_every_file_can_be_read_by_whom_the_umask_lets(checkpoint):
    umask = os.umask(0)
    os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in checkpoint.iterdir()} == {0o666 & ~umask}


def test_the_tokenizer_travels_along(tmp_path):
    tokenizer = train_tokenizer(["some words"], vocab_size=300)
    config = replace(presets.TINY_QWEN3, vocab_size=len(tokenizer))
    weights.save_weights(tmp_path, fresh(config), config, tokenizer)
    assert load_tokenizer(tmp_path).get_vocab() == tokenizer.get_vocab()
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == tokenizer.eos_token_id


# ---------------------------------------------------------------------------------------- shards
@pytest.mark.parametrize("config", TINY)
def test_every_device_gets_its_shard(config, tmp_path):
    """Two axes of a projection are sharded at a time, heads among them; blocks are far smaller than a tensor."""
    params = fresh(config)
    weights.save_weights(tmp_path, params, config, dtype=jnp.float32)
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b"))

    def spec(path, x):
        if path[-1].key == "key" and config.key_value_heads > 1:
            return PartitionSpec(None, "a", "b")
        if path[-1].key == "output":
            return PartitionSpec(None, None, None, "b", "a")  # not the first of the axes that the file unites
        return PartitionSpec(None, *["a", "b"][: x.ndim - 1]) if path[-1].key in ("gate", "down") else PartitionSpec()

    shardings = jax.tree_util.tree_map_with_path(lambda path, x: NamedSharding(mesh, spec(path, x)), params)
    loaded = weights.load_weights(tmp_path, config, shardings=shardings)
    equal(loaded, params)
    jax.tree.map(lambda x, sharding: x.sharding.is_equivalent_to(sharding, x.ndim) or pytest.fail(), loaded, shardings)
    assert loaded["layers"]["gate"].addressable_shards[0].data.shape == (2, 8, 24)


def test_large_tensors_are_read_in_blocks(checkpoint, monkeypatch):
    monkeypatch.setattr(weights, "_BLOCK", 1000)
    equal(weights.load_weights(checkpoint, presets.TINY_QWEN3), fresh(presets.TINY_QWEN3))


MEASURE = """
import re, sys, jax
from models import weights
from models.families import read_config
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
tiny, large = sys.argv[1:]
weights.load_weights(tiny, read_config(tiny))  # what compiling costs is no part of the bound
before = peak()
params = weights.load_weights(large, read_config(large))
print(peak() - before, sum(x.nbytes for x in jax.tree.leaves(params)), params["embedding"].nbytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of /proc")
def test_loading_holds_one_and_a_half_tensors_beyond_the_arrays(tmp_path):
    config = replace(presets.TINY_QWEN3, vocab_size=96_000, width=256, feed_forward=2048, layers=6)
    weights.save_weights(tmp_path / "large", fresh(config), config, dtype=jnp.float32)
    small = replace(config, vocab_size=96, feed_forward=8)
    weights.save_weights(tmp_path / "tiny", fresh(small), small, dtype=jnp.float32)
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "tiny"), str(tmp_path / "large")]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    added, arrays, largest = map(int, output.split())
    assert arrays <= added < arrays + 1.5 * largest


# ---------------------------------------------------------------------------------------- errors
def edit(checkpoint, change):
    tensors = load_file(checkpoint / weights.SINGLE)
    change(tensors)
    save_file(tensors, checkpoint / weights.SINGLE)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.pop("model.layers.1.self_attn.q_norm.weight"), r"lacks the tensor model\.layers\.1\.self_attn\.q_norm\.weight$"),
        (
            lambda t: [t.pop(name) for name in list(t) if ".mlp." in name],
            r"lacks the tensor model\.layers\.0\.mlp\.down_proj\.weight and 5 more$",
        ),
        (
            lambda t: t.update({"model.layers.2.mlp.up_proj.weight": np.zeros(1, np.float32)}),
            r"holds the tensor model\.layers\.2\.mlp\.up_proj\.weight, which its config\.json does not account for",
        ),
        (
            lambda t: t.update({"model.norm.weight": np.zeros(31, np.float32)}),
            r"model\.norm\.weight must have the shape \(32,\): got \(31,\)",
        ),
        (
            lambda t: t.update({"model.norm.weight": np.zeros(32, np.int8)}),
            r"model\.norm\.weight must hold floats: got I8",
        ),
    ],
)  # fmt: skip
def test_a_wrong_tensor_is_named(checkpoint, change, message):
    edit(checkpoint, change)
    with pytest.raises(CheckpointError, match=message):
        weights.load_weights(checkpoint, presets.TINY_QWEN3)


def test_what_the_format_stores_needlessly_is_ignored(checkpoint):
    extra = {
        "lm_head.weight": load_file(checkpoint / weights.SINGLE)["model.embed_tokens.weight"],
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(8),
    }
    edit(checkpoint, lambda t: t.update({name: x.astype(np.float32) for name, x in extra.items()}))
    equal(weights.load_weights(checkpoint, presets.TINY_QWEN3), fresh(presets.TINY_QWEN3))


@pytest.mark.parametrize("kept", [0, 4, 100, 5000, -1])
def test_a_truncated_file_is_named(checkpoint, kept):
    file = checkpoint / weights.SINGLE
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=f"{file} cannot be read: "):
        weights.load_weights(checkpoint, presets.TINY_QWEN3)


def test_a_missing_file_and_a_broken_index_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="model.safetensors cannot be read"):
        weights.load_weights(tmp_path, presets.TINY_QWEN3)
    weights.save_weights(tmp_path, fresh(presets.TINY_QWEN3), presets.TINY_QWEN3, max_file_bytes=20_000)
    next(tmp_path.glob("model-00002*")).unlink()
    with pytest.raises(CheckpointError, match="model-00002.* cannot be read"):
        weights.load_weights(tmp_path, presets.TINY_QWEN3)
    for text in ("{", "[]", "[" * 100_000, "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'):
        (tmp_path / weights.INDEX).write_text(text)
        with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json (is|must)"):
            weights.load_weights(tmp_path, presets.TINY_QWEN3)


@pytest.mark.parametrize(
    "place", ["../outside.safetensors", "/tmp/outside.safetensors", "..", "a\0.safetensors", "b.bin"]
)
def test_an_index_names_files_beside_it_alone(checkpoint, place):
    names = load_file(checkpoint / weights.SINGLE)
    save_file(names, checkpoint.parent / "outside.safetensors")
    (checkpoint / weights.INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, place)}))
    with pytest.raises(CheckpointError, match="must lie in a file beside it: got"):
        weights.load_weights(checkpoint, presets.TINY_QWEN3)


def test_the_index_decides_and_no_tensor_stands_in_two_files(checkpoint):
    tensors = load_file(checkpoint / weights.SINGLE)
    norm = "model.norm.weight"
    index = dict.fromkeys(tensors, weights.SINGLE)
    save_file({norm: tensors[norm] + 1}, checkpoint / "other.safetensors")
    for change, message in (
        ({"unused": "other.safetensors"}, f"both hold the tensor {norm}"),
        ({norm: "other.safetensors"}, f"both hold the tensor {norm}"),
        ({"unused": weights.SINGLE}, "lacks the tensor unused, which .* places there"),
    ):
        (checkpoint / weights.INDEX).write_text(json.dumps({"weight_map": index | change}))
        with pytest.raises(CheckpointError, match=message):
            weights.load_weights(checkpoint, presets.TINY_QWEN3)


def test_another_output_projection_beside_a_tied_embedding_is_refused(checkpoint, monkeypatch):
    """The decoder would compute with the embedding, and the checkpoint's author did not."""
    monkeypatch.setattr(weights, "_BLOCK", 1000)  # a few rows at a time
    embedding = load_file(checkpoint / weights.SINGLE)["model.embed_tokens.weight"]
    embedding[-1, -1] += 1
    edit(checkpoint, lambda t: t.update({"lm_head.weight": embedding}))
    with pytest.raises(
        CheckpointError, match="lm_head.weight differs from model.embed_tokens.weight, and config.json ties"
    ):
        weights.load_weights(checkpoint, presets.TINY_QWEN3)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_not_finite_is_named(checkpoint, number):
    def hurt(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = number

    edit(checkpoint, hurt)
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight holds a number that is not finite"):
        weights.load_weights(checkpoint, presets.TINY_QWEN3)


# ---------------------------------------------------------------------------------- transformers
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("max_file_bytes", [10**9, 20_000])
def test_transformers_loads_what_was_saved_with_equal_logits(family, max_file_bytes, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = reference_model(family)
    model.save_pretrained(tmp_path / "in", max_shard_size=max_file_bytes)
    config = read_config(tmp_path / "in")
    params = weights.load_weights(tmp_path / "in", config)
    weights.save_weights(tmp_path / "out", params, config, dtype=jnp.float32, max_file_bytes=max_file_bytes)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="float32").eval()
    tokens = torch.arange(48)[None]
    with torch.no_grad():
        torch.testing.assert_close(again(tokens).logits, model(tokens).logits, rtol=0, atol=1e-5)
