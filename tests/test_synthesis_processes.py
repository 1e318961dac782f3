"""Synthesis in processes of its own: killed at random, no seed or variant is lost or doubled; the command."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from beside_toy import SEEDS, position_of
from forks import forks
from rich.console import Console
from trainer_and_workers import LOADED, ROOT, at_first_go, begun_run, records, trainer, wait_until

from rods_jax import checkpoint, replay, run
from rods_jax.config import ConfigError
from rods_jax.fields import plain_values
from rods_jax.metrics import read_metrics
from rods_jax.older import LAYOUT
from rods_jax.records import decode
from rods_jax.run.authors import work
from rods_jax.synthesis.courier.lines import OUTCOMES, WORK, outcome_record
from rods_jax.task_files import VERSIONED


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    asked = tmp_path_factory.mktemp("asked") / "asked"
    os.environ["ASKED"] = str(asked)
    try:
        with forks("beside_toy") as start:
            yield start
    finally:
        del os.environ["ASKED"]


def survive(directory: Path, start, *, kills: int, seed: int) -> dict[str, int]:
    """Kills trainers and workers at random, lets the last ones finish, and checks every seed and variant."""
    rng = random.Random(seed)
    asked = Path(os.environ["ASKED"])
    asked.unlink(missing_ok=True)
    asked.touch()
    synthesis = directory / "synthesis"
    synthesis.mkdir(parents=True)
    begin = {
        "trainer": lambda: start("trainer", str(directory), 10**6, 1),
        "worker 1": lambda: start("worker", str(directory)),
        "worker 2": lambda: start("worker", str(directory)),
    }
    running = {name: begin[name]() for name in begin}
    for _ in range(kills):
        time.sleep(rng.uniform(0.02, 0.3))
        name = rng.choice(list(begin))
        running[name].kill()
        running[name] = begin[name]()
    running["trainer"].kill()
    if position_of(directory).step < 8:  # a slow machine: let it do something
        running["trainer"] = begin["trainer"]()
        wait_until(lambda: position_of(directory).step >= 8)
        running["trainer"].kill()
    keys = [record["key"] for record in records(synthesis / "seeds.jsonl")]
    wait_until(lambda: len(records(synthesis / OUTCOMES)) >= len(keys), 600)
    for process in running.values():
        process.kill()
    last = start("trainer", str(directory), position_of(directory).step + 9, 0)
    last.join()

    seeds = records(synthesis / "seeds.jsonl")
    outcomes = records(synthesis / OUTCOMES)
    end = position_of(directory)
    questions = len(asked.read_text().splitlines())
    # No seed is doubled, none is lost, and each has one outcome.
    sent = [record["key"] for record in seeds]
    had = [record["key"] for record in outcomes]
    assert len(set(sent)) == len(sent) and len(set(had)) == len(had) and set(keys) <= set(had) <= set(sent)
    # Every outcome is what the author writes when nobody dies.
    tasks = {seed.id: seed for seed in SEEDS} | {
        record["candidate"]["id"]: record["candidate"] for record in outcomes if record["candidate"]
    }
    by_key = {record["key"]: record for record in outcomes}
    for record in seeds[:: max(1, len(seeds) // 40)]:
        if record["key"] in by_key and record["task"]["id"] in {seed.id for seed in SEEDS}:
            expected = at_first_go(tasks[record["task"]["id"]], record["step"])
            assert by_key[record["key"]] == json.loads(json.dumps(outcome_record(record["key"], expected)))
    # Every variant is in the pool once: what the trainer took, and nothing else.
    assert len(keys) <= end.outcomes <= len(outcomes)
    variants = [record["candidate"]["id"] for record in outcomes[: end.outcomes] if record["candidate"]]
    pooled = [item.task.id for item in end.replay.items if item.task.ancestry]
    staged = [entry.task.id for entry in end.replay.staged]
    assert Counter(variants) == Counter(pooled + staged) and max(Counter(variants).values()) == 1
    assert end.replay.injected == len(pooled) and sum(end.replay.retired_counts) == 0
    # A kill costs each of the victim's threads at most the answer that was on its way.
    used = sum(len(record["exchanges"]) for record in outcomes)
    unfinished = sum("question" in record for path in (synthesis / WORK).iterdir() for record in records(path))
    assert used <= unfinished <= questions <= unfinished + 2 * (kills + 5)
    return {"kills": kills, "seeds": len(sent), "variants": len(variants), "questions": questions, "used": used}


def test_nothing_is_lost_or_doubled_through_a_few_kills(tmp_path, start):
    print(survive(tmp_path, start, kills=8, seed=0))


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_through_100_kills(tmp_path, start):
    print(survive(tmp_path, start, kills=100, seed=1))


def test_the_command_writes_beside_a_trainer_until_it_is_interrupted(tmp_path):
    directory = begun_run(tmp_path / "run")
    command = [sys.executable, "-m", "scripts.synthesize", "--run", str(directory)]
    command += ["--config", "tests/beside_toy.py", "--workers", "2"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "JAX_PLATFORMS": "cpu"}
    with (
        trainer(directory / "synthesis") as ours,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process,
    ):
        ours.send(*SEEDS[:2])
        results = ours.receive(2)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 128 + signal.SIGINT
        assert "2 workers wait for the seeds of" in process.stdout.read()
    assert results == {(seed.id, 1): at_first_go(seed, 1) for seed in SEEDS[:2]}


def test_the_command_refuses_what_is_not_its_run(tmp_path):
    with pytest.raises(ConfigError, match="nowhere holds no run"):
        work(LOADED, tmp_path / "nowhere", 1, None)
    directory = begun_run(tmp_path / "run")
    with pytest.raises(ConfigError, match="was started with another seed"):
        work(replace(LOADED, seed=1), directory, 1, None)
    (directory / "config.json").write_text(
        json.dumps({"layout": LAYOUT} | plain_values(replace(LOADED, synthesis=None)))
    )
    with pytest.raises(ConfigError, match="the config has no synthesis"):
        work(replace(LOADED, synthesis=None), directory, 1, None)


@pytest.mark.slow
def test_a_killed_training_run_goes_on_with_every_variant_once(tmp_path):
    """scripts.train itself, killed three times, with workers in its own process."""
    run_dir = tmp_path / "run"
    saved = lambda: [int(path.name) for path in (run_dir / "checkpoints").glob("*") if path.name.isdecimal()]
    rng = random.Random(0)
    with forks("beside_train") as start:
        for turn, step in enumerate((3, 9, 15)):
            process = start("trainer", str(run_dir), turn > 0)
            wait_until(lambda: max(saved(), default=0) >= step or not process.alive(), 900)
            assert process.alive()
            time.sleep(rng.random() / 2)
            process.kill()
        start("trainer", str(run_dir), True).join(900)
    outcomes = records(run_dir / "synthesis" / OUTCOMES)
    keys = [record["key"] for record in outcomes]
    assert len(set(keys)) == len(keys) > 5
    with checkpoint.open_checkpoints(run_dir / "checkpoints") as checkpoints:
        host = checkpoints.restore(checkpoints.latest_step()).host
    pool = decode(replay.ReplayState, host["replay"], forms=VERSIONED)
    variants = [record["candidate"]["id"] for record in outcomes[: host["outcomes"]] if record["candidate"]]
    pooled = [item.task.id for item in pool.items if item.task.ancestry]
    assert pool.injected == len(pooled) > 0 and not sum(pool.retired_counts)
    assert Counter(variants) == Counter(pooled + [entry.task.id for entry in pool.staged])
    shown = read_metrics(run_dir / "candidates.jsonl")
    assert [record["candidate"]["id"] for record in shown if record["candidate"]] == variants
    assert json.loads((run_dir / "fidelity.json").read_text())["acceptance"]["accepted"] == len(variants)


@pytest.mark.slow
def test_a_run_with_a_role_that_nobody_plays_ends_before_its_cold_start(tmp_path):
    import beside_train

    config = replace(beside_train.CONFIG, run_dir=str(tmp_path / "run"))
    config = replace(config, synthesis=replace(config.synthesis, backends=dict))
    with pytest.raises(ConfigError, match="synthesis: no backend for the roles planner"):
        run.train(config, console=Console(file=io.StringIO()))
    assert not (tmp_path / "run/cold_start.json").exists()
