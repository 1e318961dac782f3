"""Rewards of a finished trajectory: the progress, outcome and format rewards, and their terms."""

from collections import Counter
from collections.abc import Sequence

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
