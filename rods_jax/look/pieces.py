"""What the page shows, piece by piece: plain JSON values, read from the files as they are at that moment.

    found = source([Path("runs/a"), Path("runs/b"), Path("results.jsonl")])
    piece(found, "runs"), piece(found, "1/metrics"), piece(found, "0/task/17")

Nothing is locked, repaired or written.  A run that is being written, a torn last line and a file that is not there yet
are fine.  What cannot be shown is a piece too: {"problem": a sentence}.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rods_jax import journal
from rods_jax.environments.conversation import USER
from rods_jax.evaluation import CODES
from rods_jax.files import read_object, require_object
from rods_jax.look.ancestry import Forest, described, forest
from rods_jax.metrics import finished_summary
from rods_jax.types import Json

Records = Sequence[Mapping[str, Any]]
Made = TypeVar("Made")
MAX_ROWS = 5_000  # of a table of results
OWN = ("run_dir", "file")  # settings in which any two runs differ
LOGS = {  # what the page reads, and what it means that one is missing
    "metrics.jsonl": "no step is finished yet",
    "candidates.jsonl": "no seed has been sent yet",
    "trajectories.jsonl": "no trajectory has been kept yet",
    "tasks/seeds.jsonl": "the human seeds are not there",
}


class Source(NamedTuple):
    """What is looked at, and how it is read: again only when files have changed."""

    runs: tuple[Path, ...]
    tables: tuple[Path, ...]  # JSON lines of results, of studies and benchmarks
    read: Callable[[Path], Records]  # a log's objects; none where there is no file
    forest: Callable[[Path], Forest]  # of a run directory
    kept: Callable[[Path], Mapping[str, Json]]  # a run's task id -> (step, number) of each trajectory of it


def source(paths: Sequence[Path]) -> Source:
    """The runs and the tables among the paths. ValueError: one is neither."""
    runs = tuple(path for path in paths if (path / "config.json").is_file())
    tables = tuple(path for path in paths if path.suffix == ".jsonl" and path.is_file())
    if other := [path for path in paths if path not in runs + tables]:
        raise ValueError(f"{other[0]} is neither a run directory nor a file of results (*.jsonl)")
    read = _remembered(_read, _stamp)
    trees = ("tasks/seeds.jsonl", "candidates.jsonl", "metrics.jsonl")
    grown = _remembered(
        lambda run: forest(*(read(run / log) for log in trees)), lambda run: [_stamp(run / log) for log in trees]
    )
    log = "trajectories.jsonl"
    kept = _remembered(lambda run: _by_task(read(run / log)), lambda run: _stamp(run / log))
    return Source(runs, tables, read, grown, kept)


def _read(path: Path) -> Records:
    """JournalError, JsonError: as for `journal.read_log`, or a line is no object."""
    lines = journal.read_log(path) if path.is_file() else ()
    return [require_object(line.record, f"{path}, line {line.line}") for line in lines]


def _remembered(make: Callable[[Path], Made], stamp: Callable[[Path], Json]) -> Callable[[Path], Made]:
    known: dict[Path, tuple[Json, Made]] = {}

    def remembered(path: Path) -> Made:
        now = stamp(path)
        if path not in known or known[path][0] != now:
            known[path] = now, make(path)
        return known[path][1]

    return remembered


def piece(found: Source, address: str) -> Json:
    """The value at one of `addresses`, or {"problem": why it cannot be shown}. KeyError: no such address."""
    view = _view(found, address)
    try:
        return view()
    except (ValueError, OSError) as error:
        return {"problem": str(error)}
    except IndexError:
        return {"problem": "it is not there any more: the run went on from an earlier step"}
    except (KeyError, TypeError, AttributeError) as error:
        return {"problem": f"another version of rods_jax wrote it otherwise ({type(error).__name__}: {error})"}


def _view(found: Source, address: str) -> Callable[[], Json]:
    match = re.fullmatch(r"(?:(\d{1,3})/)?([a-z]+)(?:/(\d{1,9}))?", address)
    if match is None:
        raise KeyError(address)
    run, name, number = match.groups()
    if run is None:
        return partial(_WHOLE[name], found) if number is None else partial(_NUMBERED[name], found, int(number))
    if int(run) >= len(found.runs):
        raise KeyError(address)
    directory = found.runs[int(run)]
    return (
        partial(_OF_RUN[name], found, directory)
        if number is None
        else partial(_ITEMS[name], found, directory, int(number))
    )


def addresses(found: Source) -> Iterator[str]:
    """All pieces, for a page that is one file."""
    yield from _WHOLE
    yield from (f"table/{number}" for number in range(len(found.tables)))
    for run in range(len(found.runs)):
        for name in _OF_RUN:
            yield f"{run}/{name}"
        for name, item in (("pool", "task"), ("trajectories", "trajectory"), ("synthesis", "outcome")):
            rows = piece(found, f"{run}/{name}").get("rows", ())
            yield from (f"{run}/{item}/{number}" for number in range(len(rows)))


# --------------------------------------------------------------------------------------- of all runs
def _runs(found: Source) -> Json:
    """Which runs and tables there are, how far each is, what is missing; the stamps change with the files."""
    names = [path.name for path in found.runs]
    return {
        "runs": [_standing(path, path.name if names.count(path.name) == 1 else str(path)) for path in found.runs],
        "tables": [path.name for path in found.tables],
        "stamp": [_stamp(path) for path in found.tables],
    }


def _standing(directory: Path, name: str) -> Json:
    stamps = {log: _stamp(directory / log) for log in LOGS}
    written, summary = stamps["metrics.jsonl"], _stamp(directory / "summary.json")
    return {
        "name": name,
        "written": written and written[0] / 1e9,  # seconds since the epoch
        "finished": bool(summary and written and summary[0] >= written[0]) and finished_summary(directory) is not None,
        "missing": [f"{log}: {meaning}" for log, meaning in LOGS.items() if stamps[log] is None],
        "stamp": [*stamps.values(), summary],
    }


def _stamp(path: Path) -> tuple[int, int] | None:
    """Time in ns and size: a log that has grown has another one."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_mtime_ns, status.st_size


def _differences(found: Source) -> Json:
    """The settings in which the runs differ, a row each: [key, value in the first run, in the second, ...]."""
    flat = [_flat(read_object(run / "config.json")) for run in found.runs]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [[key, *(one.get(key) for one in flat)] for key in keys if key not in OWN]
    return {"rows": [row for row in rows if any(value != row[1] for value in row[2:])]}


def _table(found: Source, number: int) -> Json:
    """The first MAX_ROWS results of a file, its columns in the order of their appearance."""
    records = found.read(found.tables[number])
    flat = [_flat(record) for record in records[:MAX_ROWS]]
    columns = list(dict.fromkeys(key for record in flat for key in record))
    return {"columns": columns, "rows": [[r.get(key) for key in columns] for r in flat], "total": len(records)}


def _flat(value: Json, key: str = "") -> dict[str, Json]:
    """Scalars by dotted names; lists that hold no objects stay whole."""
    if isinstance(value, list) and any(isinstance(one, dict | list) for one in value):
        value = {str(number): one for number, one in enumerate(value)}
    if not isinstance(value, dict) or not value:
        return {key: value}
    return {name: x for part, one in value.items() for name, x in _flat(one, f"{key}.{part}" if key else part).items()}


# ---------------------------------------------------------------------------------------- of one run
def _metrics(found: Source, directory: Path) -> Json:
    """Every metric that is a number, as a column with null where a step lacks it, and two that a step's groups give."""
    by_step = {record["step"]: {**record, **_derived(record)} for record in found.read(directory / "metrics.jsonl")}
    records = [by_step[step] for step in sorted(by_step)]
    names = dict.fromkeys(name for record in records for name, x in record.items() if isinstance(x, int | float))
    return {
        "steps": sorted(by_step),
        "columns": {n: [_rounded(record.get(n)) for record in records] for n in names if n != "step"},
    }


def _derived(record: Mapping[str, Any]) -> dict[str, float]:
    """variance_mean: of the groups' rewards.  length_mean: tokens that the policy generated in a rollout."""
    variances = [x for x in record.get("task_variance") or () if x is not None]
    rollouts = record.get("rollouts_played") or record.get("valid_rollouts", 0) + record.get("failed_rollouts", 0)
    spread = {"variance_mean": sum(variances) / len(variances)} if variances else {}
    return spread | (
        {"length_mean": record["tokens_generated"] / rollouts} if rollouts and "tokens_generated" in record else {}
    )


def _rounded(value: Json) -> Json:
    return float(f"{value:.6g}") if isinstance(value, float) else int(value) if isinstance(value, bool | int) else None


def _pool(found: Source, directory: Path) -> Json:
    """A row for each task that was ever in the pool or in its queue, and the band of the boundary zone."""
    replay = read_object(directory / "config.json").get("replay", {})
    tree = found.forest(directory)
    return {
        "band": [replay.get("lower", 0.25), replay.get("upper", 0.75)],
        "recorded": tree.recorded,
        "rows": tree.rows,
    }


def _task(found: Source, directory: Path, number: int) -> Json:
    task = described(found.forest(directory), number)
    return task | {"trajectories": found.kept(directory).get(task["id"], [])}


def _by_task(trajectories: Records) -> Mapping[str, Json]:
    kept: dict[str, Json] = {}
    for number, one in enumerate(trajectories):
        kept.setdefault(one["task_id"], []).append((one["step"], number))
    return kept


def _trajectories(found: Source, directory: Path) -> Json:
    wanted = ("step", "task_id", "rollout", "reward", "truncated", "failure")
    rows = found.read(directory / "trajectories.jsonl")
    return {"rows": [{key: row.get(key) for key in wanted} | {"passed": _passed(row)} for row in rows]}


def _passed(record: Mapping[str, Any]) -> Json:
    return record.get("passed", record.get("turns_passed", []))  # as runs before 0.2 named it


def _trajectory(found: Source, directory: Path, number: int) -> Json:
    record = found.read(directory / "trajectories.jsonl")[number]
    task = found.forest(directory).by_id.get(record["task_id"])
    turns = _opened(task["turns"], record) if task else []
    codes = {str(code): name.replace("_", " ") for code, name in CODES.items()}
    return {**record, "passed": _passed(record), "turns": turns, "codes": codes}


def _opened(turns: Sequence[Json], record: Mapping[str, Any]) -> Sequence[Json]:
    """The turns; the first of a conversation with what its user said, which may be other words than the task's."""
    lines = record.get("lines") or ()
    before = lines[: len(lines) - sum(step.get("num_lines", 0) for step in record["steps"])]
    said = [one["text"] for one in before if one["who"] == USER and not (one["calls"] or one["result"])]
    return [turns[0] | {"user": "\n".join(said)}, *turns[1:]] if said else turns


def _synthesis(found: Source, directory: Path) -> Json:
    """What became of each seed, and how often each reason ended an attempt."""
    records = found.read(directory / "candidates.jsonl")
    reasons = Counter(one["error"] for record in records for one in record["rejections"])
    return {
        "rows": [
            {key: record.get(key) for key in ("step", "dispatched", "seed")}
            | {
                "variant": (record["candidate"] or {}).get("id"),
                "errors": [one["error"] for one in record["rejections"]],
            }
            for record in records
        ],
        "reasons": reasons.most_common(),
        "questions": sum(len(record["exchanges"]) for record in records),
    }


def _outcome(found: Source, directory: Path, number: int) -> Json:
    record = found.read(directory / "candidates.jsonl")[number]
    return {**record, "candidate": (record["candidate"] or {}).get("id")}


def _settings(found: Source, directory: Path) -> Json:
    """The configuration, what the cold start reached, the summary where there is one, and the files."""
    objects = {name: directory / f"{name}.json" for name in ("config", "cold_start", "summary")}
    stamps = ((path, _stamp(path)) for path in directory.iterdir())  # None: it has gone, or a link leads nowhere
    entries = sorted((path.name, path.is_dir(), stamp[1]) for path, stamp in stamps if stamp)
    return {name: _flat(read_object(path)) for name, path in objects.items() if path.is_file()} | {"files": entries}


_WHOLE: Mapping[str, Callable[[Source], Json]] = {"runs": _runs, "differences": _differences}
_NUMBERED: Mapping[str, Callable[..., Json]] = {"table": _table}
_OF_RUN: Mapping[str, Callable[..., Json]] = {
    "metrics": _metrics,
    "pool": _pool,
    "trajectories": _trajectories,
    "synthesis": _synthesis,
    "settings": _settings,
}
_ITEMS: Mapping[str, Callable[..., Json]] = {"task": _task, "trajectory": _trajectory, "outcome": _outcome}
