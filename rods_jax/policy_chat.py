"""The policy under training as a chat backend, beside chat.http_generate."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rods_jax.chat import REFUSED, Generate, Reply, Request
from rods_jax.generation import Generator, Sampling, rollout_keys
from rods_jax.types import Codec, Message


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
    The system message stands before the first user message, since a codec has none of its own.  Noise depends on
    (seed, how many requests came before, position).  Reply.error "refused": the request has tools, another order
    than user and assistant in turn, or more than `prompt_capacity` tokens.
    """
    lock = threading.Lock()
    asked = 0

    def generate(requests: Sequence[Request]) -> list[Reply]:
        nonlocal asked
        replies: list[Reply] = []
        with lock:
            for first in range(0, len(requests), rows):
                prompts = [_encode(codec, request, prompt_capacity) for request in requests[first : first + rows]]
                replies += _reply(prompts, range(asked, asked + rows))
                asked += len(prompts)
        return replies

    def _reply(prompts: Sequence[list[int] | str], numbers: range) -> list[Reply]:
        tokens_NP = np.zeros((rows, prompt_capacity), np.int32)
        lengths_N = np.ones(rows, np.int32)
        active_N1 = np.zeros((rows, 1), bool)
        for row, prompt in enumerate(prompts):
            if not isinstance(prompt, str):
                tokens_NP[row, : len(prompt)] = prompt
                lengths_N[row] = len(prompt)
                active_N1[row] = True
        keys = rollout_keys(seed, 0, [str(number) for number in numbers], 1)
        weights = params()
        generated, _ = generator.act(weights, generator.start(weights, tokens_NP, lengths_N, keys), active_N1, sampling)
        sampled_NA, counts_N = np.asarray(generated.tokens_NGA)[:, 0], np.asarray(generated.lengths_NG)[:, 0]
        return [
            Reply("", error=REFUSED, detail=prompt)
            if isinstance(prompt, str)
            else Reply(
                codec.decode(sampled_NA[row, : counts_N[row]].tolist()), (), None, len(prompt), int(counts_N[row])
            )
            for row, prompt in enumerate(prompts)
        ]

    return generate


def _encode(codec: Codec, request: Request, capacity: int) -> list[int] | str:
    """The prompt's tokens, or why there is none."""
    rules, messages = "", list(request.messages)
    if messages and messages[0]["role"] == "system":
        rules = messages.pop(0)["content"] + "\n\n"
    roles = [message["role"] for message in messages]
    if request.tools or len(roles) % 2 == 0 or roles != (["user", "assistant"] * len(roles))[: len(roles)]:
        return "a request must have no tools, and user and assistant in turn"
    tokens = codec.encode_prompt((), rules + messages[0]["content"])
    for said, answer in zip(messages[1::2], messages[2::2], strict=True):
        tokens = tokens + codec.encode_action((), said["content"])
        tokens = tokens + codec.encode_messages((Message("user", answer["content"]),))
    return tokens if len(tokens) <= capacity else f"the prompt has {len(tokens)} tokens, more than {capacity}"
