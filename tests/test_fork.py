"""Checkpoint-resume experiments: an earlier step, a fork with other settings, and where two runs first differ."""

import json
import re
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from test_checkpoint import flip_a_bit, largest
from training_beside import CONFIG as BESIDE
from training_toy import CONFIG, few_tasks, play, toy

from rods_jax.codecs.documents import tool_name
from rods_jax.codecs.llama import llama_codec
from rods_jax.codecs.tokenizer import train_tokenizer
from rods_jax.commands import compare_runs, train
from rods_jax.config import ColdStartConfig, ConfigError, Habits, RetentionConfig, require_same_run
from rods_jax.environments.workplace.domain import WORKPLACE
from rods_jax.files import CheckpointError
from rods_jax.run.compare import compare
from rods_jax.run.directory import fork

CONTINUED = {"max_steps": 4, "retention": RetentionConfig(latest=9)}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "source"
    said = play(toy(run, **CONTINUED))
    sizes = re.search(
        r"holds params (\S+) MB, reference_params (\S+) MB, optimizer_state (\S+) MB, host (\S+) MB", said
    )
    params, reference, optimizer, host = map(float, sizes.groups())
    assert params == reference == pytest.approx(optimizer / 2, rel=0.01) and host > 0
    return run


def differs(capsys, a, b) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        compare_runs.compare_runs(a, b)
    return end.value.code, capsys.readouterr().out


@pytest.mark.slow
def test_an_earlier_step_gives_the_same_run_again(source, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(source, run)
    assert "resumed at step 2" in play(toy(run, **CONTINUED), step=2)
    monkeypatch.chdir(tmp_path)  # directories are named from where one stands
    assert differs(capsys, Path("run"), source) == (0, "no difference\n")


def test_a_fork_with_the_same_settings_is_the_same_run(source, tmp_path):
    config = toy(tmp_path / "fork", **CONTINUED)
    fork(config, source, 3)
    assert "resumed at step 3" in play(config)
    assert compare(tmp_path / "fork", source) == []


def test_a_damaged_checkpoint_is_compared_with_nothing(source, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(source, run)
    cut = run / "checkpoints" / "2" / "train_state" / "_METADATA"
    cut.write_bytes(cut.read_bytes()[:100])
    status, said = differs(capsys, run, source)
    assert status == 2 and "error: " in said and "_METADATA" in said and "is damaged" in said


def test_a_run_goes_on_under_a_version_with_more_keys_as_long_as_they_have_their_defaults(source, tmp_path):
    # `source`, as a version wrote it that did not know these four.
    older = tmp_path / "older"
    shutil.copytree(source, older)
    saved = json.loads((older / "config.json").read_text())
    del saved["writers"], saved["update"]["mask_user_errors"], saved["replay"]["retire_generated"]
    del saved["stages"][0]["warn_of_calls"]
    (older / "config.json").write_text(json.dumps(saved))
    config = toy(older, **CONTINUED)
    require_same_run(config, older)
    fork(replace(config, run_dir=str(tmp_path / "fork")), older, 3)
    # Another value than the default is another run.
    masked = replace(config, update=replace(config.update, mask_user_errors=True))
    warned = replace(config, stages=(replace(config.stages[0], warn_of_calls=True), *config.stages[1:]))
    for changed, key in ((masked, "update.mask_user_errors"), (warned, "stages.0.warn_of_calls")):
        with pytest.raises(ConfigError, match=rf"was started with another {re.escape(key)}$"):
            require_same_run(changed, older)


def test_a_fork_with_another_setting_differs_from_its_first_step_on_and_the_comparison_says_in_what(
    source, tmp_path, capsys
):
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    config = toy(tmp_path / "fork", rollout=replace(CONFIG.rollout, temperature=0.3), **CONTINUED)
    fork(config, source, 2)
    play(config)
    status, said = differs(capsys, source, tmp_path / "fork")
    settings, metrics, checkpoints = [line for line in said.splitlines() if not line.startswith(("cand", "traj"))]
    assert status == 1 and settings == "settings: rollout.temperature"
    assert metrics.startswith("metrics: step 3 differs in ") and "loss (" in metrics and "task_ids" not in metrics
    assert checkpoints.startswith("checkpoints: step 3 differs in ") and "['embedding'] (by 0." in checkpoints
    assert before == {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    assert differs(capsys, source, tmp_path)[0] == 2


OTHERS = {
    "domain": {"domain": lambda: WORKPLACE},
    "build_tasks": {"build_tasks": lambda domain, seed: few_tasks(domain, seed + 1)},
    "tokenizer.keywords.vocab_size": {"tokenizer": partial(train_tokenizer, vocab_size=700)},
    "codec.partial": {"codec": partial(llama_codec, document=tool_name)},
    "model.width": {"model": replace(CONFIG.model, width=32)},
    "cold_start": {
        "cold_start": ColdStartConfig(
            learning_rate=1e-3, habits=Habits(), batch_size=4, suffix_sizes=(128,), max_steps=4, target_reward=0.9,
            evaluate_every=2,
        )
    },
    "replay.capacity": {"replay": replace(CONFIG.replay, capacity=9)},
    "stages.0.name": {"stages": (replace(CONFIG.stages[0], name="another"),)},
    "stages": {"stages": (CONFIG.stages[0], replace(CONFIG.stages[0], name="second"))},
    "update.kl_coefficient (the reference policy would appear or vanish)": {
        "update": replace(CONFIG.update, kl_coefficient=0.0)
    },
    "synthesis (the variants so far have no journal)": {"synthesis": BESIDE.synthesis},
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_a_fork_cannot_change_what_the_checkpoint_means(source, tmp_path, name):
    with pytest.raises(ConfigError) as refused:
        fork(toy(tmp_path / "fork", **OTHERS[name]), source, 2)
    assert str(refused.value) == f"a fork cannot change {name}"
    assert not (tmp_path / "fork").exists()


def test_epochs_of_past_stages_are_refused_too(source, tmp_path):
    second = replace(CONFIG.stages[0], name="second")
    two = (CONFIG.stages[0], second)
    run = tmp_path / "run"
    shutil.copytree(source, run)
    old = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(
        json.dumps(old | {"stages": old["stages"] + [old["stages"][0] | {"name": "second"}]})
    )
    longer = (replace(CONFIG.stages[0], epochs=5), second)
    with pytest.raises(ConfigError, match=r"a fork cannot change stages\.0\.epochs$"):
        fork(toy(tmp_path / "fork", stages=longer), run, 2)
    fork(toy(tmp_path / "fork", stages=(two[0], replace(second, epochs=7))), run, 2)  # the last stage may be longer


def test_a_fork_needs_a_whole_checkpoint_and_a_place_of_its_own(source, tmp_path):
    run, config = tmp_path / "run", toy(tmp_path / "fork")
    shutil.copytree(source, run)
    with pytest.raises(CheckpointError, match="run holds no checkpoint of step 1$"):
        fork(config, run, 1)
    flip_a_bit(largest(run / "checkpoints" / "2" / "train_state"))
    with pytest.raises(CheckpointError, match="2 is damaged: 1 files differ"):
        fork(config, run, 2)
    with pytest.raises(ConfigError, match="already holds a run"):
        fork(toy(source), run, 3)
    with pytest.raises(ConfigError, match="holds no run"):
        fork(config, tmp_path, 3)


@pytest.mark.parametrize("arguments", [["--fork", "new"], ["--from", "old@2"], ["--fork", "new", "--from", "old"]])
def test_half_a_fork_is_refused(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train", "--config", "tests/training_toy.py", *arguments])
    with pytest.raises(SystemExit) as end:
        train.main()
    assert end.value.code == 2 and "a fork needs both --fork NEW and --from RUN@STEP" in capsys.readouterr().out


def test_a_fork_with_a_second_step_is_refused_before_it_is_made(source, tmp_path, monkeypatch, capsys):
    new = tmp_path / "new"
    fork = ["--fork", str(new), "--from", f"{source}@2", "--resume-step", "1"]
    monkeypatch.setattr(sys, "argv", ["train", "--config", "tests/training_toy.py", *fork])
    with pytest.raises(SystemExit) as end:
        train.main()
    assert end.value.code == 2 and not new.exists()
    assert "a fork begins at the step of --from: leave --resume-step out" in capsys.readouterr().out
