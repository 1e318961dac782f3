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

from rods_jax.chat import MALFORMED_CALL, REFUSED, TOO_LONG, Generate, Reply, Request
from rods_jax.codecs.grammar import served_call
from rods_jax.generation import Generator, Sampling, rollout_keys
from rods_jax.types import Codec, Json, Message, ToolSpec

PATIENCE = 0.005  # seconds in which another thread may join a batch; a batch takes many times as long


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
    than `prompt_capacity` tokens.
    """
    lock = threading.Lock()
    waiting: deque[tuple[Request, str, Future[Reply]]] = deque()

    def generate(requests: Sequence[Request]) -> list[Reply]:
        before, asked = Counter[str](), []
        for request in requests:
            said = json.dumps([list(request.messages), list(request.tools)], default=str)
            asked.append((request, f"{said}{before[said]}", Future[Reply]()))
            before[said] += 1
        waiting.extend(asked)
        # Whoever has the lock answers for all that wait, until its own are answered.
        while not all(reply.done() for *_, reply in asked):
            with lock:
                seen = -1
                while seen < len(waiting) < rows:  # more come: those who have just been answered ask again
                    seen = len(waiting)
                    time.sleep(PATIENCE)
                if some := [waiting.popleft() for _ in range(min(rows, len(waiting)))]:
                    _answer(some)
        return [reply.result() for *_, reply in asked]

    def _answer(some: Sequence[tuple[Request, str, Future[Reply]]]) -> None:
        requests, labels, replies = zip(*some, strict=True)
        try:
            for reply, found in zip(replies, _reply(requests, labels), strict=True):
                reply.set_result(found)
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
    if messages and messages[0]["role"] == "system":
        rules = messages.pop(0)["content"]
    try:
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
    if not request.tools:
        return Reply(text, (), None, *counts)
    action = codec.parse(text)
    error = None if action.error is None else MALFORMED_CALL
    return Reply(action.answer, action.calls, error, *counts, detail=action.error or "")
