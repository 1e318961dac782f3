"""How good a policy is: keeps played episodes in a journal, and turns them into scores.

Scores are computed from records and tasks alone; dialogue.py plays.
"""

import contextlib
import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from rods_jax import journal
from rods_jax.dialogue import Record
from rods_jax.environments.conversation import USER, WRONG_OWNER
from rods_jax.environments.protocol import Domain, Slip
from rods_jax.fields import differences
from rods_jax.journal import Entry, JournalError
from rods_jax.records import RecordError, decode, encode
from rods_jax.rewards import CALL_FAILED, CALLED, PARSE_ERROR, SPOKE, TURN_FAILED, TURN_PASSED
from rods_jax.types import Json, Task

CODES = {
    PARSE_ERROR: "parse_error",
    CALL_FAILED: "call_failed",
    CALLED: "called",
    TURN_FAILED: "turn_failed",
    TURN_PASSED: "turn_passed",
    SPOKE: "spoke",
}
ALL, MACRO, UNDISPUTED = "all tasks", "category mean", "all but disputed gold"
NUM_RESAMPLES = 2_000
NUM_LONGEST = 10


# ----------------------------------------------------------------------------------- the journal
Key = tuple[str, int]  # task id, rollout


@contextlib.contextmanager
def open_journal(
    path: str | Path, settings: Mapping[str, Json]
) -> Iterator[tuple[dict[Key, Record], Callable[[Record], None]]]:
    """(records so far by task and rollout, append): a new log, or the one that an interruption left.

    The last record of a task and rollout counts.  JournalError: the log was begun with other settings or by another
    program, is damaged, or another process is writing it; it is left as it is.
    """
    path, header = Path(path), json.dumps(settings)

    def ours(entries: Sequence[Entry]) -> None:
        begun = b"" if entries else path.read_bytes().rstrip(b"\0")  # a lost block reads as zeros
        if not header.encode().startswith(begun):
            raise JournalError(f"{path} is no journal of an evaluation: give another folder")
        if entries and (changed := differences(entries[0].record, json.loads(header))):
            raise JournalError(f"{path} was begun with another {', '.join(changed)}: give another folder")

    with journal.writing_log(path, check=ours) as (entries, append):
        records = {}
        for line, one in entries[1:]:
            try:
                record = decode(Record, one)
            except RecordError as error:
                raise JournalError(f"{path} is damaged: line {line}: {error}") from error
            records[record.task_id, record.rollout] = record
        if not entries:
            append(settings)
        entries.clear()  # the records are kept, and their lines would be beside them
        yield records, lambda record: append(encode(record))


# ----------------------------------------------------------------------------------------- scores
def score(
    tasks: Sequence[Task], records: Sequence[Record], *, seed: int, disputed: Collection[str] = ()
) -> dict[str, Json]:
    """Scores by category and overall, with 95 % bootstrap intervals over tasks; plain JSON values.

    disputed: ids of tasks whose gold nobody can reach; where some were played, a row leaves them out.

    A metric's value for a task is its mean over the task's valid rollouts (failed ones are counted and
    left out); `pass@k` and `pass^k` need k of them and judge by the leaderboard's rule. "category mean"
    is the leaderboard's overall score. Consumes generators of its own, from `seed`.
    """
    by_task: dict[str, list[Record]] = {task.id: [] for task in tasks}
    for record in sorted(records, key=lambda record: record.rollout):
        by_task[record.task_id].append(record)
    max_k = max(map(len, by_task.values()))
    names = ["official", "rods", "state", "progress"]
    names += [f"pass{sign}{k}" for k in range(1, max_k + 1) for sign in "@^"]
    groups = {c: [task for task in tasks if task.category == c] for c in dict.fromkeys(task.category for task in tasks)}
    groups = {ALL: list(tasks)} | {category: some for category, some in groups.items() if some}
    categories = [name for name in groups if name != ALL]
    if clean := [task for task in tasks if task.id not in disputed]:
        groups |= {UNDISPUTED: clean} if len(clean) < len(tasks) else {}
    rows, means, draws = {}, {}, {}
    for i, (group, some) in enumerate(groups.items()):
        values_TM = np.array([_task_values(by_task[task.id], max_k) for task in some])
        means[group], draws[group] = bootstrap(values_TM, np.random.default_rng([seed, i]))
        rows[group] = _counts([by_task[task.id] for task in some]) | _estimates(names, means[group], draws[group])
    macro = [np.mean([values[c] for c in categories], axis=0) for values in (means, draws)]
    rows[MACRO] = _counts(list(by_task.values())) | _estimates(names, *macro)
    valid = [record for some in by_task.values() for record in some if not record.failure]
    codes = Counter(move.code for record in valid for move in record.moves)
    return {
        "rows": rows,
        "codes": {name: codes[code] for code, name in CODES.items()},
        "truncated": dict(Counter(record.truncated for record in valid if record.truncated).most_common()),
        "failures": dict(Counter(record.failure for record in records if record.failure).most_common()),
        "ended": dict(Counter(record.ended for record in valid if record.ended).most_common()),
        "blamed": dict(Counter(record.blame for record in valid if record.blame).most_common()),
        "tokens": sum(record.tokens for record in valid),
        "longest": [
            {"task": r.task_id, "rollout": r.rollout, "moves": len(r.moves), "tokens": r.tokens}
            for r in sorted(valid, key=lambda record: -len(record.moves))[:NUM_LONGEST]
        ],
    }


def slips_of(domain: Domain, task: Task, record: Record) -> Sequence[Slip]:
    """Errors that a conversation's transcript shows, of either side; none where a record or a domain has no transcript."""
    reading = domain.of(task).reading
    return reading.slips(task, record.lines, record.ended) if reading and record.lines else ()


def count_slips(slips: Iterable[Slip]) -> dict[str, dict[str, int]]:
    """Calls of the other side's tools by who made them, and the user's other errors by kind, the most frequent first."""
    slips = list(slips)
    calls = Counter(slip.who for slip in slips if slip.kind == WRONG_OWNER)
    errors = Counter(slip.kind for slip in slips if slip.kind != WRONG_OWNER and slip.who == USER)
    return {"wrong_owner_calls": dict(calls.most_common()), "user_errors": dict(errors.most_common())}


def pass_at(n: int, c: int, k: int) -> float:
    """1 - C(n-c, k) / C(n, k): the chance that of k rollouts, drawn from n of which c passed, one passed."""
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def pass_all(n: int, c: int, k: int) -> float:
    """C(c, k) / C(n, k): the chance that all of k rollouts passed (tau-bench's pass^k)."""
    return math.comb(c, k) / math.comb(n, k)


def bootstrap(values_TM: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(means [M], their means in resamples of the T tasks [B,M]); NaN marks a value that a task lacks.

    Consumes rng: one multinomial draw of T out of T for each resample.
    """
    num_tasks = len(values_TM)
    counts_BT = rng.multinomial(num_tasks, np.full(num_tasks, 1 / num_tasks), NUM_RESAMPLES)
    present_TM = ~np.isnan(values_TM)
    weights_XT = np.concatenate([np.ones((1, num_tasks)), counts_BT])
    with np.errstate(invalid="ignore"):  # 0 / 0: no task of the resample has the value
        means_XM = weights_XT @ np.where(present_TM, values_TM, 0.0) / (weights_XT @ present_TM)
    return means_XM[0], means_XM[1:]


def _task_values(records: Sequence[Record], max_k: int) -> list[float]:
    valid = [record for record in records if not record.failure]
    n, c = len(valid), sum(all(record.official) for record in valid)
    if n == 0:
        return [np.nan] * (4 + 2 * max_k)
    solved = sum(all(record.rods) for record in valid) / n
    state = sum(record.state for record in valid) / n
    progress = sum(sum(record.rods) / len(record.rods) for record in valid) / n
    values = [c / n, solved, state, progress]
    for k in range(1, max_k + 1):
        values += [pass_at(n, c, k), pass_all(n, c, k)] if k <= n else [np.nan, np.nan]
    return values


def _counts(groups: Sequence[Sequence[Record]]) -> dict[str, int]:
    failed = sum(bool(record.failure) for some in groups for record in some)
    return {"tasks": len(groups), "episodes": sum(map(len, groups)), "failed": failed}


def _estimates(names: Sequence[str], means_M: np.ndarray, draws_BM: np.ndarray) -> dict[str, Json]:
    """Percentile intervals; None where no task has a value."""
    estimates: dict[str, Json] = dict.fromkeys(names)
    for name, mean, draws_B in zip(names, means_M.tolist(), draws_BM.T, strict=True):
        if not math.isnan(mean):
            low, high = np.nanquantile(draws_B, (0.025, 0.975)).tolist()
            estimates[name] = {"mean": mean, "low": low, "high": high}
    return estimates
