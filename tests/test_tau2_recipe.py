"""The recipes on tau2-bench, walked as a user would: a small checkpoint, a user behind a server, check, warm start, training."""

import json
import os
import sys
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from chat_server import chat_server, completion, send
from rich.console import Console
from tau2_toy import CRITERIA, entry, write

from configs import tau2_qwen3_4b
from models import presets, weights
from models.planning import plan
from models.policy import callables
from rods_jax import run
from rods_jax.chat import Endpoint
from rods_jax.codecs.documents import tool_name
from rods_jax.codecs.qwen import qwen_codec
from rods_jax.codecs.tokenizer import checkpoint_tokenizer, train_tokenizer
from rods_jax.config import ColdStartConfig, ConfigError, load_config
from rods_jax.dialogue_files import recorded
from rods_jax.environments.tau2 import data
from rods_jax.metrics import read_metrics

NAMES = ("airline", "retail", "telecom")


def user(handler, body):
    """Says what it wants, and leaves when it was answered."""
    heard = sum(message["role"] == "user" for message in body["messages"])
    send(handler, completion("Have Ada call Bob." if heard == 1 else "Thanks. ###STOP###"))


def checkpoint(directory, words, positions):
    """A policy of two layers with random weights, in the files of a published one."""
    tokenizer = train_tokenizer([words], vocab_size=600)
    shape = replace(presets.TINY_QWEN3, vocab_size=len(tokenizer), max_positions=positions)
    shapes, rng = jax.eval_shape(callables(shape)["init"], jax.random.key(0)), np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), shapes)
    weights.save_weights(directory, params, shape, tokenizer)
    return directory


def small(config, directory, where, url, name, prompt=512):
    """A recipe with this checkpoint and user, and sizes for a moment on a CPU."""
    return replace(
        config,
        run_dir=str(where),
        domain=partial(tau2_qwen3_4b.domain, name, Endpoint(url=url, model="u", max_retries=0)),
        tokenizer=partial(checkpoint_tokenizer, directory=str(directory)),
        codec=partial(qwen_codec, document=tool_name),
        model=replace(config.model, directory=str(directory), compute_dtype="float32"),
        rollout=replace(
            config.rollout, tasks_per_step=1, group_size=2, max_prompt_tokens=prompt, max_suffix_tokens=96,
            max_action_tokens=8, observation_chunk=32, suffix_sizes=(), refill=2.0,
        ),
        evaluation=replace(config.evaluation, num_tasks=1),
        max_steps=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """(folder, checkpoint) beside tasks in the format of `mock`: twelve to train on, two held out."""
    folder = tmp_path_factory.mktemp("recipe")
    entries = [entry(f"call{n}", evaluation_criteria=CRITERIA) for n in range(14)]
    names = [one["id"] for one in entries]
    write(folder / "bench", entries, {"base": names, "train": names[:12], "test": names[12:]})
    return folder, checkpoint(folder / "policy", "Be exact. Have Ada call Bob. Write it down.", 1024)


@pytest.fixture
def mock(bench, monkeypatch):
    monkeypatch.setenv("RODS_TAU2", str(bench[0] / "bench"))
    return bench


# --------------------------------------------------------------------------------------- what is missing
def test_without_data_checkpoint_or_user_one_sentence_says_so(mock, tmp_path, monkeypatch):
    folder, policy = mock
    config = small(tau2_qwen3_4b.CONFIG, policy, tmp_path / "run", "http://127.0.0.1:9/v1", "mock")
    with pytest.raises(
        ConfigError,
        match=r"no episode of task call\d+ can begin: the user cannot answer: http://127.0.0.1:9/v1: connect",
    ):
        run.check(config, Console(quiet=True))
    with pytest.raises(ValueError, match="no checkpoint at nowhere: .*hf download NAME --local-dir nowhere"):
        run.check(replace(config, model=replace(config.model, directory="nowhere")), Console(quiet=True))
    monkeypatch.setenv("RODS_TAU2", str(tmp_path))
    with pytest.raises(ValueError, match="holds no data of tau2-bench: name a checkout"):
        run.check(config, Console(quiet=True))
    assert not (tmp_path / "run").exists()


def test_a_plan_needs_neither_checkpoint_nor_data_and_says_what_it_cannot_count(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RODS_TAU2", str(tmp_path))
    layout = "--mesh 1 8 1 1 --update.micro-batches 64 --rollout.concurrent-tasks 1 --rollout.concurrent-rollouts 16"
    monkeypatch.setattr(
        sys, "argv", f"plan --config configs/tau2_airline.py --topology h200:8 {layout} --json {tmp_path}/it".split()
    )
    with pytest.raises(SystemExit) as ended:
        plan.main()
    assert ended.value.code == 0 and json.loads((tmp_path / "it").read_text())["fits"]
    assert "the hours of the whole run are not counted: " in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- training
def dialogue(number, **labels):
    """A recorded dialogue that solves a task of `mock`."""
    called = {"function": {"name": "create_task", "arguments": '{"user_id": "ada", "title": "Call Bob"}'}}
    messages = [
        {"role": "user", "content": "Have Ada call Bob."},
        {"role": "assistant", "content": "", "tool_calls": [called]},
        {"role": "tool", "content": "{}"},
        {"role": "assistant", "content": "1,250.50, Call Bob"},
    ]
    tools = [{"type": "function", "function": {"name": "create_task"}}]
    return json.dumps({"messages": messages, "tools": tools, "task_id": f"call{number}", **labels}) + "\n"


@pytest.mark.slow
def test_a_recipe_begins_with_recorded_dialogues_trains_and_counts_what_it_dropped(mock, tmp_path):
    folder, policy = mock
    path = tmp_path / "dialogues.jsonl"
    lines = [dialogue(n, reward=1.0) for n in range(12)]  # half of them are set aside
    path.write_text("".join([*lines, dialogue("x", reward=0.0), dialogue("y", reward=1.0, correct=False)]))
    cold_start = ColdStartConfig(
        learning_rate=1e-3, dialogues=partial(recorded, path=str(path), last_turn_only=True), observed_weight=0.0,
        batch_size=2, suffix_sizes=(96,), max_steps=1, target_reward=1.0, evaluate_every=10,
    )  # fmt: skip
    with chat_server(user) as (url, asked):
        config = small(tau2_qwen3_4b.CONFIG, policy, tmp_path / "run", url, "mock")
        run.train(replace(config, cold_start=cold_start), console=Console(quiet=True))
    cold = json.loads((tmp_path / "run" / "cold_start.json").read_text())
    assert (cold["demonstrations"], cold["steps"]) == (6, 1)
    assert cold["left_out"] == {"of validation tasks": 6, "failed": 1, "conflict": 1}
    before, step = read_metrics(tmp_path / "run" / "metrics.jsonl")
    # Nobody solves a task: both groups are dropped, and measured; nothing is learned from the one that fills the place.
    assert (step["tasks_played"], step["tasks_kept"], step["reward_mean"], step["grad_norm"]) == (2, 0, None, 0.0)
    assert before["held_out_progress"] >= 0 and step["ended"].get("user_stop", 0) + step["truncated_rollouts"] > 0
    assert all("Be exact." not in request["messages"][0]["content"] for request in asked)  # the user reads its scenario


@pytest.mark.skipif(not os.environ.get("RODS_TAU2"), reason="needs RODS_TAU2, a folder with tau2-bench's data")
@pytest.mark.parametrize("name", NAMES)
def test_the_domains_recipes_are_checked_on_the_real_tasks(name, tmp_path):
    files = data.find()
    words = files.text(name, "policy.md" if name != "telecom" else "main_policy.md")
    policy = checkpoint(tmp_path / "policy", words, 65_536)
    with chat_server(user) as (url, asked):
        config = small(load_config(f"configs/tau2_{name}.py"), policy, tmp_path / "run", url, name, prompt=32_768)
        found = run.check(config, Console(quiet=True))
    lengths = found["lengths"]["stages.outcome"]
    assert lengths["tasks"] == lengths["measured"] == lengths["dialogues"] and len(asked) == 1
    assert found["first_step"]["seeds"] == (4 if name == "telecom" else 0)
