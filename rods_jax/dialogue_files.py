"""Recorded dialogues for a supervised warm start: chat messages, a dialogue a line, as `rods convert --to chat` writes them.

    ColdStartConfig(dialogues=partial(recorded, path="dialogues.jsonl", last_turn_only=True), ...)

chat_rows.py says what a line holds.  A line may also be the beginning of a dialogue up to one of the agent's messages: then all
lines of a dialogue hold its first message, and `last_turn_only` teaches each message once.

Left out on purpose: what an agent says beside its calls, and what it thinks, which are no part of a message here.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from rods_jax import chat_rows, strict_json
from rods_jax.chat_rows import FAILED, KEPT, fates_of
from rods_jax.codecs.grammar import served_call
from rods_jax.config import ConfigError
from rods_jax.environments.protocol import TaskSplits
from rods_jax.files import require_object, shown
from rods_jax.strict_json import JsonError
from rods_jax.types import Action, Json, Message, ToolSpec

ROLES = "system", "user", "assistant", "tool"
SET_ASIDE, UNREADABLE, UNLEARNED = "of validation tasks", "unreadable", "without a message that is learned"


class Dialogue(NamedTuple):
    """What an agent read and said, up to its last message."""

    tools: tuple[ToolSpec, ...]
    opening: Mapping[str, str]  # what comes before its first message: "system", a greeting as "assistant", "user"
    rest: tuple[Action | Message, ...]  # an Action is the agent's message; the last one is
    learned: tuple[bool, ...]  # of each Action, whether it carries loss
    passed: bool


class Recorded(NamedTuple):
    """Dialogues of a file, and how many are left out for which reason."""

    dialogues: tuple[Dialogue, ...]
    left_out: Mapping[str, int]
    sha256: str  # of the file


def recorded(
    tasks: TaskSplits, *, path: str | Path, success_only: bool = True, last_turn_only: bool = False
) -> Recorded:
    """Reads a file of dialogues; a `ColdStartConfig.dialogues` once its keywords are bound.

    success_only: without those that failed; those whose labels disagree, or that have none, are always left out,
    and so are those of which no message is learned.
    last_turn_only: the loss is on the last message of each line alone (with `observed_weight=0`).
    Those of validation tasks are left out.  ConfigError: the file cannot be read, nothing is left, or a dialogue is of a
    held-out task.  JsonError: a line is no dialogue; the message names file and line.
    """
    held_out, validation = ({task.id for task in part} for part in (tasks.held_out, tasks.validation))
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"cold_start.dialogues: {path} cannot be read: {error}") from error
    lines = [
        (where := f"{path}, line {number}", _labelled(strict_json.loads(text, where), where))
        for number, text in enumerate(content.split(b"\n"), start=1)
        if text.strip()
    ]
    found, left_out = list[Dialogue](), Counter[str]()
    for (where, line), fate in zip(lines, fates_of([line for _, line in lines])):
        if line.get("task_id") in held_out:
            raise ConfigError(f"{where}: the dialogue is of the held-out task {line['task_id']}: train on others")
        if line.get("task_id") in validation:
            left_out[SET_ASIDE] += 1
        elif fate not in ((KEPT,) if success_only else (KEPT, FAILED)):
            left_out[fate] += 1
        elif (dialogue := _dialogue(line, where, fate == KEPT, last_turn_only)) is None:
            left_out[UNREADABLE] += 1
        elif not any(dialogue.learned):
            left_out[UNLEARNED] += 1
        else:
            found.append(dialogue)
    if not found:
        raise ConfigError(
            f"cold_start.dialogues: {path} has no dialogue to learn from: {told(left_out) or 'it is empty'}"
        )
    return Recorded(tuple(found), dict(left_out), hashlib.sha256(content).hexdigest())


def told(left_out: Mapping[str, int]) -> str:
    """The reasons with their numbers, for people."""
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items())


# ----------------------------------------------------------------------------------------- one line
def _labelled(line: Json, where: str) -> Mapping[str, Json]:
    line = require_object(line, where, messages=list)
    for name in ("task_id", "rollout"):
        if isinstance(line.get(name), list | dict):
            raise JsonError(f"{where}: {name} must be a name or a number: got {shown(line[name])}")
    kinds: dict[str, type] = {"passed": list, "reward": float, "correct": bool, "tools": list}
    return require_object(line, where, **{name: kind for name, kind in kinds.items() if line.get(name) is not None})


def _dialogue(line: Mapping[str, Json], where: str, passed: bool, last_turn_only: bool) -> Dialogue | None:
    """None: a call of the agent cannot be read.  JsonError: messages or tools are not OpenAI's."""
    tools = tuple(_tool(one, where) for one in line.get("tools") or ())
    line = {**line, "messages": [require_object(one, where, role=str) for one in line["messages"]]}
    opening: dict[str, str] = {}
    rest: list[Action | Message] = []
    learned: list[bool] = []
    for one in (chat_rows.last_turn_only(line) if last_turn_only else line)["messages"]:
        role, text = one["role"], one.get("content") or ""
        if role not in ROLES or not isinstance(text, str):
            raise JsonError(f"{where}: a message has a role of {', '.join(ROLES)} and text: got {shown(one)}")
        if "user" not in opening:
            if role == "tool" or role in opening or one.get("tool_calls"):
                raise JsonError(
                    f"{where}: before the first words of the user stand a system message and a greeting alone"
                )
            opening[role] = text
        elif role == "assistant":
            try:
                rest.append(_action(one, text))
            except (ValueError, TypeError, KeyError):
                return None
            learned.append(one.get("weight", 1) != 0)
        elif role == "system":
            raise JsonError(f"{where}: a system message stands after the user's first words")
        else:
            rest.append(Message(role, text))
    if any(isinstance(a, Action) and isinstance(b, Action) for a, b in pairwise(rest)):
        raise JsonError(f"{where}: two messages of the agent follow each other")
    while rest and isinstance(rest[-1], Message):  # what nobody answers teaches nothing
        rest.pop()
    if not rest:
        raise JsonError(f"{where}: no message of the agent follows the user's first words")
    return Dialogue(tools, opening, tuple(rest), tuple(learned), passed)


def _action(message: Mapping[str, Json], text: str) -> Action:
    functions = [one["function"] for one in message.get("tool_calls") or ()]
    calls = tuple(served_call(one["name"], one.get("arguments")) for one in functions)
    if not calls and not text.strip():
        raise ValueError("the message is empty")
    return Action(calls) if calls else Action(answer=text)


def _tool(tool: Json, where: str) -> ToolSpec:
    function = require_object(require_object(tool, where, function=dict)["function"], where, name=str)
    kinds: dict[str, type] = {"description": str, "parameters": dict, "response": dict}
    require_object(function, where, **{name: kind for name, kind in kinds.items() if function.get(name) is not None})
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    return ToolSpec(function["name"], function.get("description") or "", parameters, "", function.get("response") or {})
