"""How good a policy is: plays episodes one by one, keeps them in a journal, and turns them into scores.

A player is a function from the messages that came back to the next action (`Act`).  `play` therefore plays a gold
player, a null player, a server and a recorded rollout alike, under the rules of either protocol.  Every episode gets
three verdicts: the RODS rule, live; the leaderboard's rule, on its calls replayed as the leaderboard would; and whether
the final state is the gold's, however the episode reached it.  Scores are computed from records and tasks alone.
"""

import contextlib
import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rods_jax import journal
from rods_jax.config import differences
from rods_jax.environments.episode import Episode, readable
from rods_jax.environments.foreign import equal, shown, told
from rods_jax.environments.gold import require_repeats
from rods_jax.environments.protocol import Domain
from rods_jax.environments.scoring import RODS, GoldTrace, Rules, gold_trace, official_turn_passed, replay
from rods_jax.journal import JournalError
from rods_jax.records import RecordError, decode, encode
from rods_jax.rewards import CALL_FAILED, CALLED, PARSE_ERROR, TURN_FAILED, TURN_PASSED
from rods_jax.types import Action, Call, Json, Message, Task

CODES = {
    PARSE_ERROR: "parse_error",
    CALL_FAILED: "call_failed",
    CALLED: "called",
    TURN_FAILED: "turn_failed",
    TURN_PASSED: "turn_passed",
}
ALL, MACRO, UNDISPUTED = "all tasks", "category mean", "all but disputed gold"
NUM_RESAMPLES = 2_000
NUM_LONGEST = 10
MAX_DIFFERENCES = 8  # per turn: one wrong early call can leave hundreds
MAX_SHOWN = 500  # characters of an expected or found value


# ------------------------------------------------------------------------------------ one episode
@dataclass(frozen=True)
class Move:
    """One assistant message as it was understood, and what came back."""

    turn: int
    text: str
    calls: tuple[Call, ...]
    code: int  # diagnostic event code, RODS 1.2
    observations: tuple[str, ...]
    reasoning: str = ""  # what a served model thought before it, where the server tells


@dataclass(frozen=True)
class Difference:
    """One reason why a turn failed: what should have been there, and what was."""

    where: str
    expected: str
    found: str


@dataclass(frozen=True)
class Record:
    """One finished episode: a line of the journal."""

    task_id: str
    rollout: int
    rods: tuple[bool, ...]  # turns passed under the RODS rule; fixed length U, unreached turns are False
    official: tuple[bool, ...]  # the same under the leaderboard's rule
    state: bool  # the final state is the gold's
    reasons: tuple[tuple[Difference, ...], ...]  # per turn; empty where it passed under the RODS rule
    moves: tuple[Move, ...]
    tokens: int = 0  # that the policy generated, where it knows
    truncated: str = ""  # which limit of the policy ended the episode early
    failure: str = ""  # of the infrastructure: counted, and in no score


class Said(NamedTuple):
    """What a player answers with: the raw text and what it means."""

    text: str
    action: Action
    tokens: int = 0
    reasoning: str = ""


class Stop(NamedTuple):
    """What a player answers with when it cannot go on."""

    truncated: str = ""
    failure: str = ""


Act = Callable[[Sequence[Message]], Said | Stop]  # what came back since the last action -> the next action


def play(domain: Domain, task: Task, rollout: int, act: Act, rules: Rules = RODS) -> Record:
    """Plays one episode to its end; the first message that `act` gets carries the visible tools.

    rules: of the interaction; the record has both verdicts under any rules.  Never raises: an exception of the player,
    the task or the environment is the record's `failure`.
    """
    moves: list[Move] = []
    unreached: tuple[Difference, ...] = (Difference("turn", "closed", "the episode ended before"),)
    reasons = [unreached] * len(task.turns)
    rods = [False] * len(task.turns)
    official = (False,) * len(task.turns)
    state, stop, tokens = False, Stop(), 0
    try:
        trace = gold_trace(domain, task)

        def judge(trace: GoldTrace, turn: int, *closing) -> bool:
            rods[turn] = RODS.turn_passed(trace, turn, *closing)
            reasons[turn] = () if rods[turn] else _why(trace, turn, *closing)
            return rules.turn_passed(trace, turn, *closing)

        episode = Episode(domain, task, trace, rules._replace(turn_passed=judge))
        messages: tuple[Message, ...] = (Message("user", task.turns[0].user, episode.visible_tools),)
        done = False
        while not done:
            said = act(messages)
            if isinstance(said, Stop):
                stop = said
                break
            turn = episode.turn
            action = readable(said.action)
            code, messages, observations, done, _ = episode.act(action)
            moves.append(Move(turn, said.text, action.calls, code, observations, said.reasoning))
            tokens += said.tokens
        if not all(rods):  # the policy failed, unless gold itself plays differently each time
            require_repeats(domain, task, trace)
        state = equal(episode.state, trace[-1].state)
        closed = [[call for move in moves if move.turn == t for call in move.calls] for t in range(episode.turn)]
        official = replay(domain, task, closed, official_turn_passed, trace)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever broke, the other episodes go on
        stop = Stop(failure=told(error))
    return Record(
        task.id,
        rollout,
        rods=tuple(rods),
        official=official,
        state=state,
        reasons=tuple(reasons),
        moves=tuple(moves),
        tokens=tokens,
        truncated=stop.truncated,
        failure=stop.failure,
    )


def gold_player(task: Task) -> Act:
    """Makes the gold calls of each turn in one message, then answers."""

    def script() -> Iterator[Said]:
        for turn in task.turns:
            if turn.gold:
                yield Said("", Action(calls=turn.gold))
            yield Said("Done.", Action(answer="Done."))

    said = script()
    return lambda messages: next(said)


def null_player(task: Task) -> Act:
    """Answers every turn and never calls: what it scores is the floor."""
    return lambda messages: Said("I cannot do that.", Action(answer="I cannot do that."))


# ---------------------------------------------------------------------------- why a turn failed
def _why(
    trace: GoldTrace, turn: int, task: Task, state, outputs: Sequence[str], called: bool, answered: bool
) -> tuple[Difference, ...]:
    """What a turn lacks that fails under the RODS rule; the arguments are those of `turn_passed`."""
    if not task.turns[turn].gold:
        instead = "a call" if called else "no answer within the attempts"
        return (Difference("answer", "a plain answer and no call", instead),)
    if not called:
        return (Difference("calls", ", ".join(call.name for call in task.turns[turn].gold), "none"),)
    missing = Counter(trace[turn].outputs) - Counter(outputs)
    found = [Difference("output", _shown(text), "in no output so far") for text in missing.elements()]
    found += _state_differences("state", trace[turn].state, state)
    more = [Difference("more", f"{len(found) - MAX_DIFFERENCES} more differences", "")]
    return (*found[:MAX_DIFFERENCES], *more[: len(found) > MAX_DIFFERENCES])


def _state_differences(path: str, expected: Json, found: Json) -> list[Difference]:
    """Leaves in which two states differ; empty exactly where they are equal."""
    if equal(expected, found):
        return []
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        keys = [*expected, *(key for key in found if key not in expected)]
        pairs = [(f"{path}.{key}", expected.get(key, _ABSENT), found.get(key, _ABSENT)) for key in keys]
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = [(f"{path}[{i}]", a, b) for i, (a, b) in enumerate(zip(expected, found, strict=True))]
    else:
        return [Difference(path, _shown(expected), _shown(found))]
    return [difference for pair in pairs for difference in _state_differences(*pair)]


class _Absent:
    def __repr__(self) -> str:
        return "absent"


_ABSENT = _Absent()


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else shown(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({len(text)} characters)"


# ----------------------------------------------------------------------------------- the journal
Key = tuple[str, int]  # task id, rollout


@contextlib.contextmanager
def open_journal(
    path: str | Path, settings: Mapping[str, Json]
) -> Iterator[tuple[dict[Key, Record], Callable[[Record], None]]]:
    """(records so far by task and rollout, append): a new log, or the one that an interruption left.

    The last record of a task and rollout counts.  JournalError: the log was begun with other settings, is damaged, or
    another process is writing it.
    """
    path = Path(path)
    with journal.writing_log(path) as (entries, append):
        records = {}
        for line, one in entries[1:]:
            try:
                record = decode(Record, one)
            except RecordError as error:
                raise JournalError(f"{path} is damaged: line {line}: {error}") from error
            records[record.task_id, record.rollout] = record
        if not entries:
            append(settings)
        elif changed := differences(entries[0].record, json.loads(json.dumps(settings))):
            raise JournalError(f"{path} was begun with another {', '.join(changed)}: give another folder")
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
        "tokens": sum(record.tokens for record in valid),
        "longest": [
            {"task": r.task_id, "rollout": r.rollout, "moves": len(r.moves), "tokens": r.tokens}
            for r in sorted(valid, key=lambda record: -len(record.moves))[:NUM_LONGEST]
        ],
    }


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
