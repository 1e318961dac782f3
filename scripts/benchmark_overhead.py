"""What a quickstart step costs beside generation, update and environment: parsing, synthesis, replay, records, checkpoints.

    python -m scripts.benchmark_overhead [--steps 12]

Runs the real training with a short cold start and clocks on its generator, update and environments, each of which
is waited for; what a step takes beyond them is overhead.  Left out on purpose: steps that compile.
"""

import functools
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import tyro
from rich.console import Console

from rods_jax import config as configuration
from rods_jax import grpo, rollout
from rods_jax.generation import Generator
from scripts import train


@dataclass(frozen=True)
class Options:
    config: str = "configs/quickstart.py"
    steps: int = 12
    warmup: int = 4  # steps that compile and are not counted
    cold_start_steps: int = 300


class Clock:
    """Seconds by stage since the last update; one entry a step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self._now: dict[str, float] = defaultdict(float)
        self._began = time.perf_counter()

    def timed(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(work)
        def run(*arguments, **keywords):
            started = time.perf_counter()
            found = jax.block_until_ready(work(*arguments, **keywords))
            self._now[stage] += time.perf_counter() - started
            if stage == "update":
                self._now["step"] = time.perf_counter() - self._began
                self.steps.append(dict(self._now))
                self._now, self._began = defaultdict(float), time.perf_counter()
            return found

        return run


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    clock = Clock()
    rollout.ENOUGH = 1.0  # generation and environments take turns, so that no second counts twice
    make_generator, jit_update, start_episodes = train.generator, grpo.jit_update, train.start_episodes

    def start(*arguments, **keywords):
        batch = clock.timed("environment", start_episodes)(*arguments, **keywords)
        return batch._replace(act=clock.timed("environment", batch.act))

    def generator(*arguments, **keywords):
        return Generator(*(clock.timed("generation", call) for call in make_generator(*arguments, **keywords)))

    train.generator, train.start_episodes = generator, start
    grpo.jit_update = lambda *arguments, **how: clock.timed("update", jit_update(*arguments, **how))
    with tempfile.TemporaryDirectory() as directory:
        config = configuration.load_config(options.config, [])
        cold_start = config.cold_start and replace(
            config.cold_start, max_steps=options.cold_start_steps, evaluate_every=options.cold_start_steps
        )
        run_dir = str(Path(directory) / "run")
        steps = options.warmup + options.steps
        config = replace(config, run_dir=run_dir, max_steps=steps, cold_start=cold_start)
        train.run(config, resume=False, console=Console(stderr=True, quiet=True))
    counted = clock.steps[options.warmup :]
    shares = [1 - (one["generation"] + one["update"] + one["environment"]) / one["step"] for one in counted]
    report = {
        "row": "overhead",
        "median_share": statistics.median(shares),
        "target": "under 0.02",
        "median_seconds": {
            stage: statistics.median(one[stage] for one in counted)
            for stage in ("step", "generation", "update", "environment")
        },
        "steps": counted,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
