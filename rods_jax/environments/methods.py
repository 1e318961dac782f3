"""Which members of a class are its tools, and what their parameters are.

A public member that could be meant as a tool and cannot be one is an error: none is left out in silence.
Left out on purpose: properties, nested classes and data, which are state or vocabulary and no tools.
"""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rods_jax.environments import schemas
from rods_jax.environments.docstrings import read_docstring
from rods_jax.types import Json, ToolSpec

_NO_TOOLS = (type, property, functools.cached_property)
_HEAP = 1 << 9  # the flag of classes that are written in Python


class NoTool(TypeError):
    """A member of a class cannot become a tool, in one sentence that says why."""


class Method(NamedTuple):
    """A tool, and how its arguments are read."""

    spec: ToolSpec
    read: Callable[[Any, str], dict[str, Any]]  # (a call's arguments, what to call them) -> keyword arguments


def methods(cls: type) -> Iterator[Method]:
    """The tools of a class, in order of definition. NoTool names what cannot be one, and says why."""
    for base in cls.__mro__[:-1]:
        if not base.__flags__ & _HEAP:
            raise NoTool(f"{cls.__name__} is a {base.__name__}, whose contents are no attributes: keep one on self")
    if inspect.isabstract(cls):
        names = sorted(cls.__abstractmethods__)  # type: ignore[attr-defined]  # every abstract class has it
        raise NoTool(f"{cls.__name__} is abstract: define {', '.join(names)}")
    members = {name: member for base in reversed(cls.__mro__[:-1]) for name, member in vars(base).items()}
    for name, member in members.items():
        if not (name.startswith("_") or isinstance(member, _NO_TOOLS)) and _is_callable(member):
            try:
                method = _method(cls, name, member)
            except TypeError as error:
                raise NoTool(str(error)) from error
            yield method


def resolved(hint: Any, function: Callable, cls: type, where: str) -> Any:
    """A hint without strings in it, names looked up in the function's module and then in the class."""
    holder = types.SimpleNamespace(__annotations__={"hint": hint})
    names = getattr(function, "__globals__", {})
    try:
        try:
            return typing.get_type_hints(holder, names)["hint"]
        except NameError:
            return typing.get_type_hints(holder, names, dict(vars(cls)))["hint"]
    except Exception as error:
        remedy = ": define it at the top of the module, outside TYPE_CHECKING" if isinstance(error, NameError) else ""
        raise TypeError(f"{where} has a type hint that cannot be resolved: {error}{remedy}") from error


def _is_callable(member: Any) -> bool:
    wrappers = staticmethod, classmethod, functools.partialmethod, functools.singledispatchmethod
    return callable(member) or isinstance(member, wrappers)


def _method(cls: type, name: str, member: Any) -> Method:
    where = f"{cls.__name__}.{name}"
    is_static = isinstance(member, staticmethod)
    if isinstance(member, staticmethod | classmethod):
        member = member.__func__
    function = inspect.unwrap(member)
    if not inspect.isfunction(function):
        raise TypeError(f"{where} is a {type(member).__name__}: write a method that calls it, or begin its name with _")
    # A plain function around a coroutine may run it; a cache around one does not.
    outer = member if inspect.isfunction(member) else function
    if inspect.iscoroutinefunction(outer) or inspect.isgeneratorfunction(outer) or inspect.isasyncgenfunction(outer):
        raise TypeError(f"{where} is a coroutine or a generator, which nothing runs: write a method that returns")
    if not member.__doc__:
        raise TypeError(f"{where} has no docstring")
    try:
        description, descriptions = read_docstring(inspect.cleandoc(member.__doc__))
    except ValueError as error:
        raise TypeError(f"{where}: its docstring cannot be read: {error}") from error
    try:
        signature = inspect.signature(member)
    except Exception as error:
        raise TypeError(f"{where} has a signature that cannot be read: {error}") from error
    parameters = list(signature.parameters.values())
    if not (is_static or parameters):
        raise TypeError(f"{where} takes no self: add it, or make it a @staticmethod")

    def kind_of(hint: Any, place: str) -> schemas.Kind:
        return schemas.kind_of(resolved(hint, function, cls, place), place)

    arguments = _arguments(parameters[not is_static :], kind_of, where, descriptions)
    result = signature.return_annotation
    response = {} if result is signature.empty else kind_of(result, f"{where}: its result").schema
    return Method(ToolSpec(name, description, arguments.schema, cls.__name__, response), arguments.read)


def _arguments(
    parameters: Sequence[inspect.Parameter],
    kind_of: Callable[[Any, str], schemas.Kind],
    where: str,
    descriptions: Mapping[str, str],
) -> schemas.Kind:
    """The object that a call's arguments make."""
    kinds, required = {}, []
    for parameter in parameters:
        name, place = parameter.name, f"{where}: parameter {parameter.name!r}"
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"{place} cannot be passed by name")
        if parameter.annotation is parameter.empty:
            raise TypeError(f"{place} has no type hint")
        kind = kind_of(parameter.annotation, place)
        shown: dict[str, Json] = {}
        if parameter.default is parameter.empty:
            required.append(name)
        else:
            kind, shown = _with_default(kind, parameter.default, place)
        described = {"description": descriptions[name]} if name in descriptions else {}
        kinds[name] = kind._replace(schema=kind.schema | described | shown)
    return schemas.record(kinds, required)


def _with_default(kind: schemas.Kind, default: Any, where: str) -> tuple[schemas.Kind, dict[str, Any]]:
    """The kind that takes its own default, and the default as the schema shows it; nothing where JSON lacks it."""
    try:
        shown = schemas.as_json(default)
    except (TypeError, ValueError, RecursionError):
        return kind, {}
    if shown is None and not _reads(kind, None):  # `x: int = None`
        kind = schemas.or_null(kind)
    if not _reads(kind, shown):
        raise TypeError(f"{where} has the default {default!r}, which its type hint does not allow")
    return kind, {"default": shown}


def _reads(kind: schemas.Kind, value: Any) -> bool:
    try:
        kind.read(value, "default")
    except Exception:  # a dataclass may raise anything
        return False
    return True
