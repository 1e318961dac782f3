"""Metrics as JSON lines: one object a step, on the disk at once, floats exact; null where one is not finite.

Other writers (a tracker, a progress display) are other `MetricWriter`s.  Left out on purpose:
averaging, wall-clock stamps and log levels.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rods_jax import strict_json
from rods_jax.task_files import write_atomically

MetricWriter = Callable[[int, Mapping[str, Any]], None]  # (step, values: numbers, strings, 1-D arrays or lists)


@contextlib.contextmanager
def open_metrics(path: str | Path, resume_step: int | None = None) -> Iterator[MetricWriter]:
    """A writer that appends to the file.

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
            file.write(strict_json.dumps({"step": step} | dict(values)) + "\n")
            file.flush()
            os.fsync(file.fileno())  # no checkpoint may outlive the steps that led to it

        yield write


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """All complete lines; a last one that a crash cut short is left out. ValueError names the line."""
    records = []
    *lines, _unfinished = Path(path).read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error.msg} at column {error.colno})") from error
    return records
