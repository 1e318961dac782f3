"""my_env on a CPU: a policy of 0.7M parameters learns the tools from demonstrations, and then from its own rollouts.

    rods check --config my_env/config.py
    rods train --config my_env/config.py

A policy from scratch knows nothing: a cold start on thousands of practice tasks, which the author writes of the class,
teaches it the tools and these words alone.  With few tasks, or in free language, begin with a checkpoint instead
(from_checkpoint.py).
"""

from functools import partial
from pathlib import Path

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
from rods_jax.task_files import read_tasks
from rods_jax_models.decoder import DecoderConfig
from rods_jax_models.learner import decoder

from my_env import authored, domain, reward

HERE = Path(__file__).parent
PRACTICE = 3000  # tasks for the cold start; a policy from scratch needs thousands


def build_tasks(world: Domain, seed: int, practice: int = PRACTICE) -> TaskSplits:
    """The tasks of the three files; so many for the cold start are written when a run begins."""
    seeds, held_out, validation = (read_tasks(HERE / f"{part}.jsonl") for part in ("seeds", "held_out", "validation"))
    return TaskSplits(seeds, held_out, practice=authored(practice, seed), validation=validation)


CONFIG = Config(
    name="my_env",
    seed=0,
    run_dir="runs/my_env",
    domain=domain,
    build_tasks=build_tasks,
    tokenizer=partial(train_tokenizer, vocab_size=1024),
    codec=partial(qwen_codec, document=tool_name),  # the policy reads names of tools alone: it has learned what they do
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
        habits=Habits(stop_early=0.75, skip=0.15, repeat=0.1),  # what the loop is to remove again
        batch_size=8,
        suffix_sizes=(80, 112, 160),
        max_steps=800,
        target_reward=0.5,
        evaluate_every=400,
        rounds=1,
    ),
    stages=(StageConfig(name="online synthesis", reward=reward, epochs=6, synthesis=True),),
    rollout=RolloutConfig(
        tasks_per_step=10,
        group_size=8,
        max_prompt_tokens=64,
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
    ),
    replay=ReplaySettings(capacity=80, cooldown=8, surplus=3.0, nearest_first=True),
    evaluation=EvaluationConfig(num_tasks=64, every_epochs=3),
    checkpoint_every=20,
)
