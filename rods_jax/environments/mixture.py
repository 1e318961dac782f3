"""Several domains in one run: each keeps its tools, rules, strata and author, and has a share of the tasks.

    domain       mixture("both", [WORKPLACE, desk])             strata "workplace/base", "desk/question", ...
    tasks        mixed([(WORKPLACE, splits, 0.75), (desk, others, 0.25)])

A task belongs to the domain that its category names.  Its episodes, its gold and its variants are that domain's.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rods_jax.environments.protocol import Domain, Simulator, TaskSplits
from rods_jax.types import Task, World


def mixture(name: str, domains: Sequence[Domain]) -> Domain:
    """One Domain of several.  ValueError: two have the same name, or a tool or a class of the same name."""
    members = {domain.name: domain._replace(strata=_named(domain.name, domain.strata)) for domain in domains}
    owners = {tool.class_name: members[domain.name] for domain in domains for tool in domain.tools.values()}
    for what, names in (
        ("domain", [domain.name for domain in domains]),
        ("tool", [tool for domain in domains for tool in domain.tools]),
        ("class", [one for domain in domains for one in {tool.class_name for tool in domain.tools.values()}]),
    ):
        if twice := sorted({one for one in names if names.count(one) > 1}):
            raise ValueError(f"the mixture {name} has two domains with the {what} {twice[0]}")

    def member(task: Task) -> Domain:
        owner = task.category.partition("/")[0]
        if owner not in members:
            raise ValueError(
                f"task {task.id} has the category {task.category}: it must begin with one of {[*members]}/"
            )
        return members[owner]

    def simulator(world: World) -> Simulator:
        return owners[world.classes[0]].simulator(world)

    return Domain(
        name,
        {tool: spec for domain in domains for tool, spec in domain.tools.items()},
        simulator,
        strata={stratum: kind for own in members.values() for stratum, kind in own.strata.items()},
        explain=domains[0].explain if all(domain.explain for domain in domains) else None,
        member=member,
    )


def mixed(parts: Sequence[tuple[Domain, TaskSplits, float]]) -> TaskSplits:
    """As many tasks of each domain as keep the shares in every part, the first ones of each; the shares add up to 1.

    Ids, scenarios and categories begin with the domain's name.  A part that one of them lacks takes the others' tasks.
    """
    if not math.isclose(sum(share for *_, share in parts), 1.0) or min(share for *_, share in parts) <= 0:
        raise ValueError(f"the shares of a mixture are above 0 and add up to 1: got {[share for *_, share in parts]}")

    def part(field: str) -> tuple[Task, ...]:
        found = [(domain, getattr(splits, field), share) for domain, splits, share in parts if getattr(splits, field)]
        whole = min((len(tasks) / share for _, tasks, share in found), default=0.0)
        return tuple(_owned(domain, task) for domain, tasks, share in found for task in tasks[: round(whole * share)])

    return TaskSplits(*map(part, TaskSplits._fields))


def _owned(domain: Domain, task: Task) -> Task:
    name = domain.name
    return replace(task, id=f"{name}/{task.id}", scenario=f"{name}/{task.scenario}", category=f"{name}/{task.category}")


def _named(name: str, strata: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}/{stratum}": kind for stratum, kind in strata.items()}
