"""Evaluates any policy on any split: scores with intervals, a table, and a page of trajectories.

    python -m scripts.evaluate --player runs/quickstart
    python -m scripts.evaluate --player http://localhost:8000/v1 --model Qwen/Qwen3-4B --tasks bfcl-held-out
    python -m scripts.evaluate --player runs/first --mesh 16 4 1 1 --coordinator auto       on the slice that trained it
    python -m scripts.evaluate --player checkpoints/NAME --config configs/bfcl_qwen3_4b.py --tasks bfcl-held-out

Writes journal.jsonl (a line per finished episode), scores.json and trajectories.html into --out.  Interrupted,
the same command continues; episodes that the infrastructure failed are played again.  Exit status 1: nothing was
scored; 2: refused, in one sentence; 130: Ctrl-C.
"""

import sys

import tyro
from rich.console import Console

from rods_jax import processes, strict_json, terminal
from rods_jax.commands.common import REFUSED, program, refuse
from rods_jax.preemption import interrupts
from rods_jax.run.evaluating import Evaluation, evaluate, has_scores


def main() -> None:
    settings = tyro.cli(Evaluation, prog=program("evaluate"), description=__doc__)
    terminal.outlive_output()
    console = Console(stderr=settings.json)
    try:
        processes.start(settings.coordinator, settings.num_processes, settings.process_id)
        console = console if processes.is_first() else Console(quiet=True)
        with interrupts():
            result = evaluate(settings, console)
        if settings.json and processes.is_first():
            print(strict_json.dumps(result, indent=2))
        sys.exit(0 if has_scores(result) else 1)
    except REFUSED as error:
        refuse(console, error)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("interrupted: the same command continues")
        sys.exit(130)
