"""A model that speaks for the help desk's user, on a CPU: untuned, it has learned from whatever users did, errors included.

    python -m scripts.train --config configs/helpdesk_user.py
    python -m scripts.train --config configs/helpdesk_user_tuned.py

Hardware: 2 CPU cores, 1 GiB.  The first command trains on conversations of a user that errs at the rates below; it is
the stand-in of an off-the-shelf model.  The second goes on with its weights and learns from the flawless ones alone.
"""

import random
from functools import partial

from configs.helpdesk import CONFIG as HELPDESK
from models.decoder import DecoderConfig
from rods_jax.codecs.documents import tool_name
from rods_jax.codecs.qwen import qwen_codec
from rods_jax.codecs.tokenizer import train_tokenizer
from rods_jax.config import ColdStartConfig, Config, EvaluationConfig, Habits, RolloutConfig
from rods_jax.environments.helpdesk.domain import customer
from rods_jax.environments.helpdesk.tasks import build, of_customer
from rods_jax.environments.helpdesk.user import Dials
from rods_jax.environments.protocol import Domain, TaskSplits

ERRS = Dials(ignores=0.05, misreads=0.1, acts_unasked=0.05, stops_early=0.03, invents=0.05)


def build_tasks(domain: Domain, seed: int) -> TaskSplits:
    """One to three faults at a time, as the agent meets them."""
    tasks = build(random.Random(seed), max_faults=3, seeds=12, held_out=128, validation=128, practice=6000)
    return TaskSplits(*(tuple(map(of_customer, part)) for part in tasks))


IMITATION = ColdStartConfig(
    learning_rate=3e-3,
    habits=Habits(),
    batch_size=8,
    suffix_sizes=(128, 192, 288),
    max_steps=1500,
    target_reward=1.0,
    evaluate_every=500,
    rounds=1,
)

CONFIG = Config(
    name="helpdesk_user",
    seed=0,
    run_dir="runs/helpdesk_user",
    domain=partial(customer, ERRS),
    build_tasks=build_tasks,
    tokenizer=partial(train_tokenizer, vocab_size=512),
    codec=partial(qwen_codec, document=tool_name),
    learner=HELPDESK.learner,
    model=DecoderConfig(
        vocab_size=512,
        layers=2,
        width=96,
        query_heads=4,
        key_value_heads=2,
        head_width=24,
        feed_forward=288,
        rope_theta=1e4,
    ),
    cold_start=IMITATION,
    stages=(),
    rollout=RolloutConfig(
        tasks_per_step=12,
        group_size=8,
        max_prompt_tokens=80,
        max_suffix_tokens=288,
        max_action_tokens=32,
        observation_chunk=32,
    ),
    update=HELPDESK.update,
    evaluation=EvaluationConfig(num_tasks=128, every_epochs=1),
    checkpoint_every=20,
)
