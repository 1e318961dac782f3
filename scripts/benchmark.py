"""Runs every performance benchmark and draws one chart; `make bench` calls it.

    python -m scripts.benchmark --tunix-python A/bin/python --torch-python B/bin/python [--rows U1 G1 K1]

Each row is a process of its own (`scripts/benchmark_*.py`) whose JSON goes to DIRECTORY/ROW.json; the growth of time
and memory with G, P and the number of turns goes to DIRECTORY/growth.json.  Left out on purpose: thresholds, which belong
to whoever reads the figures on a quiet machine.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import tyro
from rich.console import Console

UPDATES, GENERATIONS = ("U1", "U2", "U3", "U4", "U4-32k"), ("G1", "G2", "G2-32k", "G3", "G3-32k")
ROWS = (*UPDATES, *GENERATIONS, "K1", "overhead")
GROWTH = {
    "group": ("benchmark_update", "U1", (4, 8, 16)),
    "prompt": ("benchmark_update", "U1", (512, 1024, 2048)),
    "turns": ("benchmark_generation", "G1", (1, 2, 4, 8)),
}


@dataclass(frozen=True)
class Options:
    rows: tuple[str, ...] = ROWS
    growth: bool = True
    tunix_python: str | None = None  # interpreter that has google-tunix
    torch_python: str | None = None  # interpreter that has torch and transformers
    rounds: int = 2
    directory: Path = Path("runs/bench")


def main() -> None:
    options, console = tyro.cli(Options, description=__doc__), Console()
    options.directory.mkdir(parents=True, exist_ok=True)
    for row in options.rows:
        record(command_of(row, options), options.directory / f"{row}.json", console)
    if options.growth:
        growth = {name: [] for name in GROWTH}
        for name, (module, workload, sizes) in GROWTH.items():
            for size in sizes:
                command = [*base(module, workload, options), f"--{name}", str(size)]
                path = options.directory / f"growth-{name}-{size}.json"
                growth[name].append({"size": size} | record(command, path, console))
    console.print(f"chart: {draw(options.directory)}")


def command_of(row: str, options: Options) -> list[str]:
    if row == "overhead":
        return [sys.executable, "-m", "scripts.benchmark_overhead"]
    if row == "K1":
        return [sys.executable, "-m", "scripts.benchmark_statistics", *peer(options.tunix_python)]
    return base("benchmark_update" if row in UPDATES else "benchmark_generation", row, options)


def base(module: str, workload: str, options: Options) -> list[str]:
    python = options.tunix_python if workload in ("U1", "U2", "G1") else options.torch_python
    rounds = ["--rounds", str(options.rounds)]
    return [sys.executable, "-m", f"scripts.{module}", "--workload", workload, *rounds, *peer(python)]


def peer(python: str | None) -> list[str]:
    return ["--peer-python", python] if python else []


def record(command: Sequence[str], path: Path, console: Console) -> Mapping[str, Any]:
    console.print(f"{path.stem} ...", highlight=False)
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        found = {"error": process.stderr.strip()[-2000:]}
        console.print(f"[red]{path.stem} failed:[/] {found['error'][-300:]}", highlight=False)
    else:
        found = json.loads(process.stdout)
    path.write_text(json.dumps(found, indent=2) + "\n")
    return found


def draw(directory: Path) -> Path:
    """Time and memory of both sides by row, and ours and theirs as G, P and the turns grow."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))}
    figure, axes = plt.subplots(2, 3, figsize=(13, 7), constrained_layout=True)
    rows = [row for row in ROWS if "results" in found.get(row, {})]
    for axis, key, scale, label in (
        (axes[0, 0], "median_seconds", 1, "seconds"),
        (axes[0, 1], "peak_bytes", 2**30, "peak memory, GiB"),
    ):
        for offset, side in ((-0.2, "ours"), (0.2, "peer")):
            heights = [found[row]["results"].get(side, {}).get(key, 0) / scale for row in rows]
            axis.bar([place + offset for place in range(len(rows))], heights, 0.4, label=side)
        axis.set_xticks(range(len(rows)), rows, rotation=45, ha="right")
        axis.set_yscale("log")
        axis.set_ylabel(label)
        axis.legend()
    shares = [found[row].get("share_of_peak") or 0 for row in rows if row in UPDATES]
    axes[0, 2].bar([row for row in rows if row in UPDATES], shares)
    axes[0, 2].axhline(0.6, color="black", linewidth=0.8)
    axes[0, 2].set_ylabel("share of the machine's matrix peak")
    for axis, (name, (_, workload, sizes)) in zip(axes[1], GROWTH.items(), strict=True):
        for side in ("ours", "peer"):
            grown = [found.get(f"growth-{name}-{size}", {}).get("results", {}).get(side, {}) for size in sizes]
            points = [(size, one["median_seconds"]) for size, one in zip(sizes, grown) if "median_seconds" in one]
            if points:
                axis.plot(*zip(*points), marker="o", label=side)
                axis.legend()
        axis.set_xlabel(f"{name} ({workload})")
        axis.set_ylabel("seconds")
        axis.set_ylim(bottom=0)
    path = directory / "performance.png"
    figure.savefig(path, dpi=120)
    return path


if __name__ == "__main__":
    main()
