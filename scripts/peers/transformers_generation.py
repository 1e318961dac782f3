"""Greedy generation of benchmark_generation by transformers: `generate` with its dynamic and with a static cache.

Needs torch and transformers.  Reads one JSON argument, prints one JSON line; the faster of both caches counts.
"""

import json
import resource
import sys
import time

import numpy as np
import torch
import transformers


def main() -> None:
    request = json.loads(sys.argv[1])
    with np.load(request["weights"]) as file:
        model = qwen3(dict(file))
    rng = np.random.default_rng(0)
    prompts = torch.tensor(rng.integers(0, request["vocab"], (request["tasks"], request["prompt"])))
    new = request["generated"]

    def generate(**keywords):
        return model.generate(
            prompts, attention_mask=torch.ones_like(prompts), do_sample=False, min_new_tokens=new, max_new_tokens=new,
            pad_token_id=0, **keywords,
        )  # fmt: skip

    seconds = {}
    for name, keywords in {
        "dynamic": {},
        "static": {"cache_implementation": "static", "disable_compile": True},
    }.items():
        measured = []
        for _ in range(request["repeats"] + 1):
            started = time.perf_counter()
            generate(**keywords)
            measured.append(time.perf_counter() - started)
        seconds[name] = measured[1:]
    best = min(seconds, key=lambda name: sorted(seconds[name])[len(seconds[name]) // 2])
    print(
        json.dumps(
            {
                "seconds": seconds[best],
                "cache": best,
                "by_cache": seconds,
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            }
        )
    )


def qwen3(weights):
    """A Qwen3ForCausalLM with the benchmark's weights; torch's linear layers hold them transposed."""
    layers = {name.removeprefix("layers."): x for name, x in weights.items() if name.startswith("layers.")}
    depth, width, key_value, queries, head = layers["query"].shape
    config = transformers.Qwen3Config(
        vocab_size=len(weights["embedding"]), hidden_size=width, num_hidden_layers=depth,
        num_attention_heads=key_value * queries, num_key_value_heads=key_value, head_dim=head,
        intermediate_size=layers["gate"].shape[-1], rms_norm_eps=1e-6, rope_theta=1e6, tie_word_embeddings=True,
        eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    state = {"model.embed_tokens.weight": weights["embedding"], "model.norm.weight": weights["final_norm"]}
    places = {
        "query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj",
        "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj", "query_norm": "self_attn.q_norm",
        "key_norm": "self_attn.k_norm", "attention_norm": "input_layernorm",
        "feed_forward_norm": "post_attention_layernorm",
    }  # fmt: skip
    for index in range(depth):
        prefix = f"model.layers.{index}."
        for ours, theirs in places.items():
            x = layers[ours][index]
            state[f"{prefix}{theirs}.weight"] = (
                x if x.ndim == 1 else x.reshape(width if ours != "down" else len(x), -1).T
            )
        state[f"{prefix}self_attn.o_proj.weight"] = layers["output"][index].reshape(-1, width).T
    model = transformers.Qwen3ForCausalLM(config).eval()
    missing, unexpected = model.load_state_dict({name: torch.tensor(x) for name, x in state.items()}, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    return model


if __name__ == "__main__":
    main()
