"""Four authored tasks, a tokenizer and a codec for them, and a rollout of all of them in one call."""

import random
from functools import partial

from models.tokenizer import train_tokenizer
from rods_jax.codecs.documents import tool_name
from rods_jax.codecs.qwen import qwen_codec
from rods_jax.demonstrations import Habits, corpus, demonstrate
from rods_jax.environments.episode import start_episodes
from rods_jax.environments.workplace import WORKPLACE
from rods_jax.generation import Sampling, generator
from rods_jax.rewards import progress_reward
from rods_jax.rollout import Limits, collect
from rods_jax.synthesis.pipeline import author_tasks

N, G = 4, 2
LIMITS = Limits(prompt=128, suffix=416, action=48, chunk=16)
ALL_TASKS = author_tasks(WORKPLACE, count=2 * N, rng=random.Random(0))
TASKS, OTHERS = ALL_TASKS[:N], ALL_TASKS[N:]
TOKENIZER = train_tokenizer(corpus(WORKPLACE, ALL_TASKS), vocab_size=600)
CODEC = qwen_codec(TOKENIZER, tool_name)
V, STOP = len(TOKENIZER), CODEC.stop_token
GOLD = {task.id: demonstrate(WORKPLACE, task, CODEC, Habits(), random.Random(0)) for task in TASKS}


def compiled(policy):
    return generator(
        policy, stop_tokens=(STOP,), group_size=G, suffix_capacity=LIMITS.suffix, max_action_tokens=LIMITS.action
    )


def gather(params, generate, tasks=TASKS, domain=WORKPLACE, limits=LIMITS, seed=0, step=0, **keywords):
    start = partial(start_episodes, domain)
    settings = dict(sampling=Sampling(temperature=0.0), reward=progress_reward, start=start) | keywords
    return collect(
        params,
        tasks,
        codec=CODEC,
        generator=generate,
        group_size=G,
        limits=limits,
        seed=seed,
        step=step,
        **settings,
    )


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
