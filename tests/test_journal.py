"""Journals under crashes at every byte, edits of every kind, and several writers at once."""

import gc
import io
import json
import random
import time
from pathlib import Path

import pytest
from forks import forks
from hypothesis import given, settings
from hypothesis import strategies as st

from rods_jax import journal
from rods_jax.journal import Entry, InUse, JournalError, Place, read, read_log, writing, writing_log

RECORDS = [{"n": 0}, {"n": 1, "text": "zwei\nZeilen, ü"}, {"n": 2}, ["drei"]]


def records(path: Path) -> list:
    return [entry.record for entry in read(path)[0]]


def wait_until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def start():
    with forks("journal_toy") as start:
        yield start


def written(path: Path, some=RECORDS) -> Path:
    with writing(path) as append:
        append(*some)
    return path


def edit(path: Path, number: int, change) -> None:
    lines = path.read_bytes().split(b"\n")
    lines[number - 1] = change(lines[number - 1])
    path.write_bytes(b"\n".join(line for line in lines if line is not None))


# ------------------------------------------------------------------------------ reading and writing
def test_what_was_appended_is_read_once_in_order_with_its_lines(tmp_path):
    path = tmp_path / "j.jsonl"
    assert read(path) == ([], Place())
    written(path, RECORDS[:2])
    first, place = read(path)
    assert first == [Entry(2, RECORDS[0]), Entry(3, RECORDS[1])]  # line 1 tells the version
    assert read(path, place) == ([], place) and place.offset == path.stat().st_size
    with writing(path, place) as append:
        append(RECORDS[2])
        assert read(path, place)[0] == [Entry(4, RECORDS[2])]  # on the disk at once
        append(RECORDS[3])
    assert read(path, place)[0] == [Entry(4, RECORDS[2]), Entry(5, RECORDS[3])]
    assert [json.loads(line)[1] for line in path.read_text().splitlines()] == [{"version": 1}, *RECORDS]


def test_a_writer_keeps_nothing_of_what_was_there(tmp_path):
    """A run writes its journals for days, and they grow to gigabytes."""
    path = written(tmp_path / "j.jsonl")
    with writing(path) as append:
        gc.collect()
        assert not [one for one in gc.get_objects() if isinstance(one, Entry) and one.record in RECORDS]
        append("five")


def test_what_is_no_json_is_refused_and_nothing_of_it_is_written(tmp_path):
    path = written(tmp_path / "j.jsonl")
    with pytest.raises(TypeError), writing(path) as append:
        append({"n": 3}, {"n": object()})
    assert records(path) == RECORDS


# ---------------------------------------------------------------------------------------- crashes
@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2)), min_size=1, max_size=4))
def test_crashes_at_any_byte_leave_every_record_that_was_written_whole(tmp_path_factory, crashes):
    """Each crash cuts off a share of what its writer wrote; a lost block may read as zeros."""
    path = tmp_path_factory.mktemp("journal") / "j.jsonl"
    expected = []
    for number, (share, zeros) in enumerate(crashes):
        before = path.stat().st_size if path.exists() else 0
        new = [{"n": number, "text": "x" * number}, {"n": number, "text": ""}]
        text = written(path, new).read_bytes()
        text = text[: before + round(share * (len(text) - before))] + b"\0" * zeros
        path.write_bytes(text)
        whole = [json.loads(line)[1] for line in text[before:].split(b"\n") if line.endswith(b"]")]
        with writing(path):  # gives the end of a line back
            pass
        expected += [record for record in whole if "version" not in record]
        assert records(path) == expected


@pytest.mark.parametrize("cut", range(1, 36))
def test_a_last_line_that_is_cut_off_is_passed_over_and_the_next_one_counts(tmp_path, cut):
    path = written(tmp_path / "j.jsonl", RECORDS[:2])
    _, place = read(path)
    line = written(path, RECORDS[2:3]).read_bytes()[place.offset :]
    assert len(line) >= 30
    path.write_bytes(path.read_bytes()[: place.offset + min(cut, len(line) - 1)])
    assert read(path, place) == ([], place)
    written(path, RECORDS[3:])
    whole = cut >= len(line) - 1  # nothing but the end of the line was lost: the next writer gives it back
    assert [entry.record for entry in read(path, place)[0]] == [*RECORDS[2:3], *RECORDS[3:]][not whole :]
    assert records(path) == RECORDS[:2] + ([RECORDS[2]] if whole else []) + RECORDS[3:]


def test_after_a_full_disk_a_writer_appends_no_more_and_the_next_one_goes_on(tmp_path, monkeypatch):
    """The disk takes a part of a line, and is emptied at once: what follows that part would be past reading."""
    path, write, full = tmp_path / "journal", journal._write, [False, True, False]

    def writes(file, name, text):
        if full and full.pop(0):
            write(file, name, text[: len(text) // 2])
            raise OSError(28, "No space left on device")
        write(file, name, text)

    monkeypatch.setattr(journal, "_write", writes)
    with writing(path) as append:  # its first line is the header
        for record in ("lost", "refused too"):
            with pytest.raises(OSError, match="No space"):
                append(record)
    with writing(path) as append:
        append("kept")
    assert [entry.record for entry in read(path)[0]] == ["kept"]


def test_many_records_of_one_call_are_joined_once(tmp_path, monkeypatch):
    """A text that each of 2,000 lines of 4 kB lengthened would copy 8 GB."""

    class Line(bytes):
        def __add__(self, end):
            return Line(bytes(self) + end)

        def __radd__(self, text):
            raise AssertionError("a line was added to those before it")

    monkeypatch.setattr(journal, "_line", lambda *parts, plain=journal._line: Line(plain(*parts)))
    path = written(tmp_path / "j.jsonl", ["one", "two", "three"])
    assert [entry.record for entry in read(path)[0]] == ["one", "two", "three"]


def test_what_the_system_takes_in_parts_is_written_whole(tmp_path):
    """Linux takes 2,147,479,552 bytes at a time, and a fork copies a journal in one call."""

    class Parts(io.FileIO):
        def write(self, text):
            return super().write(text[:10])

    with Parts(tmp_path / "j.jsonl", "a") as file:
        journal._write(file, tmp_path / "j.jsonl", b"0123456789" * 3 + b"\n")
    assert (tmp_path / "j.jsonl").read_bytes() == b"0123456789" * 3 + b"\n"


def test_who_opens_a_journal_again_and_writes_nothing_changes_nothing(tmp_path):
    path = written(tmp_path / "j.jsonl")
    path.write_bytes(path.read_bytes()[:-9])
    ended = written(path, ()).read_bytes()  # the line that a crash cut off gets its end, once
    assert written(path, ()).read_bytes() == ended
    assert records(written(path, RECORDS[3:])) == RECORDS


def test_killed_writers_lose_nothing_that_was_there_and_double_nothing(tmp_path, start):
    path, rng = tmp_path / "j.jsonl", random.Random(0)
    for turn in range(5):
        seen = records(path)
        writers = [start("write_for_ever", str(path), 2 * turn + i) for i in range(2)]
        wait_until(lambda: len(records(path)) >= len(seen) + 5)
        for writer in writers:
            time.sleep(rng.random() / 50)
            writer.kill()
        assert records(path)[: len(seen)] == seen
    for writer in range(10):  # each wrote 0, 1, 2, ... until it was killed
        own = [record["number"] for record in records(path) if record["writer"] == writer]
        assert own == list(range(len(own)))


# ------------------------------------------------------------------------------------------ edits
CHANGES = {
    "a character": (lambda line: line.replace(b'"n"', b'"m"'), 3),
    "the check": (lambda line: line[:3] + b"x" + line[4:], 3),
    "the end": (lambda line: line[:-1], 3),
    "everything": (lambda line: b"[]", 3),
    "no JSON": (lambda line: b"oops", 3),
    "an empty line": (lambda line: b"", 3),
    "taken out": (lambda line: None, 3),  # what stands there now does not follow
    "doubled": (lambda line: line + b"\n" + line, 4),
    "put in": (lambda line: b'["0123456789abcdef", {}]\n' + line, 3),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_edited_middle_is_refused_with_its_line(tmp_path, name):
    path = written(tmp_path / "j.jsonl")
    change, line = CHANGES[name]
    edit(path, 3, change)
    edited = path.read_bytes()
    with pytest.raises(JournalError, match=rf"j.jsonl, line {line}: it was changed"):
        read(path)
    with pytest.raises(JournalError, match=rf"line {line}: it was changed"), writing(path):
        pass
    assert path.read_bytes() == edited


def test_swapped_lines_are_refused(tmp_path):
    path = written(tmp_path / "j.jsonl")
    first, second, third, *rest = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([first, third, second, *rest]))
    with pytest.raises(JournalError, match="line 2"):
        read(path)


def test_an_edited_last_line_is_refused_while_it_is_json(tmp_path):
    path = written(tmp_path / "j.jsonl")
    edit(path, 5, lambda line: line.replace(b"drei", b"vier"))
    with pytest.raises(JournalError, match="line 5"):
        read(path)


def test_another_version_and_another_file_are_refused_in_one_sentence(tmp_path, monkeypatch):
    path = tmp_path / "j.jsonl"
    with monkeypatch.context() as patched:
        patched.setattr(journal, "_HEADER", {"version": 2})
        written(path)
    with pytest.raises(JournalError, match=r"j.jsonl is no journal of version 1: it begins with {'version': 2}"):
        read(path)
    path.write_text('{"step": 1}\n')
    with pytest.raises(JournalError, match="line 1"), writing(path):
        pass
    for text in ("a diary\n", "a diary"):  # not JSON, and so like a line that a crash cut off
        path.write_text(text)
        with pytest.raises(JournalError, match="j.jsonl is no journal, and is left as it is"), writing(path):
            pass
        assert path.read_text() == text


# ------------------------------------------------------------------------------------------ locks
def test_a_journal_has_one_writer(tmp_path):
    path = tmp_path / "j.jsonl"
    with writing(path):
        with pytest.raises(InUse, match="j.jsonl is being written by another process"):
            with writing(path, wait=False):
                pass
    with writing(path, wait=False) as append:
        append({})


def test_a_killed_process_holds_no_lock(tmp_path, start):
    path = tmp_path / "j.jsonl"
    process = start("hold", str(path))
    wait_until(lambda: records(path))
    with pytest.raises(InUse), writing(path, wait=False):
        pass
    process.kill()
    with writing(path, wait=False):
        pass


def test_reading_waits_for_nobody(tmp_path):
    path = written(tmp_path / "j.jsonl")
    with writing(path):
        assert records(path) == RECORDS


# ------------------------------------------------------------------------------------------- logs
def logged(path: Path, some=RECORDS) -> Path:
    with writing_log(path) as (_, append):
        append(*some)
    return path


def test_a_log_is_a_record_a_line_and_gives_its_writer_what_it_holds(tmp_path):
    path = tmp_path / "log.jsonl"
    with writing_log(path) as (entries, append):
        append(RECORDS[0])
        assert entries == [] and read_log(path) == [Entry(1, RECORDS[0])]  # on the disk at once
    with writing_log(path) as (entries, append):
        append(*RECORDS[1:])
    assert entries == [Entry(1, RECORDS[0])]
    assert [json.loads(line) for line in path.read_text().splitlines()] == RECORDS


def test_a_log_cut_at_any_byte_goes_on_from_its_whole_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    whole = logged(path).read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        left = whole[:cut].count(b"\n")
        assert [entry.record for entry in read_log(path)] == RECORDS[:left]
        assert path.read_bytes() == whole[:cut]  # who only reads changes nothing
        assert logged(path, RECORDS[left:]).read_bytes() == whole


def test_a_log_is_cut_off_from_the_first_record_that_is_not_kept(tmp_path):
    path = logged(tmp_path / "log.jsonl", [{"n": n} for n in (1, 2, 3, 2)])
    with writing_log(path, lambda entry: entry.record["n"] < 3) as (entries, append):
        append({"n": 9})
    assert [entry.record["n"] for entry in entries] == [1, 2]
    assert [entry.record["n"] for entry in read_log(path)] == [1, 2, 9]


def test_a_damaged_log_is_refused_with_its_line_and_left_as_it_is(tmp_path):
    path = logged(tmp_path / "log.jsonl")
    edit(path, 2, lambda line: line[:9])
    edited = path.read_bytes()
    for look in (lambda: read_log(path), lambda: logged(path)):
        with pytest.raises(JournalError, match="log.jsonl, line 2: not JSON"):
            look()
    assert path.read_bytes() == edited


def test_a_log_has_one_writer_and_readers_wait_for_nobody(tmp_path):
    with writing_log(tmp_path / "log.jsonl") as (_, append):
        append({"n": 1})
        assert [entry.record for entry in read_log(tmp_path / "log.jsonl")] == [{"n": 1}]
        with pytest.raises(InUse, match="log.jsonl is being written by another process"):
            logged(tmp_path / "log.jsonl")


def test_a_log_of_an_older_version_gives_null_for_what_is_no_number(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"a": NaN, "b": [Infinity, -Infinity]}\n')
    assert read_log(tmp_path / "log.jsonl")[0].record == {"a": None, "b": [None, None]}
