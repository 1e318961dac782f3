"""Tasks as rows of a data set, in JSON lines or Parquet as Hugging Face's datasets read and write them.

Columns have one type each, so what is free-form in a task is JSON text:

    version                 int     that of the task file
    id, scenario, category  string
    classes, ancestry       list of string
    state, options          string  JSON objects: the world's
    turns                   list of {user: string, released_tools: list of string,
                            gold: list of {name: string, arguments: string, a JSON object}}

All columns are there in every row, and no others.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rods_jax import strict_json
from rods_jax.adapters import require
from rods_jax.files import beside, write_atomically
from rods_jax.task_files import TaskFileError, task_from_json, task_to_json
from rods_jax.types import Json, Task

COLUMNS = ("version", "id", "scenario", "category", "classes", "state", "options", "turns", "ancestry")
_TURN = ("user", "gold", "released_tools")
_CALL = ("name", "arguments")


# ------------------------------------------------------------------------------------------ rows
def row_of(task: Task) -> dict[str, Json]:
    """A task as a row. TaskFileError: it holds what JSON has no text for."""
    record = task_to_json(task)
    world = record["world"]
    turns = [turn | {"gold": [_packed(call, "arguments") for call in turn["gold"]]} for turn in record["turns"]]
    packed = _packed({"state": world["state"], "options": world["options"]}, "state", "options")
    row = record | packed | {"classes": world["classes"], "turns": turns}
    return {name: row[name] for name in COLUMNS}


def task_of(row: Json) -> Task:
    """Inverse of `row_of`. TaskFileError names a column that is missing, unknown or wrong."""
    row = _exactly(row, COLUMNS, "row")
    turns = [_exactly(turn, _TURN, f"turns[{t}]") for t, turn in enumerate(_list(row["turns"], "turns"))]
    world = {"classes": row["classes"], **{name: _unpacked(row[name], name) for name in ("state", "options")}}
    own = {name: row[name] for name in ("version", "id", "scenario", "category", "ancestry")}
    return task_from_json(
        own
        | {"world": world}
        | {"turns": [turn | {"gold": _gold(turn["gold"], f"turns[{t}].gold")} for t, turn in enumerate(turns)]}
    )


# ----------------------------------------------------------------------------------------- files
def write(path: str | Path, tasks: Iterable[Task]) -> None:
    """Writes all tasks, as the name ends: .jsonl or .parquet. TaskFileError: one of them would not read back equal, or
    an id comes twice."""
    rows: dict[str, dict[str, Json]] = {}
    for task in tasks:
        row = row_of(task)
        try:
            same = task_of(strict_json.loads(json.dumps(row))) == task
        except (ValueError, RecursionError) as error:
            raise TaskFileError(f"task {task.id} cannot be written to {path}: {error}") from error
        if not same:
            raise TaskFileError(f"task {task.id} cannot be written to {path}: it would read back as another task")
        if task.id in rows:
            raise TaskFileError(f"task {task.id} cannot be written to {path}: an earlier task has its id")
        rows[task.id] = row
    if _is_parquet(path):
        _write_parquet(Path(path), [*rows.values()])
    else:
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows.values()))


def read(path: str | Path) -> tuple[Task, ...]:
    """All tasks of a .jsonl or .parquet file. TaskFileError names file, row (from 1) and column."""
    try:
        rows = _read_parquet(path) if _is_parquet(path) else _read_lines(path)
    except OSError as error:
        raise TaskFileError(f"{path} cannot be read: {error}") from error
    return from_rows(rows, str(path))


def from_rows(rows: Iterable[Json], where: str = "the data set") -> tuple[Task, ...]:
    """Tasks of rows, such as a datasets.Dataset. TaskFileError names row (from 1) and column, or an id given twice."""
    tasks: dict[str, Task] = {}
    for number, row in enumerate(rows, start=1):
        try:
            task = task_of(row)
        except TaskFileError as error:
            raise TaskFileError(f"{where}, row {number}: {error}") from error
        if task.id in tasks:
            raise TaskFileError(f"{where}, row {number}: the id {task.id!r} is already taken")
        tasks[task.id] = task
    return tuple(tasks.values())


def _is_parquet(path: str | Path) -> bool:
    ending = Path(path).suffix
    if ending not in (".jsonl", ".parquet"):
        raise TaskFileError(f"{path} must end in .jsonl or .parquet")
    return ending == ".parquet"


def _read_lines(path: str | Path) -> list[Json]:
    try:
        lines = Path(path).read_bytes().split(b"\n")
        return [
            strict_json.loads(line, f"{path}, line {number}")
            for number, line in enumerate(lines, start=1)
            if line.strip()
        ]
    except strict_json.JsonError as error:
        raise TaskFileError(str(error)) from error


def _read_parquet(path: str | Path) -> list[Json]:
    parquet = require("pyarrow.parquet", "parquet")
    try:
        return parquet.ParquetFile(path).read().to_pylist()
    except require("pyarrow", "parquet").ArrowException as error:
        raise TaskFileError(f"{path} is no Parquet file: {error}") from error


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Json]]) -> None:
    arrow, parquet = require("pyarrow", "parquet"), require("pyarrow.parquet", "parquet")
    text, texts = arrow.string(), arrow.list_(arrow.string())
    call = arrow.struct(dict.fromkeys(_CALL, text))
    turn = arrow.struct({"user": text, "gold": arrow.list_(call), "released_tools": texts})
    kinds = {"version": arrow.int64(), "classes": texts, "ancestry": texts, "turns": arrow.list_(turn)}
    schema = arrow.schema([(name, kinds.get(name, text)) for name in COLUMNS])
    partial = beside(path)
    try:
        parquet.write_table(arrow.Table.from_pylist(list(rows), schema), partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------- fields
def _packed(record: Mapping[str, Json], *names: str) -> dict[str, Json]:
    try:
        return {**record, **{name: json.dumps(record[name], allow_nan=False) for name in names}}
    except (TypeError, ValueError, RecursionError) as error:
        raise TaskFileError(f"{names[0]} has no JSON text: {error}") from error


def _unpacked(text: Json, name: str) -> Json:
    if not isinstance(text, str):
        raise TaskFileError(f"column {name} must be JSON text: got {text!r}"[:200])
    try:
        return strict_json.loads(text, f"column {name}")
    except strict_json.JsonError as error:
        raise TaskFileError(str(error)) from error


def _gold(calls: Json, name: str) -> list[Json]:
    found = [_exactly(call, _CALL, f"{name}[{i}]") for i, call in enumerate(_list(calls, name))]
    return [one | {"arguments": _unpacked(one["arguments"], f"{name}[{i}].arguments")} for i, one in enumerate(found)]


def _list(value: Json, name: str) -> list[Json]:
    if not isinstance(value, list):
        raise TaskFileError(f"column {name} must be a list: got {value!r}"[:200])
    return value


def _exactly(value: Any, names: Sequence[str], where: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise TaskFileError(f"{where} must be an object: got {value!r}"[:200])
    for name in names:
        if name not in value:
            raise TaskFileError(f"{where}: missing column {name}")
    for name in value:
        if name not in names:
            raise TaskFileError(f"{where}: unknown column {name}")
    return value
