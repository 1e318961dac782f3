"""An agent that talks, on a CPU: a 0.7M-parameter policy learns the bundled help desk, whose user has tools of its own.

    python -m scripts.train --config configs/helpdesk.py

Hardware: 2 CPU cores, 2 GiB; 14 minutes on busy cores, of which the cold start takes 3.  The cold start learns from a demonstrator that often looks at too little and leaves out what it
saw; reinforcement learning then removes the habits.  What counts is pass^1: all checks of a held-out task.
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
    SynthesisConfig,
    UpdateConfig,
)
from rods_jax.environments.helpdesk.domain import helpdesk
from rods_jax.environments.helpdesk.tasks import build, vary
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.rewards import progress_reward
from rods_jax.synthesis.algebra import variants_by


def build_tasks(domain: Domain, seed: int) -> TaskSplits:
    """One to three faults at a time; no composition is both trained on and measured on."""
    return build(random.Random(seed), max_faults=3, seeds=216, held_out=128, validation=128, practice=6000)


CONFIG = Config(
    name="helpdesk",
    seed=0,
    run_dir="runs/helpdesk",
    domain=helpdesk,
    build_tasks=build_tasks,
    tokenizer=partial(train_tokenizer, vocab_size=512),
    codec=partial(qwen_codec, document=tool_name),
    learner=decoder,
    model=DecoderConfig(
        vocab_size=512,
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
        habits=Habits(stop_early=0.75, skip=0.1, repeat=0.05),
        batch_size=8,
        suffix_sizes=(112, 160, 216),
        max_steps=1500,
        target_reward=0.45,
        evaluate_every=750,
        rounds=1,
    ),
    stages=(StageConfig(name="online synthesis", reward=progress_reward, epochs=3, synthesis=True),),
    rollout=RolloutConfig(
        tasks_per_step=12,
        group_size=8,
        max_prompt_tokens=80,
        max_suffix_tokens=240,
        max_action_tokens=24,
        observation_chunk=32,
        suffix_sizes=(176,),
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
    synthesis=SynthesisConfig(backends=dict, author=partial(variants_by, vary), workers=1),
    evaluation=EvaluationConfig(num_tasks=128, every_epochs=2),
    checkpoint_every=20,
)
