"""Brings an order to its author and its outcome back: at once, or through journals to workers beside training.

    seeds.jsonl      trainer -> workers: every order, keyed by step and task
    outcomes.jsonl   workers -> trainer: the outcome of each seed, with its variant
    taken.jsonl      how many outcomes the trainer took at each step; a resumed run takes as many at the same steps
    work/            one journal for each seed that was begun, which worker.py keeps

One line of outcomes.jsonl settles a seed and carries its variant, so that neither can be there without the other.
Left out on purpose: waiting. The trainer takes what has arrived, and a seed that is never settled costs nothing.
"""

import contextlib
import random
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rods_jax import journal
from rods_jax.journal import Entry, JournalError
from rods_jax.synthesis.attempt import Rejection
from rods_jax.synthesis.author import Order, Synthesis, Write
from rods_jax.synthesis.courier.lines import (
    OUTCOMES,
    SEEDS,
    TAKEN,
    Sent,
    attempts_record,
    read_attempts,
    read_sent,
    sent_to_json,
)
from rods_jax.task_files import TaskFileError, content_hash, task_from_json, task_to_json
from rods_jax.types import Json, Task

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


# (orders, step, hashes of known tasks) -> the outcomes that have arrived, of these orders or of earlier ones
Synthesize = Callable[[Sequence[Order], int, frozenset[str]], Sequence[Dispatch]]


def random_of(run_seed: int, step: int, seed: Task) -> str:
    """The seed of the author's random numbers, for one seed task of one step."""
    return f"{run_seed}/{step}/{seed.id}"


def at_once(write: Write, run_seed: int) -> Synthesize:
    """Has every order settled before it returns; write(order, rng=, step=, known_hashes=)."""

    def synthesize(orders: Sequence[Order], step: int, known: frozenset[str]) -> list[Dispatch]:
        dispatches = []
        for order in orders:
            rng = random.Random(random_of(run_seed, step, order.seed))
            result = write(order, rng=rng, step=step, known_hashes=known)
            dispatches.append(Dispatch(order.seed, step, result))
            if result.candidate is not None:
                known |= {content_hash(result.candidate)}
        return dispatches

    return synthesize


@contextlib.contextmanager
def beside(directory: Path, run_seed: int, *, taken: int, tell: Callable[[str], None]) -> Iterator[Synthesize]:
    """Sends orders to workers and takes what they have settled: each outcome once, in the order of the journal.

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
        sent, waiting = _sent_before(seeds_path, had)
        took = {entry.record["step"]: entry.record["outcomes"] for entry in journal.read(directory / TAKEN)[0]}
        # What a step sends and takes depends on what earlier steps took. A resumed run therefore repeats them: up to
        # the journals' last step it takes as many outcomes as were taken then, even if more have arrived since.
        last = max((*took, *sent.values()), default=-1)
        arrived = _arrivals(outcomes_path, before[taken:], waiting)
        del before, had  # all outcomes so far: a run goes on for days
        told: set[str] = set()

        def tell_once(kind: str, sentence: str) -> None:
            if kind not in told:
                told.add(kind)
                tell(sentence)

        def synthesize(orders: Sequence[Order], step: int, known: frozenset[str]) -> list[Dispatch]:
            nonlocal arrived, place
            # Send the orders that the journal does not hold yet.
            new = {f"{step}/{order.seed.id}": order for order in orders}
            new = {key: order for key, order in new.items() if key not in sent}  # a resumed run gives them again
            if new:
                leaving = (Sent(key, one, step, random_of(run_seed, step, one.seed)) for key, one in new.items())
                append(*map(sent_to_json, leaving))
            sent.update(dict.fromkeys(new, step))
            waiting.update({key: (order.seed, step) for key, order in new.items()})
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


def _sent_before(path: Path, had: Container[str]) -> tuple[dict[str, int], dict[str, tuple[Task, int]]]:
    """Each key's step, and (seed, step) of those whose outcome was not had yet: what is kept of the orders here."""
    entries = {entry.record["key"]: entry for entry in journal.read(path)[0]}
    waiting = (read_sent(path, entry) for key, entry in entries.items() if key not in had)
    return (
        {key: entry.record["step"] for key, entry in entries.items()},
        {one.key: (one.order.seed, one.step) for one in waiting},
    )


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
