"""A study: its plan, its lines, what it concludes, and its processes."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import study_toy
from forks import host_devices
from replay_toy import task_named
from rich.console import Console
from scipy import stats
from study_toy import STUDY

from configs.study_office import CONFIG as OFFICE
from configs.study_office import STUDY as OFFICE_STUDY
from rods_jax import boundary
from rods_jax.config import ConfigError, SynthesisConfig
from rods_jax.synthesis.algebra import the_seed_itself
from rods_jax.synthesis.author import Order
from rods_jax.task_files import content_hash, task_to_json
from rods_jax.types import Call, Turn
from scripts.study import inference, one, plan
from scripts.study.__main__ import Settings, chosen, shares, time_left
from scripts.study.pool import stretches

ROOT = Path(__file__).parent.parent


# ---------------------------------------------------------------------------------------- the plan
def test_primary_arms_run_first_seed_by_seed():
    assert [run.name for run in plan.planned(STUDY)] == ["static@0", "rods@0", "static@1", "rods@1", "other@0"]


def test_what_has_a_line_does_not_run_again():
    lines = [{"arm": "static", "seed": 0}, {"arm": "rods", "seed": 1}]
    assert [run.name for run in plan.remaining(STUDY, lines)] == ["rods@0", "static@1", "other@0"]


def test_arms_of_a_seed_share_their_cold_start():
    folders = {run.name: plan.cold_config_of(OFFICE_STUDY, run).run_dir for run in plan.planned(OFFICE_STUDY)}
    own = [
        name for name in folders if name.startswith(("offline", "env_tuning"))
    ]  # with other tasks, or another domain
    assert len({folder for name, folder in folders.items() if name not in own}) == len(OFFICE_STUDY.seeds)
    assert len({folders[name] for name in own}) == len(own) == 18


def test_a_digest_is_of_the_settings_that_were_chosen():
    digest = plan.digest_of(OFFICE)
    assert plan.digest_of(replace(OFFICE, run_dir="elsewhere", file="x.py", stop_seconds=300.0)) == digest
    assert plan.digest_of(replace(OFFICE, update=replace(OFFICE.update, signal=boundary.any_task))) != digest
    # Equal to the default: nothing was chosen, and a key that comes with its default changes no digest.
    assert plan.digest_of(replace(OFFICE, update=replace(OFFICE.update, signal=boundary.mean_band))) == digest
    assert len({plan.digest_of(plan.config_of(OFFICE_STUDY, run)) for run in plan.planned(OFFICE_STUDY)}) == len(
        plan.planned(OFFICE_STUDY)
    )


def test_the_primary_arms_differ_in_what_the_hypotheses_name():
    arms = {arm.name: arm.change(OFFICE) for arm in OFFICE_STUDY.arms}
    assert replace(arms["random"], update=arms["rods"].update) == arms["rods"]
    assert arms["static"] == OFFICE and not OFFICE.stages[0].synthesis and arms["rods"].stages[0].synthesis


def test_a_fork_that_was_killed_before_its_first_record_has_not_ended(tmp_path):
    config = replace(OFFICE, run_dir=str(tmp_path))
    assert not one.has_ended(config)
    (tmp_path / "metrics.jsonl").touch()
    assert not one.has_ended(config)


def test_a_copy_is_the_seed_under_a_new_id():
    seed = replace(task_named("seed", ()), turns=(Turn("what?"),))
    write = the_seed_itself(None)
    copy = write(Order(seed), step=7, rng=None, known_hashes=frozenset({content_hash(seed)})).candidate
    assert copy == replace(seed, id="seed~7", ancestry=("seed",))
    again = write(Order(copy), step=9).candidate
    assert again == replace(seed, id="seed~7~9", ancestry=("seed", "seed~7"))


def test_who_writes_at_once_works_in_the_trainer():
    with pytest.raises(ConfigError, match="synthesis.at_once needs synthesis.workers above 0"):
        SynthesisConfig(backends=dict, author=the_seed_itself, at_once=True, workers=0)


@pytest.mark.parametrize("name", ["rods", "rods@", "rods@x", "nothing@1"])
def test_a_run_that_is_none_is_refused(name):
    with pytest.raises(ConfigError, match="a run is named ARM@SEED, its arm one of static, other, rods"):
        plan.named(STUDY, name)


def test_lines_of_another_configuration_are_refused(tmp_path):
    run = plan.planned(STUDY)[0]
    digest = plan.digest_of(plan.config_of(STUDY, run))
    path = tmp_path / "toy.jsonl"
    path.write_text(json.dumps({"arm": "static", "seed": 0, "config": digest}) + "\n")
    assert len(plan.read_lines(STUDY, path)) == 1
    other = replace(STUDY, config=replace(STUDY.config, max_rollouts=28))
    with pytest.raises(ConfigError, match="static@0 with another configuration"):
        plan.read_lines(other, path)
    with pytest.raises(ConfigError, match="runs of static, which is no arm"):
        plan.read_lines(replace(STUDY, arms=STUDY.arms[1:], primary=(), reference="rods"), path)


def test_what_is_added_later_runs_last_and_is_a_family_of_its_own():
    added = replace(STUDY, arms=(plan.Arm(name="new", about="", against="rods", seeds=1), *STUDY.arms))
    assert [run.name for run in plan.planned(added)][-2:] == ["other@0", "new@0"]
    assert added.contrasts == {
        "primary": (("rods", "static"),),
        "secondary": (("other", "static"),),
        "added": (("new", "rods"),),
    }
    with pytest.raises(ConfigError, match="contrasts name gone, which is no arm"):
        replace(STUDY, arms=(*STUDY.arms, plan.Arm(name="late", about="", against="gone")))


def test_contrasts_name_arms():
    with pytest.raises(ConfigError, match="contrasts name nobody, which is no arm"):
        replace(STUDY, primary=(("rods", "nobody"),))


def test_the_time_that_is_left_follows_from_the_runs_that_have_ended():
    lines = [{"arm": "static", "seed": 0, "seconds_run": 3600.0}, {"arm": "rods", "seed": 0, "seconds_run": 7200.0}]
    left = plan.remaining(STUDY, lines)  # static 1 h, rods 2 h, the other arm as the median, 1.5 h
    assert time_left(lines, left, 1) == "about 4.5 h, from 2 runs"
    assert time_left(lines, left, 3) == "about 1.5 h, from 2 runs"


def test_some_arms_can_run_first():
    left = plan.remaining(STUDY, [])
    settings = Settings(config=Path("it.py"), only=("other",), most=1)
    assert [run.name for run in chosen(left, settings, STUDY)] == ["other@0"]
    with pytest.raises(ConfigError, match=r"--only names rodz: toy has no such arm$"):
        chosen(left, replace(settings, only=("rodz", "other")), STUDY)


def test_jobs_have_cores_of_their_own():
    assert shares([0, 1, 4, 5], 2) == [{0, 4}, {1, 5}]
    assert shares([2, 3], 1) == [{2, 3}] and shares([3], 2) == [{3}, {3}] and shares([], 2) == [set(), set()]


# --------------------------------------------------------------------------------------- the line
def test_a_held_out_task_without_a_score_fails_the_run(tmp_path, monkeypatch):
    config = replace(plan.config_of(STUDY, plan.named(STUDY, "static@0")), run_dir=str(tmp_path))
    tasks = SimpleNamespace(held_out=(task_named("broken"), task_named("fine")))
    monkeypatch.setattr(one.place, "read_inputs", lambda directory: (tasks, ()))
    monkeypatch.setattr(one, "evaluation_player", lambda *_, **__: None)
    monkeypatch.setattr(one.checkpoint, "read_params", lambda *_: (0, None))
    played = [SimpleNamespace(failure="the world broke", passed=(False,))] * 2
    played += [SimpleNamespace(failure=None, passed=(True, False))] * 2
    learner = SimpleNamespace(shapes=None, whole=lambda params: params)
    config = replace(config, learner=lambda config: lambda vocab_size: learner, codec=dict)
    for trajectories, lost in ((played, True), (played[1:3] + played[2:], False)):
        found = SimpleNamespace(trajectories=trajectories)
        monkeypatch.setattr(one, "collect", lambda *_, found=found, **__: found)
        if lost:
            with pytest.raises(RuntimeError, match="all rollouts of 1 held-out tasks failed, such as broken"):
                one.held_out_scores(STUDY, config, [5])
        else:
            assert one.held_out_scores(STUDY, config, [5])[0]["by_task"] == [0.5, 0.5]


def test_a_result_of_other_settings_is_no_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = plan.named(STUDY, "static@0")
    folder = plan.folder_of(STUDY, run)
    folder.mkdir(parents=True)
    (folder / one.RESULT).write_text(json.dumps({"config": "of before"}))
    with pytest.raises(ConfigError, match="static-0 holds the result of other settings"):
        one.train_and_measure(STUDY, run, Console(quiet=True))


def test_points_are_the_last_checkpoints_within_equal_shares_of_the_budget():
    records = [{"step": 0}] + [
        {"step": step, "rollouts_spent": 5 * step, "tokens_spent": 7 * step, "seconds_step": 2.0}
        for step in range(1, 6)
    ]  # the budget is 24
    ways = one.points(records, [0, 2, 3, 5], STUDY)
    assert ways == [one.Point(2, 10, 14, 4.0), one.Point(5, 25, 35, 10.0)]


def test_the_area_is_the_mean_of_the_curve():
    assert one.area([0, 10, 30], [0.0, 1.0, 0.5]) == pytest.approx((5 + 15) / 30)


def test_stretches_tell_how_the_pool_fared(tmp_path):
    """Two stretches of two steps: a variant is written in each, and the first is trained on three steps long."""
    seed, early, late = (task_named(name, ()) for name in ("seed", "early", "late"))
    early = replace(early, turns=(Turn("do", (Call("a", {}), Call("b", {}))), Turn("and", (Call("a", {}),))))
    trained = [
        ({"seed": 0.5}, 1),
        ({"early": 0.25, "seed": 1.0}, 2),
        ({"early": 1.0}, 1),
        ({"early": 1.0, "late": 0.9}, 2),
    ]
    records = [{"step": 0}] + [
        {
            "step": step,
            "task_ids": list(means),
            "task_mean": list(means.values()),
            "zero_variance": step / 10,
            "pool_human": 1,
            "pool_active": active,
            "zone_boundary": 1,
        }
        for step, (means, active) in enumerate(trained, start=1)
    ]
    entry = {"seed": "seed", "dispatched": 0, "rejections": [], "exchanges": []}
    written = [entry | {"step": step, "candidate": task_to_json(task)} for step, task in ((1, early), (4, late))]
    (tmp_path / "tasks").mkdir()
    for name, some in (
        ("candidates", [*written, entry | {"step": 4, "candidate": None}]),
        ("tasks/seeds", [task_to_json(seed)]),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in some))
    first, second = stretches(tmp_path, records, 2)
    assert first == {
        "steps": [1, 2],
        "trained_progress": round(1.75 / 3, 4),
        "in_band": round(2 / 3, 4),
        "zero_variance": 0.15,
        "pool": 3,
        "boundary": 1,
        "first_in_band": [1, 1],
        "life": 2.0,
        "variants": 1,
        "calls": 3.0,
        "turns": 2.0,
        "patterns": 1.0,
    }
    assert second["first_in_band"] == [0, 1] and second["life"] == 0.0 and second["steps"] == [3, 4]
    # A step that dropped groups: its places say nothing of those that were played, in the run's other stretches neither.
    records[1]["tasks_kept"] = 1
    assert [one["zero_variance"] for one in stretches(tmp_path, records, 2)] == [None, None]


# -------------------------------------------------------------------------------------- inference
D = [0.03, 0.01, -0.01, 0.05, 0.02, 0.04, 0.00, 0.03, 0.01, 0.02, -0.02, 0.06]


def test_the_paired_t_test_is_scipys():
    found = inference.paired_t(D)
    test = stats.ttest_rel(D, [0.0] * 12)
    half = 2.200985 * np.std(D, ddof=1) / 12**0.5
    assert found.p == pytest.approx(test.pvalue) and found.num_seeds == 12
    assert (found.low, found.high) == pytest.approx((np.mean(D) - half, np.mean(D) + half), rel=1e-5)
    assert inference.paired_t([0.1, 0.1]).p == 0 and inference.paired_t([0.0, 0.0]).p == 1
    with pytest.raises(ValueError, match="at least two seeds"):
        inference.paired_t([0.1])


def test_sign_flips_count_all_patterns():
    assert inference.sign_flips([1.0] * 12) == 2 / 4096
    assert inference.sign_flips([1.0, 2.0, -3.0]) == 1.0
    # |+-1 +-2 +-4| >= 5: the sums 7, 5, -5, -7 of eight.
    assert inference.sign_flips([-1.0, 2.0, 4.0]) == 0.5
    # 1/3, -1/3 and 2/3, rounded to six digits apart from each other: six of eight sums are as large as 2/3.
    assert inference.sign_flips([0.333334, -0.333333, 0.666667]) == 0.75
    test = stats.permutation_test((D,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert inference.sign_flips(D) == pytest.approx(test.pvalue)


def test_the_crossed_bootstrap_knows_both_kinds_of_chance():
    rng = np.random.default_rng(0)
    seeds_S, tasks_K = rng.normal(0, 0.1, 12), rng.normal(0, 0.3, 128)
    alone = inference.crossed_bootstrap(np.repeat(seeds_S[:, None], 128, 1))
    both = inference.crossed_bootstrap(seeds_S[:, None] + tasks_K[None, :])
    variance = seeds_S.var() / 12
    assert (alone[1] - alone[0]) / 3.92 == pytest.approx(variance**0.5, rel=0.05)
    assert (both[1] - both[0]) / 3.92 == pytest.approx((variance + tasks_K.var() / 128) ** 0.5, rel=0.05)
    assert inference.crossed_bootstrap(np.full((3, 4), 0.25)) == pytest.approx((0.25, 0.25))


def test_holm_by_hand():
    assert inference.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert inference.holm([0.9, 0.8]) == [1.0, 1.0] and inference.holm([]) == []


def test_equivalence_needs_both_sides():
    test = lambda margin: stats.ttest_1samp(D, margin, alternative="less").pvalue
    assert inference.equivalence(D, 0.05) == pytest.approx(test(0.05))
    assert inference.equivalence(D, 0.05) < 0.05 < inference.equivalence(D, 0.02)


def test_power_is_that_of_the_registered_table():
    """Which a program of one's own confirms: 0.027 / sqrt 12 and the noncentral t."""
    text = (ROOT / "docs/study/preregistration.md").read_text("utf-8")
    for sd, least, half, six, power in ((0.020, 0.018, 0.0205, 0.029, 1.0), (0.027, 0.024, 0.0275, 0.039, 0.94)):
        assert f"| {sd:.3f} | {least:.3f} |" in text
        assert inference.power(least, sd, 12) >= 0.8 > inference.power(least - 0.001, sd, 12)
        assert inference.power(half, sd, 12, 0.025) >= 0.8 > inference.power(half - 0.001, sd, 12, 0.025)
        assert inference.power(six, sd, 6) >= 0.8 > inference.power(six - 0.001, sd, 6)
        assert inference.power(0.03, sd, 12) == pytest.approx(power, abs=0.005)
    assert inference.power(0.0, 0.03, 12) == pytest.approx(0.05)


def test_rank_correlation_and_its_reliability():
    assert inference.rank_correlation([1, 2, 3], [10, 20, 30]) == 1.0
    assert np.isnan(inference.rank_correlation([1, 1, 1], [1, 2, 3]))
    truth_A = np.arange(8.0)
    noise_AS = np.random.default_rng(0).normal(size=(8, 12))
    assert inference.reliability(truth_A[:, None] + 0.01 * noise_AS, splits=50) == pytest.approx(1.0)
    assert inference.reliability(noise_AS, splits=200) < 0.5
    assert np.isnan(inference.reliability(noise_AS[:, :3]))


# -------------------------------------------------------------------------------------- processes
def command(folder: Path, *options: str) -> subprocess.Popen:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": paths, "XLA_FLAGS": host_devices(1)}
    line = [sys.executable, "-m", "scripts.study", "--config", study_toy.__file__, *options]
    return subprocess.Popen(line, cwd=folder, env=environment, stdout=subprocess.DEVNULL)


def lines_in(folder: Path) -> list[dict]:
    """Without what differs between two equal runs."""
    others = ("ended", "seconds", "seconds_run", "seconds_evaluation", "commit", "changed")
    lines = [json.loads(line) for line in (folder / "docs/study/toy.jsonl").read_text().splitlines()]
    for line in lines:
        for point in line["way"]:
            del point["seconds"]
    return [{key: value for key, value in line.items() if key not in others} for line in lines]


@pytest.mark.slow
def test_a_study_that_is_stopped_goes_on_and_ends_with_the_same_lines(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
    assert command(whole, "--jobs", "2").wait() == 0
    # Stop in the middle of a run, kill the next, and let the third end.
    for number, name in ((signal.SIGTERM, "static-0"), (signal.SIGKILL, "rods-0")):
        process = command(stopped, "--jobs", "2")
        metrics = stopped / "runs/study/toy" / name / "metrics.jsonl"
        while not (metrics.exists() and metrics.read_text().count("\n") > 3) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait() in (75, -9, 0)
    while command(stopped, "--jobs", "2").wait():  # what was killed has left a run behind that ends by itself
        time.sleep(1)
    by_run = lambda line: (line["arm"], line["seed"])
    assert sorted(lines_in(whole), key=by_run) == sorted(lines_in(stopped), key=by_run)
    assert len(lines_in(whole)) == 5
