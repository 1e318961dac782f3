"""Variants without a language model or the five stages: a domain whose tasks follow from an algebra varies them itself."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rods_jax.chat import Generate
from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.attempt import UNSEEN, Rejection
from rods_jax.synthesis.author import Order, Synthesis, Write
from rods_jax.task_files import content_hash
from rods_jax.types import Task

NO_VARIANT = "no_variant"  # as a Rejection's error: the algebra gave none


def variants_by(vary: Callable[[Task, random.Random], Task], domain: Domain) -> Write:
    """The author of a domain: `vary(seed, rng)` gives a task of the same structure, gated where it is made.

    partial(variants_by, vary) is a `SynthesisConfig.author`.  A variant whose content is known is a Rejection, and so is a
    ValueError of `vary`: the seed has no variant, or this one is none.
    """

    def write(
        order: Order,
        *,
        step: int,
        rng: random.Random,
        known_hashes: frozenset[str],
        backends: Mapping[str, Generate] = {},
        history: Sequence[Rejection] = (),
        attempts: int = 3,
    ) -> Synthesis:
        seed, rejections = order.seed, tuple(history)
        draws = [random.Random(rng.getrandbits(64)) for _ in range(attempts)]
        for number in range(len(rejections), attempts):
            try:
                made = vary(seed, draws[number])
            except ValueError as error:
                rejections = (*rejections, Rejection(number, NO_VARIANT, str(error)))
                continue
            if (content := content_hash(made)) not in known_hashes:
                root = (seed.ancestry or (seed.id,))[0]
                named = replace(made, id=f"{root}~{step}-{content[:8]}", ancestry=(*seed.ancestry, seed.id))
                return Synthesis(named, rejections)
            rejections = (*rejections, Rejection(number, UNSEEN, "same content as a known task"))
        return Synthesis(None, rejections)

    return write


def the_seed_itself(domain: Domain) -> Write:
    """The author of the ablation without synthesis: the variant of a seed is the seed, under an id of its own.

    All else of the pool stays: which seeds are chosen, how many enter, and when they leave.
    """

    def write(order: Order, *, step: int, **others: Any) -> Synthesis:
        seed = order.seed
        return Synthesis(replace(seed, id=f"{seed.id}~{step}", ancestry=(*seed.ancestry, seed.id)))

    return write
