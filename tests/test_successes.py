"""Success replay: what is remembered, whose place it takes, and what is measured all the same."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_filtering import CONFIG as FILTERED
from test_filtering import KINDS, SEEDS, G, played, run, task

from rods_jax import checkpoint, replay
from rods_jax.config import RetentionConfig
from rods_jax.loop import Position
from rods_jax.records import RecordError
from rods_jax.run.positions import host_of, restore_position, save_position
from rods_jax.successes import Replay, Success, as_played, read, remembered, with_successes, written
from rods_jax.types import TrainState


def success(tokens, acted, log_probs):
    return Success(np.int32(tokens), np.array(acted), np.float32(log_probs), 1.0)


def plain(successes):
    """Types, shapes and values, for a comparison."""
    return {name: [(np.asarray(x).dtype, np.asarray(x).tolist()) for x in one] for name, one in successes.items()}


SUCCESS = success([7, 8, 9], [True, False, True], [-0.5, 0.0, -0.25])


def batch_of(**outcomes):
    """Two checks a rollout; the suffixes hold four tokens."""
    tasks = [task(name[1:]) for name in outcomes]
    return played({name[1:]: kind for name, kind in outcomes.items()}, [])(tasks).batch, tasks


# ------------------------------------------------------------------------------------------ by hand
def test_a_reward_that_is_not_finite_is_not_replaced():
    """The step that holds it is skipped; a success in its place would hide it."""
    batch, tasks = batch_of(t1=(0, 0, 0, 0))
    batch.rewards_NG[0, 2] = np.nan
    learnt, replays = with_successes(batch, tasks, {"1": SUCCESS}, (4,))
    assert replays == () and np.isnan(learnt.rewards_NG[0, 2])
    # An invalid rollout's reward counts for nothing.
    batch.valid_NG[0, 2] = False
    assert len(with_successes(batch, tasks, {"1": SUCCESS}, (4,)).replays) == 1


def test_a_group_that_was_not_measured_stays_so():
    found = as_played(
        [Replay(0, 1.0, 0.0, 0.0), Replay(1, 1.0, 0.25, 0.5)],
        {"reward_mean": 0.5, "valid_rollouts": 5, "zero_variance": 0.0},
        np.float32([np.nan, 0.5]),
        np.float32([np.nan, 0.1]),
    )
    np.testing.assert_array_equal(found["task_mean"], np.float32([np.nan, 0.25]))
    np.testing.assert_array_equal(found["task_variance"], np.float32([np.nan, 0.5]))


def test_a_success_takes_the_place_of_the_worst_rollout_of_a_group_that_failed():
    batch, tasks = batch_of(t1=(1, 0, 0, 1), t2=(2, 0, 0, 0), t3=(0, 0, 0, 0), t4=(1, 1, 1, 1))
    batch.valid_NG[3, 0] = False
    learnt, replays = with_successes(batch, tasks, {"1": SUCCESS, "2": SUCCESS, "4": SUCCESS}, (4, 6))
    # The second group has a success, and none is known of the third.
    assert replays == (Replay(0, 1.0, 0.25, 0.0625), Replay(3, 0.5, 0.5, 0.0))
    places = np.zeros((4, G), bool)
    places[0, 1] = places[3, 1] = True
    for n, g in zip(*np.nonzero(places)):
        assert learnt.suffix_tokens_NGS[n, g].tolist() == [7, 8, 9, 0] and learnt.suffix_lengths_NG[n, g] == 3
        assert learnt.action_mask_NGS[n, g].tolist() == [True, False, True, False]
        assert learnt.behavior_log_probs_NGS[n, g].tolist() == [-0.5, 0.0, -0.25, 0.0]
        assert learnt.rewards_NG[n, g] == 1.0
    # Every other rollout is as it was, and so are the checks by which the pool measures all of them.
    for name in ("passed_NG", "checks_N", "valid_NG"):
        np.testing.assert_array_equal(getattr(learnt, name), getattr(batch, name))
    for name in ("suffix_tokens_NGS", "suffix_lengths_NG", "behavior_log_probs_NGS", "rewards_NG"):
        np.testing.assert_array_equal(getattr(learnt, name)[~places], getattr(batch, name)[~places])


@pytest.mark.parametrize(("length", "width", "count"), [(4, 4, 1), (5, 6, 1), (6, 6, 1), (7, 4, 0)])
def test_a_longer_success_widens_the_batch_to_the_next_size_or_stays_away(length, width, count):
    batch, tasks = batch_of(t1=(0, 0, 0, 0))
    long = success([7] * length, [True] * length, [-1.0] * length)
    learnt, replays = with_successes(batch, tasks, {"1": long}, (4, 6))
    assert learnt.suffix_tokens_NGS.shape[-1] == width and len(replays) == count
    assert (learnt.suffix_tokens_NGS[0, 0] == 7).sum() == count * length


def test_a_group_without_a_valid_rollout_gets_no_success():
    batch, tasks = batch_of(t1=(0, 0, 0, 0))
    batch.valid_NG[:] = False
    learnt, replays = with_successes(batch, tasks, {"1": SUCCESS}, (4,))
    assert replays == () and not learnt.rewards_NG.any()


def test_the_latest_success_of_each_task_of_the_pool_is_remembered():
    batch, tasks = batch_of(t1=(0, 2, 2, 0), t2=(1, 1, 0, 1), t3=(2, 0, 0, 0))
    batch.valid_NG[2, 0] = False  # it does not count
    batch.suffix_lengths_NG[0, 1] = 2
    before = {"1": SUCCESS, "2": SUCCESS, "9": SUCCESS}
    found = remembered(before, batch, tasks, [*tasks, task("4")])
    expected = {"1": success([1, 1], [True, True], [0.0, 0.0]), "2": SUCCESS}  # 9 has left the pool
    assert plain(found) == plain(expected)
    # A view would keep the whole batch alive.
    assert not np.shares_memory(found["1"].tokens_S, batch.suffix_tokens_NGS)


def test_a_record_tells_the_rewards_that_were_played():
    metrics = {"reward_mean": np.float32(0.5), "valid_rollouts": np.int32(8), "zero_variance": np.float32(0.0)}
    mean_N, variance_N = np.float32([0.5, 0.5]), np.float32([0.25, 0.1])
    told = as_played([Replay(0, 1.0, 0.25, 0.0)], metrics, mean_N, variance_N)
    assert told["task_mean"].tolist() == [0.25, 0.5] and told["task_variance"].tolist() == [0.0, np.float32(0.1)]
    # One of eight rollouts is worth 1 less; one of two groups has no variance.
    assert (told["reward_mean"], told["zero_variance"]) == (0.375, 0.5) and as_played(
        (), metrics, mean_N, variance_N
    ) == {}


def test_groups_without_variance_are_those_of_the_update_and_what_was_replayed():
    """Of four groups one was broken, so that the update counts it and its mean is unknown; one has a single valid rollout."""
    metrics = {"reward_mean": np.float32(0.5), "valid_rollouts": np.int32(9), "zero_variance": np.float32(0.5)}
    mean_N, variance_N = np.float32([np.nan, 0.25, 1.0, 0.5]), np.float32([np.nan, 0.1, 0.0, 0.2])
    told = as_played([Replay(1, 1.0, 0.0, 0.0), Replay(2, 1.0, 0.0, 0.0)], metrics, mean_N, variance_N)
    assert told["zero_variance"] == 0.75 and told["task_variance"].tolist()[1:3] == [0, 0]


# ------------------------------------------------------------------------------------------ in a run
def test_a_run_replays_what_it_solved_before_measures_what_it_played_and_resumes():
    """From step 3 on, when each task was played once, all fail; of d only some rollouts had passed all checks."""
    kinds = lambda step: KINDS if step < 3 else dict.fromkeys(KINDS, (0, 1, 0, 0))
    rollout = replace(FILTERED.rollout, keep=None, replay_success=True, max_suffix_tokens=64)
    config = replace(FILTERED, rollout=rollout)
    whole, _, final = run(config, kinds=kinds)
    # Of a, b, d and e a success is known, of c and f none.
    expected = [
        0 if n < 3 else sum(chr(int(name)) in "abde" for name in one["task_ids"]) for n, one in enumerate(whole)
    ]
    assert [one.get("replayed_rollouts", 0) for one in whole] == expected and sum(expected) == 8
    assert {chr(int(name)) for name in final.successes} == set("abde")
    assert all(np.all(one["task_mean"] == 0.125) for one in whole[3:])
    assert all(one["reward_mean"] == pytest.approx(0.125) for one in whole[3:])
    # The pool knows what it knows without successes.
    without, _, plain = run(replace(config, rollout=replace(rollout, replay_success=False)), kinds=kinds)
    assert final.replay == plain.replay and not plain.successes
    assert not any("replayed_rollouts" in one for one in without)
    for until in (2, 4):
        first, _, stopped = run(config, until=until, kinds=kinds)
        again = replace(stopped, successes=read(json.loads(json.dumps(written(stopped.successes)))))
        rest, _, resumed = run(config, start=again, kinds=kinds)
        assert [one.get("replayed_rollouts", 0) for one in first + rest] == expected
        assert resumed.successes.keys() == final.successes.keys() and resumed.replay == final.replay


def test_a_checkpoint_holds_the_successes_bit_for_bit(tmp_path):
    state = TrainState({"w": np.ones(2, np.float32)}, None, (), np.int32(0))
    rng = np.random.default_rng(0)
    some = success([1, 2], [True, False], rng.normal(size=2))
    position = Position(state, replay.create(SEEDS, FILTERED.replay), step=1, successes={SEEDS[0].id: some})
    assert "successes" not in host_of(replace(position, successes={}))  # as runs without have always saved
    with checkpoint.open_checkpoints(tmp_path / "checkpoints", RetentionConfig()) as checkpoints:
        save_position(checkpoints, position)
        found, _ = restore_position(checkpoints, like_of(state), FILTERED.replay)
    assert plain(found.successes) == plain(position.successes)


@pytest.mark.parametrize(
    "array", [[1, 2, 3], ["<i4"], ["<i4", "AAA"], ["<i4", "AAAAAAA="], ["nope", ""], 7, ["|O", ""]]
)
def test_what_no_success_was_written_as_is_refused(array):
    record = written({"1": SUCCESS})
    record["1"][0] = array
    with pytest.raises(RecordError, match="not an array of a success"):
        read(json.loads(json.dumps(record)))


def like_of(state):
    return jax.tree.map(jnp.asarray, state)


def test_a_success_that_does_not_count_makes_no_group_solved():
    batch, tasks = batch_of(t1=(2, 0, 0, 0))
    batch.valid_NG[0, 0] = False
    _, replays = with_successes(batch, tasks, {"1": SUCCESS}, (4,))
    assert [one.place for one in replays] == [0]


def test_a_new_stage_forgets_the_successes_of_the_one_before():
    stages = tuple(replace(FILTERED.stages[0], name=name, epochs=1) for name in ("first", "second"))
    rollout = replace(FILTERED.rollout, keep=None, replay_success=True, max_suffix_tokens=64)
    kinds = lambda step: KINDS if step < 3 else dict.fromkeys(KINDS, (0, 1, 0, 0))
    records, _, final = run(replace(FILTERED, stages=stages, rollout=rollout), kinds=kinds)
    assert not final.successes and not any("replayed_rollouts" in one for one in records)
