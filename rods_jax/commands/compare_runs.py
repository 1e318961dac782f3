"""Says where two runs first differ, and in what.

    python -m scripts.compare_runs runs/a runs/b

Compares settings, metrics, trajectories, candidates, and the arrays and pools of the checkpoints that both hold, bit
for bit; what a clock measured is left out. Exit status 0: no difference, 1: there is one, 2: one of them is no run.
"""

import sys
from pathlib import Path

import tyro
from rich.console import Console

from rods_jax import terminal
from rods_jax.commands.common import program, running
from rods_jax.run.compare import compare


def compare_runs(a: Path, b: Path, /) -> None:
    """Says where two runs first differ, and in what."""
    console = Console()
    with running(console):
        found = compare(a, b)
        for sentence in found or ["no difference"]:
            terminal.say(console, sentence)
    sys.exit(bool(found))


def main() -> None:
    tyro.cli(compare_runs, prog=program("compare_runs"), description=__doc__)
