"""Evaluations on tasks in tau2-bench's format: an agent and a user behind two servers, floors, and the guard of test splits."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from chat_server import chat_server, completion, fail, hang_up, say, send, tear
from rich.console import Console
from tau2_toy import CRITERIA, entry, write

from configs.quickstart import CONFIG
from rods_jax.adapters.trajectories import read_evaluation
from rods_jax.checks import check_start
from rods_jax.commands.convert import convert
from rods_jax.config import ConfigError
from rods_jax.dialogue_files import recorded
from rods_jax.environments.conversation import AGENT, USER
from rods_jax.environments.protocol import Stratum, TaskSplits
from rods_jax.environments.tau2 import data
from rods_jax.environments.tau2.episodes import split_tasks
from rods_jax.environments.workplace.domain import WORKPLACE
from rods_jax.run import Evaluation, evaluate
from rods_jax.types import Action, Call

ROOT = Path(__file__).parent.parent
CREATE = {"name": "create_task", "arguments": json.dumps({"user_id": "ada", "title": "Call Bob"})}
PLAIN = CRITERIA | {"communicate_info": ["Call Bob"]}  # officially no text with a comma can be said
JUDGED = CRITERIA | {"reward_basis": ["DB", "NL_ASSERTION"], "nl_assertions": ["It is kind."]}


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Three tasks, of which one needs a judge; the first is of the test split."""
    twice = {"persona": None, "instructions": "Have Ada call Bob. And again."}
    entries = [entry("call", evaluation_criteria=PLAIN), entry("again", evaluation_criteria=PLAIN, user_scenario=twice)]
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
    without = lambda messages: [{"role": one["role"], "content": one["content"]} for one in messages]
    assert without(lines[0]["messages"][:-2]) == without(request["messages"])
    assert lines[0]["tools"] == request["tools"]
    assert [one["role"] for one in lines[0]["messages"]] == [
        "system",
        "assistant",
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
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
    domain = WORKPLACE._replace(strata={"mock": Stratum()})
    check = lambda **parts: check_start(config, TaskSplits(**{"seeds": (), "held_out": ()} | parts), domain)
    check(seeds=train, held_out=test)
    for seeds in (test, base):
        with pytest.raises(ConfigError, match="trains on tasks of a test split.*call"):
            check(seeds=seeds)


# ---------------------------------------------------------------------------------------- the judge
def verdict(holds):
    return say(json.dumps({"verdicts": [{"statement": 1, "reason": "It is.", "holds": holds}]}))


@pytest.mark.parametrize("holds", [True, False])
def test_a_judge_scores_what_is_left_out_without_one(bench, holds):
    with chat_server(agent) as (agent_url, _), chat_server(user) as (user_url, _), chat_server(verdict(holds)) as judge:
        found = run(bench, agent_url, user_url, judge=judge[0], judge_model="j")
    row = found["scores"]["rows"]["all tasks"]
    assert (row["tasks"], row["failed"]) == (3, 0) and row["official"]["mean"] == pytest.approx(1.0 if holds else 2 / 3)
    assert found["tasks"].endswith("1 with a judge") and found["judge"] == f"j at {judge[0]}"
    (asked,) = judge[1]  # one task has a statement; floors ask nobody
    assert asked["temperature"] == 0 and "It is kind." in asked["messages"][1]["content"]


@pytest.mark.parametrize(
    ("misbehaves", "words"),
    [
        (fail(500), "the judge cannot answer: server_error"),
        (fail(401), "the judge cannot answer: misconfigured"),
        (tear, "the judge cannot answer: connection"),
        (say("It is kind."), "the judge's reply cannot be read"),
        (say('{"verdicts": []}'), "the judge's verdicts must be 1 to 1"),
    ],
)
def test_a_judge_that_misbehaves_costs_the_episode_until_it_is_played_again(bench, misbehaves, words):
    behaves = []

    def judge(handler, body):
        (verdict(True) if behaves else misbehaves)(handler, body)

    with chat_server(agent) as (agent_url, asked), chat_server(user) as (user_url, _), chat_server(judge) as (url, _):
        judged = {"judge": url, "judge_model": "j"}
        found = run(bench, agent_url, user_url, **judged)
        row = found["scores"]["rows"]["all tasks"]
        assert (row["failed"], row["official"]["mean"]) == (1, 1.0) and words in next(iter(found["scores"]["failures"]))
        behaves.append(True)
        del asked[:]
        row = run(bench, agent_url, user_url, **judged)["scores"]["rows"]["all tasks"]
    assert (row["failed"], row["official"]["mean"]) == (0, 1.0) and len(asked) == 2  # of one episode


# ----------------------------------------------------------------------------------- errors, and the page
HOSTILE = "<script>alert(1)</script><b>bold</b>"


def test_errors_of_either_side_are_counted_apart_and_stand_on_the_page(bench):
    """The agent calls the user's tool; the user calls a tool that nobody has, and leaves before the agent acts."""

    def errs(handler, body):
        calls = [{"name": "dismiss_notification", "arguments": '{"notification_id": "n1"}'}]
        called = any(message["role"] == "tool" for message in body["messages"])
        send(handler, completion("Shall I write it down?") if called else completion("One moment.", calls))

    def leaves(handler, body):
        heard = sum(message["role"] == "user" for message in body["messages"])
        called = any(message["role"] == "tool" for message in body["messages"])
        fly = [{"name": "fly", "arguments": "{}"}]
        text = f"Call Bob. {HOSTILE}" if heard == 1 else "Yes, do. ###STOP###"
        send(handler, completion(text) if called else completion(None, fly))

    with chat_server(errs) as (agent_url, _), chat_server(leaves) as (user_url, _):
        found = run(bench, agent_url, user_url, num_tasks=1)
    scores = found["scores"]
    assert scores["wrong_owner_calls"] == {"agent": 1}
    assert scores["user_errors"] == {"unknown_tool": 1, "stops_early": 1} and scores["blamed"] == {"user": 1}
    # Both sides' words and tools, checks, policy and errors; hostile text is text.
    html = (bench / "out" / "trajectories.html").read_text()
    shown = [
        "Hi! How can I help you today?",
        "One moment.",
        "→ dismiss_notification(",
        "→ fly()",
        "Shall I write it down?",
    ]
    shown += ["Yes, do. ###STOP###", "COMMUNICATE Call Bob", "Be exact.", "Ended: user_stop, blamed on the user"]
    shown += ["agent: wrong_owner", "user: unknown_tool", "user: stops_early", "Error: Tool &#39;fly&#39; not found."]
    assert [text for text in shown if text not in html] == []
    assert html.count("Call Bob. &lt;script&gt;alert(1)&lt;/script&gt;&lt;b&gt;bold") == 1 and "<script>" not in html
    # The dialogue is in the journal, as it was said.
    (record,) = read_evaluation(bench / "out" / "journal.jsonl")
    assert [(line.who, line.result) for line in record.lines[:4]] == [(AGENT, 0), (USER, 0), (USER, 1), (USER, 0)]


# ---------------------------------------------------------------------------------------- bad input
UNKNOWN = {"initialization_actions": [{"env_type": "user", "func_name": "fly", "arguments": {}}]}
UNFIT = {"initialization_data": {"agent_data": {"planets": {"mars": 4}}}}
ASKS = [
    {"env_type": "assistant", "func_name": "assert_task_status", "arguments": {"task_id": "x", "expected_status": "y"}}
]
RAISES = {"env_assertions": ASKS, "reward_basis": ["ENV_ASSERTION"]}


def test_a_broken_task_is_a_counted_failure_and_the_others_are_played(tmp_path, monkeypatch):
    """A tool that is not there, a patch that does not fit, an assertion that raises: one sentence each."""
    entries = [entry("call", evaluation_criteria=PLAIN), entry("raises", evaluation_criteria=RAISES)]
    entries += [entry("unknown", initial_state=UNKNOWN), entry("unfit", initial_state=UNFIT)]
    entries += [entry("gold", evaluation_criteria={"actions": [{"name": "fly"}], "reward_basis": ["DB"]})]
    monkeypatch.setenv("RODS_TAU2", str(write(tmp_path / "bench", entries)))
    with chat_server(agent) as (agent_url, _), chat_server(user) as (user_url, _):
        found = run(tmp_path, agent_url, user_url)
        strict = run(tmp_path, agent_url, user_url, scoring="strict", out=tmp_path / "strict")
    failures = found["scores"]["failures"]
    assert all(
        words in str(failures) for words in ("has no method fly", "planets", "Task x not found", "names the tool fly")
    )
    assert len(failures) == 4 and all("\n" not in reason for reason in failures)
    row = found["scores"]["rows"]["all tasks"]
    assert (row["tasks"], row["failed"], row["official"]["mean"]) == (5, 4, 1.0)
    assert (
        strict["scores"]["rows"]["all tasks"]["failed"] == 3
    )  # there the assertion has failed, and so has the episode
    records = read_evaluation(tmp_path / "out" / "journal.jsonl")
    assert {one.task_id: bool(one.failure) for one in records} == {
        "call": 0,
        "raises": 1,
        "unknown": 1,
        "unfit": 1,
        "gold": 1,
    }


def test_a_user_that_never_stops_meets_the_limit(bench):
    with chat_server(say("Well?")) as (agent_url, _), chat_server(say("And then?")) as (user_url, said):
        found = run(bench, agent_url, user_url, num_tasks=1)
    assert found["scores"]["ended"] == {"max_steps": 1} and len(said) == 100
    assert found["scores"]["rows"]["all tasks"]["official"]["mean"] == 0.0


@pytest.mark.parametrize("side", ["agent", "user"])
def test_an_endpoint_that_dies_in_mid_dialogue_is_waited_out(bench, side):
    """Its episode is in no score; the same command plays it again, and no other."""
    alive = {"agent": True, "user": True}

    def mortal(name, respond):
        def answer(handler, body):
            if any(message["role"] == "assistant" for message in body["messages"][2:]) and not alive[name]:
                return hang_up(handler, body)
            return respond(handler, body)

        return answer

    with chat_server(mortal("agent", agent)) as (agent_url, _), chat_server(mortal("user", user)) as (user_url, _):
        alive[side] = False
        found = run(bench, agent_url, user_url)
        assert found["scores"]["rows"]["all tasks"]["failed"] == 2 and "connection" in str(found["scores"]["failures"])
        alive[side] = True
        found = run(bench, agent_url, user_url)
    assert found["scores"]["rows"]["all tasks"]["failed"] == 0
    assert found["scores"]["rows"]["all tasks"]["official"]["mean"] == 1.0 and found["scores"]["failures"] == {}


def command(bench, agent_url, user_url):
    options = {"player": agent_url, "model": "a", "tasks": "tau2-mock-base", "user": user_url, "user-model": "u"}
    options |= {"out": str(bench / "killed"), "rollouts": "6", "concurrency": "1", "max-retries": "0"}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.evaluate", *words],
        cwd=ROOT, env=os.environ,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_a_killed_evaluation_ends_with_the_same_scores(bench):
    """A process that SIGKILL ends in mid-dialogue; the same settings finish its journal."""
    journal, held, free = bench / "killed" / "journal.jsonl", threading.Event(), threading.Event()

    def errs_where_it_is_asked_twice(handler, body):
        if len(asked) > 9 and not free.is_set():
            held.set()
            free.wait(60)
        twice = any(message["content"] == "Twice." for message in body["messages"])
        send(handler, completion("No.")) if twice else agent(handler, body)

    def asks_twice(handler, body):
        first = sum(message["role"] == "user" for message in body["messages"]) == 1
        twice = first and "And again." in body["messages"][0]["content"]
        send(handler, completion("Twice.")) if twice else user(handler, body)

    with chat_server(errs_where_it_is_asked_twice) as (agent_url, asked), chat_server(asks_twice) as (user_url, _):
        process = command(bench, agent_url, user_url)
        assert held.wait(60)
        process.kill()
        process.communicate(timeout=60)
        free.set()
        assert process.returncode == -signal.SIGKILL and 0 < journal.read_bytes().count(b"\n") - 1 < 12
        again = {"rollouts": 6, "concurrency": 1}
        killed = run(bench, agent_url, user_url, out=bench / "killed", **again)
        whole = run(bench, agent_url, user_url, out=bench / "whole", **again)
    assert killed == whole and killed["scores"]["rows"]["all tasks"]["official"]["mean"] == 0.5
    for name in ("scores.json", "trajectories.html"):
        assert (bench / "killed" / name).read_bytes() == (bench / "whole" / name).read_bytes()


def test_a_folder_without_data_is_refused_before_anything_is_asked(bench, monkeypatch):
    monkeypatch.setenv("RODS_TAU2", str(bench / "none"))
    with pytest.raises(data.TauDataError, match="none holds no data of tau2-bench: name a checkout"):
        run(bench, "http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1")
    assert not (bench / "out").exists()
