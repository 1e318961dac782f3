"""The other side of a domain's conversations: there a policy learns to be the user, and an agent talks to it.

    turned(domain, tools, make, agent, demonstrator)
                                                   a Domain like any other: cold starts, runs, evaluations and exports take it
    agent_by(demonstrator)                         the domain's own demonstrator as the agent whom the user talks to
    demonstrator_of(user)                          a user as the one who shows how it is done

The policy's tools are the user's, its policy text is what a user is told, and its checks are two: the conversation
passed all of the domain's own, and no detector found an error of the user.  Within a turned conversation AGENT is
whoever learns, as everywhere, and `back` gives a transcript its own names again.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from rods_jax.config import Habits
from rods_jax.environments.conversation import (
    AGENT,
    USER,
    Conversation,
    Ended,
    Heard,
    Line,
    Reason,
    Spoken,
    User,
    conversations,
)
from rods_jax.environments.protocol import Domain, Reading, Slip
from rods_jax.types import Action, Call, Message, Observation, Task, ToolSpec

Act = Callable[[Sequence[Message]], Action]  # what came back -> the next action
Demonstrator = Callable[[Task, Habits, random.Random], Act]

_OTHER = {AGENT: USER, USER: AGENT}
_REASONS: Mapping[str, Reason] = {
    Reason.AGENT_STOP: Reason.USER_STOP,
    Reason.USER_STOP: Reason.AGENT_STOP,
    Reason.AGENT_ERROR: Reason.USER_ERROR,
    Reason.USER_ERROR: Reason.AGENT_ERROR,
}


def turned(
    domain: Domain,
    tools: Sequence[ToolSpec],
    make: Callable[[Task], Conversation],
    agent: User,
    demonstrator: Demonstrator,
) -> Domain:
    """The user's side of a domain that has a `reading`.

    tools: all that its users have.  make: its world of a task; who speaks for its user is not asked.
    """
    own = domain.reading
    assert own is not None
    return Domain(
        f"{domain.name} user",
        {tool.name: tool for tool in tools},
        domain.simulator,
        strata=domain.strata,
        start=conversations(partial(_turn, own, make, agent)),
        demonstrator=demonstrator,
        reading=Reading(
            policy=own.instructions,
            instructions=own.policy,
            user_tools=partial(_agent_tools, make),
            checks=_checks,
            slips=partial(_turned_slips, own),
        ),
    )


def agent_by(demonstrator: Demonstrator, habits: Habits = Habits()) -> User:
    """A demonstrator as the one who answers: it says again what it said, and then goes on."""
    return partial(_speak, demonstrator, habits)


def demonstrator_of(user: User) -> Demonstrator:
    """A user as a demonstrator: it has no habits of its own."""
    return partial(_show, user)


def _turn(reading: Reading, make: Callable[[Task], Conversation], agent: User, task: Task) -> Conversation:
    own = make(task)

    def call(who: str, one: Call) -> Observation:
        return own.call(_OTHER[who], one)

    def decide(ended: Ended) -> tuple[bool, ...]:
        lines, reason = back(ended.lines), _REASONS.get(ended.reason, ended.reason)
        whole = own.decide(ended._replace(reason=reason, lines=lines))
        return all(whole), not reading.user_errors(task, lines, reason)

    return own._replace(
        tools=reading.user_tools(task),
        user=partial(_greeted, own.greeting, agent),
        call=call,
        num_checks=2,
        decide=decide,
        blame=lambda ended: "",
        policy=reading.instructions(task),
        greeting="",
        stop_words=own.agent_stop_words,
        agent_stop_words=own.stop_words,
    )


def _agent_tools(make: Callable[[Task], Conversation], task: Task) -> tuple[ToolSpec, ...]:
    return make(task).tools


def _checks(task: Task) -> tuple[str, ...]:
    return "the conversation passes all checks", "no error of the user is found"


def back(lines: Sequence[Line]) -> tuple[Line, ...]:
    """A turned conversation's lines with the domain's own names, without the first: the learner's greeting, which is empty."""
    return tuple(replace(line, who=_OTHER[line.who]) for line in lines[1:])


def _turned_slips(own: Reading, task: Task, lines: Sequence[Line], ended: str) -> list[Slip]:
    found = own.slips(task, back(lines), _REASONS.get(ended, ended))
    return [slip._replace(place=slip.place + 1, who=_OTHER[slip.who]) for slip in found]


def _greeted(greeting: str, agent: User, heard: Heard) -> Spoken:
    """The agent, which begins with its greeting."""
    return Spoken(greeting) if len(heard.lines) == 1 else agent(heard._replace(lines=heard.lines[2:]))


def _speak(demonstrator: Demonstrator, habits: Habits, heard: Heard) -> Spoken:
    act = demonstrator(heard.task, habits, random.Random(heard.task.id))
    new: list[Message] = []
    for line in heard.lines:
        if line.who == USER and not line.result:  # its own, which it says again
            act(new)
            new = []
        else:
            new.append(Message("tool" if line.result else "user", line.text))
    action = act(new)
    return Spoken(action.answer, action.calls)


def _show(user: User, task: Task, habits: Habits, rng: random.Random) -> Act:
    lines: list[Line] = []

    def act(messages: Sequence[Message]) -> Action:
        for one in messages:
            result = one.role == "tool"
            ok = not (result and one.content.startswith("Error"))
            lines.append(Line(USER if result else AGENT, one.content, result=result, ok=ok))
        spoken = user(Heard(task, tuple(lines)))
        lines.append(Line(USER, spoken.text, spoken.calls))
        return Action(spoken.calls, "" if spoken.calls else spoken.text)

    return act
