"""Replay pool: every transition of RODS section 6 by hand, and a state machine for what must always hold."""

import dataclasses
import json
from collections import Counter

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from replay_toy import begin, human_seeds, ids_of, observe, pool_of, stage, task_named

from rods_jax import replay
from rods_jax.config import ReplaySettings
from rods_jax.records import decode, encode
from rods_jax.task_files import VERSIONED
from rods_jax.types import Call, Turn, World


# -------------------------------------------------------------------------------------- injection
def test_the_pool_grows_by_80_96_115_109():
    state = replay.create(human_seeds(400), ReplaySettings())
    state = stage(state, [task_named(f"g{i}") for i in range(1000)], epoch=0)
    injected, sizes = [], []
    for epoch in range(1, 6):
        state, events = begin(state, epoch)
        injected.append(len(events.injected))
        sizes.append(len(replay.active_tasks(state)))
    assert injected == [80, 96, 115, 109, 0]
    assert sizes == [480, 576, 691, 800, 800]
    assert replay.counts(state)["injected"] == 400
    assert replay.counts(state)["pool_staged"] == 600


def test_a_candidate_is_never_used_in_the_epoch_that_made_it():
    state = replay.create(human_seeds(10), ReplaySettings(injection_fraction=1.0))
    state, _ = begin(state, 3)
    state = stage(state, [task_named("a")], epoch=3)
    assert ids_of(state) == [f"human{i}" for i in range(10)]
    state = stage(state, [task_named("b")], epoch=4)
    state, events = begin(state, 4)
    assert events.injected == ("a",)
    state, events = begin(state, 5)
    assert events.injected == ("b",)


def test_candidates_enter_in_the_order_they_were_staged():
    state = replay.create(human_seeds(10), ReplaySettings())  # floor(0.2 * 10) = 2 at a time
    state = stage(state, [task_named(name) for name in "cab"], epoch=0)
    state, first = begin(state, 1)
    state, second = begin(state, 2)
    assert (first.injected, second.injected) == (("c", "a"), ("b",))
    assert ids_of(state)[10:] == ["c", "a", "b"]


def test_the_candidates_of_seeds_at_the_boundary_enter_first_by_option():
    state = replay.create(human_seeds(15), ReplaySettings(nearest_first=True))  # floor(0.2 * 15) = 3 at a time
    seeds = {"even": "human1", "older": "human2", "newer": "human2", "hard": "human3"}
    state = stage(state, [task_named(name, (seed,)) for name, seed in seeds.items()], epoch=0)
    for step, measured in ((1, (5, 9, 1)), (2, (5, 7, 1))):  # human2 has moved since its candidates were made
        for seed, passed in zip(("human1", "human2", "human3"), measured):
            state = observe(state, seed, passed, 10, step)
    state = stage(state, [task_named("late", ("human1",))], epoch=1)  # not due yet
    state, first = begin(state, 1)
    assert first.injected == ("even", "newer", "older")
    state = observe(state, "human1", 10, 10, step=3)
    state, second = begin(state, 2)
    assert second.injected == ("hard", "late")


@pytest.mark.parametrize("last_step, expected", [
    (0, "cbda"),  # nothing tells how the policy moves: 0.36, 0.84, 0.96, 0.64
    # From 0.2 at step 0 to 0.6 at step 2, so 0.2 a step; half an epoch of three steps ahead is step 3.5: there 0.1
    # becomes 0.8, 0.4 becomes 0.7, and 0.3 and 0.8 become 1.
    (2, "cadb"),
])  # fmt: skip
def test_the_boundary_is_that_of_the_policy_which_will_play_the_candidates(last_step, expected):
    settings = ReplaySettings(nearest_first=True, injection_fraction=1.0)
    state = replay.create(human_seeds(4), settings)
    ids = [task.id for task in replay.active_tasks(state)]
    for seed, passed, step in zip(ids, (1, 3, 4, 8), (0, 0, last_step, last_step)):
        state = observe(state, seed, passed, 10, step)
    state = stage(state, [task_named(name, (seed,)) for name, seed in zip("abcd", ids)], epoch=0)
    assert "".join(begin(state, 1)[1].injected) == expected


def test_the_cap_is_a_floor_of_exact_decimals():
    # 0.07 * 100 is 7.000000000000001 and 0.29 * 100 is 28.999999999999996 in binary floating point.
    for fraction, expected in ((0.07, 7), (0.29, 29), (0.199, 19)):
        state = replay.create(human_seeds(100), ReplaySettings(injection_fraction=fraction))
        state = stage(state, [task_named(f"g{i}") for i in range(50)], epoch=0)
        assert len(begin(state, 1)[1].injected) == expected


def test_the_cap_is_measured_after_retirement():
    state = pool_of(6, ["a", "b", "c", "d"], injection_fraction=1.0)
    state = stage(state, [task_named(f"n{i}") for i in range(20)], epoch=1)
    for name in "abcd":
        state = observe(state, name, 100, 100, step=1)
    state = dataclasses.replace(state, settings=ReplaySettings(capacity=8, injection_fraction=0.5))
    state, events = begin(state, 2)
    assert len(events.retired) == 4
    assert len(events.injected) == 3  # half of 6, not of 10


def test_an_epoch_begins_once():
    state, _ = begin(replay.create(human_seeds(2), ReplaySettings()), 1)
    with pytest.raises(ValueError, match="epoch 1 cannot begin after epoch 1"):
        begin(state, 1)


# ------------------------------------------------------------------------------------ transitions
@pytest.mark.parametrize(
    ("passed", "total", "reason"),
    [
        (16, 80, None),  # exactly 0.20 stays
        (15, 80, "hard"),
        (199999, 1000000, "hard"),
        (76, 80, None),  # exactly 0.95 stays
        (77, 80, "mastered"),
        (57, 60, None),  # 0.95 again, on another grid
        (0, 80, "hard"),
        (80, 80, "mastered"),
    ],
)
def test_retirement_is_strict_on_integers(passed, total, reason):
    state = observe(pool_of(names=["a"]), "a", passed, total, step=1)
    state, events = begin(state, 2)
    assert [entry.reason for entry in events.retired] == ([reason] if reason else [])
    assert ("a" in ids_of(state)) == (reason is None)
    if reason:
        assert state.retired == (replay.Retired("a", reason, 2, replay.Measurement(passed, total, 1)),)
        assert replay.counts(state)[f"retired_{reason}"] == 1


def test_the_latest_measurement_decides_and_only_at_the_next_epoch():
    state = observe(pool_of(names=["a"]), "a", 0, 10, step=1)
    assert "a" in ids_of(state)
    state = observe(state, "a", 5, 10, step=2)
    assert "a" in ids_of(begin(state, 2)[0])


@pytest.mark.parametrize(
    ("low", "high", "checks", "reason"),
    [
        (1, 1, 2, "stuck"),
        (0, 2, 2, None),  # the same mean, and a gradient
        (0, 0, 0, None),  # an earlier version measured
    ],
)
def test_what_every_rollout_half_solves_leaves_where_that_is_asked_for(low, high, checks, reason):
    for retire_stuck in (False, True):
        state = observe(pool_of(2, ["a"], retire_stuck=retire_stuck), "a", 8, 16, 1, low, high, checks)
        state = observe(state, "human0", 8, 16, 1, 1, 1, 2)  # a human seed stays
        state, events = begin(state, 2)
        assert [entry.reason for entry in events.retired] == ([reason] if reason and retire_stuck else [])
        assert replay.counts(state)["retired_stuck"] == len(events.retired) and "human0" in ids_of(state)


def test_a_state_of_a_version_with_fewer_reasons_goes_on_counting():
    state = dataclasses.replace(pool_of(2, ["a"], retire_stuck=True), retired_counts=(3, 1, 0, 0, 2))
    assert replay.counts(state)["retired_stuck"] == 0
    state, _ = begin(observe(state, "a", 8, 16, 1, 1, 1, 2), 2)
    assert state.retired_counts == (3, 1, 0, 0, 2, 1)


def test_trial_becomes_active_with_its_first_measurement():
    state = pool_of(2, ["a", "b"])
    assert replay.counts(state) | {"pool_human": 2, "pool_trial": 2, "pool_active": 0} == replay.counts(state)
    state = observe(state, "a", 3, 10, step=1)
    assert replay.counts(state) | {"pool_human": 2, "pool_trial": 1, "pool_active": 1} == replay.counts(state)


def test_human_seeds_are_kept_unless_the_switch_lets_mastered_ones_go():
    for retire_seeds, expected in ((False, ["human0", "human1"]), (True, ["human0"])):
        state = replay.create(human_seeds(2), ReplaySettings(retire_seeds=retire_seeds))
        state = observe(state, "human0", 0, 10, step=1)
        state = observe(state, "human1", 10, 10, step=1)
        assert ids_of(begin(state, 1)[0]) == expected


def test_a_full_pool_defers_or_prunes_the_lowest_scores():
    scores = {"a": 50, "b": 90, "c": 25, "d": 75}  # phi: 1, 0.36, 0.75, 0.75
    for replace, survivors in ((False, "abcd"), (True, "axyd")):
        state = pool_of(10, "abcd", capacity=4, replace=replace)
        for step, (name, passed) in enumerate(scores.items()):
            state = observe(state, name, passed, 100, step)
        state = stage(state, [task_named("x"), task_named("y")], epoch=1)
        state, events = begin(state, 2)
        assert "".join(ids_of(state)[10:]) == survivors
        pruned = [entry.task_id for entry in events.retired if entry.reason == "pruned"]
        assert pruned == (["b", "c"] if replace else [])  # c and d tie: the older measurement goes
        assert replay.counts(state)["pool_staged"] == (0 if replace else 2)


def test_items_on_trial_are_not_pruned():
    state = pool_of(10, "abcd", capacity=4, replace=True)
    state = observe(state, "c", 50, 100, step=1)
    state = stage(state, [task_named("x"), task_named("y")], epoch=1)
    state, events = begin(state, 2)
    assert [entry.task_id for entry in events.retired] == ["c"]
    assert events.injected == ("x",)


def test_the_ring_takes_the_next_free_slot():
    state = pool_of(4, "abcd", capacity=4)
    for name in "bd":
        state = observe(state, name, 0, 10, step=1)
    state = stage(state, [task_named("x")], epoch=1)
    state, _ = begin(state, 2)
    assert [item and item.task.id for item in state.slots] == ["a", "x", "c", None]
    assert state.cursor == 2
    state, _ = begin(stage(state, [task_named("y"), task_named("z")], epoch=2), 3)
    assert [item and item.task.id for item in state.slots] == ["a", "x", "c", "y"]
    assert [entry.task.id for entry in state.staged] == ["z"]


def test_duplicates_are_counted_and_not_staged():
    state = pool_of(2, ["a"])
    state = stage(state, [task_named("a"), task_named("b"), task_named("b")], epoch=1)
    assert [entry.task.id for entry in state.staged] == ["b"]
    assert replay.counts(state)["retired_duplicate"] == 2


def test_ancestry_separates_human_from_generated():
    with pytest.raises(ValueError, match="human seeds have no ancestry: .*g"):
        replay.create([task_named("g")], ReplaySettings())
    with pytest.raises(ValueError, match="generated task names its ancestry: .*human0"):
        stage(replay.create([], ReplaySettings()), human_seeds(1), epoch=0)
    with pytest.raises(ValueError, match="unique: .*human0"):
        replay.create(human_seeds(1) * 2, ReplaySettings())


# --------------------------------------------------------------------- measurements and cooldown
def test_zones_are_inclusive_at_both_edges_of_the_band():
    state = replay.create(human_seeds(6), ReplaySettings())
    for i, passed in enumerate((15, 16, 68, 69, 80)):  # of 80; 16 is 0.20, 68 is 0.85; the sixth is unmeasured
        state = observe(state, f"human{i}", passed, 80, step=0)
    found = replay.counts(state)
    assert (found["zone_hard"], found["zone_boundary"], found["zone_mastered"]) == (1, 2, 2)


def test_only_the_last_measurements_are_kept():
    state = replay.create(human_seeds(1), ReplaySettings(history=2))
    for step in range(4):
        state = observe(state, "human0", step, 4, step)
    assert state.seeds[0].measurements == (replay.Measurement(2, 4, 2), replay.Measurement(3, 4, 3))


def test_only_the_last_retirements_are_kept_but_all_are_counted():
    state = pool_of(4, "abcd", log_size=3)
    for name in "abcd":
        state = observe(state, name, 0, 10, step=1)
    state, events = begin(state, 2)
    assert [entry.task_id for entry in state.retired] == ["b", "c", "d"]
    assert len(events.retired) == replay.counts(state)["retired_hard"] == 4


def test_cooldown_counts_steps_since_the_last_dispatch():
    state = replay.create(human_seeds(2), ReplaySettings(cooldown=13))
    assert replay.eligible(state, ["human0"], 0) == [True]
    state = replay.mark_seeds(state, ["human0"], 5)
    assert replay.eligible(state, ["human0"], 5) == [False]
    assert replay.eligible(state, ["human0"], 17) == [False]
    assert replay.eligible(state, ["human0"], 18) == [True]
    assert replay.eligible(state, ["human1"], 6) == [True]


def test_what_may_be_a_seed_is_the_same_whether_a_run_stopped_before_the_step_or_not():
    """A worker's variant of an old seed comes back while the update runs; a checkpoint before the next step holds it."""

    def of(name, world, ancestry=()):
        return dataclasses.replace(task_named(name, ancestry), world=World((world,)), turns=(Turn("u", (Call(name),)),))

    seeds = [of(f"h{index}", f"World{index}") for index in range(8)]  # a world has room for two of eight tasks
    state = replay.create(seeds, ReplaySettings(capacity=4, max_share=0.25, cooldown=2))
    waiting = replay.mark_seeds(state, ["h0"], 2)
    back = replay.stage(waiting, [replay.Outcome("h0", 2, of("v", "World0", ("h0",)))], epoch=0, step=9)
    assert replay.eligible(waiting, ["h0", "h1"], 10) == replay.eligible(back, ["h0", "h1"], 10) == [True, True]
    assert replay.eligible(back, ["h0", "h1"], 11) == [False, True]


def test_impossible_measurements_and_unknown_tasks_are_refused():
    state = replay.create(human_seeds(1), ReplaySettings())
    for passed, total in ((0, 0), (-1, 4), (5, 4)):
        with pytest.raises(ValueError, match="is no measurement"):
            observe(state, "human0", passed, total, step=0)
    ghost = dataclasses.replace(human_seeds(1)[0], id="ghost")
    for function, arguments in (
        (observe, ("ghost", 1, 2, 3)),
        (replay.mark_seeds, (["ghost"], 1)),
        (replay.eligible, (["human0", "ghost"], 1)),
        (replay.standing, ([ghost], 1, ("base",))),
    ):
        with pytest.raises(KeyError, match="task ghost is not in the pool"):
            function(state, *arguments)


# ------------------------------------------------------------------------------ memory of measurements
@pytest.mark.parametrize(("half_life", "left"), [(0.0, ["a", "b"]), (10.0, ["b"])])
def test_a_remembered_mean_outlives_one_noisy_group(half_life, left):
    """a passed half of its turns and is unlucky now; b could never do it. 0 + 40/2 of 80 + 80/2 turns is 1/6, 20/120."""
    state = pool_of(names=["a", "b"], half_life=half_life, lower=0.16)
    for step, (a, b) in ((0, (40, 0)), (10, (0, 0))):
        state = observe(observe(state, "a", a, 80, step), "b", b, 80, step)
    state, events = begin(state, 2)
    assert [entry.task_id for entry in events.retired] == left
    assert [entry.last for entry in events.retired] == [replay.Measurement(0, 80, 10)] * len(left)


def test_zones_and_pruning_see_the_same_mean():
    state = pool_of(10, "ab", capacity=2, replace=True, half_life=10.0)
    for step, (a, b) in ((0, (10, 90)), (10, (50, 50))):  # r = 45/150 and 95/150: b's score is the higher one
        state = observe(observe(state, "a", a, 100, step), "b", b, 100, step)
    assert replay.counts(state)["zone_boundary"] == 2
    state, events = begin(stage(state, [task_named("x")], 1), 2)
    assert [entry.task_id for entry in events.retired] == ["a"]


# ------------------------------------------------------------------------------- what always holds
def _json_round_trip(state):
    return decode(replay.ReplayState, json.loads(json.dumps(encode(state, VERSIONED))), forms=VERSIONED)


class Pool(RuleBasedStateMachine):
    @initialize(capacity=st.integers(0, 6), fraction=st.floats(0, 1), replace=st.booleans(), seeds=st.integers(0, 5))
    def start(self, capacity, fraction, replace, seeds):
        settings = ReplaySettings(capacity=capacity, injection_fraction=fraction, replace=replace, log_size=1000)
        self.state = replay.create(human_seeds(seeds), settings)
        self.num_seeds, self.epoch, self.step, self.offered, self.born = seeds, 0, 0, 0, {}

    @rule(numbers=st.lists(st.integers(0, 12), max_size=6))
    def stage(self, numbers):
        before = {entry.task.id for entry in self.state.staged} | set(ids_of(self.state))
        self.state = stage(self.state, [task_named(f"g{i}") for i in numbers], self.epoch)
        for entry in self.state.staged:
            if entry.task.id not in before:
                self.born[entry.task.id] = self.epoch
        self.offered += len(numbers)

    @rule(data=st.data(), passed=st.integers(0, 20))
    def observe(self, data, passed):
        if ids := ids_of(self.state):
            self.state = observe(self.state, data.draw(st.sampled_from(ids)), passed, 20, self.step)
            self.step += 1

    @rule(data=st.data())
    def mark_seed(self, data):
        if ids := ids_of(self.state):
            chosen = data.draw(st.sampled_from(ids))
            self.state = replay.mark_seeds(self.state, [chosen], self.step)
            assert replay.eligible(self.state, [chosen], self.step) == [False]

    @rule()
    def begin_epoch(self):
        self.epoch += 1
        before = set(ids_of(self.state))
        trial = {item.task.id for item in self.state.items if item.status == "trial"}
        self.state, events = begin(self.state, self.epoch)
        left = {entry.task_id for entry in events.retired}
        assert set(ids_of(self.state)) == (before - left) | set(events.injected)
        assert not left & trial
        assert all(self.born[name] < self.epoch for name in events.injected)

    @invariant()
    def nothing_is_lost_doubled_or_over_capacity(self):
        state, counts = self.state, replay.counts(self.state)
        ids = ids_of(state) + [entry.task.id for entry in state.staged]
        assert max(Counter(ids).values(), default=0) <= 1
        live = sum(item is not None for item in state.slots)
        assert len(state.slots) == state.settings.capacity and live <= state.settings.capacity
        assert counts["pool_human"] == self.num_seeds
        gone = sum(state.retired_counts)
        assert gone == len(state.retired)
        assert self.offered == live + len(state.staged) + gone
        assert counts["injected"] == live + gone - counts["retired_duplicate"]

    @invariant()
    def json_keeps_everything(self):
        assert _json_round_trip(self.state) == self.state


Pool.TestCase.settings = hypothesis_settings(deadline=None, max_examples=30, stateful_step_count=25)
test_pool = Pool.TestCase


def test_json_keeps_the_order_of_state_keys():
    task = _json_round_trip(pool_of(1, ["a"])).slots[0].task
    assert list(task.world.state["Files"]) == ["z", "a"]
