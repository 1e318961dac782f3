"""Tasks as rows: exact round trips, also through pyarrow and datasets, and errors that name row and column."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_task_files import TASK, names, objects, turns

from rods_jax.adapters import hub_tasks
from rods_jax.task_files import TaskFileError
from rods_jax.types import Task, Turn, World

OTHER = replace(TASK, id="t2", world=World(("Files",)), turns=(Turn("Hello?"),), ancestry=())

worlds = st.builds(World, st.lists(names, max_size=2).map(tuple), objects, objects)
tasks = st.builds(Task, names, st.text(), names, worlds, st.lists(turns, min_size=1, max_size=3).map(tuple))


@pytest.fixture(params=[".jsonl", ".parquet"])
def path(request, tmp_path):
    if request.param == ".parquet":
        pytest.importorskip("pyarrow")
    return tmp_path / f"tasks{request.param}"


@given(tasks)
@settings(max_examples=50, deadline=None)
def test_a_row_is_the_task(task):
    assert hub_tasks.task_of(json.loads(json.dumps(hub_tasks.row_of(task)))) == task


def test_files_give_the_tasks_back(path):
    hub_tasks.write(path, [TASK, OTHER])
    assert hub_tasks.read(path) == (TASK, OTHER)
    assert list(hub_tasks.read(path)[0].world.state["Tickets"]) == ["z", "a"]  # key order
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    hub_tasks.write(path, [])
    assert hub_tasks.read(path) == ()


def test_datasets_reads_them_and_what_it_writes_is_read(path, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    hub_tasks.write(path, [TASK, OTHER])
    kind = {".jsonl": "json", ".parquet": "parquet"}[path.suffix]
    loaded = datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert hub_tasks.from_rows(loaded) == (TASK, OTHER) and tuple(loaded.column_names) == hub_tasks.COLUMNS
    again = tmp_path / f"again{path.suffix}"
    made = datasets.Dataset.from_list([hub_tasks.row_of(one) for one in (TASK, OTHER)])
    made.to_json(str(again)) if kind == "json" else made.to_parquet(str(again))
    assert hub_tasks.read(again) == (TASK, OTHER)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda row: row.pop("options"), "row 2: row: missing column options"),
        (lambda row: row.update(source="x"), "row 2: row: unknown column source"),
        (lambda row: row.update(state="{"), "column state, column 2: not JSON"),
        (lambda row: row.update(state='{"a": NaN}'), "column state.*JSON has no NaN"),
        (lambda row: row.update(state={}), "column state must be JSON text"),
        (lambda row: row.update(options="[]"), "field world.options must be an object"),
        (lambda row: row.update(turns=None), "column turns must be a list"),
        (lambda row: row["turns"][0].pop("gold"), r"turns\[0\]: missing column gold"),
        (lambda row: row["turns"][0]["gold"][0].update(arguments=None), r"turns\[0\].gold\[0\].arguments must be JSON"),
        (lambda row: row["turns"][0].update(user=None), r"field turns\[0\].user must be a string"),
        (lambda row: row.update(version=1), "field version must be 2"),
        (lambda row: row.update(id=TASK.id), "row 2: the id 't1' is already taken"),
        (lambda row: row.update(id=""), "field id must not be empty"),
    ],
)
def test_errors_name_row_and_column(change, words):
    rows = [hub_tasks.row_of(TASK), hub_tasks.row_of(replace(TASK, id="t2"))]
    change(rows[1])
    with pytest.raises(TaskFileError, match=words):
        hub_tasks.from_rows(rows)


def test_what_is_no_such_file_is_refused(path):
    path.write_bytes(b"PAR1 not quite")
    with pytest.raises(TaskFileError, match=str(path)):
        hub_tasks.read(path)
    with pytest.raises(TaskFileError, match="cannot be read"):
        hub_tasks.read(path.with_name(f"absent{path.suffix}"))
    with pytest.raises(TaskFileError, match="must end in .jsonl or .parquet"):
        hub_tasks.read("tasks.csv")


def test_nothing_is_written_where_a_task_would_change(path):
    for wrong in ({"a": (1, 2)}, {"a": float("nan")}, {"a": {1: 2}}, {"a": "\ud800"}):
        with pytest.raises(TaskFileError):
            hub_tasks.write(path, [TASK, replace(OTHER, world=World(("Files",), {"Files": wrong}))])
        assert not list(path.parent.iterdir())


def test_two_tasks_of_one_id_are_not_written_because_nobody_could_read_them(path):
    with pytest.raises(TaskFileError, match="task t1 cannot be written to .*: an earlier task has its id"):
        hub_tasks.write(path, [TASK, replace(OTHER, id="t1")])
    assert not list(path.parent.iterdir())
