"""Replay pool: every transition of RODS section 6 by hand, and a state machine for what must always hold."""

import dataclasses
import json
from collections import Counter

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rods_jax import replay
from rods_jax.config import ReplaySettings
from rods_jax.types import Call, Task, Turn


def _task(name, ancestry=("human0",)):
    return Task(name, f"scenario-{name}", "base", ("Files",), {"Files": {"z": 1, "a": 2}}, (Turn("u"),), ancestry)


def _seeds(n):
    return [_task(f"human{i}", ()) for i in range(n)]


def _pool(num_seeds=10, names=(), **changes):
    """A pool in epoch 1 in which the named generated tasks are on trial."""
    settings = ReplaySettings(**({"capacity": 8, "injection_fraction": 1.0} | changes))
    state = replay.stage(replay.create(_seeds(num_seeds), settings), [_task(name) for name in names], epoch=0)
    state, _ = replay.begin_epoch(state, 1)
    return state


def _ids(state):
    return [task.id for task in replay.active_tasks(state)]


# -------------------------------------------------------------------------------------- injection
def test_the_pool_grows_by_80_96_115_109():
    state = replay.create(_seeds(400), ReplaySettings())
    state = replay.stage(state, [_task(f"g{i}") for i in range(1000)], epoch=0)
    injected, sizes = [], []
    for epoch in range(1, 6):
        state, events = replay.begin_epoch(state, epoch)
        injected.append(len(events.injected))
        sizes.append(len(replay.active_tasks(state)))
    assert injected == [80, 96, 115, 109, 0]
    assert sizes == [480, 576, 691, 800, 800]
    assert replay.counts(state)["injected"] == 400
    assert replay.counts(state)["pool_staged"] == 600


def test_a_candidate_is_never_used_in_the_epoch_that_made_it():
    state = replay.create(_seeds(10), ReplaySettings(injection_fraction=1.0))
    state, _ = replay.begin_epoch(state, 3)
    state = replay.stage(state, [_task("a")], epoch=3)
    assert _ids(state) == [f"human{i}" for i in range(10)]
    state = replay.stage(state, [_task("b")], epoch=4)
    state, events = replay.begin_epoch(state, 4)
    assert events.injected == ("a",)
    state, events = replay.begin_epoch(state, 5)
    assert events.injected == ("b",)


def test_candidates_enter_in_the_order_they_were_staged():
    state = replay.create(_seeds(10), ReplaySettings())  # floor(0.2 * 10) = 2 at a time
    state = replay.stage(state, [_task(name) for name in "cab"], epoch=0)
    state, first = replay.begin_epoch(state, 1)
    state, second = replay.begin_epoch(state, 2)
    assert (first.injected, second.injected) == (("c", "a"), ("b",))
    assert _ids(state)[10:] == ["c", "a", "b"]


def test_the_candidates_of_seeds_at_the_boundary_enter_first_by_option():
    state = replay.create(_seeds(15), ReplaySettings(nearest_first=True))  # floor(0.2 * 15) = 3 at a time
    seeds = {"even": "human1", "older": "human2", "newer": "human2", "hard": "human3"}
    state = replay.stage(state, [_task(name, (seed,)) for name, seed in seeds.items()], epoch=0)
    for seed, passed in (("human1", 5), ("human2", 9), ("human3", 1)):
        state = replay.observe(state, seed, passed, 10, step=1)
    state = replay.observe(state, "human2", 6, 10, step=2)  # it has moved since its candidates were made
    state = replay.stage(state, [_task("late", ("human1",))], epoch=1)  # not due yet
    state, first = replay.begin_epoch(state, 1)
    assert first.injected == ("even", "newer", "older")
    state = replay.observe(state, "human1", 10, 10, step=3)
    state, second = replay.begin_epoch(state, 2)
    assert second.injected == ("hard", "late")


def test_the_cap_is_a_floor_of_exact_decimals():
    # 0.07 * 100 is 7.000000000000001 and 0.29 * 100 is 28.999999999999996 in binary floating point.
    for fraction, expected in ((0.07, 7), (0.29, 29), (0.199, 19)):
        state = replay.create(_seeds(100), ReplaySettings(injection_fraction=fraction))
        state = replay.stage(state, [_task(f"g{i}") for i in range(50)], epoch=0)
        assert len(replay.begin_epoch(state, 1)[1].injected) == expected


def test_the_cap_is_measured_after_retirement():
    state = _pool(6, ["a", "b", "c", "d"], injection_fraction=1.0)
    state = replay.stage(state, [_task(f"n{i}") for i in range(20)], epoch=1)
    for name in "abcd":
        state = replay.observe(state, name, 100, 100, step=1)
    state = dataclasses.replace(state, settings=ReplaySettings(capacity=8, injection_fraction=0.5))
    state, events = replay.begin_epoch(state, 2)
    assert len(events.retired) == 4
    assert len(events.injected) == 3  # half of 6, not of 10


def test_an_epoch_begins_once():
    state, _ = replay.begin_epoch(replay.create(_seeds(2), ReplaySettings()), 1)
    with pytest.raises(ValueError, match="epoch 1 cannot begin after epoch 1"):
        replay.begin_epoch(state, 1)


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
    state = replay.observe(_pool(names=["a"]), "a", passed, total, step=1)
    state, events = replay.begin_epoch(state, 2)
    assert [entry.reason for entry in events.retired] == ([reason] if reason else [])
    assert ("a" in _ids(state)) == (reason is None)
    if reason:
        assert state.retired == (replay.Retired("a", reason, 2, replay.Measurement(passed, total, 1)),)
        assert replay.counts(state)[f"retired_{reason}"] == 1


def test_the_latest_measurement_decides_and_only_at_the_next_epoch():
    state = replay.observe(_pool(names=["a"]), "a", 0, 10, step=1)
    assert "a" in _ids(state)
    state = replay.observe(state, "a", 5, 10, step=2)
    assert "a" in _ids(replay.begin_epoch(state, 2)[0])


def test_trial_becomes_active_with_its_first_measurement():
    state = _pool(2, ["a", "b"])
    assert replay.counts(state) | {"pool_human": 2, "pool_trial": 2, "pool_active": 0} == replay.counts(state)
    state = replay.observe(state, "a", 3, 10, step=1)
    assert replay.counts(state) | {"pool_human": 2, "pool_trial": 1, "pool_active": 1} == replay.counts(state)


def test_human_seeds_are_kept_unless_the_switch_lets_mastered_ones_go():
    for retire_seeds, expected in ((False, ["human0", "human1"]), (True, ["human0"])):
        state = replay.create(_seeds(2), ReplaySettings(retire_seeds=retire_seeds))
        state = replay.observe(state, "human0", 0, 10, step=1)
        state = replay.observe(state, "human1", 10, 10, step=1)
        assert _ids(replay.begin_epoch(state, 1)[0]) == expected


def test_a_full_pool_defers_or_prunes_the_lowest_scores():
    scores = {"a": 50, "b": 90, "c": 25, "d": 75}  # phi: 1, 0.36, 0.75, 0.75
    for replace, survivors in ((False, "abcd"), (True, "axyd")):
        state = _pool(10, "abcd", capacity=4, replace=replace)
        for step, (name, passed) in enumerate(scores.items()):
            state = replay.observe(state, name, passed, 100, step)
        state = replay.stage(state, [_task("x"), _task("y")], epoch=1)
        state, events = replay.begin_epoch(state, 2)
        assert "".join(_ids(state)[10:]) == survivors
        pruned = [entry.task_id for entry in events.retired if entry.reason == "pruned"]
        assert pruned == (["b", "c"] if replace else [])  # c and d tie: the older measurement goes
        assert replay.counts(state)["pool_staged"] == (0 if replace else 2)


def test_items_on_trial_are_not_pruned():
    state = _pool(10, "abcd", capacity=4, replace=True)
    state = replay.observe(state, "c", 50, 100, step=1)
    state = replay.stage(state, [_task("x"), _task("y")], epoch=1)
    state, events = replay.begin_epoch(state, 2)
    assert [entry.task_id for entry in events.retired] == ["c"]
    assert events.injected == ("x",)


def test_the_ring_takes_the_next_free_slot():
    state = _pool(4, "abcd", capacity=4)
    for name in "bd":
        state = replay.observe(state, name, 0, 10, step=1)
    state = replay.stage(state, [_task("x")], epoch=1)
    state, _ = replay.begin_epoch(state, 2)
    assert [item and item.task.id for item in state.slots] == ["a", "x", "c", None]
    assert state.cursor == 2
    state, _ = replay.begin_epoch(replay.stage(state, [_task("y"), _task("z")], epoch=2), 3)
    assert [item and item.task.id for item in state.slots] == ["a", "x", "c", "y"]
    assert [entry.task.id for entry in state.staged] == ["z"]


def test_duplicates_are_counted_and_not_staged():
    state = _pool(2, ["a"])
    state = replay.stage(state, [_task("a"), _task("b"), _task("b")], epoch=1)
    assert [entry.task.id for entry in state.staged] == ["b"]
    assert replay.counts(state)["retired_duplicate"] == 2


def test_ancestry_separates_human_from_generated():
    with pytest.raises(ValueError, match="human seeds have no ancestry: .*g"):
        replay.create([_task("g")], ReplaySettings())
    with pytest.raises(ValueError, match="generated task names its ancestry: .*human0"):
        replay.stage(replay.create([], ReplaySettings()), _seeds(1), epoch=0)
    with pytest.raises(ValueError, match="unique: .*human0"):
        replay.create(_seeds(1) * 2, ReplaySettings())


# --------------------------------------------------------------------- measurements and cooldown
def test_zones_are_inclusive_at_both_edges_of_the_band():
    state = replay.create(_seeds(6), ReplaySettings())
    for i, passed in enumerate((15, 16, 68, 69, 80)):  # of 80; 16 is 0.20, 68 is 0.85; the sixth is unmeasured
        state = replay.observe(state, f"human{i}", passed, 80, step=0)
    found = replay.counts(state)
    assert (found["zone_hard"], found["zone_boundary"], found["zone_mastered"]) == (1, 2, 2)


def test_only_the_last_measurements_are_kept():
    state = replay.create(_seeds(1), ReplaySettings(history=2))
    for step in range(4):
        state = replay.observe(state, "human0", step, 4, step)
    assert state.seeds[0].measurements == ((2, 4, 2), (3, 4, 3))


def test_only_the_last_retirements_are_kept_but_all_are_counted():
    state = _pool(4, "abcd", log_size=3)
    for name in "abcd":
        state = replay.observe(state, name, 0, 10, step=1)
    state, events = replay.begin_epoch(state, 2)
    assert [entry.task_id for entry in state.retired] == ["b", "c", "d"]
    assert len(events.retired) == replay.counts(state)["retired_hard"] == 4


def test_cooldown_counts_steps_since_the_last_dispatch():
    state = replay.create(_seeds(2), ReplaySettings(cooldown=13))
    assert replay.eligible(state, ["human0"], 0) == [True]
    state = replay.mark_seed(state, "human0", 5)
    assert replay.eligible(state, ["human0"], 5) == [False]
    assert replay.eligible(state, ["human0"], 17) == [False]
    assert replay.eligible(state, ["human0"], 18) == [True]
    assert replay.eligible(state, ["human1"], 6) == [True]


def test_impossible_measurements_and_unknown_tasks_are_refused():
    state = replay.create(_seeds(1), ReplaySettings())
    for passed, total in ((0, 0), (-1, 4), (5, 4)):
        with pytest.raises(ValueError, match="is no measurement"):
            replay.observe(state, "human0", passed, total, step=0)
    for function, arguments in (
        (replay.observe, (1, 2, 3)),
        (replay.mark_seed, (1,)),
        (replay.earlier, (1,)),
    ):
        with pytest.raises(KeyError, match="task ghost is not in the pool"):
            function(state, "ghost", *arguments)
    with pytest.raises(KeyError, match="task ghost is not in the pool"):
        replay.eligible(state, ["human0", "ghost"], 1)


# ------------------------------------------------------------------------------ memory of measurements
def test_earlier_measurements_lose_half_their_weight_with_every_half_life():
    state = replay.create(_seeds(1), ReplaySettings(half_life=10.0, history=2))
    assert replay.earlier(state, "human0", 5) == (0.0, 0.0)
    for passed, step in ((1, 0), (4, 10), (6, 20)):  # the history forgets the first
        state = replay.observe(state, "human0", passed, 8, step)
    assert replay.earlier(state, "human0", 30) == (4 / 4 + 6 / 2, 8 / 4 + 8 / 2)
    alone = replay.from_json(replay.to_json(state) | {"settings": dataclasses.asdict(ReplaySettings())})
    assert replay.earlier(alone, "human0", 30) == (0.0, 0.0)


@pytest.mark.parametrize(("half_life", "left"), [(0.0, ["a", "b"]), (10.0, ["b"])])
def test_a_remembered_mean_outlives_one_noisy_group(half_life, left):
    """a passed half of its turns and is unlucky now; b could never do it. 0 + 40/2 of 80 + 80/2 turns is 1/6, 20/120."""
    state = _pool(names=["a", "b"], half_life=half_life, lower=0.16)
    for step, (a, b) in ((0, (40, 0)), (10, (0, 0))):
        state = replay.observe(replay.observe(state, "a", a, 80, step), "b", b, 80, step)
    state, events = replay.begin_epoch(state, 2)
    assert [entry.task_id for entry in events.retired] == left
    assert [entry.last for entry in events.retired] == [replay.Measurement(0, 80, 10)] * len(left)


def test_zones_and_pruning_see_the_same_mean():
    state = _pool(10, "ab", capacity=2, replace=True, half_life=10.0)
    for step, (a, b) in ((0, (10, 90)), (10, (50, 50))):  # r = 45/150 and 95/150: b's score is the higher one
        state = replay.observe(replay.observe(state, "a", a, 100, step), "b", b, 100, step)
    assert replay.counts(state)["zone_boundary"] == 2
    state, events = replay.begin_epoch(replay.stage(state, [_task("x")], 1), 2)
    assert [entry.task_id for entry in events.retired] == ["a"]


# ------------------------------------------------------------------------------------- diversification
def _of(name, classes, calls="f", ancestry=("human0",)):
    task = dataclasses.replace(_task(name, ancestry), classes=classes)
    return dataclasses.replace(task, turns=(Turn("u", tuple(Call(call, {"name": name}) for call in calls)),))


def _mixed(**changes):
    """Ten human seeds: 5 of A, 3 of B, 2 of A and B; every call pattern is another one."""
    classes = [("A",)] * 5 + [("B",)] * 3 + [("A", "B")] * 2
    seeds = [_of(f"human{i}", names, "fghijklmno"[i], ()) for i, names in enumerate(classes)]
    return replay.create(seeds, ReplaySettings(**({"capacity": 8, "injection_fraction": 1.0} | changes)))


def test_no_class_takes_more_than_its_share_by_injection():
    new = [_of("a", ("A",), "pq"), _of("ab", ("A", "B"), "pr"), _of("b", ("B",), "ps"), _of("c", ("C",), "pt")]
    for share, expected in ((1.0, ("a", "ab", "b", "c")), (0.6, ("b", "c")), (0.5, ("c",)), (0.05, ())):
        state = replay.stage(_mixed(max_share=share), new, epoch=0)
        state, events = replay.begin_epoch(state, 1)
        assert events.injected == expected
        assert replay.counts(state)["pool_staged"] == 4 - len(expected)  # the others wait, none is lost


def test_a_share_counts_what_enters_with_it_and_room_comes_with_growth():
    state = replay.stage(_mixed(max_share=0.2), [_of(f"c{i}", ("C",), "pq" + "r" * i) for i in range(4)], epoch=0)
    state, events = replay.begin_epoch(state, 1)
    assert events.injected == ("c0", "c1")  # 2 of 10
    state = replay.stage(state, [_of(f"d{i}", (f"D{i}",), "q" * i) for i in range(4)], epoch=1)
    state, events = replay.begin_epoch(state, 2)
    assert events.injected == ("d0", "d1", "d2", "d3")  # 3 of 12 would be too many of C
    assert replay.begin_epoch(state, 3)[1].injected == ("c2",)  # 3 of 16


def test_no_call_pattern_takes_more_than_its_share():
    same = [_of(f"c{i}", (f"C{i}",), "gf") for i in range(3)]  # other classes, the same calls with other values
    other = [_of("d", ("D",), "fg")]
    _, events = replay.begin_epoch(replay.stage(_mixed(max_share=0.2), same + other, epoch=0), 1)
    assert events.injected == ("c0", "c1", "d")


def test_tasks_of_which_there_are_enough_do_not_become_seeds():
    ids = ["human0", "human5", "human8"]  # A, B, both
    assert replay.eligible(_mixed(), ids, 0) == [True, True, True]
    assert replay.eligible(_mixed(max_share=0.7), ids, 0) == [False, True, False]  # 8 of 10 would be of A
    assert replay.eligible(_mixed(max_share=0.5), ids, 0) == [False, False, False]
    queued = replay.stage(_mixed(max_share=0.7), [_of(f"b{i}", ("B",), "pq" + "r" * i) for i in range(2)], epoch=0)
    assert replay.eligible(queued, ids, 0) == [False, False, False]  # what waits counts too


# -------------------------------------------------------------------------------- curriculum stages
def test_a_stage_replaces_the_seeds_and_nothing_else():
    state = _pool(4, ["a", "b"], log_size=3)
    state = replay.observe(state, "a", 0, 10, step=1)
    state, _ = replay.begin_epoch(replay.stage(state, [_task("c"), _task("d")], epoch=1), 2)
    state = replay.stage(state, [_task("e")], epoch=2)
    new = replay.enter_stage(state, [_task("human9", ()), _task("human2", ())])
    assert [item.task.id for item in new.seeds] == ["human9", "human2"]  # in the order given
    assert dataclasses.replace(new, seeds=state.seeds) == state
    assert _ids(new) == ["human9", "human2", *_ids(state)[4:]]


def test_a_seed_that_stays_keeps_what_was_measured_and_a_new_one_has_nothing():
    state = replay.create(_seeds(3), ReplaySettings(cooldown=13))
    state = replay.mark_seed(replay.observe(state, "human1", 3, 4, step=5), "human1", 5)
    state = replay.enter_stage(state, _seeds(6)[1:])
    assert state.seeds[0] == replay.Item(_seeds(2)[1], (replay.Measurement(3, 4, 5),), 5)
    assert state.seeds[1:] == tuple(map(replay.Item, _seeds(6)[2:]))
    assert replay.eligible(state, ["human1"], 6) == [False] and replay.eligible(state, ["human5"], 6) == [True]
    with pytest.raises(KeyError, match="human0 is not in the pool"):
        replay.observe(state, "human0", 1, 4, step=6)
    again = replay.enter_stage(replay.enter_stage(state, []), _seeds(2))
    assert again.seeds == tuple(map(replay.Item, _seeds(2)))  # one that was away begins anew


def test_all_tasks_are_the_seeds_the_pool_and_the_queue():
    state = _pool(2, ["a", "b"], injection_fraction=0.5)  # floor(0.5 * 2) = 1: b still waits
    state = replay.stage(state, [_task("c")], epoch=1)
    assert [task.id for task in replay.all_tasks(state)] == ["human0", "human1", "a", "b", "c"]
    assert replay.all_tasks(state)[:3] == replay.active_tasks(state)
    state, _ = replay.begin_epoch(replay.observe(state, "a", 0, 10, step=1), 2)
    assert [task.id for task in replay.all_tasks(state)] == ["human0", "human1", "b", "c"]  # a left
    assert replay.all_tasks(replay.create([], ReplaySettings())) == ()


# ---------------------------------------------------------------------------------------- batches
def test_batches_cover_the_pool_and_the_first_tasks_fill_the_last():
    state = _pool(10, ["a"])
    batches = replay.epoch_batches(state, seed=0, epoch=3, batch_size=4)
    order = [task.id for batch in batches for task in batch]
    assert [len(batch) for batch in batches] == [4, 4, 4]
    assert sorted(order[:11]) == sorted(_ids(state))
    assert order[11:] == order[:1]
    assert all(len({task.id for task in batch}) == 4 for batch in batches)


def test_batches_depend_on_seed_and_epoch_alone():
    state = _pool(30)
    first = replay.epoch_batches(state, seed=0, epoch=3, batch_size=5)
    assert first == replay.epoch_batches(state, seed=0, epoch=3, batch_size=5)
    assert first != replay.epoch_batches(state, seed=1, epoch=3, batch_size=5)
    assert first != replay.epoch_batches(state, seed=0, epoch=4, batch_size=5)
    with pytest.raises(ValueError, match="a batch of 31 .* pool of 30"):
        replay.epoch_batches(state, seed=0, epoch=0, batch_size=31)


# ------------------------------------------------------------------------------- what always holds
def _json_round_trip(state):
    return replay.from_json(json.loads(json.dumps(replay.to_json(state))))


class Pool(RuleBasedStateMachine):
    @initialize(
        capacity=st.integers(0, 6), fraction=st.floats(0, 1), replace=st.booleans(), seeds=st.integers(0, 5)
    )
    def start(self, capacity, fraction, replace, seeds):
        settings = ReplaySettings(capacity=capacity, injection_fraction=fraction, replace=replace, log_size=1000)
        self.state = replay.create(_seeds(seeds), settings)
        self.num_seeds, self.epoch, self.step, self.offered, self.born = seeds, 0, 0, 0, {}

    @rule(numbers=st.lists(st.integers(0, 12), max_size=6))
    def stage(self, numbers):
        before = {entry.task.id for entry in self.state.staged} | set(_ids(self.state))
        self.state = replay.stage(self.state, [_task(f"g{i}") for i in numbers], self.epoch)
        for entry in self.state.staged:
            if entry.task.id not in before:
                self.born[entry.task.id] = self.epoch
        self.offered += len(numbers)

    @rule(data=st.data(), passed=st.integers(0, 20))
    def observe(self, data, passed):
        if ids := _ids(self.state):
            self.state = replay.observe(self.state, data.draw(st.sampled_from(ids)), passed, 20, self.step)
            self.step += 1

    @rule(data=st.data())
    def mark_seed(self, data):
        if ids := _ids(self.state):
            chosen = data.draw(st.sampled_from(ids))
            self.state = replay.mark_seed(self.state, chosen, self.step)
            assert replay.eligible(self.state, [chosen], self.step) == [False]

    @rule()
    def begin_epoch(self):
        self.epoch += 1
        before = set(_ids(self.state))
        trial = {item.task.id for item in self.state.items if item.status == "trial"}
        self.state, events = replay.begin_epoch(self.state, self.epoch)
        left = {entry.task_id for entry in events.retired}
        assert set(_ids(self.state)) == (before - left) | set(events.injected)
        assert not left & trial
        assert all(self.born[name] < self.epoch for name in events.injected)

    @invariant()
    def nothing_is_lost_doubled_or_over_capacity(self):
        state, counts = self.state, replay.counts(self.state)
        ids = _ids(state) + [entry.task.id for entry in state.staged]
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
    task = _json_round_trip(_pool(1, ["a"])).slots[0].task
    assert list(task.initial_state["Files"]) == ["z", "a"]
