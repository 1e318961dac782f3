"""Dashboards: the field's names beside ours, one curve however often a run is resumed, and no failure that ends it."""

import contextlib
import json
import struct
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from training_toy import CONFIG, play, toy

from rods_jax import dashboards
from rods_jax.config import ConfigError, load_config, require_same_run
from rods_jax.dashboards import NAMES, named, prepared, shown
from rods_jax.fields import plain_values
from rods_jax.metrics import read_metrics
from rods_jax.preemption import Stopped
from rods_jax.run import check

VALUES = {
    "reward_mean": np.float32(0.5),
    "task_mean": np.array([0.5, 0.5]),
    "task_variance": np.array([0.04, np.nan]),
    "valid_rollouts": np.int32(3),
    "failed_rollouts": 1,
    "rollouts_played": 4,
    "truncated_rollouts": 2,
    "tokens_generated": 40,
    "tokens_spent": 100,
    "skipped": np.bool_(False),
    "stage": "online",
    "rejections": {"judge": 1},
    "task_ids": ["a", "b"],
}


# ------------------------------------------------------------------------------------------ the names
def test_single_numbers_have_the_names_of_the_field_and_ours():
    found = named(VALUES | {"held_out_greedy_solved": 0.25})
    ours = {
        "reward_mean",
        "valid_rollouts",
        "failed_rollouts",
        "rollouts_played",
        "truncated_rollouts",
        "tokens_generated",
        "tokens_spent",
    }
    assert found.pop("rewards/std") == pytest.approx(0.2)  # inside the groups, of those that have any
    assert {name: x for name, x in found.items() if not name.startswith("rods/")} == {
        "rewards/mean": 0.5,
        "completions/mean_length": 10.0,
        "completions/clipped_ratio": 0.5,
        "num_tokens": 100.0,
        "eval/greedy_solved": 0.25,
    }
    assert {name for name in found if name.startswith("rods/")} == {
        f"rods/{name}" for name in ours | {"skipped", "held_out_greedy_solved"}
    }
    assert all(type(x) is float for x in found.values())


def test_a_step_whose_rollouts_all_failed_has_names_too():
    found = named(VALUES | {"task_variance": np.array([np.nan, np.nan]), "valid_rollouts": 0, "failed_rollouts": 4})
    assert np.isnan(found["rewards/std"]) and found["completions/mean_length"] == 10.0
    filtered = named(
        VALUES | {"valid_rollouts": 0, "failed_rollouts": 0}
    )  # of a step that keeps none of what it played
    assert (filtered["completions/mean_length"], filtered["completions/clipped_ratio"]) == (10.0, 0.5)


def test_an_evaluation_alone_has_names_too():
    assert named({"epoch": 0, "held_out_progress": 0.5}) == {
        "epoch": 0.0, "eval/progress": 0.5, "rods/epoch": 0.0, "rods/held_out_progress": 0.5,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------- the seam
@contextlib.contextmanager
def kept(directory, *, into, fails=()):
    """A dashboard of tests; fails: steps, or "open" and "close"."""
    if "open" in fails:
        raise OSError("no network")

    def write(step, values):
        if step in fails:
            raise OSError("no network")
        into.append(step)

    try:
        yield write
    finally:
        into.append("closed")
        if "close" in fails:
            raise OSError("no network")


def show(directory, steps, *writers, end=None):
    """What was said while these steps were shown."""
    said = []
    with contextlib.nullcontext() if end is None else pytest.raises(type(end)):
        with shown({str(i): writer(directory) for i, writer in enumerate(writers)}, directory, said.append) as write:
            for step in steps:
                write(step, VALUES)
            if end is not None:
                raise end
    return said


def standing(directory):
    return json.loads((directory / "dashboards.json").read_text())


def test_a_resumed_run_gives_no_step_twice(tmp_path):
    got = []
    for steps in (range(4), range(2, 6), range(2, 5)):
        assert show(tmp_path, steps, partial(kept, into=got)) == []
    assert got == [0, 1, 2, 3, "closed", 4, 5, "closed", "closed"]
    assert standing(tmp_path) == {"0": {"step": 5, "failures": 0}}


def test_a_dashboard_that_comes_later_gets_all_that_is_computed_from_then_on(tmp_path):
    first, second = [], []
    show(tmp_path, range(4), partial(kept, into=first))
    show(tmp_path, range(2, 6), partial(kept, into=first), partial(kept, into=second))
    assert first == [0, 1, 2, 3, "closed", 4, 5, "closed"] and second == [2, 3, 4, 5, "closed"]


def test_what_fails_is_said_once_and_counted_and_the_others_go_on(tmp_path):
    broken, whole = [], []
    said = show(tmp_path, range(5), partial(kept, into=broken, fails=(1, 3)), partial(kept, into=whole))
    assert said == ["the dashboard 0 failed, and the run goes on: OSError: no network"]
    assert broken == [0, 2, 4, "closed"] and whole == [0, 1, 2, 3, 4, "closed"]
    assert standing(tmp_path) == {"0": {"step": 4, "failures": 2}, "1": {"step": 4, "failures": 0}}


@pytest.mark.parametrize(("when", "step"), [("open", -1), ("close", 1)])
def test_one_that_cannot_be_opened_or_closed_ends_nothing(tmp_path, when, step):
    whole = []
    assert len(show(tmp_path, range(2), partial(kept, into=[], fails=(when,)), partial(kept, into=whole))) == 1
    assert whole == [0, 1, "closed"] and standing(tmp_path)["0"] == {"step": step, "failures": 1}


@pytest.mark.parametrize("end", [Stopped(75, "a signal"), ValueError("a mistake"), KeyboardInterrupt()])
def test_what_ends_the_run_closes_them_and_is_no_failure_of_theirs(tmp_path, end):
    got = []
    assert show(tmp_path, range(2), partial(kept, into=got), end=end) == []
    assert got == [0, 1, "closed"] and standing(tmp_path)["0"]["failures"] == 0


def test_without_dashboards_there_is_no_file(tmp_path):
    assert show(tmp_path, range(2)) == [] and not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------- the configuration
@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_package_that_is_not_there_refuses_the_run_before_it_begins(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, {"tensorboard": "tensorboardX"}.get(name, name), None)
    config = toy(tmp_path / "run", writers=(getattr(dashboards, name),))
    with pytest.raises(ImportError, match=rf"the dashboard {name} needs .*: pip install -e '\.\[{name}\]'"):
        play(config)
    assert not (tmp_path / "run").exists()


def test_one_line_of_a_configuration_is_written_down_with_its_options(tmp_path):
    config = replace(CONFIG, writers=(dashboards.tensorboard, partial(dashboards.wandb, project="lamps")))
    assert plain_values(config)["writers"] == [
        "rods_jax.dashboards:tensorboard",
        {"partial": "rods_jax.dashboards:wandb", "args": [], "keywords": {"project": "lamps"}},
    ]
    assert load_config("tests/processes_config.py", ["--seed", "3"]).writers[0].__name__ == "steps"
    with pytest.raises(ConfigError, match="writers must be a tuple of a function"):
        replace(CONFIG, writers=("tensorboard",))
    assert prepared(replace(config, run_dir=str(tmp_path), writers=(partial(kept, into=[]),))).keys() == {
        '{"partial": "test_dashboards:kept", "args": [], "keywords": {"into": []}}'
    }


# --------------------------------------------------------------------------------------- the services
def tensorboard_curve(directory: Path) -> list[tuple[int, float]]:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reading.EventAccumulator(str(directory / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("rewards/mean")]


def wandb_curve(directory: Path) -> list[tuple[int, float]]:
    """What the files of an offline run will send, life by life."""
    records = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    found = []
    for path in sorted(directory.glob("wandb/offline-run-*/*.wandb")):
        data, part, at = path.read_bytes(), b"", 7  # after the file's own header: a log in blocks, as LevelDB's
        while at < len(data):
            if 32768 - at % 32768 < 7:
                at += 32768 - at % 32768
                continue
            _, length, kind = struct.unpack("<IHB", data[at : at + 7])
            part, at = part + data[at + 7 : at + 7 + length], at + 7 + length
            if kind in (1, 4):  # whole, or the last part
                record, part = records.Record.FromString(part), b""
                items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                found += [(record.history.step.num, float(items["rewards/mean"]))] if "rewards/mean" in items else []
    assert len({path.name for path in directory.glob("wandb/offline-run-*/*.wandb")}) == 1  # one id
    return found


def mlflow_curve(directory: Path) -> list[tuple[int, float]]:
    client = pytest.importorskip("mlflow").MlflowClient(f"sqlite:///{directory}/mlflow.db")
    run = client.get_run((directory / "mlflow.id").read_text())
    assert run.info.status == "FINISHED" and run.info.run_name == "toy"
    return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "rewards/mean")]


SERVICES = {
    "tensorboard": ("tensorboardX", lambda directory: dashboards.tensorboard, tensorboard_curve),
    "wandb": ("wandb", lambda directory: partial(dashboards.wandb, mode="offline", project="toy"), wandb_curve),
    "mlflow": (
        "mlflow",
        lambda directory: partial(dashboards.mlflow, tracking_uri=f"sqlite:///{directory}/mlflow.db"),
        mlflow_curve,
    ),
}


@pytest.mark.filterwarnings("ignore")  # of the services' own
@pytest.mark.parametrize("name", SERVICES)
def test_a_resumed_run_goes_on_in_the_same_curve(tmp_path, name):
    package, writer_of, curve_of = SERVICES[name]
    pytest.importorskip(package)
    (tmp_path / "config.json").write_text('{"name": "toy", "seed": 0}')
    for steps in (range(1, 5), range(3, 7)):
        said = []
        with shown({"it": writer_of(tmp_path)(tmp_path)}, tmp_path, said.append) as write:
            for step in steps:
                write(step, VALUES | {"reward_mean": np.float32(step / 8)})
        assert said == []
    assert curve_of(tmp_path) == [(step, step / 8) for step in range(1, 7)]


def test_a_check_refuses_what_a_start_refuses_for_a_missing_package(tmp_path):
    def missing(directory):
        raise ImportError("pip install '.[wandb]'")

    with pytest.raises(ImportError, match="pip install"):
        check(toy(tmp_path / "run", writers=(missing,)), Console(quiet=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_whole_run_is_shown_where_it_is_resumed_too(tmp_path):
    """The real loop, killed by no one, goes back to an earlier checkpoint; its own log is the judge."""
    got, run = [], tmp_path / "run"
    own = lambda directory: kept(directory, into=got)
    writers = (own, *(of(run) for package, of, _ in SERVICES.values() if _installed(package)))
    config = toy(run, writers=writers, max_steps=3)
    assert "failed" not in play(config)
    assert "failed" not in play(replace(config, max_steps=4), step=2)
    require_same_run(replace(config, writers=()), run)  # where it is shown makes no other run of it
    records = read_metrics(run / "metrics.jsonl")
    assert got == [0, 1, 2, 3, "closed", 4, "closed"] and [record["step"] for record in records] == [0, 1, 2, 3, 4]
    spent = [record["tokens_generated"] + record["tokens_read"] for record in records[1:]]
    assert [record["tokens_spent"] for record in records] == [sum(spent[:step]) for step in range(5)]
    assert all(record["tokens_per_second"] > 0 and record["flops"] > 0 for record in records[1:])
    assert not any("mfu" in record for record in records)  # a CPU has no peak
    curve = [(record["step"], record["reward_mean"]) for record in records[1:]]
    for package, _, curve_of in SERVICES.values():
        if _installed(package):
            assert curve_of(run) == curve
    assert set(NAMES.values()) - {"mfu"} <= records[-1].keys()


def _installed(package: str) -> bool:
    with contextlib.suppress(ImportError):
        return __import__(package) is not None
    return False
