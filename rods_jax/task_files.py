"""Tasks as JSON: one task a line, strict on reading, all or nothing on writing.

An environment with files of its own converts them where it lives.  A file of an older schema is refused with what has
changed.
"""

import dataclasses
import functools
import json
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rods_jax import strict_json
from rods_jax.files import write_atomically
from rods_jax.types import Json, Task

VERSION = 2
CHANGED = {1: "since version 2, classes and initial_state stand in `world`, as classes and state, with its options"}


class TaskFileError(ValueError):
    """A task that cannot be read; the message names file, line and field where they are known."""


def task_to_json(task: Task) -> dict[str, Json]:
    """The task as plain JSON values, key order kept (environments may depend on it)."""
    return {"version": VERSION} | _encode(task)


def task_from_json(record: Json) -> Task:
    """Inverse of `task_to_json`; an unknown, missing or mistyped field raises TaskFileError by name."""
    if not isinstance(record, dict):
        raise TaskFileError(f"a task must be an object: got {_shown(record)}")
    if record.get("version") != VERSION:
        found = record.get("version")
        changed = CHANGED.get(found, "") if isinstance(found, int) else ""
        raise TaskFileError(
            f"field version must be {VERSION}: got {_shown(found)}{changed and f' ({changed}; write it so, or use the version that wrote it)'}"
        )
    task = _decode(Task, {name: value for name, value in record.items() if name != "version"}, "")
    for name in ("id", "category", "turns"):
        if not getattr(task, name):
            raise TaskFileError(f"field {name} must not be empty")
    return task


def write_tasks(path: str | Path, tasks: Iterable[Task]) -> None:
    """Writes all tasks or leaves the file as it was; a task that would not read back equal is refused."""
    lines = []
    for task in tasks:
        try:
            line = json.dumps(task_to_json(task), allow_nan=False)
            if task_from_json(strict_json.loads(line)) != task:
                raise TaskFileError("it holds a tuple or a key that is not a string where JSON has none")
        except (TypeError, ValueError, RecursionError) as error:
            raise TaskFileError(f"task {task.id} cannot be written to {path}: {error}") from error
        lines.append(line + "\n")
    write_atomically(path, "".join(lines))


def read_tasks(path: str | Path) -> tuple[Task, ...]:
    """All tasks of a file, in order; raises TaskFileError naming file, line and field.

    A file without a task is none of these: a part of a run's tasks may be empty.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise TaskFileError(f"{path} cannot be read: {error}") from error
    tasks: list[Task] = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            task = task_from_json(strict_json.loads(line, where))
        except strict_json.JsonError as error:
            raise TaskFileError(str(error)) from error
        except TaskFileError as error:
            raise TaskFileError(f"{where}: {error}") from error
        if task.id in first_line:
            raise TaskFileError(f"{where}: field id {_shown(task.id)} is already on line {first_line[task.id]}")
        first_line[task.id] = number
        tasks.append(task)
    return tuple(tasks)


def _encode(value: Any) -> Json:
    if dataclasses.is_dataclass(value):
        return {field.name: _encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def _decode(annotation: Any, value: Json, path: str) -> Any:
    """Builds what the annotation says out of JSON; the annotations of types.py are the schema."""
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        _require(isinstance(value, dict), path, "an object", value)
        fields = {field.name: field for field in dataclasses.fields(annotation)}
        for name in value:
            if name not in fields:
                raise TaskFileError(f"unknown field {_join(path, name)}")
        for name, field in fields.items():
            has_default = not (field.default is field.default_factory is dataclasses.MISSING)
            if name not in value and not has_default:
                raise TaskFileError(f"missing field {_join(path, name)}")
        hints = _type_hints(annotation)
        return annotation(**{name: _decode(hints[name], item, _join(path, name)) for name, item in value.items()})
    origin = typing.get_origin(annotation)
    if origin is tuple:
        _require(isinstance(value, list), path, "a list", value)
        item_type = typing.get_args(annotation)[0]
        return tuple(_decode(item_type, item, f"{path}[{i}]") for i, item in enumerate(value))
    if origin is Mapping:
        _require(isinstance(value, dict), path, "an object", value)
        return value
    _require(isinstance(value, annotation), path, "a string" if annotation is str else annotation.__name__, value)
    return value


_type_hints: Callable[[type], dict[str, Any]] = functools.cache(typing.get_type_hints)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _require(condition: bool, path: str, expected: str, value: Json) -> None:
    if not condition:
        raise TaskFileError(f"field {path} must be {expected}: got {_shown(value)}")


def _shown(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
