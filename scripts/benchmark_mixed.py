"""How fast rollouts of mixed lengths are played: messages, answers and numbers of turns are all lognormal.

    python -m scripts.benchmark_mixed --rows 4
    python -m scripts.benchmark_mixed --seconds 0.005 --slow-seconds 0.5 [--only-slow]     environments that answer late

A decoder with random weights speaks; a term added to the stop token's logit gives each message the length of a
lognormal draw, by its hazard.  The environment's answers are lognormal runs of one token, and so is how many there are.
So nothing depends on who is done first, and another version of the loop plays the same rollouts from the same seed.
With --slow-seconds every eighth rollout's environment takes so long for an answer, and each rollout is a lane of its own.
"""

import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.scipy.stats import norm

from rods_jax.config import RolloutConfig
from rods_jax.environments.protocol import Answer, EpisodeBatch, Opening
from rods_jax.rollout import collect, player
from rods_jax.types import Action, Codec, Message, Policy, Task, Turn, World
from scripts import measure

STOP, TOLD = 0, 1  # ids: of a message's end, and of everything that an environment says
SPREAD = 1.0  # sigma of all lognormal lengths
VOCAB = 4096


@dataclass(frozen=True)
class Options:
    tasks: int = 4
    group_size: int = 8
    slots: int = 4  # tasks at a time
    rows: int = 8  # rollouts of a task at a time
    prompt: int = 256
    limit: int = 2048  # tokens of an episode
    said: float = 24.0  # median tokens of a message
    told: float = 24.0  # median tokens of an answer
    turns: float = 4.0  # median messages of an episode
    chunk: int = 32
    repeats: int = 2
    seconds: float = 0.0  # an environment takes for an answer
    slow_seconds: float = 0.0  # ... that of every eighth rollout, where this is above 0
    only_slow: bool = False  # the other rollouts are over after their first message


class Counted(NamedTuple):
    """The decoder's caches, and how many tokens of its message each row has said."""

    suffixes: Any
    said_NG: jax.Array


def lognormal_stops(policy: Policy, median: float) -> Policy:
    """The policy, but each message ends after a lognormal number of tokens: one more hidden feature says so."""

    def hazard(said):
        """Of a message that has `said` tokens, the logit of ending with the next one."""
        survives = lambda x: norm.sf(jnp.log(jnp.maximum(x, 1e-6) / median) / SPREAD)
        ends = jnp.clip(1 - survives(said + 1.0) / jnp.maximum(survives(said), 1e-9), 1e-6, 0.999)
        return jnp.log(ends / (1 - ends)) + math.log(VOCAB)

    def featured(hidden, said):
        return jnp.concatenate([0.1 * hidden, hazard(said)[..., None]], axis=-1)

    def unembedding(params):
        weight = policy.unembedding(params)
        return jnp.concatenate([weight, jax.nn.one_hot(jnp.array([STOP]), len(weight)).T], axis=1)

    def prefill(*arguments):
        hidden_ND, prompts = policy.prefill(*arguments)
        return featured(hidden_ND, jnp.zeros(len(hidden_ND))), prompts

    def empty(num_tasks, group_size, capacity):
        return Counted(policy.empty(num_tasks, group_size, capacity), jnp.zeros((num_tasks, group_size), jnp.int32))

    def extend(params, prompts, counted, seen_NG, tokens_NGT, lengths_NG, rows_NC=None):
        hidden, suffixes = policy.extend(params, prompts, counted.suffixes, seen_NG, tokens_NGT, lengths_NG, rows_NC)
        n = jnp.arange(len(seen_NG))[:, None]
        rows = jnp.broadcast_to(jnp.arange(seen_NG.shape[1]), seen_NG.shape) if rows_NC is None else rows_NC
        before = jnp.where(seen_NG == 0, 0, counted.said_NG[n, rows])
        speaks = tokens_NGT[..., 0] != TOLD
        after = jnp.where(lengths_NG > 0, jnp.where(speaks, before + 1, 0), before)
        said = jnp.broadcast_to(after[..., None], tokens_NGT.shape)
        return featured(hidden, said), Counted(suffixes, counted.said_NG.at[n, rows].set(after))

    return policy._replace(prefill=prefill, empty=empty, extend=extend, unembedding=unembedding)


def codec(prompt: int) -> Codec:
    """A task's prompt follows from its number, and an answer is as long as its text says."""
    return Codec(
        encode_prompt=lambda tools, user, *_: np.random.default_rng(int(user)).integers(2, VOCAB, prompt).tolist(),
        encode_messages=lambda messages: [TOLD] * int(messages[0].content),
        encode_action=lambda calls, answer: [STOP],
        decode=lambda tokens: str(len(tokens)),
        parse=lambda text: Action(answer=text),
        stop_tokens=(STOP,),
        official=lambda text: Action(answer=text),
    )


def tasks_of(count: int) -> list[Task]:
    return [Task(f"task{n}", f"task{n}", "base", World(("C",)), (Turn(str(n)),)) for n in range(count)]


def episodes(options: Options):
    """(tasks) -> episodes that are over after a lognormal number of messages, each answered at lognormal length."""

    def start(tasks: Sequence[Task]) -> EpisodeBatch:
        draws = [random.Random(f"{task.id} {place}") for place, task in enumerate(tasks)]
        left = [max(1, round(draw.lognormvariate(math.log(options.turns), SPREAD / 2))) for draw in draws]

        def one(place: int) -> Answer:
            slow = options.slow_seconds > 0 and place % 8 == 0
            time.sleep(options.slow_seconds if slow else options.seconds)
            left[place] = 0 if options.only_slow and not slow else left[place] - 1
            if not left[place]:
                return Answer(1, (), (), True, (True,))
            length = max(1, round(draws[place].lognormvariate(math.log(options.told), SPREAD)))
            return Answer(0, (Message("user", str(min(length, options.limit))),))

        lanes = tuple((place,) for place in range(len(tasks))) if options.slow_seconds else ()
        openings = tuple(Opening((), task.turns[0].user, 1) for task in tasks)
        return EpisodeBatch(openings, lambda actions: {place: one(place) for place in actions}, lanes)

    return start


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    policy, params = measure.random_policy(VOCAB)
    sizes = RolloutConfig(
        tasks_per_step=options.tasks,
        group_size=options.group_size,
        max_prompt_tokens=options.prompt,
        max_suffix_tokens=options.limit,
        max_action_tokens=options.limit,
        observation_chunk=options.chunk,
        concurrent_rollouts=options.rows,
    )
    play = player(lognormal_stops(policy, options.said), codec(options.prompt), sizes, slots=options.slots)
    held = [0]

    def act(params, episodes, *rest):
        held[0] = max(held[0], sum(x.nbytes for x in jax.tree.leaves(episodes.suffixes)))
        return play.generator.act(params, episodes, *rest)

    watched = play._replace(generator=play.generator._replace(act=act))

    def once():
        began, used = time.perf_counter(), time.process_time()
        rollouts = collect(
            params, tasks_of(options.tasks), watched, start=episodes(options), seed=0, step=0, reward=lambda _: 0.0
        )
        return time.perf_counter() - began, time.process_time() - used, rollouts.batch

    once()  # compiles
    seconds, processor, batches = zip(*(once() for _ in range(options.repeats)))
    said, told = batches[0].action_mask_NGS.sum(), batches[0].suffix_lengths_NG.sum()
    report = {
        "row": "mixed",
        "seconds": seconds,
        "processor_seconds": processor,  # of all threads: other processes of a busy machine count less in it
        "tokens_per_second": float(said) / min(seconds),
        "tokens": int(said),
        "observed": int(told - said),
        "longest": int(batches[0].suffix_lengths_NG.max()),
        "cache_bytes": held[0],
        "checksum": int(batches[0].suffix_tokens_NGS.astype(np.int64).sum()),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
