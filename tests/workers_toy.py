"""A domain whose tools break their process, importable by worker processes."""

import os
import sys
import time

from rods_jax.environments import toolkit
from rods_jax.environments.protocol import Domain
from rods_jax.environments.workplace import WORKPLACE


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
