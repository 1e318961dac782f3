"""What a shell may have limited is said before anything is built."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from rods_jax.commands import common

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "limit, words",
    [
        ("-v 1200000", "1.2 GB of address space here, and training needs at least 4"),
        ("-n 100", "a process may open 100 files here"),
    ],
)
def test_limits_of_the_shell_are_named_before_anything_is_built(tmp_path, limit, words):
    train = f"exec {sys.executable} -m scripts.train --config tests/training_toy.py --run-dir {tmp_path / 'run'}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    ended = subprocess.run(
        ["sh", "-c", f"ulimit {limit} && {train}"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 2 and words in " ".join(ended.stdout.split()), ended.stdout + ended.stderr
    assert not (tmp_path / "run").exists()


def test_each_environment_worker_takes_three_files(monkeypatch):
    """With 64 of them a run has 11 + 192 open, and needs 128 more when it first saves."""
    unlimited = resource.RLIM_INFINITY
    limits = {resource.RLIMIT_AS: (unlimited, unlimited), resource.RLIMIT_NOFILE: (256, 4096)}
    monkeypatch.setattr(common.resource, "getrlimit", limits.get)
    monkeypatch.setattr(common.resource, "setrlimit", limits.__setitem__)
    common.require_limits(0)
    assert limits[resource.RLIMIT_NOFILE] == (256, 4096)
    common.require_limits(64)
    assert limits[resource.RLIMIT_NOFILE] == (448, 4096)
    limits[resource.RLIMIT_NOFILE] = (256, 300)
    with pytest.raises(OSError, match="a process may open 300 files here, and training needs 448"):
        common.require_limits(64)


def test_a_limit_that_is_none_is_not_lowered(monkeypatch):
    unlimited = resource.RLIM_INFINITY  # -1 in Python
    monkeypatch.setattr(common.resource, "getrlimit", lambda kind: (unlimited, unlimited))
    monkeypatch.setattr(common.resource, "setrlimit", lambda *limit: pytest.fail(f"set to {limit}"))
    common.require_limits(64)
