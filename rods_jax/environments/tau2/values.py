"""Records, and the exact text of what a tool returns."""

import json
from collections.abc import Mapping
from typing import Any

from rods_jax.types import Json


class Record(dict[str, Json]):
    """An object of known shape; as a result, its numbers stay numbers."""


def copied(value: Json) -> Json:
    """A deep copy of JSON, records included."""
    if isinstance(value, dict):
        return type(value)(
            {key: copied(inner) if isinstance(inner, dict | list) else inner for key, inner in value.items()}
        )
    if isinstance(value, list):
        return [copied(inner) if isinstance(inner, dict | list) else inner for inner in value]
    return value


def result_text(value: Json) -> str:
    """What the caller reads: a string as it is, else JSON.

    A number or boolean outside of every record becomes its Python text in quotes: {"gb": 2.0} -> {"gb": "2.0"}.
    """
    return value if isinstance(value, str) else json.dumps(_quoted(value))


def _quoted(value: Json) -> Json:
    if value is None or isinstance(value, str | Record):
        return value
    if isinstance(value, Mapping):
        return {key: _quoted(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_quoted(inner) for inner in value]
    return str(value)


def decoded(text: str | None) -> Any:
    """The JSON of a result's text where it is some, else the text: how results of two replays are compared."""
    try:
        return json.loads(text or "")
    except (ValueError, RecursionError):
        return text
