"""Golden cases of RODS 1.1 and 1.3."""

import pytest

from rods_jax.rewards import (
    CALL_FAILED,
    CALLED,
    PARSE_ERROR,
    TURN_PASSED,
    efficient_reward,
    format_score,
    gated_reward,
    outcome_reward,
    progress_reward,
)
from rods_jax.types import Step, Trajectory


@pytest.mark.parametrize(
    "codes, reward", [([], 0), ([1], 0), ([-1, 1], 2), ([-2, 0], 1), ([-3, -1, 1], 2 / 3 + 1), ([-3, -3], 0)]
)
def test_format_score_golden(codes, reward):
    assert format_score(codes) == pytest.approx(reward, abs=1e-12)


def test_progress_has_a_fixed_denominator():
    assert progress_reward(Trajectory("t", 0, (True, False, False, False), ())) == 0.25
    assert progress_reward(Trajectory("t", 0, (True, True), ())) == 1.0


def played(passed, *steps, gold_calls=0):
    """steps: the code of an action, and how many texts came back."""
    said = tuple(Step(0, "", code, ("text",) * count) for code, count in steps)
    return Trajectory("t", 0, passed, said, gold_calls=gold_calls)


def test_one_unreadable_message_closes_the_gate():
    read, garbled = (CALLED, 1), (PARSE_ERROR, 1)
    assert gated_reward(played((True, False), read, (TURN_PASSED, 0))) == 0.5
    assert gated_reward(played((True, True), read, garbled)) == 0.0
    assert gated_reward(played((True, False), read), outcome=lambda one: float(all(one.passed))) == 0.0


@pytest.mark.parametrize(
    "ran, reward",
    [(1, 1.0), (2, 1.0), (3, 4 / 5), (4, 2 / 3), (6, 1 / 2)],  # 2 g / (g + c) with g = 2
)
def test_calls_beyond_golds_cost_reward(ran, reward):
    half = (CALL_FAILED, ran - ran // 2), (CALLED, ran // 2), (TURN_PASSED, 0)
    assert efficient_reward(played((True,), *half, gold_calls=2)) == pytest.approx(reward, abs=1e-12)
    assert efficient_reward(played((True, False), *half, gold_calls=2)) == pytest.approx(reward / 2, abs=1e-12)
    assert efficient_reward(played((False,), *half, gold_calls=2)) == 0.0


def test_where_gold_makes_no_call_progress_is_all():
    assert efficient_reward(played((True, False), (CALLED, 3))) == 0.5


def test_unreadable_messages_are_no_calls():
    assert efficient_reward(played((True,), (PARSE_ERROR, 1), (CALLED, 1), gold_calls=1)) == 1.0


def test_an_outcome_is_all_or_nothing():
    passed = (True, True), (True, False), (False,)
    assert [outcome_reward(Trajectory("t", 0, checks, ())) for checks in passed] == [1.0, 0.0, 0.0]
