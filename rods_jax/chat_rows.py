"""Dialogues to learn from, as rows of chat messages: which are kept, and which of their messages carry loss.

    {"messages": [...], "tools": [...], "task_id": "t", "rollout": 0, "passed": [true, true], "reward": 1.0, "user_errors": 0}

Messages and tools are OpenAI's, as endpoints and trainers take them, and so is a message's `weight`: with 0 it is context
alone.  A message of the role `assistant` is the learner's, whichever side of the dialogue it learns to be.  All other keys
may be missing.  `passed` (checks), `reward` and `correct` are verdicts on a dialogue, which task and rollout name.  Rows of
one dialogue may hold ever longer parts of it.
Source of what is left out: EigenData, arXiv 2601.22607, and the card of its released data.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from rods_jax.types import Json

Row = Mapping[str, Json]
KEPT, FAILED, CONFLICT, UNLABELLED, USER_ERRED = "kept", "failed", "conflict", "unlabelled", "user_erred"


class Chosen(NamedTuple):
    """The rows to learn from, and what became of all."""

    rows: tuple[Row, ...]
    counts: Mapping[str, int]  # by fate


def chosen(rows: Iterable[Row], *, faultless_user: bool = False) -> Chosen:
    """The rows of dialogues that succeeded.

    faultless_user: leaves out dialogues whose user erred as well, and those that nobody looked at.
    """
    rows = tuple(rows)
    fates = [
        USER_ERRED if fate == KEPT and faultless_user and row.get("user_errors") != 0 else fate
        for row, fate in zip(rows, fates_of(rows))
    ]
    return Chosen(tuple(row for row, fate in zip(rows, fates) if fate == KEPT), Counter(fates))


def fates_of(rows: Sequence[Row]) -> list[str]:
    """What the verdicts say of each row's dialogue.

    conflict: they disagree, in one row or between its rows.  unlabelled: no row of it has one.
    """
    verdicts: dict[Json, set[bool]] = {}
    for place, row in enumerate(rows):
        verdicts.setdefault(_dialogue(row, place), set()).update(_verdicts(row))
    fates = {
        name: CONFLICT if len(found) > 1 else UNLABELLED if not found else KEPT if found == {True} else FAILED
        for name, found in verdicts.items()
    }
    return [fates[_dialogue(row, place)] for place, row in enumerate(rows)]


def last_turn_only(row: Row) -> Row:
    """The row with loss on the learner's last message alone.

    For rows that hold ever longer parts of one dialogue: nothing is then learned twice.
    """
    last = max((place for place, one in enumerate(row["messages"]) if one["role"] == "assistant"), default=-1)
    messages = [
        one if place == last or one["role"] != "assistant" else {**one, "weight": 0}
        for place, one in enumerate(row["messages"])
    ]
    return {**row, "messages": messages}


def turns_of(row: Row) -> Sequence[Row]:
    """A whole dialogue as rows of ever longer parts, one for each message with loss, which is its last."""
    messages = row["messages"]
    ends = [place for place, one in enumerate(messages) if one["role"] == "assistant" and one.get("weight", 1)]
    return [last_turn_only({**row, "messages": messages[: place + 1]}) for place in ends]


def _dialogue(row: Row, place: int) -> Json:
    named = row.get("task_id") is not None  # else it is a dialogue of its own
    return (row["task_id"], row.get("rollout")) if named else place


def _verdicts(row: Row) -> Iterable[bool]:
    if row.get("passed") is not None:
        yield bool(row["passed"]) and all(row["passed"])
    if row.get("correct") is not None:
        yield bool(row["correct"])
    if row.get("reward") is not None:
        yield row["reward"] >= 1 - 1e-6  # as tau2-bench counts a success
