"""RODS on BFCL V3 multi-turn with Qwen3-0.6B on one GPU of 80 to 141 GB.

    hf download Qwen/Qwen3-0.6B --local-dir checkpoints/Qwen3-0.6B
    pip install -c constraints.txt "jax[cuda13]"
    python -m scripts.train --config configs/gpu_qwen3_06b.py

Hardware: one card; counted from shapes, not measured: 10 GB of parameters, optimizer and reference, and about 50 GB for the update's
activations.  The stages and hyperparameters of bfcl_qwen3_4b.py with 4 tasks a step, 8 rollouts and shorter episodes; the
rules write the variants, so that no second model is needed.  A rate ten times the paper's, because a step sees a sixteenth of
its trajectories and the policy is small.
The model answers without thinking, which 512 tokens a message would cut.  Expected curve: unknown, not run here.
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
        max_unfit_share=0.15,  # 39 of 360 tasks, all of long context, have gold dialogues that are longer
        environment_workers=8,
    ),
    update=replace(QWEN3_4B.update, learning_rate=1e-5, quotas=1),
    replay=replace(QWEN3_4B.replay, cooldown=100),
    synthesis=None,
    evaluation=replace(QWEN3_4B.evaluation, num_tasks=100, concurrent_tasks=16),
    checkpoint_every=25,
)
