"""Makes an environment out of ordinary Python classes with type hints and Google-style docstrings.

What a class must do, and all that it must do:

- its constructor's keyword arguments are its state, in JSON values, each with a default (a fresh
  copy is passed); if it accepts `long_context`, it is told whether outputs should be bulky;
- its public attributes are the state that is compared; names that start with `_` are private;
- its public methods are the tools; a method that cannot do what it was asked raises ValueError, and
  does so before it changes anything;
- it is deterministic, and keeps everything on `self`.

Left out on purpose: transformers' `get_json_schema`, which knows neither TypedDict results nor
defaults (a test compares the rest with it); rolling back what a failing tool had changed.
"""

import functools
import inspect
import json
import math
import random
import re
import string
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rods_jax.environments.protocol import Domain, Simulator
from rods_jax.types import SCALARS, Call, Json, Observation, ToolSpec

# One observation must not use up a rollout's suffix: about a thousand tokens of English.
MAX_RESPONSE_CHARACTERS = 4_000

_SCALARS = {type(None): "null", bool: "boolean", int: "integer", float: "number", str: "string"}
_SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Examples?|Notes?):\s*$", re.MULTILINE)
_ARGUMENT = re.compile(r"^(\w+)(?: *\([^)]*\))?: *(.*(?:\n +.*)*)", re.MULTILINE)


# ----------------------------------------------------------------------------------- schemas
def tool_specs(cls: type) -> tuple[ToolSpec, ...]:
    """The public methods of `cls` as tools, in order of definition.

    Raises TypeError, naming the method, for a missing or untranslatable type hint, a missing
    docstring, or a parameter that cannot be passed by name.
    """
    members = {name: member for base in reversed(cls.__mro__) for name, member in vars(base).items()}
    return tuple(
        _tool_spec(cls, method)
        for name, method in members.items()
        if inspect.isfunction(method) and not name.startswith("_")
    )


def _tool_spec(cls: type, method: Callable) -> ToolSpec:
    where = f"{cls.__name__}.{method.__name__}"
    if not method.__doc__:
        raise TypeError(f"{where} has no docstring")
    description, argument_docs = _parse_docstring(inspect.cleandoc(method.__doc__))
    hints = typing.get_type_hints(method)
    properties, required = {}, []
    for parameter in list(inspect.signature(method).parameters.values())[1:]:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"{where}: parameter {parameter.name!r} cannot be passed by name")
        if parameter.name not in hints:
            raise TypeError(f"{where}: parameter {parameter.name!r} has no type hint")
        schema = _schema(hints[parameter.name], where)
        if parameter.name in argument_docs:
            schema["description"] = argument_docs[parameter.name]
        if parameter.default is parameter.empty:
            required.append(parameter.name)
        else:
            schema["default"] = parameter.default
        properties[parameter.name] = schema
    return ToolSpec(
        name=method.__name__,
        description=description,
        parameters={"type": "object", "properties": properties, "required": required},
        class_name=cls.__name__,
        response=_schema(hints["return"], where) if "return" in hints else {},
    )


def _parse_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """Google style: (text before the first section, parameter -> description)."""
    description, *sections = _SECTION.split(doc)
    bodies = dict(zip(sections[::2], sections[1::2]))
    arguments = _ARGUMENT.findall(textwrap.dedent(bodies.get("Args", "")))
    return " ".join(description.split()), {name: " ".join(text.split()) for name, text in arguments}


def _schema(hint: Any, where: str) -> dict[str, Json]:
    """JSON schema of a type hint; TypeError if there is none."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if hint in _SCALARS:
        return {"type": _SCALARS[hint]}
    if origin is typing.Literal and all(type(value) in _SCALARS for value in arguments):
        kinds = sorted({_SCALARS[type(value)] for value in arguments})
        return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(argument, where) for argument in arguments]}
    if hint is list:
        return {"type": "array"}
    if origin is list:
        return {"type": "array", "items": _schema(arguments[0], where)}
    if hint is dict:
        return {"type": "object"}
    if origin is dict and arguments[0] is str:
        return {"type": "object", "additionalProperties": _schema(arguments[1], where)}
    if typing.is_typeddict(hint):
        fields = typing.get_type_hints(hint)
        properties = {name: _schema(field, where) for name, field in fields.items()}
        required = [name for name in fields if name in hint.__required_keys__]
        return {"type": "object", "properties": properties, "required": required}
    raise TypeError(f"{where}: type hint {hint!r} has no JSON schema")


def _check(value: Any, schema: Mapping[str, Json], name: str) -> None:
    """Raises ValueError, in few words, unless `value` fits `schema` (one that `_schema` makes)."""
    if "anyOf" in schema:
        for option in schema["anyOf"]:
            try:
                return _check(value, option, name)
            except ValueError:
                pass
        raise ValueError(f"{name} has the wrong type")
    kind = schema.get("type")
    if "enum" in schema:  # before the type: True == 1 in Python, and not in JSON
        if not any(type(value) is type(choice) and value == choice for choice in schema["enum"]):
            raise ValueError(f"{name} must be one of {', '.join(map(str, schema['enum']))}")
    elif kind and not _is_a(value, kind):
        raise ValueError(f"{name} must be {kind}")
    if kind == "array" and "items" in schema:
        for item in value:
            _check(item, schema["items"], name)
    if kind == "object":
        for key in schema.get("required", ()):
            if key not in value:
                raise ValueError(f"missing argument {key}")
        properties = schema.get("properties", {})
        for key, item in value.items():
            if key in properties:
                _check(item, properties[key], key)
            elif "additionalProperties" in schema:
                _check(item, schema["additionalProperties"], name)
            elif "properties" in schema:
                raise ValueError(f"unknown argument {key}")


def _is_a(value: Any, kind: str) -> bool:
    match kind:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":  # JSON has no NaN and no infinity, though Python's parser accepts both
            return _is_a(value, "integer") or isinstance(value, float) and math.isfinite(value)
        case "string":
            return isinstance(value, str)
        case "array":
            return isinstance(value, list)
        case _:
            return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


# --------------------------------------------------------------------------------- simulation
class _ToolkitSimulator:
    """Tool objects of one rollout, and the schemas that their arguments must fit."""

    def __init__(self, objects: Mapping[str, object], tools: Mapping[str, ToolSpec]):
        self._objects = objects
        self._tools = tools

    def call(self, call: Call) -> Observation:
        try:
            if call.name not in self._tools:
                raise ValueError(f"unknown tool {call.name}")
            tool = self._tools[call.name]
            _check(call.arguments, tool.parameters, "arguments")
            method = getattr(self._objects[tool.class_name], tool.name)
            # A tool may keep an argument in its state; the call belongs to the task.
            result = method(**copy_json(call.arguments))
            return Observation(_bounded(_text(result)))
        except Exception as error:  # whatever the model wrote is an observation, never a crash
            return Observation(_bounded(f"Error: {str(error) or type(error).__name__}"), ok=False)

    def state(self) -> Mapping[str, Mapping[str, Json]]:
        return {
            class_name: {name: value for name, value in vars(instance).items() if not name.startswith("_")}
            for class_name, instance in self._objects.items()
        }


def copy_json(value: Json) -> Json:
    """A deep copy of a JSON value, several times faster than `copy.deepcopy`, which starting a simulator lives on."""
    if isinstance(value, SCALARS):  # most values are, and asking first whether one is a Mapping is slow
        return value
    if isinstance(value, Mapping):
        return {key: copy_json(item) for key, item in value.items()}
    return [copy_json(item) for item in value] if isinstance(value, (list, tuple)) else value


def _text(result: Any) -> str:
    if isinstance(result, str):
        return result
    return json.dumps(result) if isinstance(result, dict) else str(result)


def _bounded(text: str) -> str:
    if len(text) > MAX_RESPONSE_CHARACTERS:
        text = text[: MAX_RESPONSE_CHARACTERS - 3] + "..."
    return text.encode("utf-8", "replace").decode()  # a lone surrogate would stop the tokenizer


def simulator(
    classes: Mapping[str, type],
) -> Callable[[Sequence[str], Mapping[str, Json], bool], Simulator]:
    """The `Domain.simulator` of these classes: (class names, initial state, long_context) -> Simulator.

    Raises as the classes' constructors do when the initial state does not fit them.
    """
    bulky = frozenset(name for name, cls in classes.items() if "long_context" in inspect.signature(cls).parameters)
    return functools.partial(_start, dict(classes), _tools(classes), bulky)


def _start(
    classes: Mapping[str, type],
    tools: Mapping[str, ToolSpec],
    bulky: frozenset[str],  # classes whose constructor takes long_context
    class_names: Sequence[str],
    initial_state: Mapping[str, Json],
    long_context: bool,
) -> Simulator:
    objects = {}
    for class_name in class_names:
        keywords = copy_json(initial_state.get(class_name, {}))
        if class_name in bulky:
            keywords["long_context"] = long_context
        objects[class_name] = classes[class_name](**keywords)
    return _ToolkitSimulator(objects, {n: tool for n, tool in tools.items() if tool.class_name in objects})


def _tools(classes: Mapping[str, type]) -> dict[str, ToolSpec]:
    tools: dict[str, ToolSpec] = {}
    for class_name, cls in classes.items():
        for tool in tool_specs(cls):
            if tool.name in tools:
                raise ValueError(f"{tools[tool.name].class_name} and {class_name} both define {tool.name}")
            tools[tool.name] = replace(tool, class_name=class_name)
    return tools


# ------------------------------------------------------------------------------------- domain
def domain(
    name: str,
    classes: Mapping[str, type],
    *,
    sample_state: Callable[[random.Random, Sequence[str]], Mapping[str, Json]] | None = None,
    sample_argument: Callable[[random.Random, ToolSpec, str], Json] | None = None,
    phrases: Mapping[str, Sequence[str]] = {},
    nouns: Mapping[str, str] = {},
) -> Domain:
    """A Domain of `classes`; the rest is what only their author can know (see Domain).

    Raises ValueError for a tool name that two classes share, and for a wording whose tool is
    unknown or whose fields are not the tool's required parameters and some of its optional ones.
    """
    tools = _tools(classes)
    for tool_name, wordings in phrases.items():
        if tool_name not in tools:
            raise ValueError(f"phrases for unknown tool {tool_name!r}")
        parameters = tools[tool_name].parameters
        for wording in wordings:
            fields = {field for _, field, _, _ in string.Formatter().parse(wording) if field is not None}
            if not set(parameters["required"]) <= fields <= set(parameters["properties"]):
                raise ValueError(f"{tool_name}: the fields of {wording!r} are not its parameters")
    return Domain(
        name=name,
        tools=tools,
        simulator=simulator(classes),
        sample_state=sample_state,
        sample_argument=sample_argument,
        phrases=phrases,
        nouns=nouns,
    )
