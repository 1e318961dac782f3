"""The five stages in a straight line, for variants of a seed and for seed tasks from sampled profiles.

`five_stages` is the author that makes variants so.  Roles are functions: pass others (llm.py) to have language models plan, execute, reword, augment, judge or patch.
The history of a seed is all that a restart needs.
"""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from rods_jax.chat import Generate
from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.attempt import Attempt, Exchange, Rejection
from rods_jax.synthesis.augment import augment
from rods_jax.synthesis.author import Order, Synthesis, Write
from rods_jax.synthesis.critique import GATES, Gate, critique, has_profile, is_new
from rods_jax.synthesis.errors import JUDGE, NO_PATTERN, PATCHABLE, PIPELINE_EXCEPTION, Rejected
from rods_jax.synthesis.execute import Execution, execute
from rods_jax.synthesis.patch import Patch, accept_patches, deep_merge
from rods_jax.synthesis.plan import Plan, sample_plan
from rods_jax.synthesis.profile import Edge, Profile, extract_profile
from rods_jax.synthesis.rewrite import rewrite
from rods_jax.task_files import content_hash
from rods_jax.types import Json, Task, Turn, World

MAX_PROFILES = 200  # profiles that the author samples for one task
PLAYS_ITSELF = (
    "its world decides by checks of its own, which new words and calls would not change: name an author of its own"
)


def _sample_plan(attempt: Attempt) -> Plan:
    return sample_plan(attempt.domain, attempt.profile, attempt.rng, attempt.tool_weights, attempt.blocked)


def _execute(attempt: Attempt, plan: Plan) -> Execution:
    return execute(
        attempt.domain,
        plan,
        attempt.rng,
        world=attempt.world,
        examples=attempt.examples,
    )


def _rewrite(attempt: Attempt, plan: Plan, execution: Execution) -> tuple[str, ...]:
    return rewrite(attempt.domain, execution, attempt.rng)


def _augment(attempt: Attempt, execution: Execution, queries: tuple[str, ...]) -> tuple[Turn, ...]:
    profile = attempt.profile
    withholds = attempt.domain.strata[profile.category].withholds
    return augment(attempt.domain, execution, queries, withholds, profile.withheld_turn, attempt.rng)


class Roles(NamedTuple):
    """Who does each stage. A role gets the attempt and what earlier stages made; Rejected ends the attempt."""

    plan: Callable[[Attempt], Plan] = _sample_plan
    execute: Callable[[Attempt, Plan], Execution] = _execute
    rewrite: Callable[[Attempt, Plan, Execution], tuple[str, ...]] = _rewrite
    augment: Callable[[Attempt, Execution, tuple[str, ...]], tuple[Turn, ...]] = _augment
    gates: tuple[Gate, ...] = GATES
    alignment: Callable[[Profile], Gate] = has_profile  # what a variant must share with its seed's profile
    judge: Callable[[Attempt, Task], str | None] = lambda attempt, task: None  # why the task is refused
    refine: Callable[[Attempt, Task, str], Task] | None = None  # once; None: what is refused is dropped
    patch: Callable[[Attempt, Rejection], tuple[Patch, ...]] = lambda attempt, rejection: ()
    recall: Callable[[tuple[Rejection, ...]], tuple[Rejection, ...]] = lambda history: history  # what feeds back


RULE_BASED = Roles()


def five_stages(
    domain: Domain, roles: Callable[[Mapping[str, Generate]], Roles] = lambda backends: RULE_BASED
) -> Write:
    """The author that makes a variant by `synthesize`, from the seed alone; roles: of the backends."""

    def write(order: Order, *, backends: Mapping[str, Generate] = {}, **arguments: Any) -> Synthesis:
        return synthesize(domain, order.seed, roles=roles(backends), **arguments)

    return write


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
    history: tuple[Rejection, ...] = (),
) -> Synthesis:
    """One variant with the seed's scenario, category and structure, in at most `attempts` full attempts.

    A failure is a Rejection, never an exception, and feeds back into the next attempt (RODS Appendix F): the tools that
    it blames are avoided, and the initial state is patched if its type is patchable.  A seed of a world that plays by
    itself (`Domain.start`) has none: its checks follow from no gold.
    known_hashes: content hashes that no variant may have.  history: the rejections of an earlier call with an equal
    `rng`; this call continues after them.
    """
    domain = domain.of(seed_task)
    state_seed, *seeds = (rng.getrandbits(64) for _ in range(1 + attempts))
    exchanges: list[Exchange] = []
    for number in range(len(history), attempts):
        attempt, plan = None, None
        try:
            if domain.start is not None:
                raise Rejected(NO_PATTERN, PLAYS_ITSELF)
            profile = extract_profile(domain, seed_task)
            # Every attempt starts from the same state, because patches are made for it.
            world, examples = _world(domain, profile, random.Random(state_seed), seed_task)
            recalled = roles.recall(history)
            for rejection in recalled:
                world = replace(world, state=deep_merge(world.state, rejection.patch))
            attempt = Attempt(
                domain=domain,
                profile=profile,
                world=world,
                rng=random.Random(seeds[number]),
                seed=seed_task,
                examples=examples,
                tool_weights=tool_weights,
                number=number,
                history=recalled,
                log=exchanges.append,
            )
            plan = roles.plan(attempt)
            gates = (*roles.gates, roles.alignment(profile), is_new(known_hashes))
            candidate = _critique(attempt, _draft(attempt, plan, roles), gates, roles)
        except Exception as error:  # a seed that breaks the pipeline must not stop the training beside it
            history += (_feedback(attempt, _rejection(number, error, plan), roles),)
        else:
            root = (seed_task.ancestry or (seed_task.id,))[0]
            identity = f"{root}~{step}-{content_hash(candidate)[:8]}"
            return Synthesis(replace(candidate, id=identity), history, tuple(exchanges))
    return Synthesis(None, history, tuple(exchanges))


def author_tasks(
    domain: Domain,
    *,
    count: int,
    rng: random.Random,
    first_index: int = 0,
    categories: Sequence[str] | None = None,
    turns: tuple[int, int] = (2, 4),
    calls_per_turn: tuple[int, int] = (1, 2),
    classes_per_task: tuple[int, int] = (1, 2),
    chain_length: tuple[int, int] = (1, 3),
    tool_weights: Mapping[str, float] | None = None,
) -> tuple[Task, ...]:
    """Seed tasks, categories (None: all strata of the domain) in turn, each its own scenario; the ranges are inclusive.

    Ids count from `first_index`, so that several calls can fill one pool.

    `chain_length` counts the calls of a task's one chain, in which each call takes a value that the one
    before returned; 1 is no chain. A weight below 1 makes a tool rare, 0 absent. ValueError: the domain
    cannot start by itself. RuntimeError: 200 profiles in a row led to no task.
    """
    categories = categories or tuple(domain.strata)
    tasks: list[Task] = []
    known: set[str] = set()
    for index in range(first_index, first_index + count):
        own = random.Random(rng.getrandbits(64))
        category = categories[index % len(categories)]
        # Drawn once. Redrawn with each profile, they would favour profiles that are easy to realise.
        dials = own.randint(*turns), own.randint(*classes_per_task), own.randint(*chain_length)
        for _ in range(MAX_PROFILES):
            profile = _sample_profile(domain, category, own, calls_per_turn, *dials)
            try:
                plan = partial(sample_plan, domain, profile, own, tool_weights)
                task = author_task(domain, profile, own, plan, gates=(has_profile(profile), is_new(known)))
                break
            except Rejected as rejected:
                last = rejected
        else:
            raise RuntimeError(f"no {category} task after {MAX_PROFILES} profiles: {last}")
        known.add(content_hash(task))
        name = f"{domain.name}_{category}_{index}"
        tasks.append(replace(task, id=name, scenario=f"{domain.name}_{index}"))
    return tuple(tasks)


def author_task(
    domain: Domain, profile: Profile, rng: random.Random, plan: Callable[[], Plan], gates: Sequence[Gate]
) -> Task:
    """One task, without id and scenario, in a new state, of the plan that is made once the state is drawn.

    gates: beside the usual ones.  Rejected: a stage could not go on, or a gate refused the task.
    """
    state = states_of(domain)(rng, profile.classes)
    world = World(profile.classes, state, domain.strata[profile.category].options)
    task = _draft(Attempt(domain, profile, world, rng), plan(), RULE_BASED)
    _check(domain, task, (*GATES, *gates))
    return task


def states_of(domain: Domain) -> Callable[[random.Random, Sequence[str]], Mapping[str, Json]]:
    """Its `sample_state`. ValueError: the domain cannot start by itself."""
    if domain.sample_state is None:
        raise ValueError(f"domain {domain.name} has no sample_state to author tasks from")
    return domain.sample_state


def plain_stratum(domain: Domain) -> str:
    """The first stratum that withholds nothing. ValueError: all of them withhold something."""
    for name, stratum in domain.strata.items():
        if not stratum.withholds:
            return name
    raise ValueError(f"all strata of {domain.name} withhold something")


def _world(
    domain: Domain, profile: Profile, rng: random.Random, seed: Task
) -> tuple[World, Mapping[str, Sequence[Json]]]:
    """The seed's world: with a new state where the domain can draw one, else with the argument values that suit it."""
    if domain.sample_state is not None:
        return replace(seed.world, state=domain.sample_state(rng, profile.classes)), {}
    return seed.world, _examples(seed)


def _draft(attempt: Attempt, plan: Plan, roles: Roles) -> Task:
    """Executes, words and augments a plan: a task that no gate has seen yet."""
    execution = roles.execute(attempt, plan)
    queries = roles.rewrite(attempt, plan, execution)
    turns = roles.augment(attempt, execution, queries)
    profile, seed = attempt.profile, attempt.seed
    scenario, ancestry = (seed.scenario, (*seed.ancestry, seed.id)) if seed else ("", ())
    return Task("", scenario, profile.category, attempt.world, turns, ancestry)


def _critique(attempt: Attempt, task: Task, gates: Sequence[Gate], roles: Roles) -> Task:
    """The task, refined at most once, that passes every gate and the judge."""
    _check(attempt.domain, task, gates)
    reason = roles.judge(attempt, task)
    if reason is not None and roles.refine is not None:
        task = roles.refine(attempt, task, reason)
        _check(attempt.domain, task, gates)
        reason = roles.judge(attempt, task)
    if reason is not None:
        raise Rejected(JUDGE, reason)
    return task


def _check(domain: Domain, task: Task, gates: Sequence[Gate]) -> None:
    refusal = critique(domain, task, gates)
    if refusal is not None:
        raise Rejected(*refusal)


def _rejection(number: int, error: Exception, plan: Plan | None) -> Rejection:
    tools = tuple(tuple(call.tool for call in turn) for turn in plan.turns) if plan else ()
    if isinstance(error, Rejected):
        return Rejection(number, error.error, error.detail, error.functions, tools)
    return Rejection(number, PIPELINE_EXCEPTION, f"{type(error).__name__}: {error}", plan=tools)


def _feedback(attempt: Attempt | None, rejection: Rejection, roles: Roles) -> Rejection:
    """The rejection with what it changes in the environment: nothing, unless its type is patchable."""
    if attempt is None or rejection.error not in PATCHABLE:
        return rejection
    try:
        patches = roles.patch(attempt, rejection)
        accepted, refused = accept_patches(attempt.domain, attempt.world, patches)
    except Exception as error:  # feedback that fails costs the patch, not the seed
        return replace(rejection, refused_patches=(f"{type(error).__name__}: {error}",))
    return replace(rejection, patch=accepted, refused_patches=refused)


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
    if domain.strata[category].withholds:
        per_turn.insert(rng.randrange(num_turns), ())
    return Profile(category, tuple(classes), tuple(per_turn), edges)
