"""Golden cases of RODS 1.1 and 1.3."""

import pytest

from rods_jax.rewards import format_score, outcome_reward, progress_reward
from rods_jax.types import Trajectory


@pytest.mark.parametrize(
    "codes, reward", [([], 0), ([1], 0), ([-1, 1], 2), ([-2, 0], 1), ([-3, -1, 1], 2 / 3 + 1), ([-3, -3], 0)]
)
def test_format_score_golden(codes, reward):
    assert format_score(codes) == pytest.approx(reward, abs=1e-12)


def test_progress_has_a_fixed_denominator():
    assert progress_reward(Trajectory("t", 0, (True, False, False, False), ())) == 0.25
    assert progress_reward(Trajectory("t", 0, (True, True), ())) == 1.0


def test_an_outcome_is_all_or_nothing():
    passed = (True, True), (True, False), (False,)
    assert [outcome_reward(Trajectory("t", 0, checks, ())) for checks in passed] == [1.0, 0.0, 0.0]
