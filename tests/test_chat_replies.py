"""What a server says a model said, and whose fault it is when that cannot be used."""

import json

import pytest
from chat_server import HELLO, ask, chat_server, completion, say, send

from rods_jax import chat
from rods_jax.chat import Endpoint, Reply, http_generate
from rods_jax.types import Call


# ------------------------------------------------------------------------------- what a model said
def message(finish="stop", usage=(10, 5), **fields):
    return {**completion("", usage=usage), "choices": [{"message": fields, "finish_reason": finish}]}


def said(body, **settings):
    (reply,), _ = ask(lambda handler, _: send(handler, body), max_retries=0, **settings)
    return reply


@pytest.mark.parametrize(
    "function",
    [
        {"name": "f", "arguments": {"a": 1}},
        {"name": "f", "arguments": '{"a": 1}'},
        {"name": "f", "arguments": ' {"a": 1}\n'},
    ],
)
def test_arguments_may_be_an_object(function):
    for fields in ({"tool_calls": [{"function": function}]}, {"function_call": function, "tool_calls": None}):
        assert said(message(content=None, **fields)) == Reply("", (Call("f", {"a": 1}),), None, 10, 5)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_number_in_arguments_has_as_many_digits_as_in_a_text(sign):
    """400 at most, its sign not counted, whether the arguments are an object or text."""
    longest = sign * (10**400 - 1)
    for written in ({"n": longest}, json.dumps({"n": longest})):
        assert said(message(tool_calls=[{"function": {"name": "f", "arguments": written}}])).calls == (
            Call("f", {"n": longest}),
        )
    assert said(message(tool_calls=[{"function": {"name": "f", "arguments": {"n": sign * 10**400}}}])).error


@pytest.mark.parametrize("function", [{"name": "f"}, {"name": "f", "arguments": None}, {"name": "f", "arguments": " "}])
def test_arguments_may_be_absent(function):
    assert said(message(tool_calls=[{"function": function}])).calls == (Call("f"),)


def test_content_may_come_in_parts():
    parts = [{"type": "text", "text": "I "}, "open ", {"type": "output_text", "text": "it."}]
    assert said(message(content=parts)).text == "I open it."
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    reply = said(message(content=[thought, *parts]))
    assert (reply.text, reply.reasoning, reply.reasoning_field) == ("I open it.", "Hm.", "")
    assert said(message(content=None, refusal="I will not.")).text == "I will not."


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_is_kept_with_the_name_of_its_field(name):
    reply = said(message(content="Yes.", **{name: "Hm.\ud800"}))
    assert (reply.text, reply.reasoning, reply.reasoning_field) == ("Yes.", "Hm.?", name)
    assert said(message(content="Yes.", **{name: {"a": 1}})).reasoning == ""


def test_a_message_that_did_not_end_by_itself_says_so():
    call = {"function": {"name": "f", "arguments": "{}"}}
    for finish in ("length", "max_tokens"):
        reply = said(message(finish, content="Now I", tool_calls=[call]), max_tokens=7)
        assert (reply.error, reply.text, reply.calls) == (chat.CUT, "Now I", ())
        assert reply.detail == "the message is longer than 7 tokens" and reply.completion_tokens == 5
    assert said(message("content_filter", content=None)).error == chat.FILTERED
    assert said(message("tool_calls", content=None, tool_calls=[call])).error is None
    assert said(message("abort", content="Now")).error == said(message("error")).error == chat.SERVER_ERROR


@pytest.mark.parametrize(
    ("problem", "error"),
    [
        ({"code": 429, "message": "slow down"}, chat.RATE_LIMITED),
        ({"code": 502, "message": None}, chat.SERVER_ERROR),
        ({"code": 401}, chat.MISCONFIGURED),
        ({"code": 400, "message": "maximum context length is 8"}, chat.TOO_LONG),
        ({"code": "overloaded"}, chat.MALFORMED_REPLY),
        ("overloaded", chat.MALFORMED_REPLY),
    ],
)
def test_an_error_beside_http_200_is_told_apart_by_its_code(problem, error):
    assert said(json.dumps({"error": problem}).encode()).error == error


def test_an_errors_text_can_stand_in_a_journal():
    """Half of a surrogate pair could not be read again."""
    assert said(b'{"error": {"code": 401, "message": "no \\ud800"}}').detail == "HTTP 401: no ?"


def test_what_stands_beside_the_message_spoils_nothing():
    good = json.dumps(message(content="hi")).encode()
    beside = good.replace(b'"id"', b'"logprobs": [NaN, 1e999, ' + b"9" * 5_000 + b'], "id": 1, "id"')
    for raw in (good, beside, b"\xef\xbb\xbf" + good, good.replace(b"hi", b"h\xff")):
        assert said(raw).error is None and said(raw).text in ("hi", "h\ufffd")
    for usage in (3, [1], None, {"prompt_tokens": 10**390}, {"prompt_tokens": True, "completion_tokens": 1.5}):
        reply = said({**message(content="hi"), "usage": usage})
        assert (reply.text, reply.error, reply.prompt_tokens, reply.completion_tokens) == ("hi", None, 0, 0)


def test_what_a_model_wrote_is_its_own_fault():
    """Halves of characters, and nestings that break the parser of the whole reply."""
    reply = said(b'{"choices": [{"message": {"content": "a\\ud800"}}]}')
    assert (reply.error, reply.text) == (chat.MALFORMED_CALL, "a?")
    deep = b'{"choices": [{"message": {"tool_calls": [{"function": {"name": "f", "arguments": %b}}]}}]}'
    for levels in (100, 400, 100_000):
        raw = deep.replace(b"%b", b'{"a":' * levels + b"1" + b"}" * levels)
        assert said(raw).error == chat.MALFORMED_CALL
    assert said(b"[" * 100_000).error == chat.MALFORMED_REPLY  # no model's message


def test_more_fields_are_sent_and_none_takes_one_out():
    extra = {"chat_template_kwargs": {"enable_thinking": False}, "max_tokens": None, "max_completion_tokens": 9}
    (_,), (seen,) = ask(say("hi"), extra=extra)
    assert seen["chat_template_kwargs"] == {"enable_thinking": False} and seen["max_completion_tokens"] == 9
    assert "max_tokens" not in seen


def test_a_reply_without_end_is_cut_off():
    def pour(handler, body):
        send(handler, b"", headers={"content-length": str(2**30)})
        while True:
            handler.wfile.write(b" " * 2**20)

    (reply,), _ = ask(pour, max_retries=0)
    assert reply.error == chat.MALFORMED_REPLY and "the reply is too long" in reply.detail


def test_an_unreachable_server_is_a_typed_error():
    with chat_server(say("")) as (url, _):
        pass
    (reply,) = http_generate(Endpoint(url=url, model="m", max_retries=1, first_wait=0.01))([HELLO])
    assert reply.error == chat.CONNECTION
