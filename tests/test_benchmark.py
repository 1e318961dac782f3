"""The benchmarks measure what they say: counted FLOPs, processes in turns, failures recorded, both sides on the same work."""

import json
import sys

import pytest

from scripts import benchmark, benchmark_generation, benchmark_update, measure


def printing(**found):
    return [sys.executable, "-c", f"print('noise'); print({json.dumps(json.dumps(found))})"]


def test_processes_take_turns_and_their_seconds_are_pooled():
    commands = {
        "ours": printing(seconds=[1.0, 3.0], peak_bytes=10),
        "peer": printing(seconds=[8.0], peak_bytes=40),
        "broken": [sys.executable, "-c", "raise MemoryError('27 GB')"],
    }
    results = measure.take_turns(commands, rounds=2)
    assert results["ours"]["seconds"] == [1.0, 3.0, 1.0, 3.0] and results["ours"]["median_seconds"] == 2.0
    assert measure.ratio(results, "ours", "peer", "median_seconds") == 4.0
    assert measure.ratio(results, "ours", "peer", "peak_bytes") == 4.0
    assert "27 GB" in results["broken"]["error"]
    assert measure.ratio(results, "ours", "broken", "median_seconds") is None
    assert measure.ratio(results, "ours", "absent", "median_seconds") is None


def test_flops_by_hand():
    """One token of prompt and one of suffix, one rollout: two tokens, three visible pairs, one projection."""
    weights = 256 * 64 * (4 + 2 * 2 + 4) + 3 * 256 * 768
    assert weights == 786_432
    one = benchmark_update.Workload(1, 1, 1, 1, 10, None, "")
    assert benchmark_update.flops(one) == 6 * (4 * (2 * weights + 3 * 2 * 4 * 64) + 256 * 10)
    shared, twice = one._replace(prompt=1000, group=16), one._replace(prompt=1000, tasks=16)
    assert benchmark_update.flops(shared) < benchmark_update.flops(twice) / 10  # the prompt is paid once


def test_the_chart_draws_whatever_rows_there_are(tmp_path):
    side = {"median_seconds": 1.0, "peak_bytes": 2**30}
    rows = {
        "U1": {"results": {"ours": side, "peer": side}, "share_of_peak": 0.5},
        "U2": {"results": {"ours": side, "peer": {"error": "out of memory"}}},
        "G1": {"error": "no"},
        "growth-turns-1": {"results": {"ours": side}},
        "growth-turns-4": {"results": {"ours": side}},
    }
    for name, row in rows.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(row))
    assert benchmark.draw(tmp_path).stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("module", [benchmark_update, benchmark_generation])
def test_a_tiny_row_runs_from_end_to_end(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark", "--workload", "tiny", "--rounds", "1", "--repeats", "1"])
    module.main()
    report = json.loads(capsys.readouterr().out)
    assert report["results"]["ours"]["median_seconds"] > 0 and report["results"]["ours"]["peak_bytes"] > 1e7
