"""Environment feedback: small, type-safe changes of an initial state (RODS Appendix F)."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.values import has_type
from rods_jax.types import Json, World

MAX_PATCHES = 5  # of one failure: a repair is small
MAX_VALUE_CHARACTERS = 2_000
MAX_KEYS = 12  # of a path


class Patch(NamedTuple):
    """`value` goes to `path` in the state of a class."""

    class_name: str
    path: tuple[str, ...]
    value: Json


def split_path(text: str) -> tuple[str, ...]:
    r"""The keys of a dotted path; a backslash keeps a dot within its key: `files.notes\.txt`."""
    return tuple(key.replace("\\.", ".") for key in re.split(r"(?<!\\)\.", text))


def deep_merge(base: Mapping[str, Json], change: Mapping[str, Json]) -> dict[str, Json]:
    """Mappings merge key by key, anything else is replaced; keys keep their order, new ones come last."""
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = deep_merge(merged[key], value) if both else value
    return merged


def accept_patches(domain: Domain, world: World, patches: Sequence[Patch]) -> tuple[dict[str, Json], tuple[str, ...]]:
    """(accepted patches as one change for `deep_merge` of the state, why the others were refused).

    Each is checked against the state that those before it leave behind: its class belongs to the task, its
    field exists and keeps its type, its value is small, and a simulator still starts.
    """
    accepted: dict[str, Json] = {}
    refused = []
    for number, patch in enumerate(patches):
        try:
            if number >= MAX_PATCHES:
                raise ValueError(f"more than {MAX_PATCHES} patches")
            change = _change(domain, replace(world, state=deep_merge(world.state, accepted)), patch)
        except Exception as error:  # whatever a patched simulator raises is a reason to leave the patch out
            refused.append(f"{patch.class_name}.{'.'.join(patch.path)}: {error}"[:300])
        else:
            accepted = deep_merge(accepted, change)
    return accepted, tuple(refused)


def _change(domain: Domain, world: World, patch: Patch) -> dict[str, Json]:
    """The patch as nested mappings. ValueError: why it is refused."""
    (class_name, path, value), state = patch, world.state
    if class_name not in world.classes:
        raise ValueError("no class of this task")
    if not path:
        raise ValueError("the path is empty")
    if len(path) > MAX_KEYS or len(json.dumps(value)) > MAX_VALUE_CHARACTERS:
        raise ValueError("too long")
    nested = value
    for key in reversed(path):
        nested = {key: nested}
    own = state.get(class_name, {})
    if path[0] not in own:  # left to its default, which the patch must not cut down to what it names
        defaults = domain.simulator(world).state().get(class_name, {})
        if path[0] not in defaults:
            raise ValueError("no such field")
        own = json.loads(json.dumps({path[0]: defaults[path[0]]}))
        nested = deep_merge(own, nested)
    _check(own, nested)
    change = {class_name: nested}
    if deep_merge(state, change) == state:
        raise ValueError("changes nothing")
    domain.simulator(replace(world, state=deep_merge(state, change)))
    return change


def _check(old: Json, new: Json) -> None:
    """ValueError: `new` has another type than `old`."""
    if isinstance(old, Mapping):
        if not isinstance(new, Mapping):
            raise ValueError("an object must stay an object")
        for key, value in new.items():
            if key in old:
                _check(old[key], value)
            else:
                _check_new(list(old.values()), value)
    elif isinstance(old, list):
        if not isinstance(new, list):
            raise ValueError("a list must stay a list")
        for item in new:
            _check_new(old, item)
    elif not has_type(new, {"type": _type(old)}):
        raise ValueError(f"{_type(old)} expected")


def _check_new(siblings: Sequence[Json], new: Json) -> None:
    """ValueError: a record has no such field, or `new` is like no other entry of a table or list."""
    if len(set(map(_type, siblings))) > 1:
        raise ValueError("no such field")
    failure = None
    for sibling in siblings:
        try:
            return _check(sibling, new)
        except ValueError as error:
            failure = failure or error
    if failure is not None:
        raise failure


def _type(value: Json) -> str:
    """The name of a JSON type, where integers are numbers like any other."""
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", type(None): "null"}
    return names.get(type(value), "object")
