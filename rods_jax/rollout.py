"""Rolls out N tasks G times each: the only code that alternates policy and environment.

The device keeps every episode's cache; the host parses actions, runs the environments, and sends
back observations in chunks of one fixed width, so that nothing recompiles.  A rollout whose
environment breaks is recorded, masked, and never a crash.

Left out on purpose: overlapping environments with decoding, and starting a new episode in the slot
of a finished one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from rods_jax.environments.episode import Episode
from rods_jax.environments.protocol import Domain
from rods_jax.environments.scoring import GoldTrace, gold_trace, turn_passed
from rods_jax.generation import Generator, Sampling, rollout_keys
from rods_jax.types import CATEGORIES, Action, Codec, RolloutBatch, Step, Task, Trajectory


class Limits(NamedTuple):
    """Sizes of a rollout's arrays, in tokens, and of a turn, in attempts."""

    prompt: int  # P
    suffix: int  # S, the whole episode after the prompt
    action: int  # one assistant message
    chunk: int  # observations enter the cache this many at a time
    attempts: int = 5


class Rollouts(NamedTuple):
    """A batch on its way to the device, and the same rollouts as a human reads them."""

    batch: RolloutBatch
    trajectories: tuple[Trajectory, ...]  # N * G, task by task


@dataclass
class _Row:
    """Host side of one rollout."""

    episode: Episode | None
    tokens: list[int] = field(default_factory=list)
    acted: list[bool] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)  # observed, not yet in the cache
    done: bool = False
    truncated: str | None = None
    failure: str | None = None

    def append(self, tokens: Sequence[int], acted: bool, log_probs: Sequence[float] | None = None) -> None:
        self.tokens += tokens
        self.acted += [acted] * len(tokens)
        self.log_probs += log_probs if log_probs is not None else [0.0] * len(tokens)


def collect(
    params: Any,
    tasks: Sequence[Task],
    *,
    domain: Domain,
    codec: Codec,
    generator: Generator,
    group_size: int,
    limits: Limits,
    sampling: Sampling,
    seed: int,
    step: int,
    reward: Callable[[Trajectory], float],
) -> Rollouts:
    """Plays every task `group_size` times to the end; noise depends on (seed, step, task, rollout, position) only.

    limits: `suffix` and `action` are those that the generator was built with.  reward: trajectory -> float.
    The batch calls every task eligible; the caller knows better.
    """
    prompts, lengths_N, rows = _start(tasks, domain, codec, group_size, limits)
    episodes = generator.start(
        params, prompts, lengths_N, rollout_keys(seed, step, [t.id for t in tasks], group_size)
    )
    while any(not row.done for row in rows):
        active = np.array([not row.done for row in rows]).reshape(len(tasks), group_size)
        generated, episodes = generator.act(params, episodes, active, sampling)
        _play(rows, generated, codec, limits)
        episodes = _observe(params, rows, episodes, generator, active.shape, limits.chunk)
    trajectories = tuple(
        _trajectory(task, g, rows[n * group_size + g]) for n, task in enumerate(tasks) for g in range(group_size)
    )
    return Rollouts(_batch(tasks, prompts, lengths_N, rows, trajectories, limits, reward), trajectories)


def _start(tasks, domain, codec, group_size, limits):
    """Prompts, once per task, and N * G rows with a fresh episode each."""
    prompts = np.zeros((len(tasks), limits.prompt), np.int32)
    lengths_N = np.ones(len(tasks), np.int32)
    rows = []
    for n, task in enumerate(tasks):
        group, failure = [], None
        try:
            trace = gold_trace(domain, task)
            group = [_episode(domain, task, trace, limits) for _ in range(group_size)]
            tokens = codec.encode_prompt(group[0].visible_tools, task.turns[0].user)
            if len(tokens) > limits.prompt:
                raise ValueError(f"the prompt has {len(tokens)} tokens, more than the limit of {limits.prompt}")
            prompts[n, : len(tokens)] = tokens
            lengths_N[n] = len(tokens)
        except Exception as error:  # the world broke, not the policy: this group is recorded and masked
            failure = f"{type(error).__name__}: {error}"
        rows += [
            _Row(episode, done=failure is not None, failure=failure) for episode in group or [None] * group_size
        ]
    return prompts, lengths_N, rows


def _episode(domain: Domain, task: Task, trace: GoldTrace, limits: Limits) -> Episode:
    return Episode(domain, task, trace, turn_passed=turn_passed, max_attempts=limits.attempts)


def _play(rows: Sequence[_Row], generated, codec: Codec, limits: Limits) -> None:
    """Gives each active row's action to its environment and queues what comes back."""
    tokens_BA, log_probs_BA, lengths_B = (np.asarray(x).reshape(len(rows), *x.shape[2:]) for x in generated)
    for row, tokens, log_probs, length in zip(rows, tokens_BA.tolist(), log_probs_BA.tolist(), lengths_B.tolist()):
        if row.done:
            continue
        tokens = tokens[:length]
        row.append(tokens, True, log_probs[:length])
        ended = bool(tokens) and tokens[-1] == codec.stop_token
        text = codec.decode(tokens)
        action = codec.parse(text) if ended else Action(error=f"the message is longer than {limits.action} tokens")
        turn = row.episode.turn
        try:
            feedback = row.episode.act(action)
            observed = [] if feedback.done else codec.encode_messages(feedback.messages)
        except Exception as error:
            row.done, row.failure = True, f"{type(error).__name__}: {error}"
            continue
        row.steps.append(Step(turn, text, feedback.code, feedback.observations))
        row.done = feedback.done
        if row.done:
            continue
        row.pending = ([] if ended else [codec.stop_token]) + observed
        if len(row.tokens) + len(row.pending) >= limits.suffix:
            row.done, row.truncated, row.pending = True, f"the episode is longer than {limits.suffix} tokens", []


def _observe(params, rows: Sequence[_Row], episodes, generator: Generator, shape: tuple[int, int], chunk: int):
    """Appends every row's pending tokens to the cache, one chunk of all rows at a time."""
    while any(row.pending for row in rows):
        tokens_BT = np.zeros((len(rows), chunk), np.int32)
        lengths_B = np.zeros(len(rows), np.int32)
        for b, row in enumerate(rows):
            part, row.pending = row.pending[:chunk], row.pending[chunk:]
            tokens_BT[b, : len(part)] = part
            lengths_B[b] = len(part)
            row.append(part, False)
        episodes = generator.observe(params, episodes, tokens_BT.reshape(*shape, chunk), lengths_B.reshape(shape))
    return episodes


def _trajectory(task: Task, rollout: int, row: _Row) -> Trajectory:
    passed = tuple(row.episode.turns_passed) if row.episode else (False,) * len(task.turns)
    return Trajectory(task.id, rollout, passed, tuple(row.steps), row.truncated, row.failure)


def _batch(tasks, prompts, lengths_N, rows, trajectories, limits, reward) -> RolloutBatch:
    shape = (len(tasks), len(rows) // len(tasks))

    def padded(lists, dtype):
        array = np.zeros((len(rows), limits.suffix), dtype)
        for row, values in zip(array, lists):
            row[: len(values)] = values
        return array.reshape(*shape, limits.suffix)

    def per_row(values, dtype):
        return np.array(list(values), dtype).reshape(shape)

    return RolloutBatch(
        prompt_tokens_NP=prompts,
        prompt_lengths_N=lengths_N,
        suffix_tokens_NGS=padded([row.tokens for row in rows], np.int32),
        suffix_lengths_NG=per_row((len(row.tokens) for row in rows), np.int32),
        action_mask_NGS=padded([row.acted for row in rows], bool),
        behavior_log_probs_NGS=padded([row.log_probs for row in rows], np.float32),
        rewards_NG=per_row(map(reward, trajectories), np.float32),
        valid_NG=per_row((row.failure is None for row in rows), bool),
        passed_turns_NG=per_row((sum(t.turns_passed) for t in trajectories), np.int32),
        num_turns_N=np.array([len(task.turns) for task in tasks], np.int32),
        categories_N=np.array([CATEGORIES.index(task.category) for task in tasks], np.int32),
        eligible_N=np.ones(len(tasks), bool),
    )


def trim(batch: RolloutBatch, sizes: Sequence[int]) -> RolloutBatch:
    """Cuts the suffixes' padding to the smallest of `sizes` (increasing) that holds every rollout."""
    longest = batch.suffix_lengths_NG.max()
    size = next(size for size in sizes if size >= longest)
    names = ("suffix_tokens_NGS", "action_mask_NGS", "behavior_log_probs_NGS")
    return batch._replace(**{name: getattr(batch, name)[:, :, :size] for name in names})
