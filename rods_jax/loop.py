"""The straight line: tasks -> rollouts -> update with statistics -> seeds -> synthesis -> replay -> tasks.

A `Position` travels round the circle: train state (device), replay state (host), the step, the place in the epoch, and
how many outcomes of synthesis came back.  A checkpoint holds the same.  Every random number comes from (run seed, step,
task, rollout).  The host reads a step's feedback one step later, so that it never makes the device wait.  Synthesis
runs while the device updates, or beside training.  `Stages` holds the callables; scripts wire them.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from rods_jax import replay as pool
from rods_jax.config import Config, StageConfig
from rods_jax.curriculum import num_epochs, stage_of
from rods_jax.grpo import Feedback
from rods_jax.metrics import MetricWriter
from rods_jax.replay import ReplayState
from rods_jax.rollout import Rollouts
from rods_jax.synthesis.critique import content_hash
from rods_jax.synthesis.dispatch import Dispatch, Synthesize
from rods_jax.types import RolloutBatch, Task, TrainState

NUM_FAILURES = 3  # most frequent failures that a step's record keeps, of this process's own rollouts


@dataclass(frozen=True)
class Position:
    """All that a run knows between two steps."""

    train_state: TrainState
    replay: ReplayState
    step: int = 0
    epoch: int = 0  # counted over all stages
    batch: int = 0  # next batch of the epoch; 0: the epoch has not begun
    outcomes: int = 0  # of synthesis, taken so far; a restart takes none of them twice


class Stages(NamedTuple):
    """The callables of the circle, in its order."""

    collect: Callable[[Any, Sequence[Task], int, StageConfig], Rollouts]  # (params, tasks, step, stage)
    update: Callable[[TrainState, RolloutBatch[np.ndarray]], tuple[TrainState, Feedback]]
    synthesize: Synthesize
    renew: Callable[[TrainState], TrainState]  # at a stage's start: fresh optimizer, reference = policy
    evaluate: Callable[[Any, int], Mapping[str, float]]  # (params, step) -> held-out metrics
    record: MetricWriter
    show: Callable[[int, Rollouts, Sequence[Dispatch]], None]  # what a human may want to read
    save: Callable[[Position, Mapping[str, float]], None]  # (position, held-out metrics, if any were measured)
    stop: Callable[[], bool]  # asked after every step; True: save, and come back


class _Pending(NamedTuple):
    """A step whose feedback is still on the device."""

    step: int
    epoch: int
    stage: StageConfig
    left: int  # steps of the epoch from this one on; 0 in the last epoch, after which no variant is played
    tasks: tuple[Task, ...]
    rollouts: Rollouts
    feedback: Feedback
    seconds_rollout: float


def train(
    config: Config, seeds: Sequence[Task], held_out: Sequence[Task], stages: Stages, position: Position
) -> Position:
    """Runs from `position` to the end of the last epoch, or of `config.max_steps`, or until `stages.stop`.

    Returns where it stopped, which is saved.
    """
    known = _known_contents(held_out)
    state, replay, step = position.train_state, position.replay, position.step
    first_batch, outcomes = position.batch, position.outcomes
    if step == 0:
        stages.record(0, {"epoch": 0, **pool.counts(replay), **stages.evaluate(state.params, 0)})

    for epoch in range(position.epoch, num_epochs(config)):
        stage, is_first = stage_of(config, epoch)
        # Begin the epoch, unless the run resumes within it; a stage's first epoch renews optimizer and seeds.
        if first_batch == 0:
            if is_first:
                state = stages.renew(state)
                replay = pool.enter_stage(replay, [task for task in seeds if task.category in stage.categories])
            replay, _ = pool.begin_epoch(replay, epoch, step)
        batches = pool.epoch_batches(replay, seed=config.seed, epoch=epoch, batch_size=config.rollout.tasks_per_step)
        pending = None
        for index in range(first_batch, len(batches)):
            started = time.perf_counter()
            rollouts = stages.collect(state.params, batches[index], step, stage)
            seconds = time.perf_counter() - started
            # Read the previous step's feedback, and start this step's update; the device computes on its own.
            replay, chosen = _observe(replay, pending)
            batch = _to_learn_from(rollouts) if config.update.mask_truncated else rollouts.batch
            batch = _with_history(batch, replay, batches[index], step)
            state, feedback = stages.update(state, batch)
            # Meanwhile write the previous step's variants and its record.
            replay, taken = _settle(replay, pending, chosen, stages, known)
            outcomes += taken
            left = len(batches) - index if epoch + 1 < num_epochs(config) else 0
            pending = _Pending(step, epoch, stage, left, batches[index], rollouts, feedback, seconds)
            step += 1
            last = index + 1 == len(batches)
            final = step == config.max_steps
            stop = stages.stop() or final
            # Before a checkpoint and at an epoch's end, finish this step as well.
            if last or stop or step % config.checkpoint_every == 0:
                replay, chosen = _observe(replay, pending)
                held = stages.evaluate(state.params, step) if _due(config, epoch, last, final) else {}
                replay, taken = _settle(replay, pending, chosen, stages, known, held)
                outcomes += taken
                pending = None
                place = (epoch + 1, 0) if last else (epoch, index + 1)
                position = Position(state, replay, step, *place, outcomes)
                stages.save(position, held)
            if stop:
                return position
        first_batch = 0
    return position


def _due(config: Config, epoch: int, last: bool, final: bool) -> bool:
    """Whether a held-out evaluation is due: every few epochs, and at the end."""
    ended = epoch + 1 == num_epochs(config)
    return final or last and (ended or (epoch + 1) % config.evaluation.every_epochs == 0)


def _observe(replay: ReplayState, pending: _Pending | None) -> tuple[ReplayState, tuple[Task, ...]]:
    """Reads a step's `[N]` statistics and seed indices: the pool's measurements, and the seeds' cooldown."""
    if pending is None:
        return replay, ()
    tasks, step = pending.tasks, pending.step
    passed_N, total_N, seeds = jax.device_get(
        (pending.feedback.passed_turns_N, pending.feedback.total_turns_N, pending.feedback.seeds)
    )
    for task, passed, total in zip(tasks, passed_N.tolist(), total_N.tolist(), strict=True):
        if total:
            replay = pool.observe(replay, task.id, passed, total, step)
    best_first = [tasks[index] for index in seeds.indices_k.tolist() if index >= 0]
    count = pool.wanted(replay, step, pending.left) if pending.stage.synthesis else 0
    chosen = pool.spread(best_first, count)
    for task in chosen:
        replay = pool.mark_seed(replay, task.id, step)
    return replay, chosen


def _known_contents(held_out: Sequence[Task]) -> Callable[[ReplayState], frozenset[str]]:
    """Content hashes that no candidate may repeat: held-out tasks, pool, queue.  Each id is hashed once."""
    avoid = frozenset(map(content_hash, held_out))
    hashes: dict[str, str] = {}

    def known(replay: ReplayState) -> frozenset[str]:
        tasks = pool.all_tasks(replay)
        hashes.update((task.id, content_hash(task)) for task in tasks if task.id not in hashes)
        return avoid | {hashes[task.id] for task in tasks}

    return known


def _to_learn_from(rollouts: Rollouts) -> RolloutBatch[np.ndarray]:
    """The batch without the tokens of truncated rollouts; their rewards stay in their groups' statistics."""
    batch = rollouts.batch
    whole_NG = np.array([one.truncated is None for one in rollouts.trajectories]).reshape(batch.valid_NG.shape)
    return batch._replace(action_mask_NGS=batch.action_mask_NGS & whole_NG[..., None])


def _with_history(
    batch: RolloutBatch[np.ndarray], replay: ReplayState, tasks: Sequence[Task], step: int
) -> RolloutBatch[np.ndarray]:
    """The batch with what the pool knows of its tasks: which may be seeds, and what was measured before."""
    ids = [task.id for task in tasks]
    passed, total = zip(*(pool.earlier(replay, task_id, step) for task_id in ids))
    return batch._replace(
        eligible_N=np.array(pool.eligible(replay, ids, step)),
        earlier_passed_N=np.array(passed, np.float32),
        earlier_total_N=np.array(total, np.float32),
    )


def _settle(
    replay: ReplayState,
    pending: _Pending | None,
    chosen: Sequence[Task],
    stages: Stages,
    known: Callable[[ReplayState], frozenset[str]],
    held_out: Mapping[str, float] = {},
) -> tuple[ReplayState, int]:
    """Dispatches a step's seeds, stages what came back, and records the step; also returns how many came back."""
    if pending is None:
        return replay, 0
    started = time.perf_counter()
    dispatches = stages.synthesize(chosen, pending.step, known(replay))
    outcomes = [pool.Outcome(d.seed.id, d.step, d.result.candidate) for d in dispatches]
    replay = pool.stage(replay, outcomes, pending.epoch)
    seconds = time.perf_counter() - started

    feedback = jax.device_get(pending.feedback)
    results = [dispatch.result for dispatch in dispatches]
    rejections = Counter(rejection.error for result in results for rejection in result.rejections)
    failures = Counter(one.failure for one in pending.rollouts.trajectories if one.failure is not None)
    values = {
        "epoch": pending.epoch,
        "stage": pending.stage.name,
        **feedback.metrics,
        **pool.counts(replay),
        "seeds": len(chosen),
        "candidates": sum(outcome.candidate is not None for outcome in outcomes),
        "rejected": sum(rejections.values()),
        "rejections": dict(rejections),
        "failed_rollouts": pending.rollouts.failed,
        "failures": dict(failures.most_common(NUM_FAILURES)),
        "truncated_rollouts": pending.rollouts.truncated,
        "task_ids": [task.id for task in pending.tasks],
        "task_mean": feedback.statistics.mean_N,
        "task_variance": feedback.statistics.variance_N,
        "seconds_rollout": pending.seconds_rollout,
        "seconds_synthesis": seconds,
        **held_out,
    }
    stages.record(pending.step + 1, values)
    stages.show(pending.step + 1, pending.rollouts, dispatches)
    return replay, len(dispatches)
