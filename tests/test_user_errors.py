"""A run whose users err: what they break is out of the update, and counted."""

import random
from dataclasses import replace

import pytest
from rich.console import Console

from configs.helpdesk import CONFIG
from rods_jax import run
from rods_jax.environments.helpdesk.domain import helpdesk
from rods_jax.environments.helpdesk.tasks import build
from rods_jax.environments.helpdesk.user import Dials
from rods_jax.metrics import read_metrics

DIALS = Dials(ignores=0.2, misreads=0.1, acts_unasked=0.1, stops_early=0.2, invents=0.1)


def erring():
    return helpdesk(DIALS)


def few_tasks(domain, seed):
    return build(random.Random(seed), max_faults=1, seeds=8, held_out=4, validation=4, practice=600)


@pytest.mark.slow
def test_a_run_learns_without_what_its_users_broke(tmp_path):
    config = replace(
        CONFIG,
        run_dir=str(tmp_path / "run"),
        domain=erring,
        build_tasks=few_tasks,
        cold_start=replace(
            CONFIG.cold_start, batch_size=4, suffix_sizes=(112,), max_steps=400, target_reward=1.0, evaluate_every=400
        ),
        stages=tuple(replace(stage, epochs=1, synthesis=False) for stage in CONFIG.stages),
        rollout=replace(CONFIG.rollout, tasks_per_step=4, group_size=4, suffix_sizes=()),
        update=replace(CONFIG.update, mask_user_errors=True),
        evaluation=replace(CONFIG.evaluation, num_tasks=4),
        max_steps=2,
    )
    run.train(config, console=Console(quiet=True))
    steps = read_metrics(tmp_path / "run" / "metrics.jsonl")[1:]
    blamed = [step["blame"].get("user", 0) for step in steps]
    assert sum(blamed) > 0
    for step, broken in zip(steps, blamed, strict=True):
        assert step["valid_rollouts"] == 16 - broken - step["failed_rollouts"]
    assert any(step["grad_norm"] > 0 for step in steps)  # and it learns from the others
