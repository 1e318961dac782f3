"""Qwen's blocks: what is a message, what is none, and why."""

import json
import sys

import pytest

from rods_jax.codecs.json_calls import MAX_INTEGER_DIGITS
from rods_jax.codecs.qwen import parse, write
from rods_jax.codecs.template import MAX_ACTION_CHARACTERS
from rods_jax.types import Action, Call

GOOD = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
CALL = Call("f", {"a": 1})


def test_what_is_written():
    assert write([CALL]) == GOOD
    assert write([Call("g"), CALL]) == '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>\n' + GOOD
    assert r'"\u003c/tool_call>"' in write([Call("f", {"a": "</tool_call>"})])


@pytest.mark.parametrize(
    "text, action",
    [
        (GOOD, Action(calls=(CALL,))),
        (f" \n{GOOD}\n\n{GOOD} ", Action(calls=(CALL, CALL))),
        (f"<think>Hm.\n</think>\n{GOOD}", Action(calls=(CALL,))),
        (f"\n<think></think>{GOOD}", Action(calls=(CALL,))),
        (f"<think>{GOOD}</think>Done.", Action(answer="Done.")),  # thinking of a call makes none
        (" Done. ", Action(answer="Done.")),
        (
            json.dumps({"name": "f", "arguments": {}}),
            Action(answer='{"name": "f", "arguments": {}}'),
        ),  # not executed
        (
            GOOD.replace('{"a": 1}', '{"a": 2, "a": 1}'),
            Action(calls=(CALL,)),
        ),  # as JSON readers do: the last counts
        ("__import__('os').system('x')", Action(answer="__import__('os').system('x')")),
    ],
)
def test_what_is_a_message(text, action):
    assert parse(text) == action


@pytest.mark.parametrize("sign", ["", "-"])
def test_the_digits_of_an_integer_are_bounded_whatever_the_interpreter_allows(sign):
    digits = sign + "9" * MAX_INTEGER_DIGITS
    allowed = sys.get_int_max_str_digits()
    try:
        for limit in (allowed, 0):  # 0: no limit
            sys.set_int_max_str_digits(limit)
            assert parse(GOOD.replace("1", digits)).calls == (Call("f", {"a": int(digits)}),)
            assert "more than 400 digits" in parse(GOOD.replace("1", digits + "0")).error
    finally:
        sys.set_int_max_str_digits(allowed)


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("<think>Hm.</think>", "empty"),
        (GOOD.removesuffix("</tool_call>"), "tag"),
        (GOOD.removeprefix("<tool_call>"), "tag"),
        (GOOD + "<tool_call>", "tag"),
        (GOOD + "</tool_call>", "tag"),
        ("<think>Hm. Done.", "tag"),
        ("Done.</think>", "tag"),
        ("<think>a</think><think>b</think>Done.", "tag"),
        (f"<think>a</think>{GOOD}<think>b</think>", "tag"),
        (f"<think>a<think>b</think></think>{GOOD}", "tag"),
        (f"Done. {GOOD}", "nothing else"),
        (f"{GOOD} Done.", "nothing else"),
        (f"{GOOD}<think>b", "tag"),
        ("<tool_call></tool_call>", "cannot be read"),
        ("<tool_call>f(a=1)</tool_call>", "cannot be read"),
        ("<tool_call>{'name': 'f', 'arguments': {}}</tool_call>", "cannot be read"),
        (f"<tool_call>[{json.dumps({'name': 'f', 'arguments': {}})}]</tool_call>", "name and arguments"),
        ('<tool_call>{"name": "f"}</tool_call>', "name and arguments"),
        ('<tool_call>{"name": "f", "arguments": {}, "id": 1}</tool_call>', "name and arguments"),
        ('<tool_call>{"name": 1, "arguments": {}}</tool_call>', "must be a string"),
        ('<tool_call>{"name": "f", "arguments": [1]}</tool_call>', "must be a string and"),
        (GOOD + GOOD.replace("1", ""), "cannot be read"),  # one bad call spoils the message
        (GOOD.replace("1", "NaN"), "JSON compliant"),
        (GOOD.replace("1", "[Infinity]"), "JSON compliant"),
        (GOOD.replace("1", "-Infinity"), "JSON compliant"),
        (GOOD.replace("1", "1e999"), "JSON compliant"),
        (GOOD.replace("1", "9" * 5_000), "an integer has more than 400 digits"),
        (GOOD.replace("1", "9" * 401), "an integer has more than 400 digits"),
        (GOOD.replace("1", '[{"b": -' + "9" * 401 + "}]"), "an integer has more than 400 digits"),
        (GOOD.replace("1", r'"\ud800"'), "surrogates"),
        (GOOD.replace("1", '"\udc80"'), "surrogates"),
        (GOOD.replace('"a"', r'"\udfff"'), "surrogates"),
        (GOOD.replace('"f"', r'"\ud800"'), "surrogates"),
        (GOOD.replace("1", '"\n"'), "cannot be read"),  # a raw control character
        (GOOD.replace("1", "[" * 7_000), "cannot be read"),
        ("a" * (MAX_ACTION_CHARACTERS + 1), "longer than 8000"),
    ],
)  # fmt: skip
def test_what_is_none(text, complaint):
    action = parse(text)
    assert not action.calls and not action.answer
    with pytest.raises(AssertionError, match=complaint):
        raise AssertionError(action.error)
    action.error.encode()  # it is sent back to the policy


def test_the_longest_message_is_read():
    text = GOOD.replace("1", '"' + "a" * (MAX_ACTION_CHARACTERS - len(GOOD) - 1) + '"')
    assert len(text) == MAX_ACTION_CHARACTERS and parse(text).calls
