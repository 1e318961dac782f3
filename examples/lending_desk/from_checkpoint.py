"""lending_desk from a checkpoint: it knows language and tools already, so that no cold start and few tasks will do.

    hf download Qwen/Qwen3-0.6B --local-dir checkpoints/Qwen3-0.6B
    rods check --config lending_desk/from_checkpoint.py
    rods train --config lending_desk/from_checkpoint.py

Qwen3-0.6B wants a GPU.  The checkpoint is read from checkpoints/ in the folder where the command is given.
"""

from dataclasses import replace
from functools import partial

from rods_jax.codecs.qwen import qwen_codec
from rods_jax.codecs.tokenizer import checkpoint_tokenizer
from models.families import Pretrained

from config import CONFIG as FROM_SCRATCH
from config import build_tasks

CHECKPOINT = "checkpoints/Qwen3-0.6B"

CONFIG = replace(
    FROM_SCRATCH,
    run_dir="runs/lending_desk_from_checkpoint",
    build_tasks=partial(build_tasks, practice=0),  # nothing is demonstrated
    tokenizer=partial(checkpoint_tokenizer, directory=CHECKPOINT),
    codec=partial(qwen_codec, template={"enable_thinking": False}),  # it reads whole descriptions of the tools
    model=Pretrained(directory=CHECKPOINT),
    cold_start=None,
    rollout=replace(
        FROM_SCRATCH.rollout,
        max_prompt_tokens=1536,
        max_suffix_tokens=1024,
        max_action_tokens=128,
        suffix_sizes=(512,),
    ),
    update=replace(FROM_SCRATCH.update, learning_rate=1e-6),
)
