"""Users that are language models: what they are asked, what of their replies is said, and whose fault an error is."""

import json

import jax
import pytest
from chat_server import chat_server, completion, send

from models.decoder import DecoderConfig
from models.policy import callables
from rods_jax import chat
from rods_jax.chat import MALFORMED_CALL, REFUSED, Endpoint, Reply, Request, http_generate
from rods_jax.codecs.documents import tool_name
from rods_jax.codecs.qwen import qwen_codec
from rods_jax.codecs.tokenizer import train_tokenizer
from rods_jax.environments.conversation import AGENT, USER, Heard, Line, Reason, Spoken
from rods_jax.environments.users import model_user, seen_by
from rods_jax.generation import Sampling, generator
from rods_jax.policy_chat import _encode, _said, policy_generate
from rods_jax.types import Call, Message, Policy, Task, ToolSpec, Turn, World

TASK = Task("t", "t", "talk", World(()), (Turn("-"),))
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": []}
LIGHT = ToolSpec("light", "Lights.", SCHEMA, "Room")
FUNCTION = {"type": "function", "function": {"name": "light", "description": "Lights.", "parameters": SCHEMA}}
LINES = (
    Line(AGENT, "Hi."),
    Line(USER, "Dark here."),
    Line(AGENT, "Press it."),
    Line(USER, "", (Call("light", {"n": 1}), Call("light"))),
    Line(USER, "lit", result=True),
    Line(USER, "lit again", result=True),
)
HEARD = Heard(TASK, LINES)


def answering(*replies: Reply):
    """(a model that gives these replies, one to all requests of a call, and what it was asked so far)."""
    asked: list[Request] = []

    def generate(requests):
        asked.append(requests[-1])
        return [replies[len(asked) - 1]] * len(requests)

    return generate, asked


def test_the_model_is_asked_from_its_own_side_with_its_own_calls():
    generate, asked = answering(Reply("It is lit."))
    assert model_user(generate, lambda task: f"You are {task.id}.", [LIGHT])(HEARD) == Spoken("It is lit.")
    (request,) = asked
    assert [message["role"] for message in request.messages] == [
        "system", "user", "assistant", "user", "assistant", "tool", "tool"
    ]  # fmt: skip
    calls = request.messages[4]["tool_calls"]
    assert [json.loads(one["function"]["arguments"]) for one in calls] == [{"n": 1}, {}]
    assert [one["id"] for one in calls] == [one["tool_call_id"] for one in request.messages[5:]]
    assert request.tools == (FUNCTION,) and request.messages[0]["content"] == "You are t."
    odd = (*LINES, Line(USER, "", (Call("check router!"),)))  # servers refuse such a name
    assert seen_by(odd)[-1]["tool_calls"][0]["function"]["name"] == "check_router_"
    assert [m["role"] for m in seen_by(LINES[:3], AGENT)] == ["assistant", "user", "assistant"]  # the other side


@pytest.mark.parametrize(
    "replies, spoken",
    [
        ([Reply("", (Call("light"),))], Spoken("", (Call("light"),))),
        ([Reply("<think>###STOP###</think>Yes.")], Spoken("Yes.")),
        ([Reply("  "), Reply("Yes.")], Spoken("Yes.")),  # an empty message is asked for once more
        ([Reply("<think>cut", error=chat.CUT), Reply("Yes.")], Spoken("Yes.")),
        ([Reply(""), Reply("", error=MALFORMED_CALL)], Spoken(ended=Reason.USER_ERROR)),
        ([Reply("", error=chat.TOO_LONG)], Spoken(ended=Reason.CONTEXT_WINDOW)),
        ([Reply("", error=chat.TIMEOUT, detail="60 s")], Spoken(failure="timeout: 60 s")),
    ],
)
def test_what_becomes_of_a_reply(replies, spoken):
    generate, asked = answering(*replies)
    assert model_user(generate, lambda task: "-")(HEARD) == spoken and len(asked) == len(replies)


def test_the_second_try_has_noise_of_its_own():
    """A policy of ours says the same to the same, but for equal requests of one call."""

    def generate(requests):
        return [Reply("" if place == 0 else "Yes.") for place, _ in enumerate(requests)]

    assert model_user(generate, lambda task: "-")(HEARD) == Spoken("Yes.")


def test_a_user_behind_a_server_calls_its_tools():
    def respond(handler, body):
        called = {"name": "light", "arguments": '{"n": 2}'}
        send(handler, completion(None, [called]) if body["messages"][-1]["role"] == "user" else completion("Lit now."))

    with chat_server(respond) as (url, requests):
        user = model_user(http_generate(Endpoint(url=url, model="m")), lambda task: "Be brief.", [LIGHT])
        first = user(Heard(TASK, LINES[:3]))
        assert first.calls == (Call("light", {"n": 2}),)
        assert user(HEARD) == Spoken("Lit now.")
        assert requests[0]["tools"] == [FUNCTION] and requests[1]["messages"][-1]["role"] == "tool"


# ------------------------------------------------------------------------------ a policy of ours as the user
CODEC = qwen_codec(train_tokenizer(["You are a user. Dark here. Press it. lit again light"], vocab_size=320), tool_name)


def test_a_policy_of_ours_gets_the_conversation_as_its_codec_writes_it():
    request = Request(({"role": "system", "content": "You are a user."}, *seen_by(LINES)), (FUNCTION,))
    tokens = CODEC.encode_prompt([LIGHT], "Hi.", "You are a user.")
    tokens += CODEC.encode_action((), "Dark here.") + CODEC.encode_messages([Message("user", "Press it.")])
    tokens += CODEC.encode_action(LINES[3].calls, "")
    tokens += CODEC.encode_messages([Message("tool", "lit"), Message("tool", "lit again")])
    assert _encode(CODEC, request) == tokens
    # Its own message is read as a policy's is.
    called = CODEC.encode_action((Call("light", {"n": 3}),), "")
    assert _said(CODEC, request, [1, 2], called, 9) == Reply("", (Call("light", {"n": 3}),), None, 2, len(called))
    broken = _said(CODEC, request, [1], CODEC.encode_action((), "<tool_call> {"), 9)
    assert broken.error == MALFORMED_CALL and broken.detail and not broken.calls
    assert _said(CODEC, Request(request.messages), [1], called, 9).text.startswith(
        "<tool_call>"
    )  # without tools as it is
    # One that was cut off has no stop token. It is nobody's message, even where a part of it can be read.
    for asked in (request, Request(request.messages)):
        cut = _said(CODEC, asked, [1, 2], called[:-1], 9)
        assert (cut.error, cut.calls, cut.completion_tokens) == (chat.CUT, (), len(called) - 1)
        assert cut.detail == f"the message is longer than {len(called) - 1} tokens" and "light" in cut.text


def test_an_untrained_policy_is_a_user():
    policy = Policy(**callables(DecoderConfig(320, 1, 16, 2, 1, 8, 16)))
    compiled = generator(policy, stop_tokens=CODEC.stop_tokens, group_size=1, suffix_capacity=8, max_action_tokens=8)
    params = policy.init(jax.random.key(0))
    generate = policy_generate(
        lambda: params, CODEC, compiled, rows=1, prompt_capacity=256, sampling=Sampling(1.0), seed=0
    )
    spoken = model_user(generate, lambda task: "You are a user.")(HEARD)
    assert spoken.text or spoken.ended == Reason.USER_ERROR
    refused = generate([Request(({"role": "user", "content": "a"},), ({"type": "function", "function": {}},))])
    assert refused[0].error == REFUSED
