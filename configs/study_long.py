"""What becomes of the pool over 1,000 steps?  The office's study, eight times as long, three seeds; a description, no test.

    python -m scripts.study --config configs/study_long.py --dry-run

Hardware: 2 CPU cores, 2 GiB a job.  A line says for each tenth of a run how the pool fared: stability, diversity of the
variants, drift of their structure.
"""

from dataclasses import replace

from configs.study_office import CONFIG as OFFICE
from scripts.study.arms import arms, suggested
from scripts.study.plan import Study

ARMS = "static", "rods", "random", "rods_ours", "rods_unstuck"  # random: of all tasks, so that seeds never run out
CONFIG = replace(OFFICE, name="study_long", checkpoint_every=50, max_rollouts=1000 * 12 * 8)
STUDY = Study(
    name="long",
    config=CONFIG,
    seeds=(0, 1, 2),
    arms=tuple(arm for arm in (*arms(), *suggested()) if arm.name in ARMS),
    points=10,
    stretches=10,
)
