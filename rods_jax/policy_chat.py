"""A policy of ours as a chat backend, beside chat.http_generate: the one under training, or a user's."""

import itertools
import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from rods_jax.chat import CUT, MALFORMED_CALL, REFUSED, TOO_LONG, Generate, Reply, Request
from rods_jax.codecs.grammar import served_call
from rods_jax.generation import Generator, Sampling, rollout_keys
from rods_jax.types import Codec, Json, Message, ToolSpec

LOOK = 0.002  # seconds between two looks at who else asks


def policy_generate(
    params: Callable[[], Any],
    codec: Codec,
    generator: Generator,
    *,
    rows: int,
    prompt_capacity: int,
    sampling: Sampling,
    seed: int,
) -> Generate:
    """A function that samples replies `rows` at a time; its shapes are fixed, so that it compiles once.

    params: the weights of this moment, asked for once a batch.  generator: built with group_size 1.
    Threads that ask at once share batches.  Noise depends on (seed, request, how many equal ones stand before it in the
    same call, position), so that no order of threads changes a reply.  Reply.error "refused": the request has a tool
    without a name, a description or parameters, or another order than user and assistant in turn; "too_long": it has more
    than `prompt_capacity` tokens; "cut": the message did not end within the generator's limit.
    """
    turn, leads = threading.Condition(), False  # one thread leads: it answers for all
    waiting: deque[tuple[Request, str, Future[Reply]]] = deque()
    quickest = 0.0  # seconds that a batch takes, compilations apart

    def generate(requests: Sequence[Request]) -> list[Reply]:
        nonlocal leads
        before, asked = Counter[str](), []
        for request in requests:
            said = json.dumps([list(request.messages), list(request.tools)], default=str)
            asked.append((request, f"{said}{before[said]}", Future[Reply]()))
            before[said] += 1
        waiting.extend(asked)
        answered = lambda: all(reply.done() for *_, reply in asked)
        while not answered():
            with turn:
                turn.wait_for(lambda: answered() or not leads)
                if answered():
                    break
                leads = True
            try:
                _gather()
                _answer([waiting.popleft() for _ in range(min(rows, len(waiting)))])
            finally:
                with turn:
                    leads = False
                    turn.notify_all()
        return [reply.result() for *_, reply in asked]

    def _gather() -> None:
        """Waits for each further request at most as long as a batch takes, which costs the same however few ask."""
        seen, since = 0, time.monotonic()
        while len(waiting) < rows and (seen < len(waiting) or time.monotonic() - since < quickest):
            if seen < len(waiting):
                seen, since = len(waiting), time.monotonic()
            time.sleep(LOOK)

    def _answer(some: Sequence[tuple[Request, str, Future[Reply]]]) -> None:
        nonlocal quickest
        requests, labels, replies = zip(*some, strict=True)
        began = time.monotonic()
        try:
            for reply, found in zip(replies, _reply(requests, labels), strict=True):
                reply.set_result(found)
            spent = time.monotonic() - began
            quickest = min(quickest or spent, spent)
        except BaseException as error:  # each of those who asked gets it
            for reply in replies:
                reply.set_exception(error)

    def _reply(requests: Sequence[Request], labels: Sequence[str]) -> list[Reply]:
        prompts = [_encode(codec, request) for request in requests]
        tokens_NP = np.zeros((rows, prompt_capacity), np.int32)
        lengths_N = np.ones(rows, np.int32)
        active_N1 = np.zeros((rows, 1), bool)
        for row, prompt in enumerate(prompts):
            if isinstance(prompt, list) and len(prompt) <= prompt_capacity:
                tokens_NP[row, : len(prompt)] = prompt
                lengths_N[row] = len(prompt)
                active_N1[row] = True
        keys = rollout_keys(seed, 0, [*labels, *[""] * (rows - len(labels))], 1)
        weights = params()
        generated, _ = generator.act(weights, generator.start(weights, tokens_NP, lengths_N, keys), active_N1, sampling)
        sampled_NA, counts_N = np.asarray(generated.tokens_NGA)[:, 0], np.asarray(generated.lengths_NG)[:, 0]
        said = [sampled_NA[row, : counts_N[row]].tolist() for row in range(len(prompts))]
        return [
            _said(codec, request, prompt, tokens, prompt_capacity)
            for request, prompt, tokens in zip(requests, prompts, said, strict=True)
        ]

    return generate


def _encode(codec: Codec, request: Request) -> list[int] | str:
    """The prompt's tokens, or why there is none."""
    rules, messages = "", list(request.messages)
    try:
        if messages and messages[0]["role"] == "system":
            rules = messages.pop(0)["content"]
        tools = [_tool(**one["function"]) for one in request.tools]
        first, *later = messages
        replies = [[*group] for _, group in itertools.groupby(later, lambda message: message["role"] == "assistant")]
        roles = {message["role"] for heard in replies[1::2] for message in heard}
        alternate = len(replies) % 2 == 0 and all(len(said) == 1 for said in replies[::2])
        if first["role"] != "user" or not roles <= {"user", "tool"} or not alternate:
            raise ValueError
        tokens = codec.encode_prompt(tools, first["content"], rules)
        for (said,), heard in zip(replies[::2], replies[1::2], strict=True):
            calls = [served_call(**_named(one["function"])) for one in said.get("tool_calls", ())]
            tokens = tokens + codec.encode_action(calls, said["content"])
            tokens = tokens + codec.encode_messages([Message(one["role"], one["content"]) for one in heard])
    except (KeyError, TypeError, ValueError):
        return "a request must have tools with name, description and parameters, and user and assistant in turn"
    return tokens


def _tool(name: str, description: str, parameters: Mapping[str, Json], **_: Json) -> ToolSpec:
    return ToolSpec(name, description, parameters, "")


def _named(function: Mapping[str, Json]) -> dict[str, Json]:
    return {"name": function["name"], "arguments": function["arguments"]}


def _said(codec: Codec, request: Request, prompt: list[int] | str, tokens: list[int], capacity: int) -> Reply:
    """A reply; where the request has tools, it is read as the messages of a run's policy are."""
    if isinstance(prompt, str):
        return Reply("", error=REFUSED, detail=prompt)
    if len(prompt) > capacity:
        return Reply("", error=TOO_LONG, detail=f"the prompt has {len(prompt)} tokens, more than {capacity}")
    text, counts = codec.decode(tokens), (len(prompt), len(tokens))
    if not tokens or tokens[-1] not in codec.stop_tokens:  # what was cut short may look whole
        return Reply(text, (), CUT, *counts, detail=f"the message is longer than {len(tokens)} tokens")
    if not request.tools:
        return Reply(text, (), None, *counts)
    action = codec.parse(text)
    error = None if action.error is None else MALFORMED_CALL
    return Reply(action.answer, action.calls, error, *counts, detail=action.error or "")
