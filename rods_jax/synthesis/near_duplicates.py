"""Near-duplicate tasks by shingles of tokens (Broder 1997): a search, and the gate against held-out tasks.

Sets of shingles are exact, neither hashed nor sampled: pools hold only thousands of tasks.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.critique import Gate
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
    sizes: tuple[int, ...]  # shingles of each task
    holders: Mapping[Shingle, Sequence[int]]  # positions in `task_ids`


def shingles(task: Task) -> frozenset[Shingle]:
    """All runs of 5 tokens of each turn's user text, and of its gold calls; a shorter text is one shingle.

    Tokens are words and numbers in lower case. Identity, state and the order of turns do not count.
    """
    return frozenset(
        tuple(tokens[start : start + SIZE])
        for turn in task.turns
        for tokens in _tokens(turn)
        if tokens
        for start in range(max(1, len(tokens) - SIZE + 1))
    )


def shingle_index(tasks: Sequence[Task]) -> ShingleIndex:
    """Prepares tasks for `nearest`."""
    holders: dict[Shingle, list[int]] = {}
    sizes = []
    for position, task in enumerate(tasks):
        own = shingles(task)
        sizes.append(len(own))
        for shingle in own:
            holders.setdefault(shingle, []).append(position)
    return ShingleIndex(tuple(task.id for task in tasks), tuple(sizes), holders)


def nearest(task: Task, index: ShingleIndex) -> Neighbour | None:
    """The most similar task of the index other than itself, by |a & b| / |a | b|; None: all share nothing.

    Of equally similar ones, the first.
    """
    own = shingles(task)
    shared = Counter(position for shingle in own for position in index.holders.get(shingle, ()))
    found = (
        Neighbour(index.task_ids[position], count / (len(own) + index.sizes[position] - count))
        for position, count in sorted(shared.items())
        if index.task_ids[position] != task.id
    )
    return max(found, key=lambda neighbour: neighbour.similarity, default=None)


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
    yield re.findall(r"\w+", turn.user.lower())
    calls = " ".join(f"{call.name} {json.dumps(dict(call.arguments))}" for call in turn.gold)
    yield re.findall(r"\w+", calls.lower())
