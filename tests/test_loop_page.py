"""The loop of docs/start/loop.md runs as printed, and is as short as it says."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

from rods_jax.checkpoint import steps

ROOT = Path(__file__).parent.parent
LINES = 30


def test_the_loop_of_ones_own_runs_as_printed(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "start" / "loop.md").read_text("utf-8"), re.DOTALL)
    imports = [node for node in ast.parse(code).body if isinstance(node, ast.Import | ast.ImportFrom)]
    after = code.splitlines()[imports[-1].end_lineno :]
    assert len([line for line in after if line.strip()]) <= LINES and max(map(len, after)) <= 120
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["0", "1", "2"]
    assert max(steps(tmp_path / "runs" / "lamps")) == 6
