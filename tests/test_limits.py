"""What a shell may have limited is said before anything is built."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
