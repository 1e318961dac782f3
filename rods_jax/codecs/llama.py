"""Llama's JSON tool-call format (Llama 3.1, 3.2, 3.3).

    {"name": ..., "parameters": {...}}; {"name": ..., "parameters": {...}}

An assistant message is either calls and nothing else, or a plain answer; `grammar` has the rules.  Three more forms are
read: words before <|python_tag|>, which marks calls; calls in one JSON array; calls separated by space or a comma.

Left out on purpose: the built-in tools, whose calls are Python code and end in another stop token.
"""

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rods_jax.codecs import grammar
from rods_jax.codecs.documents import tool_schema
from rods_jax.codecs.template import DATE, template_codec
from rods_jax.threads import parse_python
from rods_jax.types import Action, Call, Codec, Json, ToolSpec

STOPS = ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>")
_TAG = "<|python_tag|>"
_BETWEEN = re.compile(r"(?:<\|python_tag\|>|[\s;,])*")


def llama_codec(
    tokenizer: Any,
    document: Callable[[ToolSpec], str] = tool_schema,
    *,
    template: Mapping[str, Json] | None = None,
    date: str = DATE,
) -> Codec:
    """The codec of a tokenizer whose template follows Llama 3's; the arguments are `template_codec`'s."""
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
    """One object for each call, separated by semicolons."""
    return "; ".join(grammar.write_call(call, "parameters") for call in calls)


def parse(text: str) -> Action:
    """Calls, an answer, or why the text is neither; never an exception."""
    return grammar.read_message(_read, text)


def official(text: str) -> Action:
    """What the leaderboard's handler for Llama 3 reads (bfcl_eval's llama_3_1.py); nothing is evaluated here."""
    return grammar.read_official(_read_officially, text)


def _read(text: str) -> Action:
    text = text.strip(grammar.BLANK)
    position = 0 if text.startswith(("{", "[")) else text.find(_TAG)
    if position < 0 or not text:
        return grammar.answer(text)
    records: list[Json] = []
    position = grammar.skip(_BETWEEN, text, position)
    while position < len(text):
        value, end = grammar.read_json(text, position)
        records += value if isinstance(value, list) else [value]
        position = grammar.skip(_BETWEEN, text, end)
    if not records:
        raise grammar.MessageError("the message holds no call")
    return Action(tuple(grammar.to_call(record, "parameters") for record in records))


# ------------------------------------------------------------------------------ on the leaderboard
def _read_officially(text: str) -> Action:
    text = text.replace(_TAG, "")
    if ";" in text:  # even within a string, as the handler does
        records = [json.loads(part) for part in text.split(";")]
    else:
        value = ast.literal_eval(parse_python(text.strip(), "eval"))
        records = [value] if isinstance(value, dict) else value
    if not records:
        return grammar.answer(text)
    return Action(tuple(_official_call(record["name"], record["parameters"]) for record in records))


def _official_call(name: str, parameters: Json) -> Call:
    return grammar.to_call(grammar.checked({"name": name, "parameters": dict(parameters.items())}), "parameters")
