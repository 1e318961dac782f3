"""Asks objects of an environment for their text, their copy and their equality, which may end in any exception.

A tool, or a model through it, can make state that nests without end, objects whose `__str__` raises, or an exit of
the process out of `__eq__`.  None of that may end a run; KeyboardInterrupt alone passes.
"""

import copy
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from rods_jax.types import SCALARS, Json


def told(error: BaseException) -> str:
    """An exception in a line: its type, and its text where it has one."""
    text = " ".join(_text(error, "").split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def reason(error: BaseException) -> str:
    """What the policy reads of an exception: its text; where that says too little, its type as well."""
    return (isinstance(error, Exception) and _text(error, "")) or told(error)


def shown(value: Any) -> str:
    """`repr`, or a note that there is none."""
    try:
        return repr(value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"


def equal(a: Any, b: Any) -> bool:
    """`a == b`; what cannot be compared is not equal."""
    try:
        return bool(a == b)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return False


def kept(state: Mapping[str, Mapping[str, Json]]) -> dict[str, dict[str, Json]]:
    """A copy of a state, to compare later ones with. ValueError: it has a part that cannot be copied or compared."""
    try:  # plain JSON without NaN equals its copy, and nearly always a state is that
        json.dumps(state, allow_nan=False)
        return _twin(dict(state))
    except (TypeError, ValueError, RecursionError):
        memo: dict[int, Any] = {}
    return {
        class_name: {name: _kept(value, f"{class_name}.{name}", memo) for name, value in attributes.items()}
        for class_name, attributes in state.items()
    }


def _twin(value: Any) -> Any:
    """A deep copy, several times faster than Python's for what states mostly are."""
    kind = type(value)
    if kind is dict:
        return {key: _twin(item) for key, item in value.items()}
    if kind is list:
        return [_twin(item) for item in value]
    return value if kind in SCALARS else copy.deepcopy(value)


def _kept(value: Any, where: str, memo: dict[int, Any]) -> Any:
    try:
        twin = copy.deepcopy(value, memo)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ValueError(f"{where} cannot be copied ({told(error)}): begin its name with _") from error
    if not equal(value, twin):
        raise ValueError(f"{where} does not equal its own copy: give its objects __eq__, or begin its name with _")
    if _holds_nan(value):
        raise ValueError(f"{where} holds NaN, which equals nothing: use None")
    return twin


def _holds_nan(value: Any) -> bool:
    if isinstance(value, float):
        return value != value
    if isinstance(value, Mapping):
        return any(map(_holds_nan, value.values()))
    if dataclasses.is_dataclass(value):
        return any(_holds_nan(getattr(value, field.name)) for field in dataclasses.fields(value) if field.compare)
    return isinstance(value, list | tuple) and any(map(_holds_nan, value))


def _text(value: Any, otherwise: str) -> str:
    try:
        return str(value)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return otherwise
