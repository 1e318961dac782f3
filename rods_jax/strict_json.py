"""Reads and writes JSON strictly: every parser, printer and tokenizer can handle what is accepted here.

Refused beyond the standard's grammar: NaN and infinities (also as 1e999), a key that stands twice in one object, half
a surrogate pair, very long integers, very deep nestings, a byte order mark.

A number that is not finite is written as null, so that any reader accepts it.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from rods_jax.types import SCALARS, Json

MAX_NESTING = 64  # of one value; what Python's own parsers and printers bear differs from version to version
MAX_RECORD_NESTING = MAX_NESTING + 16  # of a file's record: such a value, and the record around it
MAX_INTEGER_DIGITS = 400  # more than a float can hold; the interpreter's own limit can be lifted by any library

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]|[^\s\[\]{},:"]+')
_AFTER_KEY = re.compile(r"\s*:")


class JsonError(ValueError):
    """Text that is not strict JSON; the message names the place and the reason."""


class _Refused(ValueError):
    """Raised by a hook of the decoder, which does not know the place."""


def loads(text: str | bytes, where: str = "") -> Json:
    """The value of one JSON text; bytes are UTF-8.

    where: what the text is, e.g. "tasks.jsonl, line 3"; the message of a JsonError begins with it.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            raise JsonError(_located(where, f"byte {error.start}", "not UTF-8")) from error
    try:
        if text.startswith("\ufeff"):
            raise json.JSONDecodeError("it begins with a byte order mark: save it as UTF-8 without one", text, 0)
        if not text.strip():
            raise JsonError(f"{where}: it is empty" if where else "it is empty")
        value = _DECODER.decode(text)
        # Count brackets first: it is fast, and text with few brackets cannot be deep.
        if text.count("[") + text.count("{") > MAX_RECORD_NESTING and is_deeper(value, MAX_RECORD_NESTING):
            raise _Refused
        text.encode()  # fails at half a surrogate pair
        if "\\u" in text:  # the same for one that is written as an escape
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise JsonError(_at(where, text, error.pos, f"not JSON ({error.msg})")) from error
    except (_Refused, RecursionError, UnicodeEncodeError) as error:
        raise JsonError(_at(where, text, *_find(text))) from error
    return value


def is_deeper(value: Json, levels: int) -> bool:
    """Whether lists and objects are nested deeper than `levels`; uses no recursion."""
    level: list[Any] = [value]
    for _ in range(levels + 1):
        level = [one for one in level if isinstance(one, dict | list | tuple)]
        if not level:
            return False
        level = [item for one in level for item in (one.values() if isinstance(one, dict) else one)]
    return True


def replaced(value: Json, old: str, new: str) -> Json:
    """The value with `old` replaced by `new` in all its texts and keys; numbers stay."""
    match value:
        case str():
            return value.replace(old, new)
        case list():
            return [replaced(one, old, new) for one in value]
        case dict():
            return {replaced(key, old, new): replaced(one, old, new) for key, one in value.items()}
    return value


def dumps(value: Any, **how: Any) -> str:
    """Strict JSON of plain values and arrays; a number that is not finite becomes null. how: as for `json.dumps`."""
    return json.dumps(plain(value), allow_nan=False, **how)


def plain(value: Any) -> Json:
    """Arrays and scalars of NumPy and JAX as Python's; a float32 becomes the double of the same value."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if isinstance(value, SCALARS) else plain(value.tolist())


# --------------------------------------------------------------------------------- what is refused
def _pairs(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise _Refused
    return value


def _integer(digits: str) -> int:
    if len(digits.removeprefix("-")) > MAX_INTEGER_DIGITS:
        raise _Refused
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _Refused
    return value


def _constant(name: str) -> NoReturn:
    raise _Refused


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_int=_integer, parse_float=_float, parse_constant=_constant)


# ------------------------------------------------------------------------------ where that stands
def _find(text: str) -> tuple[int, str]:
    """(position, reason) of the first thing that is refused; the text is JSON so far as the decoder read it."""
    keys: list[set[str]] = []  # of each object that is open; arrays hold none
    for token in _TOKEN.finditer(text):
        reason = _reason(token[0], keys, bool(_AFTER_KEY.match(text, token.end())))
        if reason:
            return token.start(), reason
    return 0, "it is nested too deeply for what is left of the stack"


def _reason(token: str, keys: list[set[str]], is_key: bool) -> str:
    """Why a token is refused, or nothing; opens and closes `keys`."""
    if token in ("[", "{"):
        keys.append(set())
        too_deep = len(keys) > MAX_RECORD_NESTING
        return f"values are nested more than {MAX_RECORD_NESTING} levels deep" if too_deep else ""
    if token in ("]", "}"):
        keys.pop()
        return ""
    if token.startswith('"'):
        string = json.loads(token)
        if any("\ud800" <= character <= "\udfff" for character in string):
            return "half a surrogate pair is no character"
        if is_key and string in keys[-1]:
            return f"the key {token} stands twice"
        if is_key:
            keys[-1].add(string)
        return ""
    if token in ("NaN", "Infinity", "-Infinity"):
        return f"JSON has no {token}"
    if token.lstrip("-").isdigit():
        too_long = len(token.lstrip("-")) > MAX_INTEGER_DIGITS
        return f"an integer has more than {MAX_INTEGER_DIGITS} digits" if too_long else ""
    return "a number is too large" if token[-1].isdigit() and math.isinf(float(token)) else ""


def _at(where: str, text: str, position: int, reason: str) -> str:
    line = text.count("\n", 0, position) + 1
    column = f"column {position - text.rfind(chr(10), 0, position)}"
    return _located(where, f"line {line}, {column}" if "\n" in text.strip() else column, reason)


def _located(where: str, place: str, reason: str) -> str:
    return f"{where}, {place}: {reason}" if where else f"{place}: {reason}"
