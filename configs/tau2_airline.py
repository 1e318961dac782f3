"""EigenData's recipe on tau2-bench's airline: tau2_qwen3_4b.py.

    python -m scripts.train --config configs/tau2_airline.py        (what it needs: tau2_qwen3_4b.py)

Hardware: as there.  30 training tasks, 20 held out: one of these is 5 points of a score.  Doing nothing solves 23 of
all 50 tasks, so compare a score with its floors.
"""

from dataclasses import replace
from functools import partial

from configs.tau2_qwen3_4b import CONFIG as RECIPE
from configs.tau2_qwen3_4b import domain

CONFIG = replace(
    RECIPE,
    name="tau2_airline",
    run_dir="runs/tau2_airline",
    domain=partial(domain, "airline"),
)
