"""A checkpoint's config.json to and from `DecoderConfig`: Qwen3, Qwen2.5 and Llama 3.

Whatever a config asks for that the decoder does not compute is refused by name, never ignored.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rods_jax.files import CheckpointError, require_checkpoint

from .decoder import DecoderConfig, LoraConfig
from .rotary import RopeScaling

# The fields that differ between families, by config.json's model_type.
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": dict(query_key_norm=True, query_key_value_bias=False),
    "qwen2": dict(query_key_norm=False, query_key_value_bias=True),
    "llama": dict(query_key_norm=False, query_key_value_bias=False),
}
_HEAD_DIMS = {"qwen3": 128}  # where config.json does not have the key
_CLASSES = {"qwen3": "Qwen3ForCausalLM", "qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}

# DecoderConfig's fields as config.json calls them.
_KEYS = {
    "vocab_size": "vocab_size",
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "query_heads": "num_attention_heads",
    "key_value_heads": "num_key_value_heads",
    "feed_forward": "intermediate_size",
    "norm_epsilon": "rms_norm_eps",
    "max_positions": "max_position_embeddings",
}
_SCALING = {
    "factor": "factor",
    "low_frequency_factor": "low_freq_factor",
    "high_frequency_factor": "high_freq_factor",
    "original_positions": "original_max_position_embeddings",
}
# The only values of these keys that the decoder computes; a missing key has this value.
_FIXED = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "quantization_config": None,
}


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """The model of a run that starts from a checkpoint's directory."""

    directory: str
    shape: DecoderConfig | None = None  # of a plan made before the directory exists; then its config.json decides
    compute_dtype: str = "bfloat16"  # trained weights are float32 in any case
    keep: tuple[str, ...] = ()  # as DecoderConfig's
    lora: LoraConfig | None = None  # adapters that train; the checkpoint's weights are then frozen, in bfloat16

    def decoder(self, shape: DecoderConfig) -> DecoderConfig:
        """The checkpoint's shape with the run's own settings."""
        return replace(shape, compute_dtype=self.compute_dtype, keep=self.keep, lora=self.lora)


def read_config(directory: str | Path) -> DecoderConfig:
    """The decoder that a checkpoint's config.json describes. Raises CheckpointError."""
    require_checkpoint(Path(directory))
    path = Path(directory) / "config.json"
    values = read_json_file(path)
    try:
        return config_from_json(values)
    except KeyError as error:
        raise CheckpointError(f"{path} lacks the key {error}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def read_json_file(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object. Raises CheckpointError naming it."""
    try:
        values = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path.parent} is no checkpoint: {path.name} cannot be read: {error}") from error
    except RecursionError as error:
        raise CheckpointError(f"{path} is nested too deeply") from error
    except ValueError as error:  # of JSON, of UTF-8, or of a number with thousands of digits
        raise CheckpointError(f"{path} is not JSON: {str(error).partition(';')[0]}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} must hold a JSON object: got {type(values).__name__}")
    return values


def config_from_json(values: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that the values describe.  KeyError: a key is missing.  ValueError: the decoder computes no such value."""
    family = values["model_type"]
    if not isinstance(family, str) or family not in FAMILIES:
        raise ValueError(f"unknown architecture {family!r}: it must be one of {', '.join(FAMILIES)}")
    for key, only in _FIXED.items():
        if values.get(key, only) != only:
            raise ValueError(f"{key} must be {only!r}: got {values[key]!r}")
    layers = values.get("layer_types") or []
    if not isinstance(layers, list) or any(layer != "full_attention" for layer in layers):
        raise ValueError(f"layer_types must be full_attention throughout: got {layers!r}"[:200])
    sizes: dict[str, Any] = {ours: _size(values, key) for ours, key in _KEYS.items() if ours != "norm_epsilon"}
    tied = values.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise ValueError(f"tie_word_embeddings must be true or false: got {tied!r}")
    # Without head_dim, and without a default of its family, the heads divide the model's width among them.
    values = {"head_dim": _HEAD_DIMS.get(family)} | dict(values)
    own_width = values["head_dim"] is not None
    if not own_width and sizes["width"] % sizes["query_heads"]:
        raise ValueError(
            f"hidden_size must be a multiple of num_attention_heads where head_dim is not given: got {sizes}"
        )
    theta, scaling = _rope(values)
    return DecoderConfig(
        **sizes,
        **FAMILIES[family],
        norm_epsilon=_positive(values, _KEYS["norm_epsilon"]),
        head_width=_size(values, "head_dim") if own_width else sizes["width"] // sizes["query_heads"],
        rope_theta=theta,
        rope_scaling=scaling,
        tied_embedding=tied,
    )


def _rope(values: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    """(theta, Llama 3's scaling), from `rope_parameters` (transformers 5), from `rope_theta` and `rope_scaling`
    (before), or from both where they agree."""
    new, old = ({} if values.get(key) is None else values[key] for key in ("rope_parameters", "rope_scaling"))
    for key, found in (("rope_parameters", new), ("rope_scaling", old)):
        if not isinstance(found, dict):
            raise ValueError(f"{key} must be an object: got {found!r}")
    before = {"rope_theta": values.get("rope_theta")} | old
    before = {key: value for key, value in before.items() if value is not None}
    for key in before.keys() & new.keys():
        if before[key] != new[key]:
            raise ValueError(
                f"{key} must be said once: rope_parameters has {new[key]!r}, and beside it {before[key]!r}"
            )
    rope = before | new
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3") or rope.get("partial_rotary_factor", 1) != 1:
        raise ValueError(f"rope scaling must be of type default or llama3: got {rope}")
    theta = _positive(rope, "rope_theta")
    if kind == "default":
        return theta, None
    scaling = {ours: _positive(rope, key) for ours, key in _SCALING.items() if ours != "original_positions"}
    if scaling["low_frequency_factor"] >= scaling["high_frequency_factor"]:
        raise ValueError(f"low_freq_factor must be below high_freq_factor: got {rope}")
    return theta, RopeScaling(**scaling, original_positions=_size(rope, _SCALING["original_positions"]))


def _size(values: Mapping[str, Any], key: str) -> int:
    """A whole number from 1 to 2^31 - 1."""
    value = values[key]
    if type(value) is not int or not 0 < value < 1 << 31:
        raise ValueError(f"{key} must be a whole number above 0 and below 2^31: got {value!r}"[:200])
    return value


def _positive(values: Mapping[str, Any], key: str) -> float:
    """A finite number above 0; an integer stays one."""
    value = values[key]
    if type(value) not in (int, float) or not 0 < value < 1e30:
        raise ValueError(f"{key} must be a finite number above 0: got {value!r}"[:200])
    return value


def config_to_json(config: DecoderConfig) -> dict[str, Any]:
    """The inverse of `config_from_json`, for transformers and vLLM.  ValueError: no family has this shape."""
    shape = dict(query_key_norm=config.query_key_norm, query_key_value_bias=config.query_key_value_bias)
    family = next((name for name, fields in FAMILIES.items() if fields == shape), None)
    if config.max_positions is None:
        raise ValueError("model.max_positions must be set: config.json cannot do without it")
    if family is None:
        raise ValueError(f"no family of {', '.join(FAMILIES)} has this shape: {config}")
    scaling = config.rope_scaling
    return {
        "architectures": [_CLASSES[family]],
        "model_type": family,
        **{key: getattr(config, ours) for ours, key in _KEYS.items()},
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling
        and {"rope_type": "llama3"} | {key: getattr(scaling, ours) for ours, key in _SCALING.items()},
        "tie_word_embeddings": config.tied_embedding,
    }
