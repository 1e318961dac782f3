"""Gives each rollout its own copy of what Python keeps once for all instances of a class.

    def add(self, item: str, tags: list[str] = []): ...      # one list for all calls
    items: list[str] = []                                    # one list for all instances

While a constructor or a method of the rollout runs, the default values of the class's functions are fresh copies, and
the attributes of the class and its bases are the rollout's own.  Afterwards all are as before.  One thread at a time
does this; classes that share nothing never wait.

Left out on purpose: what modules hold, closures, and objects that cannot be copied.  A gold dialogue that is played
twice shows those (gold.py).
"""

import contextlib
import copy
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, NamedTuple

from rods_jax.environments.foreign import equal

_LOCK = threading.RLock()  # of all classes: they have bases in common, and a tool may call another

_NOTHING = object()

Attributes = dict[tuple[type, str], Any]  # by class and name


class Shared(NamedTuple):
    """What the instances of a class would have in common."""

    classes: tuple[type, ...]  # the class and its bases
    functions: tuple[FunctionType, ...]  # those with a default value that a call could change
    attributes: Attributes  # of the classes, as they were defined


def shared_by(cls: type) -> Shared:
    """Looks through a class and its bases, but for Python's own."""
    classes = tuple(base for base in cls.__mro__ if base.__module__ not in ("builtins", "abc", "typing"))
    functions = dict.fromkeys(
        function for base in classes for member in vars(base).values() for function in _functions(member)
    )
    attributes = {
        (base, name): value
        for base in classes
        for name, value in vars(base).items()
        if not (name.startswith(("__", "_abc_")) or callable(value) or hasattr(value, "__get__"))
    }
    return Shared(classes, tuple(filter(_has_mutable_default, functions)), attributes)


def copied(attributes: Attributes, memo: dict[int, Any]) -> Attributes:
    """Fresh attributes for a new rollout or a copy of one.  memo: as in `copy.deepcopy`, shared by the whole copy."""
    return {place: _copied(value, memo) for place, value in attributes.items()}


@contextlib.contextmanager
def exchanged(shared: Shared, own: Attributes) -> Iterator[None]:
    """Runs the `with` block on fresh defaults and on the attributes `own`, and stores their new values in `own`."""
    if not (shared.functions or own):
        yield
        return
    with _LOCK:
        defaults = [(function, function.__defaults__, function.__kwdefaults__) for function in shared.functions]
        known = {base: set(vars(base)) for base in shared.classes}
        theirs = {(base, name): vars(base)[name] for base, name in own if name in known[base]}
        try:
            for function, positional, by_name in defaults:
                function.__defaults__ = positional and tuple(_copied(value, {}) for value in positional)
                function.__kwdefaults__ = by_name and {name: _copied(one, {}) for name, one in by_name.items()}
            for (base, name), value in own.items():
                setattr(base, name, value)
            yield
        finally:
            # Store the classes' present attributes in `own`: added ones too, deleted ones not.
            now = {
                (base, name): value
                for base in shared.classes
                for name, value in vars(base).items()
                if (base, name) in own or name not in known[base]
            }
            own.clear()
            own.update(now)
            # Put the classes back as they were.
            for base, name in now.keys() - theirs.keys():
                delattr(base, name)
            for (base, name), value in theirs.items():
                setattr(base, name, value)
            for function, positional, by_name in defaults:
                function.__defaults__, function.__kwdefaults__ = positional, by_name


def changed(shared: Shared, own: Attributes) -> dict[str, Any]:
    """The attributes that are not what the classes define, by name as an instance sees them.

    What the classes hold now may be another rollout's.
    """
    return {
        name: own[base, name]
        for base in reversed(shared.classes)
        for owner, name in own
        if owner is base and not equal(own[base, name], shared.attributes.get((base, name), _NOTHING))
    }


def _functions(member: Any) -> Iterator[FunctionType]:
    """The Python functions behind one entry of a class, decorated ones included."""
    if isinstance(member, property):
        members: tuple[Any, ...] = (member.fget, member.fset, member.fdel)
    elif isinstance(member, staticmethod | classmethod):
        members = (member.__func__,)
    else:
        members = (member.func if isinstance(member, functools.cached_property) else member,)
    for one in members:
        while one is not None:
            if inspect.isfunction(one):
                yield one
            # What a `__getattr__` makes up is not followed: it might never end.
            wraps = callable(one) and inspect.getattr_static(one, "__wrapped__", None) is not None
            one = one.__wrapped__ if wraps else None


def _has_mutable_default(function: Callable) -> bool:
    values = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    return any(_copied(value, {}) is not value for value in values)


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """A deep copy of what can change; the value itself where it cannot, or where it resists."""
    try:
        return value if _is_constant(value) else copy.deepcopy(value, memo)
    except Exception:
        return value


def _is_constant(value: Any) -> bool:
    """Whether a value has a hash of its contents, or holds nothing: `UNSET = object()`, whose identity counts."""
    if type(value).__hash__ not in (None, object.__hash__):
        try:
            hash(value)
        except TypeError:  # a tuple that holds a list
            return False
        return True
    _, arguments, *state = value.__reduce_ex__(4)
    return arguments == (type(value),) and not any(state)  # its class alone makes it again
