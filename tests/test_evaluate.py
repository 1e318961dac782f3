"""The command against a real server on loopback, a killed process, a run directory, and what lands on the page."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jax
import pytest
from rich.console import Console

from models.policy import callables
from rods_jax import checkpoint, config as configuration, grpo, replay
from rods_jax.config import ConfigError
from rods_jax.codecs.qwen import parse, write
from rods_jax.environments.scoring import OFFICIAL, RODS
from rods_jax.environments.workplace.domain import WORKPLACE
from rods_jax.evaluation import Said, Stop, gold_player, play
from rods_jax.loop import Position
from rods_jax.types import Action, Call, Policy, Step, Trajectory
from scripts import learning, train
from scripts.evaluate import Settings, evaluate, split_of
from scripts.players import recorded, run_config
from scripts.trajectory_page import write_page

ROOT = Path(__file__).parent.parent
TASKS = split_of(Settings(player="gold", tasks="workplace", num_tasks=8)).tasks


def run(out, **changes):
    console = Console(file=io.StringIO(), width=80)
    return evaluate(Settings(**{"tasks": "workplace", "num_tasks": 8, "out": out} | changes), console), console


# ----------------------------------------------------------------------------------------- server
def chat_reply(action):
    calls = [
        {"id": "x", "type": "function", "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}
        for call in action.calls
    ]
    message = {"role": "assistant", "content": action.answer, "tool_calls": calls}
    usage = {"prompt_tokens": 5, "completion_tokens": 3}
    return 200, json.dumps({"choices": [{"message": message}], "usage": usage})


def gold_reply(request):
    """What the gold player says at this point of the conversation."""
    (task,) = (task for task in TASKS if task.turns[0].user == request["messages"][0]["content"])
    player = gold_player(task)
    said = [player(()) for _ in range(1 + sum(m["role"] == "assistant" for m in request["messages"]))]
    return chat_reply(said[-1].action)


@contextmanager
def server(reply):
    """An OpenAI-compatible server: `reply(request) -> (status, body)`, or None to drop the connection."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            requests.append(request)
            answer = reply(request)
            if answer is None:
                self.connection.close()
                return
            body = answer[1].encode()
            self.send_response(answer[0])
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:  # the client has given up
                pass

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass

    with Server(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/v1", requests
        http.shutdown()


def conversations(requests):
    """The longest request of each conversation."""
    longest = {}
    for request in requests:
        first = request["messages"][0]["content"]
        if len(request["messages"]) > len(longest.get(first, {"messages": ()})["messages"]):
            longest[first] = request
    return longest


def test_a_server_that_plays_gold_solves_everything(tmp_path):
    with server(gold_reply) as (url, requests):
        result, console = run(tmp_path, player=url, model="gold-7b", rollouts=2)
    rows = result["scores"]["rows"]
    for name, row in rows.items():
        assert row["official"]["mean"] == row["rods"]["mean"] == row["pass^2"]["mean"] == 1
        assert result["floor"][name]["official"]["mean"] == 0
    assert (
        result["floor"]["missing_function"]["progress"]["mean"] > 0 == result["floor"]["base"]["progress"]["mean"]
    )
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
            time.sleep(0.6)
        return (503, "down") if kind == "down" else gold_reply(request)

    options = {"model": "m", "timeout": 0.3, "max_retries": 1}
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
    assert "connection" in console.file.getvalue()


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
    assert reason == "refused: HTTP 400: maximum context length" and count == 1
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
    at = next(
        i for i, m in enumerate(messages) if m.get("tool_calls", [{}])[0].get("function", {}).get("name") == "f"
    )
    assert [m["content"] for m in messages[at + 1 : at + 4]] == [
        "Not run.",
        "Not run.",
        task.turns[empty + 1].user,
    ]
    assert [m.get("tool_call_id") for m in messages[at + 1 : at + 3]] == [
        c["id"] for c in messages[at]["tool_calls"]
    ]
    assert result["scores"]["rows"]["all tasks"]["rods"]["mean"] == 7 / 8


# ---------------------------------------------------------------------------- killed and continued
def command(out, url):
    arguments = ["--player", url, "--model", "m", "--tasks", "workplace", "--num-tasks", "8", "--out", str(out)]
    environment = os.environ | {"COLUMNS": "80"}
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.evaluate", *arguments, "--concurrency", "2"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


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
        ({"player": "golden"}, "--player must be gold, null, a run directory or an http address: got 'golden'"),
        ({"player": "gold", "tasks": "bfcl"}, "--tasks must be bfcl-held-out, .* got 'bfcl'"),
        ({"player": "http://localhost/v1"}, "--model must name"),
        ({"player": "gold", "rollouts": 0}, "must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            run(tmp_path / "other", **changes)


def test_gold_and_floor_on_a_slice_of_bfcl(tmp_path):
    result, console = run(
        tmp_path, player="gold", tasks="bfcl-held-out", num_tasks=20, split_seed=3, rules="official"
    )
    assert "bfcl-held-out, split seed 3, 20 of 400" in console.file.getvalue().replace("\n", " ")
    rows = result["scores"]["rows"]
    assert [rows[name]["tasks"] for name in list(rows)[1:-1]] == [5, 5, 5, 5]
    assert all(row["official"]["mean"] == row["rods"]["mean"] == 1 for row in rows.values())
    assert result["floor"]["all tasks"]["official"]["mean"] == 0


# ---------------------------------------------------------------------------------- run directory
CONFIG_FILE = """
import random
from functools import partial
from models.decoder import DecoderConfig
from models.tokenizer import train_tokenizer
from rods_jax import grpo
from rods_jax.codecs.documents import tool_name
from rods_jax.codecs.qwen import qwen_codec
from rods_jax.config import Config, EvaluationConfig, RolloutConfig, StageConfig, UpdateConfig
from rods_jax.environments.protocol import TaskSplits
from rods_jax.environments.workplace.domain import WORKPLACE
from rods_jax.rewards import progress_reward
from rods_jax.synthesis.pipeline import author_tasks

def domain():
    return WORKPLACE

def build_tasks(domain, seed):
    tasks = author_tasks(domain, count=12, rng=random.Random(seed), turns=(1, 2), calls_per_turn=(1, 1))
    return TaskSplits(seeds=tasks[4:], held_out=tasks[:4])

CONFIG = Config(
    name="tiny", seed=0, run_dir="", domain=domain, build_tasks=build_tasks,
    tokenizer=partial(train_tokenizer, vocab_size=640), codec=partial(qwen_codec, document=tool_name),
    model=DecoderConfig(640, 1, 16, 2, 1, 8, 16), cold_start=None,
    stages=(StageConfig(name="online", reward=progress_reward, epochs=1, synthesis=True),),
    rollout=RolloutConfig(tasks_per_step=2, group_size=2, max_prompt_tokens=128, max_suffix_tokens=96,
        max_action_tokens=8, observation_chunk=32, max_attempts=2),
    update=UpdateConfig(learning_rate=1e-3, ratio=grpo.token_ratio, aggregate=grpo.sequence_mean),
    evaluation=EvaluationConfig(num_tasks=4, every_epochs=1), checkpoint_every=1,
)
"""


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory):
    """(directory, config file) of a run that has saved its first checkpoint, with another seed than the file's."""
    directory = tmp_path_factory.mktemp("run")
    path = directory / "tiny.py"
    path.write_text(CONFIG_FILE)
    config = configuration.load_config(path, ["--seed", "7", "--run-dir", str(directory)])
    console = Console(file=io.StringIO())
    train.open_run(config, directory, resume=False)
    tasks, tokenizer = train.load_or_build(config, config.domain(), directory, console)
    policy = Policy(**callables(replace(config.model, vocab_size=len(tokenizer))))
    state = grpo.create_state(
        policy.init(jax.random.key(7)), learning.optimizer_of(config), learning.objective_of(config)
    )
    with checkpoint.open_checkpoints(directory / "checkpoints", keep=2) as checkpoints:
        position = Position(state, replay.create(tasks.seeds, config.replay), step=3)
        train.save(checkpoints, {}, position, {})
    return directory, path


def test_a_run_is_played_and_continued_to_the_same_numbers(run_directory, tmp_path):
    directory, path = run_directory
    options = {"player": str(directory), "tasks": "", "num_tasks": None, "config": path, "rollouts": 2, "seed": 7}
    result, console = run(tmp_path, **options)
    assert f"{directory} step 3 on {directory} held-out, seed 7: 4 tasks" in console.file.getvalue().replace(
        "\n", ""
    )
    assert result["max_attempts"] == 2 and result["scores"]["failures"] == {}
    assert result["scores"]["tokens"] > 0 < result["scores"]["codes"]["parse_error"]
    journal = tmp_path / "journal.jsonl"
    whole, scores = journal.read_bytes(), (tmp_path / "scores.json").read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 1 + 4 * 2
    journal.write_bytes(b"".join(lines[:6]) + lines[6][:30])
    run(tmp_path, **options)
    assert journal.read_bytes() == whole and (tmp_path / "scores.json").read_bytes() == scores
    texts = {json.loads(line)["moves"][0]["text"] for line in lines[1:]}
    assert len(texts) == 8  # noise differs from task to task and from rollout to rollout


@pytest.mark.parametrize("rules", [RODS, OFFICIAL])
def test_a_rollout_is_said_again_word_by_word(rules):
    rng = random.Random(0)
    for task in TASKS * 4:
        gold = gold_player(task)

        def act(messages):
            match rng.randrange(6):
                case 0:
                    return Said("<tool_call>{", Action(error="the message is longer than 8 tokens"))
                case 1:
                    return Said("Wait.", Action(answer="Wait."))
                case 2:
                    return Stop(truncated="full")
            said = gold(messages)
            return said._replace(text=write(said.action.calls) if said.action.calls else said.action.answer)

        record = play(WORKPLACE, task, 0, act, rules)
        steps = tuple(Step(m.turn, m.text, m.code, m.observations) for m in record.moves)
        trajectory = Trajectory(task.id, 0, record.rods, steps, record.truncated or None, record.failure or None)
        assert play(WORKPLACE, task, 0, recorded(trajectory, parse), rules) == record


def test_a_prompt_that_does_not_fit_is_not_solved_rather_than_left_out(run_directory, tmp_path):
    directory, path = run_directory
    options = {"player": str(directory), "tasks": "workplace", "num_tasks": 4, "config": path}
    short = tmp_path / "tiny.py"
    for name in ("config.json", "tokenizer", "checkpoints"):
        (tmp_path / name).symlink_to(directory / name)
    (tmp_path / "config.json").unlink()
    text = (directory / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"max_prompt_tokens": 128', '"max_prompt_tokens": 8'))
    short.write_text(path.read_text())
    result, _ = run(tmp_path / "out", **options | {"player": str(tmp_path), "config": short})
    scores = result["scores"]
    assert scores["truncated"] == {"the prompt is longer than 8 tokens": 4} and scores["failures"] == {}
    assert scores["rows"]["all tasks"]["official"]["mean"] == 0


def test_a_run_with_another_codec_is_refused(run_directory, tmp_path):
    directory, path = run_directory
    other = tmp_path / "tiny.py"
    other.write_text(path.read_text().replace("tool_name", "tool_line"))
    with pytest.raises(
        ConfigError, match="was trained with another codec.keywords.document: name its file in --conf"
    ):
        run_config(directory, other)
    with pytest.raises(ConfigError, match="holds no run"):
        run_config(tmp_path, path)


# ---------------------------------------------------------------------------------------- the page
HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}\ud800&amp;"


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = Counter(), ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attributes)

    def handle_data(self, data):
        self.text += data


def test_the_page_shows_everything_and_escapes_what_a_model_wrote(tmp_path):
    task = TASKS[0]
    said = [
        Said(HOSTILE, Action(error=HOSTILE)),
        Said(HOSTILE, Action(calls=(Call(HOSTILE, {HOSTILE: HOSTILE}),))),
        Said("x" * 5000, Action(answer="x")),
        Stop(truncated=HOSTILE),
    ]
    script = iter(said)
    record = play(WORKPLACE, task, 0, lambda _: next(script), RODS)
    records = [record, replace(record, rollout=1, failure=HOSTILE)]
    result, _ = run(tmp_path / "gold", player="gold")
    write_page(tmp_path / "page.html", HOSTILE, [task], records, result)
    page = Page((tmp_path / "page.html").read_text())
    assert page.tags["details"] == 2 and not {"script", "img", "a", "link", "iframe"} & set(page.tags)
    shown = HOSTILE.replace("\ud800", "?")
    for part in (task.turns[0].user, f"→ {shown}(", f"Failed by infrastructure: {shown}", f"Ended early: {shown}"):
        assert part in page.text
    assert "x" * 2000 + "... (3000 more characters)" in page.text and "why it failed" in page.text
    assert "default-src 'none'" in (tmp_path / "page.html").read_text()


def test_a_turn_of_the_page_holds_expected_and_found(tmp_path):
    run(tmp_path, player="null")
    text = Page((tmp_path / "trajectories.html").read_text()).text
    for task in TASKS:
        for turn in task.turns:
            assert turn.user in text
            assert not turn.gold or ", ".join(call.name for call in turn.gold) in text
    assert text.count("why it failed") == sum(bool(turn.gold) for task in TASKS for turn in task.turns)
