"""The turns of benchmark_generation by google-tunix's sampler, which prefills the whole conversation every turn.

Needs google-tunix==0.1.7.  Reads one JSON argument, prints one JSON line.  The lengths of all turns compile beforehand.
"""

import json
import resource
import sys
import time
from importlib.metadata import version

import jax
import numpy as np
from tunix.generate.sampler import CacheConfig, Sampler
from tunix_model import load


class Numbers:
    """A tokenizer whose text is the tokens' numbers."""

    def encode(self, text: str, **_) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids, **_) -> str:
        return " ".join(str(int(one)) for one in ids)

    def bos_id(self) -> int:
        return 0

    def eos_id(self) -> int:
        return -1

    def pad_id(self) -> int:
        return 0


def main() -> None:
    r = json.loads(sys.argv[1])
    model = load(r["weights"])
    length = r["prompt"] + r["turns"] * (r["generated"] + r["observed"])
    config = model.config
    cache = CacheConfig(length, config.num_layers, config.num_kv_heads, config.head_dim)
    sampler = Sampler(model, Numbers(), cache)
    rng = np.random.default_rng(0)
    prompts = rng.integers(1, r["vocab"], (r["tasks"], r["prompt"])).repeat(r["group"], axis=0)
    told = rng.integers(1, r["vocab"], (len(prompts), r["observed"]))

    def rollout() -> None:
        texts = [" ".join(map(str, row)) for row in prompts]
        for turn in range(r["turns"]):
            so_far = r["prompt"] + turn * (r["generated"] + r["observed"])
            found = sampler(
                texts, max_generation_steps=r["generated"], max_prompt_length=so_far, temperature=r["temperature"],
                top_p=1.0, seed=turn, eos_tokens=[r["vocab"] + 1],
            )  # fmt: skip
            texts = [
                " ".join([text, *map(str, np.asarray(tokens)[: r["generated"]]), *map(str, row)])
                for text, tokens, row in zip(texts, found.tokens, told, strict=True)
            ]

    seconds = []
    for _ in range(r["repeats"] + 1):
        started = time.perf_counter()
        rollout()
        seconds.append(time.perf_counter() - started)
    found = {
        "seconds": seconds[1:],
        "compile_seconds": max(0.0, seconds[0] - min(seconds[1:])),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {"google-tunix": version("google-tunix"), "jax": jax.__version__},
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
