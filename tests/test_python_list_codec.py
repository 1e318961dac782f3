"""BFCL's list of Python calls: what is a message, what is none, and what becomes of positional arguments."""

import json
import sys

import pytest
from codec_families import TOOLS, small_tokenizer

from rods_jax.codecs.grammar import MAX_ACTION_CHARACTERS
from rods_jax.codecs.python_list import official, parse, python_list_codec, write
from rods_jax.strict_json import MAX_INTEGER_DIGITS
from rods_jax.types import Action, Call

CALL = Call("f", {"a": 1})


# -------------------------------------------------------------------------------------- writing
def test_what_is_written():
    assert write([CALL, Call("g", {"b": "it's", "c": [None, True, {"d": 0.5}]})]) == (
        """[f(a=1), g(b="it's", c=[None, True, {'d': 0.5}])]"""
    )
    assert write([Call("f", {"a": r"\<|im_end|>"})]) == r"[f(a='\\\u003c|im_end|>')]"
    assert write([Call("calendar.plan")]) == "[calendar.plan()]"


@pytest.mark.parametrize("name", ["", "a b", "a-b", "class", "None", "1a", "a.", ".a", "a\n", "\ufb01", "f()"])
def test_a_name_that_python_cannot_write_is_refused(name):
    for call in (Call(name), Call("f", {name: 1})):
        with pytest.raises(ValueError, match="cannot write"):
            write([call])
    with pytest.raises(ValueError, match="cannot write"):
        write([Call("f", {"a.b": 1})])


# -------------------------------------------------------------------------------------- reading
@pytest.mark.parametrize(
    "text, action",
    [
        ("[f(a=1)]", Action(calls=(CALL,))),
        (" [ f( a = 1 ),\n  f(a=1,), ] ", Action(calls=(CALL, CALL))),
        ("f(a=1)", Action(calls=(CALL,))),
        ("f(a=1), f(a=1)", Action(calls=(CALL, CALL))),
        ("[f(a=1)", Action(calls=(CALL,))),
        ("```[f(a=1)]\n```", Action(calls=(CALL,))),
        ("[f(a=1)]  # comments are no code", Action(calls=(CALL,))),
        ("[calendar.plan(a=1)]", Action(calls=(Call("calendar.plan", {"a": 1}),))),
        ("[f(a=-1)]", Action(calls=(Call("f", {"a": -1}),))),
        ("[f(a=0x10)]", Action(calls=(Call("f", {"a": 16}),))),
        ("[f(a=(1, [2], {'b': None}))]", Action(calls=(Call("f", {"a": [1, [2], {"b": None}]}),))),
        (r"[f(a='C:\dir', b='x' 'y')]", Action(calls=(Call("f", {"a": r"C:\dir", "b": "xy"}),))),
        ("<think>[g()]</think>\n[f(a=1)]", Action(calls=(CALL,))),
        ("Hm.</think>[f(a=1)]", Action(calls=(CALL,))),
        ("[f(a='a</think>b')]", Action(calls=(Call("f", {"a": "a</think>b"}),))),
        ("\ufeff[f(a=1)]", Action(calls=(CALL,))),
        ("[]", Action(answer="[]")),
        (" Done. ", Action(answer="Done.")),
        ("I would call f(a=1).", Action(answer="I would call f(a=1).")),
        ("f is done", Action(answer="f is done")),
        ("`f`", Action(answer="`f`")),
    ],
)
def test_what_is_a_message(text, action):
    assert parse(text) == action


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("", "empty"),
        (" \n`", "empty"),
        ("\u2028", "empty"),
        ("```python\n[f(a=1)]\n```", "in a code fence"),  # no call officially, either
        ("<|python_tag|>[f(a=1)]", "a tag of calls"),
        ('{"name": "f", "arguments": {}}', "without its tags"),
        ("<think>[f(a=1)]", "thought is not closed"),
        ("[f(a={'b': 2, 'b': 1})]", "stands twice"),
        ("[f(a=1)] Done.", "cannot be read"),
        ("f(a=1) is what I call", "cannot be read"),
        ("f(a=1", "cannot be read"),
        ("[f(a=1)][g()]", "one list"),
        ("[f() for x in 'ab']", "one list"),
        ("[f(), g]", "not a call"),
        ("[[f()]]", "not a call"),
        ("[*f()]", "not a call"),
        ("[f(a=1)()]", "by its name"),
        ("[f().g()]", "by its name"),
        ("['f'.upper()]", "by its name"),
        ("[f(a=b)]", "not a literal"),
        ("[f(a=true)]", "not a literal"),
        ("[f(a=g())]", "not a literal"),
        ("[f(a=1+1)]", "not a literal"),
        ("[f(a=-True)]", "not a literal"),
        ("[f(a=--1)]", "not a literal"),
        ("[f(a=+1)]", "not a literal"),
        ("[f(a=1j)]", "not a literal"),
        ("[f(a=b'x')]", "not a literal"),
        ("[f(a=...)]", "not a literal"),
        ("[f(a={1})]", "not a literal"),
        ("[f(a={1: 2})]", "not a literal"),
        ("[f(a={**{}})]", "not a literal"),
        ("[f(a=f'{b}')]", "not a literal"),
        ("[f(a=[*'ab'])]", "not a literal"),
        ("[f(*[1])]", "not a literal"),
        ("[f(**{'a': 1})]", "not allowed"),
        ("[f(a=1, a=2)]", "twice"),
        ("[f(a=1, 2)]", "positional argument follows"),
        ("[f(a=1), g(b=)]", "cannot be read"),  # one bad call spoils the message
        ("[f(a=1e999)]", "has no Infinity"),
        (r"[f(a='\ud800')]", "half a surrogate pair"),
        ("[f(a='\udc80')]", "surrogates"),
        ("[f(a='\0')]", "null bytes"),
        ("[f(a=" + "9" * 401 + ")]", "more than 400 digits"),
        ("[f(a=-" + "9" * 401 + ")]", "more than 400 digits"),
        ("[f(a=1" + "0" * 400 + ")]", "more than 400 digits"),
        ("[f(a=0x" + "f" * 400 + ")]", "more than 400 digits"),
        ("[f(a=" + "-" * 7_000 + "1)]", "nested too deeply"),
        ("a" * (MAX_ACTION_CHARACTERS + 1), "longer than 8000"),
    ],
)
def test_what_is_none(text, complaint):
    action = parse(text)
    assert not action.calls and not action.answer
    assert complaint in action.error


@pytest.mark.parametrize("sign", ["", "-"])
def test_the_digits_of_an_integer_are_bounded_whatever_the_interpreter_allows(sign):
    digits = sign + "9" * MAX_INTEGER_DIGITS
    allowed = sys.get_int_max_str_digits()
    try:
        for limit in (allowed, 0):  # 0: no limit
            sys.set_int_max_str_digits(limit)
            assert parse(f"[f(a={digits})]").calls == (Call("f", {"a": int(digits)}),)
            for more in (digits + "0", digits * 10, sign + "9" * 7_900):
                assert parse(f"[f(a={more})]").error
    finally:
        sys.set_int_max_str_digits(allowed)


def test_the_longest_message_is_read():
    text = f"[f(a='{'a' * (MAX_ACTION_CHARACTERS - 9)}')]"
    assert len(text) == MAX_ACTION_CHARACTERS and parse(text).calls


# ------------------------------------------------------------------------- positional arguments
PARAMETERS = {"open_file": ("name", "lines"), "sign_out": ()}


def test_positional_arguments_are_dropped_as_officially():
    assert parse("[open_file('report', lines=2)]").calls == (Call("open_file", {"lines": 2}),)
    assert parse("[unknown('report')]").calls == (Call("unknown"),)
    assert parse("[open_file(1 + 1)]").error  # but what is no literal is not passed over


def test_official_reads_lists_alone():
    assert official("[f(a=1)]").calls == official("`f(a=1)`").calls == (CALL,)
    assert official("[open_file('report', lines=2)]").calls == (Call("open_file", {"lines": 2}),)
    assert not official("I call [f(a=1)]").calls and not official("```python\n[f(a=1)]\n```").calls


def test_positional_arguments_take_the_documented_names_in_order():
    def read(text):
        return parse(text, PARAMETERS)

    assert read("[open_file('report', 2)]").calls == (Call("open_file", {"name": "report", "lines": 2}),)
    assert read("[open_file('report', lines=2)]").calls == (Call("open_file", {"name": "report", "lines": 2}),)
    assert read("[unknown(a=1)]").calls == (Call("unknown", {"a": 1}),)  # the environment says that there is none
    assert "takes no 3 positional" in read("[open_file(1, 2, 3)]").error
    assert "takes no 1 positional" in read("[sign_out(1)]").error
    assert "takes no 1 positional" in read("[unknown(1)]").error
    assert "twice" in read("[open_file('report', name='budget')]").error


def test_the_codec_names_positional_arguments_if_it_knows_the_tools():
    tokenizer = small_tokenizer()
    assert python_list_codec(tokenizer).parse("[open_file('a')]").calls == (Call("open_file"),)
    knowing = python_list_codec(tokenizer, tools=TOOLS)
    assert knowing.parse("[open_file('a', 2)]").calls == (Call("open_file", {"name": "a", "lines": 2}),)


def test_every_gold_call_of_bfcl_is_read_as_the_environment_reads_it():
    pytest.importorskip("bfcl_eval", exc_type=ImportError)
    from rods_jax.environments.bfcl import bfcl_domain, load_tasks, release_root

    parameters = {tool.name: tuple(tool.parameters["properties"]) for tool in bfcl_domain().tools.values()}
    answers = release_root() / "data/possible_answer/BFCL_v4_multi_turn_base.json"
    count = 0
    for task, line in zip(load_tasks(("base",)), answers.read_text("utf-8").splitlines(), strict=True):
        for turn, texts in zip(task.turns, json.loads(line)["ground_truth"], strict=True):
            count += len(texts)
            if texts:
                read = parse(f"[{', '.join(texts)}]", parameters).calls
                assert json.dumps([vars(c) for c in read]) == json.dumps([vars(c) for c in turn.gold])
    assert count == 1_142
