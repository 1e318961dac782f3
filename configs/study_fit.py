"""Do seeds at the boundary matter where every task can be solved?  Exploration: the office's study with longer rollouts.

    python -m scripts.study --config configs/study_fit.py --dry-run

Hardware: 2 CPU cores, 2 GiB a job.  In configs/study_office.py some tasks are longer than a rollout may be, and RODS makes
ever more of them (docs/study/seeds.md).  Here all fit, and demonstrations too: a start would refuse a task that does not.
"""

from dataclasses import replace

from configs.study_office import CONFIG as OFFICE
from scripts.study.arms import arms
from scripts.study.plan import Study

ROLLOUT = replace(OFFICE.rollout, max_suffix_tokens=288, suffix_sizes=(144, 192), max_unfit_share=0.0)
assert OFFICE.cold_start is not None
COLD_START = replace(OFFICE.cold_start, suffix_sizes=(80, 112, 160, 288))
CONFIG = replace(OFFICE, name="study_fit", rollout=ROLLOUT, cold_start=COLD_START)
STUDY = Study(
    name="fit",
    config=CONFIG,
    primary=(("rods", "random"), ("rods", "static")),
    arms=arms()[:3],
)
