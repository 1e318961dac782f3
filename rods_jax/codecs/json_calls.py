"""Calls as JSON objects: what the families that write them so share.

Left out on purpose: checking names and arguments against the tools, which is the environment's.
"""

import json

from rods_jax.strict_json import MAX_INTEGER_DIGITS, MAX_NESTING
from rods_jax.types import Call, Json


def write_call(call: Call, arguments_key: str) -> str:
    """One line; "<" is escaped, so that a string that holds a tag can neither open nor close anything."""
    record = json.dumps({"name": call.name, arguments_key: call.arguments}, ensure_ascii=False)
    return record.replace("<", r"\u003c")


def to_call(record: Json, arguments_key: str) -> Call:
    """A decoded object as a Call. ValueError: it has another shape, or values that JSON text cannot hold."""
    if not isinstance(record, dict) or set(record) != {"name", arguments_key}:
        raise ValueError(f"expected an object with name and {arguments_key}")
    if not isinstance(record["name"], str) or not isinstance(record[arguments_key], dict):
        raise ValueError(f"name must be a string and {arguments_key} an object")
    return checked(Call(record["name"], record[arguments_key]))


def checked(call: Call) -> Call:
    """The call itself. ValueError: it holds NaN, an infinity, a lone surrogate, or values nested too deeply."""
    _check_nesting(call.arguments, MAX_NESTING)
    json.dumps([call.name, call.arguments], ensure_ascii=False, allow_nan=False).encode()
    return call


def _check_nesting(value: Json, levels: int) -> None:
    if isinstance(value, dict | list):
        if levels == 0:
            raise ValueError(f"values are nested more than {MAX_NESTING} levels deep")
        for item in value.values() if isinstance(value, dict) else value:
            _check_nesting(item, levels - 1)


def _integer(digits: str) -> int:
    if len(digits.removeprefix("-")) > MAX_INTEGER_DIGITS:
        raise ValueError(f"an integer has more than {MAX_INTEGER_DIGITS} digits")
    return int(digits)


DECODER = json.JSONDecoder(parse_int=_integer)
