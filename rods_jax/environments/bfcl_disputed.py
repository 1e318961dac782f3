"""BFCL tasks whose gold answer holds a text that no policy can know, so that their score says nothing of it.

A gold text is disputed where three things hold: it has four words or more; nothing that the policy has read by then
contains it (user turns, tool documents, outputs of the gold calls); and the official verdict fails once the text is
changed.  `find` decides this for every task, and a test compares it with the list.  One such task was reported
publicly: ShishirPatil/gorilla#1367, `multi_turn_base_4`.

Left out on purpose: gold that is arguable but can be reached, such as bookings on past dates (gorilla#1223).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from rods_jax.environments.protocol import Domain, GoldTrace
from rods_jax.environments.scoring import gold_trace, official_turn_passed, turns_passed
from rods_jax.types import Call, Task

MIN_WORDS = 4
Place = tuple[int, str, str]  # turn (from 0), tool, parameter

DISPUTED: Mapping[str, tuple[Place, ...]] = {
    "multi_turn_base_4": ((2, "post_tweet", "content"),),
    "multi_turn_base_62": ((0, "send_message", "message"),),
    "multi_turn_base_75": ((1, "post_tweet", "content"),),
    "multi_turn_base_95": ((3, "send_message", "message"),),
    "multi_turn_base_147": ((0, "post_tweet", "content"),),
    "multi_turn_base_176": ((1, "create_ticket", "description"),),
    "multi_turn_base_187": ((3, "create_ticket", "description"),),
    "multi_turn_miss_func_4": ((3, "post_tweet", "content"),),
    "multi_turn_miss_func_62": ((1, "send_message", "message"),),
    "multi_turn_miss_func_75": ((1, "post_tweet", "content"),),
    "multi_turn_miss_func_95": ((4, "send_message", "message"),),
    "multi_turn_miss_func_143": ((4, "send_message", "message"),),
    "multi_turn_miss_func_147": ((1, "post_tweet", "content"),),
    "multi_turn_miss_func_187": ((4, "create_ticket", "description"),),
    "multi_turn_miss_param_4": ((3, "post_tweet", "content"),),
    "multi_turn_miss_param_29": ((3, "echo", "content"),),
    "multi_turn_miss_param_62": ((1, "send_message", "message"),),
    "multi_turn_miss_param_75": ((1, "post_tweet", "content"),),
    "multi_turn_miss_param_95": ((4, "send_message", "message"),),
    "multi_turn_miss_param_143": ((4, "send_message", "message"),),
    "multi_turn_miss_param_147": ((1, "post_tweet", "content"),),
    "multi_turn_miss_param_180": ((6, "create_ticket", "description"),),
    "multi_turn_miss_param_187": ((4, "create_ticket", "description"),),
    "multi_turn_long_context_4": ((2, "post_tweet", "content"),),
    "multi_turn_long_context_8": ((2, "post_tweet", "content"),),
    "multi_turn_long_context_11": ((1, "post_tweet", "content"),),
    "multi_turn_long_context_18": ((2, "post_tweet", "content"),),
    "multi_turn_long_context_20": ((1, "echo", "content"),),
    "multi_turn_long_context_30": ((1, "post_tweet", "content"),),
    "multi_turn_long_context_35": ((2, "echo", "content"),),
    "multi_turn_long_context_41": ((0, "send_message", "message"),),
    "multi_turn_long_context_43": ((3, "send_message", "message"),),
    "multi_turn_long_context_62": ((0, "send_message", "message"),),
    "multi_turn_long_context_75": ((1, "post_tweet", "content"),),
    "multi_turn_long_context_95": ((3, "send_message", "message"),),
    "multi_turn_long_context_143": ((3, "send_message", "message"),),
    "multi_turn_long_context_147": ((0, "post_tweet", "content"),),
    "multi_turn_long_context_187": ((3, "create_ticket", "description"),),
}


def reason(task_id: str) -> str | None:
    """Why a task is disputed, in one sentence; None: it is not."""
    places = DISPUTED.get(task_id)
    if places is None:
        return None
    turn, tool, parameter = places[0]
    return f"turn {turn}: {tool} must send as {parameter} a text that nothing the policy reads contains"


def find(domain: Domain, tasks: Sequence[Task]) -> dict[str, tuple[Place, ...]]:
    """The disputed tasks among `tasks`, by playing their gold."""
    found = {task.id: tuple(dict.fromkeys(_unknown(domain, task, gold_trace(domain, task)))) for task in tasks}
    return {task_id: places for task_id, places in found.items() if places}


def _unknown(domain: Domain, task: Task, trace: GoldTrace) -> Iterator[Place]:
    documents = " ".join(
        _words(json.dumps(tool.parameters) + tool.description) for tool in domain.tools_of(task.world.classes)
    )
    read = documents
    for number, turn in enumerate(task.turns):
        read += " " + _words(turn.user)
        for place, call in enumerate(turn.gold):
            for parameter, text in _texts(call):
                if len(_words(text).split()) >= MIN_WORDS and _words(text) not in read:
                    if not _passes_without(domain, task, trace, number, place, parameter, text):
                        yield number, call.name, parameter
            read += " " + _words(trace[number].outputs[place].replace("\\n", " "))


def _texts(call: Call) -> Iterator[tuple[str, str]]:
    for parameter, value in call.arguments.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                yield parameter, text


def _passes_without(domain, task: Task, trace: GoldTrace, turn: int, place: int, parameter: str, text: str) -> bool:
    """Whether the gold calls still pass, by the official rule, with another text there."""
    calls = [list(one.gold) for one in task.turns]
    call = calls[turn][place]
    value = call.arguments[parameter]
    other = [f"{x}!" if x == text else x for x in value] if isinstance(value, list) else f"{text}!"
    calls[turn][place] = Call(call.name, {**call.arguments, parameter: other})
    return all(turns_passed(domain, task, calls, official_turn_passed, trace))


def _words(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()
