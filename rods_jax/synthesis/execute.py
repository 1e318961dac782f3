"""Stage II: fills in arguments and runs every call, before any user text exists (RODS section 5).

Left out on purpose: patching the initial state after a failure, which needs a judge of what to patch.
A failed call is tried with other arguments, then with the plan's spare tools; then the attempt ends.
"""

import itertools
import random
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rods_jax.environments.protocol import Domain, Simulator
from rods_jax.synthesis.arguments import Sources, candidate, is_modest, sources
from rods_jax.synthesis.errors import FUNC_SAMPLE_FAILED, PARAM_GEN_FAILED, VM_EXEC_FAILED, Rejected
from rods_jax.synthesis.plan import Plan
from rods_jax.synthesis.values import Pair, atoms, can_flow, fields, is_atom, output_links, parse_output
from rods_jax.types import Call, Json, World

TRIES = 12  # argument draws per tool
ORDINALS = ("first", "second", "third")
RESTARTS = 4  # runs of one plan from its initial state


class Reference(NamedTuple):
    """The origin of a value that user text refers to instead of spelling it out."""

    producer: int  # the call whose output first held it, counted over the task
    key: str  # where in that output
    rank: int = 0  # 0: the latest of its kind ("that ticket"); n: the n-th one returned ("the second ticket")


class Argument(NamedTuple):
    """A value and its origin; None: user text spells it out."""

    value: Json
    origin: Reference | None = None


@dataclass(frozen=True)
class ExecutedCall:
    """A call that ran, with the origin of every argument."""

    tool: str
    arguments: Mapping[str, Argument]
    output: Json

    @property
    def call(self) -> Call:
        return Call(self.tool, {name: argument.value for name, argument in self.arguments.items()})


@dataclass(frozen=True)
class Execution:
    """The calls of each turn that holds calls, run in order on one simulator."""

    world: World
    turns: tuple[tuple[ExecutedCall, ...], ...]
    queries: tuple[str, ...] = ()  # one a turn, where wording was tried already, before the rewrite of the whole


@dataclass
class _Session:
    """What is known while a plan runs; replaying `done` on a fresh simulator is the only undo."""

    domain: Domain
    plan: Plan
    world: World
    rng: random.Random
    examples: Mapping[str, Sequence[Json]]
    done: list[ExecutedCall] = field(default_factory=list)

    def fresh(self) -> Simulator:
        simulator = self.domain.simulator(self.world)
        for executed in self.done:
            simulator.call(executed.call)
        return simulator


def execute(
    domain: Domain,
    plan: Plan,
    rng: random.Random,
    *,
    world: World,
    examples: Mapping[str, Sequence[Json]] = {},
) -> Execution:
    """Runs the plan on one simulator; `examples` are values by parameter that are known to suit the state.

    Every kept call changes state or returns something new, and every planned link carries a value that a
    user can refer to without ambiguity. Raises Rejected with a type of errors.py and the tool to avoid.
    """
    rejections: list[Rejected] = []
    for restart in range(RESTARTS):
        session = _Session(domain, plan, world, rng, examples)
        try:
            return Execution(world, _run_plan(session, shuffled=restart > 0))
        except Rejected as rejected:
            rejections.append(rejected)
    raise rejections[0]


def _run_plan(session: _Session, shuffled: bool) -> tuple[tuple[ExecutedCall, ...], ...]:
    """Runs every turn; `shuffled` forgets which tools the plan prefers to its spares."""
    simulator = session.fresh()
    turns = []
    for turn in session.plan.turns:
        start = len(session.done)
        for planned in turn:
            names = [planned.tool, *planned.spares]
            if shuffled:
                session.rng.shuffle(names)
            used = {executed.tool for executed in session.done[start:]}
            failures = []
            for name in names:
                if name in used and name != planned.tool:
                    continue
                try:
                    executed, simulator = _run(session, simulator, name)
                except Rejected as failure:
                    failures.append(failure)
                else:
                    session.done.append(executed)
                    break
            else:
                raise failures[0]
        turns.append(tuple(session.done[start:]))
    return tuple(turns)


def _run(session: _Session, simulator: Simulator, name: str) -> tuple[ExecutedCall, Simulator]:
    """Finds arguments with which a tool can be called next; `simulator` itself stays as it is.

    Returns the call and a simulator that has run it. Raises Rejected with the reason of the last try.
    """
    failure = Rejected(PARAM_GEN_FAILED, f"{name}: no arguments", (name,))
    references = _references(session, name)
    if not all(references):
        raise failure
    visible = (
        simulator.state().get(session.domain.tools[name].class_name, {}),
        *(executed.output for executed in session.done),
    )
    found: dict[str, Sources] = {}
    tried = [executed.call for executed in session.done]
    for _ in range(TRIES):
        arguments = _arguments(session, name, references, visible, found)
        if arguments is None:
            continue
        call = Call(name, {parameter: argument.value for parameter, argument in arguments.items()})
        if call in tried:
            continue
        tried.append(call)
        trial = session.fresh()
        observation = trial.call(call)
        output = parse_output(observation.text)
        if not observation.ok or isinstance(output, Mapping) and "error" in output:
            failure = Rejected(VM_EXEC_FAILED, f"{name}: {observation.text[:200]}", (name,))
            continue
        executed = ExecutedCall(name, arguments, output)
        reason = _useless(session, simulator, trial, executed)
        if reason is None:
            return executed, trial
        failure = Rejected(FUNC_SAMPLE_FAILED, f"{name}: {reason}", (name,))
    raise failure


def _useless(session: _Session, before: Simulator, after: Simulator, executed: ExecutedCall) -> str | None:
    """Why a call that ran is not kept."""
    news = executed.output not in (None, "", "None", {}, []) and all(
        executed.output != earlier.output for earlier in session.done
    )
    if not news and before.state() == after.state():
        return "neither changes nor shows anything"
    position = len(session.done)
    consumers = [consumer for producer, consumer in session.plan.links if producer == position]
    planned = [call for turn in session.plan.turns for call in turn]
    for consumer in sorted(consumers):
        names = (planned[consumer].tool, *planned[consumer].spares)
        if not any(_bindings(session, executed, name) for name in names):
            return f"returns nothing for {names[0]}"
    return None


def _bindings(session: _Session, producer: ExecutedCall, consumer: str) -> dict[Pair, Json]:
    """What `consumer` may take of a call's output: values first seen there and never spelled out so far."""
    tools = session.domain.tools
    links = output_links(tools[producer.tool], producer.output, tools[consumer], session.plan.pairs)
    known = [*_spoken(producer)]
    for call in session.done:
        known += _spoken(call)
    for call in itertools.takewhile(lambda call: call is not producer, session.done):
        known += [value for _, value in fields(call.output)]
    return {
        pair: value
        for pair, value in links.items()
        if is_modest(value) and not any(atom in known for atom in atoms(value))
    }


def _spoken(call: ExecutedCall) -> list[Json]:
    """The strings and numbers that user text must spell out."""
    literals = (argument.value for argument in call.arguments.values() if argument.origin is None)
    return [atom for value in literals for atom in atoms(value)]


def _references(session: _Session, name: str) -> list[list[tuple[str, Argument]]]:
    """For each planned link into the next call, the (parameter, value) that it may carry."""
    references = []
    position = len(session.done)
    for producer in sorted(producer for producer, consumer in session.plan.links if consumer == position):
        options = []
        for (key, parameter), value in _bindings(session, session.done[producer], name).items():
            rank = _rank(session, producer, name, (key, parameter), value)
            if rank is not None:
                options.append((parameter, Argument(value, Reference(producer, key, rank))))
        # People refer to things for which the domain has a noun: prefer those.
        references.append([option for option in options if option[0] in session.domain.nouns] or options)
    return references


def _arguments(
    session: _Session,
    name: str,
    references: Sequence[Sequence[tuple[str, Argument]]],
    visible: Sequence[Json],
    found: dict[str, Sources],
) -> dict[str, Argument] | None:
    """Arguments of one call: references first, then literals; None where one is lacking. Fills `found`."""
    tool = session.domain.tools[name]
    arguments: dict[str, Argument] = {}
    for options in references:
        free = [option for option in options if option[0] not in arguments]
        if not free:
            return None
        parameter, argument = session.rng.choice(free)
        arguments[parameter] = argument
    referred = [atom for argument in arguments.values() for atom in atoms(argument.value)]
    for parameter in _parameters(session, name, arguments):
        if parameter not in found:
            found[parameter] = sources(tool, parameter, visible, session.examples)
        value = candidate(session.domain, tool, parameter, session.rng, found[parameter])
        if value is None or any(atom in referred for atom in atoms(value)):
            return None
        arguments[parameter] = Argument(value)
    properties = tool.parameters.get("properties", {})
    return {parameter: arguments[parameter] for parameter in properties if parameter in arguments}


def _parameters(session: _Session, name: str, bound: Mapping[str, Argument]) -> list[str]:
    """Parameters to fill beside the bound ones: those of a wording, else the required and some optional."""
    schema = session.domain.tools[name].parameters
    wordings = [
        [parameter for _, parameter, _, _ in string.Formatter().parse(wording) if parameter]
        for wording in session.domain.phrases.get(name, ())
    ]
    wordings = [names for names in wordings if all(parameter in names for parameter in bound)]
    if wordings:
        names = session.rng.choice(wordings)
    else:
        required = schema.get("required", ())
        names = [p for p in schema.get("properties", {}) if p in required or session.rng.random() < 0.2]
    return [parameter for parameter in names if parameter not in bound]


def _rank(session: _Session, producer: int, name: str, pair: Pair, value: Json) -> int | None:
    """How to refer to a value without ambiguity (see Reference.rank), or None if one cannot.

    Rank 0, "that ...", is the latest value of its kind that was named or returned.  Otherwise the values that were
    returned under one key are counted, provided that no value of their kind was named.
    """
    tools = session.domain.tools
    key, parameter = pair

    def of_kind(call: ExecutedCall, pairs: Iterable[tuple[str, Json]]) -> list[tuple[str, Json]]:
        same_class = tools[call.tool].class_name == tools[name].class_name
        others = [(k, v) for k, v in pairs if v != value]
        return [(k, v) for k, v in others if can_flow(k, parameter, session.plan.pairs, same_class)]

    named = [of_kind(call, ((k, a.value) for k, a in call.arguments.items())) for call in session.done]
    returned = [of_kind(call, fields(call.output)) for call in session.done]
    # The producer's arguments count: "reply to message 30, then delete that message" would mean message 30.
    if not any(named[producer:]) and not any(returned[producer + 1 :]):
        return 0
    if any(named) or any(other != key for pairs in returned for other, _ in pairs):
        return None
    values = [v for call in session.done for k, v in fields(call.output) if k == key]
    rank = list(dict.fromkeys(values)).index(value) + 1 if all(map(is_atom, values)) else 0
    return rank if 1 <= rank <= len(ORDINALS) else None
