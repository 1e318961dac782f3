"""Faults that no other file injects, one test each: nothing is lost, and nothing is silently trained on.

docs/why/faults.md lists all of them with the tests of the other files: journals, workers, servers, evaluation.
"""

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import tempfile
import time
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import beside_toy
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from grpo_toy import objective_with
from test_checkpoint import flip_a_bit, largest
from test_grpo import G, N, make_batch, make_standing, params, policy  # noqa: F401 (fixtures)
from test_resume import divergences, end_of, start, train_through, whole  # noqa: F401 (fixtures)
from training_toy import CONFIG, play, toy, varied_reward

from rods_jax import grpo, journal
from rods_jax.config import ConfigError
from rods_jax.environments.protocol import EpisodeBatch, Failure
from rods_jax.metrics import read_metrics
from rods_jax.preemption import HALTED, SAVED, Stopped
from rods_jax.run import stages, training
from rods_jax.run.directory import alone


# -------------------------------------------------------------------- the machine, in real processes
@pytest.fixture(scope="module")
def killed(tmp_path_factory, start):  # noqa: F811
    """A run that was killed at its fourth checkpoint."""
    run = tmp_path_factory.mktemp("killed") / "run"
    start(run, [], ("rods_jax.checkpoint.save", 4)).join()
    assert end_of(run) is None
    return run


@pytest.fixture
def begun(tmp_path, killed):
    return shutil.copytree(killed, tmp_path / "run")


@pytest.mark.slow  # the next test takes the same way, and is quick
def test_a_full_disk_ends_the_run_and_costs_nothing(begun, start, whole):  # noqa: F811
    start(begun, [], ("full disk", 2)).join()
    assert end_of(begun).startswith("2 ") and "rror" in end_of(begun), end_of(begun)
    Path(f"{begun}.end").unlink()
    train_through(begun, start, [], iter(()), 0)
    assert not divergences(begun, whole)


def test_a_directory_that_cannot_be_written_ends_the_run_and_costs_nothing(begun, start, whole):  # noqa: F811
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        shutil.copytree(begun, run)
        Path(folder).chmod(0o777)
        run.chmod(0o555)
        start(run, [], ("without privileges", 0)).join()
        assert re.match("2 error: .+: Permission denied", end_of(run)), end_of(run)
        assert not list(run.glob("*.partial"))
        run.chmod(0o755)
        Path(f"{run}.end").unlink()
        train_through(run, start, [], iter(()), 0)
        assert not divergences(run, whole)


def test_a_flipped_bit_costs_the_steps_since_the_checkpoint_before(begun, start, whole):  # noqa: F811
    # Which of its saves the killed run had finished is its own affair.
    *_, before, newest = sorted(int(path.name) for path in (begun / "checkpoints").iterdir() if path.name.isdecimal())
    flip_a_bit(largest(begun / "checkpoints" / str(newest) / "train_state"))
    train_through(begun, start, [], iter(()), 0)
    assert f"{newest} is damaged" in end_of(begun) and f"resumed at step {before}" in end_of(begun)
    shutil.rmtree(begun / "checkpoints" / f"damaged-{newest}")
    assert not divergences(begun, whole)


def test_a_clock_that_jumps_back_changes_nothing(begun, start, whole):  # noqa: F811
    start(begun, [], ("clock back", 3600)).join()
    assert end_of(begun).startswith("0 "), end_of(begun)
    assert not divergences(begun, whole)


def test_a_signal_saves_within_its_time_and_the_resumed_run_is_the_uninterrupted_one(tmp_path, start, whole):  # noqa: F811
    run = tmp_path / "run"
    process = start(run, [])
    while not (run / "metrics.jsonl").exists() or len(read_metrics(run / "metrics.jsonl")) < 3:
        assert process.alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    process.join(30)
    assert end_of(run).startswith(f"{SAVED} ") and "stopped by a signal at step" in end_of(run), end_of(run)
    Path(f"{run}.end").unlink()
    train_through(run, start, [], iter(()), 0)
    assert not divergences(run, whole)


# -------------------------------------------------------------------------------- what a run relies on
@pytest.fixture(scope="module")
def short(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "short"
    play(toy(directory, max_steps=2))
    return directory


def test_two_trainers_do_not_share_a_directory(short):
    before = (short / "metrics.jsonl").read_bytes()
    with alone(short), pytest.raises(ConfigError, match="is being trained by another process"):
        play(toy(short, max_steps=4))
    assert (short / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("part", ["tasks", "tokenizer", "template"])
def test_other_tasks_tokens_or_templates_are_refused(short, tmp_path, part, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(short, run)
    if part == "tasks":
        path = run / "tasks" / "held_out.jsonl"
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    elif part == "tokenizer":
        path = run / "tokenizer" / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 77}))
    else:
        monkeypatch.setattr("rods_jax.codecs.qwen.write", lambda calls: f"<calls>{len(calls)}</calls>")
    with pytest.raises(ConfigError, match=f": {part} changed since the checkpoint was written"):
        play(toy(run, max_steps=4))


@pytest.mark.parametrize("name", ["trajectories.jsonl", "synthesis/outcomes.jsonl"])
def test_a_damaged_record_is_refused_before_later_checkpoints_go(short, tmp_path, name):
    run = tmp_path / "run"
    shutil.copytree(short, run)
    before = sorted(path.name for path in (run / "checkpoints").iterdir())
    (run / "synthesis").mkdir()
    with journal.writing(run / "synthesis/outcomes.jsonl") as append:
        append({"step": 1, "n": 1}, {"step": 2, "n": 2})
    (run / name).write_text((run / name).read_text().replace('"step": 1,', '"step": 1;'))
    with pytest.raises(ValueError, match=f"{name}, line [0-9]+: (it was changed|not JSON)"):
        play(toy(run, max_steps=4), step=0)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == before and "2" in before


# ------------------------------------------------------------------------------- numbers that are none
@jax.custom_vjp
def poisoned(x, value):
    """x, whose gradient is multiplied by the value."""
    return x


poisoned.defvjp(lambda x, value: (x, value), lambda value, gradient: (gradient * value, None))


def with_sick(place: str, value: float, batch, policy):  # noqa: F811
    if place == "reward":
        rewards = batch.rewards_NG.copy()
        rewards[tuple(np.argwhere(batch.valid_NG)[0])] = value
        return batch._replace(rewards_NG=rewards), policy
    if place == "log-probability":
        log_probs = np.array(batch.behavior_log_probs_NGS)
        log_probs[tuple(np.argwhere(batch.action_mask_NGS & batch.valid_NG[..., None])[0])] = value
        return batch._replace(behavior_log_probs_NGS=log_probs), policy
    return batch, policy._replace(forward=lambda *given: poisoned(policy.forward(*given), value))


@functools.cache  # compiled once for all the values that lie in the batch
def updating(policy):  # noqa: F811
    optimizer, objective = optax.adam(1e-2), objective_with()
    return partial(grpo.create_state, optimizer=optimizer, objective=objective), grpo.jit_update(
        policy, optimizer, objective
    )


PLACES, VALUES = ("reward", "log-probability", "gradient"), (np.nan, np.inf, -np.inf)
QUICK = tuple(zip(PLACES, VALUES, strict=True))  # each place and each value once; every pair compiles anew


@pytest.mark.parametrize(
    ("place", "value"),
    [pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow) for pair in product(PLACES, VALUES)],
)
def test_a_number_that_is_not_finite_is_never_trained_on(policy, params, place, value):  # noqa: F811
    create, update = updating(policy)
    good = make_batch(policy, params)
    state, _ = update(
        create(jax.tree.map(jnp.copy, params)), good, make_standing(), 1.0
    )  # its optimizer remembers something
    before = jax.tree.map(np.asarray, state)
    batch, sick = with_sick(place, value, good, policy)
    state, feedback = updating(sick)[1](state, batch, make_standing(), 1.0)
    assert feedback.metrics["skipped"] and state.step == 2
    jax.tree.map(np.testing.assert_array_equal, state[:3], before[:3])
    state, feedback = update(state, good, make_standing(), 1.0)
    assert not feedback.metrics["skipped"]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))


SICK = {"now": False}


def sick_reward(trajectory) -> float:
    return np.nan if SICK["now"] else varied_reward(trajectory)


@pytest.mark.parametrize("policy_of_run", ["skip", "stop"])
def test_such_a_step_is_counted_and_told_or_ends_the_run_after_saving(tmp_path, monkeypatch, policy_of_run):
    stage = replace(CONFIG.stages[0], reward=sick_reward)
    update = replace(CONFIG.update, on_nonfinite=policy_of_run)
    config = toy(tmp_path / "run", stages=(stage,), update=update, max_steps=3)
    collect = stages.collect

    def collect_then_fall_ill(*arguments, step, **keywords):
        monkeypatch.setitem(SICK, "now", step == 1)
        return collect(*arguments, step=step, **keywords)

    monkeypatch.setattr(stages, "collect", collect_then_fall_ill)
    if policy_of_run == "stop":
        with pytest.raises(Stopped, match="which is saved: step 2 was not finite") as stopped:
            play(config)
        assert stopped.value.status == HALTED
        saved = {int(path.name) for path in (tmp_path / "run/checkpoints").iterdir()}
        assert saved & {2, 3}
    else:
        assert "step 2 was skipped" in play(config)
    assert [r.get("skipped") for r in read_metrics(tmp_path / "run/metrics.jsonl")][:3] == [None, False, True]


# ------------------------------------------------------------------------------- nothing to learn from
def test_an_empty_pool_ends_the_run_in_one_sentence_after_its_last_checkpoint(tmp_path, monkeypatch):
    emptying = replace(
        beside_toy.CONFIG.replay, retire_seeds=True, upper=0.3, retire_above=0.4
    )  # all pass half of their turns
    monkeypatch.setattr(beside_toy, "CONFIG", replace(beside_toy.CONFIG, replay=emptying))
    with pytest.raises(ValueError, match="a batch of 2 different tasks cannot be drawn from a pool of 0"):
        beside_toy.run(tmp_path, lambda *_: [], until=100)
    assert beside_toy.position_of(tmp_path).step == len(beside_toy.SEEDS) // 2


@pytest.mark.parametrize("ill", ["one", "all"])
def test_tasks_that_fail_by_infrastructure_get_no_more_than_their_turn(tmp_path, monkeypatch, ill):
    whole_episodes = training.episodes_of

    @contextlib.contextmanager
    def episodes_of(config, domain):
        with whole_episodes(config, domain) as start_:
            seeds = [task.id for task in CONFIG.build_tasks(domain, CONFIG.seed).seeds]
            broken = set(seeds if ill == "all" else seeds[:1])

            def some(tasks, rules=None) -> EpisodeBatch:
                batch = start_(tasks, rules=rules) if rules else start_(tasks)
                sick = {place for place, task in enumerate(tasks) if task.id in broken}
                openings = tuple(Failure("no machine") if i in sick else t for i, t in enumerate(batch.openings))
                return EpisodeBatch(openings, batch.act)

            yield some

    monkeypatch.setattr(training, "episodes_of", episodes_of)
    update = replace(CONFIG.update, kl_coefficient=0.0, entropy_coefficient=0.0)
    said = play(toy(tmp_path / "run", update=update, max_steps=6))
    records = read_metrics(tmp_path / "run/metrics.jsonl")[1:]
    for epoch in (0, 1):
        ids = [task for record in records if record["epoch"] == epoch for task in record["task_ids"]]
        assert len(set(ids)) >= 6 and max(map(ids.count, ids)) <= 2  # the last batch is filled up
    assert not any(record["skipped"] for record in records)
    if ill == "all":
        assert all(record["failed_rollouts"] == 4 and record["seeds"] == 0 for record in records)
        assert {record["grad_norm"] for record in records} == {0.0}
        assert records[0]["failures"] == {"no machine": 4} and "rollouts so far: 24 failed" in said
        assert said.count("step 1: every rollout failed: 4 x no machine") == said.count("every rollout failed") == 1
    else:
        assert sum(record["failed_rollouts"] for record in records) == 4  # 2 rollouts in each of 2 epochs
