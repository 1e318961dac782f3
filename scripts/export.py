"""Writes the policy of a run as a directory that transformers, vLLM and PEFT load.

    python -m scripts.export --run-dir runs/quickstart --to exported [--config FILE] [--adapters BASE]

The newest checkpoint with its tokenizer, in bfloat16 or with --dtype float32; adapters merged.  With --adapters, those
alone, BASE being the name or directory of the checkpoint that they belong to.  A policy that no single device holds is
cut as in training: --mesh, and --coordinator where processes share it (docs/launch.md).  Left out on purpose: uploading.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from models import weights
from models.tokenizer import load_tokenizer
from rods_jax import processes, terminal
from scripts.commands import running
from scripts.players import newest, run_config
from scripts.policies import export, policy_of


def main(
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
    if coordinator is not None:
        processes.start(coordinator, num_processes, process_id)
    processes.on_first(lambda: weights.begin(to))
    settings = replace(run_config(run_dir, config), mesh=mesh)
    tokenizer = load_tokenizer(run_dir / "tokenizer")
    learner = policy_of(settings, len(tokenizer))
    step, params = newest(run_dir, learner)
    export(
        to,
        learner,
        params,
        tokenizer,
        max_positions=settings.rollout.max_prompt_tokens + settings.rollout.max_suffix_tokens,
        base=adapters,
        dtype=dtype,
        source=getattr(settings.model, "directory", None),
    )
    if processes.is_first():
        terminal.say(Console(), f"{to}: the policy of {run_dir} at step {step}")


if __name__ == "__main__":
    with running(Console(stderr=True)):
        tyro.cli(main, prog="python -m scripts.export", description=__doc__)
