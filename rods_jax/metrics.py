"""Metrics as JSON lines: one object a step, on the disk at once, floats exact; null where one is not finite.

Other writers (a tracker, a progress display) are other `MetricWriter`s.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rods_jax import journal
from rods_jax.files import read_object, require_object
from rods_jax.journal import Entry
from rods_jax.strict_json import JsonError, plain

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
        path.touch(exist_ok=False)
    last = math.inf if resume_step is None else resume_step
    with journal.writing_log(path, lambda entry: _checked(path, entry)["step"] <= last) as (before, append):
        before.clear()  # a run writes for days, and looks back at none
        # On the disk when it returns: no checkpoint may outlive the steps that led to it.
        yield lambda step, values: append(plain({"step": step} | dict(values)))


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """All complete lines; a last one that a crash cut short is left out.

    JournalError, JsonError name file and line: not JSON, no object, or without a step. All that `open_metrics` has ever
    written is read, texts of models among it.
    """
    return [_checked(path, entry) for entry in journal.read_log(Path(path))]


def _checked(path: str | Path, entry: Entry) -> dict[str, Any]:
    where = f"{path}, line {entry.line}"
    record = require_object(entry.record, where, step=int)
    if record["step"] < 0:
        raise JsonError(f"{where}: step must not be negative: got {record['step']}")
    return record


def finished_summary(run_dir: Path) -> Mapping[str, Any] | None:
    """The summary that a run wrote at its end; None: there is none, or it was reported on before its end."""
    try:
        summary = read_object(run_dir / "summary.json")
    except (ValueError, OSError):
        return None
    return summary if summary.get("finished", True) is True else None  # older ones do not say
