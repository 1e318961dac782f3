"""google-tunix's Qwen3 with the benchmarks' weights."""

import numpy as np
from flax import nnx
from tunix.models.qwen3 import model as qwen3


def load(path: str, remat: qwen3.RematConfig = qwen3.RematConfig.NONE):
    """A tunix Qwen3 whose parameters are those of the file."""
    with np.load(path) as file:
        weights = dict(file)
    layers = {name.removeprefix("layers."): x for name, x in weights.items() if name.startswith("layers.")}
    depth, width, key_value, queries, head = layers["query"].shape
    config = qwen3.ModelConfig(
        num_layers=depth, vocab_size=len(weights["embedding"]), embed_dim=width, hidden_dim=layers["gate"].shape[-1],
        num_heads=key_value * queries, head_dim=head, num_kv_heads=key_value, rope_theta=1_000_000, norm_eps=1e-6,
        use_tied_embedding=True, remat_config=remat,
    )  # fmt: skip
    model = qwen3.Qwen3(config, rngs=nnx.Rngs(0))
    put(model.embedder.input_embedding, weights["embedding"])
    put(model.final_norm.w, weights["final_norm"])
    for index, layer in enumerate(model.layers):
        one = {name: x[index] for name, x in layers.items()}
        put(layer.attn.q_proj.w, one["query"].reshape(width, -1, head))
        put(layer.attn.k_proj.w, one["key"])
        put(layer.attn.v_proj.w, one["value"])
        put(layer.attn.o_proj.w, one["output"].reshape(-1, head, width))
        put(layer.attn.q_norm.w, one["query_norm"])
        put(layer.attn.k_norm.w, one["key_norm"])
        put(layer.input_layernorm.w, one["attention_norm"])
        put(layer.post_attention_layernorm.w, one["feed_forward_norm"])
        put(layer.mlp.gate_proj.kernel, one["gate"])
        put(layer.mlp.up_proj.kernel, one["up"])
        put(layer.mlp.down_proj.kernel, one["down"])
    return model


def put(parameter, value):
    assert parameter.shape == value.shape, (parameter.shape, value.shape)
    parameter.value = np.asarray(value, np.float32)
