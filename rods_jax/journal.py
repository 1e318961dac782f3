"""Append-only files of JSON records, one a line, that no crash damages.

    with journal.writing(path) as append:      # a journal, which processes and hosts share: others wait, or are told
        entries, place = journal.read(path)    # all records so far
        append({"seed": "task_7"})             # on the disk when it returns

    with journal.writing_log(path) as (entries, append): ...      # a log, which one process writes and people read

A line counts once it has its end.  A last line that a crash cut off is left out by every reader, and never counts once
the next writer has come: it cuts the line off a log, and ends it in a journal, where somebody may be reading it.

A line of a log is the record.  A line of a journal is `["check", record]`.  Each check covers the check before it, so
that no change, removal or insertion goes unseen, and a line that was cut off is skipped.  No byte is written twice.
Readers therefore need no lock, and see a record whole or not at all.

Left out on purpose: deletion, clocks and process ids.  The operating system knows who holds a lock, and that a dead
process holds none.  On a shared file system, flock must reach the other hosts, as it does on NFS.
"""

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
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
        lines = _whole_lines(path, place.offset)
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

    place: of an earlier `read`, so that only what follows is read again.  After an OSError it appends no more: a part of
    a line may stand there, which the next writer ends.  InUse: someone else is writing and `wait` is false.
    JournalError: as for `read`; nothing was written.
    """
    with _held(path, wait) as file:
        place = read(path, place)[1]  # and not the records: the writer may write for days
        begun = () if place.check else path.read_bytes().split(b"\n")
        if not all(_FIRST_LINE.startswith(line.rstrip(b"\0")) for line in begun):  # a lost block may read as zeros
            raise JournalError(f"{path} is no journal, and is left as it is")
        if file.seek(0, os.SEEK_END) > place.offset and not _ends_a_line(file):
            file.write(b"\n")  # a crash cut off a line, or only its end
            place = read(path, place)[1]
        check, failed = place.check, list[OSError]()

        def append(*records: Json) -> None:
            nonlocal check
            if failed:
                raise failed[0]
            lines, last = list[bytes](), check
            for record in records:
                payload = json.dumps(record).encode()
                last = _check(last, payload)
                lines.append(_line(last, payload) + b"\n")
            try:
                _write(file, path, b"".join(lines))
            except OSError as error:
                failed.append(error)
                raise
            check = last

        if not check:
            append(_HEADER)
            sync(path.parent)
        yield append


# ------------------------------------------------------------------------------------------ logs
def read_log(path: Path) -> list[Entry]:
    """All records of a log; NaN and Infinity, which older ones hold, as null.  JournalError: a line is no JSON."""
    return [Entry(number, _parsed(line, f"{path}, line {number}")) for number, line in enumerate(_whole_lines(path), 1)]


@contextlib.contextmanager
def writing_log(
    path: Path,
    keep: Callable[[Entry], bool] = lambda entry: True,
    check: Callable[[Sequence[Entry]], None] = lambda entries: None,
) -> Iterator[tuple[list[Entry], Callable[..., None]]]:
    """(what it holds, append(*records)): the one writer of the log, which is created where it lacks.

    keep: the first record that it refuses is cut off, with all that follow.  check: raises where these records are no
    log of the caller's.  InUse: someone else is writing.  JournalError: as for `read_log`.  Whatever is raised, nothing
    was cut off.
    """
    with _held(path, wait=False) as file:
        entries = list(itertools.takewhile(keep, read_log(path)))
        check(entries)
        _cut(file, sum(len(line) + 1 for line in _whole_lines(path)[: len(entries)]))
        sync(path.parent)
        yield (
            entries,
            lambda *records: _write(file, path, b"".join(json.dumps(one).encode() + b"\n" for one in records)),
        )


def _parsed(line: bytes, where: str) -> Json:
    try:
        return json.loads(line.decode(), parse_constant=lambda name: None)
    except json.JSONDecodeError as error:
        reason = f"not JSON ({error.msg} at column {error.colno})"
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 at byte {error.start}"
    except (ValueError, RecursionError):
        reason = "an integer without end, or a nesting"
    raise JournalError(f"{where}: {reason}")


def _cut(file: BinaryIO, size: int) -> None:
    file.truncate(size)


# ------------------------------------------------------------------------------------ lines of both
def _whole_lines(path: Path, offset: int = 0) -> list[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        *lines, _unfinished = file.read().split(b"\n")
    return lines


@contextlib.contextmanager
def _held(path: Path, wait: bool) -> Iterator[BinaryIO]:
    """The file, locked, to append to; InUse."""
    with path.open("a+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise InUse(f"{path} is being written by another process") from None
        yield file


def _write(file: BinaryIO, path: Path, text: bytes) -> None:
    with naming(path):
        left = memoryview(text)
        while left:  # the system takes about 2 GiB at a time; a full disk takes a part, and then refuses
            left = left[file.write(left) :]
        os.fsync(file.fileno())


# -------------------------------------------------------------------------------- lines of a journal
def _ends_a_line(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _check(before: str, payload: bytes) -> str:
    return hashlib.sha256(before.encode() + payload).hexdigest()[:_DIGITS]


def _line(check: str, payload: bytes) -> bytes:
    return f'["{check}", '.encode() + payload + b"]"


_FIRST_LINE = _line(_check("", json.dumps(_HEADER).encode()), json.dumps(_HEADER).encode())


def _is_cut_off(line: bytes) -> bool:
    """Whether a line may be the beginning of one: such a line is not JSON before its last character."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False
