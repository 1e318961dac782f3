"""The world of a task: both sides' tools over one state, what one side does to the other, and the checks at the end.

A task that carries a checker is decided by it; any other by its composition of faults.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rods_jax.environments import checker, toolkit
from rods_jax.environments.conversation import (
    AGENT,
    STOP,
    TRANSFER,
    USER,
    Conversation,
    Ended,
    Line,
    Reason,
    User,
    answered,
)
from rods_jax.environments.foreign import kept
from rods_jax.environments.helpdesk.desk import Desk
from rods_jax.environments.helpdesk.faults import FAULTS, Act, Composition, Fault
from rods_jax.environments.helpdesk.home import Home, works
from rods_jax.environments.protocol import Simulator
from rods_jax.types import Call, Json, Observation, Task

POLICY = "Look at all, mend what is wrong, then let the user test. Hand over what nobody can mend."
GREETING = "Hello, how can I help?"
TOOLKIT = toolkit.domain("helpdesk", {"Desk": Desk, "Home": Home})
OWNERS = {AGENT: "Desk", USER: "Home"}
AGENT_TOOLS, USER_TOOLS = TOOLKIT.tools_of(("Desk",)), TOOLKIT.tools_of(("Home",))


def composition_of(task: Task) -> Composition:
    return Composition(task.category, tuple(task.world.options["faults"]))


def policy(task: Task) -> str:
    """What the agent of any task must follow."""
    return POLICY


def account_of(task: Task) -> int:
    """The account of the customer who talks."""
    return task.world.options["account"]


def knows_account(task: Task) -> bool:
    """Whether the customer can tell it: one whose facts are listed knows no others."""
    facts = task.world.options.get("facts")
    return facts is None or str(account_of(task)) in map(str, facts.values())


def caller(simulator: Simulator):
    """(who, call) -> Observation: either side calls its own tools alone."""

    def call(who: str, one: Call) -> Observation:
        spec = TOOLKIT.tools.get(one.name)
        if spec is not None and spec.class_name != OWNERS[who]:
            return Observation(f"Error: {one.name} is a tool of the other side", ok=False)
        return simulator.call(one)

    return call


def syncer(simulator: Simulator, account: int):
    """What the provider sends to the home, and the payment that goes back."""

    def sync() -> None:
        record, home = _states(simulator, account)
        feed = home["feed"]
        if feed["paid"]:
            record["owes"], record["billed"], feed["paid"] = 0, False, False
        feed["line"] = (record["status"], record["area"], record["router"], record["port"]) == (
            "active",
            "ok",
            "known",
            "up",
        )
        feed["fast"] = (record["speed"], record["cap"], record["firmware"]) == ("full", "off", "new")
        feed["settings"], feed["password"] = record["settings"], record["password"]
        feed["bill"] = record["owes"] if record["billed"] else 0

    return sync


def conversation(task: Task, user: User, blamed: Callable[..., str]) -> Conversation:
    """The world of a task in its initial state, with this user; `blamed` says who caused a failure (errors.py)."""
    simulator = TOOLKIT.simulator(task.world)
    sync = syncer(simulator, account_of(task))
    sync()
    carried = checker.checker_of(task)
    before = kept(simulator.state()) if carried else {}

    def decide(ended: Ended) -> tuple[bool, ...]:
        if carried is None:
            return decided(ended, simulator)
        *parts, whole = checker.decided(carried, checker.end_of(before, simulator.state(), ended.lines), PREDICATES)
        return (*parts, whole and ended.reason == Reason.USER_STOP)

    return Conversation(
        tools=AGENT_TOOLS,
        user=user,
        call=caller(simulator),
        num_checks=len(check_names(task)),
        decide=decide,
        blame=lambda ended: blamed(ended, *_states(simulator, account_of(task)), (STOP, TRANSFER)),
        sync=sync,
        policy=policy(task),
        greeting=GREETING,
        max_steps=60,
        max_errors=6,
    )


# ------------------------------------------------------------------------------------------ checks
def internet(end: checker.End, speed: str = "slow") -> bool:
    """The user's internet is up at the end; with speed "fast", it is fast too."""
    up, fast = works(dict(end.after["Home"]))
    return fast if speed == "fast" else up


PREDICATES: Mapping[str, checker.Predicate] = {"internet": internet}  # that a checker may name


def check_names(task: Task) -> tuple[str, ...]:
    """What a task's own checker asks for; else two of a case that must be handed over; else one for each fault, and the end."""
    if (carried := checker.checker_of(task)) is not None:
        return checker.check_names(carried)
    composition = composition_of(task)
    if composition.refusal:
        return "looked at the fault", f"handed over: {composition.refusal}"
    return (*(f"mended: {name}" for name in composition.faults), "works, and the user has left")


def decided(ended: Ended, simulator: Simulator) -> tuple[bool, ...]:
    """Which checks passed.

    A refusal: the fault was looked at, with success; then it was handed over with its reason.  Else: each fault is
    mended; and at the end the internet is up and fast, the user has left by itself, nothing was handed over, and no other
    customer's record has changed.
    """
    task, composition = ended.task, composition_of(ended.task)
    record, home = _states(simulator, account_of(task))
    left = ended.reason == Reason.USER_STOP
    if composition.refusal:
        (look,) = {FAULTS[name].shown_by for name in composition.faults if FAULTS[name].reason}
        made = [call.name for _, call, ok in answered(ended.lines) if ok]
        seen = look in itertools.takewhile("hand_over".__ne__, made)
        return seen, seen and record["handed"] == composition.refusal and _others_kept(task, simulator) and left
    mended = tuple(is_mended(FAULTS[name], record, home) for name in composition.faults)
    whole = all(works(home)) and left and not record["handed"] and _others_kept(task, simulator)
    return (*mended, whole)


def is_mended(fault: Fault, record: Mapping[str, Json], home: Mapping[str, Json]) -> bool:
    """Whether nothing is left of what a fault changed."""
    changed = [(record, fault.account), (home, fault.home)]
    return all(state[name] != value for state, patch in changed for name, value in patch.items())


def _others_kept(task: Task, simulator: Simulator) -> bool:
    own = str(account_of(task))
    before, now = task.world.state["Desk"]["accounts"], simulator.state()["Desk"]["accounts"]
    return all(now[number] == record for number, record in before.items() if number != own)


def _states(simulator: Simulator, account: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The customer's record and the home, live."""
    state = simulator.state()
    return state["Desk"]["accounts"][str(account)], dict(state["Home"])


# -------------------------------------------------------------------------------------------- gate
def outcomes(task: Task, acts: Sequence[Act]) -> list[tuple[bool, ...]]:
    """The checks before these calls and after each, if the user left then: no words are needed."""
    simulator = TOOLKIT.simulator(task.world)
    call, sync = caller(simulator), syncer(simulator, account_of(task))
    sync()
    lines: list[Line] = []
    found = [decided(Ended(task, Reason.USER_STOP, (), 0, 0), simulator)]
    for who, one in acts:
        seen = call(who, one)
        sync()
        lines += [Line(who, calls=(one,)), Line(who, seen.text, result=True, ok=seen.ok)]
        found.append(decided(Ended(task, Reason.USER_STOP, tuple(lines), len(lines), 0), simulator))
    return found
