"""Two processes of four devices each train as one process of eight: real processes, through the real command."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from forks import host_devices
from synthesis_toy import TASK

from rods_jax import journal, processes
from rods_jax.config import ConfigError
from rods_jax.metrics import TIMED, read_metrics
from rods_jax.synthesis.attempt import Exchange, Rejection
from rods_jax.synthesis.author import Synthesis
from rods_jax.synthesis.courier.dispatch import Dispatch, dispatch_from_json, dispatch_to_json
from rods_jax.synthesis.courier.lines import SEEDS

ROOT = Path(__file__).parent.parent


def begin(directory: Path, devices: int, *arguments: str, config: str = "config") -> subprocess.Popen:
    command = [sys.executable, "-W", "error", "-m", "scripts.train", "--config", f"tests/processes_{config}.py"]
    flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": host_devices(devices)}
    return subprocess.Popen(
        [*command, "--run-dir", str(directory), *arguments],
        cwd=ROOT,
        env=os.environ | flags,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def begin_two(
    directory: Path, *arguments: str, second: tuple[str, ...] = (), config: str = "config"
) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    cluster = "--coordinator", address, "--num-processes", "2", "--process-id"
    own = (), second  # options of one process alone
    return [begin(directory, 4, *cluster, str(index), *arguments, *own[index], config=config) for index in range(2)]


def words_of(processes: list[subprocess.Popen], status: int = 0) -> list[str]:
    ended = [process.communicate(timeout=500) for process in processes]
    assert [process.returncode for process in processes] == [status] * len(processes), ended
    # Gloo's threads speak to the same output, and into each other's lines: its words, its numbers and its ends of line
    # may come apart.
    gloo = r"\[Gloo\] Rank|is connected to|peer ranks\.|Expected number of connected peer ranks is :"
    ours = lambda line: line.strip(" \n0123456789")
    return ["".join(filter(ours, re.sub(gloo, "", words).splitlines(True))) for words, _ in ended]


def read(directory: Path) -> tuple[list[dict], list[dict], dict]:
    """(metrics without times, what became of every seed, the last checkpoint's record of the host)."""
    records = read_metrics(directory / "metrics.jsonl")
    records = [{k: v for k, v in record.items() if not k.startswith(TIMED)} for record in records]
    last = max((directory / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    return records, read_metrics(directory / "candidates.jsonl"), json.loads((last / "host" / "metadata").read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs")
    words = words_of([begin(directory / "one", 8), *begin_two(directory / "two")])
    return directory, words


def assert_equal_runs(one: Path, two: Path) -> None:
    (records, seeds, host), (other_records, other_seeds, other_host) = read(one), read(two)
    assert len(records) == len(other_records)
    for record, other in zip(records, other_records, strict=True):
        assert record.keys() == other.keys()
        for name in record:
            if isinstance(record[name], float):
                np.testing.assert_allclose(other[name], record[name], rtol=1e-5, atol=1e-5, err_msg=name)
            elif name not in ("task_mean", "task_variance"):
                assert other[name] == record[name], name
    assert seeds == other_seeds and host == other_host


def test_two_processes_train_as_one(runs):
    directory, _ = runs
    assert_equal_runs(directory / "one", directory / "two")
    records, seeds, host = read(directory / "one")
    assert len(records) == 5 and all(record["grad_norm"] > 1e-3 for record in records[1:])
    assert any(record["seeds"] for record in records[1:]) and any(seed["candidate"] for seed in seeds)
    assert any(slot for slot in host["replay"]["slots"])  # what was synthesised has entered the pool


def test_the_second_process_writes_and_says_nothing(runs):
    directory, (_, first, second) = runs
    assert "run directory" in first and second == ""
    assert sorted(path.name for path in (directory / "two").iterdir()) == sorted(
        path.name for path in (directory / "one").iterdir()
    )


def test_one_process_alone_writes_to_a_dashboard(runs):
    directory, _ = runs
    assert [(directory / run / "steps").read_text().split() for run in ("one", "two")] == [list("01234")] * 2


def test_what_one_process_refuses_all_refuse(runs):
    directory, _ = runs
    for words in words_of(begin_two(directory / "two"), status=2):
        assert "already holds a run" in words


def test_processes_that_were_started_with_other_settings_all_refuse(tmp_path):
    started = begin_two(tmp_path / "run", second=("--seed", "7", "--update.learning-rate", "0.5"))
    for words in words_of(started, status=2):
        assert "differ from process 0 in seed (process 1), update.learning_rate (process 1)" in words
    assert not (tmp_path / "run").exists()


def test_settings_are_compared_key_by_key_with_every_process(monkeypatch):
    settings = {"seed": 1, "update": {"learning_rate": 0.1}, "installed": {"jax": "1"}}
    others = [settings, settings | {"installed": {"jax": "2"}}, settings | {"update": {"learning_rate": 0.2}}]
    monkeypatch.setattr(processes, "gather", lambda value: others)
    with pytest.raises(ConfigError, match=r"installed.jax \(process 1\), update.learning_rate \(process 2\)"):
        processes.require_same(settings)
    monkeypatch.setattr(processes, "gather", lambda value: [value] * 3)
    processes.require_same(settings | {"installed": processes.versions()})


@pytest.mark.parametrize(
    "count, data, tasks, fits", [(2, 4, 4, True), (2, 4, 6, False), (3, 4, 4, False), (1, 4, 6, True)]
)
def test_each_process_needs_whole_tasks_on_its_devices(count, data, tasks, fits):
    refused = pytest.raises(ValueError, match=f"{count} processes need a mesh whose data axis they divide")
    with contextlib.nullcontext() if fits else refused:
        processes.require_shares(data, tasks, count)


@pytest.mark.parametrize("candidate", [None, TASK])
def test_what_became_of_a_seed_reaches_the_others_whole(candidate):
    patch = {"Till": {"balance": 0.1 + 0.2}}
    rejection = Rejection(1, "judge", "too easy", ("add",), (("add", "lend"), ()), patch, ("no",))
    result = Synthesis(candidate, (rejection,), (Exchange(1, "judge", "v1", None, 20, 3),))
    dispatch = Dispatch(TASK, 7, result)
    assert dispatch_from_json(json.loads(json.dumps(dispatch_to_json(dispatch)))) == dispatch


@pytest.mark.slow
def test_an_order_holds_the_rollouts_of_its_seed_whoever_played_them(tmp_path):
    words_of([begin(tmp_path / "one", 8, config="beside"), *begin_two(tmp_path / "two", config="beside")])
    one, two = ([e.record for e in journal.read(tmp_path / n / "synthesis" / SEEDS)[0]] for n in ("one", "two"))
    assert one == two and len({record["task"]["id"] for record in one}) > 1
    for record in one:
        played = [(rollout["task_id"], rollout["rollout"]) for rollout in record["trajectories"]]
        assert len(played) in (2, 4)  # `every_other` halves the groups of some tasks
        assert played == [(record["task"]["id"], number) for number in range(len(played))]


@pytest.mark.slow
def test_two_processes_killed_go_on_as_two_and_as_one(runs, tmp_path):
    directory, _ = runs
    two, one = tmp_path / "two", tmp_path / "one"
    both = begin_two(two)
    deadline = time.monotonic() + 500
    while not (two / "checkpoints" / "2").exists():  # of 4 steps
        assert time.monotonic() < deadline and all(process.poll() is None for process in both)
        time.sleep(0.02)
    for process in both:
        process.kill()
        process.communicate()  # and its pipes are closed
    assert [process.returncode for process in both] == [-signal.SIGKILL] * 2
    shutil.copytree(two, one)
    for first, *_ in (words_of(begin_two(two, "--resume")), words_of([begin(one, 8, "--resume")])):
        assert "resumed at step 2" in first
    assert_equal_runs(directory / "one", two)
    assert_equal_runs(directory / "one", one)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((None, 2, None), "--num-processes and --process-id need --coordinator HOST:PORT"),
        ((None, None, 0), "--num-processes and --process-id need --coordinator HOST:PORT"),
        (("host:1", 2, None), "--coordinator HOST:PORT needs --num-processes and --process-id too"),
    ],
)
def test_half_of_the_three_flags_is_refused(given, sentence):
    """Without the refusal a process that was to be one of two would be a run of its own."""
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        processes.start(*given)


def test_a_process_without_flags_is_a_run_of_its_own():
    assert processes.start(None) is None and not processes.jax.distributed.is_initialized()
