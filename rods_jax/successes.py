"""Success replay: where every rollout of a task fails, one of them makes room for the latest success at that task.

    failed group -> one row's tokens, behaviour log-probabilities and reward <- those of the success
                    its checks stay as they were played: pool, zones, seeds and progress are measured without it

A group of equal rewards teaches nothing; with a success among them it does.  The success is of an older policy, so that
its ratios are not 1; the clip bounds them.  One success is kept of each task, in every process and in checkpoints, as
long as the task is in the pool and its stage lasts.

Source: DART (arXiv 2509.23866).  There successes are collected beforehand; here they are the run's own (our choice).
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rods_jax import processes
from rods_jax.records import Form, RecordError, decode, encode
from rods_jax.types import RolloutBatch, Task


class Success(NamedTuple):
    """A rollout that passed every check: its suffix of S tokens, and what it was worth."""

    tokens_S: np.ndarray  # int32
    acted_S: np.ndarray  # bool
    log_probs_S: np.ndarray  # float32, nats, of the policy that played it
    reward: float


class Replay(NamedTuple):
    """A group of which the step learns with a success in it, as it was played without."""

    place: int  # in the step's N tasks
    gain: float  # reward of the success - that of the rollout that it replaces
    mean: float  # of the rewards that were played
    variance: float


class Learnt(NamedTuple):
    """What a step learns from, and how that differs from what was played."""

    batch: RolloutBatch[np.ndarray]  # of this process's share
    replays: tuple[Replay, ...] = ()  # of all processes


def with_successes(
    batch: RolloutBatch[np.ndarray], tasks: Sequence[Task], successes: Mapping[str, Success], sizes: Sequence[int]
) -> Learnt:
    """The batch, with a success in each group that all failed, if one is known that fits in.

    tasks: of all processes.  sizes: tokens that a batch's suffixes may hold, increasing.
    The success takes the place of the first valid rollout with the least reward.
    """
    own = processes.share_of(range(len(tasks)))
    # Which of this process's groups fail, and what success replaces which of their rollouts.
    found = {}
    for n, place in enumerate(own):
        success, valid_G = successes.get(tasks[place].id), batch.valid_NG[n]
        solved_G = batch.passed_NG[n] == batch.checks_N[n]
        failed = valid_G.any() and not solved_G[valid_G].any()
        # A reward that is not finite stays, for the step to be skipped.
        sound = np.isfinite(batch.rewards_NG[n][valid_G]).all()
        if success is not None and failed and sound and len(success.tokens_S) <= sizes[-1]:
            worst = int(np.argmin(np.where(valid_G, batch.rewards_NG[n], np.inf)))
            found[n, worst] = success
    # Every process pads to the same size.
    replays = []
    for (n, g), success in found.items():
        played_g = batch.rewards_NG[n][batch.valid_NG[n]]
        gain = success.reward - float(batch.rewards_NG[n, g])
        replays.append(Replay(own[n], gain, float(played_g.mean()), float(played_g.var())))
    width = max([batch.suffix_tokens_NGS.shape[-1], *(len(success.tokens_S) for success in found.values())])
    widths, parts = zip(*processes.gather([width, replays]))
    size = next((size for size in sizes if size >= max(widths)), max(widths))
    # Put the successes into copies of the arrays that they change.
    names = "suffix_tokens_NGS", "suffix_lengths_NG", "action_mask_NGS", "behavior_log_probs_NGS", "rewards_NG"
    changed = {name: getattr(batch, name).copy() for name in names}
    for name in (name for name in names if name.endswith("_NGS")):
        changed[name] = np.pad(changed[name], ((0, 0), (0, 0), (0, size - changed[name].shape[-1])))
    for (n, g), (tokens, acted, log_probs, reward) in found.items():
        for name, values in zip(names, (tokens, len(tokens), acted, log_probs, reward), strict=True):
            changed[name][n, g] = 0
            changed[name][(n, g, slice(len(tokens))) if name.endswith("_NGS") else (n, g)] = values
    return Learnt(batch._replace(**changed), tuple(Replay(*one) for part in parts for one in part))


def remembered(
    successes: Mapping[str, Success], batch: RolloutBatch[np.ndarray], tasks: Sequence[Task], pool: Sequence[Task]
) -> dict[str, Success]:
    """The latest success of each task of the pool, after a step that played `batch` of this process's share of `tasks`."""
    new = {}
    for n, task in enumerate(processes.share_of(tasks)):
        solved_G = batch.valid_NG[n] & (batch.passed_NG[n] == batch.checks_N[n])
        if solved_G.any():
            g = int(np.argmax(solved_G))
            suffix = slice(int(batch.suffix_lengths_NG[n, g]))
            new[task.id] = Success(
                batch.suffix_tokens_NGS[n, g, suffix].copy(),
                batch.action_mask_NGS[n, g, suffix].copy(),
                batch.behavior_log_probs_NGS[n, g, suffix].copy(),
                float(batch.rewards_NG[n, g]),
            )
    heard = [read(part) for part in processes.gather(written(new))]
    latest = dict(successes)
    for part in heard:
        latest |= part
    return {task.id: latest[task.id] for task in pool if task.id in latest}


def as_played(
    replays: Sequence[Replay], metrics: Mapping[str, Any], mean_N: np.ndarray, variance_N: np.ndarray
) -> dict[str, Any]:
    """What a step's record says of rewards, without the successes that were replayed; mean and variance with them."""
    if not replays:
        return {}
    mean_N, variance_N = mean_N.copy(), variance_N.copy()
    more = sum(int(one.variance == 0) - int(variance_N[one.place] == 0) for one in replays)  # groups without variance
    for place, _, mean, variance in replays:
        if not np.isnan(mean_N[place]):  # too few of the group's rollouts are valid
            mean_N[place], variance_N[place] = mean, variance
    gain = sum(one.gain for one in replays)
    return {
        "task_mean": mean_N,
        "task_variance": variance_N,
        "reward_mean": float(metrics["reward_mean"]) - gain / max(1, int(metrics["valid_rollouts"])),
        "zero_variance": float(metrics["zero_variance"]) + more / len(mean_N),
    }


def written(successes: Mapping[str, Success]) -> dict[str, list]:
    """As plain JSON values; arrays come back bit for bit."""
    return {task_id: encode(success, _FORMS) for task_id, success in successes.items()}


def read(record: Mapping[str, list]) -> dict[str, Success]:
    """Inverse of `written`.  RecordError for what it does not write."""
    return {task_id: decode(Success, one, forms=_FORMS) for task_id, one in record.items()}


# An array as [dtype, base64]: a list of numbers is three times as long, and takes seventy times as long to write and to read.
def _array_written(array: np.ndarray) -> list[str]:
    return [array.dtype.str, base64.b64encode(array.tobytes()).decode()]


def _array_read(value: Any) -> np.ndarray:
    try:
        dtype, text = value
        return np.frombuffer(base64.b64decode(text, validate=True), np.dtype(dtype)).copy()
    except (TypeError, ValueError) as error:
        raise RecordError(f"not an array of a success: {error}") from None


_FORMS = {np.ndarray: Form(_array_written, _array_read)}
