"""Qwen's tool-call format (Qwen2.5, Qwen3, QwQ).

    <tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>

An assistant message is one or more such blocks, with or without words beside them, or a plain answer;
`grammar` has the rules.

Left out on purpose: the XML calls of Qwen3-Coder and Qwen3.5, which are another family.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rods_jax.codecs import grammar
from rods_jax.codecs.documents import tool_line
from rods_jax.codecs.template import DATE, template_codec
from rods_jax.types import Action, Call, Codec, Json, ToolSpec

STOPS = ("<|im_end|>", "<|endoftext|>")
_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_BLANK = re.compile(r"\s*")
_END_OF_BLOCK = re.compile(r"\s*</tool_call>")
_OFFICIAL_BLOCK = re.compile(r"<tool_call>\n(.*?)\n</tool_call>", re.DOTALL)


def qwen_codec(
    tokenizer: Any,
    document: Callable[[ToolSpec], str] = tool_line,
    *,
    template: Mapping[str, Json] | None = None,
    date: str = DATE,
) -> Codec:
    """The codec of a tokenizer whose template follows Qwen's; the arguments are `template_codec`'s.

    template={"enable_thinking": False} turns the thinking of Qwen3's hybrid models off.
    """
    return template_codec(
        tokenizer,
        document=document,
        write=write,
        parse=parse,
        official=official,
        stops=STOPS,
        template=template,
        date=date,
    )


def write(calls: Sequence[Call]) -> str:
    """One block for each call."""
    return "\n".join(f"{_OPEN}\n{grammar.write_call(call, 'arguments')}\n{_CLOSE}" for call in calls)


def parse(text: str) -> Action:
    """Calls, an answer, or why the text is neither; never an exception."""
    return grammar.read_message(_read, text)


def official(text: str) -> Action:
    """What the leaderboard's handler for Qwen's function calling reads (bfcl_eval's qwen_fc.py)."""
    return grammar.read_official(_read_officially, text)


def _read(text: str) -> Action:
    calls: list[Call] = []
    errors: list[str] = []
    words: list[str] = []
    position = 0
    while (start := text.find(_OPEN, position)) >= 0:
        words.append(text[position:start])
        try:
            call, position = _block(text, start + len(_OPEN))
            calls.append(call)
        except ValueError as error:  # of this block alone
            errors.append(str(error))
            close = text.find(_CLOSE, start)
            position = len(text) if close < 0 else close + len(_CLOSE)
    outside = "".join([*words, text[position:]])
    if grammar.THOUGHT in outside:
        raise grammar.MessageError("a thought is not closed")
    if _CLOSE in outside:
        errors.append(f"a {_CLOSE} closes no call")
    if errors:
        return grammar.unreadable(errors[0], calls)
    return Action(tuple(calls)) if calls else grammar.answer(outside)


def _block(text: str, position: int) -> tuple[Call, int]:
    """(call, end) of the block whose tag ends at a position; strings in it may hold tags, as templates print them."""
    record, end = grammar.read_json(text, grammar.skip(_BLANK, text, position))
    close = _END_OF_BLOCK.match(text, end)
    if close is None:
        raise ValueError(f"{_CLOSE} must follow the object")
    return grammar.to_call(record, "arguments"), close.end()


# ------------------------------------------------------------------------------ on the leaderboard
def _read_officially(text: str) -> Action:
    records = []
    for block in _OFFICIAL_BLOCK.findall(text):
        try:
            records.append(json.loads(block))
        except ValueError:
            continue  # as the handler does
    if not records:
        return grammar.answer(text)
    return Action(tuple(_official_call(record["name"], record["arguments"]) for record in records))


def _official_call(name: str, arguments: Json) -> Call:
    arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    return grammar.to_call(grammar.checked({"name": name, "arguments": dict(arguments.items())}), "arguments")
