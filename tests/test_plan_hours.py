"""The hours and the price of a whole run, by hand."""

import json
import sys
from dataclasses import replace

import pytest
from plan_twin import twin
from synthesis_toy import TASK

from configs.bfcl_qwen3_4b import CONFIG as QWEN3_4B
from configs.quickstart import CONFIG as QUICKSTART
from models import counts
from models.counts import Shape
from models.learner import describe
from models.planning import ahead_of_time, hours, plan, programs
from models.planning.ahead_of_time import Slice
from rods_jax import filtering
from rods_jax.config import rollout_of
from rods_jax.environments.protocol import TaskSplits


def test_hours_by_hand():
    """Decoding alone bound by memory: 2 tasks x 4 rollouts in 8 rows, 3 messages of 5 tokens."""
    config = replace(twin(QWEN3_4B), mesh=(1, 1, 1, 1))
    model = plan.model_of(config)
    found = Slice(ahead_of_time.Chip(1e18, 1e30, 100.0, 1e30), 1)
    parts = describe(config, model, *programs.meshes_of(config, found))
    play, _ = programs.players_of(config, parts)["rollouts", rollout_of(config, config.stages[0])]
    lengths = hours.Lengths(prompt=10, messages=3, message=5, observation=0, longest=16)
    shape = Shape(play.slots, play.rows, 10, round(7.5))
    seconds = hours.play_seconds(model, found, config, play, play.slots * play.rows, lengths, (0.0, 0.0))
    weights = counts.parameters(model) * 4
    token = (weights + sum(counts.cache_bytes(model, shape))) / 100
    tokens = play.slots * play.sizes.max_prompt_tokens
    prefill = (weights + counts.activation_bytes(model, tokens)) / 100
    assert seconds == pytest.approx(15 * token + prefill)


def test_steps_and_evaluations_of_a_curriculum():
    tasks = TaskSplits(seeds=(TASK,) * 400, held_out=())
    stages = [replace(stage, categories=(TASK.category,)) for stage in QWEN3_4B.stages]
    assert hours.steps_of(QWEN3_4B, replace(stages[0], epochs=5, synthesis=False), tasks) == [13] * 5
    # 400, 480, 576, 691, 800 tasks: a fifth more each time, up to the capacity of 400.
    assert hours.steps_of(QWEN3_4B, replace(stages[2], epochs=5, synthesis=True), tasks) == [13, 15, 18, 22, 25]
    both = (replace(stages[0], epochs=5, synthesis=False), replace(stages[2], epochs=5, synthesis=True))
    config, first, second = replace(QWEN3_4B, stages=both), both[0].name, both[1].name
    assert hours.planned_steps(config, tasks) == {first: 65, second: 93}
    assert hours.planned_steps(replace(config, max_steps=70), tasks) == {first: 65, second: 5}
    # 32 tasks x 16 rollouts a step: the 20th reaches 10,000.
    assert hours.planned_steps(replace(config, max_steps=70, max_rollouts=10_000), tasks) == {first: 20, second: 0}
    # Before the first step, after the fourth and the eighth epoch, and at the end; no more than the run reaches.
    config = replace(config, evaluation=replace(QWEN3_4B.evaluation, every_epochs=4))
    ends = (None, 4), (70, 3), (10, 2), (52, 2)
    assert [hours.evaluations_of(replace(config, max_steps=last), tasks) for last, _ in ends] == [n for _, n in ends]


def test_refilled_steps_play_as_many_tasks_as_they_may():
    tasks = TaskSplits(seeds=(TASK,) * 50, held_out=())
    stage = replace(QWEN3_4B.stages[0], categories=(TASK.category,), epochs=10)
    rollout = replace(QWEN3_4B.rollout, tasks_per_step=8, group_size=4, refill=2.5)
    config, name = replace(QWEN3_4B, stages=(stage,), rollout=rollout), stage.name
    assert hours.planned_tasks(config, tasks) == {name: 10 * 7 * 8}  # 50 tasks in 7 steps of 8
    refilled = replace(config, rollout=replace(rollout, keep=filtering.mixed))
    # Up to 20 tasks a step, of an epoch 60; 5 steps play 100; 300 rollouts of 4 are reached by the fourth step of 20.
    limits = ({}, 10 * 60), ({"max_steps": 5}, 5 * 20), ({"max_rollouts": 300}, 4 * 20)
    assert [hours.planned_tasks(replace(refilled, **limit), tasks) for limit, _ in limits] == [
        {name: n} for _, n in limits
    ]


def test_validation_tasks_are_played_where_they_choose_a_checkpoint():
    config = replace(twin(QUICKSTART), mesh=(1, 1, 1, 1), max_steps=2)
    config = replace(config, evaluation=replace(config.evaluation, num_tasks=6))
    tasks = TaskSplits(seeds=(TASK,) * 9, held_out=(TASK,) * 5, validation=(TASK,) * 8)
    model, found = plan.model_of(config), Slice(ahead_of_time.CHIPS["v5e"], 1)
    reports = plan.search([config], model, found)[1]["programs"]
    lengths = hours.Lengths(10, 3, 5, 0, 16)

    def evaluation(best: int) -> float:
        chosen = replace(config, retention=replace(config.retention, best=best))
        return hours.hours(chosen, model, found, reports, tasks, lengths, 0.5, None)["hours"]["evaluation"]

    assert evaluation(1) == pytest.approx(evaluation(0) * (2 * 5 + 6) / (2 * 5))


def test_a_device_that_is_half_a_chip_costs_half_of_one():
    config = replace(twin(QUICKSTART), mesh=(1, 1, 1, 1), max_steps=2)
    tasks = TaskSplits(seeds=(TASK,) * 9, held_out=(TASK,) * 5)
    chip, lengths = ahead_of_time.CHIPS["tpu7x"], hours.Lengths(10, 3, 5, 0, 16)
    model, found = plan.model_of(config), Slice(chip, 8)
    reports = plan.search([config], model, found)[1]["programs"]
    run = hours.hours(config, model, found, reports, tasks, lengths, 0.5, 3.0)
    assert run["chip_hours"] == pytest.approx(4 * run["hours"]["total"])  # 8 devices are 4 chips
    assert run["cost"] == pytest.approx(3 * run["chip_hours"])


def test_a_price_and_an_efficiency_scale_the_whole(capsys, monkeypatch, tmp_path):
    some = lambda domain, seed: TaskSplits(seeds=(TASK,) * 9, held_out=(TASK,) * 5)
    monkeypatch.setattr(
        plan.configuration, "load_config", lambda *_: replace(twin(QUICKSTART), build_tasks=some, max_steps=2)
    )
    results = []
    for efficiency, price in (("0.5", "2.0"), ("0.25", "3.0")):
        monkeypatch.setattr(sys, "argv", [
            "plan", "--config", "it", "--topology", "h100:8", "--mesh", "2", "2", "2", "1", "--json",
            str(tmp_path / "it.json"), "--efficiency", efficiency, "--price", price,
        ])  # fmt: skip
        with pytest.raises(SystemExit) as stopped:
            plan.main()
        assert stopped.value.code == 0
        results.append(json.loads((tmp_path / "it.json").read_text())["run"])
    one, half = results
    assert half["hours"]["total"] == pytest.approx(2 * one["hours"]["total"]) and one["hours"]["rollouts"] > 0
    assert half["chip_hours"] == pytest.approx(8 * half["hours"]["total"])
    assert half["cost"] == pytest.approx(3 * half["chip_hours"])
    assert sum(one["steps"].values()) == 2  # where the run stops
    assert "chip-hours, at 3 each" in capsys.readouterr().out
