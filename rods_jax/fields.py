"""Checks of a dataclass's fields when it is built: types from annotations, and ranges; each error names its key."""

import dataclasses
import functools
import math
import re
import traceback
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rods_jax.files import shown
from rods_jax.types import Json


class ConfigError(ValueError):
    """An impossible configuration, in one sentence that names the key."""


def check_types(key: str, config: Any) -> None:
    """Compares every field with its annotation; raises ConfigError naming the key."""
    for name, annotation in _type_hints(type(config)).items():
        value = getattr(config, name)
        if not _matches(value, annotation):
            raise ConfigError(f"{_join(key, name)} must be {_named(annotation)}: got {shown(value)}")


_type_hints: Callable[[type], dict[str, Any]] = functools.cache(typing.get_type_hints)


def require(condition: Any, sentence: str) -> None:
    """ConfigError with this sentence unless the condition holds."""
    if not condition:
        raise ConfigError(sentence)


def positive(key: str, config: Any, *names: str) -> None:
    """These fields are above 0 and finite, or None."""
    for name in names:
        value = getattr(config, name)
        require(value is None or 0 < value < math.inf, f"{_join(key, name)} must be above 0: got {value}")


def not_negative(key: str, config: Any, *names: str) -> None:
    """These fields are at least 0 and finite."""
    for name in names:
        value = getattr(config, name)
        require(0 <= value < math.inf, f"{_join(key, name)} must not be negative: got {value}")


def increasing(key: str, sizes: Sequence[int]) -> None:
    """Sizes increase from above 0."""
    require(
        all(0 < a for a in sizes) and all(a < b for a, b in zip(sizes, sizes[1:])),
        f"{key} must increase from above 0, up to the largest size: got {tuple(sizes)}",
    )


def fraction(key: str, config: Any, *names: str) -> None:
    """These fields lie between 0 and 1, or are None."""
    for name in names:
        value = getattr(config, name)
        require(value is None or 0 <= value <= 1, f"{_join(key, name)} must be between 0 and 1: got {value}")


def line_of(path: str | Path, error: BaseException) -> str:
    """Where in a file a mistake lies that running the file has met."""
    own = Path(path).resolve()
    if isinstance(error, SyntaxError) and error.filename is not None and Path(error.filename).resolve() == own:
        return f"line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).resolve() == own]
    return f"line {frames[-1].lineno}" if frames else "line 0"


def said_of(error: BaseException) -> str:
    """The mistake in words: an unknown or a missing key of a dataclass by its name."""
    unknown = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    if unknown:
        return f"{unknown[1]} has no key {unknown[2]}"
    missing = re.search(r"(\w+)\.__init__\(\) missing \d+ required keyword-only arguments?: (.*)", str(error))
    if missing:
        return f"{missing[1]} needs the key {missing[2]}"
    return str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"


def _matches(value: Any, annotation: Any) -> bool:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(_matches(value, option) for option in arguments)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin is tuple:
        return isinstance(value, tuple) and all(_matches(item, arguments[0]) for item in value)
    if origin is dict:
        pairs = value.items() if isinstance(value, dict) else [(None, None)]
        return all(_matches(key, arguments[0]) and _matches(item, arguments[1]) for key, item in pairs)
    if origin is Callable:
        return callable(value)
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, annotation) and (annotation is bool or not isinstance(value, bool))


def _named(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_named(option) for option in arguments)
    if origin is tuple:
        return f"a tuple of {_named(arguments[0])}"
    if origin is dict:
        return f"a mapping to {_named(arguments[1])}"
    if origin is Callable:
        return "a function"
    return "None" if annotation is type(None) else annotation.__name__


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


# ------------------------------------------------------------------------------- values and differences
def plain_values(config: Any) -> Json:
    """The configuration as plain JSON values; a function becomes "module:name", and infinity, which JSON lacks, "inf"."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {item.name: plain_values(getattr(config, item.name)) for item in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(name): plain_values(value) for name, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [plain_values(value) for value in config]
    if isinstance(config, functools.partial):
        return {
            "partial": plain_values(config.func),
            "args": plain_values(config.args),
            "keywords": plain_values(config.keywords),
        }
    if callable(config):
        return f"{config.__module__}:{getattr(config, '__qualname__', type(config).__qualname__)}"
    if isinstance(config, float) and not math.isfinite(config):
        return str(config)
    return config if isinstance(config, (bool, int, float, type(None))) else str(config)


def default_of(item: dataclasses.Field) -> Any:
    """The default of a dataclass's field; dataclasses.MISSING where it has none."""
    return item.default_factory() if callable(item.default_factory) else item.default


def completed(saved: Json, config: Any) -> Json:
    """Plain values that an older version wrote, with the defaults of the keys that it did not have yet."""
    if isinstance(config, tuple) and isinstance(saved, list) and len(saved) == len(config):
        return [completed(one, own) for one, own in zip(saved, config, strict=True)]
    if not dataclasses.is_dataclass(config) or not isinstance(saved, Mapping):
        return saved
    defaults = {item.name: default_of(item) for item in dataclasses.fields(config)}
    known = {name: plain_values(value) for name, value in defaults.items() if value is not dataclasses.MISSING}
    return known | {name: completed(value, getattr(config, name, None)) for name, value in saved.items()}


def differences(a: Json, b: Json, key: str = "") -> tuple[str, ...]:
    """The dotted names of the keys in which two resolved configurations differ, in order."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        names = [*a, *(name for name in b if name not in a)]
        pairs = [(str(name), a.get(name, differences), b.get(name, differences)) for name in names]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = [(str(i), *pair) for i, pair in enumerate(zip(a, b, strict=True))]
    else:
        return () if a == b and type(a) is type(b) else (key,)
    return tuple(found for name, x, y in pairs for found in differences(x, y, f"{key}.{name}" if key else name))
