r"""The paper's run on BFCL V3 multi-turn with Llama-3.1-8B-Instruct: the recipe of bfcl_qwen3_4b.py, another policy.

    hf download meta-llama/Llama-3.1-8B-Instruct --local-dir checkpoints/Llama-3.1-8B-Instruct
    python -m scripts.train --config configs/bfcl_llama31_8b.py --coordinator auto \
        --mesh 16 2 2 1 --update.micro-batches 16 --rollout.concurrent-tasks 1 \
        --rollout.concurrent-rollouts 8 --evaluation.concurrent-tasks 4

Hardware: a v6e:8x8.  It is counted with a margin (docs/log/plan.md), not compiled: run scripts.plan with these sizes first.  A
v5e:8x8 is too small: with 16 2 1 2 the update of 24,576 tokens alone is counted at 20.0 of its 15.75 GiB.

The paper: 5.5 % of the held-out tasks solved before, 28.3 % on the static 400 tasks, 30.9 % with RODS.  Not run here.
"""

from dataclasses import replace
from functools import partial

from configs.bfcl_qwen3_4b import CONFIG as QWEN3_4B
from models import presets
from models.families import Pretrained
from models.learner import decoder
from rods_jax.codecs.llama import llama_codec
from rods_jax.codecs.tokenizer import checkpoint_tokenizer

CHECKPOINT = "checkpoints/Llama-3.1-8B-Instruct"

CONFIG = replace(
    QWEN3_4B,
    name="bfcl_llama31_8b",
    run_dir="runs/bfcl_llama31_8b",
    tokenizer=partial(checkpoint_tokenizer, directory=CHECKPOINT),
    codec=llama_codec,
    learner=decoder,
    model=Pretrained(directory=CHECKPOINT, shape=presets.LLAMA_3_1_8B),
    # Llama's template indents the tools' documents: the longest prompt of the 800 tasks has 9,281 tokens (Qwen3: 7,472).
    rollout=replace(QWEN3_4B.rollout, max_prompt_tokens=9_728),
)
