"""Runs every performance benchmark and draws one chart; `make bench` calls it.

    python -m scripts.benchmark --tunix-python A/bin/python --torch-python B/bin/python [--rows U1 G1 K1] [--again]

Each row is a process of its own (`scripts/benchmark_*.py`) whose JSON goes to DIRECTORY/ROW.json; the growth of time
and memory with G, P and the number of turns goes to DIRECTORY/growth-*.json.  What has been measured is kept, so that a
run that was cut off goes on; --again measures it anew.  Left out on purpose: thresholds, which belong to whoever reads
the figures on a quiet machine.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import tyro
from rich.console import Console

# Minutes on 2 cores with nothing beside it, both peers included.
UPDATES = {"U1": 6.5, "U2": 2.0, "U3": 7.0, "U4": 1.0, "U4-32k": 2.0}
GENERATIONS = {"G1": 5.0, "G2": 1.0, "G2-32k": 1.5, "G3": 1.0, "G3-32k": 1.5}
ROWS = UPDATES | GENERATIONS | {"K1": 0.5, "overhead": 3.0}
# By option: the row, its own size, and the other sizes with their minutes.
GROWTH = {
    "group": ("U1", 16, {4: 1.0, 8: 1.5}),
    "prompt": ("U1", 1024, {256: 1.0, 512: 1.5}),
    "turns": ("G1", 4, {1: 1.0, 2: 1.0, 8: 2.5}),
}


@dataclass(frozen=True)
class Options:
    rows: tuple[str, ...] = tuple(ROWS)
    growth: bool = True
    again: bool = False  # measure what has been measured
    tunix_python: str | None = None  # interpreter that has google-tunix
    torch_python: str | None = None  # interpreter that has torch and transformers
    directory: Path = Path("runs/bench")


def main() -> None:
    options, console = tyro.cli(Options, description=__doc__), Console(highlight=False)
    options.directory.mkdir(parents=True, exist_ok=True)
    plan = planned(options)
    left = {name: minutes for name, minutes in plan.items() if options.again or not measured(options.directory, name)}
    while left:
        name = next(iter(left))
        console.print(f"{name}: about {left[name]:g} of {sum(left.values()):g} minutes")
        run_into(command_of(name, options), options.directory / f"{name}.json", console)
        del left[name]
    console.print(f"chart: {draw(options.directory)}")


def planned(options: Options) -> dict[str, float]:
    """Minutes by the name of the measurement: the rows, then the growth."""
    names = {row: ROWS[row] for row in options.rows}
    if options.growth:
        for option, (_, _, others) in GROWTH.items():
            names |= {f"growth-{option}-{size}": minutes for size, minutes in others.items()}
    return names


def measured(directory: Path, name: str) -> bool:
    path = directory / f"{name}.json"
    return path.exists() and "error" not in json.loads(path.read_text())


def command_of(name: str, options: Options) -> list[str]:
    """The process that measures a row, or a row at another size."""
    if name == "overhead":
        return script("overhead")
    if name == "K1":
        return script("statistics", *peer(options.tunix_python))
    if name.startswith("growth-"):
        _, option, size = name.split("-")
        row, how = GROWTH[option][0], [f"--{option}", size, "--rounds", "1", "--repeats", "1"]
    else:
        # A step of U3 takes minutes: its only one counts, compilation and all.
        row, how = name, ["--rounds", "1", "--repeats", "0"] if name == "U3" else ["--rounds", "2", "--repeats", "3"]
    python = options.tunix_python if row in ("U1", "U2", "G1") else options.torch_python
    return script("update" if row in UPDATES else "generation", "--workload", row, *how, *peer(python))


def script(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"scripts.benchmark_{name}", *arguments]


def peer(python: str | None) -> list[str]:
    return ["--peer-python", python] if python else []


def run_into(command: Sequence[str], path: Path, console: Console) -> None:
    started = time.perf_counter()
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        found = {"error": process.stderr.strip()[-2000:]}
        console.print(f"[red]{path.stem} failed:[/] {found['error'][-300:]}")
    else:
        found = json.loads(process.stdout)
    found["minutes"] = (time.perf_counter() - started) / 60
    path.write_text(json.dumps(found, indent=2) + "\n")


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
    for axis, (option, (row, own_size, others)) in zip(axes[1], GROWTH.items(), strict=True):
        names = {own_size: row} | {size: f"growth-{option}-{size}" for size in others}
        for side in ("ours", "peer"):
            grown = {size: found.get(names[size], {}).get("results", {}).get(side, {}) for size in sorted(names)}
            points = [(size, one["median_seconds"]) for size, one in grown.items() if "median_seconds" in one]
            if points:
                axis.plot(*zip(*points), marker="o", label=side)
                axis.legend()
        axis.set_xlabel(f"{option} ({row})")
        axis.set_ylabel("seconds")
        axis.set_ylim(bottom=0)
    path = directory / "performance.png"
    figure.savefig(path, dpi=120)
    return path


if __name__ == "__main__":
    main()
