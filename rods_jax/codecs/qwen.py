"""Qwen's tool-call format (Qwen2.5, Qwen3).

    <tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>

An assistant message is either one or more such blocks and nothing else, or a plain answer.  A
leading <think>...</think> block is allowed in both.

Left out on purpose: calls beside an answer, which the family's template allows.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from rods_jax.codecs.documents import tool_line
from rods_jax.codecs.json_calls import DECODER, to_call, write_call
from rods_jax.codecs.template import read_bounded, template_codec
from rods_jax.types import Action, Call, Codec, ToolSpec

_BLOCK = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_THINK = re.compile(r"\s*<think>.*?</think>", re.DOTALL)


def qwen_codec(tokenizer: Any, document: Callable[[ToolSpec], str] = tool_line) -> Codec:
    """The codec of a tokenizer whose template follows Qwen's; document: see `template_codec`."""
    return template_codec(tokenizer, document=document, write=write, parse=parse)


def write(calls: Sequence[Call]) -> str:
    """One block for each call."""
    return "\n".join(f"<tool_call>\n{write_call(call, 'arguments')}\n</tool_call>" for call in calls)


def parse(text: str) -> Action:
    """Reads calls or an answer; whatever is neither becomes an Action with an error, never an exception."""
    return read_bounded(_read, text)


def _read(text: str) -> Action:
    think = _THINK.match(text)
    text = text[think.end() :] if think else text
    blocks = _BLOCK.findall(text)
    outside = _BLOCK.sub("", text).strip()
    if any(tag in outside for tag in ("<tool_call>", "</tool_call>", "<think>", "</think>")):
        return Action(error="a tag is not closed or not opened")
    if not blocks:
        return Action(answer=outside) if outside else Action(error="the message is empty")
    if outside:
        return Action(error="a message with tool calls must hold nothing else")
    return Action(calls=tuple(to_call(DECODER.decode(block), "arguments") for block in blocks))
