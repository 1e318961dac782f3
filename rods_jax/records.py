"""Records as plain JSON values and back: the annotations are the schema.

A dataclass becomes an object, a NamedTuple or another tuple a list, and a mapping stays as it is, with its keys in
order.  A type that has a form of its own, such as one with a version, is written in that form wherever it stands.
"""

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from rods_jax.files import shown
from rods_jax.types import Json

T = TypeVar("T")


class RecordError(ValueError):
    """JSON that is not the record that it should be; the message names the field."""


class Form(NamedTuple):
    """How a type is written and read that its annotations alone do not describe."""

    encode: Callable[[Any], Json]
    decode: Callable[[Json], Any]


Forms = Mapping[Any, Form]  # by type
PLAIN: Forms = {}


def encode(value: Any, forms: Forms = PLAIN) -> Json:
    """The record as plain JSON values."""
    if form := forms.get(type(value)):
        return form.encode(value)
    if dataclasses.is_dataclass(value):
        return {field.name: encode(getattr(value, field.name), forms) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [encode(item, forms) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def decode(kind: type[T], value: Json, path: str = "", forms: Forms = PLAIN) -> T:
    """Inverse of `encode`.

    RecordError names an unknown, missing or mistyped field by its path, which begins with `path`.
    """
    return _decode(kind, value, path, forms)


def _decode(kind: Any, value: Json, path: str, forms: Forms) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if form := forms.get(kind):
        return form.decode(value)
    if origin in (types.UnionType, typing.Union):  # with None: no other is written
        (other,) = (option for option in arguments if option is not type(None))
        return None if value is None else _decode(other, value, path, forms)
    if dataclasses.is_dataclass(kind):
        _require(isinstance(value, dict), path, "an object", value)
        needed = {field.name: field.default is field.default_factory is _MISSING for field in dataclasses.fields(kind)}
        return _build(kind, needed, value, path, forms)
    if hasattr(kind, "_fields"):
        _require(isinstance(value, list) and len(value) <= len(kind._fields), path, f"a {kind.__name__}'s list", value)
        needed = {name: name not in kind._field_defaults for name in kind._fields}
        return _build(kind, needed, dict(zip(kind._fields, value)), path, forms)
    if origin is tuple:  # of any length: no other is written
        _require(isinstance(value, list), path, "a list", value)
        return tuple(_decode(arguments[0], item, f"{path}[{i}]", forms) for i, item in enumerate(value))
    if origin is Mapping:
        _require(isinstance(value, dict), path, "an object", value)
        return value
    accepted, name = _SCALARS[kind]
    _require(isinstance(value, accepted) and (kind is bool or not isinstance(value, bool)), path, name, value)
    return value


def _build(kind: Any, needed: Mapping[str, bool], values: Mapping[str, Json], path: str, forms: Forms) -> Any:
    for name in values:
        if name not in needed:
            raise RecordError(f"unknown field {_join(path, name)}")
    for name in needed:
        if needed[name] and name not in values:
            raise RecordError(f"missing field {_join(path, name)}")
    hints = _type_hints(kind)
    return kind(**{name: _decode(hints[name], item, _join(path, name), forms) for name, item in values.items()})


_MISSING = dataclasses.MISSING
_SCALARS: dict[Any, tuple[Any, str]] = {
    str: (str, "a string"),
    bool: (bool, "true or false"),
    int: (int, "an integer"),
    float: ((int, float), "a number"),
}
_type_hints: Callable[[type], dict[str, Any]] = functools.cache(typing.get_type_hints)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _require(condition: bool, path: str, expected: str, value: Json) -> None:
    if not condition:
        raise RecordError(f"{f'field {path}' if path else 'it'} must be {expected}: got {shown(value)}")
