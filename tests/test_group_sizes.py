"""How often a task is played: by hand, and in a run (test_rollout_schedules.py has the rollouts)."""

from dataclasses import replace

import numpy as np
import pytest
from replay_toy import pool_of
from test_filtering import CONFIG as FILTERED
from test_filtering import G, run
from test_samplers import NAN, seen

from rods_jax.config import ConfigError, ReplaySettings
from rods_jax.metrics import TIMED
from rods_jax.samplers import by_difficulty, group_sizes_of


# ------------------------------------------------------------------------------------------ by hand
def test_mastered_tasks_are_played_half_as_often():
    # G min(1, 3/2 - m), rounded up.
    assert by_difficulty(seen(0.0, 0.5, 0.6, 0.75, 1.0, NAN), 8).tolist() == [8, 8, 8, 6, 4, 8]
    assert by_difficulty(seen(0.0, 0.9, 1.0, NAN), 5).tolist() == [5, 3, 3, 5]
    assert by_difficulty(seen(47 / 50), 25).tolist() == [14]  # 25 x 0.56, which rounding makes more than 14


@pytest.mark.parametrize("sizes", [[4] * 3, [4, 4, 4, 1], [4, 4, 4, 5], [4.0] * 4])
def test_sizes_that_no_group_can_have_are_refused(sizes):
    with pytest.raises(ValueError, match="a whole number from 2 to 4 for each of 4 tasks"):
        group_sizes_of(pool_of(4), lambda table, group_size: np.array(sizes), group_size=4, step=1)


# ------------------------------------------------------------------------------------------ in a run
def with_sizes(group_sizes, keep=None, **changes):
    return replace(FILTERED, rollout=replace(FILTERED.rollout, group_sizes=group_sizes, keep=keep), **changes)


def test_a_run_plays_what_it_has_measured_and_resumes_after_every_step():
    config = with_sizes(by_difficulty)
    whole, _, final = run(config)
    spent = np.diff([0, *(one["rollouts_spent"] for one in whole)])
    # In the first epoch nothing is known. Then b and e, which every rollout solves, are played twice, the others 4 times.
    sizes = lambda ids: sum(2 if chr(int(name)) in "be" else 4 for name in ids)
    assert spent[:3].tolist() == [2 * G] * 3
    assert spent[4:].tolist() == [sizes(one["task_ids"]) for one in whole[4:]] and spent.sum() < 9 * 2 * G
    assert all(one["failed_rollouts"] == 0 for one in whole)
    latest = {chr(int(item.task.id)): item.measurements[-1] for item in final.replay.seeds}
    assert {name: (one.passed, one.total) for name, one in latest.items()}["b"] == (4, 4)  # two rollouts of two checks
    for until in (1, 4):
        first, _, stopped = run(config, until=until)
        rest, _, resumed = run(config, start=stopped)
        assert [one["rollouts_spent"] for one in first + rest] == [one["rollouts_spent"] for one in whole]
        assert resumed.replay == final.replay and resumed.rollouts == final.rollouts


def test_dropped_groups_are_spent_at_their_size():
    everything_half = lambda table, group_size: np.full(len(table.ids), group_size // 2)
    records, _, _ = run(with_sizes(everything_half, keep=FILTERED.rollout.keep))
    assert any("tasks_played" in one for one in records)
    assert records[-1]["rollouts_spent"] == G // 2 * sum(one.get("tasks_played", 2) for one in records)


def test_full_groups_by_a_rule_are_those_without_one():
    everything = lambda table, group_size: np.full(len(table.ids), group_size)
    (with_rule, _, ended), (without, _, same) = run(with_sizes(everything)), run(with_sizes(None))
    timeless = lambda records: [{k: v for k, v in one.items() if not k.startswith(TIMED)} for one in records]
    assert str(timeless(with_rule)) == str(timeless(without)) and ended == same


def test_a_history_of_one_is_refused():
    with pytest.raises(ConfigError, match="replay.history must be above 1"):
        with_sizes(by_difficulty, replay=ReplaySettings(history=1))
