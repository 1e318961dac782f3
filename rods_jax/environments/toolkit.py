"""Makes an environment out of ordinary Python classes with type hints and docstrings.

What a class must do, and all that it must do:

- its constructor's keyword arguments are its state, in JSON values, each with a default; those that a world's options
  name, such as `long_context`, are the option's value;
- its public attributes are the state that is compared; names that start with `_` are private;
- its public methods are the tools, static, class and cached ones included; a method that cannot do what
  it was asked raises, and does so before it changes anything;
- it is deterministic, and keeps everything on `self`.

Default values and class attributes belong to one rollout (isolation.py).  Arguments become what their hints say
(schemas.py).  Descriptions come from docstrings in Google's, NumPy's or Sphinx's style.  What cannot become a tool
is a TypeError that names it, when the domain is made.

Left out on purpose: transformers' `get_json_schema`, which knows neither TypedDict results nor
defaults (a test compares the rest with it); coroutines and generators; rolling back what a failing tool had changed.
"""

import copy
import dataclasses
import enum
import functools
import inspect
import json
import random
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from rods_jax.environments import schemas
from rods_jax.environments.foreign import reason
from rods_jax.environments.isolation import Attributes, Shared, changed, copied, exchanged, shared_by
from rods_jax.environments.methods import Method, methods, resolved
from rods_jax.environments.protocol import Domain, Simulator
from rods_jax.types import Call, Json, Observation, ToolSpec, World

# One observation must not use up a rollout's suffix: about a thousand tokens of English.
MAX_RESPONSE_CHARACTERS = 4_000
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+>")


# ------------------------------------------------------------------------------------- classes
class _Class(NamedTuple):
    """What starting an instance needs to know."""

    cls: type
    shared: Shared
    reads: Mapping[str, Callable[[Json, str], Any]]  # constructor parameters that are no plain JSON values
    derived: frozenset[str]  # cached properties: no state of their own
    slots: tuple[str, ...]
    parameters: frozenset[str]  # of the constructor

    def __reduce__(self):  # functions with decorators do not travel, and a class does
        return _class, (self.cls,)


def tool_specs(cls: type) -> tuple[ToolSpec, ...]:
    """The public methods of `cls` as tools, in order of definition.

    Raises TypeError, naming the method, for a missing or untranslatable type hint, a missing
    docstring, or a parameter that cannot be passed by name.
    """
    return tuple(method.spec for method in methods(cls))


def _class(cls: type) -> _Class:
    members = {name: member for base in reversed(cls.__mro__) for name, member in vars(base).items()}
    slots = [getattr(base, "__slots__", ()) for base in reversed(cls.__mro__) if "__slots__" in vars(base)]
    return _Class(
        cls,
        shared_by(cls),
        dict(_constructor_reads(cls)),
        frozenset(name for name, member in members.items() if isinstance(member, functools.cached_property)),
        tuple(name for names in slots for name in ([names] if isinstance(names, str) else names)),
        frozenset(inspect.signature(cls).parameters),
    )


def _constructor_reads(cls: type) -> Iterator[tuple[str, Callable]]:
    """Only hints that make an object of their JSON count; a constructor's other hints are its own affair."""
    constructor = cls.__init__  # type: ignore[misc]  # cls is the class itself, no instance
    hints = getattr(constructor, "__annotations__", {})
    for name, hint in hints.items():
        try:
            kind = schemas.kind_of(resolved(hint, constructor, cls, name), name)
        except TypeError:
            continue
        if not kind.plain and name != "return":
            yield name, kind.read


# --------------------------------------------------------------------------------- simulation
class _ToolkitSimulator:
    """Tool objects of one rollout, what their classes hold in it, and the tools that it knows."""

    def __init__(
        self,
        plans: Mapping[str, _Class],
        tools: Mapping[str, Method],
        objects: Mapping[str, object],
        own: Mapping[str, Attributes],
    ):
        self._plans, self._tools, self._objects, self._own = plans, tools, objects, own

    def __deepcopy__(self, memo: dict) -> "_ToolkitSimulator":
        own = {name: copied(attributes, memo) for name, attributes in self._own.items()}
        return _ToolkitSimulator(self._plans, self._tools, copy.deepcopy(self._objects, memo), own)

    def call(self, call: Call) -> Observation:
        try:
            if call.name not in self._tools:
                raise ValueError(f"unknown tool {call.name}")
            spec, read = self._tools[call.name]
            arguments = read(call.arguments, "arguments")  # fresh: a tool may keep one, and the call is the task's
            name = spec.class_name
            with exchanged(self._plans[name].shared, self._own[name]):
                return Observation(_bounded(_text(getattr(self._objects[name], spec.name)(**arguments))))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever the model wrote is an observation: never a crash, never an exit
            return Observation(_bounded(f"Error: {reason(error)}"), ok=False)

    def state(self) -> Mapping[str, Mapping[str, Json]]:
        return {name: _state(self._plans[name], instance, self._own[name]) for name, instance in self._objects.items()}


def _state(plan: _Class, instance: object, own: Attributes) -> dict[str, Json]:
    """The public attributes of an instance, and those of its class that are no longer what the class defines."""
    slots = {name: getattr(instance, name) for name in plan.slots if hasattr(instance, name)}
    attributes = changed(plan.shared, own) | slots | getattr(instance, "__dict__", {})
    return {n: value for n, value in attributes.items() if not n.startswith("_") and n not in plan.derived}


def _text(result: Any) -> str:
    """Text as it is, what JSON calls an object as JSON, anything else as str(x).

    TypeError: a result that nothing has run yet, or whose text would be an address in memory.
    """
    if isinstance(result, str):
        return str.__str__(result)
    if isinstance(result, enum.Enum):
        return _text(schemas.plain(result))
    if inspect.isawaitable(result) or inspect.isasyncgen(result) or hasattr(result, "__next__"):
        if hasattr(result, "close"):
            result.close()  # or Python warns that it was never awaited
        raise TypeError(f"the tool returned a {type(result).__name__}, which nothing runs")
    if isinstance(result, Mapping) or dataclasses.is_dataclass(result) or hasattr(result, "model_dump"):
        return json.dumps(result, ensure_ascii=False, default=schemas.plain)
    text = str(_ordered(result))
    if _ADDRESS.search(text):  # it would differ from process to process
        raise TypeError(f"the tool returned a {type(result).__name__}, which has no text of its own")
    return text


def _ordered(result: Any) -> Any:
    """The result with its sets, and those in its lists and tuples, as sorted lists: it reads alike in every process."""
    if isinstance(result, set | frozenset):
        return schemas.plain(result)
    return type(result)(map(_ordered, result)) if type(result) in (list, tuple) else result


def _bounded(text: str) -> str:
    if len(text) > MAX_RESPONSE_CHARACTERS:
        text = text[: MAX_RESPONSE_CHARACTERS - 3] + "..."
    return text.encode("utf-8", "replace").decode()  # a lone surrogate would stop the tokenizer


def simulator(classes: Mapping[str, type]) -> Callable[[World], Simulator]:
    """The `Domain.simulator` of these classes.  It raises as their constructors do when the state does not fit them."""
    return functools.partial(_start, {name: _class(cls) for name, cls in classes.items()}, _tools(classes))


def _start(plans: Mapping[str, _Class], tools: Mapping[str, Method], world: World) -> Simulator:
    objects, own = {}, {}
    memo: dict[int, Any] = {}  # one for all: what classes have from a base in common, they have in common here
    for name in (*world.classes, *world.state):
        if name not in plans:
            raise ValueError(f"the domain has no class {name}: its classes are {', '.join(plans)}")
    for name in world.classes:
        plan = plans[name]
        given = world.state.get(name, {})
        keywords = {n: plan.reads[n](v, n) if n in plan.reads else schemas.copy_json(v) for n, v in given.items()}
        options = {option: value for option, value in world.options.items() if option in plan.parameters}
        keywords |= schemas.copy_json(options)
        own[name] = copied(plan.shared.attributes, memo)
        with exchanged(plan.shared, own[name]):
            objects[name] = plan.cls(**keywords)
    offered = {n: tool for n, tool in tools.items() if tool.spec.class_name in objects}
    return _ToolkitSimulator(plans, offered, objects, own)


def _tools(classes: Mapping[str, type]) -> dict[str, Method]:
    tools: dict[str, Method] = {}
    for class_name, cls in classes.items():
        for method in methods(cls):
            name = method.spec.name
            if name in tools:
                raise ValueError(f"{tools[name].spec.class_name} and {class_name} both define {name}")
            tools[name] = method._replace(spec=replace(method.spec, class_name=class_name))
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
    unknown or whose fields are not the tool's required parameters and some of its optional ones;
    TypeError where `classes` does not map their names to classes.
    """
    if not (isinstance(classes, Mapping) and all(isinstance(cls, type) for cls in classes.values())):
        raise TypeError(f'classes must map names to classes, as {{"Shop": Shop}} does: got {classes!r}')
    tools = {name: method.spec for name, method in _tools(classes).items()}
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
