r"""The paper's run on BFCL V3 multi-turn with Qwen2.5-7B-Instruct: the recipe of bfcl_qwen3_4b.py, another policy.

    hf download Qwen/Qwen2.5-7B-Instruct --local-dir checkpoints/Qwen2.5-7B-Instruct
    python -m scripts.train --config configs/bfcl_qwen25_7b.py --coordinator auto \
        --mesh 16 2 1 2 --update.micro-batches 16 --rollout.concurrent-tasks 1 \
        --rollout.concurrent-rollouts 8 --evaluation.concurrent-tasks 4

Hardware: a v6e:8x8.  It is counted with a margin (docs/log/plan.md), not compiled: run scripts.plan with these sizes first.  A
v5e:8x8 is too small: the update of 24,576 tokens alone is counted at 18.6 of its 15.75 GiB.

The paper: 7.0 % of the held-out tasks solved before, 36.9 % on the static 400 tasks, 40.3 % with RODS.  Not run here.
"""

from dataclasses import replace
from functools import partial

from configs.bfcl_qwen3_4b import CONFIG as QWEN3_4B
from models import presets
from models.families import Pretrained
from models.learner import decoder
from rods_jax.codecs.tokenizer import checkpoint_tokenizer

CHECKPOINT = "checkpoints/Qwen2.5-7B-Instruct"

CONFIG = replace(
    QWEN3_4B,
    name="bfcl_qwen25_7b",
    run_dir="runs/bfcl_qwen25_7b",
    tokenizer=partial(checkpoint_tokenizer, directory=CHECKPOINT),
    learner=decoder,
    model=Pretrained(directory=CHECKPOINT, shape=presets.QWEN2_5_7B),
)
