"""The whole loop in small: a life cycle, and a resumed run that equals the uninterrupted one bit for bit."""

import contextlib
import io
import json
import random
import shutil
from dataclasses import replace
from functools import partial
from itertools import count
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from models.decoder import DecoderConfig
from models.families import Pretrained
from models.learner import decoder
from rods_jax import checkpoint, grpo, supervised
from rods_jax.boundary import any_task
from rods_jax.codecs.documents import tool_name
from rods_jax.codecs.qwen import qwen_codec
from rods_jax.codecs.tokenizer import train_tokenizer
from rods_jax.config import (
    ColdStartConfig,
    Config,
    ConfigError,
    EvaluationConfig,
    Habits,
    ReplaySettings,
    RolloutConfig,
    StageConfig,
    UpdateConfig,
)
from rods_jax.environments.protocol import TaskSplits
from rods_jax.environments.workplace.domain import WORKPLACE
from rods_jax.metrics import TIMED, read_metrics
from rods_jax.preemption import HALTED, Stopped
from rods_jax.rewards import format_reward, progress_reward
from rods_jax.run import directory as place
from rods_jax.run import train, training
from rods_jax.run.cold_start import _initial
from rods_jax.synthesis.pipeline import author_tasks


def few_tasks(domain, seed) -> TaskSplits:
    tasks = author_tasks(domain, count=44, rng=random.Random(seed), turns=(1, 2), calls_per_turn=(1, 1))
    return TaskSplits(seeds=tasks[:8], held_out=tasks[8:12], validation=tasks[12:16], practice=tasks[16:])


CONFIG = Config(
    name="tiny",
    seed=0,
    run_dir="",
    domain=lambda: WORKPLACE,
    build_tasks=few_tasks,
    tokenizer=partial(train_tokenizer, vocab_size=640),
    codec=partial(qwen_codec, document=tool_name),
    learner=decoder,
    model=DecoderConfig(640, 1, 16, 2, 1, 8, 16),
    cold_start=ColdStartConfig(
        learning_rate=3e-3, habits=Habits(skip=0.1), batch_size=4, suffix_sizes=(64, 128), max_steps=4,
        target_reward=0.9, evaluate_every=2, rounds=1,
    ),
    stages=(
        StageConfig(name="format", reward=format_reward, epochs=1, synthesis=False, categories=("base",)),
        StageConfig(name="online", reward=progress_reward, epochs=3, synthesis=True),
    ),
    rollout=RolloutConfig(
        tasks_per_step=2, group_size=2, max_prompt_tokens=96, max_suffix_tokens=128, max_action_tokens=12,
        observation_chunk=32, max_attempts=2, suffix_sizes=(96,),  # gold calls are longer
    ),
    update=UpdateConfig(
        learning_rate=1e-3, ratio=grpo.token_ratio, aggregate=grpo.sequence_mean, signal=any_task
    ),  # a policy from scratch has no other seeds
    replay=ReplaySettings(capacity=8, cooldown=2, surplus=100.0, lower=0.0001, upper=0.9),
    evaluation=EvaluationConfig(num_tasks=4, every_epochs=2),
    checkpoint_every=2,
)  # fmt: skip


def play(directory, *, resume=False, **changes):
    config = replace(CONFIG, run_dir=str(directory), **changes)
    train(config, resume=resume, console=Console(file=io.StringIO()))
    records = read_metrics(directory / "metrics.jsonl")
    return [{k: v for k, v in record.items() if not k.startswith(TIMED)} for record in records]


def newest(directory):
    """Every array and host value of the newest checkpoint."""
    with checkpoint.open_checkpoints(directory / "checkpoints") as checkpoints:
        step = checkpoints.latest_step()
        restored = checkpoints.restore(step)
        return step, jax.tree.map(np.asarray, restored.train_state), restored.host


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "whole"
    return directory, play(directory)


def test_the_run_directory_holds_everything_one_may_want(whole):
    directory, records = whole
    assert json.loads((directory / "config.json").read_text())["rollout"]["group_size"] == 2
    for name in ("metrics.jsonl", "trajectories.jsonl", "summary.json", "cold_start.json", "plots/overview.png"):
        assert (directory / name).stat().st_size > 0
    acceptance = json.loads((directory / "fidelity.json").read_text())["acceptance"]
    assert acceptance["dispatched"] == sum(record.get("seeds", 0) for record in records)
    assert acceptance["accepted"] == sum(record.get("candidates", 0) for record in records)
    assert [record["step"] for record in records] == list(range(len(records)))
    assert {record["stage"] for record in records[1:]} == {"format", "online"}
    assert "held_out_progress" in records[0] and "held_out_greedy" in records[-1]
    formats = [record for record in records[1:] if record["stage"] == "format"]
    assert all(record["candidates"] == 0 and record["pool_human"] == 2 for record in formats)
    assert all(record["failed_rollouts"] == 0 for record in records[1:])


def test_a_run_records_who_enters_and_leaves_the_pool(whole):
    _, records = whole
    entered = [name for record in records for name in record.get("entered_ids", ())]
    assert len(entered) == records[-1]["injected"] > 0 and all("~" in name for name in entered)
    for reason in ("mastered", "hard", "pruned", "stale"):
        left = [name for record in records for name in record.get("left_ids", {}).get(reason, ())]
        assert len(left) == records[-1][f"retired_{reason}"]
    assert {record["epoch"] for record in records if "entered_ids" in record} <= {1, 2, 3}


def test_kept_trajectories_have_their_reward_and_the_log_probability_of_every_token(whole):
    directory, _ = whole
    for kept in read_metrics(directory / "trajectories.jsonl"):
        assert 0 <= kept["reward"] <= 1 and len(kept["tokens"]) == len(kept["log_probs"]) >= len(kept["steps"]) > 0
        for tokens, log_probs, step in zip(kept["tokens"], kept["log_probs"], kept["steps"]):
            assert len(tokens) == len(log_probs) and all(one <= 0 for one in log_probs)
            said = "".join(tokens)
            assert said == step["text"] or "\ufffd" in said  # a token may be a part of a character


def test_on_a_mesh_the_whole_state_of_a_cold_start_lies_there_and_so_does_a_restored_one():
    learner = decoder(replace(CONFIG, mesh=(8, 1, 1, 1)))(640)
    optimizer = grpo.create_optimizer(1e-3, warmup_steps=1, decay_steps=2, b2=0.98)
    params = learner.policy.init(jax.random.key(0))
    state = _initial(optimizer, learner)(params)
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves((params, state))} == {8}
    jax.tree.map(np.testing.assert_array_equal, state, optimizer.init(params))


def test_a_tokenizers_further_templates_are_a_part_of_it(tmp_path):
    tokenizer = train_tokenizer(["a lamp and a door"], vocab_size=300)
    tokenizer.chat_template = {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    digests = []
    for name, template in (("one", "{{ tools }}"), ("same", "{{ tools }}"), ("other", "{{ messages }}{{ tools }}")):
        tokenizer.chat_template["tool_use"] = template
        tokenizer.save_pretrained(tmp_path / name)
        digests.append(place._digest_of(tmp_path / name))
    assert any(path.is_dir() for path in (tmp_path / "one").iterdir())  # where transformers puts them
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.slow  # test_resume.py has a run that is killed, and goes on as this one does
@pytest.mark.parametrize("stops", [(1, 4), (3,)])
def test_a_resumed_run_equals_the_uninterrupted_one(whole, tmp_path, stops):
    directory, expected = whole
    for i, stop in enumerate(stops):
        play(tmp_path / "run", resume=i > 0, max_steps=stop)
    # Where the run was told to stop it also evaluated: such metrics are extra, everything else is equal.
    held = lambda record: {k: v for k, v in record.items() if not k.startswith("held_out")}
    records = play(tmp_path / "run", resume=True)
    assert list(map(held, records)) == list(map(held, expected))
    (step, state, host), (other_step, other_state, other_host) = newest(directory), newest(tmp_path / "run")
    assert step == other_step and host == other_host
    jax.tree.map(np.testing.assert_array_equal, state, other_state)


def test_an_old_checkpoint_that_a_kill_left_goes_when_a_finished_run_is_resumed(whole, tmp_path):
    directory, expected = whole
    shutil.copytree(directory, tmp_path / "run")
    checkpoints = tmp_path / "run" / "checkpoints"
    stay = {path.name for path in checkpoints.iterdir()}
    left = next(str(step) for step in range(1, 9) if str(step) not in stay)
    shutil.copytree(checkpoints / min(stay, key=int), checkpoints / left)
    shutil.rmtree(checkpoints / left / "metrics", ignore_errors=True)  # or it may be one of the best
    assert play(tmp_path / "run", resume=True) == expected
    assert {path.name for path in checkpoints.iterdir()} == stay


def test_a_run_directory_is_never_overwritten_or_mixed(whole, tmp_path):
    directory, _ = whole
    with pytest.raises(ConfigError, match="already holds a run"):
        play(directory)
    with pytest.raises(ConfigError, match="was started with another seed"):
        play(directory, resume=True, seed=1)
    with pytest.raises(ConfigError, match="holds no run"):
        play(tmp_path / "nothing", resume=True)


def test_a_cold_start_is_stopped_after_a_step_saved_and_resumed_to_the_same_bits(whole, tmp_path, monkeypatch):
    directory, expected = whole
    asked = iter([False, False, True])
    event = SimpleNamespace(is_set=lambda: next(asked, False))
    with monkeypatch.context() as patch:
        patch.setattr(training, "stop_requests", lambda seconds: contextlib.nullcontext(event))
        with pytest.raises(Stopped, match="at step 3 of the cold start, which is saved: continue with --resume"):
            play(tmp_path / "run", max_steps=1)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    with pytest.raises(ConfigError, match="already holds a run"):
        play(tmp_path / "run", max_steps=1)
    held = lambda record: {k: v for k, v in record.items() if not k.startswith("held_out")}
    records = play(tmp_path / "run", resume=True, max_steps=1)
    assert list(map(held, records)) == list(map(held, expected[:2]))  # loss and gradient of the first step among it
    before, after = (json.loads((run / "cold_start.json").read_text()) for run in (directory, tmp_path / "run"))
    assert before | {"seconds": 0} == after | {"seconds": 0}
    assert not (tmp_path / "run" / "cold_start").exists()


def test_a_cold_start_counts_and_says_what_is_not_finite_and_stops_where_it_is_told_to(tmp_path, monkeypatch):
    """The second step's gradient is said to be none."""
    step_of = supervised.jit_step

    def ill_at_the_second(policy, optimizer):
        step, steps = step_of(policy, optimizer), count(1)
        return lambda state, batch: (*step(state, batch)[:2], jnp.array(next(steps) != 2))

    monkeypatch.setattr(supervised, "jit_step", ill_at_the_second)
    said = io.StringIO()
    config = replace(CONFIG, run_dir=str(tmp_path / "run"), update=replace(CONFIG.update, on_nonfinite="stop"))
    with pytest.raises(Stopped, match=r"of the cold start, which is saved: a gradient was not finite") as stopped:
        train(config, console=Console(file=said, width=200))
    assert stopped.value.status == HALTED
    assert "1 steps of the cold start were skipped so far: a gradient was not finite" in said.getvalue()
    # Gone on with, it ends, and its record counts the step.
    monkeypatch.setattr(supervised, "jit_step", step_of)
    with pytest.raises(Stopped):
        event = SimpleNamespace(is_set=lambda: (tmp_path / "run" / "cold_start.json").exists())
        monkeypatch.setattr(training, "stop_requests", lambda seconds: contextlib.nullcontext(event))
        train(config, resume=True, console=Console(file=said, width=200))
    assert json.loads((tmp_path / "run" / "cold_start.json").read_text())["skipped"] == 1


def test_a_start_that_was_refused_takes_no_directory_and_is_repeated(tmp_path):
    with pytest.raises(ValueError, match="mesh|devices"):
        play(tmp_path / "run", mesh=(3, 1, 1, 1))
    with pytest.raises(ValueError, match="no checkpoint"):
        play(tmp_path / "run", model=Pretrained(directory=str(tmp_path / "absent")), cold_start=None)
    assert not (tmp_path / "run").exists()
