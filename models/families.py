"""A checkpoint's config.json to and from `DecoderConfig`: Qwen3, Qwen2.5 and Llama 3.

Whatever a config asks for that the decoder does not compute is refused by name, never ignored.
Left out on purpose: generation settings, which belong to the run.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.decoder import DecoderConfig, LoraConfig
from models.rotary import RopeScaling

# What sets a family apart; Hugging Face's name of it is config.json's model_type.
FAMILIES = {
    "qwen3": dict(query_key_norm=True, query_key_value_bias=False),
    "qwen2": dict(query_key_norm=False, query_key_value_bias=True),
    "llama": dict(query_key_norm=False, query_key_value_bias=False),
}
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
    shape: DecoderConfig | None = None  # its own config.json decides; this serves scripts.plan before it is there
    compute_dtype: str = "bfloat16"  # what trains is float32 whatever this is
    keep: tuple[str, ...] = ()  # as DecoderConfig's
    lora: LoraConfig | None = None  # these train, and the checkpoint's weights stay, in bfloat16

    def decoder(self, shape: DecoderConfig) -> DecoderConfig:
        """The shape with what the run asks for."""
        return replace(shape, compute_dtype=self.compute_dtype, keep=self.keep, lora=self.lora)


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, in one sentence that names the file and the key or tensor."""


def read_config(directory: str | Path) -> DecoderConfig:
    """The decoder that a checkpoint's config.json describes. Raises CheckpointError."""
    path = Path(directory) / "config.json"
    try:
        values = json.loads(path.read_text("utf-8"))
        return from_json(values)
    except OSError as error:
        raise CheckpointError(f"{directory} is no checkpoint: {error}") from error
    except KeyError as error:
        raise CheckpointError(f"{path} lacks the key {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def from_json(values: Mapping[str, Any]) -> DecoderConfig:
    """Raises KeyError (a key is missing) or ValueError (the decoder does not compute this)."""
    family = values["model_type"]
    if family not in FAMILIES:
        raise ValueError(f"unknown architecture {family!r}: it must be one of {', '.join(FAMILIES)}")
    for key, only in _FIXED.items():
        if values.get(key, only) != only:
            raise ValueError(f"{key} must be {only!r}: got {values[key]!r}")
    rope = values.get("rope_parameters") or {"rope_theta": values.get("rope_theta")} | (
        values.get("rope_scaling") or {}
    )
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3") or rope.get("partial_rotary_factor", 1) != 1:
        raise ValueError(f"rope scaling must be of type default or llama3: got {rope}")
    if not rope.get("rope_theta"):
        raise KeyError("rope_theta")
    for key in _KEYS.values():
        if not isinstance(values[key], (int, float)):
            raise ValueError(f"{key} must be a number: got {values[key]!r}")
    scaling = RopeScaling(**{ours: rope[key] for ours, key in _SCALING.items()}) if kind == "llama3" else None
    return DecoderConfig(
        **{ours: values[key] for ours, key in _KEYS.items()},
        **FAMILIES[family],
        head_width=values.get("head_dim") or values["hidden_size"] // values["num_attention_heads"],
        rope_theta=rope["rope_theta"],
        rope_scaling=scaling,
        tied_embedding=values.get("tie_word_embeddings", False),
    )


def to_json(config: DecoderConfig) -> dict[str, Any]:
    """The inverse, as transformers and vLLM read it. Raises ValueError where no family has this shape."""
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
