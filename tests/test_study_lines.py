"""A line of a study: what it holds of its run, and which checkpoints and rollouts it is made of."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from replay_toy import task_named
from study_toy import STUDY

from configs.study_office import CONFIG as OFFICE
from configs.study_office import STUDY as OFFICE_STUDY
from scripts.study import inference, one, plan


def test_a_failed_rollout_is_in_no_held_out_mean_and_arms_share_the_noise(tmp_path, monkeypatch):
    config = replace(plan.config_of(STUDY, plan.named(STUDY, "static@0")), run_dir=str(tmp_path), codec=dict)
    learner = SimpleNamespace(shapes=None, whole=lambda params: params)
    config = replace(config, learner=lambda config: lambda vocab_size: learner)
    monkeypatch.setattr(
        one.place, "read_inputs", lambda _: (SimpleNamespace(held_out=(task_named("a"), task_named("b"))), ())
    )
    monkeypatch.setattr(one, "evaluation_player", lambda *_, **__: None)
    monkeypatch.setattr(one.checkpoint, "read_params", lambda *_: (0, None))
    played = [
        SimpleNamespace(failure=f, passed=p)
        for f, p in (("x", (False, False)), (None, (True, True)), (None, (True, False)), (None, (True, True)))
    ]
    steps = []
    monkeypatch.setattr(
        one, "collect", lambda *_, step, **__: steps.append(step) or SimpleNamespace(trajectories=played)
    )
    first, *_ = one.held_out_scores(STUDY, config, [5, 9]), one.held_out_scores(STUDY, config, [6, 7])
    assert (first[0]["progress"], first[0]["strict"], first[0]["failed"]) == (round(2.5 / 3, 6), round(2 / 3, 6), 1)
    assert steps[:2] == steps[2:] == [one.EVALUATION | 1, one.EVALUATION | 2]


def test_a_line_holds_what_training_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    zeros = (
        "pool_human",
        "pool_trial",
        "pool_active",
        "zone_hard",
        "zone_boundary",
        "zone_mastered",
        "injected",
        "seeds",
        "candidates",
        "failed_rollouts",
        "skipped",
        "seconds_step",
        "seconds_rollout",
        "seconds_synthesis",
    )
    step = lambda n, mean: (
        dict.fromkeys(zeros, 0)
        | {
            "step": n,
            "task_ids": ["seed", "new"],
            "task_mean": [0.5, mean],
            "task_variance": [0.2, 0.0],
            "zero_variance": n / 10,
            "entered_ids": ["new"] * (n == 1),
        }
    )
    run = plan.named(STUDY, "static@0")
    plan.folder_of(STUDY, run).mkdir(parents=True)
    (plan.folder_of(STUDY, run) / "metrics.jsonl").write_text(
        "".join(json.dumps(s) + "\n" for s in (step(1, 0.1), step(2, 0.6)))
    )
    scores = [dict(progress=p, strict=0, failed=0, by_task=[p], solved_by_task=[0]) for p in (0.4, 0.5)]
    line = one.line_of(STUDY, run, [one.Point(0, 0, 0, 0.0), one.Point(2, 24, 9, 1.0)], scores)
    assert (
        line["first_in_band"] == [0, 1]
        and line["zero_variance"] == [0.1, 0.2]
        and line["variance"] == [round(0.4 / 3, 5), 0.0]
    )
    assert (
        not line["collapsed"]
        and one.line_of(STUDY, run, [one.Point(0, 0, 0, 0.0), one.Point(2, 24, 9, 1.0)], scores[::-1])["collapsed"]
    )
    # Where groups are dropped, the places of a step say nothing of all that were played.
    assert one.trained([step(1, 0.1), step(2, 0.6) | {"tasks_kept": 1}])["zero_variance"] == [None, None]


def test_a_run_has_ended_only_where_its_last_step_is_saved(tmp_path):
    config = replace(OFFICE, run_dir=str(tmp_path))
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 3, "rollouts_spent": 10**9}) + "\n")
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    assert not one.has_ended(config)
    (tmp_path / "checkpoints" / "3").mkdir()
    assert one.has_ended(config)


def test_reliability_is_stepped_up_to_all_seeds(monkeypatch):
    monkeypatch.setattr(inference, "rank_correlation", lambda a, b: 0.5)
    assert inference.reliability(np.zeros((3, 4)), splits=3) == pytest.approx(2 / 3)


def test_arms_change_what_their_tables_say():
    made = {arm.name: arm.change(OFFICE) for arm in OFFICE_STUDY.arms}
    assert made["refill_even"].update.count_dropped and not made["refill"].update.count_dropped
    assert made["pods"].update.subset.keywords == {"keep": OFFICE.rollout.group_size // 2}
    assert made["written_once"].stages[-1].synthesis and not made["written_once"].stages[-1].refresh
    assert made["rods"].stages[-1].refresh
    kept = plan.config_of(OFFICE_STUDY, plan.named(OFFICE_STUDY, "rods@0")).retention
    assert kept.every == OFFICE.checkpoint_every  # every point on the way is evaluated


def test_a_line_says_that_the_code_was_changed(monkeypatch):
    monkeypatch.setattr(one, "_git", lambda *command: " M rods_jax/grpo.py" if command[0] == "status" else "abc")
    assert one.code_version() == {"commit": "abc", "changed": True}


def test_a_checkpoint_at_the_bound_is_within_it():
    records = [{"step": s, "rollouts_spent": 4 * s, "tokens_spent": 0, "seconds_step": 0.0} for s in range(1, 7)]
    assert [way.step for way in one.points(records, range(7), STUDY)] == [3, 6]
