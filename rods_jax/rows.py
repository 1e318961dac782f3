"""The host side of rollouts: a row that grows token by token, and finished rows as trajectories and as one batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from rods_jax.types import Line, RolloutBatch, Step, Task, Trajectory


@dataclass
class Row:
    """Host side of one rollout."""

    num_checks: int  # that its world decides
    tokens: list[int] = field(default_factory=list)
    acted: list[bool] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    passed: list[bool] = field(default_factory=list)  # the checks that are decided
    turn: int = 0  # user messages after the first
    message: list[int] = field(default_factory=list)  # tokens of the message under way
    pending: list[int] = field(default_factory=list)  # tokens of an answer that are not yet in the cache
    played: bool = True  # False: its group is smaller
    waits: bool = False  # for its environment
    done: bool = False
    truncated: str | None = None
    failure: str | None = None
    ended: str = ""
    blame: str = ""
    lines: tuple[Line, ...] = ()  # of its conversation

    @property
    def speaks(self) -> bool:
        return not (self.done or self.waits or self.pending)

    def append(self, tokens: Sequence[int], acted: bool, log_probs: Sequence[float] | None = None) -> None:
        self.tokens += tokens
        self.acted += [acted] * len(tokens)
        self.log_probs += log_probs if log_probs is not None else [0.0] * len(tokens)


def to_trajectory(task: Task, rollout: int, row: Row) -> Trajectory:
    """A rollout that is over, as a human reads it."""
    passed = (*row.passed, *[False] * (row.num_checks - len(row.passed)))[: row.num_checks]  # undecided ones too
    how = row.truncated, row.failure, row.ended, row.blame, row.lines
    gold = sum(len(turn.gold) for turn in task.turns)
    return Trajectory(task.id, rollout, passed, tuple(row.steps), *how, gold, row.played)


def to_batch(
    prompts_NP: np.ndarray,
    lengths_N: np.ndarray,
    rows: Sequence[Row],
    trajectories: Sequence[Trajectory],
    limit: int,
    reward: Callable[[Trajectory], float],
) -> RolloutBatch[np.ndarray]:
    """N * G rollouts that are over, as arrays whose suffixes hold `limit` tokens."""
    shape = (len(lengths_N), len(rows) // len(lengths_N))

    def padded(lists, dtype):
        array = np.zeros((len(rows), limit), dtype)
        for row, values in zip(array, lists):
            row[: len(values)] = values
        return array.reshape(*shape, limit)

    def per_row(values, dtype):
        return np.array(list(values), dtype).reshape(shape)

    return RolloutBatch(
        prompt_tokens_NP=prompts_NP,
        prompt_lengths_N=lengths_N,
        suffix_tokens_NGS=padded([row.tokens for row in rows], np.int32),
        suffix_lengths_NG=per_row((len(row.tokens) for row in rows), np.int32),
        action_mask_NGS=padded([row.acted for row in rows], bool),
        behavior_log_probs_NGS=padded([row.log_probs for row in rows], np.float32),
        rewards_NG=per_row(map(reward, trajectories), np.float32),
        valid_NG=per_row((row.played and row.failure is None for row in rows), bool),
        passed_NG=per_row((sum(t.passed) for t in trajectories), np.int32),
        checks_N=per_row((row.num_checks for row in rows), np.int32)[:, 0],
    )
