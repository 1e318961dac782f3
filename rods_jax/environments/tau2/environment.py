"""Two sides with tools over their databases: the live rule of a call, set-up, replay, assertions."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rods_jax.environments.tau2.messages import AGENT, TOOL, USER, Assertion, Message, Start, ToolCall
from rods_jax.environments.tau2.toolkit import Mark, Toolkit, marks
from rods_jax.environments.tau2.values import copied, decoded, result_text
from rods_jax.types import Json, Observation

Sync = Callable[["Environment"], None]  # after every successful call: what one side's change does to the other


class ReplayError(ValueError):
    """A recorded dialogue that this environment would not have given."""


class Environment:
    """The tools of the agent and of the user, in one episode."""

    def __init__(self, agent: Toolkit, user: Toolkit | None = None, sync: Sync | None = None, solo: bool = False):
        self.agent, self.user = agent, user
        self.solo = solo  # the agent has both sides' tools, and nobody else speaks
        self._sync = sync

    def sync(self) -> None:
        if self._sync is not None:
            self._sync(self)

    def toolkit(self, side: str) -> Toolkit:
        """ValueError: the user has none."""
        if side == AGENT:
            return self.agent
        if self.user is None:
            raise ValueError("User tools not available")
        return self.user

    # -------------------------------------------------------------------------------------- calls
    def call(self, side: str, name: str, arguments: Mapping[str, Json]) -> Observation:
        """A call in a dialogue, then sync. Whatever fails is text; what it changed until then stays changed."""
        try:
            result = self.perform(side, name, arguments)
            self.sync()
            return Observation(result_text(result))
        except Exception as error:
            return Observation(f"Error: {error}", ok=False)

    def perform(self, side: str, name: str, arguments: Mapping[str, Json]) -> Any:
        """A tool of a side, without sync. ValueError: the side has none of this name; else raises what the tool raises."""
        return self._tool(side, name)(**copied(dict(arguments)))

    def _tool(self, side: str, name: str) -> Callable[..., Any]:
        if self.solo and side == USER:
            raise ValueError("User tools not available in solo mode")
        sides = (USER, AGENT) if self.solo and self.user is not None else (side,)
        for toolkit in map(self.toolkit, sides):
            if name in marks(type(toolkit)):
                return getattr(toolkit, name)
        raise ValueError(f"Tool '{name}' not found.")

    def mark(self, name: str) -> Mark | None:
        """Of the tool of this name, the agent's first; None: neither side has it."""
        for toolkit in (self.agent, self.user):
            if toolkit is not None and name in (found := marks(type(toolkit))):
                return found[name]
        return None

    def run(self, side: str, name: str, arguments: Mapping[str, Json]) -> Any:
        """Any method of a side, helpers too, without sync; raises what it raises. ValueError: there is none."""
        method = getattr(self.toolkit(side), name, None)
        if not callable(method):
            raise ValueError(f"the side of the {side} has no method {name}")
        return method(**copied(dict(arguments)))

    def check(self, assertion: Assertion) -> bool:
        """Whether the assertion holds. Raises what its method raises; TypeError: its result is no boolean."""
        holds = self.run(assertion.side, assertion.name, assertion.arguments)
        self.sync()
        if not isinstance(holds, bool):
            raise TypeError(f"{assertion.name} returned {holds!r}, which is no boolean")
        return holds == assertion.expected

    # ------------------------------------------------------------------------------------- set-up
    def set_up(
        self,
        start: Start,
        messages: Sequence[Message] = (),
        *,
        strict: bool = True,
        apart: bool = False,
        mended: bool = False,
    ) -> None:
        """Data, then calls, then the dialogue so far.

        messages: begin with the start's own history.  strict: results must be those recorded.
        apart: data of one side leave the other's alone; officially both then have the one database.
        mended: the agent's tools are without their official faults.
        ReplayError, ShapeError, or what a call of the set-up raises.
        """
        self.agent.mended = mended
        if self.solo and any(message.role == USER for message in messages):
            raise ReplayError("a user spoke in solo mode")
        for mine, other, data in ((self.agent, self.user, start.agent_data), (self.user, self.agent, start.user_data)):
            if data is not None and mine is not None:
                mine.db = mine.db.patched(data)
                if other is not None and not apart:
                    other.db = mine.db
        for side, name, arguments in start.calls:
            self.run(side, name, arguments)
            self.sync()
        self.replay(messages, strict)
        self.sync()

    def replay(self, messages: Sequence[Message], strict: bool = True) -> None:
        """Makes the calls of a dialogue that change something. ReplayError: a result is missing, or is another one."""
        for call, result in answered(messages):
            mark = self.mark(call.name)
            if mark is None or not mark.mutates:
                continue
            text = self.call(call.requestor, call.name, call.arguments).text
            if strict and decoded(text) != decoded(result.text):
                raise ReplayError(f"the call {call.name} gave {text!r}, and the record has {result.text!r}")

    # -------------------------------------------------------------------------------- both databases
    def same(self, other: "Environment") -> tuple[bool, bool]:
        """Whether the agents' databases are equal, and the users'."""
        if (self.user is None) != (other.user is None):
            return self.agent.db.same(other.agent.db), False
        users = self.user is None or other.user is None or self.user.db.same(other.user.db)
        return self.agent.db.same(other.agent.db), users

    def hashes(self) -> tuple[str, str | None]:
        """Official ones, of agent and user."""
        return self.agent.db.official_hash(), None if self.user is None else self.user.db.official_hash()

    def fork(self) -> "Environment":
        """An independent copy."""
        return copy.deepcopy(self)


def answered(messages: Sequence[Message]) -> list[tuple[ToolCall, Message]]:
    """Every call with its result. ReplayError: a result without its call, a call without its result."""
    pairs = []
    waiting: list[ToolCall] = []
    for message in messages:
        if message.role == TOOL:
            if not waiting or waiting[0].id != message.id:
                raise ReplayError(f"the result {message.id!r} follows no call of that id")
            pairs.append((waiting.pop(0), message))
        elif waiting:
            raise ReplayError(f"the call {waiting[0].id!r} has no result")
        else:
            waiting = list(message.calls or ())
    if waiting:
        raise ReplayError(f"the call {waiting[0].id!r} has no result")
    return pairs
