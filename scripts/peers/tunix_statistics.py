"""Advantages of K1 by google-tunix, which computes them on the host.  One JSON argument in, one JSON line out."""

import json
import resource
import sys
import time
from importlib.metadata import version

import numpy as np
from tunix.rl import algo_core


def main() -> None:
    request = json.loads(sys.argv[1])
    rng = np.random.default_rng(0)
    rewards = rng.integers(0, 5, (request["tasks"], request["group"])).astype(np.float32).ravel() / 4
    seconds = []
    for _ in range(request["repeats"] + 1):
        started = time.perf_counter()
        np.asarray(algo_core.compute_advantages(rewards, request["group"]))
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    versions = {"google-tunix": version("google-tunix")}
    print(json.dumps({"seconds": seconds[1:], "peak_bytes": peak, "versions": versions}))


if __name__ == "__main__":
    main()
