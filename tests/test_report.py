"""The report: the numbers it prints, what its plots show, and runs that lack a part."""

import io
import json
import struct
from functools import partial

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from rods_jax.commands.report import report as report_of
from rods_jax.files import FolderError
from rods_jax.metrics import open_metrics
from rods_jax.run import reporting
from rods_jax.run.reporting import (
    band_of,
    draw_pool,
    draw_reward,
    draw_variance,
    draw_zones,
    print_summary,
    summarize,
    tell,
    write_report,
)
from rods_jax.strict_json import JsonError

PLOTS = ("reward", "zones", "pool", "variance", "overview")


def _records(num_steps=20):
    """A run that learns: tasks go from hard through the boundary to mastered."""
    for step in range(1, num_steps + 1):
        rewards = np.linspace(0, 1, 8)[None] ** np.array([[8 / step], [4 / step]])
        yield {
            "step": step,
            "stage": "format" if step <= 5 else "full",
            "progress_mean": float(rewards.mean()),
            "zone_hard": 20 - step,
            "zone_boundary": 10,
            "zone_mastered": step,
            "pool_human": 24,
            "pool_trial": 2,
            "pool_active": step,
            "pool_staged": 3,
            "injected": 2 * step,
            "retired_mastered": step // 2,
            "retired_hard": 0,
            "retired_pruned": 0,
            "candidates": 3,
            "rejected": 1,
            "seconds_rollout": 2.0,
            "seconds_synthesis": 0.5,
            "task_mean": rewards.mean(axis=1).tolist(),
            "task_variance": rewards.var(axis=1).tolist(),
        } | ({"held_out_progress": 0.4 + 0.02 * step} if step % 10 == 0 else {})


def test_what_was_not_measured_or_not_finite_is_left_out(tmp_path):
    """No held-out score, one mean that is null, no variance at all: strict JSON, and the words say so."""
    nothing = {"zero_variance": 1.0, "failed_rollouts": 2, "truncated_rollouts": 3, "task_mean": [None, 0.5]}
    _write(
        tmp_path,
        [
            {key: value for key, value in {**record, **nothing}.items() if "held_out" not in key}
            for record in _records(4)
        ],
    )
    summary = write_report(tmp_path)
    json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert (summary["failed_rollouts"], summary["truncated_rollouts"], summary["steps_without_variance"]) == (8, 12, 4)
    said = io.StringIO()
    tell(tmp_path, summary, Console(file=said, width=1000))
    assert "No held-out score was measured." in said.getvalue()
    assert "No group of rollouts had variance in any step" in said.getvalue()


def test_only_the_end_of_a_run_says_that_it_is_finished_and_a_later_report_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setattr(reporting, "_save", lambda *_: None)  # the pictures are another test's
    _write(tmp_path, _records(4))
    assert not write_report(tmp_path)["finished"]  # stopped or killed, and looked at
    assert write_report(tmp_path, finished=True)["finished"]
    summary = write_report(tmp_path)
    assert summary["finished"]
    said = io.StringIO()
    print_summary(summary, Console(file=said, width=1000))
    assert "finished" not in said.getvalue() and "candidates" in said.getvalue()
    (tmp_path / "metrics.jsonl").unlink()
    _write(tmp_path, _records(5))  # it went on
    assert not write_report(tmp_path)["finished"]
    (tmp_path / "summary.json").write_text('{"steps": 5}')  # of an older version, which wrote it at the end
    assert write_report(tmp_path)["finished"]


@pytest.mark.parametrize("text", ['{"accuracy": 0.5}', "[5]", "torn"])
def test_a_summary_that_no_report_wrote_is_left_as_it_is(tmp_path, text):
    _write(tmp_path, _records(4))  # other programs write a metrics.jsonl with steps too
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(FolderError, match="summary.json is no file of this command, and is left as it is"):
        write_report(tmp_path)
    assert (tmp_path / "summary.json").read_text() == text and not (tmp_path / "plots").exists()


def test_held_out_tasks_without_a_score_are_counted_in_words(tmp_path):
    scores = {"held_out_progress": 0.5, "held_out_solved": 0.5, "held_out_failed": 2, "held_out_unfit": 3}
    _write(tmp_path, [record | scores for record in _records(4)])
    said = io.StringIO()
    tell(tmp_path, write_report(tmp_path), Console(file=said, width=1000))
    assert "Of the held-out tasks 2 failed by infrastructure at the last evaluation." in said.getvalue()
    assert "Of the held-out tasks 3 exceed the limits of their rollouts" in said.getvalue()
    assert "failed 2" not in said.getvalue()


def _write(run_dir, records):
    with open_metrics(run_dir / "metrics.jsonl") as write:
        for record in records:
            write(record["step"], {key: value for key, value in record.items() if key != "step"})


def _axes(draw, records):
    axes = Figure().subplots()
    draw(axes, list(records))
    return axes


def _png_size(path):
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])


def test_a_run_becomes_five_plots_and_a_summary(tmp_path):
    _write(tmp_path, _records())
    before = dict(matplotlib.rcParams)
    summary = write_report(tmp_path)
    assert dict(matplotlib.rcParams) == before
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    for name in PLOTS:
        width, height = _png_size(tmp_path / "plots" / f"{name}.png")
        assert width > 1000 and height > 600
    print_summary(summary, Console(file=(out := io.StringIO()), width=100))
    assert "20 steps" in out.getvalue() and "retired mastered 10" in out.getvalue()


def test_the_summary_by_hand():
    summary = summarize(list(_records()))
    assert summary["steps"] == 20
    assert summary["held_out_progress"] == pytest.approx({"first": 0.6, "last": 0.8, "best": 0.8, "gain": 0.2})
    assert summary["zone_mastered"] == {"first": 1.5, "last": 19.5}  # two steps are a tenth
    assert (summary["candidates"], summary["rejected"]) == (60, 20)  # sums of the steps
    assert (summary["injected"], summary["retired_mastered"]) == (40, 10)  # already totals
    assert (summary["pool_human"], summary["pool_active"]) == (24, 20)
    assert summary["seconds"] == {"rollout": 40.0, "synthesis": 10.0}


def test_the_variance_of_middle_groups_is_set_against_the_others():
    records = [{"step": 1, "task_mean": [0.5, 0.25, 1.0, 0.1], "task_variance": [0.2, 0.1, 0.0, 0.06]}]
    assert summarize(records)["variance"] == pytest.approx({"middle": 0.15, "outside": 0.03})


def test_held_out_points_are_drawn_where_they_were_measured():
    axes = _axes(draw_reward, _records())
    line = next(line for line in axes.get_lines() if line.get_label() == "held-out tasks")
    np.testing.assert_allclose(line.get_xydata(), [[10, 0.6], [20, 0.8]])
    assert {"0.60", "0.80", "format ", "full "} <= {text.get_text() for text in axes.texts}


def test_a_stage_may_have_any_name(tmp_path):
    records = [{"step": step, "stage": name, "progress_mean": 0.5} for step, name in ((1, "a$_$b"), (2, r"$\frac$"))]
    _write(tmp_path, records)
    write_report(tmp_path)
    assert {"a$_$b ", r"$\frac$ "} <= {text.get_text() for text in _axes(draw_reward, records).texts}


def test_the_stacks_add_up_and_are_named():
    for draw, names, top in (
        (draw_zones, ["hard", "boundary", "mastered"], 30),
        (draw_pool, ["human seeds", "generated, active", "generated, on trial"], 46),
    ):
        axes = _axes(draw, _records())
        assert [text.get_text() for text in axes.get_legend().get_texts()] == names
        highest = max(path.vertices[:, 1].max() for area in axes.collections for path in area.get_paths())
        assert highest == top


def test_every_group_lies_below_the_bound_and_equal_ones_share_a_dot():
    records = [*_records(), {"step": 21, "task_mean": [0.5] * 7, "task_variance": [0.25] * 7}]
    axes = _axes(partial(draw_variance, band=(0.2, 0.85)), records)
    dots = axes.collections[0]
    means, variances = np.asarray(dots.get_offsets()).T
    assert (variances <= means * (1 - means) + 1e-9).all()
    assert ((means == 0.5) & (variances == 0.25)).sum() == 1
    assert dots.get_sizes().max() == dots.get_sizes()[(means == 0.5) & (variances == 0.25)][0]


def test_the_band_that_is_drawn_is_the_runs_own(tmp_path):
    assert band_of(tmp_path) is None
    (tmp_path / "config.json").write_text('{"replay": {"lower": 0.4, "upper": 0.6}}')
    assert band_of(tmp_path) == (0.4, 0.6)
    axes = _axes(partial(draw_variance, band=band_of(tmp_path)), _records())
    (band,) = axes.patches
    assert (band.get_x(), band.get_width()) == (0.4, pytest.approx(0.2))
    (tmp_path / "config.json").write_text('{"replay": {"lower": "low", "upper": 0.6}}')
    with pytest.raises(JsonError, match="config.json, replay: lower must be"):
        band_of(tmp_path)


@pytest.mark.parametrize(
    "records",
    [
        [{"step": 0, "held_out_progress": 0.4}],
        [{"step": 1, "progress_mean": 0.5, "pool_human": 4}],
    ],
)
def test_a_run_that_has_only_begun_is_drawn_too(tmp_path, records):
    _write(tmp_path, records)
    write_report(tmp_path)
    assert all((tmp_path / "plots" / f"{name}.png").exists() for name in PLOTS)


def test_no_steps_is_said(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(ValueError, match="metrics.jsonl holds no step yet"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    "line, why",
    [
        ('{"step": 1, "pool_human": "4"}', "line 2: pool_human must be a number: got '4'"),
        ('{"step": 1, "task_mean": 0.5}', "line 2: task_mean must be a list: got 0.5"),
        ('{"step": 1, "task_mean": [[]]}', "line 2: task_mean must be a number"),
        ("null", "line 2: it must be an object: got None"),
        ('{"step": "1"}', "line 2: step must be an integer: got '1'"),
        ("[" * 99999, "line 2: an integer without end, or a nesting"),
    ],
)
def test_metrics_of_another_shape_are_refused_with_file_line_and_key(tmp_path, line, why):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 0}}\n{line}\n')
    with pytest.raises(ValueError) as refused:
        write_report(tmp_path)
    assert f"{tmp_path / 'metrics.jsonl'}, {why}" in str(refused.value)


def test_zones_that_no_record_has_together_are_drawn_empty():
    axes = Figure().subplots()
    reporting.draw_zones(axes, [{"step": 0, "zone_hard": 1}, {"step": 1, "zone_boundary": 2}])
    assert not axes.collections and axes.get_title() == "Capability zones of the pool"


def test_a_pool_of_nothing_and_numbers_that_are_null_are_drawn(tmp_path):
    zones = {f"zone_{zone}": 0 for zone in ("hard", "boundary", "mastered")}
    _write(tmp_path, [{"step": 0, "held_out_progress": float("nan")} | zones])
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["held_out_progress"] is None
    summary = write_report(tmp_path)
    print_summary(summary, Console(file=(out := io.StringIO()), width=100))
    assert out.getvalue().startswith("0 steps\n") or "zone hard" in out.getvalue()


def test_the_command_on_no_run_is_one_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        report_of(tmp_path / "[red]nowhere")
    said = capsys.readouterr().out
    assert end.value.code == 2 and "[red]nowhere" in said and said.startswith("error: ") and said.count("\n") == 1
