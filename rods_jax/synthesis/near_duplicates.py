"""Near-duplicate tasks by shingles of tokens (Broder 1997): a search, and the gate against held-out tasks.

Sets of shingles are exact, neither hashed nor sampled: pools hold only thousands of tasks.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.critique import Gate
from rods_jax.synthesis.values import tokens
from rods_jax.types import Task, Turn

SIZE = 5  # tokens of a shingle
NEAR = 0.5  # similarity from which on two tasks are near-duplicates

Shingle = tuple[str, ...]


class Neighbour(NamedTuple):
    """A task of an index and how much it resembles the one that was looked up."""

    task_id: str
    similarity: float  # in [0, 1]


class ShingleIndex(NamedTuple):
    """Tasks by the shingles that they hold."""

    task_ids: tuple[str, ...]
    shingles: tuple[frozenset[Shingle], ...]  # of each task
    holders: Mapping[Shingle, Sequence[int]]  # positions in `task_ids`


def shingles(task: Task) -> frozenset[Shingle]:
    """All runs of 5 tokens of each turn's user text, and of its gold calls; a shorter text is one shingle.

    Tokens are words and numbers in lower case, and letters of scripts without spaces.  Identity, state and the order of
    turns do not count.
    """
    return frozenset(
        tuple(found[start : start + SIZE])
        for turn in task.turns
        for found in _tokens(turn)
        if found
        for start in range(max(1, len(found) - SIZE + 1))
    )


def shingle_index(tasks: Sequence[Task]) -> ShingleIndex:
    """Prepares tasks for `nearest`."""
    holders: dict[Shingle, list[int]] = {}
    every = tuple(map(shingles, tasks))
    for position, own in enumerate(every):
        for shingle in own:
            holders.setdefault(shingle, []).append(position)
    return ShingleIndex(tuple(task.id for task in tasks), every, holders)


def nearest(task: Task, index: ShingleIndex) -> Neighbour | None:
    """The most similar task of the index other than itself, by |a & b| / |a | b|; None: all share nothing.

    Of equally similar ones, the first.
    """
    own = shingles(task)
    shared = Counter(position for shingle in own for position in index.holders.get(shingle, ()))
    found = (
        Neighbour(index.task_ids[position], count / (len(own) + len(index.shingles[position]) - count))
        for position, count in sorted(shared.items())
        if index.task_ids[position] != task.id
    )
    return max(found, key=lambda neighbour: neighbour.similarity, default=None)


def is_near(task: Task, index: ShingleIndex) -> bool:
    """Whether `nearest` is a near-duplicate, without a look at every task that shares something.

    A near-duplicate holds the share NEAR of the task's shingles, so that it lacks too few to hold none of the rarest.
    """
    own = shingles(task)
    rarest = sorted(own, key=lambda shingle: len(index.holders.get(shingle, ())))
    rarest = rarest[: len(own) - math.ceil(NEAR * len(own)) + 1]
    return any(
        len(own & index.shingles[position]) / len(own | index.shingles[position]) >= NEAR
        for shingle in rarest
        for position in index.holders.get(shingle, ())
        if index.task_ids[position] != task.id
    )


def far_from(tasks: Sequence[Task]) -> Gate:
    """Gate: no near-duplicate of these tasks; give it the held-out ones."""
    index = shingle_index(tasks)

    def far_from_held_out(domain: Domain, task: Task) -> str | None:
        found = nearest(task, index)
        if found is None or found.similarity < NEAR:
            return None
        return f"shares {found.similarity:.0%} of its shingles with {found.task_id}"

    return far_from_held_out


def _tokens(turn: Turn) -> Iterator[list[str]]:
    yield tokens(turn.user)
    calls = " ".join(f"{call.name} {json.dumps(dict(call.arguments), ensure_ascii=False)}" for call in turn.gold)
    yield tokens(calls)
