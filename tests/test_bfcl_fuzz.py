"""Fuzzing codecs and executor (bfcl_fuzz.py, in a process of its own): nothing breaks out, and the guard would see it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("bfcl_eval", reason="needs pip install --no-deps bfcl-eval==2026.3.23")
pytest.importorskip("mpmath", reason="needs pip install 'mpmath>=1.3,<1.4'")

FUZZ = Path(__file__).parent / "bfcl_fuzz.py"


def fuzz(*arguments, timeout):
    command = [sys.executable, FUZZ, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=FUZZ.parent.parent)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_the_guard_sees_what_a_broken_executor_does():
    seen = fuzz("--self-test", timeout=120)
    expected = {
        "_evaluates": "exec (<code object", "_opens": "open (", "_starts": "subprocess.Popen", "_hangs": "Hang()",
        "_floods": "an answer of 1000000 characters", "_garbles": "cannot be encoded", "_crashes": "SystemExit()",
    }  # fmt: skip
    assert seen.keys() == expected.keys()
    assert all(len(seen[name]) == 1 and text in seen[name][0] for name, text in expected.items()), seen


def check(report, num_inputs):
    assert report["violations"] == []
    assert report["inputs"] >= num_inputs
    assert set(report["codes"]) == {"-3", "-2", "-1", "0", "1"}
    assert min(report["codes"].values()) > num_inputs / 100  # inputs of every kind, not only unreadable ones


def test_nothing_breaks_out_of_codec_and_executor():
    check(fuzz("--inputs", 10_000, timeout=120), 10_000)


@pytest.mark.slow
def test_nothing_breaks_out_in_a_million_inputs():
    check(fuzz("--inputs", 1_000_000, "--seed", 1, timeout=7200), 1_000_000)
