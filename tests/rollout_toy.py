"""Four authored tasks, a tokenizer and a codec for them, and a rollout of all of them in one call."""

import random
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from rods_jax.codecs.documents import tool_name
from rods_jax.codecs.qwen import qwen_codec
from rods_jax.codecs.tokenizer import train_tokenizer
from rods_jax.config import Habits, RolloutConfig
from rods_jax.demonstrations import corpus, demonstrate
from rods_jax.environments.episode import start_episodes
from rods_jax.environments.workplace import WORKPLACE
from rods_jax.generation import Sampling
from rods_jax.rewards import progress_reward
from rods_jax.rollout import collect, player
from rods_jax.synthesis.pipeline import author_tasks
from rods_jax.types import Policy

N, G = 4, 2
SIZES = RolloutConfig(
    tasks_per_step=N,
    group_size=G,
    max_prompt_tokens=128,
    max_suffix_tokens=416,
    max_action_tokens=48,
    observation_chunk=16,
)
ALL_TASKS = author_tasks(WORKPLACE, count=2 * N, rng=random.Random(0))
TASKS, OTHERS = ALL_TASKS[:N], ALL_TASKS[N:]
TOKENIZER = train_tokenizer(corpus(WORKPLACE, ALL_TASKS), vocab_size=600)
CODEC = qwen_codec(TOKENIZER, tool_name)
V, STOP = len(TOKENIZER), CODEC.stop_token
GOLD = {task.id: demonstrate(WORKPLACE, task, CODEC, Habits(), random.Random(0)) for task in TASKS}


def _says(tokens):
    return 50.0 * jax.nn.one_hot(tokens, V)


def _extend(params, script, suffixes, seen_NG, tokens_NGT, lengths_NG, rows_NC=None):
    positions = seen_NG[..., None] + jnp.arange(tokens_NGT.shape[2])[None, None] + 1
    n = jnp.arange(len(positions))[:, None, None]
    return _says(script[n, positions]), suffixes


# Greedily says params[n, s] at suffix position s of slot n, whatever it has read; its caches hold nothing.
SCRIPTED = Policy(
    init=None,
    forward=None,
    unembedding=lambda params: jnp.eye(V),
    prefill=lambda params, tokens, lengths, suffix_tokens: (_says(params[:, 0]), params),
    empty=lambda num_tasks, group_size, capacity: (),
    extend=_extend,
)


def script(*suffixes):
    array = np.full((len(suffixes), SIZES.max_suffix_tokens + SIZES.observation_chunk + 1), 9, np.int32)
    for row, suffix in zip(array, suffixes):
        row[: len(suffix)] = suffix
    return array


def compiled(policy, slots=N, **sizes):
    """A player of the tasks; `sizes` are changes of SIZES."""
    return player(policy, CODEC, replace(SIZES, **sizes), slots=slots)


def gather(
    params,
    play,
    tasks=TASKS,
    domain=WORKPLACE,
    start=None,
    seed=0,
    step=0,
    reward=progress_reward,
    group_sizes=None,
    **fields,
):
    """Greedy, unless `fields` of the player say otherwise."""
    start = start or partial(start_episodes, domain)
    play = play._replace(**({"sampling": Sampling(temperature=0.0)} | fields))
    return collect(params, tasks, play, start=start, seed=seed, step=step, reward=reward, group_sizes=group_sizes)


def actions_of(batch, n, g):
    """The generated tokens of one rollout as texts, one per run of the action mask."""
    texts, run = [], []
    for token, acted in zip(batch.suffix_tokens_NGS[n, g].tolist(), batch.action_mask_NGS[n, g].tolist()):
        if acted:
            run.append(token)
        if run and (not acted or token == STOP):
            texts.append(CODEC.decode(run))
            run = []
    return texts + ([CODEC.decode(run)] if run else [])
