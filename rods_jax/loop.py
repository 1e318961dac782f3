"""The straight line: tasks -> rollouts -> update with statistics -> seeds -> synthesis -> replay -> tasks.

A `Position` travels round the circle: train state (device), replay state (host), the step, the place in the epoch, and
how many outcomes of synthesis came back.  A checkpoint holds the same.  Every random number comes from (run seed, step,
task, rollout).  The host reads a step's feedback one step later, so that it never makes the device wait.  Synthesis
runs while the device updates, or beside training.  `Stages` holds the callables; scripts wire them.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from rods_jax import replay as pool
from rods_jax.config import Config, StageConfig, UpdateConfig, most_tasks, rollout_of
from rods_jax.curriculum import num_epochs, stage_of, tasks_of
from rods_jax.filtering import Filtered, play_until_full
from rods_jax.grpo import Feedback
from rods_jax.metrics import MetricWriter
from rods_jax.replay import ReplayState
from rods_jax.rollout import Rollouts
from rods_jax.samplers import drawn, group_sizes_of
from rods_jax.successes import Learnt, Replay, Success, as_played, remembered, with_successes
from rods_jax.synthesis.author import orders_of
from rods_jax.synthesis.courier.dispatch import Dispatch, Synthesize
from rods_jax.synthesis.critique import Known, known_contents
from rods_jax.types import RolloutBatch, Standing, Task, TrainState

NUM_FAILURES = 3  # most frequent failures that a step's record keeps


@dataclass(frozen=True)
class Position:
    """All that a run knows between two steps."""

    train_state: TrainState
    replay: ReplayState
    step: int = 0
    epoch: int = 0  # counted over all stages
    place: int = 0  # tasks of the epoch that were played; 0: the epoch has not begun
    outcomes: int = 0  # of synthesis, taken so far; a restart takes none of them twice
    tokens: int = 0  # generated and read by training rollouts so far
    rollouts: int = 0  # of training so far, those of dropped groups too
    successes: Mapping[str, Success] = field(default_factory=dict)  # by task, with `rollout.replay_success`


class Stages(NamedTuple):
    """The callables of the circle, in its order."""

    collect: Callable[
        [Any, Sequence[Task], int, StageConfig, Sequence[int]], Rollouts
    ]  # (..., step, stage, group sizes)
    update: Callable[[TrainState, RolloutBatch[np.ndarray], Standing[np.ndarray]], tuple[TrainState, Feedback]]
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
    played: Filtered
    feedback: Feedback
    began: float  # seconds of the host's clock
    seconds_rollout: float
    events: pool.Events  # of the epoch's start, in its first step
    replays: Sequence[Replay]  # successes of earlier steps that it learns from


def train(
    config: Config,
    strata: Sequence[str],
    seeds: Sequence[Task],
    held_out: Sequence[Task],
    stages: Stages,
    position: Position,
) -> Position:
    """Runs from `position` to the end of the last epoch, or of `config.max_steps`, or until `stages.stop`.

    Returns where it stopped, which is saved.
    """
    known = known_contents(held_out)
    if position.step == 0:
        before = stages.evaluate(position.train_state.params, 0)
        stages.record(0, {"epoch": 0, "tokens_spent": 0, **pool.counts(position.replay), **before})
    while position.epoch < num_epochs(config) and not _ended(config, position):
        position, stage, events = _enter_epoch(config, seeds, stages, position)
        order, pending, epoch = _order(config, position), None, position.epoch
        while position.epoch == epoch:
            began = time.perf_counter()
            played, seconds = _timed(_play, config, stages, position, stage, order)
            # Read the previous step's feedback, and start this step's update; the device computes on its own.
            position, chosen = _observe(position, pending)
            standing = _standing(config, position, played, strata)
            learnt = _to_learn_from(config, stage, position, played)
            state, feedback = stages.update(position.train_state, learnt.batch, standing)
            # Meanwhile write the previous step's variants and its record.
            position = _settle(position, pending, began, chosen, stages, known)
            left = _left(config, position, len(order))
            here = position.step, position.epoch, stage, left
            pending = _Pending(*here, played, feedback, began, seconds, events, learnt.replays)
            events = pool.Events()
            position = _next(_remember(config, position, played), state, played, len(order))
            stop = stages.stop() or _ended(config, position)
            # Before a checkpoint and at an epoch's end, finish this step as well.
            if stop or position.place == 0 or position.step % config.checkpoint_every == 0:
                position, pending = _finish(config, position, pending, stages, known), None
            if stop:
                return position
    return position


# ------------------------------------------------------------------------------------ from place to place
def _enter_epoch(
    config: Config, seeds: Sequence[Task], stages: Stages, position: Position
) -> tuple[Position, StageConfig, pool.Events]:
    """Begins the epoch, unless the run resumes within it; a stage's first epoch renews optimizer and seeds."""
    stage, is_first = stage_of(config, position.epoch)
    if position.place > 0:
        return position, stage, pool.Events()
    state, replay = position.train_state, position.replay
    if is_first:  # the rewards of another stage are others
        position = replace(position, successes={})
        state = stages.renew(state)
        replay = pool.enter_stage(replay, tasks_of(stage, seeds))
    replay, events = pool.begin_epoch(replay, position.epoch, position.step)
    return replace(position, train_state=state, replay=replay), stage, events


def _order(config: Config, position: Position) -> tuple[Task, ...]:
    """All tasks of the epoch, in the order in which they are played."""
    size = config.rollout.tasks_per_step
    return pool.epoch_order(position.replay, seed=config.seed, epoch=position.epoch, batch_size=size)


def _play(config: Config, stages: Stages, position: Position, stage: StageConfig, order: Sequence[Task]) -> Filtered:
    """The epoch's next batch, or one that `rollout.weights` draws; with `rollout.keep`, what it takes to fill it.

    What fills the last step of an epoch are its first tasks again.
    """
    r, params = config.rollout, position.train_state.params
    size_of = group_sizes_of(position.replay, r.group_sizes, group_size=r.group_size, step=position.step)

    def play(some: Sequence[Task]) -> Rollouts:
        sizes = [size_of[task.id] for task in some]
        return _without_user_errors(config.update, stages.collect(params, some, position.step, stage, sizes))

    cap = most_tasks(r)
    if r.weights is None:
        tasks = pool.from_place(order, position.place, min(cap, len(order)))
    else:
        tasks = drawn(position.replay, r.weights, seed=config.seed, step=position.step)
    if r.keep is None:
        batch = tasks[: r.tasks_per_step]
        found = Filtered(batch, play(batch), len(batch), len(batch))
    else:
        found = play_until_full(play, tasks, size=r.tasks_per_step, keep=r.keep, cap=cap)
    return found._replace(spent=sum(size_of[task.id] for task in tasks[: found.played]))


def _standing(config: Config, position: Position, played: Filtered, strata: Sequence[str]) -> Standing[np.ndarray]:
    """What the pool knows of the tasks; if dropped groups count, the share that was kept is the others' weight."""
    standing = pool.standing(position.replay, played.tasks, position.step, strata)
    if not config.update.count_dropped:
        return standing
    return standing._replace(weights_N=standing.weights_N * np.float32(played.kept / played.played))


def _left(config: Config, position: Position, num_tasks: int) -> int:
    """Steps of the epoch from this one on, if each plays one batch; 0 where no epoch follows."""
    left = math.ceil((num_tasks - position.place) / config.rollout.tasks_per_step)
    return left if position.epoch + 1 < num_epochs(config) else 0


def _next(position: Position, state: TrainState, played: Filtered, num_tasks: int) -> Position:
    """After an update: the epoch's next tasks, or the next epoch."""
    place = position.place + played.played
    epoch, place = (position.epoch + 1, 0) if place >= num_tasks else (position.epoch, place)
    rollouts = position.rollouts + played.spent
    return replace(position, train_state=state, step=position.step + 1, epoch=epoch, place=place, rollouts=rollouts)


def _ended(config: Config, position: Position) -> bool:
    """Whether the run stops here, before its last epoch has ended."""
    steps, rollouts = config.max_steps or math.inf, config.max_rollouts or math.inf
    return position.step >= steps or position.rollouts >= rollouts


def _timed(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    started = time.perf_counter()
    return work(*arguments), time.perf_counter() - started


def _finish(config: Config, position: Position, pending: _Pending, stages: Stages, known: Known) -> Position:
    """Reads and settles the step that was just taken, evaluates where that is due, and saves."""
    position, chosen = _observe(position, pending)
    ended = time.perf_counter()
    held = stages.evaluate(position.train_state.params, position.step) if _due(config, position) else {}
    position = _settle(position, pending, ended, chosen, stages, known, held)
    stages.save(position, held)
    return position


def _due(config: Config, position: Position) -> bool:
    """Whether a held-out evaluation is due: after every few epochs, and at the end."""
    ended = position.epoch == num_epochs(config)
    after_epoch = position.place == 0 and (ended or position.epoch % config.evaluation.every_epochs == 0)
    return after_epoch or _ended(config, position)


# ------------------------------------------------------------------------------------ what a step teaches
def _observe(position: Position, pending: _Pending | None) -> tuple[Position, tuple[Task, ...]]:
    """Reads a step's `[N]` statistics and seed indices: the pool's measurements, and the seeds' cooldown."""
    if pending is None:
        return position, ()
    left = pending.left if pending.stage.synthesis else 0
    played = pending.played
    replay, chosen = pool.learn(position.replay, played.tasks, pending.feedback, pending.step, left, played.dropped)
    return replace(position, replay=replay), chosen


def _without_user_errors(update: UpdateConfig, rollouts: Rollouts) -> Rollouts:
    """If the config says so, what users broke is as if it had not been played: the filter does not see it either."""
    if not update.mask_user_errors:
        return rollouts
    batch = rollouts.batch
    fair_NG = np.array([one.blame != "user" for one in rollouts.trajectories]).reshape(batch.valid_NG.shape)
    return rollouts._replace(batch=batch._replace(valid_NG=batch.valid_NG & fair_NG))


def _without_truncated(update: UpdateConfig, rollouts: Rollouts) -> RolloutBatch[np.ndarray]:
    """The batch; if the config says so, without the tokens of truncated rollouts: their rewards still count in the means."""
    batch = rollouts.batch
    if update.mask_truncated:
        whole_NG = np.array([one.truncated is None for one in rollouts.trajectories]).reshape(batch.valid_NG.shape)
        batch = batch._replace(action_mask_NGS=batch.action_mask_NGS & whole_NG[..., None])
    return batch


def _to_learn_from(config: Config, stage: StageConfig, position: Position, played: Filtered) -> Learnt:
    """The batch; if the config says so, with a success in the place of a rollout of each group that all failed."""
    batch = _without_truncated(config.update, played.rollouts)
    if not config.rollout.replay_success:
        return Learnt(batch)
    limits = rollout_of(config, stage)
    sizes = (*limits.suffix_sizes, limits.max_suffix_tokens)
    return with_successes(batch, played.tasks, position.successes, sizes)


def _remember(config: Config, position: Position, played: Filtered) -> Position:
    """If the config says so, the latest success at each task of the pool."""
    if not config.rollout.replay_success:
        return position
    tasks = [item.task for item in position.replay.items]
    return replace(position, successes=remembered(position.successes, played.rollouts.batch, played.tasks, tasks))


def _measured(played: Filtered, feedback: Feedback) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each group's rewards, NaN where too few rollouts are valid; of dropped groups what they measured."""
    dropped = {one.task_id: one for one in played.dropped}
    unmeasured_N, statistics = np.asarray(feedback.total_N) == 0, feedback.statistics
    mean_N, variance_N = (np.where(unmeasured_N, np.nan, x_N) for x_N in (statistics.mean_N, statistics.variance_N))
    for place, task in enumerate(played.tasks):
        if (one := dropped.get(task.id)) is not None:
            mean_N[place], variance_N[place] = one.mean, one.variance
    return mean_N, variance_N


def _settle(
    position: Position,
    pending: _Pending | None,
    ended: float,
    chosen: Sequence[Task],
    stages: Stages,
    known: Known,
    held_out: Mapping[str, float] = {},
) -> Position:
    """Dispatches a step's seeds, stages what came back, and records the step, which ended then by the host's clock."""
    if pending is None:
        return position
    played, rollouts = pending.played, pending.played.rollouts
    orders, contents = orders_of(chosen, rollouts.trajectories), known(pool.all_tasks(position.replay))
    dispatches, seconds = _timed(stages.synthesize, orders, pending.step, contents)
    outcomes = [pool.Outcome(d.seed.id, d.step, d.result.candidate) for d in dispatches]
    replay = pool.stage(position.replay, outcomes, pending.epoch, pending.step)

    feedback = jax.device_get(pending.feedback)
    mean_N, variance_N = _measured(played, feedback)
    results = [dispatch.result for dispatch in dispatches]
    rejections = Counter(rejection.error for result in results for rejection in result.rejections)
    spent = position.tokens + rollouts.generated + rollouts.read
    gone: dict[str, list[str]] = {}  # by reason
    for task_id, reason, *_ in pending.events.retired:
        gone.setdefault(reason, []).append(task_id)
    values = {
        "epoch": pending.epoch,
        "stage": pending.stage.name,
        **feedback.metrics,
        **pool.counts(replay),
        "seeds": len(chosen),
        "candidates": sum(outcome.candidate is not None for outcome in outcomes),
        "rejected": sum(rejections.values()),
        "rejections": dict(rejections),
        "failed_rollouts": rollouts.failed,
        "failures": dict(Counter(rollouts.reasons.get("failures", {})).most_common(NUM_FAILURES)),
        "truncated_rollouts": rollouts.truncated,
        "ended": dict(rollouts.reasons.get("ended", {})),
        "blame": dict(rollouts.reasons.get("blame", {})),
        "tokens_generated": rollouts.generated,
        "tokens_read": rollouts.read,
        "tokens_spent": spent,
        "rollouts_played": played.spent,
        "rollouts_spent": position.rollouts,
        **({} if rollouts.flops is None else {"flops": rollouts.flops}),
        **({"tasks_played": played.played, "tasks_kept": played.kept} if played.kept < played.played else {}),
        "task_ids": [task.id for task in played.tasks],
        "task_mean": mean_N,
        "task_variance": variance_N,
        "seconds_rollout": pending.seconds_rollout,
        "seconds_synthesis": seconds,
        "seconds_step": ended - pending.began,
        **({"entered_ids": list(pending.events.injected), "left_ids": gone} if pending.events != pool.Events() else {}),
        **({"replayed_rollouts": len(pending.replays)} if pending.replays else {}),
        **as_played(pending.replays, feedback.metrics, mean_N, variance_N),
        **held_out,
    }
    stages.record(pending.step + 1, values)
    stages.show(pending.step + 1, rollouts, dispatches)
    return replace(position, replay=replay, outcomes=position.outcomes + len(dispatches), tokens=spent)
