"""RODS on BFCL V3 multi-turn with Qwen3-0.6B on one GPU of 80 to 141 GB.

    hf download Qwen/Qwen3-0.6B --local-dir checkpoints/Qwen3-0.6B
    XLA_PYTHON_CLIENT_MEM_FRACTION=0.95 python -m scripts.train --config configs/gpu_qwen3_06b.py

docs/guide/gpu.md says what to install.

Hardware: one card.  Counted from shapes, not measured: parameters, optimizer and reference take 10 GB, the update's activations
about 50 GB.  Stages and hyperparameters are those of bfcl_qwen3_4b.py, with 4 tasks a step, 8 rollouts and shorter episodes.
The rules write the variants, so that no second model is needed.  The learning rate is ten times the paper's, because a step
has a sixteenth of its trajectories and the policy is small.  Thinking is off, because 512 tokens a message would cut it.
Expected curve: unknown, not run here.
"""

from dataclasses import replace
from functools import partial

from configs.bfcl_qwen3_4b import CONFIG as QWEN3_4B
from models import presets
from models.families import Pretrained
from models.learner import decoder
from rods_jax.codecs.qwen import qwen_codec
from rods_jax.codecs.tokenizer import checkpoint_tokenizer

CHECKPOINT = "checkpoints/Qwen3-0.6B"

CONFIG = replace(
    QWEN3_4B,
    name="gpu_qwen3_06b",
    run_dir="runs/gpu_qwen3_06b",
    tokenizer=partial(checkpoint_tokenizer, directory=CHECKPOINT),
    codec=partial(qwen_codec, template={"enable_thinking": False}),
    learner=decoder,
    model=Pretrained(directory=CHECKPOINT, shape=presets.QWEN3_0_6B),
    stages=tuple(replace(stage, max_suffix_tokens=None) for stage in QWEN3_4B.stages),
    rollout=replace(
        QWEN3_4B.rollout,
        tasks_per_step=4,
        group_size=8,
        max_suffix_tokens=4096,
        max_action_tokens=512,
        suffix_sizes=(1024, 2048),
        max_unfit_share=0.15,  # the gold dialogues of 39 tasks of 360 are longer, all of long context
        environment_workers=8,
    ),
    update=replace(QWEN3_4B.update, learning_rate=1e-5, quotas=1),
    replay=replace(QWEN3_4B.replay, cooldown=100),
    synthesis=None,
    evaluation=replace(QWEN3_4B.evaluation, num_tasks=100, concurrent_tasks=16),
    checkpoint_every=25,
)
