"""The journal of an evolution: what was done is done once, in one process or in many that follow each other.

A unit of work has a key.  Its result is appended when it is there, and every answer of a language model before it is
used.  A call that was killed therefore continues where it ended: finished units are read, and a unit that was under way
is begun again with the answers that it has had.  No answered question is asked twice, and no result is written twice.
"""

import contextlib
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from rods_jax import journal
from rods_jax.chat import (
    BUDGET_EXHAUSTED,
    FILTERED,
    MISCONFIGURED,
    REFUSED,
    RETRIED,
    TOO_LONG,
    Generate,
    Reply,
    Request,
)
from rods_jax.journal import JournalError
from rods_jax.records import RecordError, decode, encode
from rods_jax.synthesis.backends import question_key, read_reply, remembered
from rods_jax.task_files import VERSIONED
from rods_jax.types import Json

T = TypeVar("T")
VERSION = 1  # of the records: count up when one changes
CHARACTERS_A_TOKEN = 4  # about
UNANSWERED = (*RETRIED, MISCONFIGURED)  # errors of a server that has not answered the question
HELD = (REFUSED, TOO_LONG, FILTERED)  # errors that somebody may mend: written when what they lead to is


class Halted(Exception):
    """Why nothing more can be done now, in a sentence; nothing is recorded, and a later call may do it."""


class Spent(NamedTuple):
    """What language models cost so far."""

    questions: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Ledger:
    """What was done so far, and the way to do more.  Safe to use from several threads."""

    def __init__(
        self,
        entries: Sequence[Mapping[str, Json]],
        append: Callable[..., None],
        backends: Mapping[str, Generate],
        max_tokens: int | None,
    ):
        self._append, self._backends, self._max_tokens = append, backends, max_tokens
        self._lock = threading.Lock()
        self._done = {entry["unit"]: entry["result"] for entry in entries if "result" in entry}
        self._replies: dict[str, list[tuple[str, Reply]]] = defaultdict(list)
        self._held: dict[str, list[Json]] = defaultdict(list)  # replies that are written with their unit's result
        self.spent: dict[str, Spent] = {}  # by role
        for entry in entries:
            if "question" in entry:
                reply = read_reply(entry["reply"])
                self._replies[entry["unit"]].append((entry["question"], reply))
                self._count(entry["role"], reply)

    def do(self, unit: str, kind: type[T], make: Callable[[Mapping[str, Generate]], T]) -> T:
        """The unit's result: the recorded one, or that of `make`, which gets the backends.

        Halted: a question was not asked; nothing is recorded.  JournalError: the recorded result is no `kind`.
        """
        if unit in self._done:
            try:
                return decode(kind, self._done[unit], "", VERSIONED)
            except (RecordError, ValueError) as error:
                raise JournalError(f"the journal's {unit} is of another version: {error}") from None
        kept, cut = remembered(self._replies[unit]), list[Halted]()
        try:
            result = make({role: partial(self._answer, unit, role, kept, cut) for role in self._backends})
        finally:
            if cut:  # a dialogue takes whatever ends it for its own failure
                raise cut[0]
        with self._lock:
            self._append(*self._held.pop(unit, ()), {"unit": unit, "result": encode(result, VERSIONED)})
        return result

    def begun(self, prefix: str) -> bool:
        """Whether an earlier call has finished a unit whose key begins so."""
        return any(unit.startswith(prefix) for unit in self._done)

    def _answer(
        self,
        unit: str,
        role: str,
        kept: Callable[[Request], Reply | None],
        cut: list[Halted],
        requests: Sequence[Request],
    ) -> list[Reply]:
        try:
            return [kept(request) or self._ask(unit, role, request) for request in requests]
        except Halted as stopped:
            cut.append(stopped)
            raise

    def _ask(self, unit: str, role: str, request: Request) -> Reply:
        """The server's reply, written before it is used, or held until the unit is done."""
        if self._max_tokens is not None and self.tokens() >= self._max_tokens:
            raise Halted(f"the budget ended: {self.tokens()} tokens are spent")
        (reply,) = self._backends[role]([request])
        if reply.error == BUDGET_EXHAUSTED:
            raise Halted(f"the budget ended: {reply.detail}")
        if reply.error in UNANSWERED:  # a later call asks again
            return reply
        reply = _counted(request, reply)
        with self._lock:
            record = {"unit": unit, "role": role, "question": question_key(request), "reply": asdict(reply)}
            write = self._held[unit].append if reply.error in HELD else self._append
            write(record)
            self._count(role, reply)
        return reply

    def _count(self, role: str, reply: Reply) -> None:
        before = self.spent.get(role, Spent())
        self.spent[role] = Spent(
            before.questions + 1,
            before.prompt_tokens + reply.prompt_tokens,
            before.completion_tokens + reply.completion_tokens,
        )

    def tokens(self) -> int:
        with self._lock:  # another thread may count a role's first question
            return sum(one.prompt_tokens + one.completion_tokens for one in self.spent.values())


def _counted(request: Request, reply: Reply) -> Reply:
    """The reply with its tokens, which are estimated from the characters where the server did not count them."""
    if reply.prompt_tokens or reply.completion_tokens or reply.error in (REFUSED, TOO_LONG):
        return reply
    asked = json.dumps(vars(request), default=dict)
    said = reply.text + reply.reasoning + json.dumps([asdict(call) for call in reply.calls])
    return replace(
        reply,
        prompt_tokens=len(asked) // CHARACTERS_A_TOKEN,
        completion_tokens=len(said) // CHARACTERS_A_TOKEN,
    )


@contextlib.contextmanager
def opened(
    path: Path, about: Mapping[str, Json], backends: Mapping[str, Generate], max_tokens: int | None = None
) -> Iterator[Ledger]:
    """The ledger in a journal, which is created where it lacks.

    about: settings that decide what is written.  JournalError: the journal is of another version or of other settings,
    was edited, or is being written by another process.
    """
    with journal.writing(path, wait=False) as append:
        entries = [entry.record for entry in journal.read(path)[0]]
        header = {"evolution": VERSION, "about": dict(about)}
        if not entries:
            append(header)
        elif not isinstance(entries[0], dict) or entries[0].get("evolution") != VERSION:
            raise JournalError(f"{path} is of another version than {VERSION}: name another folder")
        elif changed := [name for name in about if entries[0]["about"].get(name) != about[name]]:
            raise JournalError(f"{path} was begun with another {', '.join(changed)}: name another folder")
        yield Ledger(entries[1:], append, backends, max_tokens)


def unwritten(backends: Mapping[str, Generate] = {}, max_tokens: int | None = None) -> Ledger:
    """A ledger in memory alone."""
    return Ledger((), lambda *records: None, backends, max_tokens)
