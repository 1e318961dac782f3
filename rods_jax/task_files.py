"""Tasks as JSON: one task a line, strict on reading, all or nothing on writing.

An environment with files of its own converts them where it lives.  A file of an older schema is refused with what has
changed.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from rods_jax import strict_json
from rods_jax.files import shown, write_atomically
from rods_jax.records import Form, RecordError, decode, encode
from rods_jax.types import Json, Task

VERSION = 2
CHANGED = {1: "since version 2, classes and initial_state stand in `world`, as classes and state, with its options"}


class TaskFileError(ValueError):
    """A task that cannot be read; the message names file, line and field where they are known."""


def task_to_json(task: Task) -> dict[str, Json]:
    """The task as plain JSON values, key order kept (environments may depend on it)."""
    return {"version": VERSION} | encode(task)


def task_from_json(record: Json) -> Task:
    """Inverse of `task_to_json`; an unknown, missing or mistyped field raises TaskFileError by name."""
    if not isinstance(record, dict):
        raise TaskFileError(f"a task must be an object: got {shown(record)}")
    if record.get("version") != VERSION:
        found = record.get("version")
        changed = CHANGED.get(found, "") if isinstance(found, int) else ""
        raise TaskFileError(
            f"field version must be {VERSION}: got {shown(found)}{changed and f' ({changed}; write it so, or use the version that wrote it)'}"
        )
    try:
        task = decode(Task, {name: value for name, value in record.items() if name != "version"})
    except RecordError as error:
        raise TaskFileError(str(error)) from error
    for name in ("id", "category", "turns"):
        if not getattr(task, name):
            raise TaskFileError(f"field {name} must not be empty")
    return task


VERSIONED = {Task: Form(task_to_json, task_from_json)}  # the form of tasks that stand in other records


def content_hash(task: Task) -> str:
    """sha256 of the canonical JSON of category, classes, state and turns: what the policy meets.  Options are the stratum's."""
    turns = [
        [turn.user, [[call.name, dict(call.arguments)] for call in turn.gold], list(turn.released_tools)]
        for turn in task.turns
    ]
    content = [task.category, sorted(task.world.classes), task.world.state, turns]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=dict).encode()).hexdigest()


def task_line(task: Task) -> str:
    """The task as a line of a file. TypeError, ValueError, RecursionError: it would not read back equal."""
    line = json.dumps(task_to_json(task), allow_nan=False)
    if task_from_json(strict_json.loads(line)) != task:
        raise TaskFileError("it holds a tuple or a key that is not a string where JSON has none")
    return line


def write_tasks(path: str | Path, tasks: Iterable[Task]) -> None:
    """Writes all tasks or leaves the file as it was; what would not read back equal is refused, and an id that comes twice."""
    lines: dict[str, str] = {}
    for task in tasks:
        try:
            if task.id in lines:
                raise TaskFileError("an earlier task has its id")
            line = task_line(task)
        except (TypeError, ValueError, RecursionError) as error:
            raise TaskFileError(f"task {task.id} cannot be written to {path}: {error}") from error
        lines[task.id] = line + "\n"
    write_atomically(path, "".join(lines.values()))


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
            raise TaskFileError(f"{where}: field id {shown(task.id)} is already on line {first_line[task.id]}")
        first_line[task.id] = number
        tasks.append(task)
    return tuple(tasks)
