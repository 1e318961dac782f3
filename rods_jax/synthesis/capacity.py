"""How many workers language models need to keep up with training: Little's law on what a seed asks.

    workers = seeds a step x questions a seed x seconds a question / seconds a step

Queues at the server are not modelled: measure `seconds a question` with as many questions under way as workers.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from rods_jax.synthesis.author import Synthesis


class Load(NamedTuple):
    """What a seed costs, from settled seeds."""

    questions: float  # for each seed, over all of its attempts
    attempts: float  # for each seed
    accepted: float  # share of seeds with a variant


def load_of(results: Sequence[Synthesis]) -> Load:
    """Means over settled seeds. ValueError: none."""
    if not results:
        raise ValueError("no seed has been settled yet")
    num = len(results)
    accepted = sum(result.candidate is not None for result in results)
    return Load(
        questions=sum(len(result.exchanges) for result in results) / num,
        attempts=(accepted + sum(len(result.rejections) for result in results)) / num,
        accepted=accepted / num,
    )


def workers_needed(
    *, seeds_per_step: float, questions: float, seconds_per_question: float, seconds_per_step: float
) -> int:
    """The least number of workers, each with one question under way, that settles seeds as fast as they come."""
    return max(1, math.ceil(seeds_per_step * questions * seconds_per_question / seconds_per_step - 1e-9))
