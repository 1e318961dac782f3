"""Does the choice of seeds matter, and does synthesis beat static data?  The office of the quickstart, with few seeds.

    python -m scripts.study --config configs/study_office.py --dry-run

Hardware: 2 CPU cores, 2 GiB a job.  72 seed tasks are few enough for static training to exhaust them in the budget of
11,520 rollouts, which are 120 steps of the quickstart.  What is compared, and how, was fixed before the first counted run:
docs/study/preregistration.md.
"""

import random
from dataclasses import replace
from typing import Any

from configs.quickstart import CONFIG as QUICKSTART
from configs.quickstart import build_tasks, part_of_the_office
from rods_jax.config import Config, EvaluationConfig, ReplaySettings
from rods_jax.environments.hints import explained
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.synthesis.pipeline import author_tasks
from rods_jax.task_files import content_hash
from scripts.study.arms import OFFLINE, SQUARE, ablations, arms, rivals, suggested
from scripts.study.plan import Arm, Study

LIKE_QUICKSTART: dict[str, Any] = dict(turns=(2, 3), classes_per_task=(1, 1), chain_length=(1, 2))


def few_seeds(domain: Domain, seed: int) -> TaskSplits:
    """72 of the quickstart's seed tasks, which differ from seed to seed, and 128 held-out tasks that are always the same."""
    held_out = author_tasks(domain, count=128, rng=random.Random("held out"), first_index=10_000, **LIKE_QUICKSTART)
    contents = set(map(content_hash, held_out))
    parts = (tuple(one for one in part if content_hash(one) not in contents) for part in build_tasks(domain, seed))
    tasks = TaskSplits(*parts)
    return tasks._replace(seeds=tasks.seeds[:72], held_out=held_out)


CONFIG = replace(
    QUICKSTART,
    name="study_office",
    build_tasks=few_seeds,
    stages=(replace(QUICKSTART.stages[0], epochs=1000, synthesis=False),),  # the budget ends a run
    replay=ReplaySettings(capacity=256, cooldown=8),
    evaluation=EvaluationConfig(num_tasks=128, every_epochs=1000),
    checkpoint_every=5,
    max_rollouts=120 * 12 * 8,
)


def explained_office() -> Domain:
    """The office whose failures are explained to the policy in the stages that ask for it."""
    return explained(part_of_the_office())


def env_tuning(config: Config) -> Config:
    """Half of the budget with hints after failures, then without (EnvTuning's last two stages).

    A rollout with hints has room for them: a warning of 127 tokens, and a hint for a repeated call of 80.
    """
    alone = config.stages[0]
    longer = config.rollout.max_suffix_tokens + 208
    hinted = replace(
        alone, name="hinted", epochs=10, explain_failures=True, warn_of_calls=True, max_suffix_tokens=longer
    )
    return replace(config, domain=explained_office, stages=(hinted, alone))


STUDY = Study(
    name="office",
    config=CONFIG,
    page="results.md",
    registered="preregistration.md",
    primary=(("rods", "random"), ("rods", "static")),
    square=SQUARE,
    asides=(("offline", "random"), ("offline_17", "random"), ("offline_17", "offline")),
    arms=(
        *arms(),
        *rivals(),
        *OFFLINE,
        Arm(name="env_tuning", about="hints after failures for half of the budget", change=env_tuning),
        *suggested(),
        *ablations(),
    ),
)
