"""Tasks from query templates whose gold is computed by a procedure over live tools (LAM SIMULATOR, arXiv 2506.02298).

    def oldest(ask, fields):                                        # "Give the oldest open ticket to {person}."
        tickets = ask("list_tickets", kind="open")["ticket_ids"]    # a tool that the agent need not have
        return [Call("assign_ticket", {"ticket_id": min(tickets), "person": fields["person"]})]

A procedure may ask any tool of the domain, also one that the task's agent lacks, and as often as it likes: it asks
copies, so that the world of the task stays as it was.  What it returns becomes the gold of the turn and passes the
gates of all synthesised tasks.  Procedures are written by people; no model's text is run.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.critique import GATES, critique, is_new
from rods_jax.synthesis.pipeline import plain_stratum, states_of
from rods_jax.synthesis.values import parse_output
from rods_jax.task_files import content_hash
from rods_jax.types import Call, Json, Task, Turn, World

Ask = Callable[..., Json]  # (tool, **arguments) -> what it returns, as JSON where it is JSON
MAX_TRIES = 20  # for each task


class Refused(Exception):
    """A tool refused what a procedure asked."""


@dataclass(frozen=True)
class Template:
    """A family of one-turn tasks."""

    name: str
    query: str  # with {fields}
    fields: Callable[[Ask, random.Random], Mapping[str, Json]]  # what a query names, drawn from the live world
    gold: Callable[[Ask, Mapping[str, Json]], Sequence[Call]]  # the calls that answer it
    classes: tuple[str, ...]  # whose tools the agent has
    also: tuple[str, ...] = ()  # classes whose tools the procedures may ask besides


class Made(NamedTuple):
    """The tasks of a template, and why tries led to none: by gate, or by exception of a procedure."""

    tasks: tuple[Task, ...]
    refused: Counter[str]


def tasks_of(domain: Domain, template: Template, *, count: int, rng: random.Random) -> Made:
    """At most `count` different tasks in new states; the gates refuse as in all synthesis, and each refusal is counted.

    ValueError: the domain cannot draw states, lacks a class, or the query names a field that is not given.
    """
    sample_state = states_of(domain)
    classes = (*template.classes, *template.also)
    if unknown := sorted({*classes} - {tool.class_name for tool in domain.tools.values()}):
        raise ValueError(f"template {template.name}: {domain.name} has no class {unknown[0]}")
    category = plain_stratum(domain)
    options, tasks, refused = domain.strata[category].options, list[Task](), Counter[str]()
    known: set[str] = set()
    for _ in range(MAX_TRIES * count):
        if len(tasks) == count:
            break
        own = random.Random(rng.getrandbits(64))
        state = sample_state(own, classes)
        ask = _asker(domain, World(classes, state, options))
        try:
            fields = template.fields(ask, own)
            gold = tuple(template.gold(ask, fields))
        except Exception as error:  # a state without what the template is about, most often
            refused[type(error).__name__] += 1
            continue
        turn = Turn(_filled(template, fields), gold)
        world = World(template.classes, {name: state[name] for name in template.classes if name in state}, options)
        task = Task("", "", category, world, (turn,))
        refusal = critique(domain, task, (*GATES, is_new(known)))
        if refusal is not None:
            refused[refusal[0]] += 1
            continue
        known.add(content_hash(task))
        name = f"{domain.name}_{template.name}_{len(tasks)}"
        tasks.append(replace(task, id=name, scenario=name))
    return Made(tuple(tasks), refused)


def _asker(domain: Domain, world: World) -> Ask:
    """Asks a tool in a world of its own each time, so that no question changes the answer to another."""

    def ask(tool: str, /, **arguments: Any) -> Json:
        observation = domain.simulator(world).call(Call(tool, arguments))
        if not observation.ok:
            raise Refused(observation.text)
        return parse_output(observation.text)

    return ask


def _filled(template: Template, fields: Mapping[str, Json]) -> str:
    try:
        return template.query.format_map(fields)
    except KeyError as error:
        raise ValueError(f"template {template.name}: its query names {error}, which its fields lack") from None
