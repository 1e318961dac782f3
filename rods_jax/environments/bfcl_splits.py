"""Which BFCL tasks train and which are held out, where somebody else has decided it.

A split file names tasks by their ids: a Parquet file in EnvTuning's layout (`extra_info.interaction_kwargs.id`), JSON
lines with such rows or with an `id`, a JSON list of ids, or plain text with an id on each line.  Parquet needs pyarrow,
which the project does not install.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from rods_jax import strict_json
from rods_jax.types import Json, Task


def read_ids(path: str | Path) -> tuple[str, ...]:
    """Task ids in the order of the file. ValueError names the file and the line that has none; OSError as ever."""
    path = Path(path)
    rows = _parquet(path) if path.suffix == ".parquet" else _rows(path)
    ids = tuple(_id(row, path, number) for number, row in enumerate(rows, 1))
    if not ids:
        raise ValueError(f"{path} names no task")
    if len(set(ids)) < len(ids):
        raise ValueError(f"{path} names {next(one for one in ids if ids.count(one) > 1)} twice")
    return ids


def pick(tasks: Sequence[Task], ids: Iterable[str]) -> tuple[Task, ...]:
    """The tasks with these ids, in the order of `ids`. ValueError names an id that no task has."""
    by_id, ids = {task.id: task for task in tasks}, tuple(ids)
    unknown = [one for one in ids if one not in by_id]
    if unknown:
        raise ValueError(f"{len(unknown)} ids of the split are no BFCL task's, the first is {unknown[0]!r}")
    return tuple(by_id[one] for one in ids)


def _rows(path: Path) -> list[Json]:
    text = path.read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        return strict_json.loads(text, f"{path}")
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    return [
        strict_json.loads(line, f"{path}, line {number}") if line.startswith("{") else line
        for number, line in lines
        if line
    ]


def _parquet(path: Path) -> list[Json]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(f"{path} is a Parquet file, which needs pyarrow: pip install pyarrow") from error
    return parquet.read_table(path).to_pylist()


def _id(row: Json, path: Path, number: int) -> str:
    """A row's id: itself, its `id`, or EnvTuning's."""
    if isinstance(row, dict):
        extra = row.get("extra_info")
        kwargs = extra.get("interaction_kwargs") if isinstance(extra, dict) else None
        row = kwargs.get("id") if isinstance(kwargs, dict) else row.get("id")
    if not isinstance(row, str) or not row:
        raise ValueError(f"{path}, row {number} names no task: it has neither id nor extra_info.interaction_kwargs.id")
    return row
