"""Task files: exact round trip, errors that name file, line and field, nothing half-written."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rods_jax.environments.protocol import STRATA
from rods_jax.task_files import TaskFileError, read_tasks, task_from_json, task_to_json, write_tasks
from rods_jax.types import Call, Task, Turn, World

TASK = Task(
    id="t1",
    scenario="s1",
    category="missing_function",
    world=World(
        ("Files", "Tickets"), {"Tickets": {"z": 1, "a": [1.5, None, True]}, "Files": {"root": {}}}, {"slow": True}
    ),
    turns=(
        Turn("List the files.", (Call("ls", {"all": True}), Call("pwd"))),
        Turn("And now?", (), ("open_ticket",)),
    ),
    ancestry=("t0",),
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.text(), json_values, max_size=3)
names = st.text(min_size=1, max_size=5)
calls = st.builds(Call, names, objects)
turns = st.builds(Turn, st.text(), st.lists(calls, max_size=2).map(tuple), st.lists(names, max_size=2).map(tuple))
tasks = st.builds(
    Task,
    id=names,
    scenario=st.text(),
    category=st.sampled_from(list(STRATA)),
    world=st.builds(World, st.lists(names, max_size=2).map(tuple), objects, objects),
    turns=st.lists(turns, min_size=1, max_size=3).map(tuple),
    ancestry=st.lists(names, max_size=2).map(tuple),
)


@settings(deadline=None, max_examples=40)
@given(task=tasks)
def test_any_task_survives_json(task):
    assert task_from_json(json.loads(json.dumps(task_to_json(task)))) == task


def test_file_round_trip_keeps_order_of_tasks_and_of_state(tmp_path):
    path = tmp_path / "tasks.jsonl"
    other = Task("t2", "s2", "base", World((), {}), (Turn("line\u2028separator\r\nand é"),))
    write_tasks(path, [TASK, other])
    assert read_tasks(path) == (TASK, other)
    assert list(read_tasks(path)[0].world.state) == ["Tickets", "Files"]
    assert list(read_tasks(path)[0].world.state["Tickets"]) == ["z", "a"]
    assert len(path.read_text().splitlines()) == 2


def _edited(**changes):
    return task_to_json(TASK) | changes


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (_edited(colour="red"), "unknown field colour"),
        (_edited(id=3), "field id must be a string: got 3"),
        (_edited(id=""), "field id must not be empty"),
        (_edited(category=""), "field category must not be empty"),
        (_edited(version=3), "field version must be 2: got 3"),
        (_edited(version=1), "field version must be 2: got 1.*classes and initial_state.*world"),
        (_edited(world={"classes": "Files"}), "field world.classes must be a list: got 'Files'"),
        (_edited(world={"classes": [], "state": []}), "field world.state must be an object"),
        (_edited(world={}), "missing field world.classes"),
        (_edited(turns=[]), "field turns must not be empty"),
        (
            _edited(turns=[{"user": "a"}, {"user": "b", "gold": [{"name": None}]}]),
            r"field turns\[1\].gold\[0\].name",
        ),
        (_edited(turns=[{"gold": []}]), r"missing field turns\[0\].user"),
        (_edited(turns=[{"user": "a", "golden": []}]), r"unknown field turns\[0\].golden"),
        ([1, 2], "a task must be an object"),
    ],
)
def test_a_wrong_field_is_named_with_file_and_line(tmp_path, record, words):
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps(task_to_json(TASK)) + "\n\n" + json.dumps(record) + "\n")
    with pytest.raises(TaskFileError, match=rf"tasks\.jsonl, line 3: {words}"):
        read_tasks(path)


def test_text_that_is_not_json_names_line_and_column(tmp_path):
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"version": 1, ')
    with pytest.raises(TaskFileError, match=r"tasks\.jsonl, line 1, column 16: not JSON"):
        read_tasks(path)


@pytest.mark.parametrize(
    "old, new, reason",
    [
        (b'"z": 1', b'"z": NaN', "column [0-9]+: JSON has no NaN"),
        (b'"z": 1', b'"z": -1e999', "column [0-9]+: a number is too large"),
        (b'"z": 1', b'"z": ' + b"9" * 5_000, "column [0-9]+: an integer has more than"),
        (b'"z": 1', b'"z": ' + b"[" * 900 + b"]" * 900, "column [0-9]+: values are nested more than"),
        (b'"z": 1', b'"z": ' + b"[" * 200_000, "column [0-9]+: values are nested more than"),
        (b'"id": "t1"', b'"id": "t1", "id": "t3"', 'column [0-9]+: the key "id" stands twice'),
        (b"files.", b"files\\ud83d.", "column [0-9]+: half a surrogate pair"),
        (b'"t1"', b'"\\udc00"', "column [0-9]+: half a surrogate pair"),
        (b"files.", b"files\xff.", "byte [0-9]+: not UTF-8"),
        (b'{"version"', b'\xef\xbb\xbf{"version"', "column 1: .*byte order mark"),
    ],
    ids=lambda value: str(value[:24]),
)
def test_a_line_that_no_tokenizer_or_parser_bears_is_named(tmp_path, old, new, reason):
    path = tmp_path / "tasks.jsonl"
    good = json.dumps(task_to_json(TASK)).encode()
    assert good.count(old) == 1
    path.write_bytes(good.replace(b'"t1"', b'"t2"') + b"\n" + good.replace(old, new))
    with pytest.raises(TaskFileError, match=rf"tasks\.jsonl, line 2, {reason}"):
        read_tasks(path)


def test_a_file_without_tasks_holds_none(tmp_path):
    write_tasks(tmp_path / "tasks.jsonl", [])
    assert read_tasks(tmp_path / "tasks.jsonl") == ()


def test_a_repeated_id_names_both_lines(tmp_path):
    path = tmp_path / "tasks.jsonl"
    path.write_text(2 * (json.dumps(task_to_json(TASK)) + "\n"))
    with pytest.raises(TaskFileError, match="line 2: field id 't1' is already on line 1"):
        read_tasks(path)


def test_missing_and_binary_files_are_named(tmp_path):
    with pytest.raises(TaskFileError, match="nowhere.jsonl cannot be read"):
        read_tasks(tmp_path / "nowhere.jsonl")
    with pytest.raises(TaskFileError, match="cannot be read"):
        read_tasks(tmp_path)
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TaskFileError, match="binary.jsonl, line 1, byte 0: not UTF-8"):
        read_tasks(tmp_path / "binary.jsonl")


def _deep():
    value = []
    for _ in range(5_000):
        value = [value]
    return value


@pytest.mark.parametrize("value", [(1, 2), {3: "x"}, float("nan"), {1, 2}, "\ud800", 10**5_000, _deep()], ids=type)
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, value):
    path = tmp_path / "tasks.jsonl"
    write_tasks(path, [TASK])
    wrong = Task("t3", "s", "base", World((), {"Files": {"value": value}}), (Turn("u"),))
    with pytest.raises(TaskFileError, match="task t3 cannot be written"):
        write_tasks(path, [TASK, wrong])
    assert read_tasks(path) == (TASK,)
    assert list(tmp_path.iterdir()) == [path]


def test_what_would_not_be_read_again_is_not_written(tmp_path):
    with pytest.raises(TaskFileError, match="task t1 cannot be written to .*: an earlier task has its id"):
        write_tasks(tmp_path / "tasks.jsonl", [TASK, replace(TASK, scenario="other")])
    assert not list(tmp_path.iterdir())
