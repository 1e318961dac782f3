"""What a quickstart step costs beside generation, update and environment: parsing, synthesis, replay, records, checkpoints.

    python -m scripts.benchmark_overhead [--steps 12] [--wait]

Runs the real training with a short cold start and notes when generation, update and environments begin and end;
what a step takes while none of them is under way is overhead.  The host settles a step while the next update runs,
as in every run; with `--wait` it waits for the update first, so that all of its work counts.  Left out on purpose:
steps that compile.
"""

import contextlib
import functools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import tyro
from rich.console import Console

from rods_jax import config as configuration
from rods_jax import grpo
from rods_jax.generation import Generator
from rods_jax.run import playing, stages, training

STAGES = "update", "generation", "environment"
Interval = tuple[float, float]  # seconds


@dataclass(frozen=True)
class Options:
    config: str = "configs/quickstart.py"
    steps: int = 12
    warmup: int = 4  # steps that compile and are not counted
    cold_start_steps: int = 300
    wait: bool = False  # for the update, before the host goes on


class Clock:
    """When each stage was under way."""

    def __init__(self) -> None:
        self.intervals: dict[str, list[Interval]] = {stage: [] for stage in STAGES}
        self._watch = ThreadPoolExecutor(1)

    def timed(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Waits for what `work` gives, and so for its end."""

        @functools.wraps(work)
        def run(*arguments, **keywords):
            began = time.perf_counter()
            found = work(*arguments, **keywords)
            self._note(stage, began, found)
            return found

        return run

    def watched(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """An update, which goes on while the host does. Its state is the next one's to use up: its feedback tells."""

        @functools.wraps(work)
        def run(*arguments, **keywords):
            began = time.perf_counter()
            state, feedback = work(*arguments, **keywords)
            self._watch.submit(self._note, "update", began, feedback)
            return state, feedback

        return run

    def _note(self, stage: str, began: float, found: Any) -> None:
        jax.block_until_ready(found)
        self.intervals[stage].append((began, time.perf_counter()))

    def steps(self) -> list[dict[str, float]]:
        """From one update to the next: seconds, those of each stage beside the ones before it, and those of none."""
        self._watch.shutdown()  # waits for the last update
        sent = [began for began, _ in self.intervals["update"]]
        steps = []
        for began, end in zip(sent, sent[1:]):
            step, inside, busy = {"step": end - began}, [], 0.0
            for stage, found in self.intervals.items():
                inside += [(max(a, began), min(b, end)) for a, b in found if a < end and b > began]
                before, busy = busy, covered(inside)
                step[stage] = busy - before
            steps.append(step | {"overhead": end - began - busy})
        return steps


def covered(intervals: Sequence[Interval]) -> float:
    """Seconds that lie in at least one interval."""
    total, reached = 0.0, float("-inf")
    for began, end in sorted(intervals):
        total += max(0.0, end - max(began, reached))
        reached = max(reached, end)
    return total


def measure(options: Options) -> dict[str, Any]:
    """Trains and takes the times of its steps."""
    clock = Clock()
    make_player, jit_update, start_episodes = playing.player, grpo.jit_update, stages.start_episodes

    def start(*arguments, **keywords):
        batch = clock.timed("environment", start_episodes)(*arguments, **keywords)
        return batch._replace(act=clock.timed("environment", batch.act))

    def player(*arguments, **keywords):
        made = make_player(*arguments, **keywords)
        timed = Generator(*(clock.timed("generation", call) for call in made.generator))
        return made._replace(generator=timed)

    def update(*arguments, **keywords):
        watched = clock.watched(jit_update(*arguments, **keywords))
        return (lambda *inputs: jax.block_until_ready(watched(*inputs))) if options.wait else watched

    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as parts:
        for room, name, part in (
            (playing, "player", player),
            (stages, "start_episodes", start),
            (grpo, "jit_update", update),
        ):
            parts.enter_context(mock.patch.object(room, name, part))
        config = configuration.load_config(options.config, [])
        cold_start = config.cold_start and replace(
            config.cold_start, max_steps=options.cold_start_steps, evaluate_every=options.cold_start_steps
        )
        run_dir = str(Path(directory) / "run")
        steps = options.warmup + options.steps
        config = replace(config, run_dir=run_dir, max_steps=steps, cold_start=cold_start)
        training.train(config, console=Console(stderr=True, quiet=True))
    counted = clock.steps()[options.warmup - 1 :]
    return {
        "row": "overhead",
        "waits_for_the_update": options.wait,
        "median_share": statistics.median(one["overhead"] / one["step"] for one in counted),
        "target": "under 0.02",
        "median_seconds": {
            name: statistics.median(one[name] for one in counted) for name in ("step", *STAGES, "overhead")
        },
        "steps": counted,
    }


if __name__ == "__main__":
    print(json.dumps(measure(tyro.cli(Options, description=__doc__)), indent=2))
