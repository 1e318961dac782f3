"""Weights in and out of the Hugging Face format (safetensors), tensor by tensor.

A stacked parameter [L, ...] is filled in place, one layer at a time.  Only a device's own part is read for it from the
file, and large tensors are read in blocks.  Beside the arrays, the host holds about one tensor.

Left out on purpose: pickled checkpoints (.bin), which run code when they are read; quantised ones.
"""

import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from huggingface_hub import split_state_dict_into_shards_factory
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding
from safetensors import SafetensorError, safe_open

from rods_jax import files
from rods_jax.files import CheckpointError

from .decoder import PROJECTIONS, DecoderConfig
from .families import config_to_json, read_json_file
from .policy import callables

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
GENERATION = "generation_config.json"  # stop tokens and sampling, as servers read them
_BLOCK = 1 << 26  # bytes of a file that are read at a time

_NAMES = {  # parameter -> tensor; {} is the layer
    "embedding": "model.embed_tokens.weight",
    "final_norm": "model.norm.weight",
    "unembedding": "lm_head.weight",
    "attention_norm": "model.layers.{}.input_layernorm.weight",
    "query": "model.layers.{}.self_attn.q_proj.weight",
    "key": "model.layers.{}.self_attn.k_proj.weight",
    "value": "model.layers.{}.self_attn.v_proj.weight",
    "query_norm": "model.layers.{}.self_attn.q_norm.weight",
    "key_norm": "model.layers.{}.self_attn.k_norm.weight",
    "output": "model.layers.{}.self_attn.o_proj.weight",
    "feed_forward_norm": "model.layers.{}.post_attention_layernorm.weight",
    "gate": "model.layers.{}.mlp.gate_proj.weight",
    "up": "model.layers.{}.mlp.up_proj.weight",
    "down": "model.layers.{}.mlp.down_proj.weight",
}


class Slot(NamedTuple):
    """A tensor of a checkpoint, and the parameter (or the layer of one) that it holds."""

    name: str
    path: tuple[str, ...]
    layer: int | None
    shape: tuple[int, ...]  # of the parameter, without the layer axis
    axes: tuple[tuple[int, ...], ...]  # for each axis of the tensor, the parameter's axes that are merged in it

    @property
    def file_shape(self) -> tuple[int, ...]:
        return tuple(math.prod(self.shape[axis] for axis in united) for united in self.axes)


def slots(params: Mapping[str, Any]) -> list[Slot]:
    """Every tensor of nested dicts of parameters (arrays or shapes), adapters under their PEFT names."""
    found = []
    for path, leaf in _flat(params):
        weight, _, adapter = path[-1].partition("_lora_")
        name, layers = _NAMES[weight.removesuffix("_bias")], path[0] == "layers"
        shape = leaf.shape[1:] if layers else leaf.shape
        axes: tuple[tuple[int, ...], ...] = tuple((axis,) for axis in range(len(shape)))
        if weight.endswith("_bias"):
            name, axes = f"{name.removesuffix('weight')}bias", (tuple(range(len(shape))),)
        elif weight in PROJECTIONS:  # the parameter is [*inputs, *outputs], its tensor [outputs, inputs]
            inputs = 1 if adapter == "b" else PROJECTIONS[weight]
            axes = tuple(range(inputs, len(shape))), tuple(range(inputs))
        if adapter:
            name = f"base_model.model.{name.removesuffix('weight')}lora_{adapter.upper()}.weight"
        indices = range(leaf.shape[0]) if layers else (None,)
        found += [Slot(name.format(i), path, i, shape, axes) for i in indices]
    return found


def module_name(weight: str) -> str:
    """What the Hugging Face format calls a projection: "query" is "q_proj"."""
    return _NAMES[weight].split(".")[-2]


# ---------------------------------------------------------------------------------------- reading
def load_weights(
    directory: str | Path, config: DecoderConfig, *, dtype: Any = jnp.float32, shardings: Any = None
) -> dict[str, Any]:
    """The parameters of a checkpoint as `dtype`, sharded like `shardings` (a tree of them; None: on one device).

    Raises CheckpointError naming the file or the tensor that is missing, left over, misshapen, cut short or not finite.
    """
    abstract = jax.eval_shape(callables(replace(config, lora=None))["init"], jax.random.key(0))
    wanted = slots(abstract)
    files = _locate(Path(directory), wanted, config)
    if shardings is None:
        shardings = jax.tree.map(lambda _: SingleDeviceSharding(jax.devices()[0]), abstract)
    sharding_of, arrays = dict(_flat(shardings)), {}
    for slot in wanted:
        sharding = sharding_of[slot.path]
        part = sharding if slot.layer is None else _of_one_layer(sharding)
        read = partial(_read, files[slot.name], slot, dtype=dtype)
        value = jax.make_array_from_callback(slot.shape, part, read)
        if slot.layer is not None:
            if slot.layer == 0:
                shape = config.layers, *slot.shape
                arrays[slot.path] = jax.jit(lambda shape=shape: jnp.zeros(shape, dtype), out_shardings=sharding)()
                write = jax.jit(lambda x, i, one: x.at[i].set(one), donate_argnums=0, out_shardings=sharding)
            value = write(arrays[slot.path], slot.layer, value)
        arrays[slot.path] = jax.block_until_ready(value)  # wait, so that the host holds one tensor at a time
    return jax.tree_util.tree_map_with_path(lambda entry, _: arrays[tuple(key.key for key in entry)], abstract)


def _flat(tree: Any) -> list[tuple[tuple[str, ...], Any]]:
    return [(tuple(key.key for key in entry), x) for entry, x in jax.tree_util.tree_leaves_with_path(tree)]


def _of_one_layer(sharding: Sharding) -> Sharding:
    if isinstance(sharding, NamedSharding):
        return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
    return sharding


def _read(file: Path, slot: Slot, index: tuple[slice, ...], dtype: Any) -> np.ndarray:
    """The part `index` of a parameter, and only that part of the file."""
    spans = [range(size)[one] for size, one in zip(slot.shape, index, strict=True)]
    sizes = [[len(spans[first]), *(slot.shape[axis] for axis in rest)] for first, *rest in slot.axes]
    # Read the range of the first of the merged axes: it is one range of the file. The others are cut at the end.
    steps = [math.prod(rest) for _, *rest in sizes]
    cuts = [slice(spans[axes[0]].start * n, spans[axes[0]].stop * n) for axes, n in zip(slot.axes, steps)]
    values = np.empty([math.prod(size) for size in sizes], dtype)
    rows = max(1, _BLOCK // (4 * math.prod(values.shape[1:])))
    for row in range(0, len(values), rows):
        start, stop = cuts[0].start + row, min(cuts[0].start + row + rows, cuts[0].stop)
        with safe_open(file, "np") as tensors:  # opened for each block: mapped memory would add up
            block = tensors.get_slice(slot.name)[(slice(start, stop), *cuts[1:])]
        if not np.isfinite(block).all():
            raise CheckpointError(f"{file}: {slot.name} holds a number that is not finite")
        values[row : row + rows] = block
    order = [axis for united in slot.axes for axis in united]
    values = values.reshape([n for size in sizes for n in size]).transpose(np.argsort(order))
    firsts = {first for first, *_ in slot.axes}
    return values[tuple(slice(None) if axis in firsts else one for axis, one in enumerate(index))]


def _locate(directory: Path, wanted: Iterable[Slot], config: DecoderConfig) -> dict[str, Path]:
    """The file of each tensor.  CheckpointError: a name, a place, a shape or a dtype is not as wanted."""
    placed = _index(directory)
    files: dict[str, Path] = {}
    shapes, dtypes = {}, {}
    for file in [directory / SINGLE] if placed is None else sorted(set(placed.values())):
        try:
            if not file.is_file():
                raise OSError("it is no file")
            with safe_open(file, "np") as tensors:
                for name in tensors.keys():
                    if name in files:
                        raise CheckpointError(f"{files[name]} and {file} both hold the tensor {name}")
                    tensor = tensors.get_slice(name)
                    files[name], shapes[name], dtypes[name] = file, tuple(tensor.get_shape()), tensor.get_dtype()
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{file} cannot be read: {error}") from error
    for name, file in (placed or {}).items():
        if files.get(name) != file:
            raise CheckpointError(f"{file} lacks the tensor {name}, which {directory / INDEX} places there")
    names = [slot.name for slot in wanted]
    if missing := [name for name in names if name not in files]:
        raise CheckpointError(f"{directory} lacks {_count(missing)}")
    # Two kinds of tensors may be left over: the second copy of a tied embedding, and old rotary frequencies.
    twice = _NAMES["unembedding"] if config.tied_embedding and _NAMES["unembedding"] in files else None
    extra = sorted(files.keys() - set(names) - {twice})
    if extra := [name for name in extra if not name.endswith("rotary_emb.inv_freq")]:
        raise CheckpointError(f"{directory} holds {_count(extra)}, which its config.json does not account for")
    expected = {slot.name: slot.file_shape for slot in wanted}
    if twice:
        expected[twice] = expected[_NAMES["embedding"]]
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise CheckpointError(f"{files[name]}: {name} must have the shape {shape}: got {shapes[name]}")
        if dtypes[name] not in ("F32", "F16", "BF16"):
            raise CheckpointError(f"{files[name]}: {name} must hold floats: got {dtypes[name]}")
    if twice:
        _require_equal(files, _NAMES["embedding"], twice, expected[twice])
    return files


def _index(directory: Path) -> dict[str, Path] | None:
    """Where the index places each tensor; None: there is no index, and one file holds all."""
    path = directory / INDEX
    if not path.exists():
        return None
    placed = read_json_file(path).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise CheckpointError(f"{path} is no index of tensors: its weight_map must be an object that is not empty")
    for name, file in placed.items():
        if not isinstance(file, str) or not re.fullmatch(r"[\w.\- ]+\.safetensors", file):
            raise CheckpointError(f"{path} is no index of tensors: {name} must lie in a file beside it: got {file!r}")
    return {name: directory / file for name, file in placed.items()}


def _require_equal(files: Mapping[str, Path], name: str, other: str, shape: tuple[int, ...]) -> None:
    """CheckpointError: two tensors of one shape differ; a block of each is held at a time."""
    rows = max(1, _BLOCK // (4 * math.prod(shape[1:])))
    for row in range(0, shape[0], rows):
        blocks = []
        for one in (name, other):
            with safe_open(files[one], "np") as tensors:
                blocks.append(tensors.get_slice(one)[row : min(row + rows, shape[0])].astype(np.float32))
        if not np.array_equal(*blocks):
            raise CheckpointError(
                f"{files[other]}: {other} differs from {name}, and config.json ties them (tie_word_embeddings)"
            )


def _count(names: list[str]) -> str:
    return f"the tensor {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")


# ---------------------------------------------------------------------------------------- writing
def save_weights(
    directory: str | Path,
    params: Mapping[str, Any],
    config: DecoderConfig,
    tokenizer: Any = None,
    *,
    dtype: Any = jnp.bfloat16,
    max_file_bytes: int = 5 * 10**9,
    source: str | Path | None = None,
) -> None:
    """Writes a directory that transformers and vLLM load; the host holds one tensor at a time.

    source: a checkpoint's directory; its generation_config.json, if it has one, is copied.
    All processes of a mesh call it; the first one writes.
    FolderError: the directory holds what no interrupted export left.  ValueError: no family has the config's shape.
    """
    directory = Path(directory)
    values = config_to_json(config) | {"torch_dtype": jnp.dtype(dtype).name}
    if tokenizer is not None:
        values |= {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    by_name = {slot.name: slot for slot in slots(params)}
    split = split_state_dict_into_shards_factory(
        by_name,
        get_storage_size=lambda slot: math.prod(slot.shape) * jnp.dtype(dtype).itemsize,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_file_bytes,
    )
    first = jax.process_index() == 0
    if first:
        files.begin(directory)
        if tokenizer is not None:
            tokenizer.save_pretrained(directory)
        if source is not None and (Path(source) / GENERATION).is_file():
            shutil.copyfile(Path(source) / GENERATION, directory / GENERATION)
    for file, names in split.filename_to_tensors.items():
        write_tensors(directory / file, params, [by_name[name] for name in names], dtype)
    if first and split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    # config.json comes last: without it, an unfinished directory is no checkpoint.
    if first:
        (directory / "config.json").write_text(json.dumps(values, indent=2) + "\n", "utf-8")
        files.finish(directory)


def write_tensors(file: Path, params: Mapping[str, Any], some: Sequence[Slot], dtype: Any) -> None:
    """Writes one safetensors file with these tensors of `params`, one by one; all processes of a mesh call it."""
    dtype, arrays, header, end = jnp.dtype(dtype), dict(_flat(params)), {}, 0
    kind = {"float32": "F32", "bfloat16": "BF16"}[dtype.name]
    # The header gives each tensor's place in the file, so it is written before any tensor is fetched.
    for slot in some:
        start, end = end, end + math.prod(slot.shape) * dtype.itemsize
        header[slot.name] = {"dtype": kind, "shape": slot.file_shape, "data_offsets": [start, end]}
    text = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
    text = text.ljust(-(-len(text) // 8) * 8)  # data begin at a multiple of 8 bytes
    with file.open("wb") if jax.process_index() == 0 else open(os.devnull, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for slot in some:
            value = _on_host(arrays[slot.path], slot.layer, dtype)
            order = [axis for united in slot.axes for axis in united]
            out.write(np.ascontiguousarray(value.transpose(order)).view(np.uint8).data)


def _on_host(x: Any, layer: int | None, dtype: Any) -> np.ndarray:
    """An array, or a layer of one, on the host.  Arrays on several processes' devices are gathered by all of them."""
    x = x if layer is None else x[layer]
    x = x.astype(dtype)
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        x = multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x)
