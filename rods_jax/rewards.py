"""Rewards of a finished trajectory, for `StageConfig.reward`: progress, outcome, format, and progress under a condition."""

from collections import Counter
from collections.abc import Callable, Sequence

from rods_jax.types import Trajectory

PARSE_ERROR, CALL_FAILED, CALLED, TURN_FAILED, TURN_PASSED = -3, -2, -1, 0, 1  # RODS 1.2
SPOKE = 2  # words to a user who goes on talking: a conversation decides its checks at its end


def progress_reward(trajectory: Trajectory) -> float:
    """Passed checks / all checks; those never decided count as failed (RODS 1.1, where a turn is a check). In [0, 1]."""
    return sum(trajectory.passed) / len(trajectory.passed)


def outcome_reward(trajectory: Trajectory) -> float:
    """1 if every check passed, else 0 (AReaL-SEA, arXiv 2601.22607, section 3).  Seeds are chosen by progress all the same."""
    return float(all(trajectory.passed))


def format_reward(trajectory: Trajectory) -> float:
    """I (F + Q) in [0, 2]: stage 1 of the curriculum (RODS 1.3)."""
    return format_score([step.code for step in trajectory.steps])


def format_score(codes: Sequence[int]) -> float:
    """I = a call was executed; F = share of parsable actions; Q = share of executed actions without exception."""
    counts = Counter(codes)
    executed = counts[CALLED] + counts[CALL_FAILED]
    if not executed:
        return 0.0
    return (len(codes) - counts[PARSE_ERROR]) / len(codes) + counts[CALLED] / executed


def gated_reward(trajectory: Trajectory, outcome: Callable[[Trajectory], float] = progress_reward) -> float:
    """The outcome where every message could be read, else 0: format first (InfTool, arXiv 2512.23611)."""
    readable = all(step.code != PARSE_ERROR for step in trajectory.steps)
    return outcome(trajectory) if readable else 0.0


def efficient_reward(trajectory: Trajectory) -> float:
    """Progress, less where calls were wasted, in [0, 1]: an F1 as in ASTRA (arXiv 2601.21558).

    F1 of recall p and precision p g / c is p 2 g / (g + c): p is the progress, g the calls of the gold, and c the calls
    that were run, at least g, so that a short way is no better than gold's.  A task whose gold makes no call gets p.
    """
    gold, progress = trajectory.gold_calls, progress_reward(trajectory)
    ran = sum(len(step.observations) for step in trajectory.steps if step.code in (CALLED, CALL_FAILED))
    return progress * 2 * gold / (gold + max(gold, ran)) if gold else progress
