"""Who plays in an evaluation: a script, or a model behind a server.  The policy of a run plays in played.py.

A player takes (task, rollout) pairs and yields their records as they are finished.  The episode itself is in
evaluation.py, and what happens on the wire in chat.py.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence

from rods_jax import chat
from rods_jax.chat import Generate
from rods_jax.codecs.grammar import answer, read_message, unreadable
from rods_jax.dialogue import Act, Record, Said, Stop, play
from rods_jax.environments.conversation import without_thought
from rods_jax.environments.protocol import Domain, Rules
from rods_jax.threads import in_threads
from rods_jax.types import Action, Message, Task, ToolSpec

Jobs = Sequence[tuple[Task, int]]
PlayJobs = Callable[[Jobs], Iterator[Record]]


def scripted_player(domain: Domain, act_of: Callable[[Task], Act], rules: Rules) -> PlayJobs:
    """The gold player and the null player."""
    return lambda jobs: (play(domain, task, rollout, act_of(task), rules) for task, rollout in jobs)


# ----------------------------------------------------------------------------------------- server
def served(domain: Domain, generate: Generate, concurrency: int, rules: Rules) -> PlayJobs:
    """A model behind an OpenAI-compatible server: `concurrency` episodes under way at a time."""

    def play_all(jobs: Jobs) -> Iterator[Record]:
        interrupted = threading.Event()  # ends the episodes under way at their next message
        stop = Stop(failure="interrupted")

        def one(job: tuple[Task, int]) -> Record:
            task, rollout = job
            act = converse(generate)
            return play(domain, task, rollout, lambda new: stop if interrupted.is_set() else act(new), rules)

        try:
            for _, record in in_threads(one, jobs, concurrency):
                yield record
        finally:
            interrupted.set()

    return play_all


def converse(generate: Generate) -> Act:
    """One conversation: tools that are released later join the request's tools.

    docs/reference/blame.md says who is to blame for what: a message that cannot be read, or that was cut short, is the
    policy's error; a conversation that a server took so far and now finds too long is a limit of the policy; any
    other error is in no score.
    """
    conversation: list[dict] = []
    tools: list[dict] = []
    unanswered: list[str] = []  # ids of the latest calls
    num_calls = 0

    def act(messages: Sequence[Message]) -> Said | Stop:
        nonlocal num_calls
        for message in messages:
            tools.extend(map(_function, message.tools))
            if message.role == "tool" and unanswered:
                conversation.append(_result(unanswered.pop(0), message.content))
                continue
            while unanswered:  # calls that closed their turn; servers insist on a result of each
                conversation.append(_result(unanswered.pop(0), "Not run."))
            if message.role == "user":  # thoughts go back within a turn, and are forgotten after it
                conversation[:] = map(_without_reasoning, conversation)
            role = message.role if message.role in ("system", "assistant") else "user"
            conversation.append({"role": role, "content": message.content})
        (reply,) = generate([chat.Request(tuple(conversation), tuple(tools))])
        if reply.error == chat.TOO_LONG and len(conversation) > 1:
            return Stop(truncated=f"{reply.error}: {reply.detail}")
        if reply.error not in (None, *chat.BY_THE_MODEL):
            return Stop(failure=f"{reply.error}: {reply.detail}")
        unanswered.extend(f"call{num_calls + i:05d}" for i in range(len(reply.calls)))  # 9 letters: Mistral's rule
        num_calls += len(reply.calls)
        conversation.append(_assistant(reply, unanswered))
        return Said(reply.text, _action(reply), reply.completion_tokens, reply.reasoning)

    return act


def _function(tool: ToolSpec) -> dict:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _result(call_id: str, content: str) -> dict:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def _assistant(reply: chat.Reply, ids: Sequence[str]) -> dict:
    """The message as it goes back: servers refuse an empty one, and names that no tool could have."""
    calls = [
        {
            "id": call_id,
            "type": "function",
            "function": {"name": _sendable(call.name), "arguments": json.dumps(call.arguments)},
        }
        for call_id, call in zip(ids, reply.calls, strict=True)
    ]
    message = {"role": "assistant", "content": reply.text or ("" if calls else "(nothing that can be read)")}
    message |= {reply.reasoning_field: reply.reasoning} if reply.reasoning_field else {}
    return message | ({"tool_calls": calls} if calls else {})


def _sendable(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:64] or "_"


def _without_reasoning(message: dict) -> dict:
    return {name: value for name, value in message.items() if name not in chat.REASONING_FIELDS}


def _action(reply: chat.Reply) -> Action:
    """By the grammar of a run's policy, but that the server has read the calls."""
    if reply.error == chat.CUT:
        return Action(error=reply.detail)
    if reply.error is not None:
        return unreadable(reply.detail, reply.calls)
    if reply.calls:  # words beside calls are told to nobody, and scores of conversations look at them
        return Action(reply.calls, without_thought(reply.text).strip())
    return read_message(answer, reply.text)
