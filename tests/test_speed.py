"""Tokens, seconds and FLOPs of a step, and a trace of one."""

import gzip
import io
import json
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from rich.console import Console
from training_toy import toy

from models.planning.ahead_of_time import CARDS, CHIPS
from rods_jax.commands import train as command
from rods_jax.loop import Stages
from rods_jax.run.profile import profiled
from rods_jax.run.speed import PEAKS, peak_of, speeds
from rods_jax.run.training import advance

STEP = {"tokens_generated": 60, "seconds_rollout": 2.0, "seconds_step": 4.0, "flops": 3e12}


def test_speeds_by_hand():
    assert speeds(STEP, 1e12) == {"tokens_per_second": 30.0, "mfu": 0.75}


def test_what_is_not_known_is_absent():
    assert speeds({"epoch": 0}, 1e12) == {}
    assert speeds(STEP, None).keys() == {"tokens_per_second"}
    assert speeds({name: STEP[name] for name in STEP if name != "flops"}, 1e12).keys() == {"tokens_per_second"}


def test_the_peak_is_that_of_all_devices_of_the_mesh_and_a_cpu_has_none(monkeypatch):
    assert peak_of(SimpleNamespace(mesh=None)) is None
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(device_kind="TPU v6 lite")])
    assert peak_of(SimpleNamespace(mesh=None)) == 918e12
    assert peak_of(SimpleNamespace(mesh=SimpleNamespace(size=4))) == 4 * 918e12


def test_the_plan_knows_the_same_peaks():
    planned = {
        "TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v6 lite": "v6e", "TPU7x": "tpu7x", "NVIDIA H200": "h200",
        "NVIDIA H100 80GB HBM3": "h100", "NVIDIA A100-SXM4-40GB": "a100-40", "NVIDIA A100-SXM4-80GB": "a100-80",
    }  # fmt: skip
    assert {kind: PEAKS[kind] for kind in planned} == {kind: (CHIPS | CARDS)[n].flops for kind, n in planned.items()}


# ------------------------------------------------------------------------------------------- a trace
def test_one_step_is_traced_and_computes_what_it_would_without(tmp_path):
    said, double = [], jax.jit(lambda x: 2 * x)
    nothing = dict.fromkeys(Stages._fields)
    stages = Stages(**nothing | {"collect": lambda *a: a, "update": lambda state, *batch: (double(state), batch)})
    traced = profiled(stages, 2, tmp_path / "profile", said.append)
    for step in range(3):
        for _ in range(2):  # a filter plays twice in a step
            assert traced.collect(1.0, ("task",), step, None) == (1.0, ("task",), step, None)
        assert (tmp_path / "profile").exists() == (step == 2)
        assert traced.update(np.float32(3), "batch", "standing") == (6, ("batch", "standing"))
        assert len(said) == (step >= 1)
    assert len(list(tmp_path.rglob("*.xplane.pb"))) == 1
    (trace,) = tmp_path.rglob("*.trace.json.gz")
    assert json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert "a trace of step 2" in said[0] and traced._replace(collect=None, update=None) == Stages(**nothing)


def test_steps_of_a_trace_count_from_1(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train", "--config", "tests/training_toy.py", "--profile", "0"])
    with pytest.raises(SystemExit):
        command.main(train=lambda *_, **__: pytest.fail("it began"))
    assert "--profile counts steps from 1: got 0" in capsys.readouterr().out


def test_a_step_that_is_not_played_is_said_to_have_no_trace(tmp_path):
    said = io.StringIO()
    advance(toy(tmp_path / "run", max_steps=1), resume=False, console=Console(file=said, width=200), profile=2)
    assert "no trace was written: step 2 is none of the steps 1 to 1 of this run" in said.getvalue()
    assert not (tmp_path / "run" / "profile").exists()


def test_the_command_passes_the_step_on(monkeypatch):
    asked = {}
    monkeypatch.setattr(sys, "argv", ["train", "--config", "tests/training_toy.py", "--profile", "3"])
    command.main(train=lambda config, **options: asked.update(options))
    assert asked["profile"] == 3
