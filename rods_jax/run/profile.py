"""A trace of one step, for xprof and Perfetto."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from rods_jax.grpo import Feedback
from rods_jax.loop import Stages
from rods_jax.rollout import Rollouts
from rods_jax.types import Task, TrainState


def profiled(stages: Stages, at: int, directory: Path, say: Callable[[str], None]) -> Stages:
    """The stages, which write a trace of step `at` into the directory: its rollouts and its update, to their end.

    Steps count from 1, as in metrics.jsonl.  The step computes what it would without; the host waits for its update.
    """
    tracing = False

    def collect(params: Any, tasks: Sequence[Task], step: int, *how: Any) -> Rollouts:
        nonlocal tracing
        if step + 1 == at and not tracing:  # a filter plays several times in a step
            jax.block_until_ready(params)  # the update before is no part of it
            jax.profiler.start_trace(directory)
            tracing = True
        return stages.collect(params, tasks, step, *how)

    def update(state: TrainState, *batch: Any) -> tuple[TrainState, Feedback]:
        nonlocal tracing
        updated = stages.update(state, *batch)
        if tracing:
            jax.block_until_ready(updated)
            jax.profiler.stop_trace()
            tracing = False
            say(
                f"a trace of step {at} is in {directory}: xprof --logdir {directory}, or trace.json.gz at ui.perfetto.dev"
            )
        return updated

    return stages._replace(collect=collect, update=update)
