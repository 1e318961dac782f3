"""Seeds a step and the queue's bound: numbers by hand, and the paper's third stage simulated."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from queue_simulation import AUTHORS, UNPACED, simulate
from replay_toy import begin, human_seeds, ids_of, observe, pool_of, stage, task_named

from configs.bfcl_qwen3_4b import CONFIG
from rods_jax import replay
from rods_jax.boundary import Seeds
from rods_jax.config import ReplaySettings
from rods_jax.records import decode, encode
from rods_jax.replay import Outcome, ReplayState
from rods_jax.replay.rules import foreseen_scores
from rods_jax.task_files import VERSIONED
from rods_jax.types import Dropped


def pool(seeds=10, **settings):
    return replay.create(human_seeds(seeds), ReplaySettings(**settings))


def test_a_step_sends_its_part_of_what_the_next_epoch_can_take():
    state = pool(400)  # a fifth of 400 is 80, over 13 steps
    assert replay.wanted(state, 0, 13) == 7
    assert replay.wanted(state, 12, 1) == 80
    assert replay.wanted(state, 0, 0) == 0  # nobody will play it
    assert replay.wanted(pool(400, surplus=1.5), 0, 13) == 10  # 120 over 13
    assert replay.wanted(pool(400, capacity=26), 0, 13) == 2
    assert replay.wanted(pool(400, capacity=0), 0, 13) == 0


def test_what_is_queued_or_away_is_not_asked_for_again():
    state = pool(100)  # 20 can enter
    state = stage(state, [task_named(f"g{i}") for i in range(6)], 0)
    assert replay.wanted(state, 0, 1) == 14
    for index in range(5):
        state = replay.mark_seeds(state, [f"human{index}"], 0)
    assert replay.wanted(state, 0, 1) == 9
    state = replay.stage(state, [Outcome(f"human{index}", 0, None) for index in range(5)], 0, 0)
    assert not state.away and (state.settled, state.written) == (11, 6)
    assert replay.wanted(state, 0, 1) == 24  # 14 variants at a yield of 7/12


def test_what_will_be_too_old_by_then_is_asked_for_again():
    state = pool(100, max_age=10)
    state = stage(state, [task_named("old")], 0, step=0)
    state = stage(state, [task_named("new")], 0, step=5)
    state = replay.mark_seeds(replay.mark_seeds(state, ["human0"], 4), ["human1"], 5)
    assert replay.wanted(state, 14, 1) == 18  # the epoch begins at step 15: one is queued, one away


def test_tasks_that_will_leave_make_room_and_a_smaller_pool():
    state, _ = begin(stage(pool(10, injection_fraction=0.5, capacity=5), [task_named(n) for n in "abcde"], 0), 1)
    assert replay.wanted(state, 1, 1) == 0  # every slot is taken
    state = observe(observe(state, "a", 0, 10, 1), "b", 10, 10, 1)
    assert replay.wanted(state, 1, 1) == 2  # half of 13 are 6, and 2 slots
    assert replay.wanted(replace(state, settings=replace(state.settings, replace=True)), 1, 1) == 5


def test_a_cut_takes_the_best_of_every_category_first():
    kinds = "base base base missing_function missing_function long_context".split()
    seeds = [replace(task_named(str(i), ()), category=kind) for i, kind in enumerate(kinds)]
    picked = {count: "".join(task.id for task in replay.spread(seeds, count)) for count in (0, 1, 3, 5, 9)}
    assert picked == {0: "", 1: "0", 3: "035", 5: "01345", 9: "012345"}


def test_what_has_waited_too_long_leaves_and_is_counted():
    state = pool(5, max_age=10)
    state = stage(stage(state, [task_named("a"), task_named("b")], 0, step=2), [task_named("c")], 0, step=7)
    state = replay.mark_seeds(replay.mark_seeds(state, ["human0"], 2), ["human1"], 12)
    state, events = replay.begin_epoch(state, 1, step=13)
    assert events.injected == ("c",) and events.ages == (6,)
    assert [(entry.task_id, entry.reason, entry.last) for entry in events.retired] == [
        ("a", "stale", None), ("b", "stale", None),
    ]  # fmt: skip
    counts = replay.counts(state)
    assert (counts["retired_stale"], counts["pool_staged"], counts["age_at_injection"]) == (2, 0, 6.0)
    assert [entry.seed for entry in state.away] == ["human1"] and counts["seeds_away"] == 1
    assert decode(replay.ReplayState, encode(state, VERSIONED), forms=VERSIONED) == state and ids_of(state)[-1] == "c"


def test_the_age_is_the_mean_over_all_that_entered():
    state = pool(10, injection_fraction=1.0)
    assert "age_at_injection" not in replay.counts(state)
    state = stage(stage(state, [task_named("a")], 0, step=0), [task_named("b")], 0, step=4)
    state, _ = replay.begin_epoch(state, 1, step=8)
    state, _ = replay.begin_epoch(stage(state, [task_named("c")], 1, step=9), 2, step=18)
    assert replay.counts(state)["age_at_injection"] == (8 + 4 + 9) / 3


@pytest.mark.parametrize("author", AUTHORS)
def test_the_papers_queue_keeps_pace(author):
    """What is written is played, 15 steps after its seed was chosen at most, on average."""
    accepted, latency = AUTHORS[author]
    before = simulate(replace(CONFIG.replay, **UNPACED), accepted=accepted, latency=latency)
    assert before.mean_age > 19 and before.waiting > 200
    paced = simulate(CONFIG.replay, accepted=accepted, latency=latency)
    assert paced.mean_age < 15 and paced.waiting + paced.stale < 0.1 * paced.written
    assert paced.injected > 0.9 * before.injected and paced.in_band > before.in_band
    assert paced.most_sent <= 16 and paced.sent < 0.75 * before.sent


def test_a_variant_is_stale_only_beyond_its_age_and_so_is_a_seed_that_is_away():
    state = stage(replay.create(human_seeds(5), ReplaySettings(max_age=10)), [task_named("a")], 0, step=3)
    state = replay.mark_seeds(replay.mark_seeds(state, ["human0"], 3), ["human1"], 2)
    state, events = replay.begin_epoch(state, 1, step=13)
    assert events.injected == ("a",) and events.retired == ()
    assert [entry.seed for entry in state.away] == ["human0"]


def test_the_policys_slope_is_that_of_the_human_seeds_alone():
    state = pool_of(1, ["a"])
    for step, (human, variant) in enumerate(((5, 0), (5, 4))):
        state = observe(observe(state, "human0", human, 10, step), "a", variant, 10, step)
    assert foreseen_scores(state)["a"] == pytest.approx(4 * 0.4 * 0.6)


def test_the_standing_remembers_the_best_rollout_of_all_kept_measurements():
    state = replay.create(human_seeds(2), ReplaySettings())
    for step, high in enumerate((1, 3, 2)):
        state = observe(state, "human0", 4, 16, step, 0, high, 4)
    found = replay.standing(state, replay.active_tasks(state), 5, ("base",))
    assert found.best_before_N.tolist() == [0.75, 0.0]


def test_earlier_measurements_lose_half_their_weight_with_every_half_life():
    def earlier(state, step):
        found = replay.standing(state, replay.active_tasks(state), step, ("base",))
        return found.earlier_passed_N.item(), found.earlier_total_N.item()

    state = replay.create(human_seeds(1), ReplaySettings(half_life=10.0, history=2))
    assert earlier(state, 5) == (0.0, 0.0)
    for passed, step in ((1, 0), (4, 10), (6, 20)):  # the history forgets the first
        state = observe(state, "human0", passed, 8, step)
    assert earlier(state, 30) == (4 / 4 + 6 / 2, 8 / 4 + 8 / 2)
    alone = replace(state, settings=ReplaySettings())
    assert earlier(alone, 30) == (0.0, 0.0)


def test_the_standing_of_a_larger_batch_looks_through_the_pool_no_more_often(monkeypatch):
    """A pool that was written beforehand has 17,400 tasks: a look for each task of the batch took seconds of each step."""
    looks = []
    items = ReplayState.items.fget
    monkeypatch.setattr(ReplayState, "items", property(lambda state: looks.append(1) or items(state)))
    state = pool(32)
    tasks = replay.active_tasks(state)
    looks.clear()
    replay.standing(state, tasks[:2], 0, ("base",))
    of_two = len(looks)
    replay.standing(state, tasks, 0, ("base",))
    assert len(looks) == 2 * of_two


def test_a_human_seed_that_leaves_frees_no_slot():
    state = replay.create(human_seeds(10), ReplaySettings(retire_seeds=True, capacity=1, injection_fraction=0.5))
    state = observe(state, "human0", 10, 10, 0)
    assert replay.wanted(state, 0, 1) == 1  # one slot, although half of nine are four


@pytest.mark.parametrize("count", [2, 20])
def test_a_step_looks_through_the_pool_as_often_however_many_tasks_it_has(monkeypatch, count):
    """Once for all that was measured, and once for all seeds: a pool may hold thousands of tasks."""
    state = replay.create(human_seeds(30), ReplaySettings())
    tasks, looks, items = replay.active_tasks(state)[:count], [], ReplayState.items.fget
    monkeypatch.setattr(ReplayState, "items", property(lambda pool: (looks.append(1), items(pool))[1]))
    whole_N, seeds = np.full(count, 4), Seeds(np.array([-1]), 0)
    feedback = SimpleNamespace(
        passed_N=whole_N - 1, total_N=whole_N, low_N=whole_N - 4, high_N=whole_N, checks_N=whole_N, seeds=seeds
    )
    dropped = [Dropped(f"human{count + n}", 1, 2, 0, 1, 1, 0.5, 0.25) for n in range(count // 2)]
    state, chosen = replay.learn(state, tasks, feedback, step=3, left=0, dropped=dropped)
    assert len(looks) == 1 and chosen == ()
    measured = {item.task.id: item.measurements for item in state.seeds if item.measurements}
    assert measured == {task.id: ((3, 4, 3, 0, 4, 4),) for task in tasks} | {
        one.task_id: ((1, 2, 3, 0, 1, 1),) for one in dropped
    }
    looks.clear()
    feedback.seeds = Seeds(np.arange(count), count)
    state, chosen = replay.learn(state, tasks, feedback, step=4)
    assert len(looks) == 4  # measured; the room, twice; marked
    assert chosen == tasks[:6]  # a fifth of 30 can enter
    assert state.away == tuple(replay.Away(task.id, 4) for task in chosen)
    assert [item.seeded for item in state.seeds] == [4] * len(chosen) + [None] * (30 - len(chosen))
