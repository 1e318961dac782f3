"""Writes variants for a run beside its trainer: start as many as you like, on any host that sees the run directory.

    python -m scripts.synthesize --run runs/my_run --config configs/my_run.py [--workers 8] [--ray-tasks 4]

The config is the run's own, with `synthesis=SynthesisConfig(...)`; docs/guide/synthesis.md has one. The run must have begun.
It ends with Ctrl-C, a spent budget or an edited journal. Killing it loses nothing: the next one goes on.
A Ray task is what one such process is; Ray chooses its host, and starts it again when it dies.
Left out on purpose: knowing whether the trainer is alive. What it sent is settled, and waits for it.
"""

import sys
from pathlib import Path

import tyro
from rich.console import Console

from rods_jax import terminal
from rods_jax.commands.common import program
from rods_jax.config import ConfigError, load_config
from rods_jax.fields import require
from rods_jax.preemption import interrupts
from rods_jax.run.authors import work, work_on_ray


def synthesize(run: Path, config: Path, workers: int = 8, ray_tasks: int = 0) -> None:
    """Writes variants for a run beside its trainer.

    Args:
        run: the run directory.
        config: the configuration that the run was started with.
        workers: seeds at a time; in each task, if there are tasks.
        ray_tasks: Ray tasks that do the work, one CPU each; 0: this process does it.
    """
    terminal.outlive_output()
    console = Console()
    try:
        require(workers >= 1, "--workers must be at least 1")
        require(ray_tasks >= 0, "--ray-tasks must not be negative")
        with interrupts():  # nobody waits for the threads: nothing is lost, and a reply may take minutes
            if ray_tasks:
                work_on_ray(config, run, workers, ray_tasks)
            else:
                work(load_config(config), run, workers, console)
    except KeyboardInterrupt:
        terminal.say(console, "interrupted: the next one goes on with what was under way")
        sys.exit(130)
    except (ConfigError, ValueError, OSError) as error:
        terminal.refuse(console, error)
    sys.exit(2)


def main() -> None:
    tyro.cli(synthesize, prog=program("synthesize"))
