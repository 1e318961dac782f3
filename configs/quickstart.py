"""The closed loop on a CPU: a 0.7M-parameter policy learns tool use in the bundled office.

    make train            (or: python -m scripts.train --config configs/quickstart.py)

Hardware: 2 CPU cores, 2 GiB; 5 to 13 minutes with the set-up, of which the cold start takes a third.  It learns from
demonstrations with the habits below; reinforcement learning then removes them.
"""

import random
from functools import partial

from models.decoder import DecoderConfig
from models.learner import decoder
from rods_jax import grpo
from rods_jax.codecs.documents import tool_name
from rods_jax.codecs.qwen import qwen_codec
from rods_jax.codecs.tokenizer import train_tokenizer
from rods_jax.config import (
    ColdStartConfig,
    Config,
    EvaluationConfig,
    Habits,
    ReplaySettings,
    RolloutConfig,
    StageConfig,
    UpdateConfig,
)
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.environments.workplace.domain import WORKPLACE
from rods_jax.rewards import progress_reward
from rods_jax.synthesis.pipeline import author_tasks


def part_of_the_office() -> Domain:
    """Two of the six classes, 16 of the 48 tools: what a cold start of three minutes can cover."""
    tools = WORKPLACE.tools_of(("Tickets", "Calendar"))
    return WORKPLACE._replace(tools={tool.name: tool for tool in tools})


def build_tasks(domain: Domain, seed: int) -> TaskSplits:
    """Authored office tasks; every task is a scenario of its own, so no part can leak into another."""
    tasks = author_tasks(
        domain, count=6472, rng=random.Random(seed), turns=(2, 3), classes_per_task=(1, 1), chain_length=(1, 2)
    )
    return TaskSplits(seeds=tasks[:216], held_out=tasks[216:344], validation=tasks[344:472], practice=tasks[472:])


CONFIG = Config(
    name="quickstart",
    seed=0,
    run_dir="runs/quickstart",
    domain=part_of_the_office,
    build_tasks=build_tasks,
    tokenizer=partial(train_tokenizer, vocab_size=1024),
    codec=partial(qwen_codec, document=tool_name),
    learner=decoder,
    model=DecoderConfig(
        vocab_size=1024,
        layers=3,
        width=128,
        query_heads=4,
        key_value_heads=2,
        head_width=32,
        feed_forward=384,
        rope_theta=1e4,
    ),
    cold_start=ColdStartConfig(
        learning_rate=3e-3,
        habits=Habits(stop_early=0.75, skip=0.15, repeat=0.1),
        batch_size=8,
        suffix_sizes=(80, 112, 160),
        max_steps=2000,
        target_reward=0.45,
        evaluate_every=1000,
        rounds=1,
    ),
    stages=(StageConfig(name="online synthesis", reward=progress_reward, epochs=3, synthesis=True),),
    rollout=RolloutConfig(
        tasks_per_step=12,
        group_size=8,
        max_prompt_tokens=48,
        max_suffix_tokens=192,
        max_action_tokens=32,
        observation_chunk=32,
        max_attempts=2,
        suffix_sizes=(144,),
    ),
    update=UpdateConfig(
        learning_rate=5e-4,
        ratio=grpo.token_ratio,
        aggregate=grpo.sequence_mean,
        kl_coefficient=0.0,
        entropy_coefficient=0.0,
        quotas=2,
    ),
    replay=ReplaySettings(capacity=256, cooldown=8, surplus=3.0, nearest_first=True),
    evaluation=EvaluationConfig(num_tasks=128, every_epochs=2),
    checkpoint_every=20,
)
