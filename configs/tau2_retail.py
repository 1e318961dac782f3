"""EigenData's recipe on tau2-bench's retail: tau2_qwen3_4b.py.

    python -m scripts.train --config configs/tau2_retail.py         (what it needs: tau2_qwen3_4b.py)

Hardware: as there.  74 training tasks, 40 held out with the wheel's files.  Of today's files 40 of the 114 tasks need a
judge, and are left out.
"""

from dataclasses import replace
from functools import partial

from configs.tau2_qwen3_4b import CONFIG as RECIPE
from configs.tau2_qwen3_4b import domain

CONFIG = replace(
    RECIPE,
    name="tau2_retail",
    run_dir="runs/tau2_retail",
    domain=partial(domain, "retail"),
)
