"""Whose a directory is: nothing that is there is removed or written over, but what a command of ours left unfinished."""

import contextlib
import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import pytest
from rich.console import Console
from training_toy import CONFIG, toy

from rods_jax import checkpoint, files
from rods_jax.config import ColdStartConfig, ConfigError, Habits, load_config
from rods_jax.fields import plain_values
from rods_jax.files import MARK, CheckpointError, FolderError
from rods_jax.older import LAYOUT
from rods_jax.run import directory as run_directory
from rods_jax.run.directory import Inputs, alone, begins, fork, has_begun, take
from rods_jax.run.played import run_config
from rods_jax.run.training import advance

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def built() -> Inputs:
    return run_directory.build(CONFIG, CONFIG.domain(), Console(file=io.StringIO()))


def begin(directory: Path, built: Inputs) -> None:
    """A start that is interrupted before its first checkpoint."""
    with contextlib.ExitStack() as held:
        take(toy(directory), built, directory, held)


def save(directory: Path, *steps: int) -> None:
    with checkpoint.open_checkpoints(directory / "checkpoints") as checkpoints:
        for step in steps:
            checkpoint.save(checkpoints, step, {"x": jnp.zeros(3)}, {"outcomes": 0})


def run_of(directory: Path, built: Inputs) -> Path:
    """A run with two checkpoints and a log."""
    begin(directory, built)
    save(directory, 0, 2)
    has_begun(directory)
    (directory / "metrics.jsonl").write_text('{"step": 0}\n{"step": 1}\n{"step": 2}\n')
    return directory


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------------------- what a start may replace
def test_a_new_an_empty_and_an_unfinished_directory_are_begun_and_a_run_is_not(tmp_path, built):
    new = tmp_path / "runs" / "new"
    assert begins(new, resume=False) and not new.parent.exists()  # looking touches nothing
    begin(new, built)
    (new / "left.partial").write_text("by the interrupted start")
    assert (new / MARK).exists() and begins(new, resume=False) and begins(new, resume=True)
    begin(new, built)
    assert not (new / "left.partial").exists() and (new / "config.json").exists()
    save(new, 0)
    assert (new / MARK).exists()  # a kill came before it went: what is saved is a run all the same
    with pytest.raises(ConfigError, match="with --resume, or give another --run-dir or --fork$"):
        begins(new, resume=False)
    assert not begins(new, resume=True)
    has_begun(new)
    assert not (new / MARK).exists() and not begins(new, resume=True)
    (tmp_path / "empty").mkdir()
    assert begins(tmp_path / "empty", resume=False)
    with pytest.raises(ConfigError, match="holds no run"):
        begins(tmp_path / "empty", resume=True)


@pytest.mark.parametrize("command", ["start", "fork"])
@pytest.mark.parametrize(
    "place",
    ["photos", "runs", "a file", "runs/a", "runs/a/inside", "runs/a/checkpoints/7", "a link", "a dangling link"],
)
def test_whatever_else_is_there_is_left_as_it_is(tmp_path, built, place, command):
    source = run_of(tmp_path / "runs" / "a", built)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"\xff")
    (tmp_path / "photos" / MARK).write_text("a file of this name that is not ours")
    (tmp_path / "a file").write_text("text")
    (tmp_path / "a link").symlink_to(tmp_path / "photos")
    (tmp_path / "a dangling link").symlink_to(tmp_path / "nowhere")
    before = contents(tmp_path)
    with pytest.raises((FolderError, ConfigError)) as refused:
        if command == "start":
            begins(tmp_path / place, resume=False)
        else:
            fork(toy(tmp_path / place), source, 2)
    assert str(tmp_path / place) in str(refused.value)
    assert contents(tmp_path) == before and not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("address", ["gs://bucket/first", "s3://bucket/first"])
def test_an_address_of_a_store_is_no_folder_of_the_local_disk(tmp_path, monkeypatch, address):
    """`Path` takes it for one, and the run would be lost with the machine."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FolderError, match=r"^\w\w:/bucket/first is an address: mount the store, and name"):
        begins(Path(address), resume=False)


def test_a_fork_that_was_interrupted_is_repeated(tmp_path, built, monkeypatch):
    source, new = run_of(tmp_path / "a", built), tmp_path / "new"
    before = contents(source)
    with monkeypatch.context() as patch:
        patch.setattr(run_directory, "_write_config", lambda *_: os.stat(tmp_path / "as if killed"))
        with pytest.raises(FileNotFoundError):
            fork(toy(new), source, 2)
    assert (new / MARK).exists() and (new / "checkpoints" / "2").exists()
    (new / "half").write_text("a file")
    fork(toy(new), source, 2)
    assert not (new / MARK).exists() and not (new / "half").exists() and not begins(new, resume=True)
    assert contents(source) == before
    with pytest.raises(ConfigError, match="already holds a run"):
        fork(toy(new), source, 2)


def test_a_fork_with_impossible_settings_is_refused_before_it_is_made(tmp_path, built):
    source, config = run_of(tmp_path / "a", built), toy(tmp_path / "new")
    too_many = replace(config, rollout=replace(CONFIG.rollout, tasks_per_step=100))
    with pytest.raises(ConfigError, match="a batch of so many different tasks cannot be drawn"):
        advance(too_many, resume=True, source=(source, 2), console=Console(file=io.StringIO()))
    assert not (tmp_path / "new").exists()  # so that the mended command may make it


def test_a_fork_of_a_checkpoint_that_goes_while_it_is_copied_is_refused(tmp_path, built, monkeypatch):
    source, copytree = run_of(tmp_path / "a", built), run_directory.shutil.copytree

    def copied(old, new, *more):
        copytree(old, new, *more)
        if Path(old).name == "2":
            (new / "host" / "metadata").unlink()  # its trainer had begun to remove it

    monkeypatch.setattr(run_directory.shutil, "copytree", copied)
    with pytest.raises(CheckpointError, match="2 could not be copied whole: 1 files differ"):
        fork(toy(tmp_path / "new"), source, 2)
    assert begins(tmp_path / "new", resume=False)  # and may be repeated


# ------------------------------------------------------------------------- a run whose checkpoints are gone
@pytest.mark.parametrize("how", ["removed", "empty", "set aside", "a file"])
def test_a_run_without_a_checkpoint_is_refused_every_time_and_left_as_it_is(tmp_path, built, how):
    run = run_of(tmp_path / "run", built)
    checkpoints = run / "checkpoints"
    checkpoints.rename(tmp_path / "elsewhere")
    if how == "empty":
        checkpoints.mkdir()
    elif how == "a file":
        checkpoints.write_text("")
    elif how == "set aside":
        checkpoints.mkdir()
        (tmp_path / "elsewhere" / "2").rename(checkpoints / "damaged-2")
    before = contents(run)
    for _ in range(2):
        for resume, words in ((True, "without a checkpoint.*is its disk mounted"), (False, "already holds a run")):
            with pytest.raises(ConfigError, match=words):
                advance(toy(run), resume=resume, console=Console(file=io.StringIO()))
    assert contents(run) == before


def test_damaged_checkpoints_alone_are_refused_every_time_and_left_as_they_are(tmp_path, built):
    run = run_of(tmp_path / "run", built)
    for manifest in run.glob("checkpoints/*/manifest.json"):
        manifest.write_text("[]")
    before = contents(run)
    for _ in range(2):
        with checkpoint.open_checkpoints(run / "checkpoints") as checkpoints:
            with pytest.raises(
                CheckpointError, match=r"damaged checkpoints alone: \[0, 2\]; of 2, its manifest is unread"
            ):
                checkpoint.restore(checkpoints, {"x": jnp.zeros(3)})
    assert contents(run) == before


def test_a_copied_checkpoint_knows_its_own_step_and_is_set_aside(tmp_path, built):
    checkpoints, said = run_of(tmp_path / "run", built) / "checkpoints", []
    run_directory.shutil.copytree(checkpoints / "2", checkpoints / "7")
    assert checkpoint.damage(checkpoints / "7") == "it is a copy of the checkpoint of step 2"
    with checkpoint.open_checkpoints(checkpoints) as opened:
        assert checkpoint.restore(opened, {"x": jnp.zeros(3)}, tell=said.append)[0] == 2
    assert (checkpoints / "damaged-7").is_dir() and len(said) == 1


# ---------------------------------------------------------------------------------------------- the lock
ENTERING = """
import sys
from pathlib import Path
from rods_jax.run.directory import alone
with alone(Path(sys.argv[1])):
    print("let in")
"""


def entering(directory: Path) -> str:
    done = subprocess.run([sys.executable, "-c", ENTERING, str(directory)], cwd=ROOT, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_a_second_trainer_is_refused_through_a_link_and_without_the_lock_file_too(tmp_path):
    run, link = tmp_path / "run", tmp_path / "link"
    run.mkdir()
    link.symlink_to(run)
    with alone(run):
        assert "is being trained by another process" in entering(link)
        (run / "lock").unlink()
        assert "is being trained by another process" in entering(run)
    assert entering(run).startswith("let in\n")


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_lock_file_is_waited_for_by_nobody(tmp_path, make):
    make(tmp_path / "lock")
    with contextlib.suppress(OSError), alone(tmp_path):
        pass


# ------------------------------------------------------------------------------------------- the files
def test_what_replaces_a_file_stands_in_nobodys_place(tmp_path):
    page, notes, important = (tmp_path / name for name in ("page.html", "page.html.partial", "important.txt"))
    notes.write_text("mine")
    files.write_atomically(page, "one")
    assert (page.read_text(), notes.read_text()) == ("one", "mine")
    notes.unlink()
    important.write_text("mine")
    notes.symlink_to(important)
    files.write_atomically(page, "two")
    assert (page.read_text(), important.read_text()) == ("two", "mine") and not page.is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {page.name, notes.name, important.name}


def test_files_are_replaced_by_several_writers_at_once(tmp_path):
    texts = [f"{number}" * 1_000 for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(partial(files.write_atomically, tmp_path / "x"), texts * 20))
    assert (tmp_path / "x").read_text() in texts and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_named(tmp_path):
    with pytest.raises(OSError, match="No space left on device: '/dev/full/x'"), files.naming("/dev/full/x"):
        with open("/dev/full", "w") as file:
            file.write("x")
            file.flush()


@pytest.mark.parametrize(
    "text, why",
    [
        ("", "it is empty"), ("[]", "must be an object: got []"), ("5", "must be an object: got 5"), ("null", "got None"),
        ("{}", "it lacks the key steps"), ('{"steps": "1"}', "steps must be an integer: got '1'"),
        ('{"steps": true}', "steps must be an integer: got True"), ("[" * 9999, "path"), ('{"steps": NaN}', "no NaN"),
        ('{"steps": 1, "rate": []}', "rate must be a number: got []"), (b"\xff", "not UTF-8"),
    ],
)  # fmt: skip
def test_json_of_another_shape_is_refused_with_its_file_and_key(tmp_path, text, why):
    path = tmp_path / "a path.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError) as refused:
        files.read_object(path, steps=int, rate=float)
    assert str(path) in str(refused.value) and why in str(refused.value)
    path.write_text(json.dumps({"steps": 1, "rate": 2, "more": None}))
    assert files.read_object(path, steps=int, rate=float)["rate"] == 2


def test_what_training_draws_by_functions_is_no_hindrance_to_playing_the_run(tmp_path):
    """The directory holds their names, and the config file the functions."""
    file = tmp_path / "drawing.py"
    file.write_text(
        "from dataclasses import replace\n"
        "from configs.quickstart import CONFIG as QUICKSTART\n"
        "from rods_jax import filtering, samplers\n"
        "r = replace(QUICKSTART.rollout, keep=filtering.mixed, weights=samplers.equal, group_sizes=samplers.by_difficulty)\n"
        "CONFIG = replace(QUICKSTART, rollout=r)\n"
    )
    own = load_config(file)
    (tmp_path / "run").mkdir()
    saved = {"layout": LAYOUT} | plain_values(own)
    (tmp_path / "run" / "config.json").write_text(json.dumps(saved))
    assert run_config(tmp_path / "run", file).rollout == own.rollout


def test_adapters_and_sizes_that_a_command_line_gave_are_those_of_the_run(tmp_path):
    """Alpha changes no shape, so that another one would be exported in silence; nobody who reads a run cuts its steps."""
    file = tmp_path / "adapted.py"
    file.write_text(
        "from dataclasses import replace\n"
        "from configs.quickstart import CONFIG as QUICKSTART\n"
        "from models.decoder import LoraConfig\n"
        "model = replace(QUICKSTART.model, lora=LoraConfig(rank=4, alpha=8.0))\n"
        "update = replace(QUICKSTART.update, micro_batches=3)\n"
        "CONFIG = replace(QUICKSTART, cold_start=None, model=model, update=update)\n"
    )
    sizes = ["--rollout.tasks-per-step", "4", "--rollout.group-size", "8", "--update.micro-batches", "4"]
    trained = load_config(file, ["--model.lora.alpha", "64", "--model.lora.targets", "query", *sizes])
    (tmp_path / "run").mkdir()
    saved = {"layout": LAYOUT} | plain_values(trained)
    (tmp_path / "run" / "config.json").write_text(json.dumps(saved))
    found = run_config(tmp_path / "run", file)
    assert found.model == trained.model and found.model.lora.alpha == 64.0 and found.rollout == trained.rollout
    # A file without adapters is not that of this run.
    file.write_text("from configs.quickstart import CONFIG\n")
    with pytest.raises(ConfigError, match="its model has lora, and the file's has none"):
        run_config(tmp_path / "run", file)


def test_episodes_longer_than_the_models_positions_are_refused_before_anything_is_built(tmp_path, built):
    """96 tokens of a prompt and 128 of a suffix; evaluations play with the rollout's limits, whatever those of stages are."""
    short = replace(CONFIG, run_dir=str(tmp_path / "run"), model=replace(CONFIG.model, max_positions=223))
    sentence = "of stages.online have 224 tokens together, and the model has 223 positions"
    brief = replace(short, stages=(replace(short.stages[0], max_suffix_tokens=64),))
    taught = ColdStartConfig(
        learning_rate=1e-3, habits=Habits(), batch_size=4, suffix_sizes=(128, 200), max_steps=4, target_reward=0.9,
        evaluate_every=2,
    )  # fmt: skip
    learning = replace(brief, model=replace(CONFIG.model, max_positions=224), cold_start=taught)
    for config, told in (
        (short, sentence),
        (brief, sentence.replace("stages.online", "evaluations")),
        (learning, "of cold_start have 296 tokens together, and the model has 224 positions"),
    ):
        with pytest.raises(ConfigError, match=told):
            advance(config, resume=False, console=Console(file=io.StringIO()))
        assert not (tmp_path / "run").exists()
