"""Writes the policy of a run as a directory that transformers, vLLM and PEFT load.

    python -m scripts.export --run-dir runs/quickstart --to exported [--config FILE] [--adapters BASE]

The newest checkpoint with its tokenizer, in bfloat16 or with --dtype float32; adapters merged.  With --adapters, those
alone, BASE being the name or directory of the checkpoint that they belong to.  A policy that no single device holds is
cut as in training: --mesh, and --coordinator where processes share it (docs/guide/slice.md).
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from rods_jax import files, processes, terminal
from rods_jax.codecs.tokenizer import load_tokenizer
from rods_jax.commands.common import program, running
from rods_jax.config import ConfigError, positions_of
from rods_jax.run.played import newest, run_config


def export(
    run_dir: Path,
    to: Path,
    config: Path | None = None,
    adapters: str | None = None,
    dtype: Literal["bfloat16", "float32"] = "bfloat16",
    mesh: tuple[int, int, int, int] | None = None,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Reads the run, writes `to`, which must be new or empty, and says what it holds."""
    processes.start(coordinator, num_processes, process_id)
    processes.on_first(lambda: files.require_free(to))
    settings = replace(run_config(run_dir, config), mesh=mesh)
    tokenizer = load_tokenizer(run_dir / "tokenizer")
    learner = settings.learner(settings)(len(tokenizer))
    if learner.export is None:
        raise ConfigError("the run's learner does not say how its policy is written")
    step, params = newest(run_dir, learner)
    positions = max(positions_of(settings).values())
    learner.export(to, params, tokenizer, max_positions=positions, base=adapters, dtype=dtype)
    if processes.is_first():
        terminal.say(Console(), f"{to}: the policy of {run_dir} at step {step}")


def main() -> None:
    with running(Console(stderr=True)):
        tyro.cli(export, prog=program("export"), description=__doc__)
