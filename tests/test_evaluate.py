"""The command against a real server on loopback, and a killed process that continues."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from evaluate_toy import ROOT, TASKS, chat_reply, conversations, gold_reply, run, server

from rods_jax.commands.evaluate import main
from rods_jax.environments.workplace.domain import WORKPLACE
from rods_jax.files import FolderError
from rods_jax.journal import JournalError
from rods_jax.run.evaluating import Split
from rods_jax.types import Action, Call


def test_a_server_that_plays_gold_solves_everything(tmp_path):
    with server(gold_reply) as (url, requests):
        result, console = run(tmp_path, player=url, model="gold-7b", rollouts=2)
    rows = result["scores"]["rows"]
    for name, row in rows.items():
        assert row["official"]["mean"] == row["rods"]["mean"] == row["pass^2"]["mean"] == 1
        assert result["floor"][name]["official"]["mean"] == 0
    assert result["floor"]["missing_function"]["progress"]["mean"] > 0 == result["floor"]["base"]["progress"]["mean"]
    assert result["scores"]["tokens"] == 3 * len(requests)
    assert json.loads((tmp_path / "scores.json").read_text()) == result
    printed = console.file.getvalue()
    assert f"gold-7b at {url} on workplace, seed 0:" in printed.replace("\n", "") and "floor 0.000" in printed
    for task in TASKS:
        request = conversations(requests)[task.turns[0].user]
        asked = [call["id"] for m in request["messages"] for call in m.get("tool_calls", ())]
        answered = [m["tool_call_id"] for m in request["messages"] if m["role"] == "tool"]
        assert asked == answered and len(set(asked)) == len(asked) == sum(len(turn.gold) for turn in task.turns)
        first = next(r for r in requests if r["messages"] == request["messages"][:1])
        tools = [{tool["function"]["name"] for tool in r["tools"]} for r in (first, request)]
        assert tools[1] - tools[0] == task.withheld_tools and tools[0] <= tools[1]
        assert (task.category == "missing_function") == bool(task.withheld_tools)


def test_errors_that_pass_are_retried_and_cost_nothing(tmp_path):
    tries, lock = Counter(), threading.Lock()

    def flaky(request):
        with lock:
            tries[str(request["messages"])] += 1
            number = tries[str(request["messages"])]
        good = gold_reply(request)
        first = [(500, "sorry"), (200, "<html>"), None, (200, good[1][:20]), (429, ""), (200, "{}")]
        return good if number > 1 else first[len(tries) % len(first)]

    with server(flaky) as (url, requests):
        result, _ = run(tmp_path, player=url, model="m", num_tasks=4)
    assert min(tries.values()) == 2
    assert result["scores"]["failures"] == {}
    assert result["scores"]["rows"]["all tasks"]["official"]["mean"] == 1


def test_an_episode_that_the_server_fails_is_counted_and_in_no_score_until_it_is_played_again(tmp_path):
    ill = {TASKS[0].turns[0].user: "slow", TASKS[1].turns[0].user: "down"}

    def reply(request):
        kind = ill.get(request["messages"][0]["content"])
        if kind == "slow" and len(request["messages"]) > 1:
            time.sleep(3.0)
        return (503, "down") if kind == "down" else gold_reply(request)

    options = {"model": "m", "timeout": 1.5, "max_retries": 1}
    with server(reply) as (url, requests):
        result, console = run(tmp_path, player=url, **options)
        rows, failures = result["scores"]["rows"], result["scores"]["failures"]
        assert rows["all tasks"]["failed"] == 2 and rows["all tasks"]["official"]["mean"] == 1
        assert sorted(name.split(":")[0] for name in failures) == ["server_error", "timeout"]
        assert "2 failed" in console.file.getvalue()
        assert "Failed by infrastructure:" in (tmp_path / "trajectories.html").read_text()
        del requests[:]
        ill.clear()
        result, console = run(tmp_path, player=url, **options)
        assert "continuing: 6 of 8" in console.file.getvalue()
        assert set(conversations(requests)) == {task.turns[0].user for task in TASKS[:2]}
    assert result["scores"]["failures"] == {} and result["scores"]["rows"]["all tasks"]["failed"] == 0


def test_a_server_that_is_not_there_fails_every_episode_and_no_score_is_made_up(tmp_path):
    result, console = run(tmp_path, player="http://127.0.0.1:9/v1", model="m", max_retries=0, num_tasks=2)
    assert result["scores"]["rows"]["all tasks"]["official"] is None
    assert result["scores"]["rows"]["all tasks"]["failed"] == 2
    assert "nothing was scored: every episode failed, most of them by connection" in console.file.getvalue()


def test_what_the_model_does_wrong_is_its_own_failure(tmp_path):
    """A call that cannot be read, an empty message, and a conversation that grows too long for the server."""

    def reply(request):
        match TASKS.index(next(t for t in TASKS if t.turns[0].user == request["messages"][0]["content"])):
            case 0:
                text = chat_reply(Action(calls=(Call("f"),)))[1].replace('"{}"', '"{"')
                return 200, text
            case 1:
                return chat_reply(Action(answer=" "))
            case 2 if len(request["messages"]) > 1:
                return 400, "maximum context length"
        return gold_reply(request)

    with server(reply) as (url, requests):
        result, _ = run(tmp_path, player=url, model="m")
    scores = result["scores"]
    assert scores["failures"] == {} and scores["rows"]["all tasks"]["official"]["mean"] == 5 / 8
    assert scores["codes"]["parse_error"] == 6 * (len(TASKS[0].turns) + len(TASKS[1].turns))
    ((reason, count),) = scores["truncated"].items()
    assert reason == "too_long: HTTP 400: maximum context length" and count == 1
    told = [m for m in conversations(requests)[TASKS[0].turns[0].user]["messages"] if m["role"] == "user"]
    assert told[1]["content"].startswith("Error: the tool call cannot be read")


def test_a_call_that_closes_its_turn_gets_a_result_that_says_so(tmp_path):
    task = next(task for task in TASKS if task.category == "missing_parameter")
    empty = next(number for number, turn in enumerate(task.turns) if not turn.gold)

    def reply(request):
        asked = [m["content"] for m in request["messages"] if m["role"] == "user"]
        if asked[0] == task.turns[0].user and len(asked) == empty + 1:
            return chat_reply(Action(calls=(Call("f"), Call("g"))))
        return gold_reply(request)

    with server(reply) as (url, requests):
        result, _ = run(tmp_path, player=url, model="m")
    messages = conversations(requests)[task.turns[0].user]["messages"]
    at = next(i for i, m in enumerate(messages) if m.get("tool_calls", [{}])[0].get("function", {}).get("name") == "f")
    assert [m["content"] for m in messages[at + 1 : at + 4]] == [
        "Not run.",
        "Not run.",
        task.turns[empty + 1].user,
    ]
    assert [m.get("tool_call_id") for m in messages[at + 1 : at + 3]] == [c["id"] for c in messages[at]["tool_calls"]]
    assert result["scores"]["rows"]["all tasks"]["rods"]["mean"] == 7 / 8


def command(out, url, *more):
    arguments = ["--player", url, "--model", "m", "--tasks", "workplace", "--num-tasks", "8", "--out", str(out), *more]
    environment = os.environ | {"COLUMNS": "80"}
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.evaluate", *arguments, "--concurrency", "2"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_ctrl_c_twice_ends_an_evaluation_whose_server_holds_every_request(tmp_path):
    """At once, and the journal keeps what was finished before."""
    begun, held = set(), threading.Event()

    def reply(request):
        conversation = request["messages"][0]["content"]
        if conversation not in begun and len(begun) == 2:
            held.set()
            time.sleep(600)
        begun.add(conversation)
        return gold_reply(request)

    journal = tmp_path / "journal.jsonl"
    with server(reply) as (url, _):
        process = command(tmp_path, url, "--timeout", "3600")
        assert held.wait(120)
        while journal.read_bytes().count(b"\n") < 3:
            assert process.poll() is None
            time.sleep(0.01)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in output, output
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3 and all(json.loads(line) and line.endswith(b"\n") for line in lines)


def test_the_command_ends_with_1_where_nothing_was_scored_and_prints_json_alone_on_request(
    tmp_path, monkeypatch, capsys
):
    def ended(*arguments):
        monkeypatch.setattr(sys, "argv", ["evaluate", "--tasks", "workplace", "--num-tasks", "2", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capsys.readouterr()

    dead = ("--player", "http://127.0.0.1:9/v1", "--model", "m", "--max-retries", "0", "--out", str(tmp_path / "dead"))
    status, out, _ = ended(*dead)
    assert status == 1 and "nothing was scored" in out
    status, out, told = ended("--player", "gold", "--json", "--out", str(tmp_path / "gold"))
    assert status == 0 and json.loads(out) == json.loads((tmp_path / "gold" / "scores.json").read_text())
    assert "category mean" in told
    status, out, _ = ended("--player", str(tmp_path / "no"))
    assert status == 2 and "no such run" in out


def test_what_a_server_says_reaches_the_terminal_as_text(tmp_path):
    hostile = "\x1b]0;owned\x07\x1b[2J\x1b]52;c;b3du\x07\x9b31m\u202e [red]x[/] [/nothing]"
    with server(lambda request: (400, hostile)) as (url, _):
        _, console = run(tmp_path, player=url, model="m", num_tasks=2)
    said = console.file.getvalue()
    assert not set("\x1b\x07\x9b\u202e") & set(said) and "[/nothing]" in said.replace("\n", "")


def test_more_tasks_than_there_are_is_said_and_all_are_played(tmp_path, monkeypatch):
    split = Split("two", WORKPLACE, TASKS[:2])
    monkeypatch.setattr("rods_jax.run.evaluating.split_of", lambda settings: split)
    result, console = run(tmp_path, player="gold", num_tasks=500)
    assert "--num-tasks 500: the split has 2, all are played" in console.file.getvalue()
    assert result["num_tasks"] == 2
    split = split._replace(tasks=())
    with pytest.raises(ValueError, match="two has no tasks"):
        run(tmp_path, player="gold")


def test_more_fields_of_a_request_are_sent_and_belong_to_the_settings(tmp_path):
    with server(gold_reply) as (url, requests):
        options = {
            "player": url,
            "model": "m",
            "num_tasks": 1,
            "extra": '{"chat_template_kwargs": {"thinking": false}}',
        }
        result, _ = run(tmp_path, **options)
        assert result["extra"] == {"chat_template_kwargs": {"thinking": False}}
        assert all(request["chat_template_kwargs"] == {"thinking": False} for request in requests)
        with pytest.raises(ValueError, match="begun with another extra"):
            run(tmp_path, **options | {"extra": "{}"})


def test_a_killed_evaluation_continues_and_ends_with_the_same_numbers(tmp_path):
    journal = tmp_path / "killed" / "journal.jsonl"
    lines = lambda: journal.read_bytes().count(b"\n") if journal.exists() else 0
    begun, most = set(), 3  # conversations that the model takes part in; it is silent to those that begin later

    def slow(request):
        time.sleep(0.03)
        conversation = next(m["content"] for m in request["messages"] if m["role"] == "user")
        while conversation not in begun and len(begun) >= most:
            time.sleep(0.005)
        begun.add(conversation)
        rng = random.Random(str(request["messages"]))  # a model that errs, the same way each time
        return gold_reply(request) if rng.random() < 0.8 else chat_reply(Action(answer="Perhaps."))

    with server(slow) as (url, requests):
        for sent, next_most in ((signal.SIGKILL, 5), (signal.SIGINT, 99)):
            process = command(tmp_path / "killed", url)
            while lines() < 1 + most:  # the header, and all that can be finished
                assert process.poll() is None
                time.sleep(0.005)
            process.send_signal(sent)
            time.sleep(0.5)  # the signal is noticed before the model speaks again
            most = next_most
            output, _ = process.communicate(timeout=60)
            assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130}[sent], output
        assert "the same command continues" in output
        assert 4 <= journal.read_bytes().count(b"\n") < 9
        finished = {json.loads(line)["task_id"] for line in journal.read_bytes().split(b"\n")[1:-1]}
        del requests[:]
        run(tmp_path / "killed", player=url, model="m", concurrency=2)
        again = set(conversations(requests))
        assert again.isdisjoint(task.turns[0].user for task in TASKS if task.id in finished)
        result, _ = run(tmp_path / "whole", player=url, model="m")
    killed, whole = (tmp_path / name / "scores.json" for name in ("killed", "whole"))
    assert killed.read_bytes() == whole.read_bytes()
    assert 0 < result["scores"]["rows"]["all tasks"]["official"]["mean"] < 1
    pages = [(tmp_path / name / "trajectories.html").read_bytes() for name in ("killed", "whole")]
    assert pages[0] == pages[1]


def test_other_settings_are_refused_by_name(tmp_path):
    run(tmp_path, player="gold")
    with pytest.raises(ValueError, match="begun with another rollouts: give another folder"):
        run(tmp_path, player="gold", rollouts=2)
    for changes, message in (
        ({"player": "golden"}, "no such run: golden: --player must be gold, null, the directory of a run or of a"),
        ({"player": "runs/nosuch", "tasks": ""}, "no such run: runs/nosuch"),
        ({"player": "http://localhost/v1", "model": "m", "extra": "[1]"}, "--extra must be a JSON object"),
        ({"player": "http://localhost/v1", "model": "m", "extra": "{"}, "--extra, .*: not JSON"),
        ({"player": "http://localhost/v1", "model": "m", "extra": '{"stream": true}'}, "extra must not hold 'stream'"),
        ({"player": "gold", "tasks": "bfcl"}, "--tasks must be bfcl-held-out, .* got 'bfcl'"),
        ({"player": "http://localhost/v1"}, "--model must name"),
        ({"player": "gold", "user": "http://localhost/v1"}, "--user is of tau2-bench's tasks, .*: got workplace"),
        ({"player": "gold", "judge": "http://localhost/v1"}, "--judge is of tau2-bench's tasks"),
        ({"player": "gold", "scoring": "strict"}, "--scoring is of tau2-bench's tasks"),
        ({"player": "gold", "rollouts": 0}, "must be at least 1"),
        ({"player": "gold", "temperature": -1.0}, "--temperature must be a number of at least 0: got -1"),
        ({"player": "gold", "temperature": float("nan")}, "--temperature must be a number of at least 0: got nan"),
        ({"player": "gold", "top_p": 0.0}, "--top-p must be above 0 and at most 1: got 0"),
        ({"player": "gold", "seed": -1}, "--seed must be at least 0: got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            run(tmp_path / "other", **changes)
    assert not (tmp_path / "other").exists()  # said before anything is played


def test_a_folder_of_others_is_left_as_it_is(tmp_path):
    (tmp_path / "scores.json").write_text("mine")
    with pytest.raises(FolderError, match="holds 'scores.json' and is left as it is"):
        run(tmp_path, player="gold")
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]
    for text in ('{"mine": 1}\n{"n": 2}', '{"mine": 1}'):  # nor is a line without its end cut off
        (tmp_path / "journal.jsonl").write_text(text)
        with pytest.raises(JournalError, match="give another folder"):
            run(tmp_path, player="gold")
        assert (tmp_path / "journal.jsonl").read_text() == text
    assert (tmp_path / "scores.json").read_text() == "mine"


def test_gold_and_floor_on_a_slice_of_bfcl(tmp_path):
    result, console = run(tmp_path, player="gold", tasks="bfcl-held-out", num_tasks=20, split_seed=3, rules="official")
    assert "bfcl-held-out, split seed 3, 20 of 400" in console.file.getvalue().replace("\n", " ")
    rows = result["scores"]["rows"]
    assert [rows[name]["tasks"] for name in list(rows)[1:-1]] == [5, 5, 5, 5]
    assert all(row["official"]["mean"] == row["rods"]["mean"] == 1 for row in rows.values())
    assert result["floor"]["all tasks"]["official"]["mean"] == 0
