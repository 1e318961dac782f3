"""The study of the office on BFCL with Qwen3-0.6B, on one GPU of 80 to 141 GB.

    python -m scripts.study --config configs/study_qwen3_06b.py --dry-run
    python -m scripts.plan --config configs/study_qwen3_06b.py --topology h100:1

Hardware and hyperparameters are those of gpu_qwen3_06b.py.  72 of 360 tasks are seeds, the 400 of the held-out half are
measured twice.  300 steps of 4 tasks x 8 rollouts are the budget.  Not run here.
"""

from dataclasses import replace

from configs.gpu_qwen3_06b import CONFIG as GPU
from rods_jax.config import Config
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.held_out import sample_tasks
from scripts.study.arms import arms, rivals
from scripts.study.plan import Study

NUM_SEEDS = 72


def few_seeds(domain: Domain, seed: int) -> TaskSplits:
    """The same halves for all seeds; of the training half 72 tasks, with a share of each category."""
    tasks = GPU.build_tasks(domain, 0)
    return tasks._replace(seeds=sample_tasks(tasks.seeds, NUM_SEEDS))


def studied(config: Config, name: str, steps: int) -> Config:
    """The last stage of a configuration alone, on few seeds, until the budget is spent."""
    r, last = config.rollout, config.stages[-1]
    return replace(
        config,
        name=name,
        build_tasks=few_seeds,
        stages=(replace(last, epochs=steps * r.tasks_per_step // NUM_SEEDS + 1, synthesis=False),),
        synthesis=None,
        evaluation=replace(config.evaluation, every_epochs=1000),
        retention=replace(config.retention, best=0),
        checkpoint_every=10,
        max_rollouts=steps * r.tasks_per_step * r.group_size,
    )


CONFIG = studied(GPU, "study_qwen3_06b", steps=300)
STUDY = Study(
    name="qwen3_06b",
    config=CONFIG,
    seeds=tuple(range(6)),
    primary=(("rods", "random"), ("rods", "static")),
    arms=(*arms(), *rivals()),
    held_out_rollouts=2,
)
