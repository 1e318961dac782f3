"""What a type hint means to a model: the JSON schema that it reads, and the object that its JSON becomes.

    str int float bool None Any Literal Enum Optional Union     list dict tuple set and their abstract classes
    TypedDict dataclass NamedTuple pydantic models              NewType and other names for any of these

Every other hint is a TypeError, and so is one that refers to itself: its schema would have no end.

Left out on purpose: dates, paths and other types that JSON has only as text; a tool takes the text.
"""

import collections.abc
import contextlib
import dataclasses
import enum
import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from rods_jax.types import SCALARS, Json

_SCALARS = {type(None): "null", bool: "boolean", int: "integer", float: "number", str: "string"}
_ARRAYS: Mapping[Any, Callable] = {  # hint -> what is made of the items
    list: list,
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    collections.abc.Collection: list,
    collections.abc.Iterable: list,
    tuple: tuple,
    set: set,
    collections.abc.MutableSet: set,
    frozenset: frozenset,
    collections.abc.Set: frozenset,
}
_OBJECTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


class Kind(NamedTuple):
    """What a hint stands for."""

    schema: dict[str, Json]
    read: Callable[[Json, str], Any]  # (value, name of the argument) -> a fresh object; ValueError, in few words
    plain: bool = True  # that object is the JSON value itself, and no Enum member, dataclass, tuple, ...


def kind_of(hint: Any, where: str) -> Kind:
    """The kind of a resolved hint. TypeError, which begins with `where`: it has no JSON schema."""
    try:
        return _kind(hint, where)
    except RecursionError:
        raise TypeError(f"{where}: the type hint {_name(hint)} refers to itself: use dict or list inside") from None


def record(fields: Mapping[str, Kind], required: Sequence[str], make: Callable = dict) -> Kind:
    """An object with these fields and no others; `make` gets them by name."""
    properties = {name: kind.schema for name, kind in fields.items()}
    schema = {"type": "object", "properties": properties, "required": list(required)}
    reads = {name: kind.read for name, kind in fields.items()}
    plain = make is dict and all(kind.plain for kind in fields.values())
    return Kind(schema, partial(_record, make, reads, tuple(required)), plain)


def or_null(kind: Kind) -> Kind:
    """The kind, or None."""
    return _union([kind, Kind({"type": "null"}, partial(_scalar, "null"))])


def plain(value: Any) -> Json:
    """What `json.dumps` makes of an object that JSON lacks (its `default`)."""
    if isinstance(value, enum.Enum):
        return _choices(type(value))[value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)  # its own order differs from process to process
    if hasattr(value, "tolist"):  # numpy's arrays and numbers
        return value.tolist()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def as_json(value: Any) -> Json:
    """A value as JSON reads back. ValueError or TypeError: JSON cannot hold it."""
    return json.loads(json.dumps(value, default=plain, allow_nan=False))


def foreign(schema: Json) -> dict[str, Json]:
    """Somebody else's schema, as ours are: true is {}, what is null is left out, and a list of items is `prefixItems`."""
    if not isinstance(schema, Mapping):
        return {"not": {}} if schema is False else {}
    told = {key: value for key, value in schema.items() if value is not None or key in ("const", "default")}
    if isinstance(told.get("items"), list):
        told["prefixItems"] = told.pop("items")
    return _each(told, foreign)


def copy_json(value: Json) -> Json:
    """A deep copy of a JSON value, several times faster than `copy.deepcopy`; every simulator's start needs it."""
    if isinstance(value, SCALARS):  # first, because most values are, and the check for a Mapping is slow
        return value
    if isinstance(value, Mapping):
        return {key: copy_json(item) for key, item in value.items()}
    return [copy_json(item) for item in value] if isinstance(value, (list, tuple)) else value


def _anything(value: Json, name: str) -> Json:
    return copy_json(value)


_ANY = Kind({}, _anything)


# ---------------------------------------------------------------------------------------- kinds
def _kind(hint: Any, where: str) -> Kind:
    """One entry for each sort of hint."""
    again = partial(_kind, where=where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    base = origin or hint
    if not isinstance(base, collections.abc.Hashable):
        _refused(hint, where)
    if hint is Any or hint is object:
        return _ANY
    if hint is None or isinstance(hint, type) and hint in _SCALARS:
        kind = _SCALARS[hint or type(None)]
        return Kind({"type": kind}, partial(_scalar, kind))
    if isinstance(hint, typing.NewType):
        return again(hint.__supertype__)
    if type(hint).__name__ == "TypeAliasType":  # `type Id = int`, from Python 3.12 on
        return again(hint.__value__)
    if origin in (typing.Annotated, typing.Required, typing.NotRequired):
        return again(arguments[0])
    if origin is typing.Literal:
        values = [plain(value) if isinstance(value, enum.Enum) else value for value in arguments]
        return _choice(list(zip(values, arguments, strict=True)), hint, where)
    if origin in (typing.Union, types.UnionType):
        return _union(list(map(again, arguments)))
    if base in _ARRAYS:
        return _array(_ARRAYS[base], list(map(again, [one for one in arguments if one is not ...])), base, arguments)
    if base in _OBJECTS:
        return _object(*map(again, arguments)) or _refused(hint, where)
    if isinstance(hint, type):
        if issubclass(hint, enum.Enum):
            return _choice([(value, member) for member, value in _choices(hint).items()], hint, where)
        if hasattr(hint, "model_json_schema"):
            return _model(hint, where)
        if issubclass(hint, dict) and hasattr(hint, "__required_keys__"):
            return _typed_dict(hint, where)
        if issubclass(hint, tuple) and hasattr(hint, "_fields"):
            return _named_tuple(hint, where)
        if dataclasses.is_dataclass(hint):
            return _dataclass(hint, where)
    return _refused(hint, where)


def _refused(hint: Any, where: str) -> typing.NoReturn:
    raise TypeError(
        f"{where}: the type hint {_name(hint)} has no JSON schema: use str, int, float, bool, list[...], "
        "dict[str, ...], Literal, an Enum, a TypedDict or a dataclass"
    )


def resolved(owner: type, where: str) -> dict[str, Any]:
    """The type hints of a class, qualifiers included. TypeError: one of them cannot be resolved."""
    try:
        return typing.get_type_hints(owner, include_extras=True)
    except RecursionError:
        raise
    except Exception as error:
        raise TypeError(f"{where}: the type hints of {_name(owner)} cannot be resolved: {error}") from error


def _choice(choices: list[tuple[Json, Any]], hint: Any, where: str) -> Kind:
    """One of some (JSON, object)."""
    values = [value for value, _ in choices]
    if not values or not all(type(value) in _SCALARS for value in values):
        _refused(hint, where)
    kinds = sorted({_SCALARS[type(value)] for value in values})
    schema = {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": values}
    return Kind(schema, partial(_chosen, choices), all(value is member for value, member in choices))


def _choices(cls: type[enum.Enum]) -> dict[enum.Enum, Json]:
    """Each member's JSON: its value where JSON has such values, or else its name."""
    scalar = all(type(member.value) in _SCALARS for member in cls)
    return {member: member.value if scalar else member.name for member in cls}


def _union(options: list[Kind]) -> Kind:
    # 1.0 is an integer as well, and 1 a number: where both may stand, each stays what it is.
    later = {kind: sorted(options, key=lambda one: one.schema.get("type") == kind) for kind in ("integer", "number")}
    reads = {kind: [one.read for one in some] for kind, some in later.items()}
    return Kind({"anyOf": [one.schema for one in options]}, partial(_first_fit, reads), all(o.plain for o in options))


def _array(make: Callable, items: list[Kind], base: Any, arguments: tuple) -> Kind:
    if base is tuple and items and arguments[-1] is not ...:
        return _fixed(tuple, items)
    item = items[0] if items else _ANY
    schema: dict[str, Json] = {"type": "array"} | ({"items": item.schema} if items else {})
    schema |= {"uniqueItems": True} if make in (set, frozenset) else {}
    return Kind(schema, partial(_list, make, item.read), make is list and item.plain)


def _object(key: Kind | None = None, item: Kind = _ANY) -> Kind | None:
    """An object with any keys, or with those of a Literal or an Enum; None where the keys are no strings."""
    if key is None:
        return Kind({"type": "object"}, partial(_mapping, None, item.read))
    if key.schema.get("type") != "string":
        return None
    names = {"propertyNames": {"enum": key.schema["enum"]}} if "enum" in key.schema else {}
    schema = {"type": "object", "additionalProperties": item.schema} | names
    return Kind(schema, partial(_mapping, key.read, item.read), key.plain and item.plain)


def _fixed(make: Callable, items: list[Kind]) -> Kind:
    """An array with one kind for each place."""
    same = all(item.schema == items[0].schema for item in items)
    schema: dict[str, Json] = {"type": "array"}
    schema |= {"items": items[0].schema} if same else {"prefixItems": [i.schema for i in items]}
    schema |= {"minItems": len(items), "maxItems": len(items)}
    return Kind(schema, partial(_tuple, make, [item.read for item in items]), False)


def _named_tuple(cls: Any, where: str) -> Kind:
    items = [_kind(hint, where) for hint in resolved(cls, where).values()]
    return _fixed(cls._make, items) if len(items) == len(cls._fields) else _refused(cls, where)


def _typed_dict(cls: Any, where: str) -> Kind:
    hints = resolved(cls, where)
    required = [name for name, hint in hints.items() if _is_required(hint, name in cls.__required_keys__)]
    return record({name: _kind(hint, f"{where}, field {name!r}") for name, hint in hints.items()}, required)


def _is_required(hint: Any, otherwise: bool) -> bool:
    """By its qualifier: where annotations are strings, Python's own __required_keys__ does not know of it."""
    origin = typing.get_origin(hint)
    if origin in (typing.Required, typing.NotRequired):
        return origin is typing.Required
    return _is_required(typing.get_args(hint)[0], otherwise) if origin is typing.Annotated else otherwise


def _dataclass(cls: type, where: str) -> Kind:
    hints, fields = resolved(cls, where), [field for field in dataclasses.fields(cls) if field.init]
    kinds = {field.name: _kind(hints[field.name], f"{where}, field {field.name!r}") for field in fields}
    missing = dataclasses.MISSING
    required = [field.name for field in fields if field.default is missing and field.default_factory is missing]
    if set(inspect.signature(cls).parameters) != set(kinds):
        raise TypeError(
            f"{where}: {_name(cls)} is not made of its fields alone: give it a plain dataclass's constructor"
        )
    return record(kinds, required, cls)


def _model(cls: Any, where: str) -> Kind:
    """A pydantic model, which describes itself and reads its own JSON."""
    try:
        schema = cls.model_json_schema()
    except RecursionError:
        raise
    except Exception as error:
        raise TypeError(f"{where}: {_name(cls)} cannot describe itself: {error}") from error
    return Kind(_inlined(schema, schema.get("$defs", {})), partial(_validated, cls), False)


def _inlined(schema: Json, definitions: Mapping[str, Json]) -> Json:
    """Without references, which chat templates do not resolve, and without titles, which repeat the names."""
    if not isinstance(schema, Mapping):
        return schema
    if "$ref" in schema:
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return _inlined(definitions[schema["$ref"].rsplit("/", 1)[1]] | rest, definitions)
    kept = {key: value for key, value in schema.items() if key not in ("$defs", "title")}
    return _each(kept, partial(_inlined, definitions=definitions))


def _each(schema: Mapping[str, Json], change: Callable[[Json], Json]) -> dict[str, Json]:
    """The schema, with every schema right inside it changed; additionalProperties may be a boolean, and stays it."""
    changed = dict(schema)
    for key, value in schema.items():
        if key in ("properties", "$defs") and isinstance(value, Mapping):
            changed[key] = {name: change(inner) for name, inner in value.items()}
        elif key in ("anyOf", "allOf", "oneOf", "prefixItems") and isinstance(value, list):
            changed[key] = list(map(change, value))
        elif key in ("items", "propertyNames") or key == "additionalProperties" and isinstance(value, Mapping):
            changed[key] = change(value)
    return changed


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


# -------------------------------------------------------------------------------------- reading
def _scalar(kind: str, value: Json, name: str) -> Json:
    if kind == "integer" and is_whole(value):
        return int(value)
    _require(value, kind, name)
    if kind == "number":
        with contextlib.suppress(OverflowError):  # 20 and 20.0 are one number to a model, and have two texts
            return float(value)
    return value


def is_whole(value: Json) -> bool:
    """A float such as 1.0, which JSON Schema calls an integer."""
    return isinstance(value, float) and value.is_integer()


def is_a(value: Json, kind: str) -> bool:
    """Whether a JSON value is of a JSON schema's type; a boolean is no number. 1.0 is no integer here: `is_whole`."""
    match kind:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":  # JSON has no NaN and no infinity, though Python's parser accepts both
            return is_a(value, "integer") or isinstance(value, float) and math.isfinite(value)
        case "string":
            return isinstance(value, str)
        case "array":
            return isinstance(value, list)
        case _:
            return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _require(value: Json, kind: str, name: str) -> None:
    if not is_a(value, kind):
        raise ValueError(f"{name} must be {kind}")


def _chosen(choices: list[tuple[Json, Any]], value: Json, name: str) -> Any:
    for choice, member in choices:
        alike = type(value) is type(choice) or {type(value), type(choice)} == {int, float}  # True is not 1 in JSON
        if alike and value == choice:
            return member
    raise ValueError(f"{name} must be one of {', '.join(str(choice) for choice, _ in choices)}")


def _first_fit(reads: Mapping[str, Sequence[Callable]], value: Json, name: str) -> Any:
    for read in reads["number" if type(value) is int else "integer"]:
        try:
            return read(value, name)
        except ValueError:
            pass
    raise ValueError(f"{name} has the wrong type")


def _list(make: Callable, read: Callable, value: Json, name: str) -> Any:
    _require(value, "array", name)
    items = [read(item, name) for item in value]
    return items if make is list else make(items)


def _tuple(make: Callable, reads: Sequence[Callable], value: Json, name: str) -> Any:
    _require(value, "array", name)
    if len(value) != len(reads):
        raise ValueError(f"{name} must hold {len(reads)} items")
    return make([read(item, name) for read, item in zip(reads, value, strict=True)])


def _mapping(read_key: Callable | None, read: Callable, value: Json, name: str) -> dict[Any, Any]:
    _require(value, "object", name)
    return {read_key(key, name) if read_key else key: read(item, name) for key, item in value.items()}


def _record(make: Callable, reads: Mapping[str, Callable], required: tuple[str, ...], value: Json, name: str) -> Any:
    _require(value, "object", name)
    for key in required:
        if key not in value:
            raise ValueError(f"missing argument {key}")
    fields = {}
    for key, item in value.items():
        if key not in reads:
            raise ValueError(f"unknown argument {key}")
        fields[key] = reads[key](item, key)
    return fields if make is dict else make(**fields)


def _validated(cls: Any, value: Json, name: str) -> Any:
    try:
        return cls.model_validate(value)
    except ValueError as error:  # pydantic's, which takes several lines
        errors = getattr(error, "errors", None)
        if errors is None:
            raise
        first = errors()[0]
        raise ValueError(f"{'.'.join(map(str, (name, *first['loc'])))}: {first['msg']}") from error
