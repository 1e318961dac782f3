"""A draft: all that an author says of a task; and the task that it becomes."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rods_jax import strict_json
from rods_jax.environments.checker import Checker, checker_option
from rods_jax.environments.conversation import AGENT, OUT_OF_SCOPE, STOP, TRANSFER, without_thought
from rods_jax.evolution.ground import Act, Ground
from rods_jax.records import RecordError, decode, encode
from rods_jax.synthesis.errors import Rejected
from rods_jax.synthesis.patch import Patch, accept_patches, deep_merge
from rods_jax.task_files import content_hash
from rods_jax.types import Call, Json, Task, Turn, World

UNREADABLE = "unreadable"  # no usable reply, or JSON that is no draft
UNKNOWN = "unknown_name"  # it names what does not exist
MEASURED = "measured"  # only evaluations may have such a task


@dataclass(frozen=True)
class Draft:
    """A task in parts."""

    category: str  # a stratum of the domain
    words: str  # the user's first
    facts: Mapping[str, Json]  # what the user can tell when it is asked
    patches: tuple[Patch, ...]  # what is wrong in a world in which nothing is: [class, [keys], value]
    gold: tuple[Act, ...]  # calls of both sides that solve it: [who, {"name", "arguments"}]
    checker: Checker
    style: str = ""  # of the user
    clauses: tuple[str, ...] = ()  # of the policy that it is about


def read_draft(text: str) -> Draft:
    """A draft in JSON. ValueError: it is none, in one sentence."""
    record = strict_json.loads(text, "the task")
    if strict_json.is_deeper(record, strict_json.MAX_NESTING):  # a task file holds it a few levels deeper
        raise ValueError(f"the task: values are nested more than {strict_json.MAX_NESTING} levels deep")
    try:
        draft = decode(Draft, record)
    except RecordError as error:
        raise ValueError(f"the task: {error}") from None
    ends = any(word in draft.words for word in (STOP, TRANSFER, OUT_OF_SCOPE))
    if ends or not without_thought(draft.words).strip():
        raise ValueError("the task: the user's words are empty, or would end the dialogue")
    return draft


def world_of(ground: Ground, base: World, draft: Draft) -> World:
    """The world with what the draft breaks in it. Rejected: a patch fits nowhere."""
    state: dict[str, Any] = dict(base.state)
    for patch in draft.patches:
        change, refused = accept_patches(ground.domain, replace(base, state=state), [patch])
        if refused:
            raise Rejected(UNKNOWN, f"a patch fits nowhere: {refused[0]}")
        state = deep_merge(state, change)
    return replace(base, state=state)


def task_of(ground: Ground, base: World, draft: Draft) -> Task:
    """The task, with its checker, the gold of both sides and the user's facts among its world's options.

    Rejected: it names what does not exist, or is one that only evaluations may have.
    """
    if draft.category not in ground.domain.strata:
        raise Rejected(UNKNOWN, f"there is no category {draft.category}")
    world = world_of(ground, base, draft)
    options = {
        **world.options,
        **ground.label(world),
        **checker_option(draft.checker),
        "gold": [[act.who, act.call.name, dict(act.call.arguments)] for act in draft.gold],
        "facts": dict(draft.facts),
        "style": draft.style,
        "clauses": [*draft.clauses],
    }
    calls = tuple(act.call for act in draft.gold if act.who == AGENT)
    task = Task("draft", "draft", draft.category, replace(world, options=options), (Turn(draft.words, calls),))
    if ground.is_measured(task):
        raise Rejected(MEASURED, "tasks like this one are kept for evaluations")
    name = f"{draft.category}-{content_hash(task)[:12]}"
    return replace(task, id=name, scenario=name)


def gold_of(task: Task) -> tuple[Act, ...]:
    """Both sides' calls of an authored task."""
    return tuple(Act(who, Call(name, arguments)) for who, name, arguments in task.world.options["gold"])


def base_of(ground: Ground, unit: str) -> World:
    """The world that a unit's writer begins with.  ValueError, TypeError: a later call would read another from the journal."""
    world = ground.base(random.Random(f"world/{unit}"))
    if decode(World, json.loads(json.dumps(encode(world), allow_nan=False))) != world:
        raise ValueError("the ground's base holds a tuple or a key that is not a string where JSON has none")
    return world
