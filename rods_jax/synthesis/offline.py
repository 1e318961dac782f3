"""A large pool that is written before training: variants of every seed, in rounds; a run trains on it as static data.

    with fill(path, write, seeds, count=17_000, run_seed=0) as settled: ...     (scripts/offline_pool.py)

Every settled seed is a line of an append-only journal, with its variant and its rejections.  A call that was killed
therefore continues where it ended.  Random numbers come from (run seed, round, task), as in a run.
The boundary is ignored: without a policy no task is near it.
"""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import count as numbers
from pathlib import Path
from typing import NamedTuple

from rods_jax import journal
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.synthesis.attempt import UNSEEN, Rejection
from rods_jax.synthesis.author import Order, Write
from rods_jax.synthesis.courier.dispatch import random_of
from rods_jax.synthesis.courier.lines import outcome_record
from rods_jax.task_files import TaskFileError, content_hash, read_tasks, task_from_json
from rods_jax.types import Task


class Settled(NamedTuple):
    """What became of a seed in a round."""

    key: str  # "round/seed"
    candidate: Task | None
    errors: tuple[str, ...]  # of the attempts that failed


def fill(
    path: Path,
    write: Write,
    seeds: Sequence[Task],
    *,
    count: int,
    run_seed: int,
    known: frozenset[str],
    workers: int = 1,
) -> Iterator[Settled]:
    """Yields what the journal at `path` holds, then what is written until `count` variants are there.

    known: content hashes that no variant may have.  workers: seeds at a time; more than one helps if `write` waits for
    servers; chance then decides which of two equal variants counts.  JournalError: the journal was edited, or is in
    use.  RuntimeError: a whole round has brought no variant, so that more rounds would not either.
    """
    had: set[str] = set()
    lock, contents, accepted, ended = threading.Lock(), set(known), 0, ""
    with journal.writing(path, wait=False) as append:
        for entry in journal.read(path)[0]:
            settled = _settled(entry.record)
            had.add(settled.key)
            accepted += settled.candidate is not None
            contents |= {entry.record["content"]} - {None}
            yield settled

        def settle(number: int, seed: Task) -> Settled:
            """Writes a variant of a seed; one that another thread wrote meanwhile is a rejection as any other."""
            nonlocal ended
            rng = random.Random(random_of(run_seed, number, seed))
            result = write(Order(seed), rng=rng, step=number, known_hashes=contents)
            record = outcome_record(f"{number}/{seed.id}", result)
            with lock:
                if record["content"] in contents:
                    late = Rejection(len(result.rejections), UNSEEN, "another thread wrote the same meanwhile")
                    rejections = (*result.rejections, late)
                    record = outcome_record(record["key"], replace(result, candidate=None, rejections=rejections))
                contents.update({record["content"]} - {None})
                append(record)
                for rejection in record["rejections"][-1:]:
                    ended = f"; the last attempt ended in {rejection['error']}: {rejection['detail']}"
            return _settled(record)

        with ThreadPoolExecutor(workers) as threads:
            for number in numbers():
                left = (seed for seed in seeds if f"{number}/{seed.id}" not in had)
                before, asked = accepted, 0
                waiting: set[Future[Settled]] = set()
                while accepted < count:
                    for seed in _take(left, workers - len(waiting)):
                        waiting.add(threads.submit(settle, number, seed))
                        asked += 1
                    if not waiting:
                        break
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for settled in (future.result() for future in done):
                        accepted += settled.candidate is not None
                        yield settled
                if accepted >= count:
                    return
                if asked == len(seeds) and accepted == before:
                    what = f"round {number} over {asked} seeds brought no variant"
                    raise RuntimeError(f"{what}: {accepted} of {count}{ended}")


def with_offline_pool(
    domain: Domain, seed: int, *, build_tasks: Callable[[Domain, int], TaskSplits], path: str | Path
) -> TaskSplits:
    """The tasks of `build_tasks`, and those of a pool's file as seeds beside them: static data for a run.

    TaskFileError: the file cannot be read, a task needs a tool that the domain lacks, has an id twice, or repeats a
    held-out task or its scenario.
    """
    splits = build_tasks(domain, seed)
    ids = {task.id for part in splits for task in part}
    scenarios = {task.scenario for task in splits.held_out}
    contents = {content_hash(task) for task in splits.held_out}
    pool = read_tasks(path)
    for task in pool:
        lacking = {call.name for turn in task.turns for call in turn.gold} - domain.tools.keys()
        if lacking:
            raise TaskFileError(f"{path}: task {task.id} calls {min(lacking)}, which {domain.name} lacks")
        if task.id in ids:
            raise TaskFileError(f"{path}: task {task.id} is a task of the run already")
        if task.scenario in scenarios or content_hash(task) in contents:
            raise TaskFileError(f"{path}: task {task.id} repeats a held-out task: write the pool from this run's seeds")
    return splits._replace(seeds=(*splits.seeds, *(replace(task, ancestry=()) for task in pool)))


def _settled(record) -> Settled:
    candidate = record["candidate"] and task_from_json(record["candidate"])
    return Settled(record["key"], candidate, tuple(rejection["error"] for rejection in record["rejections"]))


def _take(seeds: Iterator[Task], number: int) -> list[Task]:
    return [seed for _, seed in zip(range(number), seeds, strict=False)]
