"""Llama's JSON objects: what is a message, what is none, and why."""

import json

import pytest

from rods_jax.codecs.llama import parse, write
from rods_jax.codecs.template import MAX_ACTION_CHARACTERS
from rods_jax.types import Action, Call

GOOD = '{"name": "f", "parameters": {"a": 1}}'
CALL = Call("f", {"a": 1})
TAG = "<|python_tag|>"


def test_what_is_written():
    assert write([CALL]) == GOOD
    assert write([CALL, Call("g")]) == GOOD + '; {"name": "g", "parameters": {}}'
    assert r'"\u003c|eot_id|>"' in write([Call("f", {"a": "<|eot_id|>"})])


@pytest.mark.parametrize(
    "text, action",
    [
        (GOOD, Action(calls=(CALL,))),
        (f" \n{GOOD}; {GOOD};\n", Action(calls=(CALL, CALL))),
        (f"{GOOD}\n{GOOD}", Action(calls=(CALL, CALL))),
        (f"{GOOD}, {GOOD}", Action(calls=(CALL, CALL))),
        (f"[{GOOD},\n {GOOD}]", Action(calls=(CALL, CALL))),
        (f"{TAG}{GOOD}", Action(calls=(CALL,))),
        (f"{TAG} {GOOD}; {TAG}{GOOD}", Action(calls=(CALL, CALL))),
        (GOOD.replace('{"name"', '{"type": "function", "name"'), Action(calls=(CALL,))),
        (GOOD.replace("1", '"a; b"'), Action(calls=(Call("f", {"a": "a; b"}),))),  # officially split, and lost
        (GOOD.replace("1", json.dumps(TAG)), Action(calls=(Call("f", {"a": TAG}),))),  # officially removed
        (GOOD.replace("1", "true"), Action(calls=(Call("f", {"a": True}),))),  # officially a bare name
        (GOOD.replace('{"a": 1}', '{"a": 2, "a": 1}'), Action(calls=(CALL,))),
        (" Done. ", Action(answer="Done.")),
        (f"I would call {GOOD}", Action(answer=f"I would call {GOOD}")),
    ],
)
def test_what_is_a_message(text, action):
    assert parse(text) == action


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("", "empty"),
        (" \n\t", "empty"),
        (TAG, "holds no call"),
        ("[]", "holds no call"),
        (f"{TAG};", "holds no call"),
        (f"{TAG}f(a=1)", "cannot be read"),
        (f"{TAG}Done.", "cannot be read"),
        (f"{GOOD} Done.", "cannot be read"),
        (f"{GOOD}; Done.", "cannot be read"),
        (f"[{GOOD}", "cannot be read"),
        (f"{GOOD}]", "cannot be read"),
        (f"[[{GOOD}]]", "name and parameters"),
        (GOOD[:-1], "cannot be read"),
        ("[Done]", "cannot be read"),
        ("{'name': 'f', 'parameters': {}}", "cannot be read"),
        ('{"name": "f"}', "name and parameters"),
        ('{"name": "f", "arguments": {}}', "name and parameters"),
        ('{"type": "tool", "name": "f", "parameters": {}}', "name and parameters"),
        ('{"name": "f", "parameters": {}, "id": 1}', "name and parameters"),
        ('{"name": 1, "parameters": {}}', "must be a string"),
        ('{"name": "f", "parameters": [1]}', "parameters an object"),
        ("[1]", "name and parameters"),
        (f"{GOOD}; " + GOOD.replace("1", ""), "cannot be read"),  # one bad call spoils the message
        (GOOD.replace("1", "NaN"), "JSON compliant"),
        (GOOD.replace("1", "1e999"), "JSON compliant"),
        (GOOD.replace("1", "9" * 401), "more than 400 digits"),
        (GOOD.replace("1", r'"\ud800"'), "surrogates"),
        (GOOD.replace("1", "[" * 7_000), "cannot be read"),
        ("a" * (MAX_ACTION_CHARACTERS + 1), "longer than 8000"),
    ],
)
def test_what_is_none(text, complaint):
    action = parse(text)
    assert not action.calls and not action.answer
    assert complaint in action.error
