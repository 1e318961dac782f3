"""What shapes a pool besides its life cycle: a share that nothing may exceed, curriculum stages, batches."""

import dataclasses

import pytest
from replay_toy import begin, human_seeds, ids_of, observe, pool_of, stage, task_named

from rods_jax import replay
from rods_jax.config import ReplaySettings
from rods_jax.replay import life
from rods_jax.types import Call, Turn, World


# ------------------------------------------------------------------------------------- diversification
def _of(name, classes, calls="f", ancestry=("human0",)):
    task = dataclasses.replace(task_named(name, ancestry), world=World(classes))
    return dataclasses.replace(task, turns=(Turn("u", tuple(Call(call, {"name": name}) for call in calls)),))


def _mixed(**changes):
    """Ten human seeds: 5 of A, 3 of B, 2 of A and B; every call pattern is another one."""
    classes = [("A",)] * 5 + [("B",)] * 3 + [("A", "B")] * 2
    seeds = [_of(f"human{i}", names, "fghijklmno"[i], ()) for i, names in enumerate(classes)]
    return replay.create(seeds, ReplaySettings(**({"capacity": 8, "injection_fraction": 1.0} | changes)))


def test_no_class_takes_more_than_its_share_by_injection():
    new = [_of("a", ("A",), "pq"), _of("ab", ("A", "B"), "pr"), _of("b", ("B",), "ps"), _of("c", ("C",), "pt")]
    for share, expected in ((1.0, ("a", "ab", "b", "c")), (0.6, ("b", "c")), (0.5, ("c",)), (0.05, ())):
        state = stage(_mixed(max_share=share), new, epoch=0)
        state, events = begin(state, 1)
        assert events.injected == expected
        assert replay.counts(state)["pool_staged"] == 4 - len(expected)  # the others wait, none is lost


def test_a_share_counts_what_enters_with_it_and_room_comes_with_growth():
    state = stage(_mixed(max_share=0.2), [_of(f"c{i}", ("C",), "pq" + "r" * i) for i in range(4)], epoch=0)
    state, events = begin(state, 1)
    assert events.injected == ("c0", "c1")  # 2 of 10
    state = stage(state, [_of(f"d{i}", (f"D{i}",), "q" * i) for i in range(4)], epoch=1)
    state, events = begin(state, 2)
    assert events.injected == ("d0", "d1", "d2", "d3")  # 3 of 12 would be too many of C
    assert begin(state, 3)[1].injected == ("c2",)  # 3 of 16


def test_no_call_pattern_takes_more_than_its_share():
    same = [_of(f"c{i}", (f"C{i}",), "gf") for i in range(3)]  # other classes, the same calls with other values
    other = [_of("d", ("D",), "fg")]
    _, events = begin(stage(_mixed(max_share=0.2), same + other, epoch=0), 1)
    assert events.injected == ("c0", "c1", "d")


def test_tasks_of_which_there_are_enough_do_not_become_seeds():
    ids = ["human0", "human5", "human8"]  # A, B, both
    assert replay.eligible(_mixed(), ids, 0) == [True, True, True]
    assert replay.eligible(_mixed(max_share=0.7), ids, 0) == [False, True, False]  # 8 of 10 would be of A
    assert replay.eligible(_mixed(max_share=0.5), ids, 0) == [False, False, False]
    queued = stage(_mixed(max_share=0.7), [_of(f"b{i}", ("B",), "pq" + "r" * i) for i in range(2)], epoch=0)
    assert replay.eligible(queued, ids, 2) == [False, False, False]  # what waits counts too


# -------------------------------------------------------------------------------- curriculum stages
def test_a_stage_replaces_the_seeds_and_nothing_else():
    state = pool_of(4, ["a", "b"], log_size=3)
    state = observe(state, "a", 0, 10, step=1)
    state, _ = begin(stage(state, [task_named("c"), task_named("d")], epoch=1), 2)
    state = stage(state, [task_named("e")], epoch=2)
    new = replay.enter_stage(state, [task_named("human9", ()), task_named("human2", ())])
    assert [item.task.id for item in new.seeds] == ["human9", "human2"]  # in the order given
    assert dataclasses.replace(new, seeds=state.seeds) == state
    assert ids_of(new) == ["human9", "human2", *ids_of(state)[4:]]


def test_a_seed_that_stays_keeps_what_was_measured_and_a_new_one_has_nothing():
    state = replay.create(human_seeds(3), ReplaySettings(cooldown=13))
    state = replay.mark_seeds(observe(state, "human1", 3, 4, step=5), ["human1"], 5)
    state = replay.enter_stage(state, human_seeds(6)[1:])
    assert state.seeds[0] == replay.Item(human_seeds(2)[1], (replay.Measurement(3, 4, 5),), 5)
    assert state.seeds[1:] == tuple(map(replay.Item, human_seeds(6)[2:]))
    assert replay.eligible(state, ["human1"], 6) == [False] and replay.eligible(state, ["human5"], 6) == [True]
    with pytest.raises(KeyError, match="human0 is not in the pool"):
        observe(state, "human0", 1, 4, step=6)
    again = replay.enter_stage(replay.enter_stage(state, []), human_seeds(2))
    assert again.seeds == tuple(map(replay.Item, human_seeds(2)))  # one that was away begins anew


def test_all_tasks_are_the_seeds_the_pool_and_the_queue():
    state = pool_of(2, ["a", "b"], injection_fraction=0.5)  # floor(0.5 * 2) = 1: b still waits
    state = stage(state, [task_named("c")], epoch=1)
    assert [task.id for task in replay.all_tasks(state)] == ["human0", "human1", "a", "b", "c"]
    assert replay.all_tasks(state)[:3] == replay.active_tasks(state)
    state, _ = begin(observe(state, "a", 0, 10, step=1), 2)
    assert [task.id for task in replay.all_tasks(state)] == ["human0", "human1", "b", "c"]  # a left
    assert replay.all_tasks(replay.create([], ReplaySettings())) == ()


# ---------------------------------------------------------------------------------------- batches
def test_batches_cover_the_pool_and_the_first_tasks_fill_the_last():
    state = pool_of(10, ["a"])
    batches = replay.epoch_batches(state, seed=0, epoch=3, batch_size=4)
    order = [task.id for batch in batches for task in batch]
    assert [len(batch) for batch in batches] == [4, 4, 4]
    assert sorted(order[:11]) == sorted(ids_of(state))
    assert order[11:] == order[:1]
    assert all(len({task.id for task in batch}) == 4 for batch in batches)


def test_batches_depend_on_seed_and_epoch_alone():
    state = pool_of(30)
    first = replay.epoch_batches(state, seed=0, epoch=3, batch_size=5)
    assert first == replay.epoch_batches(state, seed=0, epoch=3, batch_size=5)
    assert first != replay.epoch_batches(state, seed=1, epoch=3, batch_size=5)
    assert first != replay.epoch_batches(state, seed=0, epoch=4, batch_size=5)
    with pytest.raises(ValueError, match="a batch of 31 .* pool of 30"):
        replay.epoch_batches(state, seed=0, epoch=0, batch_size=31)


def test_traits_are_counted_only_where_a_share_bounds_them(monkeypatch):
    """Counting them takes longer than all else that a step asks of a pool of thousands."""
    state, counted, traits_of = replay.create(human_seeds(3), ReplaySettings()), [], life.traits_of
    monkeypatch.setattr(life, "traits_of", lambda tasks: traits_of(counted.append(len(tasks)) or tasks))
    assert replay.eligible(state, ["human0", "human2"], step=1) == [True, True]
    bounded = dataclasses.replace(state, settings=ReplaySettings(max_share=0.5))
    assert replay.eligible(bounded, ["human0", "human2"], step=1) == [False, False]  # all three have the same class
    assert counted == [0, 3]
