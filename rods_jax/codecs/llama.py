"""Llama's JSON tool-call format (Llama 3.1, 3.2, 3.3).

    {"name": ..., "parameters": {...}}; {"name": ..., "parameters": {...}}

An assistant message is either calls and nothing else, or a plain answer.  Read as well: a leading
<|python_tag|>, calls in one JSON array or separated by nothing but space or a comma, and the
"type": "function" that some releases add.  The official reader splits at every ";" even inside a
string, and evaluates what has none; here each object is decoded as JSON.

Left out on purpose: the built-in tools, which are called as Python and end in another stop token.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from rods_jax.codecs.documents import tool_schema
from rods_jax.codecs.json_calls import DECODER, to_call, write_call
from rods_jax.codecs.template import read_bounded, template_codec
from rods_jax.types import Action, Call, Codec, Json, ToolSpec

_CALLS = re.compile(r"<\|python_tag\|>|[{\[]")
_BETWEEN = re.compile(r"(?:<\|python_tag\|>|[\s;,])*")


def llama_codec(tokenizer: Any, document: Callable[[ToolSpec], str] = tool_schema) -> Codec:
    """The codec of a tokenizer whose template follows Llama 3's; document: see `template_codec`."""
    return template_codec(tokenizer, document=document, write=write, parse=parse)


def write(calls: Sequence[Call]) -> str:
    """One object for each call, separated by semicolons."""
    return "; ".join(write_call(call, "parameters") for call in calls)


def parse(text: str) -> Action:
    """Reads calls or an answer; whatever is neither becomes an Action with an error, never an exception."""
    return read_bounded(_read, text)


def _read(text: str) -> Action:
    text = text.strip()
    if not text:
        return Action(error="the message is empty")
    if not _CALLS.match(text):
        return Action(answer=text)
    records: list[Json] = []
    position = _BETWEEN.match(text).end()
    while position < len(text):
        value, end = DECODER.raw_decode(text, position)
        records += value if isinstance(value, list) else [value]
        position = _BETWEEN.match(text, end).end()
    if not records:
        return Action(error="the message holds no call")
    return Action(calls=tuple(to_call(_without_type(record), "parameters") for record in records))


def _without_type(record: Json) -> Json:
    if isinstance(record, dict) and record.get("type") == "function":
        return {key: value for key, value in record.items() if key != "type"}
    return record
