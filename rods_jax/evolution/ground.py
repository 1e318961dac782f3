"""What a domain gives to those who write tasks for it: tools of both sides, policy, live worlds, predicates of checkers.

`of_toolkit` makes a ground of any Python classes; the help desk's is in helpdesk.py.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from rods_jax.environments.checker import Predicate, check_names, checker_of, decided, end_of
from rods_jax.environments.conversation import AGENT, USER, Conversation, Ended, Reason, User, conversations
from rods_jax.environments.foreign import kept
from rods_jax.environments.protocol import Domain
from rods_jax.types import Call, Json, Observation, Task, ToolSpec, World


class Act(NamedTuple):
    """A call of either side."""

    who: str  # AGENT or USER
    call: Call


class Live(NamedTuple):
    """Both sides' tools over one world."""

    call: Callable[[str, Call], Observation]  # (who, call), with what one side's state does to the other
    state: Callable[[], Mapping[str, Mapping[str, Json]]]  # a live view


def _unlabelled(world: World) -> Mapping[str, Json]:
    return {}


def _anybody(task: Task) -> bool:
    return False


class Ground(NamedTuple):
    """A domain as its authors see it."""

    domain: Domain  # the tools of both sides, and simulators of its worlds
    owners: Mapping[str, str]  # class -> AGENT or USER
    base: Callable[[random.Random], World]  # in which nothing is wrong
    live: Callable[[World], Live]
    played_with: Callable[[User], Domain]  # the domain in which this user talks, and a task's checker decides
    clauses: tuple[str, ...]  # of the policy
    styles: tuple[str, ...]  # of users
    predicates: Mapping[str, Predicate] = {}
    label: Callable[[World], Mapping[str, Json]] = _unlabelled  # options that follow from a world's state
    is_measured: Callable[[Task], bool] = _anybody  # whether only evaluations may have such a task

    @property
    def policy(self) -> str:
        return " ".join(self.clauses)

    def tools_of(self, who: str) -> tuple[ToolSpec, ...]:
        return tuple(tool for tool in self.domain.tools.values() if self.owners.get(tool.class_name) == who)


def of_toolkit(
    domain: Domain,
    base: Callable[[random.Random], World],
    *,
    user_classes: Sequence[str] = (),
    clauses: Sequence[str] = (),
    styles: Sequence[str] = ("plain",),
    predicates: Mapping[str, Predicate] = {},
) -> Ground:
    """The ground of a `toolkit.domain`: the agent has its tools, but for those of the user's classes."""
    classes = {tool.class_name for tool in domain.tools.values()}
    owners = {name: USER if name in user_classes else AGENT for name in classes}

    def live(world: World) -> Live:
        simulator = domain.simulator(world)

        def call(who: str, one: Call) -> Observation:
            spec = domain.tools.get(one.name)
            if spec is not None and owners[spec.class_name] != who:
                return Observation(f"Error: {one.name} is a tool of the other side", ok=False)
            return simulator.call(one)

        return Live(call, simulator.state)

    ground = Ground(domain, owners, base, live, lambda user: domain, tuple(clauses), tuple(styles), predicates)
    return ground._replace(
        played_with=lambda user: domain._replace(start=conversations(partial(_conversation, ground, user), waits=True))
    )


def _conversation(ground: Ground, user: User, task: Task) -> Conversation:
    carried = checker_of(task)
    if carried is None:
        raise ValueError(f"{task.id} carries no checker")
    live = ground.live(task.world)
    before = kept(live.state())

    def decide(ended: Ended) -> tuple[bool, ...]:
        *parts, whole = decided(carried, end_of(before, live.state(), ended.lines), ground.predicates)
        return (*parts, whole and ended.reason == Reason.USER_STOP)

    return Conversation(
        ground.tools_of(AGENT), user, live.call, len(check_names(carried)), decide, policy=ground.policy
    )


def snapshot(live: Live) -> Mapping[str, Json]:
    """The state now; later calls do not change it."""
    return kept(live.state())
