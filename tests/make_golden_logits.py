"""Makes tests/golden/*.json: logits of transformers' models with the weights of `checkpoint_weights`.

python -m tests.make_golden_logits        (needs torch, which the project itself does not)
"""

import json
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden"
SHAPE = dict(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, attn_implementation="eager",
)  # fmt: skip
SCALED = dict(
    rope_type="llama3", rope_theta=1e4, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=16,
)  # fmt: skip
FAMILIES = {  # name -> (class, what its config adds)
    "qwen3": ("Qwen3", dict(head_dim=16, tie_word_embeddings=True)),
    "qwen2": ("Qwen2", dict(tie_word_embeddings=False)),
    "llama3": ("Llama", dict(tie_word_embeddings=False, rms_norm_eps=1e-5, rope_parameters=SCALED)),
    "llama3_tied": ("Llama", dict(tie_word_embeddings=True, num_key_value_heads=1, rope_parameters=SCALED)),
}


def checkpoint_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Random float32 tensors, the same wherever numpy runs; large enough that attention is far from uniform."""
    rng = np.random.default_rng(0)
    tensors = {}
    for name in sorted(shapes):
        scale, mean = (0.2, 1.0) if "norm" in name else (0.3, 0.0)
        tensors[name] = (mean + scale * rng.standard_normal(shapes[name])).astype(np.float32)
    return tensors


def tokens() -> np.ndarray:
    return np.random.default_rng(1).integers(0, SHAPE["vocab_size"], (2, 40))


def reference_model(family: str):
    """transformers' model of a family with `checkpoint_weights`, in float32."""
    import torch
    import transformers

    kind, changes = FAMILIES[family]
    config = getattr(transformers, f"{kind}Config")(**SHAPE | changes)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval().float()
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}  # a tied one once
    with torch.no_grad():
        for name, value in checkpoint_weights(shapes).items():
            model.get_parameter(name).copy_(torch.from_numpy(value))
    return model


def main() -> None:
    import torch

    GOLDEN.mkdir(exist_ok=True)
    for family in FAMILIES:
        model = reference_model(family)
        with torch.no_grad():
            logits = model(torch.from_numpy(tokens())).logits[:, ::3].numpy()
        record = {
            "config": json.loads(model.config.to_json_string()),
            "shapes": {name: list(parameter.shape) for name, parameter in model.named_parameters()},
            "logits": np.round(logits.astype(np.float64), 6).tolist(),  # of every third position
        }
        (GOLDEN / f"{family}.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
