"""Has tasks written that rewrite their own instructions, each with a checker (AReaL-SEA, arXiv 2601.22607).

    python -m scripts.evolve --config configs/evolve_helpdesk.py --out evolved/helpdesk [--pace.tasks 500]

The config ends in CONFIG = EvolutionConfig(...); docs/guide/evolve.md has one with language models.  Killed or stopped by
a spent budget, the same command goes on where it ended.  More tasks, workers or tokens may be asked for then.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from rods_jax.commands.common import options_of, program, running
from rods_jax.evolution.folder import evolve_in
from rods_jax.evolution.settings import EvolutionConfig


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to write, and where."""

    config: Path
    """a Python file that ends in CONFIG = EvolutionConfig(...)"""
    out: Path = tyro.MISSING
    """the folder; one that this command began is continued"""


def main() -> None:
    console = Console()
    with running(console):
        options, config = options_of(Options, program("evolve"), __doc__, settings=EvolutionConfig)
        evolve_in(config, options.out, console)
