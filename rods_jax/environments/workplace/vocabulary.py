"""The closed vocabulary of free values, and what all six classes share about records and results.

Small on purpose: a policy trained from scratch in minutes must learn every word of it.
"""

from collections.abc import Sequence
from typing import Any, Literal, NotRequired, TypedDict, get_args

Day = Literal["monday", "tuesday", "wednesday", "thursday", "friday"]
Room = Literal["north", "south", "east", "west"]
Priority = Literal["low", "normal", "high"]

DAYS: tuple[Day, ...] = get_args(Day)
ROOMS: tuple[Room, ...] = get_args(Room)
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
PEOPLE = ("alice", "bob", "carol", "david", "emma", "frank", "grace", "henry", "irene", "jack", "kate", "leo")
ITEMS = ("bags", "cables", "chairs", "desks", "lamps", "pens", "phones", "screens")
WORDS = (
    "audit", "backup", "budget", "contract", "design", "delivery", "hiring", "invoice", "launch", "manual",
    "network", "payroll", "printer", "release", "report", "review", "safety", "survey", "training", "website",
)  # fmt: skip

# A long-context result carries this much of the past: several times the result itself, and few
# enough tokens that eight calls still fit a CPU-sized suffix.
_HISTORY_ENTRIES = 4

Record = dict[str, Any]


class Result(TypedDict):
    """What every tool returns besides its own keys."""

    history: NotRequired[str]  # long context only


def history(event: str, long_context: bool) -> Result:
    """The bulk that a long-context result carries: who did what, always the same."""
    if not long_context:
        return {}
    entries = (f"{PEOPLE[i * 5 % len(PEOPLE)]} {event} {WORDS[i * 7 % len(WORDS)]}" for i in range(_HISTORY_ENTRIES))
    return {"history": " ".join(entries)}


def find(records: Sequence[Record], key: str, value: Any) -> Record:
    """The newest record whose `key` is `value`; ValueError if there is none."""
    for record in reversed(records):
        if record[key] == value:
            return record
    raise ValueError(f"no {key.replace('_', ' ')} {value}")
