r"""The paper's run on BFCL V3 multi-turn with Qwen3-4B-Instruct: three stages, the third with synthesis (RODS sections 3, 4 and 9).

    hf download Qwen/Qwen3-4B-Instruct-2507 --local-dir checkpoints/Qwen3-4B-Instruct-2507
    vllm serve Qwen/Qwen3-32B --port 8000        (it writes the variants from stage 3 on: qwen3_32b below has its address)
    python -m scripts.train --config configs/bfcl_qwen3_4b.py --coordinator auto \
        --mesh 16 2 1 2 --update.micro-batches 16 --rollout.concurrent-tasks 1 \
        --rollout.concurrent-rollouts 8 --evaluation.concurrent-tasks 4

Hardware: a TPU slice.  The programs of this layout were compiled for a v5e:8x8 and fit; restore and export are
counted (docs/log/plan.md).

The paper: 22.1 % of the held-out tasks solved before, 50.0 % on the static 400 tasks, 56.0 % with RODS.  It used 8 A100, and 8
more for synthesis.  Not run here.

    published      rate 1e-6, KL 0.01, 16 rollouts, 512 trajectories a step, 5 epochs a stage, band 0.20 to 0.85, retirement
                   above 0.95, 20 % cap, 400 variants, 3 attempts
    authors' code  an earlier version: clipping, dual clip, entropy, prompts of 8,192 tokens, episodes of 10,240 tokens and
                   of 24,576 in the third stage; held-out tasks are played with as many
    ours           seeds a step, cooldown, and 40 of the 400 training tasks set aside to choose the best checkpoint by
"""

from functools import partial
from typing import Any

from configs.bfcl_cpu import bfcl_domain
from models import presets
from models.families import Pretrained
from models.learner import decoder
from rods_jax import grpo
from rods_jax.chat import Endpoint, Generate, http_generate
from rods_jax.codecs.qwen import qwen_codec
from rods_jax.codecs.tokenizer import checkpoint_tokenizer
from rods_jax.config import (
    Config,
    EvaluationConfig,
    ReplaySettings,
    RetentionConfig,
    RolloutConfig,
    StageConfig,
    SynthesisConfig,
    UpdateConfig,
)
from rods_jax.environments import bfcl
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.held_out import sampling_order, set_aside
from rods_jax.rewards import format_reward, progress_reward
from rods_jax.synthesis.ask import ROLES
from rods_jax.synthesis.llm import llm_roles

CHECKPOINT = "checkpoints/Qwen3-4B-Instruct-2507"


def build_tasks(domain: Domain, seed: int) -> TaskSplits:
    """400 held-out and 400 training tasks, split by scenario; 40 of the latter are set aside to choose a checkpoint by.

    The held-out tasks are ordered so that any first few have all categories.
    """
    train, held_out = bfcl.split(bfcl.load_tasks(), seed=0)
    seeds, validation = set_aside(train, 40, seed=0)
    return TaskSplits(seeds=seeds, held_out=sampling_order(held_out), validation=validation)


def qwen3_32b() -> dict[str, Generate]:
    """One server for every role (RODS section 5: temperature 1, top-p 0.7)."""
    endpoint = Endpoint(url="http://localhost:8000/v1", model="Qwen/Qwen3-32B", timeout=600.0, concurrency=64)
    return dict.fromkeys(ROLES, http_generate(endpoint))


BASE: dict[str, Any] = dict(epochs=5, synthesis=False, categories=("base",))

CONFIG = Config(
    name="bfcl_qwen3_4b",
    seed=0,
    run_dir="runs/bfcl_qwen3_4b",
    domain=bfcl_domain,
    build_tasks=build_tasks,
    tokenizer=partial(checkpoint_tokenizer, directory=CHECKPOINT),
    codec=qwen_codec,
    learner=decoder,
    model=Pretrained(directory=CHECKPOINT, shape=presets.QWEN3_4B),
    cold_start=None,
    stages=(
        StageConfig(name="format", reward=format_reward, max_suffix_tokens=10_240, **BASE),
        StageConfig(name="base", reward=progress_reward, max_suffix_tokens=10_240, **BASE),
        StageConfig(name="full", reward=progress_reward, epochs=5, synthesis=True),
    ),
    rollout=RolloutConfig(
        tasks_per_step=32,
        group_size=16,
        max_prompt_tokens=8192,
        max_suffix_tokens=24_576,
        max_action_tokens=1024,
        observation_chunk=512,
        suffix_sizes=(2560, 5120, 10_240),
        environment_workers=16,
        max_unfit_share=0.1,  # the gold dialogues of 22 tasks of 360 are longer, all of long context
    ),
    update=UpdateConfig(
        learning_rate=1e-6,
        ratio=grpo.token_ratio,
        aggregate=grpo.sequence_mean,
        max_grad_norm=1.0,
        clip_low=0.2,
        clip_high=0.28,
        dual_clip=10.0,
        kl_coefficient=0.01,
        entropy_coefficient=0.001,
    ),
    # A quarter more variants than can enter, because those under way at an epoch's end come too late for the next one.
    replay=ReplaySettings(
        capacity=400, injection_fraction=0.20, surplus=1.25, lower=0.20, upper=0.85, retire_above=0.95
    ),
    synthesis=SynthesisConfig(backends=qwen3_32b, roles=llm_roles, attempts=3, workers=64),
    evaluation=EvaluationConfig(num_tasks=400, every_epochs=1),
    checkpoint_every=13,
    retention=RetentionConfig(latest=2, best=1),
)
