"""The stages of a run: what plays its tasks, what writes variants, and what is kept of both for people to read."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from rich.console import Console

from rods_jax import processes
from rods_jax.config import Config, RolloutConfig, StageConfig, rollout_of
from rods_jax.curriculum import rules_of
from rods_jax.environments.episode import start_episodes
from rods_jax.environments.protocol import Domain, EpisodeBatch, TaskSplits
from rods_jax.environments.workers import Workers
from rods_jax.metrics import MetricWriter
from rods_jax.rollout import Player, Rollouts, collect, summed
from rods_jax.run.authors import rule_based, teller
from rods_jax.run.learner import Learner
from rods_jax.run.playing import training_player
from rods_jax.synthesis.author import Author, Order
from rods_jax.synthesis.courier.dispatch import (
    Dispatch,
    Synthesize,
    at_once,
    beside,
    dispatch_from_json,
    dispatch_to_json,
)
from rods_jax.synthesis.courier.lines import trajectories_from_json, trajectories_to_json
from rods_jax.synthesis.courier.worker import working
from rods_jax.task_files import task_to_json
from rods_jax.types import Json, RolloutBatch, Task


# ------------------------------------------------------------------------------------ the stages
def collector(config: Config, start: Callable[..., EpisodeBatch], learner: Learner, codec, num_tokens: int):
    @functools.cache  # stages with the same lengths share what is compiled
    def player_of(sizes: RolloutConfig) -> Player:
        return training_player(config, learner, codec, sizes, num_tokens)

    def collect_step(
        params, tasks: Sequence[Task], step: int, stage: StageConfig, group_sizes: Sequence[int]
    ) -> Rollouts:
        sizes = rollout_of(config, stage)
        rollouts = collect(
            learner.whole(params),
            processes.share_of(tasks),
            player_of(sizes),
            start=partial(start, rules=rules_of(config, stage)),
            seed=config.seed,
            step=step,
            reward=stage.reward,
            group_sizes=processes.share_of(group_sizes),
        )
        prompts_N, suffixes_NG = rollouts.batch.prompt_lengths_N, rollouts.batch.suffix_lengths_NG
        generated = int(rollouts.batch.action_mask_NGS.sum())
        counted: dict[str, float] = {
            "truncated": rollouts.truncated,
            "generated": generated,
            "read": int(prompts_N.sum() + suffixes_NG.sum()) - generated,
        }
        if learner.flops is not None:
            counted["flops"] = learner.flops(prompts_N, suffixes_NG)
        lengths, parts, reasons = zip(*processes.gather((int(suffixes_NG.max()), counted, rollouts.reasons)))
        batch = trim(rollouts.batch, (*sizes.suffix_sizes, sizes.max_suffix_tokens), max(lengths))
        totals = {name: sum(part[name] for part in parts) for name in counted}
        return rollouts._replace(batch=batch, reasons=summed(reasons), **totals)

    return collect_step


def trim(batch: RolloutBatch[np.ndarray], sizes: Sequence[int], longest: int) -> RolloutBatch[np.ndarray]:
    """Cuts the padded suffixes to the smallest of `sizes` (increasing) that holds `longest` tokens."""
    size = next(size for size in sizes if size >= longest)
    names = ("suffix_tokens_NGS", "action_mask_NGS", "behavior_log_probs_NGS")
    # Copies, not views: a view would hold the whole arrays until the step is settled.
    return batch._replace(**{name: np.ascontiguousarray(getattr(batch, name)[:, :, :size]) for name in names})


@contextlib.contextmanager
def episodes_of(config: Config, domain: Domain) -> Iterator[Callable[..., EpisodeBatch]]:
    """Where episodes live, in this process or in workers: (tasks, rules of the batch if not the run's) -> episodes."""
    rules = rules_of(config)
    if config.rollout.environment_workers:
        with Workers(config.domain, rules, num_workers=config.rollout.environment_workers) as workers:
            yield workers.start
    else:
        yield partial(start_episodes, domain, rules=rules)


@contextlib.contextmanager
def synthesis_of(
    config: Config, domain: Domain, tasks: TaskSplits, author: Author | None, taken: int, console: Console
) -> Iterator[Synthesize]:
    """The rule-based author or, if the config says so, `author`, at once; else that or other processes beside the trainer."""
    if config.synthesis is None:
        yield at_once(rule_based(domain, tasks), config.seed)
        return
    if config.synthesis.at_once:
        assert author is not None  # a config with `at_once` has workers
        yield at_once(partial(author.write, backends=author.backends, attempts=author.attempts), config.seed)
        return
    directory, say = Path(config.run_dir) / "synthesis", teller(console)
    with contextlib.ExitStack() as stack:
        dispatch = stack.enter_context(beside(directory, config.seed, taken=taken, tell=say))
        if author is not None:
            stack.enter_context(working(directory, author, workers=config.synthesis.workers, tell=say))
        yield dispatch


def with_rollouts_where_read(dispatch: Synthesize, config: Config) -> Synthesize:
    """Without their seeds' rollouts the orders stay small: the five stages read none, an author of one's own may."""
    if config.synthesis is not None and config.synthesis.author is not None:
        return dispatch
    return lambda orders, step, known: dispatch([Order(order.seed) for order in orders], step, known)


def heard_by_all(dispatch: Synthesize, orders: Sequence[Order], step: int, known: frozenset[str]) -> list[Dispatch]:
    """What the first process's `dispatch` brings, in every process; that of the others is not called.

    The orders are the same everywhere but for their trajectories: each process has those of its own share of tasks.
    """
    parts = processes.gather([trajectories_to_json(order.trajectories) for order in orders])
    whole = [
        order._replace(trajectories=trajectories_from_json(list(chain(*shares))))
        for order, *shares in zip(orders, *parts, strict=True)
    ]
    records = processes.on_first(lambda: [dispatch_to_json(settled) for settled in dispatch(whole, step, known)])
    return [dispatch_from_json(record) for record in records]


# ---------------------------------------------------------------------------- what is written down
NUM_TOKENS = 1_000  # of a trajectory, that are written down one by one


def shower(write_trajectory: MetricWriter, write_candidate: MetricWriter, decode: Callable[[Sequence[int]], str]):
    """Keeps what one may want to read: a few trajectories every ten steps, and what became of every seed."""

    def show(step: int, rollouts: Rollouts, dispatches: Sequence[Dispatch]) -> None:
        if step % 10 == 1:
            played = [b for b, one in enumerate(rollouts.trajectories) if one.played]
            for b in played[:: max(1, len(played) // 4)]:
                write_trajectory(step, asdict(rollouts.trajectories[b]) | spoken(rollouts.batch, b, decode))
        for seed, dispatched, result in dispatches:
            candidate = result.candidate and task_to_json(result.candidate)
            origin = {"seed": seed.id, "dispatched": dispatched + 1}  # records count steps from 1
            write_candidate(step, origin | asdict(result) | {"candidate": candidate})

    return show


def spoken(batch: RolloutBatch[np.ndarray], b: int, decode: Callable[[Sequence[int]], str]) -> dict[str, Json]:
    """The reward of rollout b = n * G + g, and the policy's first NUM_TOKENS tokens, message by message.

    `tokens` are texts, `log_probs` nats as they were recorded when the tokens were sampled.
    """
    n, g = divmod(b, batch.rewards_NG.shape[1])
    places = np.flatnonzero(batch.action_mask_NGS[n, g])[:NUM_TOKENS]
    # What the policy reads stands between two messages.
    messages = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if places.size else []
    tokens, log_probs = batch.suffix_tokens_NGS[n, g], batch.behavior_log_probs_NGS[n, g]
    return {
        "reward": float(batch.rewards_NG[n, g]),
        "tokens": [[decode([token]) for token in tokens[message].tolist()] for message in messages],
        "log_probs": [[round(one, 4) for one in log_probs[message].tolist()] for message in messages],
    }
