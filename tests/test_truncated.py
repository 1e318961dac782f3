"""Truncated episodes, and runs that cannot learn: counted, said, and left out of the loss where one asks for it."""

import math
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import optax
from grpo_toy import objective_with
from test_grpo import BAG_OF_WORDS, G, N, V, make_batch, make_standing

from rods_jax import grpo
from rods_jax.loop import _without_truncated
from rods_jax.rollout import Rollouts
from rods_jax.run.display import PATIENCE, warnings
from rods_jax.types import Trajectory


def test_truncated_rollouts_keep_their_rewards_and_lose_their_tokens():
    rng, objective, optimizer = np.random.default_rng(4), objective_with(), optax.sgd(1.0)
    params = {name: rng.normal(size=(V, 16)).astype(np.float32) for name in ("embedding", "unembedding")}
    batch, standing = make_batch(BAG_OF_WORDS, params), make_standing()
    cut = {3, 17}  # counted over all rollouts, task by task
    whole = Trajectory("", 0, (), ())
    trajectories = tuple(replace(whole, truncated="too long") if b in cut else whole for b in range(N * G))
    masked = _without_truncated(objective_with(mask_truncated=True), Rollouts(batch, trajectories, truncated=2))
    tokens = masked.action_mask_NGS.sum(-1).ravel()
    assert tokens[[3, 17]].tolist() == [0, 0]
    others = [b for b in range(N * G) if b not in cut]
    np.testing.assert_array_equal(tokens[others], batch.action_mask_NGS.sum(-1).ravel()[others])

    step = jax.jit(partial(grpo.update_step, policy=BAG_OF_WORDS, optimizer=optimizer, objective=objective))
    state = grpo.create_state(params, optimizer, objective)
    (_, all_in), (after, feedback) = step(state, batch, standing, 1.0), step(state, masked, standing, 1.0)
    jax.tree.map(np.testing.assert_array_equal, feedback.statistics, all_in.statistics)
    assert feedback.metrics["grad_norm"] != all_in.metrics["grad_norm"]
    # What a truncated rollout said is in no gradient: other tokens there, other log-probabilities, the same update.
    other = np.array(masked.behavior_log_probs_NGS)
    other.reshape(N * G, -1)[[3, 17]] -= 5.0
    again, _ = step(state, masked._replace(behavior_log_probs_NGS=other), standing, 1.0)
    jax.tree.map(np.testing.assert_array_equal, again.params, after.params)


def step_values(zero_variance: float = 0.5, valid: int = 4, **failures) -> dict:
    counted = {"valid_rollouts": valid, "failures": failures, "failed_rollouts": sum(failures.values())}
    counted["rollouts_played"] = 4
    return {"task_ids": ["t"], "task_mean": [0.5], "zero_variance": zero_variance, **counted}


def test_it_is_said_once_that_hardly_a_group_varies():
    said: list[str] = []
    write = warnings(said.append)
    for step in range(1, PATIENCE):
        write(step, step_values(1.0))
    assert said == []  # they may be the first few of a good run
    write(PATIENCE, step_values(0.5))
    for step in range(100):
        write(100 + step, step_values(1.0))
    (sentence,) = said
    assert sentence.startswith(f"step {PATIENCE}: 98% of the groups of {PATIENCE} steps had no variance")


def test_a_run_in_which_one_group_of_eight_varies_is_left_alone():
    said: list[str] = []
    write = warnings(said.append)
    for step in range(3 * PATIENCE):
        write(step, step_values(0.875))
    assert said == []


def test_it_is_said_early_that_no_check_is_passed():
    said: list[str] = []
    write = warnings(said.append)
    for step, progress in enumerate((0.0, 0.0, 0.1, 0.0, 0.0, 0.0, 0.0), start=1):
        write(step, {**step_values(), "progress_mean": progress})
    (sentence,) = said
    assert sentence.startswith("step 6: no rollout of 3 steps passed a check") and "checkpoint" in sentence


def test_steps_whose_groups_were_all_dropped_do_not_say_that_no_check_is_passed():
    """Every group passed all checks, so that the filter left none to learn from."""
    said: list[str] = []
    write = warnings(said.append)
    for step in (1, 2, 3):
        write(step, {**step_values(valid=0), "progress_mean": math.nan})
    for step in (4, 5):  # fruitless, and too few to say so
        write(step, {**step_values(), "progress_mean": 0.0})
    assert said == []


def test_a_step_without_one_valid_rollout_is_said_with_its_reasons():
    said: list[str] = []
    write = warnings(said.append)
    write(0, {"held_out_progress": 0.5})  # the first evaluation is no step
    write(1, step_values(valid=1, broken=3))
    for step in (2, 3):
        write(step, step_values(1.0, 0, **{"no machine": 3, "no disk": 1}))
    assert said == ["step 2: every rollout failed: 3 x no machine; 1 x no disk"]


def test_a_step_whose_groups_were_all_dropped_has_not_failed():
    said: list[str] = []
    dropped = {"tasks_kept": 0, "tasks_played": 4, "task_ids": ["a", "b"]}
    warnings(said.append)(1, {**step_values(1.0, 0), **dropped})
    assert [one.partition(",")[0] for one in said] == ["step 1: 0 of 2 places hold a task that teaches"]
