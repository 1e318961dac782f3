"""Metrics: exact floats, visible at once, cut off at the restored step."""

import gc
import json

import jax.numpy as jnp
import numpy as np
import pytest

from rods_jax.journal import Entry
from rods_jax.metrics import open_metrics, read_metrics


def test_values_come_back_exactly(tmp_path):
    path = tmp_path / "metrics.jsonl"
    single = np.float32(0.1)
    with open_metrics(path) as write:
        write(
            1,
            {
                "a": 0.1 + 0.2,
                "b": single,
                "c": jnp.float32(0.1),
                "task_mean": np.array([1 / 3, 1.0]),
                "stage": "x",
            },
        )
    assert read_metrics(path) == [
        {
            "step": 1,
            "a": 0.1 + 0.2,
            "b": float(single),
            "c": float(single),
            "task_mean": [1 / 3, 1.0],
            "stage": "x",
        }
    ]


def test_a_writer_that_goes_on_keeps_no_line_that_was_there(tmp_path):
    """A resumed run writes for days; its lines are read once, to cut off those beyond the checkpoint."""
    path = tmp_path / "metrics.jsonl"
    with open_metrics(path) as write:
        write(1, {"mark": "before"})
    with open_metrics(path, resume_step=1) as write:
        gc.collect()
        assert not [one for one in gc.get_objects() if isinstance(one, Entry) and one.record.get("mark") == "before"]
        write(2, {})
    assert [one["step"] for one in read_metrics(path)] == [1, 2]


def test_every_line_is_on_disk_before_the_next(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with open_metrics(path) as write:
        for step in range(3):
            write(step, {"loss": float(step)})
            assert [record["step"] for record in read_metrics(path)] == list(range(step + 1))


def test_resume_cuts_off_later_steps_and_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with open_metrics(path) as write:
        for step in range(5):
            write(step, {"loss": step / 3})
    before = path.read_text().splitlines()
    with path.open("a") as file:
        file.write('{"step": 5, "lo')
    assert len(read_metrics(path)) == 5
    with open_metrics(path, resume_step=2) as write:
        write(3, {"loss": 9.0})
    assert path.read_text().splitlines() == [*before[:3], '{"step": 3, "loss": 9.0}']


def test_resume_without_a_file_starts_one(tmp_path):
    with open_metrics(tmp_path / "metrics.jsonl", resume_step=7) as write:
        write(8, {})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 8}]


def test_two_runs_are_never_mixed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with open_metrics(path) as write:
        write(0, {})
    with pytest.raises(FileExistsError), open_metrics(path):
        pass
    assert len(read_metrics(path)) == 1


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\nnonsense\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        read_metrics(path)


def test_a_number_that_is_not_finite_becomes_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with open_metrics(path) as write:
        write(1, {"loss": float("nan"), "norm": jnp.float32(jnp.inf), "task_mean": np.array([0.5, np.nan])})
    record = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert record == {"step": 1, "loss": None, "norm": None, "task_mean": [0.5, None]}
