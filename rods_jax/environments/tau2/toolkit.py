"""A toolkit is a plain class over a database: its marked methods are tools, and all methods serve set-up and checks.

    class MockTools(Toolkit):
        @tool(READ)
        def get_users(self) -> list: ...

        def assert_number_of_tasks(self, user_id, expected_number): ...     # a helper: no one may call it in a dialogue

Classes, methods and parameters are named as the official ones, so that Python's own words for a call with wrong arguments are the
official ones as well.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

from rods_jax.environments.tau2.database import Database

READ, WRITE, GENERIC = "read", "write", "generic"

Method = TypeVar("Method", bound=Callable[..., Any])


class Mark(NamedTuple):
    """What a method that is a tool does."""

    kind: str  # READ, WRITE or GENERIC
    mutates: bool  # replays call it again


class Toolkit:
    """Tools of one side over one database."""

    _marks: ClassVar[dict[str, Mark]] = {}  # of the tools
    mended = False  # whether they are without their official faults

    def __init_subclass__(cls) -> None:
        members = {name: member for base in reversed(cls.__mro__) for name, member in vars(base).items()}
        cls._marks = {name: member.tau2_mark for name, member in members.items() if hasattr(member, "tau2_mark")}

    def __init__(self, db: Database):
        self.db = db


def marks(cls: type[Toolkit]) -> Mapping[str, Mark]:
    """The tools of a class, in the order of its text."""
    return cls._marks


def tool(kind: str) -> Callable[[Method], Method]:
    """Marks a method as a tool."""

    def mark(method: Method) -> Method:
        method.tau2_mark = Mark(kind, kind == WRITE)  # type: ignore[attr-defined]
        return method

    return mark
