"""Do seeds at the boundary matter where every task can be solved?  Exploration: the office's study with longer rollouts.

    python -m scripts.study --config configs/study_fit.py --dry-run

Hardware: 2 CPU cores, 2 GiB a job.  In configs/study_office.py some tasks are longer than a rollout may be, and RODS makes
ever more of them (docs/study/seeds.md).  Here all fit: a start would refuse one that does not.
"""

from dataclasses import replace

from configs.study_office import CONFIG as OFFICE
from scripts.study.arms import arms, suggested
from scripts.study.plan import Study

ROLLOUT = replace(OFFICE.rollout, max_suffix_tokens=288, suffix_sizes=(144, 192), max_unfit_share=0.0)
CONFIG = replace(OFFICE, name="study_fit", rollout=ROLLOUT)
STUDY = Study(
    name="fit",
    config=CONFIG,
    seeds=tuple(range(6)),
    primary=(("rods", "random"), ("rods", "static")),
    arms=(*arms()[:3], *suggested()),
)
