"""Writes variants for a run beside its trainer: start as many as you like, on any host that sees the run directory.

    python -m scripts.synthesize --run runs/my_run --config configs/my_run.py [--workers 8]

The config is the run's own, with `synthesis=SynthesisConfig(...)`; docs/synthesis.md has one. The run must have begun.
It ends with Ctrl-C, a spent budget or an edited journal. Killing it loses nothing: the next one goes on.
Left out on purpose: knowing whether the trainer is alive. What it sent is settled, and waits for it.
"""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import tyro
from rich.console import Console

from rods_jax.config import Config, ConfigError, SynthesisConfig, load_config, require_same_run
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.synthesis.critique import content_hash
from rods_jax.synthesis.near_duplicates import far_from
from rods_jax.synthesis.worker import Author, working
from rods_jax.task_files import read_tasks


def author_of(config: SynthesisConfig, domain: Domain, tasks: TaskSplits) -> Author:
    """The author of a run. ConfigError: a role has no backend, a prompt or a key is missing."""
    try:
        backends = config.backends()
        gates = (*config.roles(backends).gates, far_from(tasks.held_out))
    except (ValueError, OSError) as error:
        raise ConfigError(f"synthesis: {error}") from error
    return Author(
        domain,
        backends,
        roles=lambda backends: config.roles(backends)._replace(gates=gates),
        attempts=config.attempts,
        known=frozenset(map(content_hash, (*tasks.held_out, *tasks.seeds))),
    )


def teller(console: Console) -> Callable[[str], None]:
    return lambda sentence: console.print(sentence, style="yellow", highlight=False, markup=False, soft_wrap=True)


def work(config: Config, directory: Path, workers: int, console: Console) -> None:
    """Returns when the last worker has given up."""
    require_same_run(config, directory)
    if config.synthesis is None:
        raise ConfigError("the config has no synthesis=SynthesisConfig(...): its author works in the trainer")
    tasks = TaskSplits(**{part: read_tasks(directory / "tasks" / f"{part}.jsonl") for part in TaskSplits._fields})
    author = author_of(config.synthesis, config.domain(), tasks)
    with working(directory / "synthesis", author, workers=workers, tell=teller(console)) as threads:
        console.print(f"{workers} workers wait for the seeds of {directory}", highlight=False, soft_wrap=True)
        for thread in threads:
            thread.join()


def main(run: Path, config: Path, workers: int = 8) -> None:
    """Writes variants for a run beside its trainer.

    Args:
        run: the run directory.
        config: the configuration that the run was started with.
        workers: seeds at a time.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # at once: nothing is lost, and a reply may take minutes
    console = Console()
    try:
        work(load_config(config), run, workers, console)
    except (ConfigError, ValueError, OSError) as error:
        console.print(f"[bold red]error:[/] {error}", highlight=False)
    sys.exit(2)


if __name__ == "__main__":
    tyro.cli(main)
