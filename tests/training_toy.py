"""A real run in small that exercises everything a checkpoint must carry: seeds, synthesis, injection, retirement.

Importable by processes that are killed while they train (forks.py).
"""

import io
import os
import random
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from models.decoder import DecoderConfig
from models.tokenizer import train_tokenizer
from rods_jax import grpo
from rods_jax.boundary import any_task
from rods_jax.codecs.documents import tool_name
from rods_jax.codecs.qwen import qwen_codec
from rods_jax.config import Config, ConfigError, EvaluationConfig, ReplaySettings, RolloutConfig, StageConfig
from rods_jax.config import UpdateConfig
from rods_jax.environments.protocol import TaskSplits
from rods_jax.environments.workplace.domain import WORKPLACE
from rods_jax.synthesis.pipeline import author_tasks
from scripts.train import Stopped, advance


def workplace():
    return WORKPLACE


def few_tasks(domain, seed) -> TaskSplits:
    tasks = author_tasks(domain, count=44, rng=random.Random(seed), turns=(1, 1), calls_per_turn=(1, 1))
    return TaskSplits(seeds=tasks[:6], held_out=tasks[6:10], validation=(), practice=tasks[16:])


def varied_reward(trajectory) -> float:
    """A reward that a policy from scratch gets in all sizes."""
    return sum(len(step.text) for step in trajectory.steps) % 7 / 7


CONFIG = Config(
    name="toy",
    seed=0,
    run_dir="",
    domain=workplace,
    build_tasks=few_tasks,
    tokenizer=partial(train_tokenizer, vocab_size=640),
    codec=partial(qwen_codec, document=tool_name),
    model=DecoderConfig(640, 1, 16, 2, 1, 8, 16),  # sizes, signal and objective as in test_train: compiled once for both
    cold_start=None,
    stages=(StageConfig(name="online", reward=varied_reward, epochs=3, synthesis=True),),
    rollout=RolloutConfig(
        tasks_per_step=2, group_size=2, max_prompt_tokens=96, max_suffix_tokens=128, max_action_tokens=12,
        observation_chunk=32, max_attempts=1,
    ),
    update=UpdateConfig(
        learning_rate=1e-3, ratio=grpo.token_ratio, aggregate=grpo.sequence_mean, signal=any_task
    ),
    replay=ReplaySettings(capacity=8, cooldown=2, lower=0.0001, upper=0.9, injection_fraction=0.4, max_share=0.6),
    evaluation=EvaluationConfig(num_tasks=4, every_epochs=2),
    checkpoint_every=2,
)  # fmt: skip


def toy(directory, **changes) -> Config:
    return replace(CONFIG, run_dir=str(directory), **changes)


def play(config: Config, step: int | None = None) -> str:
    """Trains to the end, from the beginning or from where an earlier process left it; returns what was said."""
    said = io.StringIO()
    resume = step is not None or (Path(config.run_dir) / "config.json").exists()
    advance(config, resume=resume, console=Console(file=said, width=1000), at=step)
    return said.getvalue()


def train(directory: str, changes: dict = {}) -> None:
    """In a process of its own: the exit status and the last words are written beside the run."""
    try:
        words, status = play(toy(directory, **changes)), 0
    except Stopped as stopped:
        words, status = str(stopped), stopped.status
    except (ConfigError, OSError) as error:
        words, status = str(error), 2
    Path(f"{directory}.end").write_text(f"{status} {words}")
    sys.stdout.flush()
    os._exit(status)
