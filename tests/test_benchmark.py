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
    assert len(results["ours"]["load_before"]) == len(results["peer"]["load_before"]) == 2  # of each process
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
        "growth-turns-8": {"results": {"ours": side}},
    }
    for name, row in rows.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(row))
    assert benchmark.draw(tmp_path).stat().st_size > 10_000


@pytest.mark.slow
def test_what_was_measured_is_kept_and_what_failed_is_measured_again(tmp_path, monkeypatch):
    ran, printed = [], [sys.executable, "-c", "print('{}')"]

    def command_of(name, options):
        ran.append(name)
        return printed if name != "U2" or ran.count("U2") > 1 else [*printed[:2], "raise MemoryError"]

    def bench(*more):
        arguments = ["--directory", str(tmp_path), "--rows", "K1", "U2", "--no-growth", *more]
        monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
        benchmark.main()

    monkeypatch.setattr(benchmark, "command_of", command_of)
    bench()
    assert ran == ["K1", "U2"]
    assert "MemoryError" in json.loads((tmp_path / "U2.json").read_text())["error"]
    bench()
    assert ran == ["K1", "U2", "U2"]
    bench()
    assert ran == ["K1", "U2", "U2"]
    bench("--again")
    assert ran == ["K1", "U2", "U2", "K1", "U2"]
    assert json.loads((tmp_path / "K1.json").read_text())["minutes"] > 0


def test_every_row_and_size_has_a_command_and_its_peer():
    options = benchmark.Options(tunix_python="A", torch_python="B")
    commands = {name: benchmark.command_of(name, options) for name in benchmark.planned(options)}
    assert len(commands) == 12 + 7
    assert commands["U1"][-2:] == commands["growth-turns-8"][-2:] == ["--peer-python", "A"]
    assert commands["U4"][-2:] == commands["G2"][-2:] == ["--peer-python", "B"]
    assert commands["growth-turns-8"][2:7] == ["scripts.benchmark_generation", "--workload", "G1", "--turns", "8"]
    assert all("--peer-python" not in benchmark.command_of(name, benchmark.Options()) for name in commands)


def test_two_sides_that_do_not_compute_the_same_loss_are_refused():
    assert measure.difference({"loss": 1.0}, {"loss": 1.0 - 5e-7}) == pytest.approx(5e-7, rel=1e-3)
    assert measure.difference({"loss": 1.0}, {"error": "out of memory"}) is None
    with pytest.raises(SystemExit, match="differ by 2.0e-06"):
        measure.difference({"loss": 1.0}, {"loss": 1.0 - 2e-6})


@pytest.mark.slow
@pytest.mark.parametrize("module", [benchmark_update, benchmark_generation])
def test_a_tiny_row_runs_from_end_to_end(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark", "--workload", "tiny", "--rounds", "1", "--repeats", "1"])
    module.main()
    report = json.loads(capsys.readouterr().out)
    assert report["results"]["ours"]["median_seconds"] > 0 and report["results"]["ours"]["peak_bytes"] > 1e7
