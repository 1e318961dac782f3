"""The queue of generated tasks without a model: how long a variant waits, and what becomes of it.

    python tests/queue_simulation.py                  (from the root, with PYTHONPATH=.)

A task's difficulty and the policy's skill, which rises, give the chance of a turn: 1 / (1 + exp(difficulty - skill)).
Its 16 rollouts are drawn from that; a variant is as difficult as its seed, give or take 0.5.  Seeds are selected by the
kernels and paced by the pool that a run uses.  An author accepts a share of the seeds and answers after some steps.
Left out on purpose: everything that takes a device.
"""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from replay_toy import observe

from rods_jax import replay
from rods_jax.boundary import boundary_score, partition, select_seeds
from rods_jax.config import ReplaySettings
from rods_jax.environments.protocol import STRATA
from rods_jax.types import Task, Turn, World

TASKS, BATCH, ROLLOUTS, TURNS, EPOCHS, QUOTAS = 400, 32, 16, 4, 5, (4, 4, 4, 4)
UNPACED = {"surplus": 1000.0, "max_age": 10**6}  # every seed is sent, and nothing leaves the queue


class Queue(NamedTuple):
    """What a run did with its seeds and variants."""

    sent: int
    written: int
    injected: int
    stale: int
    waiting: int  # at the end
    mean_age: float  # steps between a seed's selection and its variant's injection
    in_band: float  # share of the injected whose chance of a turn lies in [0.25, 0.75] at their injection
    epochs: tuple[int, ...]  # steps of each
    most_sent: int  # seeds of the step that sent most


@jax.jit
def _select(passed_N, total_N, categories_N, eligible_N):
    zones_N = partition(passed_N, total_N)
    return select_seeds(boundary_score(passed_N / total_N), zones_N, categories_N, eligible_N, quotas=QUOTAS)


def simulate(
    settings: ReplaySettings, *, accepted: float, latency: Callable[[random.Random], float], seed: int = 0
) -> Queue:
    """Runs the third stage.  accepted: share of seeds that become variants.  latency: steps until a seed's outcome."""
    rng, draw = np.random.default_rng(seed), random.Random(seed)
    tasks = [Task(f"h{i}", f"s{i}", tuple(STRATA)[i % 4], World((f"C{i}",)), (Turn("u"),)) for i in range(TASKS)]
    difficulty = {task.id: rng.normal(0.6, 1.0) for task in tasks}
    state, step, sent, most, coming, ages, chances, lengths = (
        replay.create(tasks, settings),
        0,
        0,
        0,
        [],
        [],
        [],
        [],
    )
    for epoch in range(EPOCHS):
        state, events = replay.begin_epoch(state, epoch, step)
        ages += events.ages
        chances += [_chance(difficulty[name], step) for name in events.injected]
        batches = replay.epoch_batches(state, seed=seed, epoch=epoch, batch_size=BATCH)
        lengths.append(len(batches))
        for index, batch in enumerate(batches):
            # Roll out, and observe.
            chance_N = np.array([_chance(difficulty[task.id], step) for task in batch])
            passed_N = rng.binomial(ROLLOUTS * TURNS, chance_N).astype(np.int32)
            eligible_N = np.array(replay.eligible(state, [task.id for task in batch], step))
            for task, passed in zip(batch, passed_N.tolist(), strict=True):
                state = observe(state, task.id, passed, ROLLOUTS * TURNS, step)

            # Select seeds, and send as many as are wanted.
            categories_N = np.array([tuple(STRATA).index(task.category) for task in batch])
            seeds = _select(passed_N, np.full(BATCH, ROLLOUTS * TURNS, np.int32), categories_N, eligible_N)
            left = len(batches) - index if epoch + 1 < EPOCHS else 0
            best_first = [batch[i] for i in np.asarray(seeds.indices_k).tolist() if i >= 0]
            chosen = replay.spread(best_first, replay.wanted(state, step, left))
            sent, most = sent + len(chosen), max(most, len(chosen))
            state = replay.mark_seeds(state, [task.id for task in chosen], step)
            coming += [(step + latency(draw), step, task) for task in chosen]

            # Take what has come back.
            back = [entry for entry in coming if entry[0] <= step]
            coming = [entry for entry in coming if entry[0] > step]
            outcomes = []
            for _, since, task in back:
                name = f"{task.id}~{since}"
                difficulty[name] = difficulty[task.id] + rng.normal(0.0, 0.5)
                variant = replace(task, id=name, ancestry=(*task.ancestry, task.id))
                outcomes.append(replay.Outcome(task.id, since, variant if rng.random() < accepted else None))
            state = replay.stage(state, outcomes, epoch, step)
            step += 1
    stale = state.retired_counts[replay.REASONS.index("stale")]
    in_band = float(np.mean([0.25 <= chance <= 0.75 for chance in chances]))
    return Queue(
        sent,
        state.written,
        state.injected,
        stale,
        len(state.staged),
        float(np.mean(ages)),
        in_band,
        tuple(lengths),
        most,
    )


def _chance(difficulty: float, step: int) -> float:
    return 1 / (1 + math.exp(difficulty - 0.012 * step))


AUTHORS = {  # share of seeds that become variants, steps until the outcome: docs/log/synthesis.md has the sources
    "rules, at once": (0.88, lambda rng: 0.0),
    "models, a median of 1 step": (0.60, lambda rng: rng.lognormvariate(0.0, 0.5)),
    "models, a median of 3 steps": (0.60, lambda rng: rng.lognormvariate(math.log(3), 0.5)),
}

if __name__ == "__main__":
    from configs.bfcl_qwen3_4b import CONFIG

    for name, (share, steps) in AUTHORS.items():
        for label, changes in (("unpaced", UNPACED), ("paced", {})):
            found = simulate(replace(CONFIG.replay, **changes), accepted=share, latency=steps)
            print(f"{name}, {label}: {found}")
