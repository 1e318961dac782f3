"""Writes the policy of a run as a directory that transformers, vLLM and PEFT load.

    python -m scripts.export --run-dir runs/quickstart --to exported [--config FILE] [--adapters BASE]

The newest checkpoint, in bfloat16, with its tokenizer; adapters merged.  With --adapters, those alone, BASE being the
name or directory of the checkpoint that they belong to.  Left out on purpose: uploading.
"""

import sys
from pathlib import Path

import tyro
from rich.console import Console

from models.tokenizer import load_tokenizer
from rods_jax import terminal
from rods_jax.checkpoint import CheckpointError
from scripts.players import newest, run_config
from scripts.policies import export, policy_of


def main(run_dir: Path, to: Path, config: Path | None = None, adapters: str | None = None) -> None:
    """Reads the run, writes `to`, and says what it holds."""
    settings = run_config(run_dir, config)
    tokenizer = load_tokenizer(run_dir / "tokenizer")
    learner = policy_of(settings, len(tokenizer))
    step, params = newest(run_dir, settings, learner)
    positions = settings.rollout.max_prompt_tokens + settings.rollout.max_suffix_tokens
    export(to, learner, params, tokenizer, max_positions=positions, base=adapters)
    terminal.say(Console(), f"{to}: the policy of {run_dir} at step {step}")


if __name__ == "__main__":
    terminal.outlive_output()
    try:
        tyro.cli(main, description=__doc__)
    except (CheckpointError, ValueError, OSError) as error:
        terminal.refuse(Console(stderr=True), error)
        sys.exit(2)
