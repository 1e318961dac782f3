"""Metrics as JSON lines: one object a step, on the disk at once, floats exact; null where one is not finite.

Other writers (a tracker, a progress display) are other `MetricWriter`s.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rods_jax import strict_json
from rods_jax.files import naming, require_object, write_atomically
from rods_jax.strict_json import JsonError
from rods_jax.types import Json

TIMED = ("seconds", "tokens_per_second", "mfu")  # so begin the names of values that no two runs have in common
MetricWriter = Callable[[int, Mapping[str, Any]], None]  # (step, values: numbers, strings, arrays, lists, objects)


@contextlib.contextmanager
def open_metrics(path: str | Path, resume_step: int | None = None) -> Iterator[MetricWriter]:
    """A writer that appends to the file; a number that is not finite is written as null.

    resume_step: the restored step; lines after it are cut off, and so is a half-written last one.
    None begins a new file, and raises FileExistsError rather than mix two runs.
    """
    path = Path(path)
    if resume_step is None:
        mode = "x"
    else:
        kept = [record for record in read_metrics(path) if record["step"] <= resume_step] if path.exists() else []
        write_atomically(path, "".join(strict_json.dumps(record) + "\n" for record in kept))
        mode = "a"
    with path.open(mode, encoding="utf-8", newline="\n") as file:

        def write(step: int, values: Mapping[str, Any]) -> None:
            with naming(path):
                file.write(strict_json.dumps({"step": step} | dict(values)) + "\n")
                file.flush()
                os.fsync(file.fileno())  # no checkpoint may outlive the steps that led to it

        yield write


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """All complete lines; a last one that a crash cut short is left out.

    JsonError names file and line: not JSON, no object, or without a step. All that `open_metrics` has ever written is
    read, texts of models among it; NaN and Infinity, which older files hold, as null.
    """
    records = read_lines(path)
    for number, record in enumerate(records, start=1):
        require_object(record, f"{path}, line {number}", step=int)
        if record["step"] < 0:
            raise JsonError(f"{path}, line {number}: step must not be negative: got {record['step']}")
    return records


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """As `read_metrics`, of a file whose objects need no step."""
    *lines, _unfinished = Path(path).read_bytes().split(b"\n")
    return [_object(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def _object(line: bytes, where: str) -> dict[str, Json]:
    try:
        value = json.loads(line.decode(), parse_constant=lambda name: None)
    except json.JSONDecodeError as error:
        raise JsonError(f"{where}: not JSON ({error.msg} at column {error.colno})") from error
    except UnicodeDecodeError as error:
        raise JsonError(f"{where}: not UTF-8 at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise JsonError(f"{where}: an integer without end, or a nesting") from error
    return require_object(value, where)
