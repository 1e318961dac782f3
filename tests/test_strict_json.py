"""Strict JSON: what is read equals what was written, and each refusal names its place."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rods_jax.strict_json import MAX_INTEGER_DIGITS, MAX_NESTING, MAX_RECORD_NESTING, JsonError, loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=60)
@given(value=VALUES, ascii_only=st.booleans())
def test_any_value_is_read_as_it_was_written(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert loads(text) == value and repr(loads(text.encode())) == repr(value)


def nested(levels, opening="[", closing="]"):
    return opening * levels + "1" + closing * levels


@pytest.mark.parametrize(
    "text, place, reason",
    [
        ('{"a": NaN}', "column 7", "JSON has no NaN"),
        ("[1,\n -Infinity]", "line 2, column 2", "JSON has no -Infinity"),
        ('["NaN", Infinity]', "column 9", "JSON has no Infinity"),
        ("[1e308, 1e309]", "column 9", "a number is too large"),
        ("[-1e999]", "column 2", "a number is too large"),
        ('{"a": 1,\n "b": {"a": 2},\n "a": 3}', "line 3, column 2", 'the key "a" stands twice'),
        ('{"a": 1, "\\u0061": 2}', "column 10", r'the key "\\u0061" stands twice'),
        (f"[{'9' * MAX_INTEGER_DIGITS}0]", "column 2", "an integer has more than 400 digits"),
        ("9" * 5_000, "column 1", "an integer has more than 400 digits"),
        ('["\\ud83d\\ude00", "O\\ud83d"]', "column 18", "half a surrogate pair is no character"),
        ('{"\\uDC00": 1}', "column 2", "half a surrogate pair is no character"),
        ('"\udc80"', "column 1", "half a surrogate pair is no character"),
        (
            nested(MAX_RECORD_NESTING + 1),
            f"column {MAX_RECORD_NESTING + 1}",
            "values are nested more than 80 levels deep",
        ),
        (
            nested(MAX_RECORD_NESTING + 1, '{"a":', "}"),
            f"column {5 * MAX_RECORD_NESTING + 1}",
            "values are nested more than 80",
        ),
        (nested(5_000), f"column {MAX_RECORD_NESTING + 1}", "values are nested more than 80 levels deep"),
        ("[" * 200_000, f"column {MAX_RECORD_NESTING + 1}", "values are nested more than 80 levels deep"),
        ('{"version": 1, ', "column 16", "not JSON"),
        ("1 2", "column 3", r"not JSON \(Extra data\)"),
        ("\0\0", "column 1", "not JSON"),
        ('"a\nb"', "line 1, column 3", "not JSON"),
        ("\ufeff{}", "column 1", "byte order mark"),
        (b"\xef\xbb\xbf{}", "column 1", "byte order mark"),
        (b'{"a": "\xff"}', "byte 7", "not UTF-8"),
        ("{}".encode("utf-16"), "byte 0", "not UTF-8"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_refusal_names_what_it_reads_the_place_and_the_reason(text, place, reason):
    with pytest.raises(JsonError, match=rf"^notes\.json, {place}: .*{reason}"):
        loads(text, "notes.json")
    with pytest.raises(JsonError, match=rf"^{place}: .*{reason}"):
        loads(text)


@pytest.mark.parametrize("text", ["", " \n\t", b""])
def test_a_text_without_a_value_is_empty(text):
    with pytest.raises(JsonError, match="^notes.json: it is empty$"):
        loads(text, "notes.json")
    with pytest.raises(JsonError, match="^it is empty$"):
        loads(text)


def test_what_only_looks_refused_is_read():
    assert loads(f"[{'[],' * 500}1]")[-1] == 1  # wide, not deep
    assert loads(nested(MAX_RECORD_NESTING))
    record = {"moves": [{"calls": [{"name": "f", "arguments": json.loads(nested(MAX_NESTING, '{"a":', "}"))}]}]}
    assert loads(json.dumps(record)) == record  # as deep as a call may be, and the record of it
    assert loads(r'["\\ud83d", "[[[[", "NaN", "a\":1"]') == ["\\ud83d", "[[[[", "NaN", 'a":1']
    assert loads(f"-{'9' * MAX_INTEGER_DIGITS}") == -(10**MAX_INTEGER_DIGITS - 1)
    assert loads('[{"a": 1}, {"a": 2}]') == [{"a": 1}, {"a": 2}]
    assert loads("1e-999") == 0.0


def test_a_refusal_is_found_in_text_that_is_broken_later():
    with pytest.raises(JsonError, match="column 2: JSON has no NaN"):
        loads('[NaN, "')
