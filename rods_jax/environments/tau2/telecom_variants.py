"""Variants of telecom's tasks without a language model: other faults of the same structure, on any line of the provider.

    vary = variants(domain, files.json("telecom", "tasks.json"), taken=ids that are measured)
    author = variants_by(vary, ...)            # synthesis/algebra.py, which adds names and ancestry

A variant has the family and the number of faults of its seed, and can be mended iff its seed can.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence

from rods_jax.environments.tau2.environment import Environment
from rods_jax.environments.tau2.episodes import episode_task
from rods_jax.environments.tau2.faults import alike, flaw, task_json
from rods_jax.environments.tau2.messages import task_from_json
from rods_jax.environments.tau2.telecom_faults import PERSONAS, families, subjects, texts_of
from rods_jax.types import Json, Task


def variants(
    fresh: Callable[[], Environment], tasks: Sequence[Mapping[str, Json]], taken: Iterable[str]
) -> Callable[[Task, random.Random], Task]:
    """(seed, rng) -> a task of equal structure, gated by `flaw`; for `variants_by`.

    fresh: telecom before a set-up.  tasks: tasks.json, for its words.  taken: ids of tasks that are measured, whose kin no
    variant is of.  ValueError: nothing else has the seed's structure, or the variant is no good.
    """
    desk = fresh().agent.db.base.tables
    texts, taken = texts_of(tasks, desk), frozenset(taken)
    faults = [family for who in subjects(desk) for family in families(who)]

    def vary(seed: Task, rng: random.Random) -> Task:
        (name,) = seed.world.classes
        own = seed.world.state[name]["id"]
        others = alike(own, faults, PERSONAS, taken)
        if not others:
            raise ValueError(f"no other composition has the structure of {own}")
        made = task_json(rng.choice(others), texts)
        if why := flaw(task_from_json(made), fresh):
            raise ValueError(f"{made['id']}: {why}")
        return episode_task(name, made)

    return vary
