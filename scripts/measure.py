"""What every benchmark shares: a process per measurement, taken in turns, and the machine's own limits.

A measuring process is a script that is called with one JSON argument and whose last line is one JSON object
with `seconds` (a list) and `peak_bytes`.  Left out on purpose: clocks other than the wall's; run on a quiet machine.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.decoder import DecoderConfig
from models.policy import callables
from rods_jax.types import Policy

SHAPE = dict(layers=4, width=256, query_heads=4, key_value_heads=2, head_width=64, feed_forward=768)
SAME = 1e-6


# --------------------------------------------------------------------------------------- the parent
def take_turns(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, dict[str, Any]]:
    """Runs A B A B, each in a process of its own: by name, the median of all seconds and what else was measured.

    A process that fails (out of memory, say) is recorded as `error` and not tried again.
    """
    # Whoever asks for more than the machine has fails at once, and takes nobody along: children inherit the limit.
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    resource.setrlimit(resource.RLIMIT_DATA, (memory, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            if "error" not in (found[name] or [{}])[-1]:
                found[name].append(_run(command))
    return {name: _summary(results) for name, results in found.items()}


def _run(command: Sequence[str]) -> dict[str, Any]:
    load = os.getloadavg()[0]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        return {"error": f"exit code {process.returncode}: {process.stderr.strip()[-400:]}", "seconds": []}
    return json.loads(process.stdout.splitlines()[-1]) | {"load_before": load}


def _summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    seconds = [second for result in results for second in result["seconds"]]
    if not seconds:
        return results[-1]
    peak = max(result["peak_bytes"] for result in results if "peak_bytes" in result)
    loads = [result["load_before"] for result in results if "load_before" in result]
    pooled = {"median_seconds": statistics.median(seconds), "seconds": seconds, "peak_bytes": peak}
    return results[-1] | pooled | {"load_before": loads}


def this_module(module: str, request: Mapping[str, Any]) -> list[str]:
    return [sys.executable, "-m", module, "--measure", json.dumps(request)]


def peer(python: str, script: str, request: Mapping[str, Any]) -> list[str]:
    return [python, f"scripts/peers/{script}", json.dumps(request)]


def ratio(results: Mapping[str, Mapping[str, Any]], ours: str, theirs: str, key: str) -> float | None:
    """How many times more the peer needs; None where one of them has no figure."""
    mine, other = results[ours].get(key), results.get(theirs, {}).get(key)
    return other / mine if mine and other else None


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> float | None:
    """Of the first losses, relative; None where one of them has none.  Two sides that differ do not do the same work."""
    if "loss" not in ours or "loss" not in theirs:
        return None
    relative = abs(ours["loss"] / theirs["loss"] - 1)
    if relative > SAME:
        raise SystemExit(f"the first losses differ by {relative:.1e}: {ours['loss']} and {theirs['loss']}")
    return relative


# ---------------------------------------------------------------------------- the measuring process
def measure(work: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Seconds of `work`, after a first call that compiles; the peak resident memory of this process.

    repeats: 0 where a call takes minutes: then the first one counts, compilation and all.
    """

    def once() -> float:
        started = time.perf_counter()
        jax.block_until_ready(work())
        return time.perf_counter() - started

    first = once()
    seconds = [once() for _ in range(repeats)] or [first]
    return {
        "seconds": seconds,
        "compile_seconds": max(0.0, first - min(seconds)),
        "peak_bytes": peak_bytes(),
        "versions": {"jax": jax.__version__},
    }


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def matrix_peak() -> float:
    """FLOP/s of the best of some large float32 matrix products in this process."""
    a = jnp.ones((2048, 2048))
    product = jax.jit(jnp.matmul)
    return 2 * 2048**3 / min(measure(lambda: product(a, a), 8)["seconds"])


def random_policy(vocab_size: int, **fields: Any) -> tuple[Policy, Any]:
    """The benchmarks' decoder and its weights, which are the same in every process."""
    policy = Policy(**callables(DecoderConfig(vocab_size=vocab_size, **SHAPE, **fields)))
    return policy, policy.init(jax.random.key(0))


def save_weights(path: str, vocab_size: int) -> None:
    """Our weights by dotted name, layers stacked, for a peer to arrange as it likes."""
    _, params = random_policy(vocab_size)
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    names = [".".join(str(getattr(key, "key", key)) for key in path) for path, _ in flat]
    np.savez(path, **{name: np.asarray(value) for name, (_, value) in zip(names, flat, strict=True)})
