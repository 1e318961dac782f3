"""The same loop on real BFCL V3 multi-turn tasks, a few steps on a CPU: a check of the wiring, not of learning.

    python -m scripts.train --config configs/bfcl_cpu.py

Hardware: 2 CPU cores, 8 GiB, a few minutes.  Simulators and scoring are the real ones, and variants run in the simulators.  A prompt
shows each tool as a signature and one sentence.  The policy is small, from scratch, with a short cold start on the training
half.  It hardly solves anything: most turns that it passes ask for no call.
"""

from functools import partial

from models.decoder import DecoderConfig
from models.learner import decoder
from rods_jax import grpo
from rods_jax.codecs.documents import tool_signature
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
from rods_jax.environments import bfcl
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.held_out import sample_tasks, set_aside
from rods_jax.rewards import progress_reward


def bfcl_domain() -> Domain:
    """BFCL, with argument values from the training half alone."""
    train, _ = bfcl.split(bfcl.load_tasks())
    return bfcl.bfcl_domain(train)


def build_tasks(domain: Domain, seed: int) -> TaskSplits:
    """A few tasks of all four categories, from 400 training and 400 held-out ones that are split by scenario."""
    train, held_out = bfcl.split(bfcl.load_tasks(), seed=0)
    train, validation = set_aside(train, 8, seed=0)
    few = sample_tasks(train, 16)
    rest = tuple(task for task in train if task not in few)
    return TaskSplits(seeds=few, held_out=sample_tasks(held_out, 8), practice=rest, validation=validation)


CONFIG = Config(
    name="bfcl_cpu",
    seed=0,
    run_dir="runs/bfcl_cpu",
    domain=bfcl_domain,
    build_tasks=build_tasks,
    tokenizer=partial(train_tokenizer, vocab_size=4096),
    codec=partial(qwen_codec, document=tool_signature),
    learner=decoder,
    model=DecoderConfig(
        vocab_size=4096,
        layers=2,
        width=64,
        query_heads=2,
        key_value_heads=1,
        head_width=32,
        feed_forward=128,
    ),
    cold_start=ColdStartConfig(
        learning_rate=3e-3,
        habits=Habits(),
        batch_size=2,
        suffix_sizes=(512, 1024),
        max_steps=60,
        target_reward=0.3,
        evaluate_every=60,
        rounds=1,
    ),
    stages=(StageConfig(name="online synthesis", reward=progress_reward, epochs=2, synthesis=True),),
    rollout=RolloutConfig(
        tasks_per_step=4,
        group_size=4,
        max_prompt_tokens=2688,
        max_suffix_tokens=1024,
        max_action_tokens=64,
        observation_chunk=128,
        suffix_sizes=(512,),
        max_unfit_share=0.5,  # a CPU holds no longer ones: some long-context dialogues cannot be finished
    ),
    update=UpdateConfig(
        learning_rate=1e-3,
        ratio=grpo.token_ratio,
        aggregate=grpo.sequence_mean,
    ),
    replay=ReplaySettings(capacity=16, cooldown=4),
    evaluation=EvaluationConfig(num_tasks=8, every_epochs=2),
    checkpoint_every=4,
)
