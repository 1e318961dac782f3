"""A domain whose tools break their process, importable by worker processes."""

import os
import sys
import threading
import time

from rods_jax.environments import toolkit
from rods_jax.environments.conversation import STOP, Conversation, Spoken, conversations
from rods_jax.environments.protocol import Domain
from rods_jax.environments.workplace import WORKPLACE
from rods_jax.types import Observation

_TOGETHER = threading.Barrier(2, timeout=60)


class Machine:
    """A machine that counts, and can be broken."""

    def __init__(self, total: int = 0):
        self.total = total
        self._held: list[bytes] = []

    def add(self, n: int) -> dict[str, int]:
        """Adds n."""
        self.total += n
        return {"total": self.total}

    def die(self) -> None:
        """Ends the process."""
        os._exit(7)

    def leave(self) -> None:
        """Asks the interpreter to end."""
        sys.exit(8)

    def hang(self) -> None:
        """Never answers."""
        time.sleep(3600)

    def leak(self, megabytes: int) -> None:
        """Keeps memory that it has touched."""
        self._held.append(b"x" * (megabytes << 20))


def make_domain() -> Domain:
    return toolkit.domain("machine", {"Machine": Machine})


def broken_domain() -> Domain:
    raise ValueError("there is no machine")


def workplace() -> Domain:
    return WORKPLACE


def _in_pairs(heard) -> Spoken:
    """Answers as soon as another user is asked as well."""
    if len(heard.lines) > 1:
        _TOGETHER.wait()
    return Spoken(f"Bye. {STOP}" if len(heard.lines) > 1 else "Hello.")


def _room(task) -> Conversation:
    return Conversation((), _in_pairs, lambda who, call: Observation(""), 1, lambda ended: (True,))


def slow_users() -> Domain:
    return Domain("room", {}, toolkit.simulator({}), start=conversations(_room, waits=True))
