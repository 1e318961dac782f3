"""Who answers: a recording, a script, and a real server that does all that servers do."""

import random
import string
import time
from dataclasses import replace

import pytest
from chat_server import chat_server, completion, cut_json, fail, hang_up, send
from synthesis_model import INJECTION, REFUSE, Model, roles_of, seed_of, write
from synthesis_toy import TOY

from rods_jax import chat
from rods_jax.chat import Endpoint, Reply, Request, http_generate
from rods_jax.environments.protocol import STRATA
from rods_jax.environments.scoring import turn_passed
from rods_jax.environments.scoring import turns_passed as run
from rods_jax.synthesis.backends import recorded, recording, scripted
from rods_jax.synthesis.critique import GATES, critique
from rods_jax.synthesis.errors import ADVICE, JUDGE
from rods_jax.synthesis.told import numbers_are_told, value_is_withheld
from rods_jax.types import Call


# ------------------------------------------------------------------------------------- backends
def test_a_recording_answers_as_the_model_did(tmp_path):
    path = tmp_path / "recording.jsonl"
    original = write(None, roles=roles_of(recording(Model(**REFUSE), path)))
    assert write(None, roles=roles_of(recorded(path))) == original
    again = write(None, roles=roles_of(recorded(path)), rng=1)  # other questions: no answers
    assert {r.detail for r in again.rejections} == {"planner: refused: not in recording.jsonl"}
    with pytest.raises(FileExistsError):
        recording(Model(), path)


def test_a_recording_keeps_the_order_of_equal_requests_errors_and_calls(tmp_path):
    path = tmp_path / "recording.jsonl"
    request = Request(({"role": "user", "content": "hello"},), ({"type": "function"},))
    replies = [Reply("a", (Call("f", {"x": [1]}),), None, 3, 4), Reply("", error=chat.TIMEOUT, detail="late")]
    assert recording(scripted(replies), path)([request, request]) == replies
    generate = recorded(path)
    assert generate([request]) + generate([request]) == replies and generate([request])[0].error == chat.REFUSED
    text = path.read_text()
    path.write_text(text[:-9])  # torn: the last reply was never written whole
    assert recorded(path)([request, request])[1].error == chat.REFUSED
    path.write_text(text.replace('"reply"', '"repli"', 1))
    with pytest.raises(ValueError, match=r"recording.jsonl, line 1: no recorded answer \(KeyError\)"):
        recorded(path)


def test_a_script_ends():
    request = Request(({"role": "user", "content": "hello"},))
    generate = scripted(["a", Reply("b")])
    assert [reply.text for reply in generate([request] * 2)] == ["a", "b"]
    assert generate([request])[0].error == chat.REFUSED


# -------------------------------------------------------------------------------- a real server
FAULTS = [
    "none",
    "slow",
    "hang up",
    "429",
    "500",
    "cut",
    "cut text",
    "other role",
    "repeats",
    "injection",
    "prose",
    "noise",
]
TYPES = {
    *ADVICE,
    JUDGE,
    *(gate.__name__ for gate in (*GATES, numbers_are_told, value_is_withheld)),
    "same_profile",
    "layout_too_long",
    "unseen",
}


def test_a_real_server_writes_a_variant():
    model = Model()

    def respond(handler, body):
        send(handler, completion(model.answer(body["messages"]), usage=(7, 3)))

    with chat_server(respond) as (url, requests):
        backend = http_generate(Endpoint(url=url, model="author"))
        result = write(None, roles=roles_of(backend))
    local = Model()
    counted = roles_of(lambda asked: [replace(r, prompt_tokens=7, completion_tokens=3) for r in local(asked)])
    assert result == write(None, roles=counted)
    assert result.candidate is not None and len(requests) == len(result.exchanges) == 13
    assert all(body["temperature"] == 1.0 and body["top_p"] == 0.7 for body in requests)
    assert sum(e.prompt_tokens for e in result.exchanges) == 91


def test_whatever_a_server_does_becomes_an_item_or_a_typed_rejection():
    """Every fault of issue 6, drawn at random for every request; most of them pass, as they do in life."""
    rng, model, last = random.Random(0), Model(), [""]
    drawn, calm = [], [0]

    def respond(handler, body):
        text = model.answer(body["messages"])
        fault = rng.choices(FAULTS, [calm[0]] + [1] * (len(FAULTS) - 1))[0]
        drawn.append(fault)
        match fault:
            case "slow":
                time.sleep(0.6)
            case "hang up":
                return hang_up(handler, body)
            case "429":
                return fail(429, {"retry-after": "0"})(handler, body)
            case "500":
                return fail(500)(handler, body)
            case "cut":
                return cut_json(handler, body)
            case "cut text":
                text = text[: len(text) // 2]
            case "other role":
                text = model.planner({"functions": [], "layout": [], "failures": [], "flow": []})
            case "repeats":
                text = last[0]
            case "injection":
                text = text.replace("<reasoning>", "<reasoning>" + INJECTION)
            case "prose":
                text = "Certainly! Here you are:\n" + text
            case "noise":
                text = "".join(rng.choices(string.printable, k=200))
        last[0] = text
        send(handler, completion(text))

    with chat_server(respond) as (url, requests):
        endpoint = Endpoint(url=url, model="m", timeout=0.4, max_retries=1, first_wait=0.01)
        roles = roles_of(http_generate(endpoint))
        results = []
        for number in range(16):
            calm[0] = (60, 30, 10, 2)[number // 4]  # to one of each fault
            results.append(write(None, seed_of(tuple(STRATA)[number % 4]), rng=number, roles=roles))
    assert set(drawn) == set(FAULTS)
    written = [result.candidate for result in results if result.candidate is not None]
    for task in written:
        assert all(run(TOY, task, [turn.gold for turn in task.turns], turn_passed))
        assert critique(TOY, task, (*GATES, numbers_are_told, value_is_withheld)) is None
        assert INJECTION not in str(task)
    rejections = [rejection for result in results for rejection in result.rejections]
    assert {rejection.error for rejection in rejections} <= TYPES
    assert all(len(result.rejections) == 3 for result in results if result.candidate is None)
    assert len(written) >= 4 and len(rejections) >= 4
    for rejection in rejections:  # a pipeline_exception is the server's, never a bug of ours
        assert rejection.error != "pipeline_exception" or rejection.detail.split(": ")[1] in chat.RETRIED
    assert sum(len(result.exchanges) for result in results) <= len(requests)
