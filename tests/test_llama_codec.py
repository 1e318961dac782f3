"""Llama's JSON objects: what is a message, what is none, and why."""

import json

import pytest

from rods_jax.codecs.grammar import MAX_ACTION_CHARACTERS
from rods_jax.codecs.llama import official, parse, write
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
        (GOOD.replace('{"name"', '{"id": 1, "name"'), Action(calls=(CALL,))),
        ('{"name": "f"}', Action(calls=(Call("f"),))),
        (f"\ufeff{GOOD}", Action(calls=(CALL,))),
        (f"I will call it. {TAG}{GOOD}", Action(calls=(CALL,))),  # the tag tells words and calls apart
        (f"<think>{GOOD}</think>\n\n{GOOD}", Action(calls=(CALL,))),
        (f"Hm.</think>{GOOD}", Action(calls=(CALL,))),
        (GOOD.replace("1", '"a</think>b"'), Action(calls=(Call("f", {"a": "a</think>b"}),))),
        (" Done. ", Action(answer="Done.")),
        ("I would call f.", Action(answer="I would call f.")),
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
        ('{"name": "f", "arguments": {}}', "name and parameters"),
        (f"I would call {GOOD}", "stands beside words"),
        (f"```json\n{GOOD}\n```", "in a code fence"),
        ("<think>Hm.", "thought is not closed"),
        (GOOD.replace('{"a": 1}', '{"a": 2, "a": 1}'), "stands twice"),
        (GOOD.replace('{"a": 1}', '"{}"'), "must be an object"),
        ("f(a=1)", "as Python"),
        ('{"name": 1, "parameters": {}}', "must be a string"),
        ('{"name": "f", "parameters": [1]}', "parameters must be an object"),
        ("[1]", "name and parameters"),
        (f"{GOOD}; " + GOOD.replace("1", ""), "cannot be read"),  # one bad call spoils the message
        (GOOD.replace("1", "NaN"), "has no NaN"),
        (GOOD.replace("1", "1e999"), "too large"),
        (GOOD.replace("1", "9" * 401), "more than 400 digits"),
        (GOOD.replace("1", r'"\ud800"'), "half a surrogate pair"),
        (GOOD.replace("1", "[" * 7_000), "cannot be read"),
        ("a" * (MAX_ACTION_CHARACTERS + 1), "longer than 8000"),
    ],
)
def test_what_is_none(text, complaint):
    action = parse(text)
    assert not action.calls and not action.answer
    assert complaint in action.error


@pytest.mark.parametrize(
    "text, calls",
    [
        (GOOD, (CALL,)),
        (TAG + GOOD, (CALL,)),
        (f"{GOOD}; {GOOD}", (CALL, CALL)),
        (f"[{GOOD}, {GOOD}]", (CALL, CALL)),
        (f"<think>{GOOD}</think>\n{GOOD}", (CALL,)),
        ("{'name': 'f', 'parameters': {'a': True}}", (Call("f", {"a": True}),)),  # it evaluates; here a literal
        (GOOD.replace("1", "true"), ()),  # for the same reason
        (GOOD.replace("1", '"a; b"'), ()),  # it splits there
        (f"{GOOD};", ()),
        (f"I call {GOOD}", ()),
        (GOOD.replace("1", "__import__('os').getpid()"), ()),
        ('{"name": "f"}', ()),
        ("[]", ()),
        ("Done.", ()),
        ("", ()),
    ],
)
def test_official_reads_what_the_leaderboards_handler_reads(text, calls):
    assert official(text).calls == calls
