"""How fast the group statistics of 65,536 x 16 rewards are (K1): beside a copy of the array and google-tunix's host code.

    python -m scripts.benchmark_statistics --peer-python /path/to/peer/bin/python

Left out on purpose: the transfer of rewards to the device, which the copy does not pay either.
"""

import json
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from rods_jax.group_statistics import group_statistics
from scripts import measure


@dataclass(frozen=True)
class Options:
    tasks: int = 65_536
    group: int = 16
    peer_python: str | None = None  # interpreter that has google-tunix
    rounds: int = 3  # processes of each side, in turns
    repeats: int = 20  # timed calls in a process
    measure: str | None = None  # set by the benchmark for its own processes


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    if options.measure:
        print(json.dumps(ours(json.loads(options.measure))))
        return
    request = {"tasks": options.tasks, "group": options.group, "repeats": options.repeats}
    commands = {
        "ours": measure.this_module("scripts.benchmark_statistics", request | {"copy": False}),
        "copy": measure.this_module("scripts.benchmark_statistics", request | {"copy": True}),
    }
    if options.peer_python:
        commands["peer"] = measure.peer(options.peer_python, "tunix_statistics.py", request)
    results = measure.take_turns(commands, options.rounds)
    report = {
        "row": "K1",
        "shape": request,
        "results": results,
        "times_faster": measure.ratio(results, "ours", "peer", "median_seconds"),
        "times_a_copy": measure.ratio(results, "copy", "ours", "median_seconds"),
    }
    print(json.dumps(report, indent=2))


def ours(request: dict[str, Any]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    rewards = jnp.asarray(rng.integers(0, 5, (request["tasks"], request["group"])).astype(np.float32) / 4)
    work = jax.jit(lambda x: jnp.copy(x) if request["copy"] else group_statistics(x))
    return measure.measure(lambda: work(rewards), request["repeats"])


if __name__ == "__main__":
    main()
