"""How good the synthesised tasks of a run are: acceptance, latency, profile match, diversity, boundary, leakage.

    python -m scripts.fidelity runs/quickstart --config configs/quickstart.py

Reads candidates.jsonl, metrics.jsonl and tasks/, writes fidelity.json beside them, and prints it.  Training does the
same at its end; docs/guide/fidelity.md explains the figures.
"""

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from rods_jax.commands.common import program, running
from rods_jax.config import load_config
from rods_jax.run.fidelity import print_fidelity, write_fidelity


def fidelity(
    run_dir: Annotated[Path, tyro.conf.Positional],
    config: Path,
) -> None:
    """Reports on the synthesised tasks of a run.

    Args:
        run_dir: where training wrote them.
        config: the configuration that the run was started with; it names the domain.
    """
    console = Console()
    with running(console):
        print_fidelity(write_fidelity(run_dir, load_config(config).domain()), console)


def main() -> None:
    tyro.cli(fidelity, prog=program("fidelity"))
