"""Users of conversations that are language models: behind a server (chat.http_generate), or a policy of ours (policy_chat.py).

The model is asked from its own side: the agent's words are the "user" messages, its own are the "assistant" messages, its calls
and their results stay its own.  Its words are trained on by nobody.
"""

import json
from collections.abc import Callable, Mapping, Sequence

from rods_jax import chat
from rods_jax.chat import Generate, Reply, Request
from rods_jax.codecs.grammar import sendable
from rods_jax.environments.conversation import USER, Heard, Line, Reason, Spoken, User, without_thought
from rods_jax.types import Json, Task, ToolSpec

TRIES = 2  # an empty or unreadable message is asked for once more


def model_user(
    generate: Generate, instructions: Callable[[Task], str], tools: Sequence[ToolSpec] = (), where: str = ""
) -> User:
    """A User that a language model speaks for.

    instructions: the system message, e.g. the scenario and how to behave in it.  tools: those that it may call.
    where: the address of its server, for what is said of its errors.
    A conversation that its server finds too long ends as CONTEXT_WINDOW, and two messages without words or calls as USER_ERROR;
    any other error of the server is a failure, which masks the episode.
    """
    functions = tuple(
        {
            "type": "function",
            "function": {"name": t.name, "description": t.description, "parameters": dict(t.parameters)},
        }
        for t in tools
    )

    def user(heard: Heard) -> Spoken:
        system = {"role": "system", "content": instructions(heard.task)}
        request = Request((system, *seen_by(heard.lines)), functions)
        for number in range(1, TRIES + 1):
            *_, reply = generate([request] * number)  # a policy's noise differs between equal ones of a call alone
            if reply.error == chat.TOO_LONG:
                return Spoken(ended=Reason.CONTEXT_WINDOW)
            if reply.error not in (None, *chat.BY_THE_MODEL):
                return Spoken(failure=": ".join(filter(None, (where, reply.error, reply.detail))))
            if spoken := _spoken(reply):
                return spoken
        return Spoken(ended=Reason.USER_ERROR)

    return user


def seen_by(lines: Sequence[Line], who: str = USER) -> tuple[Mapping[str, Json], ...]:
    """The messages of a side's own view, as the side itself is asked: it is the assistant."""
    messages: list[Mapping[str, Json]] = []
    ids: list[str] = []  # of calls without a result so far
    number = 0
    for line in lines:
        if line.result:
            messages.append({"role": "tool", "tool_call_id": ids.pop(0), "content": line.text})
            continue
        message: dict[str, Json] = {"role": "assistant" if line.who == who else "user", "content": line.text}
        if line.calls:
            ids += [f"call{number + i:05d}" for i in range(len(line.calls))]
            number += len(line.calls)
            functions = [
                {"name": sendable(one.name), "arguments": json.dumps(dict(one.arguments))} for one in line.calls
            ]
            message["tool_calls"] = [
                {"id": call_id, "type": "function", "function": function}
                for call_id, function in zip(ids[-len(line.calls) :], functions, strict=True)
            ]
        messages.append(message)
    return tuple(messages)


def _spoken(reply: Reply) -> Spoken | None:
    """Calls, else words; None: neither, or a message that was cut off or cannot be read."""
    text = without_thought(reply.text).strip()
    return Spoken(text, reply.calls) if reply.error is None and (text or reply.calls) else None
