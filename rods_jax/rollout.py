"""Rolls out N tasks G times each: the only code that alternates policy and environment.

The device keeps every episode's cache; the host parses actions, runs the environments in a thread, and sends
back observations in chunks of one fixed width, so that nothing recompiles.  Nobody waits for the slowest: a
segment of decoding ends when most messages have, the device goes on with the others while environments
answer, and a group's slot goes to the next task when its episodes are over.  A row's tokens do not depend on
any of it: its array row, its shapes and its noise are fixed beforehand.  A rollout whose environment breaks
is recorded, masked, and never a crash.

Left out on purpose: several batches of answers at once (an environment is asked by one thread).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from rods_jax.environments.episode import EpisodeBatch, Failure, StartEpisodes
from rods_jax.generation import Generated, Generator, Sampling, rollout_keys
from rods_jax.types import CATEGORIES, Action, Codec, RolloutBatch, Step, Task, Trajectory

# Of the messages under way: with so many ended, a segment of decoding does too. A token costs the same however few
# rows want one, so with environments that answer in milliseconds less than all costs more: 0.75 half as much again.
ENOUGH = 1.0
STEPS = 8  # tokens that are decoded before asking again whether an environment has answered


class Limits(NamedTuple):
    """Sizes of a rollout's arrays, in tokens."""

    prompt: int  # P
    suffix: int  # S, the whole episode after the prompt
    action: int  # one assistant message
    chunk: int  # observations enter the cache this many at a time


class Rollouts(NamedTuple):
    """A batch on its way to the device, and the same rollouts as a human reads them."""

    batch: RolloutBatch
    trajectories: tuple[Trajectory, ...]  # N * G, task by task
    failed: int = 0  # by their environments
    truncated: int = 0  # by a limit


@dataclass
class _Row:
    """Host side of one rollout."""

    tokens: list[int] = field(default_factory=list)
    acted: list[bool] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    turns_passed: list[bool] = field(default_factory=list)  # of the turns that are closed
    message: list[int] = field(default_factory=list)  # being said
    pending: list[int] = field(default_factory=list)  # observed, not yet in the cache
    waits: bool = False  # for its environment
    done: bool = False
    truncated: str | None = None
    failure: str | None = None

    def append(self, tokens: Sequence[int], acted: bool, log_probs: Sequence[float] | None = None) -> None:
        self.tokens += tokens
        self.acted += [acted] * len(tokens)
        self.log_probs += log_probs if log_probs is not None else [0.0] * len(tokens)


class _Said(NamedTuple):
    """A message that has ended, on its way to an environment."""

    action: Action
    text: str
    stopped: bool  # by the policy itself


def collect(
    params: Any,
    tasks: Sequence[Task],
    *,
    start: StartEpisodes,
    codec: Codec,
    generator: Generator,
    group_size: int,
    limits: Limits,
    sampling: Sampling,
    seed: int,
    step: int,
    reward: Callable[[Trajectory], float],
    concurrent_tasks: int | None = None,
) -> Rollouts:
    """Plays every task `group_size` times to the end; noise depends on (seed, step, task, rollout, position) only.

    start: `start_episodes` of a domain, or of worker processes.  limits: `suffix` and `action` are those that
    the generator was built with.  reward: trajectory -> float.  concurrent_tasks: how many are on the device at
    a time; None: all.  The batch calls every task eligible and new; the caller knows better.
    """
    environments = start([task for task in tasks for _ in range(group_size)])
    prompts, lengths_N, rows = _start(tasks, environments, codec, group_size, limits)
    keys_NG = rollout_keys(seed, step, [task.id for task in tasks], group_size)
    # Slot s plays the tasks s, s + slots, ...: which array row a task gets must not depend on who is done first.
    slots = min(concurrent_tasks or len(tasks), len(tasks))
    playing = list(range(slots))
    episodes = generator.start(params, prompts[:slots], lengths_N[:slots], keys_NG[:slots])
    said: dict[int, _Said] = {}  # not yet given to an environment
    asked: tuple[dict[int, _Said], Future] | None = None

    def over(n: int) -> bool:
        return all(row.done for row in rows[n * group_size : (n + 1) * group_size])

    with ThreadPoolExecutor(1) as environment_thread:
        while True:
            while free := [s for s, n in enumerate(playing) if n + slots < len(tasks) and over(n)]:
                for slot in free:
                    playing[slot] = n = playing[slot] + slots
                    task = prompts[n], lengths_N[n], keys_NG[n]
                    episodes = generator.admit(params, episodes, np.int32(slot), *task)
            places = [n * group_size + g for n in playing for g in range(group_size)]
            if said and asked is None:
                actions = {b: one.action for b, one in said.items()}
                asked, said = (said, environment_thread.submit(environments.act, actions)), {}
            active_NG = np.array([not (rows[b].done or rows[b].waits) for b in places]).reshape(slots, group_size)
            if active_NG.any():
                enough = np.int32(math.ceil(ENOUGH * active_NG.sum()))
                steps = np.int32(limits.action if asked is None else STEPS)
                generated, episodes = generator.act(params, episodes, active_NG, sampling, enough, steps)
                said |= _hear(rows, places, generated, codec, limits)
            elif asked is None:
                break
            if asked is not None and (asked[1].done() or not active_NG.any()):
                _answer(rows, asked[0], asked[1].result(), codec, limits)
                asked = None
                episodes = _observe(params, rows, places, episodes, generator, active_NG.shape, limits.chunk)
    trajectories = tuple(
        _trajectory(task, g, rows[n * group_size + g]) for n, task in enumerate(tasks) for g in range(group_size)
    )
    return Rollouts(
        _batch(tasks, prompts, lengths_N, rows, trajectories, limits, reward),
        trajectories,
        failed=sum(t.failure is not None for t in trajectories),
        truncated=sum(t.truncated is not None for t in trajectories),
    )


def _start(tasks: Sequence[Task], environments: EpisodeBatch, codec: Codec, group_size: int, limits: Limits):
    """Prompts, once per task, and N * G rows."""
    prompts = np.zeros((len(tasks), limits.prompt), np.int32)
    lengths_N = np.ones(len(tasks), np.int32)
    rows = []
    for n, task in enumerate(tasks):
        group = environments.tools[n * group_size : (n + 1) * group_size]
        failures = [tools.reason if isinstance(tools, Failure) else None for tools in group]
        if None in failures:
            try:
                tokens = codec.encode_prompt(group[failures.index(None)], task.turns[0].user)
                if len(tokens) > limits.prompt:
                    raise ValueError(
                        f"the prompt has {len(tokens)} tokens, more than the limit of {limits.prompt}"
                    )
                prompts[n, : len(tokens)] = tokens
                lengths_N[n] = len(tokens)
            except Exception as error:  # the world broke, not the policy: this group is recorded and masked
                failures = [_reason(error)] * group_size
        rows += [_Row(done=failure is not None, failure=failure) for failure in failures]
    return prompts, lengths_N, rows


def _hear(rows: Sequence[_Row], places: Sequence[int], generated: Generated, codec: Codec, limits: Limits):
    """Appends a segment's tokens to their rows; returns the messages that have ended, by row."""
    columns = (np.asarray(x).reshape(len(places), *x.shape[2:]).tolist() for x in generated)
    said = {}
    for b, tokens, log_probs, length, ended in zip(places, *columns):
        row = rows[b]
        row.append(tokens[:length], True, log_probs[:length])
        row.message += tokens[:length]
        if ended:
            stopped, text = row.message[-1] in codec.stop_tokens, codec.decode(row.message)
            too_long = Action(error=f"the message is longer than {limits.action} tokens")
            said[b] = _Said(codec.parse(text) if stopped else too_long, text, stopped)
            row.message, row.waits = [], True
    return said


def _answer(rows: Sequence[_Row], said: Mapping[int, _Said], answers, codec: Codec, limits: Limits) -> None:
    """Queues what the environments answered, or ends the episode."""
    for b, feedback in answers.items():
        row, (_, text, stopped) = rows[b], said[b]
        row.waits = False
        if isinstance(feedback, Failure):
            row.done, row.failure = True, feedback.reason
            continue
        try:
            observed = [] if feedback.done else codec.encode_messages(feedback.messages)
        except Exception as error:
            row.done, row.failure = True, _reason(error)
            continue
        row.steps.append(Step(len(row.turns_passed), text, feedback.code, feedback.observations))
        if feedback.passed is not None:
            row.turns_passed.append(feedback.passed)
        row.done = feedback.done
        if row.done:
            continue
        row.pending = ([] if stopped else [codec.stop_token]) + observed
        if len(row.tokens) + len(row.pending) >= limits.suffix:
            row.done, row.truncated, row.pending = True, f"the episode is longer than {limits.suffix} tokens", []


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _observe(params, rows, places: Sequence[int], episodes, generator: Generator, shape, chunk: int):
    """Appends every row's pending tokens to the cache, one chunk of all rows at a time."""
    while any(rows[b].pending for b in places):
        tokens_BT = np.zeros((len(places), chunk), np.int32)
        lengths_B = np.zeros(len(places), np.int32)
        for place, row in enumerate(rows[b] for b in places):
            if part := row.pending[:chunk]:
                row.pending = row.pending[chunk:]
                tokens_BT[place, : len(part)] = part
                lengths_B[place] = len(part)
                row.append(part, False)
        episodes = generator.observe(params, episodes, tokens_BT.reshape(*shape, chunk), lengths_B.reshape(shape))
    return episodes


def _trajectory(task: Task, rollout: int, row: _Row) -> Trajectory:
    unreached = (False,) * (len(task.turns) - len(row.turns_passed))
    passed = (*row.turns_passed, *unreached)
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
        earlier_passed_N=np.zeros(len(tasks), np.float32),
        earlier_total_N=np.zeros(len(tasks), np.float32),
    )


def trim(batch: RolloutBatch, sizes: Sequence[int], longest: int) -> RolloutBatch:
    """Cuts the suffixes' padding to the smallest of `sizes` (increasing) that holds `longest` tokens."""
    size = next(size for size in sizes if size >= longest)
    names = ("suffix_tokens_NGS", "action_mask_NGS", "behavior_log_probs_NGS")
    return batch._replace(**{name: getattr(batch, name)[:, :, :size] for name in names})
