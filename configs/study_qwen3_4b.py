"""The study of the office on BFCL with Qwen3-4B-Instruct, on a slice or several hosts.

    python -m scripts.study --config configs/study_qwen3_4b.py --dry-run
    python -m scripts.plan --config configs/study_qwen3_4b.py --topology v5e:8x8

Hardware and hyperparameters are those of bfcl_qwen3_4b.py, and the rules write the variants, so that no server is needed and a run
is the same to the bit.  93 steps are the paper's third stage.  Three seeds, and the primary arms alone.  Not run here.
"""

from configs.bfcl_qwen3_4b import CONFIG as QWEN3_4B
from configs.study_qwen3_06b import studied
from scripts.study.arms import arms
from scripts.study.plan import Study

CONFIG = studied(QWEN3_4B, "study_qwen3_4b", steps=93)
STUDY = Study(
    name="qwen3_4b",
    config=CONFIG,
    seeds=(0, 1, 2),
    primary=(("rods", "random"), ("rods", "static")),
    arms=arms()[:3],
    held_out_rollouts=1,
)
