"""The study of the office on BFCL with Qwen3-4B-Instruct, on one host of eight cards, or a slice with one host.

    python -m scripts.study --config configs/study_qwen3_4b.py --dry-run
    python -m scripts.plan --config configs/study_qwen3_4b.py --topology h200:8

Hyperparameters are those of bfcl_qwen3_4b.py.  The rules write the variants, so that no server is needed and a run is the same to
the bit.  93 steps are the third stage of the paper's 400 seeds.  Three seeds, and the primary arms alone.  Not run here.
Left out: several hosts, because the command starts one process a run.
"""

from dataclasses import replace

from configs.bfcl_qwen3_4b import CONFIG as QWEN3_4B
from configs.study_qwen3_06b import studied
from scripts.study.arms import arms
from scripts.study.plan import Study

CONFIG = studied(QWEN3_4B, "study_qwen3_4b", steps=93)
CONFIG = replace(
    CONFIG,
    mesh=(4, 2, 1, 1),
    rollout=replace(CONFIG.rollout, concurrent_tasks=8),
    update=replace(CONFIG.update, micro_batches=16),
    evaluation=replace(CONFIG.evaluation, concurrent_tasks=64),
)
STUDY = Study(
    name="qwen3_4b",
    config=CONFIG,
    seeds=(0, 1, 2),
    primary=(("rods", "random"), ("rods", "static")),
    arms=arms()[:3],
    held_out_rollouts=1,
)
