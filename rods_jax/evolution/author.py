"""The accepted tasks of an evolution as the author of a run: they feed the pool that the five stages feed.

    synthesis=SynthesisConfig(backends=dict, author=partial(accepted_tasks, path="evolved/tasks.jsonl"))

The run's domain must decide by checkers, as the help desk does.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rods_jax.chat import Generate
from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.attempt import Rejection
from rods_jax.synthesis.author import Order, Synthesis, Write
from rods_jax.task_files import TaskFileError, content_hash, read_tasks

NONE_LEFT = "none_left"  # every accepted task of the seed's stratum is known already


def accepted_tasks(domain: Domain, path: str | Path) -> Write:
    """An author who answers an order with an accepted task of the seed's stratum, each once.

    TaskFileError: the file cannot be read, is empty, or a task is of a stratum that the domain lacks.
    """
    tasks = read_tasks(path)
    if not tasks:
        raise TaskFileError(f"{path} holds no task")
    by_content = {content_hash(task): task for task in tasks}  # once: each order looks at all of them
    for task in tasks:
        if task.category not in domain.strata:
            raise TaskFileError(f"{path}: task {task.id} is of {task.category}, which {domain.name} lacks")

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
        family = ((content, task) for content, task in by_content.items() if task.category == seed.category)
        left = [task for content, task in family if content not in known_hashes]
        if not left:
            detail = f"every accepted task of {seed.category} is in the pool already"
            return Synthesis(None, (*rejections, Rejection(len(rejections), NONE_LEFT, detail)))
        made = rng.choice(left)
        return Synthesis(replace(made, ancestry=(*seed.ancestry, seed.id)), rejections)

    return write
