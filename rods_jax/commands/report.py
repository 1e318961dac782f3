"""Plots and a summary of a run, from its metrics.jsonl alone.

    python -m scripts.report runs/quickstart

Writes plots/{reward,zones,pool,variance,overview}.png and summary.json into the run directory and prints the summary.
"""

from pathlib import Path

import tyro
from rich.console import Console

from rods_jax import run
from rods_jax.commands.common import program, running


def report(run_dir: Path, /) -> None:
    """Draws the plots of a run and prints its summary."""
    console = Console()
    with running(console):
        run.report(run_dir, console=console)


def main() -> None:
    tyro.cli(report, prog=program("report"), description=__doc__)
