"""Does the choice of seeds matter, and does synthesis beat static data?  The office of the quickstart, with few seeds.

    python -m scripts.study --config configs/study_office.py --dry-run

Hardware: 2 CPU cores, 2 GiB a job.  72 seed tasks are few enough for static training to exhaust them in the budget of
11,520 rollouts, which are 120 steps of the quickstart.  What is compared, and how, was fixed before the first counted run:
docs/study/preregistration.md.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from configs.quickstart import CONFIG as QUICKSTART
from configs.quickstart import build_tasks
from rods_jax import boundary, filtering
from rods_jax.config import Config, EvaluationConfig, ReplaySettings, SynthesisConfig
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.synthesis.algebra import the_seed_itself
from rods_jax.synthesis.pipeline import author_tasks
from rods_jax.task_files import content_hash
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


# --------------------------------------------------------------------------------- what an arm changes
def refilled(config: Config, keep: Callable = filtering.differing) -> Config:
    return replace(config, rollout=replace(config.rollout, keep=keep, refill=3.0))


def synthesis(
    config: Config, signal: Callable = boundary.mean_band, author: Callable | None = None, **replay
) -> Config:
    """Seeds by `signal`, their variants by the rules or by `author`."""
    made = None if author is None else SynthesisConfig(backends=dict, author=author, at_once=True)
    return replace(
        config,
        stages=(replace(config.stages[0], synthesis=True),),
        update=replace(config.update, signal=signal),
        replay=replace(config.replay, **replay),
        synthesis=made,
    )


ours = partial(synthesis, signal=boundary.beta_posterior, surplus=3.0, nearest_first=True, half_life=12.0)
copied = partial(synthesis, author=the_seed_itself)

STUDY = Study(
    name="office",
    config=CONFIG,
    primary=(("rods", "random"), ("rods", "static")),
    arms=(
        Arm(name="static", about="the seeds, in epochs", seeds=12),
        Arm(name="rods", about="as published: seeds in the band, variants by the rules", change=synthesis, seeds=12),
        Arm(
            name="random",
            about="synthesis from any seed",
            change=partial(synthesis, signal=boundary.any_task),
            seeds=12,
        ),
        Arm(name="rods_ours", about="posterior with memory, surplus, nearest variants first", change=ours),
        Arm(name="refill", about="static; groups without a gradient replaced (DAPO)", change=refilled),
        Arm(name="rods_copies", about="seeds in the band, played twice instead of varied", change=copied),
        Arm(name="random_copies", about="any seed, played twice", change=partial(copied, signal=boundary.any_task)),
    ),
)
