"""The five stages in a straight line, for variants of a seed and for seed tasks from sampled profiles.

Roles are functions: pass others to have a language model plan, execute, reword, augment or judge.
Left out on purpose: a refinement cycle and patches of the initial state, which need a judge.
"""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.augment import augment
from rods_jax.synthesis.critique import GATES, Gate, content_hash, critique, has_profile, is_new
from rods_jax.synthesis.errors import PIPELINE_EXCEPTION, Rejected
from rods_jax.synthesis.execute import Execution, execute
from rods_jax.synthesis.plan import Plan, sample_plan
from rods_jax.synthesis.profile import Edge, Profile, extract_profile
from rods_jax.synthesis.rewrite import rewrite
from rods_jax.types import CATEGORIES, Json, Task, Turn

MAX_PROFILES = 200  # profiles that the author samples for one task


class Roles(NamedTuple):
    """Who does each stage; the signatures are those of the defaults."""

    plan: Callable[..., Plan] = sample_plan
    execute: Callable[..., Execution] = execute
    rewrite: Callable[..., tuple[str, ...]] = rewrite
    augment: Callable[..., tuple[Turn, ...]] = augment
    gates: tuple[Gate, ...] = GATES


RULE_BASED = Roles()


@dataclass(frozen=True)
class Rejection:
    """Why one attempt ended: an error type of errors.py or a gate's name, and the tools to blame."""

    attempt: int
    error: str
    detail: str
    functions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Synthesis:
    """What became of one seed."""

    candidate: Task | None
    rejections: tuple[Rejection, ...] = ()


def synthesize(
    domain: Domain,
    seed_task: Task,
    *,
    rng: random.Random,
    step: int,
    known_hashes: Collection[str],
    attempts: int = 3,
    tool_weights: Mapping[str, float] | None = None,
    roles: Roles = RULE_BASED,
) -> Synthesis:
    """One variant with the seed's profile, scenario and category, in at most `attempts` full attempts.

    Whatever goes wrong is a Rejection, never an exception. Tools that a failed attempt blames are
    avoided in the next. `known_hashes` are content hashes of tasks that must not come again.
    """
    rejections: list[Rejection] = []
    blocked: tuple[str, ...] = ()
    for attempt in range(attempts):
        try:
            profile = extract_profile(domain, seed_task)
            draft = _draft(domain, profile, rng, roles, tool_weights, blocked, seed_task)
            gates = (*roles.gates, has_profile(profile), is_new(known_hashes))
            candidate = _accept(domain, draft, gates)
        except Rejected as rejected:
            rejections.append(Rejection(attempt, rejected.error, rejected.detail, rejected.functions))
            blocked += rejected.functions
        except Exception as error:  # a seed that breaks the pipeline must not stop the training beside it
            rejections.append(Rejection(attempt, PIPELINE_EXCEPTION, f"{type(error).__name__}: {error}"))
        else:
            root = (seed_task.ancestry or (seed_task.id,))[0]
            identity = f"{root}~{step}-{content_hash(candidate)[:8]}"
            return Synthesis(replace(candidate, id=identity), tuple(rejections))
    return Synthesis(None, tuple(rejections))


def author_tasks(
    domain: Domain,
    *,
    count: int,
    rng: random.Random,
    first_index: int = 0,
    categories: Sequence[str] = CATEGORIES,
    turns: tuple[int, int] = (2, 4),
    calls_per_turn: tuple[int, int] = (1, 2),
    classes_per_task: tuple[int, int] = (1, 2),
    chain_length: tuple[int, int] = (1, 3),
    tool_weights: Mapping[str, float] | None = None,
) -> tuple[Task, ...]:
    """Seed tasks, categories in turn, each its own scenario; the ranges are inclusive.

    Ids count from `first_index`, so that several calls can fill one pool.

    `chain_length` counts the calls of a task's one chain, in which each call takes a value that the one
    before returned; 1 is no chain. A weight below 1 makes a tool rare, 0 absent. ValueError: the domain
    cannot start by itself. RuntimeError: 200 profiles in a row led to no task.
    """
    if domain.sample_state is None:
        raise ValueError(f"domain {domain.name} has no sample_state to author tasks from")
    tasks: list[Task] = []
    known: set[str] = set()
    for index in range(first_index, first_index + count):
        own = random.Random(rng.getrandbits(64))
        category = categories[index % len(categories)]
        # Drawn once: redrawing them with each profile would favour what is easy to realise.
        dials = own.randint(*turns), own.randint(*classes_per_task), own.randint(*chain_length)
        for _ in range(MAX_PROFILES):
            profile = _sample_profile(domain, category, own, calls_per_turn, *dials)
            try:
                draft = _draft(domain, profile, own, RULE_BASED, tool_weights, (), None)
                task = _accept(domain, draft, (*GATES, has_profile(profile), is_new(known)))
                break
            except Rejected as rejected:
                last = rejected
        else:
            raise RuntimeError(f"no {category} task after {MAX_PROFILES} profiles: {last}")
        known.add(content_hash(task))
        name = f"{domain.name}_{category}_{index}"
        tasks.append(replace(task, id=name, scenario=f"{domain.name}_{index}"))
    return tuple(tasks)


def _draft(
    domain: Domain,
    profile: Profile,
    rng: random.Random,
    roles: Roles,
    tool_weights: Mapping[str, float] | None,
    blocked: Sequence[str],
    seed: Task | None,
) -> Task:
    """Plan, execute, word, augment: a task that no gate has seen yet."""
    if domain.sample_state is not None:
        state, examples = domain.sample_state(rng, profile.classes), {}
    else:
        state, examples = seed.initial_state, _examples(seed)
    plan = roles.plan(domain, profile, rng, tool_weights, blocked)
    long_context = profile.category == "long_context"
    execution = roles.execute(
        domain,
        plan,
        rng,
        classes=profile.classes,
        initial_state=state,
        long_context=long_context,
        examples=examples,
    )
    queries = roles.rewrite(domain, execution, rng)
    turns = roles.augment(domain, execution, queries, profile.category, profile.withheld_turn, rng)
    scenario, ancestry = (seed.scenario, (*seed.ancestry, seed.id)) if seed else ("", ())
    return Task("", scenario, profile.category, profile.classes, state, turns, ancestry)


def _accept(domain: Domain, task: Task, gates: Sequence[Gate]) -> Task:
    refusal = critique(domain, task, gates)
    if refusal is not None:
        raise Rejected(*refusal)
    return task


def _examples(task: Task) -> dict[str, list[Json]]:
    """Argument values of a task's gold calls by parameter: they suit its initial state."""
    examples: dict[str, list[Json]] = {}
    for turn in task.turns:
        for call in turn.gold:
            for parameter, value in call.arguments.items():
                examples.setdefault(parameter, []).append(value)
    return examples


def _sample_profile(
    domain: Domain,
    category: str,
    rng: random.Random,
    calls_per_turn: tuple[int, int],
    num_turns: int,
    num_classes: int,
    chain_length: int,
) -> Profile:
    """A random profile: one class a turn, classes in alternation, one chain over random calls."""
    names = list(dict.fromkeys(tool.class_name for tool in domain.tools.values()))
    classes = rng.sample(names, min(num_classes, num_turns, len(names)))
    per_turn = [(classes[turn % len(classes)],) * rng.randint(*calls_per_turn) for turn in range(num_turns)]
    num_calls = sum(map(len, per_turn))
    chain = sorted(rng.sample(range(num_calls), min(chain_length, num_calls)))
    edges = tuple(Edge(producer, consumer, "", "") for producer, consumer in zip(chain, chain[1:]))
    if category.startswith("missing"):
        per_turn.insert(rng.randrange(num_turns), ())
    return Profile(category, tuple(classes), tuple(per_turn), edges)
