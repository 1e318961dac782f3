"""The chat client against a real server that behaves, and one that does not."""

import json
import threading
import time
from dataclasses import asdict
from email.utils import formatdate

import pytest
from chat_server import HELLO, ask, chat_server, completion, cut_json, drip, fail, hang_up, in_turn, say, send, tear
from hypothesis import given, settings
from hypothesis import strategies as st

from rods_jax import chat
from rods_jax.chat import Endpoint, Reply, Request, http_generate
from rods_jax.types import Call


def test_a_request_says_what_the_endpoint_and_the_caller_say():
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    (reply,), (seen,) = ask(say("hi"), (Request(HELLO.messages, (tool,)),), temperature=0.5, max_tokens=7)
    assert reply == Reply("hi", prompt_tokens=10, completion_tokens=5)
    assert seen["path"] == "/v1/chat/completions" and seen["tools"] == [tool]
    assert seen["messages"] == list(HELLO.messages)
    assert (seen["model"], seen["temperature"], seen["top_p"], seen["max_tokens"]) == ("m", 0.5, 0.7, 7)
    (_,), (seen,) = ask(say("hi"))
    assert "tools" not in seen and seen["temperature"] == 1.0


def test_tool_calls_become_calls():
    calls = [{"name": "f", "arguments": '{"a": [1, "é"]}'}, {"name": "g", "arguments": ""}]
    (reply,), _ = ask(lambda handler, body: send(handler, completion(None, calls)))
    assert reply.calls == (Call("f", {"a": [1, "é"]}), Call("g")) and reply.error is None and reply.text == ""


@pytest.mark.parametrize(
    "arguments",
    ['{"a": ', "[1]", '{"a": NaN}', "[" * 100_000, '{"a": ' + "9" * 500 + "}", '{"a": "\\ud800"}',
     '{"a": 1, "a": 2}', '{"a": ' + "[" * 600 + "]" * 600 + "}", [1], 7, {"a": float("nan")}, {"a": 10**500},
     json.loads('{"a": ' + "[" * 300 + "]" * 300 + "}")],
)  # fmt: skip
def test_a_call_that_cannot_be_read_is_the_models_error(arguments):
    broken = completion("text", [{"name": "f", "arguments": arguments}])
    (reply,), seen = ask(lambda handler, body: send(handler, broken))
    assert (reply.error, reply.calls, reply.text, len(seen)) == (chat.MALFORMED_CALL, (), "text", 1)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (hang_up, chat.CONNECTION),
        (tear, chat.CONNECTION),
        (cut_json, chat.MALFORMED_REPLY),
        (fail(429), chat.RATE_LIMITED),
        (fail(500), chat.SERVER_ERROR),
        (fail(503), chat.SERVER_ERROR),
        (drip(4.0), chat.TIMEOUT),
        (lambda handler, body: time.sleep(1.6), chat.TIMEOUT),
    ],
)
def test_what_may_pass_is_tried_again_and_then_typed(bad, error):
    settings = {"timeout": 0.8} if error == chat.TIMEOUT else {}
    (reply,), seen = ask(in_turn(bad, bad, say("at last")), **settings)
    assert (reply.text, reply.error, len(seen)) == ("at last", None, 3)
    (reply,), seen = ask(bad, max_retries=1, **settings)
    assert (reply.text, reply.error, len(seen)) == ("", error, 2) and reply.detail


def test_a_server_that_drips_cannot_hold_a_request():
    started = time.monotonic()
    (reply,), _ = ask(drip(20.0), max_retries=0, timeout=0.3)
    assert reply.error == chat.TIMEOUT and time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("statuses", "error"),
    [
        ((301, 308, 401, 402, 403, 404, 405, 410), chat.MISCONFIGURED),
        ((400, 422), chat.REFUSED),
        ((413,), chat.TOO_LONG),
    ],
)
def test_what_would_be_refused_again_is_not_tried_again(statuses, error):
    for status in statuses:
        (reply,), seen = ask(fail(status, text="wrong\n  model"))
        assert (reply.error, len(seen)) == (error, 1)
        assert str(status) in reply.detail and "\n" not in reply.detail


@pytest.mark.parametrize("status", [408, 409, 425, 500, 502, 503, 529])
def test_a_status_that_may_pass_is_tried_again(status):
    (reply,), seen = ask(in_turn(fail(status), say("at last")))
    assert (reply.text, len(seen)) == ("at last", 2)
    (reply,), _ = ask(fail(status), max_retries=0)
    assert reply.error == chat.SERVER_ERROR


TOO_LONG = [  # how servers say it
    "This model's maximum context length is 8192 tokens. Please reduce the length of the messages.",
    "The decoder prompt (length 9000) is longer than the maximum model length of 8192.",
    "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
    "the request exceeds the available context size, try increasing it",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens",
    "prompt is too long: 215000 tokens > 200000 maximum",
    "Prompt contains 33000 tokens, too large for model with 32768 maximum context length",
    "The input token count (40000) exceeds the maximum number of tokens allowed (32768).",
]


@pytest.mark.parametrize("text", TOO_LONG)
def test_a_conversation_that_is_too_long_is_told_from_a_bad_request(text):
    for status in (400, 413, 422):
        assert ask(fail(status, text=text))[0][0].error == chat.TOO_LONG
    assert ask(fail(401, text=text))[0][0].error == chat.MISCONFIGURED


def test_only_the_beginning_of_an_error_is_searched():
    """The pattern nearly matches everywhere in these 8 MB; it does match at their end, which is not looked at."""
    assert ask(fail(400, text="input tokens " * 600_000 + "exceed"))[0][0].error == chat.REFUSED


@pytest.mark.parametrize("text", ["messages must alternate", "unknown field top_k", "invalid tool schema"])
def test_another_bad_request_is_no_matter_of_length(text):
    assert ask(fail(400, text=text))[0][0].error == chat.REFUSED


OTHER_JSON = [
    [], 7, None, "text", {}, {"choices": []}, {"choices": {}}, {"choices": [None]}, {"choices": [{"message": 1}]},
    {"choices": [{"message": {"content": [1]}}]},
    {"choices": [{"message": {"content": "a", "tool_calls": [{}]}}]},
    {"choices": [{"message": {"content": [{"type": "image_url"}]}}]},
    {"error": {"message": "overloaded"}},
]  # fmt: skip


def test_other_json_is_a_malformed_reply():
    for body in OTHER_JSON:
        raw = json.dumps(body).encode()
        (reply,), _ = ask(lambda handler, body, raw=raw: send(handler, raw), max_retries=0)
        assert reply.error == chat.MALFORMED_REPLY, body


KEYS = [
    "choices",
    "message",
    "content",
    "tool_calls",
    "function",
    "usage",
    "name",
    "arguments",
    "type",
    "text",
    "error",
]
KEYS += ["code", "finish_reason", "reasoning", "reasoning_content", "refusal", "function_call", "prompt_tokens"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(KEYS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=8,
)


def nearly(fields):
    """A completion whose message has these fields."""
    choice = {"message": fields, "finish_reason": fields.get("finish_reason")}
    return {"choices": [choice], "usage": fields.get("usage")}


CALLS = st.lists(st.fixed_dictionaries({"function": st.dictionaries(st.sampled_from(KEYS), JSON)}), max_size=2)
REPLIES = (
    JSON
    | st.dictionaries(st.sampled_from(KEYS), JSON).map(nearly)
    | CALLS.map(lambda some: nearly({"tool_calls": some}))
)


@settings(deadline=None, max_examples=30)
@given(st.lists(REPLIES | st.binary(max_size=30), min_size=3, max_size=3))
def test_whatever_a_server_sends_is_a_reply(server_bodies):
    raws = [body if isinstance(body, bytes) else json.dumps(body).encode() for body in server_bodies]
    replies, _ = ask(in_turn(*(lambda h, b, raw=raw: send(h, raw) for raw in raws)), (HELLO,) * 3, max_retries=0)
    assert all(isinstance(reply, Reply) for reply in replies) and len(replies) == 3
    json.dumps([asdict(reply) for reply in replies], allow_nan=False).encode()  # as journals keep it
    "".join(reply.text + reply.reasoning for reply in replies).encode()


# ------------------------------------------------------------------------------ waiting and limits
def test_waits_double_and_their_jitter_follows_the_seed(monkeypatch):
    def waits(seed):
        slept = []
        with monkeypatch.context() as patch:
            patch.setattr(chat.time, "sleep", lambda seconds: seconds and slept.append(seconds))
            with chat_server(fail(500)) as (url, _):
                endpoint = Endpoint(url=url, model="m", first_wait=1.0, max_retries=8)
                http_generate(endpoint, seed=seed)([HELLO])
        return slept

    first = waits(0)
    assert (
        all(min(2**n / 2, chat.MAX_WAIT) <= wait <= min(2**n, chat.MAX_WAIT) for n, wait in enumerate(first))
        and len(first) >= 6
    )
    assert first == waits(0) != waits(1)


def test_the_server_may_say_how_long_to_wait():
    started = time.monotonic()
    (reply,), _ = ask(in_turn(fail(429, {"retry-after": "1"}), say("done")))
    assert reply.text == "done" and time.monotonic() - started >= 1.0
    (reply,), seen = ask(fail(503, {"retry-after": "3600"}))  # longer than anybody waits: a refusal
    assert (reply.error, len(seen)) == (chat.SERVER_ERROR, 1)
    assert chat._retry_after(formatdate(time.time() + 30, usegmt=True)) == pytest.approx(30, abs=2)
    assert chat._retry_after("Fri, 01 Jan 1999 00:00:00 GMT") == 0 and chat._retry_after(" 1.5 ") == 1.5
    assert chat._retry_after("9" * 5_000) > chat.MAX_WAIT
    for nonsense in (
        None, "", "soon", "²", "-1", "inf", "nan", "1e3", "0x10", "Mon, 99999999999999999999 Jan 2020 00:00:00 GMT",
        "Mon, 01 Jan 2020 00:00:00 +99999999999999", "Mon, 01 Jan 2020 99999999999999999999:00:00 GMT",
    ):  # fmt: skip
        assert chat._retry_after(nonsense) is None


def test_replies_keep_the_order_of_requests_and_concurrency_its_limit():
    lock, now, most = threading.Lock(), [0], [0]

    def echo(handler, body):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        number = int(body["messages"][0]["content"])
        time.sleep(0.1 - 0.01 * number)
        with lock:
            now[0] -= 1
        send(handler, completion(str(number)))

    requests = [Request(({"role": "user", "content": str(n)},)) for n in range(8)]
    with chat_server(echo) as (url, _):
        generate = http_generate(Endpoint(url=url, model="m", concurrency=3))
        batches: list[list[Reply]] = []
        threads = [threading.Thread(target=lambda: batches.append(generate(requests))) for _ in range(2)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert generate([]) == []
    assert [[reply.text for reply in batch] for batch in batches] == [[str(n) for n in range(8)]] * 2
    assert most[0] == 3  # over both batches


def test_the_rate_holds_over_calls_and_retries():
    times = []

    def note(handler, body):
        times.append(time.monotonic())
        in_turn_(handler, body)

    in_turn_ = in_turn(fail(500), say("a"))
    started = time.monotonic()
    replies, _ = ask(note, (HELLO,) * 3, requests_per_minute=600, concurrency=4)
    assert [reply.text for reply in replies] == ["a"] * 3
    assert len(times) == 4 and all(when - started >= 0.1 * n for n, when in enumerate(times))


def test_a_spent_budget_ends_the_questions():
    replies, seen = ask(say("a"), (HELLO,) * 4, max_total_tokens=30, concurrency=1)  # 15 a reply
    assert [reply.error for reply in replies] == [None, None, chat.BUDGET_EXHAUSTED, chat.BUDGET_EXHAUSTED]
    assert len(seen) == 2
    prices = {"prompt_price": 1e5, "completion_price": 4e5}  # 1 + 2 a reply
    replies, _ = ask(say("a"), (HELLO,) * 4, max_cost=8.0, concurrency=1, **prices)
    assert [reply.error for reply in replies] == [None, None, None, chat.BUDGET_EXHAUSTED]
    replies, _ = ask(say("a", usage=None), (HELLO,) * 3, max_total_tokens=10, max_tokens=10, concurrency=1)
    assert [reply.error for reply in replies] == [None, chat.BUDGET_EXHAUSTED, chat.BUDGET_EXHAUSTED]


# ------------------------------------------------------------------------------------ settings
def test_the_key_is_sent_and_never_told(monkeypatch, caplog):
    caplog.set_level(0)
    monkeypatch.setenv("CHAT_TEST_KEY", "sk-very-secret\n")
    echo = fail(401, text="x" * 120 + "Incorrect key: Bearer sk-very-secret, sk-very-secret")
    (reply,), (seen,) = ask(echo, api_key_env="CHAT_TEST_KEY")
    assert seen["headers"]["authorization"] == "Bearer sk-very-secret"
    endpoint = Endpoint(url="http://localhost/v1", model="m", api_key_env="CHAT_TEST_KEY")
    assert "secret" not in repr(reply) + caplog.text + repr(endpoint) + str(asdict(endpoint))
    assert "***" in reply.detail
    call = {"id": "c", "function": {"name": "f", "arguments": '{"a": ["sk-very-secret"]}'}}
    message = {"content": "sk-very-secret", "reasoning_content": "it is sk-very-secret", "tool_calls": [call]}
    body = {"choices": [{"message": message}]}
    (reply,), _ = ask(lambda handler, _: send(handler, body), api_key_env="CHAT_TEST_KEY")
    assert (reply.text, reply.reasoning, reply.calls) == ("***", "it is ***", (Call("f", {"a": ["***"]}),))


@pytest.mark.parametrize("key", ["none", "0", "u"])
def test_a_key_that_is_part_of_what_json_writes_spoils_no_reply(monkeypatch, key):
    monkeypatch.setenv("CHAT_TEST_KEY", key)
    call = {"id": "c", "function": {"name": "f", "arguments": '{"n": 100, "a": null, "b": [true, "\\u00e9"]}'}}
    body = {"choices": [{"message": {"content": "Two are open.\none is closed. ü", "tool_calls": [call]}}]}
    (reply,), _ = ask(lambda handler, _: send(handler, body), api_key_env="CHAT_TEST_KEY")
    assert reply.text == "Two are open.\none is closed. ü".replace(key, "***")
    assert reply.calls == (Call("f", {"n": 100, "a": None, "b": [True, "é"]}),)


@pytest.mark.parametrize("value", ["", " ", "a\nb", "schlüssel"])
def test_a_key_must_be_there_and_is_not_in_the_complaint(monkeypatch, value):
    monkeypatch.setenv("CHAT_TEST_KEY", value)
    with pytest.raises(ValueError, match="CHAT_TEST_KEY must hold the key of http://h/v1") as error:
        http_generate(Endpoint(url="http://h/v1", model="m", api_key_env="CHAT_TEST_KEY"))
    assert not value.strip() or value not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "localhost:8000"}, "url must start with"),
        ({"url": "ftp://h"}, "url must start with"),
        ({"url": "http://h:99999/v1"}, "url must start with http:// or https:// and name a host"),
        ({"url": "http://[::1"}, "url: "),
        ({"url": "http://me:word@h/v1"}, "a key belongs in"),
        ({"url": "http://h/v1?key=word"}, "a key belongs in"),
        ({"url": "http://h/v1/chat/completions/"}, "url must end before /chat/completions"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("inf")}, "timeout must be at most"),
        ({"extra": {"stream": True}}, "extra must not hold 'stream'"),
        ({"extra": {"x": {1, 2}}}, "extra must hold JSON values"),
        ({"extra": {"x": float("nan")}}, "extra must hold JSON values"),
        ({"concurrency": 0}, "concurrency"),
        ({"max_retries": -1}, "max_retries"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"requests_per_minute": 1e-300}, "requests_per_minute"),
        ({"first_wait": 1e300}, "first_wait must be at most"),
        ({"temperature": float("inf")}, "temperature"),
        ({"max_cost": 1.0}, "max_cost needs"),
    ],
)
def test_an_impossible_endpoint_is_one_sentence(settings, words):
    with pytest.raises(ValueError, match=words) as error:
        Endpoint(**{"url": "http://h/v1", "model": "m"} | settings)
    assert "word" not in str(error.value) and "\n" not in str(error.value)


def test_an_error_is_told_in_few_characters_and_never_half_a_key(monkeypatch):
    monkeypatch.setenv("CHAT_TEST_KEY", "sk-very-secret")
    (reply,), _ = ask(fail(401, text="x" * 160 + " sk-very-secret " + "y" * 999), api_key_env="CHAT_TEST_KEY")
    assert len(reply.detail) == chat.MAX_DETAIL and "sk-very" not in reply.detail and "***" in reply.detail


def test_a_reply_without_a_count_costs_the_most_whatever_became_of_it():
    cut = {"choices": [{"message": {"content": "Now"}, "finish_reason": "length"}]}
    replies, _ = ask(
        lambda handler, _: send(handler, cut), (HELLO,) * 2, max_total_tokens=9, max_tokens=9, concurrency=1
    )
    assert [reply.error for reply in replies] == [chat.CUT, chat.BUDGET_EXHAUSTED]
