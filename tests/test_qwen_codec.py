"""Qwen's blocks: what is a message, what is none, and why."""

import ast
import json
import re
import sys

import pytest

from rods_jax.codecs.grammar import MAX_ACTION_CHARACTERS
from rods_jax.codecs.qwen import official, parse, write
from rods_jax.environments.bfcl import release_root
from rods_jax.strict_json import MAX_INTEGER_DIGITS
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
        # a thought: all that stands before the last closing tag outside of a call
        (f"I should call.\n</think>\n\n{GOOD}", Action(calls=(CALL,))),
        (f"<think>a</think>\n<think>b</think>\n{GOOD}", Action(calls=(CALL,))),
        (f"<think>a<think>b</think></think>{GOOD}", Action(calls=(CALL,))),
        ("<think>a</think><think>b</think>Done.", Action(answer="Done.")),
        (f"{GOOD} is one way.</think>Done.", Action(answer="Done.")),
        (f'<think>no "</tool_call>" yet</think>{GOOD}', Action(calls=(CALL,))),
        ("<think>" + "hm " * MAX_ACTION_CHARACTERS + f"</think>{GOOD}", Action(calls=(CALL,))),
        # what a string holds opens and closes nothing, escaped or as the template prints it
        (GOOD.replace("1", '"</tool_call>"'), Action(calls=(Call("f", {"a": "</tool_call>"}),))),
        (GOOD.replace("1", '"<tool_call>"') + GOOD, Action(calls=(Call("f", {"a": "<tool_call>"}), CALL))),
        (GOOD.replace("1", '"a</think>b"'), Action(calls=(Call("f", {"a": "a</think>b"}),))),
        # words beside calls
        (f"I will go there.\n{GOOD}", Action(calls=(CALL,))),
        (f"{GOOD} That moves us.", Action(calls=(CALL,))),
        (f"First {GOOD} and then {GOOD}", Action(calls=(CALL, CALL))),
        (f"\ufeff{GOOD}", Action(calls=(CALL,))),
        # a call's own keys count; no arguments are none
        (GOOD.replace('{"name"', '{"id": 1, "name"'), Action(calls=(CALL,))),
        ('<tool_call>{"name": "f"}</tool_call>', Action(calls=(Call("f"),))),
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
        (GOOD.removesuffix("</tool_call>"), "must follow the object"),
        (GOOD.removeprefix("<tool_call>"), "closes no call"),
        ("<think>Hm. Done.", "thought is not closed"),
        (f"<think>Hm. {GOOD}", "thought is not closed"),
        ("Hm. <think>Done.", "thought is not closed"),
        (f"{GOOD}<think>b", "thought is not closed"),
        ("Done.</think>", "empty"),
        (f"<think>a</think>{GOOD}<think>b</think>", "empty"),
        # what looks like a call is no answer
        ('{"name": "f", "arguments": {"a": 1}}', "without its tags"),
        ('```json\n{"name": "f", "arguments": {"a": 1}}\n```', "without its tags"),
        ("I call {'name': 'f', 'arguments': {}}.", "without its tags"),
        ('{"name": "f", "parameters": {"a": ', "without its tags"),
        (GOOD.replace("tool_call", "TOOL_CALL"), "a tag of calls"),
        (GOOD.replace("tool_call", "function_call"), "a tag of calls"),
        ("<function=f><parameter=a>1</parameter></function>", "a tag of calls"),
        ('<|python_tag|>{"name": "f"}', "a tag of calls"),
        ('[TOOL_CALLS][{"name": "f"}]', "a tag of calls"),
        ("[f(a=1)]", "as Python"),
        ("```python\nf(a=1)\n```", "as Python"),
        ("<tool_call></tool_call>", "cannot be read"),
        ("<tool_call>f(a=1)</tool_call>", "cannot be read"),
        ("<tool_call>{'name': 'f', 'arguments': {}}</tool_call>", "cannot be read"),
        (f"<tool_call>[{json.dumps({'name': 'f', 'arguments': {}})}]</tool_call>", "name and arguments"),
        ('<tool_call>{"name": "f", "parameters": {}}</tool_call>', "name and arguments, not parameters"),
        ('<tool_call>{"arguments": {}}</tool_call>', "name and arguments"),
        ('<tool_call>{"name": "f", "arguments": "{}"}</tool_call>', "arguments must be an object"),
        ('<tool_call>{"name": 1, "arguments": {}}</tool_call>', "must be a string"),
        ('<tool_call>{"name": "f", "arguments": [1]}</tool_call>', "arguments must be an object"),
        (GOOD.replace('{"a": 1}', '{"a": 2, "a": 1}'), "stands twice"),
        (GOOD.replace("1", "NaN"), "has no NaN"),
        (GOOD.replace("1", "[Infinity]"), "has no Infinity"),
        (GOOD.replace("1", "-Infinity"), "has no -Infinity"),
        (GOOD.replace("1", "1e999"), "too large"),
        (GOOD.replace("1", "9" * 5_000), "an integer has more than 400 digits"),
        (GOOD.replace("1", "9" * 401), "an integer has more than 400 digits"),
        (GOOD.replace("1", '[{"b": -' + "9" * 401 + "}]"), "an integer has more than 400 digits"),
        (GOOD.replace("1", r'"\ud800"'), "half a surrogate pair"),
        (GOOD.replace("1", '"\udc80"'), "half a surrogate pair"),
        (GOOD.replace('"a"', r'"\udfff"'), "half a surrogate pair"),
        (GOOD.replace('"f"', r'"\ud800"'), "half a surrogate pair"),
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


@pytest.mark.parametrize(
    "text, calls, complaint",
    [
        (GOOD.replace('{"a": 1}', "{") + GOOD, (CALL,), "cannot be read"),
        (GOOD + GOOD.replace("1", "") + GOOD, (CALL, CALL), "cannot be read"),
        (GOOD + "<tool_call>", (CALL,), "cannot be read"),
        (GOOD + "</tool_call>", (CALL,), "closes no call"),
        (GOOD + GOOD.replace("1", "NaN"), (CALL,), "has no NaN"),
    ],
)
def test_of_several_calls_those_that_can_be_read_are_made_and_the_others_are_told(text, calls, complaint):
    action = parse(text)
    assert action.calls == calls and not action.answer
    assert complaint in action.error


# ------------------------------------------------------------------------------ on the leaderboard
OFFICIAL = [
    GOOD,
    f"{GOOD}\n{GOOD}",
    f"I will go there.\n{GOOD}\nThat moves us.",
    f"I should go.\n</think>\n\n{GOOD}",
    f"<think>{GOOD}</think>\n\n{GOOD}",
    f"<think>a</think>\n<think>b</think>\n{GOOD}",
    GOOD.replace('{"a": 1}', "{") + "\n" + GOOD,
    GOOD.replace('{"name"', '{"id": 1, "name"'),
    GOOD.replace("\n", ""),  # read here, not there
    GOOD.replace('{"a": 1}', json.dumps('{"a": 1}')),  # read there, not here
    GOOD.replace("1", '"</tool_call>"'),
    GOOD.replace("1", '"\n</tool_call>"'),
    GOOD.replace("arguments", "parameters"),
    GOOD.replace('{"a": 1}', "[1]"),
    GOOD.replace('{"a": 1}', '{"a": 2, "a": 1}'),
    "<tool_call>\n[1]\n</tool_call>",
    "<tool_call>\n1\n</tool_call>",
    "Done.",
    "",
]


@pytest.mark.parametrize("text", OFFICIAL)
def test_official_reads_what_the_leaderboards_handler_reads(text):
    """Its own two functions, cut out of the release: they need packages that nothing else here does."""
    pytest.importorskip("bfcl_eval", exc_type=ImportError)
    handlers = release_root() / "model_handler"
    extract = function_of(handlers / "local_inference/qwen_fc.py", "_extract_tool_calls")
    written = function_of(handlers / "utils.py", "convert_to_function_call")

    def decode_execute(text):
        records = extract(text)
        if any(type(record) is not dict for record in records):
            raise ValueError
        return written([{record["name"]: record["arguments"]} for record in records])

    action = official(text)
    try:
        theirs = decode_execute(text.split("</think>")[-1].lstrip("\n"))
    except Exception:
        assert action.error and not action.calls
        return
    ours = [f"{call.name}({','.join(f'{k}={v!r}' for k, v in call.arguments.items())})" for call in action.calls]
    assert ours == theirs


def function_of(path, name):
    tree = ast.parse(path.read_text("utf-8"))
    node = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name)
    node.decorator_list = []
    space = {"re": re, "json": json}
    exec(compile(ast.Module([node], []), str(path), "exec"), space)  # the release's text, no model's
    return space[name]
