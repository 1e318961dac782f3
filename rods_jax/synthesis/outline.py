"""Which tool a task calls in which turn, decided beforehand; the rule-based author finds arguments, states and words.

    plan = outline(domain, [["add_book", "lend_book"], ["compute_fine"]])
    tasks = realise(domain, lambda: plan, name="lending", count=10, rng=random.Random(0))

targets.py walks the graph of tools to one of them, and workflows.py reads a text.  Both end in an `Outline`.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.critique import has_profile, is_new
from rods_jax.synthesis.errors import Rejected
from rods_jax.synthesis.pipeline import author_task, plain_stratum
from rods_jax.synthesis.plan import Plan, PlannedCall, flowing
from rods_jax.synthesis.profile import Edge, Links, Profile
from rods_jax.task_files import content_hash
from rods_jax.types import Task

MAX_TRIES = 50  # outlines, states and arguments that are drawn for one task


class Outline(NamedTuple):
    """The tools of each turn, and which call's output must flow into which call; calls count over the task."""

    turns: tuple[tuple[str, ...], ...]
    links: Links = frozenset()


def outline(domain: Domain, turns: Sequence[Sequence[str]]) -> Outline:
    """Each call takes something of the latest call before it that returns it, as names and schemas tell.

    ValueError: a tool that the domain lacks, no turn, or a turn without a tool.
    """
    if not turns or not all(turns):
        raise ValueError("an outline needs turns, each with a tool")
    tools = [name for turn in turns for name in turn]
    if missing := [name for name in tools if name not in domain.tools]:
        raise ValueError(f"{domain.name} has no tool {missing[0]}")

    def source(consumer: int) -> int | None:
        takes = (p for p in range(consumer)[::-1] if flowing(domain.tools[tools[p]], domain.tools[tools[consumer]]))
        return next(takes, None)

    links = frozenset((p, consumer) for consumer in range(len(tools)) if (p := source(consumer)) is not None)
    return Outline(tuple(map(tuple, turns)), links)


def realise(domain: Domain, draw: Callable[[], Outline], *, name: str, count: int, rng: random.Random) -> list[Task]:
    """So many different tasks of outlines, each its own scenario, in the first stratum that withholds nothing.

    draw: makes the outline of a try.  name: ids are "domain_name_0" and so on.  RuntimeError: 50 tries in a row led to
    no task.  ValueError: the domain cannot start by itself, or all its strata withhold something.
    """
    category = plain_stratum(domain)
    tasks: list[Task] = []
    known: set[str] = set()
    for index in range(count):
        for _ in range(MAX_TRIES):
            try:
                tasks.append(_author(domain, draw(), category, random.Random(rng.getrandbits(64)), known))
                break
            except Rejected as rejected:
                last = rejected
        else:
            raise RuntimeError(f"{MAX_TRIES} tries led to no task {name}: {last}")
        known.add(content_hash(tasks[-1]))
        scenario = f"{domain.name}_{name}_{index}"
        tasks[-1] = replace(tasks[-1], id=scenario, scenario=scenario)
    return tasks


def _author(domain: Domain, own: Outline, category: str, rng: random.Random, known: set[str]) -> Task:
    classes = tuple(tuple(domain.tools[name].class_name for name in turn) for turn in own.turns)
    edges = tuple(Edge(producer, consumer, "", "") for producer, consumer in sorted(own.links))
    profile = Profile(category, tuple(dict.fromkeys(one for turn in classes for one in turn)), classes, edges)
    plan = Plan(tuple(tuple(map(PlannedCall, turn)) for turn in own.turns), own.links)
    return author_task(domain, profile, rng, lambda: plan, gates=(has_profile(profile), is_new(known)))
