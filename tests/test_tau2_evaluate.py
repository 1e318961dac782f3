"""Evaluations on tasks in tau2-bench's format: an agent and a user behind two servers, floors, and the guard of test splits."""

import dataclasses
import json
import re

import pytest
from chat_server import chat_server, completion, fail, send
from rich.console import Console
from tau2_toy import CRITERIA, entry, write

from configs.quickstart import CONFIG
from rods_jax.checks import check_start
from rods_jax.commands.convert import convert
from rods_jax.config import ConfigError
from rods_jax.dialogue_files import recorded
from rods_jax.environments.protocol import TaskSplits
from rods_jax.environments.tau2 import data
from rods_jax.environments.tau2.episodes import split_tasks
from rods_jax.run import Evaluation, evaluate
from rods_jax.types import Action, Call

CREATE = {"name": "create_task", "arguments": json.dumps({"user_id": "ada", "title": "Call Bob"})}
PLAIN = CRITERIA | {"communicate_info": ["Call Bob"]}  # officially no text with a comma can be said
JUDGED = CRITERIA | {"reward_basis": ["DB", "NL_ASSERTION"], "nl_assertions": ["It is kind."]}


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Three tasks, of which one needs a judge; the first is of the test split."""
    entries = [entry(name, evaluation_criteria=PLAIN) for name in ("call", "again")]
    entries += [entry("judged", evaluation_criteria=JUDGED)]
    splits = {"base": ["call", "again", "judged"], "test": ["call"], "train": ["again", "judged"]}
    monkeypatch.setenv("RODS_TAU2", str(write(tmp_path / "bench", entries, splits)))
    return tmp_path


def agent(handler, body):
    """Makes the gold call, then says what the user needs."""
    called = any(message["role"] == "tool" for message in body["messages"])
    send(handler, completion("1,250.50, Call Bob") if called else completion(None, [CREATE]))


def user(handler, body):
    """Says what it wants, and leaves when it was answered."""
    heard = sum(message["role"] == "user" for message in body["messages"])
    send(handler, completion("Have Ada call Bob." if heard == 1 else "Thanks. ###STOP###"))


def run(bench, agent_url, user_url, **changes):
    settings = Evaluation(
        player=agent_url,
        model="a",
        tasks="tau2-mock-base",
        user=user_url,
        user_model="u",
        out=bench / "out",
        max_retries=0,
    )
    return evaluate(dataclasses.replace(settings, **changes), Console(quiet=True))


@pytest.mark.parametrize("scoring", ["official", "strict"])
def test_both_sides_are_asked_and_the_score_stands_beside_its_floors(bench, scoring):
    with chat_server(agent) as (agent_url, asked), chat_server(user) as (user_url, said):
        found = run(bench, agent_url, user_url, rollouts=2, scoring=scoring)
    row = found["scores"]["rows"]["all tasks"]
    assert (row["tasks"], row["official"]["mean"], row["pass^2"]["mean"]) == (2, 1.0, 1.0)
    version = data.find().version("mock")
    assert found["tasks"] == f"tau2-mock-base, tasks {version}, {scoring} scoring, without 1 that need a judge"
    assert found["scores"]["ended"] == {"user_stop": 4} and found["user"].startswith("u at http://")
    assert {name: one["mean"] for name, one in found["floors"].items()} == {
        "nothing done": 0.0,
        "handed over at once": 0.0,
    }
    # The agent reads its policy and the user's words; the user reads its scenario, at temperature 0, and no tools of others.
    assert (
        "Be exact." in asked[0]["messages"][0]["content"]
        and asked[0]["messages"][-1]["content"] == "Have Ada call Bob."
    )
    assert {tool["function"]["name"] for tool in asked[0]["tools"]} >= {"create_task"}
    assert "Have Ada call Bob." in said[0]["messages"][0]["content"] and said[0]["temperature"] == 0
    assert (bench / "out" / "trajectories.html").exists()


def test_what_both_sides_said_is_exported_and_learned_from(bench):
    """A dialogue file holds what the agent was sent, and not what the user called or thought."""

    def thinking(handler, body):
        heard = sum(message["role"] == "user" for message in body["messages"])
        send(handler, completion("<think>Hm.</think>\n\nHave Ada call Bob." if heard == 1 else "Thanks. ###STOP###"))

    with chat_server(agent) as (agent_url, asked), chat_server(thinking) as (user_url, _):
        run(bench, agent_url, user_url)
    convert("chat", bench / "chat.jsonl", journal=bench / "out" / "journal.jsonl", tasks="tau2-mock-base", passed=True)
    lines = [json.loads(line) for line in (bench / "chat.jsonl").read_text().splitlines()]
    assert {one["task_id"]: one["passed"] for one in lines} == {
        "call": [True] * 4,
        "again": [True] * 4,
    }  # as they ended
    request = next(one for one in asked if one["messages"][-1]["role"] == "tool")
    without = lambda messages: [{**one, "tool_calls": None, "tool_call_id": None} for one in messages]
    assert without(lines[0]["messages"][:-1]) == without(request["messages"])
    assert lines[0]["tools"] == request["tools"]
    assert [one["role"] for one in lines[0]["messages"]] == [
        "system",
        "assistant",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    dialogue, other = recorded(TaskSplits((), ()), path=bench / "chat.jsonl").dialogues
    assert (
        dialogue.rest[0] == Action((Call("create_task", {"user_id": "ada", "title": "Call Bob"}),))
        and dialogue == other
    )
    with pytest.raises(ConfigError, match="held-out task call: train on others"):
        recorded(TaskSplits((), split_tasks(data.find(), "mock", "test")), path=bench / "chat.jsonl")
    with pytest.raises(ValueError, match="give --run-dir, or --tasks and the --journal"):
        convert("chat", bench / "more.jsonl", tasks="tau2-mock-base")


def test_a_user_who_cannot_answer_costs_the_episode_and_is_counted(bench):
    with chat_server(agent) as (agent_url, _), chat_server(fail(500)) as (user_url, said):
        found = run(bench, agent_url, user_url)
        assert (
            found["scores"]["rows"]["all tasks"]["failed"] == 2
            and found["scores"]["rows"]["all tasks"]["official"] is None
        )
        assert "500" in next(iter(found["scores"]["failures"]))
    with chat_server(agent) as (agent_url, _), chat_server(user) as (user_url, _):  # played again, where it failed
        settings = {"player": agent_url, "user": user_url}
        with pytest.raises(
            ValueError, match="begun with another"
        ):  # the server has another port, so it is another player
            run(bench, agent_url, user_url, **settings)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tasks": "tau2-mars-test"}, "has the domains mock, airline"),
        ({"tasks": "tau2-mock-dev"}, "mock has the splits base, test, train: got 'dev'"),
        ({"user": ""}, "--user"),
        ({"user_model": ""}, "--user-model"),
        ({"user": "localhost"}, "begins with http://"),
        ({"player": "gold"}, "no gold dialogues"),
    ],
)
def test_what_cannot_be_played_is_said_in_one_sentence(bench, changes, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        run(bench, "http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1", **changes)
    assert not (bench / "out").exists()


def test_a_run_that_trains_on_a_test_split_is_refused(bench):
    files = data.find()
    test, train, base = (split_tasks(files, "mock", name) for name in ("test", "train", "base"))
    config = dataclasses.replace(CONFIG, cold_start=None, rollout=dataclasses.replace(CONFIG.rollout, tasks_per_step=1))
    check = lambda **parts: check_start(config, TaskSplits(**{"seeds": (), "held_out": ()} | parts), ("mock",))
    check(seeds=train, held_out=test)
    for seeds in (test, base):
        with pytest.raises(ConfigError, match="trains on tasks of a test split.*call"):
            check(seeds=seeds)
