"""Our own policy as a chat backend, directly and behind an HTTP server."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import jax
import pytest
from chat_server import chat_server, completion, send
from synthesis_toy import TASK, TOY

from models.decoder import DecoderConfig
from models.policy import callables
from rods_jax.chat import CUT, REFUSED, TOO_LONG, Endpoint, Request, http_generate
from rods_jax.codecs.documents import tool_name
from rods_jax.codecs.qwen import qwen_codec
from rods_jax.codecs.tokenizer import train_tokenizer
from rods_jax.generation import Sampling, generator
from rods_jax.policy_chat import policy_generate
from rods_jax.synthesis.ask import ROLES, load_prompts
from rods_jax.synthesis.llm import llm_roles
from rods_jax.synthesis.pipeline import synthesize
from rods_jax.types import Policy

PROMPT, ACTION = 4_096, 12
RULES = [prompt.text for prompt in load_prompts().values()]
CODEC = qwen_codec(train_tokenizer([*RULES, *(turn.user for turn in TASK.turns)], vocab_size=700), tool_name)


@pytest.fixture(scope="module")
def policy():
    return Policy(**callables(DecoderConfig(700, 1, 16, 2, 1, 8, 16)))


@pytest.fixture(scope="module")
def compiled(policy):
    return generator(
        policy, stop_tokens=CODEC.stop_tokens, group_size=1, suffix_capacity=ACTION, max_action_tokens=ACTION
    )


@pytest.fixture(scope="module")
def params(policy):
    return policy.init(jax.random.key(0))


@pytest.fixture
def backend(compiled, params):
    def build(temperature=1.0, capacity=PROMPT, seed=0):
        sampling = Sampling(temperature=temperature)
        return policy_generate(
            lambda: params, CODEC, compiled, rows=2, prompt_capacity=capacity, sampling=sampling, seed=seed
        )

    return build


def say(*texts, system=None):
    roles = ["system"] * (system is not None) + ["user", "assistant"] * len(texts)
    return Request(tuple({"role": r, "content": t} for r, t in zip(roles, [*([system] if system else []), *texts])))


def test_a_reply_does_not_depend_on_its_batch(backend):
    requests = [say("lend it"), say("add a book", system="You judge."), say("lend it", "to whom?", "to anna")]
    together = backend(temperature=0.0)(requests)
    assert together == [backend(temperature=0.0)([request])[0] for request in requests]
    assert len({reply.text for reply in together}) > 1
    assert [(reply.completion_tokens, reply.error) for reply in together] == [(ACTION, CUT)] * 3  # they never stop
    prompts = [CODEC.encode_prompt((), "lend it"), CODEC.encode_prompt((), "add a book", "You judge.")]
    assert [reply.prompt_tokens for reply in together[:2]] == [len(prompt) for prompt in prompts]
    assert together[2].prompt_tokens > together[0].prompt_tokens + len("to whom?to anna") / 4


def test_noise_follows_the_seed_and_the_request(backend):
    request, generate = say("lend it"), backend()
    first, second = generate([request, request])
    assert first != second  # of equal ones in a call, each has noise of its own
    assert generate([request]) == generate([request]) == [first]
    assert backend(seed=1)([request, request]) != [first, second]


def test_threads_that_ask_at_once_share_batches_and_get_what_each_would_alone(backend):
    requests = [say(f"lend it {number}") for number in range(9)]
    alone = [backend()([request])[0] for request in requests]
    generate = backend()
    with ThreadPoolExecutor(len(requests)) as threads:
        assert [*threads.map(lambda request: generate([request])[0], requests)] == alone


def test_threads_that_were_answered_together_ask_together_again(compiled, params):
    """Seven threads ask while a batch is under way, and again when they have been answered: no batch for each of them."""
    go_on, batches = threading.Event(), []

    def weights():  # once a batch
        batches.append(params)
        assert go_on.wait(60)
        return params

    generate = policy_generate(weights, CODEC, compiled, rows=8, prompt_capacity=64, sampling=Sampling(1.0), seed=0)
    ask = lambda name, times: [generate([say(f"{name} {k}")]) for k in range(times)]
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(ask, "first", 1)]
        while not batches:
            time.sleep(0.01)
        asked += [threads.submit(ask, f"other {number}", 2) for number in range(7)]
        time.sleep(0.5)
        go_on.set()
        assert [len(one.result()) for one in asked] == [1] + [2] * 7
    assert len(batches) <= 7  # for 15 questions; 3 where no thread is held up


def test_an_error_reaches_everyone_who_asked(compiled):
    def gone():
        raise RuntimeError("the weights are gone")

    generate = policy_generate(gone, CODEC, compiled, rows=2, prompt_capacity=64, sampling=Sampling(1.0), seed=0)
    for _ in range(2):  # and the next one is answered as well
        with pytest.raises(RuntimeError, match="the weights are gone"):
            generate([say("a"), say("b"), say("c")])


@pytest.mark.parametrize(
    "request_",
    [Request(()), say("a", "b"), Request(({"role": "tool", "content": "a"},)),
     Request(({"content": "a"},)), Request(({"role": "system"}, {"role": "user", "content": "a"})),
     Request(say("a").messages, ({"type": "function"},))],
)  # fmt: skip
def test_what_it_cannot_answer_is_refused(backend, request_):
    other, refused = backend()([say("lend it"), request_])
    assert (refused.error, refused.text) == (REFUSED, "") and refused.detail
    assert other == backend()([say("lend it")])[0]
    assert backend()([]) == []


def test_what_it_cannot_hold_is_too_long_for_it(backend):
    other, long = backend()([say("lend it"), say("lend it " * 3_000)])
    assert (long.error, long.text) == (TOO_LONG, "") and "more than 4096" in long.detail
    assert other == backend()([say("lend it")])[0]


def test_an_untrained_policy_fails_in_every_role_and_breaks_nothing(backend):
    """Directly and served over HTTP: the same replies, all of them typed rejections."""

    def write(generate):
        roles = llm_roles(dict.fromkeys(ROLES, generate))
        return synthesize(TOY, TASK, rng=random.Random(0), step=1, known_hashes=(), roles=roles)

    own = backend()

    def respond(handler, body):
        (reply,) = own([Request(tuple(body["messages"]))])
        answer = completion(reply.text, usage=(reply.prompt_tokens, reply.completion_tokens))
        answer["choices"][0]["finish_reason"] = "length" if reply.error == CUT else "stop"
        send(handler, answer, 200 if reply.error in (None, CUT) else 400)

    with chat_server(respond) as (url, requests):
        served = write(http_generate(Endpoint(url=url, model="policy")))
    direct = write(backend())
    assert [asdict(exchange) for exchange in direct.exchanges] == [asdict(e) for e in served.exchanges]
    assert direct == served and len(requests) == len(direct.exchanges) == 9
    assert direct.candidate is None and [r.error for r in direct.rejections] == ["no_pattern"] * 3
    assert all(0 < exchange.completion_tokens <= ACTION for exchange in direct.exchanges)
