"""The study's second suite: the bundled help desk, whose user has tools of its own (dual control).

    python -m scripts.study --config configs/study_helpdesk.py --dry-run

Hardware: 2 CPU cores, 2 GiB a job.  Arms, budget and tests are those of configs/study_office.py, with six seeds an arm:
docs/study/preregistration.md.  Variants come from the desk's own algebra.
"""

import random
from dataclasses import replace
from functools import partial

from configs.helpdesk import CONFIG as HELPDESK
from rods_jax.config import EvaluationConfig, ReplaySettings
from rods_jax.environments.helpdesk.tasks import build, vary
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.synthesis.algebra import variants_by
from scripts.study.arms import SQUARE, arms, rivals
from scripts.study.plan import Study


def few_seeds(domain: Domain, seed: int) -> TaskSplits:
    """72 seed tasks, which differ from seed to seed, and 128 held-out tasks that are always the same."""
    tasks = build(random.Random(seed), max_faults=3, seeds=72, held_out=128, validation=128, practice=6000)
    same = build(random.Random("held out"), max_faults=3, seeds=0, held_out=128, validation=0, practice=0)
    return tasks._replace(held_out=same.held_out)


CONFIG = replace(
    HELPDESK,
    name="study_helpdesk",
    build_tasks=few_seeds,
    stages=(replace(HELPDESK.stages[0], epochs=1000, synthesis=False),),  # the budget ends a run
    replay=ReplaySettings(capacity=256, cooldown=8),
    synthesis=None,
    evaluation=EvaluationConfig(num_tasks=128, every_epochs=1000),
    checkpoint_every=5,
    max_rollouts=120 * 12 * 8,
)

made = partial(variants_by, vary)
STUDY = Study(
    name="helpdesk",
    config=CONFIG,
    registered="preregistration.md",
    seeds=tuple(range(6)),
    primary=(("rods", "random"), ("rods", "static")),
    square=SQUARE,
    arms=(*arms(made), *rivals(made)),
)
