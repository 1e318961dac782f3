"""How many: a number of jobs, workers or tasks that no work can follow from is refused in one sentence, before any work."""

import sys
from pathlib import Path

import pytest

from rods_jax.commands.synthesize import synthesize
from scripts import offline_pool, user_errors
from scripts.study import __main__ as study

OFFICE = Path("configs/study_office.py")
POOL = dict(config=Path("configs/quickstart.py"), out=Path("nowhere/pool.jsonl"), rules=True)


def _study(*arguments):
    return study.main, ("--config", str(OFFICE), "--dry-run", *arguments)


@pytest.mark.parametrize(
    "command, arguments, sentence",
    [
        (*_study("--jobs", "0"), "--jobs and --most must be at least 1"),  # no run would ever begin
        (*_study("--most", "-1"), "--jobs and --most must be at least 1"),  # it left out the last run of the plan
        (lambda: offline_pool.main(**POOL, count=0), (), "--count and --workers must be at least 1"),
        (lambda: offline_pool.main(**POOL, count=4, workers=0), (), "--count and --workers must be at least 1"),
        (user_errors.main, ("nowhere", "--num-tasks", "-1"), "--num-tasks must be at least 1"),  # it was all but one
        (lambda: synthesize(Path("nowhere"), OFFICE, workers=0), (), "--workers must be at least 1"),
        (lambda: synthesize(Path("nowhere"), OFFICE, ray_tasks=-1), (), "--ray-tasks must not be negative"),
    ],
)
def test_too_few_are_refused(monkeypatch, capsys, command, arguments, sentence):
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    with pytest.raises(SystemExit) as end:
        command()
    assert end.value.code == 2 and sentence in capsys.readouterr().out and not Path("nowhere").exists()
