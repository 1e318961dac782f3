"""Workers as Ray tasks: a real Ray on this machine, tasks that are killed, journals as ever."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from beside_toy import SEEDS
from trainer_and_workers import ROOT, at_first_go, begun_run, trainer, wait_until

from rods_jax.config import ConfigError, load_config
from rods_jax.run.authors import work_on_ray

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray: pip install -e '.[ray]'")


def test_without_ray_one_sentence_tells_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"--ray-tasks needs Ray: pip install -e '.\[ray\]'"):
        work_on_ray(ROOT / "tests/beside_toy.py", tmp_path, 1, 1)


@contextlib.contextmanager
def command(directory: Path, config: Path, **environment: str):
    """The command with one Ray task, on a Ray of its own."""
    argv = [sys.executable, "-m", "scripts.synthesize", "--run", str(directory), "--config", str(config)]
    argv += ["--workers", "1", "--ray-tasks", "1"]
    # Not tmp_path: the path of a socket must be short. Ray keeps a token at home.
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as home:
        environment |= {"HOME": home, "RAY_TMPDIR": home, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": "local"}
        environment |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "JAX_PLATFORMS": "cpu"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(argv, cwd=ROOT, env=os.environ | environment, **pipes) as process:
            try:
                yield process
            finally:
                process.kill()


def below(process: int) -> dict[int, str]:
    """Every descendant of a process, and what it calls itself."""
    parents, names = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    found = {process: ""}
    while new := {pid: names[pid] for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= new
    return found


def tasks_of(process: subprocess.Popen) -> list[int]:
    return [pid for pid, name in below(process.pid).items() if name.startswith("ray::") and "settle" in name]


@needs_ray
def test_a_ray_task_writes_what_a_worker_writes_and_is_begun_again_when_it_is_killed(tmp_path):
    directory, asked = begun_run(tmp_path / "run"), tmp_path / "asked"
    toy = command(directory, ROOT / "tests/beside_toy.py", ASKED=str(asked))
    with trainer(directory / "synthesis") as ours, toy as process:
        ours.send(*SEEDS[:2])
        ours.receive(2)
        before = len(asked.read_text().splitlines())
        (first,) = tasks_of(process)
        ours.send(*SEEDS, step=2)
        wait_until(lambda: len(asked.read_text().splitlines()) > before + 5)  # a seed is under way
        os.kill(first, signal.SIGKILL)
        results = ours.receive(2 + len(SEEDS))
        (second,) = tasks_of(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 128 + signal.SIGINT
        wait_until(lambda: not Path(f"/proc/{second}").exists(), 30)  # it ends with the command
        assert "1 workers wait for the seeds of" in process.stdout.read()
    assert second != first
    assert results == {(seed.id, 1): at_first_go(seed, 1) for seed in SEEDS[:2]} | {
        (seed.id, 2): at_first_go(seed, 2) for seed in SEEDS
    }
    questions = sum(len(result.exchanges) for result in results.values())
    assert questions <= len(asked.read_text().splitlines()) <= questions + 1  # the answer that was on its way


@needs_ray
def test_what_is_wrong_on_a_host_is_one_sentence(tmp_path):
    """A key that the host of the command has and that of the task has not."""
    config = tmp_path / "lonely.py"
    config.write_text(
        "import os, sys\n"
        "from dataclasses import replace\n"
        "import beside_toy\n"
        "def backends():\n"
        "    if 'scripts' not in sys.argv[0]:\n"
        "        raise ValueError('there is no key here')\n"
        "    return beside_toy.backends()\n"
        "CONFIG = replace(beside_toy.CONFIG, synthesis=replace(beside_toy.CONFIG.synthesis, backends=backends))\n"
    )
    directory = begun_run(tmp_path / "run", load_config(config))
    with command(directory, config) as process:
        said, _ = process.communicate(timeout=100)
    assert process.returncode == 2
    assert said.splitlines()[-1] == "error: synthesis: there is no key here"
