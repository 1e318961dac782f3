"""The update of benchmark_update by hand in torch: a Qwen3 decoder over whole sequences, one per rollout.

Needs torch alone.  Reads one JSON argument, prints one JSON line.
"""

import json
import resource
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

EPSILON, THETA = 1e-6, 1e6


def main() -> None:
    request = json.loads(sys.argv[1])
    with np.load(request["weights"]) as file:
        weights = {name: torch.nn.Parameter(torch.tensor(file[name])) for name in file}
    with np.load(request["batch"]) as file:
        batch = {name: torch.tensor(file[name]) for name in file}
    n, g, s = batch["suffix"].shape
    p = batch["prompt"].shape[1]
    tokens = torch.cat([batch["prompt"][:, None].expand(n, g, p), batch["suffix"]], -1).reshape(n * g, p + s).long()
    old, reference = (batch[name].reshape(n * g, s) for name in ("old", "reference"))
    advantages = batch["advantages"].reshape(n * g, 1)
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-6, weight_decay=1e-4)

    def step() -> float:
        hidden = forward(weights, tokens)[:, p - 1 : -1]
        logits = hidden @ weights["embedding"].T
        log_probs = -F.cross_entropy(logits.flatten(0, 1), tokens[:, p:].flatten(), reduction="none").view(n * g, s)
        ratio = torch.exp(log_probs - old)
        surrogate = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(0.8, 1.2))
        difference = reference - log_probs
        loss = (surrogate + 0.04 * (torch.exp(difference) - difference - 1)).mean(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    seconds, losses = [], []
    for _ in range(request["repeats"] + 1):
        started = time.perf_counter()
        losses.append(step())
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {
        "seconds": seconds[1:],
        "peak_bytes": peak,
        "loss": losses[0],
        "versions": {"torch": torch.__version__},
    }
    print(json.dumps(found))


def norm(x, scale):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON) * scale


def rotate(x, sin, cos):
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def forward(weights, tokens):
    """Final hidden states `[B,T,D]`."""
    x = weights["embedding"][tokens]
    layers = {name.removeprefix("layers."): value for name, value in weights.items() if name.startswith("layers.")}
    half = layers["query"].shape[-1] // 2
    angle = torch.arange(tokens.shape[1])[:, None] * THETA ** (-torch.arange(half) / half)
    sin, cos = angle.sin(), angle.cos()
    for index in range(len(layers["query"])):
        w = {name: value[index] for name, value in layers.items()}
        d, k, q, e = w["query"].shape
        h = norm(x, w["attention_norm"])
        query = (h @ w["query"].reshape(d, -1)).unflatten(-1, (k * q, e)).transpose(1, 2)
        key, value = ((h @ w[name].reshape(d, -1)).unflatten(-1, (k, e)).transpose(1, 2) for name in ("key", "value"))
        query, key = rotate(norm(query, w["query_norm"]), sin, cos), rotate(norm(key, w["key_norm"]), sin, cos)
        key, value = (y.repeat_interleave(q, 1) for y in (key, value))
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + attended.transpose(1, 2).flatten(2) @ w["output"].reshape(-1, d)
        h = norm(x, w["feed_forward_norm"])
        x = x + (F.silu(h @ w["gate"]) * (h @ w["up"])) @ w["down"]
    return norm(x, weights["final_norm"])


if __name__ == "__main__":
    main()
