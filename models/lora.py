"""Low-rank adapters: which parameters train, and how they leave (merged into the weights, or as PEFT files).

The decoder computes them (`DecoderConfig.lora`).  Adapters and base are two nested dicts like a decoder's parameters.
They share no entry, so a run can train, checkpoint and copy the adapters alone.

Left out on purpose: dropout and rank-stabilised or weight-decomposed variants.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from rods_jax import files

from . import weights
from .decoder import DecoderConfig
from .policy import callables

Params = Mapping[str, Any]


def init(config: DecoderConfig, key: jax.Array) -> Params:
    """Fresh adapters: random A, B = 0, so that the policy starts as the base."""
    return jax.jit(lambda key: split_adapters(callables(config)["init"](key))[0])(key)


def split_adapters(params: Params) -> tuple[Params, Params]:
    """(adapters, base)."""
    adapters = {name: x for name, x in params["layers"].items() if "_lora_" in name}
    base = {name: x for name, x in params["layers"].items() if "_lora_" not in name}
    return {"layers": adapters}, {**params, "layers": base}


def join_adapters(adapters: Params, base: Params) -> Params:
    """The inverse of `split_adapters`: what the decoder's callables take."""
    return {**base, "layers": {**base["layers"], **adapters["layers"]}}


def merge(adapters: Params, base: Params, config: DecoderConfig, dtype: Any = None) -> tuple[Params, DecoderConfig]:
    """W + alpha / rank A B: (parameters, config) of a decoder without adapters that computes the same.

    dtype: of the sum; None: the base's.
    """
    layers, lora = dict(base["layers"]), config.lora
    assert lora is not None
    for name in lora.targets:
        a, b = adapters["layers"][f"{name}_lora_a"], adapters["layers"][f"{name}_lora_b"]
        low = jnp.einsum("lir,lro->lio", a.reshape(a.shape[0], -1, a.shape[-1]), b.reshape(*b.shape[:2], -1))
        weight = layers[name]
        change = low.reshape(weight.shape) * (lora.alpha / lora.rank)
        layers[name] = (weight.astype(jnp.float32) + change).astype(dtype or weight.dtype)
    return {**base, "layers": layers}, replace(config, lora=None)


def save_adapters(directory: str | Path, adapters: Params, config: DecoderConfig, base: str) -> None:
    """Writes adapter_model.safetensors and adapter_config.json as PEFT reads them; `base` names the base's checkpoint.

    All processes of a mesh call it; the first one writes.
    FolderError: the directory holds what no interrupted export left.
    """
    directory, first, lora = Path(directory), jax.process_index() == 0, config.lora
    assert lora is not None
    if first:
        files.begin(directory)
    weights.write_tensors(directory / "adapter_model.safetensors", adapters, weights.slots(adapters), jnp.float32)
    values = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [weights.module_name(name) for name in lora.targets],
    }
    if first:
        (directory / "adapter_config.json").write_text(json.dumps(values, indent=2) + "\n", "utf-8")
        files.finish(directory)
