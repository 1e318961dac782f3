"""Brings a seed to its author and its outcome back: at once, or through journals to workers beside training.

    seeds.jsonl      trainer -> workers: every seed, keyed by step and task
    outcomes.jsonl   workers -> trainer: the outcome of each seed, with its variant
    taken.jsonl      how many outcomes the trainer took at each step; a resumed run takes as many at the same steps
    work/            one journal for each seed that was begun, which worker.py keeps

One line of outcomes.jsonl settles a seed and carries its variant, so that neither can be there without the other.
Left out on purpose: waiting. The trainer takes what has arrived, and a seed that is never settled costs nothing.
"""

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from rods_jax import journal
from rods_jax.journal import Entry, JournalError
from rods_jax.synthesis.attempt import Exchange, Rejection
from rods_jax.synthesis.pipeline import Synthesis
from rods_jax.task_files import TaskFileError, content_hash, task_from_json, task_to_json
from rods_jax.types import Json, Task

SEEDS, OUTCOMES, TAKEN, WORK = "seeds.jsonl", "outcomes.jsonl", "taken.jsonl", "work"
UNREADABLE = "unreadable_candidate"  # one more error type than errors.py has: a variant of another task version


class Dispatch(NamedTuple):
    """A seed, the step whose feedback chose it, and its outcome."""

    seed: Task
    step: int
    result: Synthesis


def dispatch_to_json(dispatch: Dispatch) -> Json:
    """What `dispatch_from_json` reads, in another process of the run."""
    candidate = dispatch.result.candidate
    tasks = {"seed": task_to_json(dispatch.seed), "candidate": candidate and task_to_json(candidate)}
    return tasks | {"step": dispatch.step} | attempts_record(dispatch.result)


def dispatch_from_json(record: Mapping[str, Json]) -> Dispatch:
    """Inverse of `dispatch_to_json`.  TaskFileError: a task file cannot hold its variant."""
    candidate = record["candidate"] and task_from_json(record["candidate"])
    return Dispatch(task_from_json(record["seed"]), record["step"], Synthesis(candidate, *read_attempts(record)))


# (seeds, step, hashes of known tasks) -> the outcomes that have arrived, of these seeds or of earlier ones
Synthesize = Callable[[Sequence[Task], int, frozenset[str]], Sequence[Dispatch]]


def random_of(run_seed: int, step: int, seed: Task) -> str:
    """The seed of the author's random numbers, for one seed task of one step."""
    return f"{run_seed}/{step}/{seed.id}"


def at_once(author: Callable[..., Synthesis], run_seed: int) -> Synthesize:
    """Has the author settle every seed before it returns; author(seed, rng=, step=, known_hashes=)."""

    def synthesize(seeds: Sequence[Task], step: int, known: frozenset[str]) -> list[Dispatch]:
        dispatches = []
        for seed in seeds:
            rng = random.Random(random_of(run_seed, step, seed))
            result = author(seed, rng=rng, step=step, known_hashes=known)
            dispatches.append(Dispatch(seed, step, result))
            if result.candidate is not None:
                known |= {content_hash(result.candidate)}
        return dispatches

    return synthesize


@contextlib.contextmanager
def beside(directory: Path, run_seed: int, *, taken: int, tell: Callable[[str], None]) -> Iterator[Synthesize]:
    """Sends seeds to workers and takes what they have settled: each outcome once, in the order of the journal.

    taken: how many outcomes the checkpoint has taken.  tell: gets sentences for people, each kind once.  The hashes of
    known tasks are not used: workers find them in the journals.
    JournalError: another trainer runs here, or the journals were edited or do not belong to the checkpoint.
    """
    directory.mkdir(parents=True, exist_ok=True)
    seeds_path, outcomes_path = directory / SEEDS, directory / OUTCOMES
    # Both locks are held for the whole run. No other process writes there, so sending never waits.
    with journal.writing(seeds_path, wait=False) as append, journal.writing(directory / TAKEN) as note:
        # Which seeds were sent, and which of them still wait for an outcome.
        before, place = journal.read(outcomes_path)
        if len(before) < taken:
            raise JournalError(f"{outcomes_path} holds {len(before)} outcomes; the checkpoint has had {taken}")
        had = {entry.record["key"] for entry in before[:taken]}
        seen = {entry.record["key"]: entry for entry in journal.read(seeds_path)[0]}
        waiting = dict(read_seed(seeds_path, entry) for key, entry in seen.items() if key not in had)
        sent = set(seen)
        took = {entry.record["step"]: entry.record["outcomes"] for entry in journal.read(directory / TAKEN)[0]}
        # What a step sends and takes depends on what earlier steps took. A resumed run therefore repeats them: up to
        # the journals' last step it takes as many outcomes as were taken then, even if more have arrived since.
        last = max((*took, *(entry.record["step"] for entry in seen.values())), default=-1)
        arrived = _arrivals(outcomes_path, before[taken:], waiting)
        told: set[str] = set()

        def tell_once(kind: str, sentence: str) -> None:
            if kind not in told:
                told.add(kind)
                tell(sentence)

        def synthesize(seeds: Sequence[Task], step: int, known: frozenset[str]) -> list[Dispatch]:
            nonlocal arrived, place
            # Send the seeds that the journal does not hold yet.
            new = {f"{step}/{seed.id}": seed for seed in seeds}
            new = {key: seed for key, seed in new.items() if key not in sent}  # a resumed run chooses them again
            if new:
                append(*(_seed_record(key, seed, step, run_seed) for key, seed in new.items()))
            sent.update(new)
            waiting.update({key: (seed, step) for key, seed in new.items()})
            # Read what has arrived; a damaged journal stops no training.
            try:
                entries, after = journal.read(outcomes_path, place)
                arrived += _arrivals(outcomes_path, entries, waiting)
                place = after  # never past a bad line, because outcomes are counted from the first line
            except (JournalError, OSError) as error:
                tell_once("outcomes", f"{error}; training goes on with the pool it has")
            # Take all of it, or as many as the run before took at this step.
            count = took.get(step, 0) if step <= last else len(arrived)
            taking, arrived = arrived[:count], arrived[count:]
            if taking and step > last:
                note({"step": step, "outcomes": count})
            return [Dispatch(one.seed, one.step, _read_result(tell_once, outcomes_path, one.outcome)) for one in taking]

        yield synthesize


class _Arrival(NamedTuple):
    """A seed, the step that sent it, and its outcome, not yet taken."""

    seed: Task
    step: int
    outcome: Entry


def _arrivals(path: Path, entries: Sequence[Entry], waiting: dict[str, tuple[Task, int]]) -> list[_Arrival]:
    """What has arrived, in order; removes each seed from `waiting`."""
    arrived = []
    for entry in entries:
        key = entry.record["key"]
        if key not in waiting:
            raise JournalError(f"{path}, line {entry.line}: {key} does not wait for an outcome")
        arrived.append(_Arrival(*waiting.pop(key), entry))
    return arrived


# ---------------------------------------------------------------------------------------- records
def _seed_record(key: str, seed: Task, step: int, run_seed: int) -> Json:
    return {"key": key, "step": step, "random": random_of(run_seed, step, seed), "task": task_to_json(seed)}


def read_seed(path: Path, entry: Entry) -> tuple[str, tuple[Task, int]]:
    """(key, (seed, step)). JournalError: the task is of another version."""
    try:
        return entry.record["key"], (task_from_json(entry.record["task"]), entry.record["step"])
    except TaskFileError as error:
        raise JournalError(f"{path}, line {entry.line}: {error}") from None


def outcome_record(key: str, result: Synthesis) -> Json:
    """What `_read_result` reads, and the variant's content hash, by which workers know it."""
    candidate = result.candidate
    return {
        "key": key,
        "candidate": candidate and task_to_json(candidate),
        "content": candidate and content_hash(candidate),
        **attempts_record(result),
    }


def attempts_record(result: Synthesis) -> dict[str, Json]:
    """What `read_attempts` reads."""
    return {
        "rejections": [asdict(rejection) for rejection in result.rejections],
        "exchanges": [asdict(exchange) for exchange in result.exchanges],
    }


def _read_result(tell_once: Callable[[str, str], None], path: Path, outcome: Entry) -> Synthesis:
    record = outcome.record
    result = Synthesis(None, *read_attempts(record))
    if record["candidate"] is None:
        return result
    try:
        return replace(result, candidate=task_from_json(record["candidate"]))
    except TaskFileError as error:
        detail = f"{path}, line {outcome.line}: {error}"
        tell_once(UNREADABLE, f"{detail}; this variant is left out and counted as {UNREADABLE}")
        refused = Rejection(len(result.rejections), UNREADABLE, detail)
        return replace(result, rejections=(*result.rejections, refused))


def read_attempts(record: Mapping[str, Json]) -> tuple[tuple[Rejection, ...], tuple[Exchange, ...]]:
    """The rejections and exchanges of a record, equal to those that were written."""
    rejections = (
        Rejection(
            **rejection
            | {name: tuple(rejection[name]) for name in ("functions", "refused_patches")}
            | {"plan": tuple(map(tuple, rejection["plan"]))}
        )
        for rejection in record["rejections"]
    )
    return tuple(rejections), tuple(Exchange(**exchange) for exchange in record["exchanges"])
