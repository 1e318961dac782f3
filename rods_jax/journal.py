"""Append-only files of JSON records that processes and hosts share and that no crash damages.

    with journal.writing(path) as append:      # alone: others wait, or are told that it is in use
        entries, place = journal.read(path)    # all records so far
        append({"seed": "task_7"})             # on the disk when it returns

A line is `["check", record]`.  Each check covers the check before it, so that no change, removal or insertion goes
unseen.  No byte is written twice.  A line that a crash cut off stays; the next writer begins a new line after it, and
readers skip it.  Readers therefore need no lock, and see a record whole or not at all.

Left out on purpose: deletion, clocks and process ids.  The operating system knows who holds a lock, and that a dead
process holds none.  On a shared file system, flock must reach the other hosts, as it does on NFS.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rods_jax.files import naming, sync
from rods_jax.types import Json

VERSION = 1  # of every record in every journal: count up when one changes
_HEADER = {"version": VERSION}
_DIGITS = 16  # of a check


class JournalError(ValueError):
    """A journal that cannot be used, in one sentence with file and line."""


class InUse(JournalError):
    """Another process, or another thread of this one, is writing the journal."""


class Place(NamedTuple):
    """Where reading ended: after so many lines and bytes, and with this check."""

    lines: int = 0
    offset: int = 0
    check: str = ""


class Entry(NamedTuple):
    """A record and its line, counted from 1."""

    line: int
    record: Json


def read(path: Path, place: Place = Place()) -> tuple[list[Entry], Place]:
    """What was appended since `place`, and the place after it; nothing where there is no file yet.

    JournalError: a line was changed, taken out or put in, or the journal is of another version.
    """
    try:
        with path.open("rb") as file:
            file.seek(place.offset)
            *lines, _unfinished = file.read().split(b"\n")
    except FileNotFoundError:
        return [], place
    entries: list[Entry] = []
    torn = None  # the first line that is cut off; it is skipped if a later line continues the one before it
    offset = place.offset
    for number, line in enumerate(lines, place.lines + 1):
        offset += len(line) + 1
        payload = line[5 + _DIGITS : -1]
        check = _check(place.check, payload)
        if line == _line(check, payload):
            record = json.loads(payload)
            if place.check:
                entries.append(Entry(number, record))
            elif record != _HEADER:
                raise JournalError(f"{path} is no journal of version {VERSION}: it begins with {str(record)[:80]}")
            place, torn = Place(number, offset, check), None
        elif _is_cut_off(line):
            torn = torn or number
        else:
            raise JournalError(f"{path}, line {torn or number}: it was changed, or lines near it were")
    return entries, place


@contextlib.contextmanager
def writing(path: Path, place: Place = Place(), *, wait: bool = True) -> Iterator[Callable[..., None]]:
    """append(*records): the one writer of the journal, which is created where it lacks.

    place: of an earlier `read`, so that only what follows is read again.  InUse: someone else is writing and
    `wait` is false.  JournalError: as for `read`; nothing was written.
    """
    with path.open("a+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise InUse(f"{path} is being written by another process") from None
        _, place = read(path, place)
        if file.seek(0, os.SEEK_END) > place.offset and not _ends_a_line(file):
            file.write(b"\n")  # a crash cut off a line, or only its end
            _, place = read(path, place)
        check = place.check

        def append(*records: Json) -> None:
            nonlocal check
            text, last = b"", check
            for record in records:
                payload = json.dumps(record).encode()
                last = _check(last, payload)
                text += _line(last, payload) + b"\n"
            with naming(path):
                if file.write(text) != len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            check = last

        if not check:
            append(_HEADER)
            sync(path.parent)
        yield append


def _ends_a_line(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _check(before: str, payload: bytes) -> str:
    return hashlib.sha256(before.encode() + payload).hexdigest()[:_DIGITS]


def _line(check: str, payload: bytes) -> bytes:
    return f'["{check}", '.encode() + payload + b"]"


def _is_cut_off(line: bytes) -> bool:
    """Whether a line may be the beginning of one: such a line is not JSON before its last character."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False
