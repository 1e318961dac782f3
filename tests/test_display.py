"""The panel of a run: how far it is, and the line of a step."""

import math
from dataclasses import replace

import pytest
from training_toy import CONFIG

from rods_jax.loop import Position
from rods_jax.run.display import _line, all_steps


def _config(epochs, max_steps=None):
    stages = (replace(CONFIG.stages[0], epochs=epochs),)
    rollout = replace(CONFIG.rollout, tasks_per_step=3)
    return replace(CONFIG, stages=stages, rollout=rollout, max_steps=max_steps)


def _record(step, steps_of_epoch=3, pool=7):
    """Of a run whose pool of 7 tasks takes 3 steps of 3."""
    return {"epoch": max(0, step - 1) // steps_of_epoch, "pool_human": pool - 1, "pool_trial": 1, "pool_active": 0}


def test_the_last_step_is_foreseen_from_within_an_epoch_too():
    total = all_steps(_config(epochs=2), Position(None, None))
    assert [total(step, _record(step)) for step in range(7)] == [6] * 7
    resumed = all_steps(_config(epochs=2), Position(None, None, step=4, epoch=1, place=3))
    assert [resumed(step, _record(step)) for step in (5, 6)] == [6, 6]


def test_the_last_step_follows_the_pool_the_limit_and_an_epoch_that_took_fewer_steps():
    total = all_steps(_config(epochs=2), Position(None, None))
    assert [total(1, _record(1)), total(4, _record(4, pool=11))] == [6, 3 + 4]  # the second epoch has 11 tasks
    total = all_steps(_config(epochs=2), Position(None, None))
    assert total(2, _record(2, steps_of_epoch=1)) == 1 + 3  # a filter has played all tasks in the first step
    assert all_steps(_config(epochs=2, max_steps=5), Position(None, None))(1, _record(1)) == 5


@pytest.mark.parametrize(("progress", "said"), [(0.25, "reward 0.25  "), (math.nan, "reward -  ")])
def test_a_step_that_measured_nothing_has_no_reward(progress, said):
    zones = dict.fromkeys(("zone_hard", "zone_boundary", "zone_mastered", "pool_staged"), 0)
    values = _record(1) | zones | {"progress_mean": progress, "zero_variance": 0.75}
    line = _line(values, [], {"failed": 0, "truncated": 0})
    assert said in line and "hard/boundary/mastered 0/0/0  without variance 75%  " in line
