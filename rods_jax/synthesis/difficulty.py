"""A dial of difficulty: tasks are made harder until a baseline fails (ProgSearch, arXiv 2510.13913).

rungs = climb(partial(chains, domain, count=32, seed=0), score, top=5)      # score: tasks -> the baseline's mean reward
rungs[-1].tasks                                                             # the first that it fails, or the hardest
"""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.pipeline import author_tasks, plain_stratum
from rods_jax.types import Task


class Rung(NamedTuple):
    """A level, its tasks, and what the baseline scored on them."""

    level: int
    tasks: tuple[Task, ...]
    score: float


def climb(
    make: Callable[[int], Sequence[Task]], score: Callable[[Sequence[Task]], float], *, top: int, below: float = 0.5
) -> tuple[Rung, ...]:
    """The levels from 1 up to the first on which the baseline scores less than `below`, at most `top` of them.

    make: level -> tasks of that difficulty.  score: tasks -> in [0, 1].  ValueError: top is below 1.
    """
    if top < 1:
        raise ValueError(f"the dial has levels from 1 on: got top={top}")
    rungs: list[Rung] = []
    while len(rungs) < top and not (rungs and rungs[-1].score < below):
        tasks = tuple(make(len(rungs) + 1))
        rungs.append(Rung(len(rungs) + 1, tasks, score(tasks)))
    return tuple(rungs)


def chains(domain: Domain, level: int, *, count: int, seed: int) -> tuple[Task, ...]:
    """Tasks of a level: each holds a chain of so many calls that need the one before, in as many turns or one more."""
    rng = random.Random(f"difficulty {seed} {level}")
    return author_tasks(
        domain,
        count=count,
        rng=rng,
        first_index=count * (level - 1),
        categories=(plain_stratum(domain),),
        turns=(level, level + 1),
        chain_length=(level, level),
    )
