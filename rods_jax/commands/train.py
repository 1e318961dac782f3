"""Trains a policy with RODS: the one command.

    python -m scripts.train --config configs/quickstart.py [--rollout.group-size 4 ...]
    ... --resume                                    from the latest checkpoint, as if it had never stopped
    ... --resume-step 40                            from an earlier one; what lies beyond is written again
    ... --fork runs/new --from runs/old@40          a new run that goes on from there, with other settings
    ... --profile 3                                 writes a trace of step 3 for xprof and Perfetto into profile/
    ... --coordinator auto                          one process of several, on a TPU slice or under SLURM
    ... --coordinator HOST:PORT --num-processes 2 --process-id 0    the same anywhere (docs/guide/slice.md)

SIGTERM or Ctrl-C: it saves after the step and exits with 75; a second one ends it at once. Other exits: 0 done,
2 refused (the message says why), 3 stopped after saving because a number was not finite.
The run directory gets config.json, metrics.jsonl, tasks/, tokenizer/, checkpoints/, trajectories.jsonl,
candidates.jsonl, plots/, summary.json, fidelity.json, and synthesis/ where an author works beside it.
"""

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from rods_jax import config as configuration
from rods_jax import processes
from rods_jax.commands.common import options_of, program, require_limits, running
from rods_jax.config import Config, ConfigError
from rods_jax.run import train


@dataclass(frozen=True, kw_only=True)
class Options:
    config: Path
    """a Python file that ends in CONFIG = Config(...)"""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """go on with the run in the run directory, from its latest checkpoint"""
    resume_step: int | None = None
    """go on from the checkpoint of this step; what lies beyond is written again"""
    fork: str | None = None
    """a new run directory that begins as --from says, with other settings"""
    source: Annotated[str | None, tyro.conf.arg(name="from", metavar="RUN@STEP")] = None
    """what --fork begins with: a run directory and the step of one of its checkpoints"""
    profile: int | None = None
    """a step, from 1, whose trace for xprof and Perfetto is written into the run directory"""
    coordinator: str | None = None
    """HOST:PORT of the first of several processes; auto: asks the cluster (docs/guide/slice.md)"""
    num_processes: int | None = None
    """how many they are"""
    process_id: int | None = None
    """which of them this is, from 0"""


def main(console: Console | None = None, train: Callable[..., Any] = train) -> None:
    console = console or Console()
    config_file = next((b for a, b in itertools.pairwise(sys.argv) if a == "--config"), "CONFIG")
    plan = f"{program('plan')} --config {config_file} --topology v5e:8x8"
    with running(console, f"; what fits a TPU slice, and what to change: {plan}"):
        options, config = options_of(Options, program("train"), __doc__)
        require_limits(config.rollout.environment_workers)
        processes.start(options.coordinator, options.num_processes, options.process_id)
        if options.coordinator is not None:
            processes.require_same(settings_of(config, options))
        source = None
        if options.fork is not None or options.source is not None:
            if options.resume_step is not None:
                raise ConfigError("a fork begins at the step of --from: leave --resume-step out")
            config, source = forked(config, options.fork, options.source)
        if options.profile is not None and options.profile < 1:
            raise ConfigError(f"--profile counts steps from 1: got {options.profile}")
        train(
            config,
            resume=options.resume,
            step=options.resume_step,
            source=source,
            console=console,
            profile=options.profile,
        )


def settings_of(config: Config, options: Options) -> dict[str, Any]:
    """What all processes of a run must have in common; a run directory may have another path on each host."""
    ways = {"--resume": options.resume, "--resume-step": options.resume_step, "--from": options.source}
    settings = {
        name: value for name, value in configuration.plain_values(config).items() if name not in ("run_dir", "file")
    }
    return settings | ways | {"installed": processes.versions()}


def forked(config: Config, new: str | None, source: str | None) -> tuple[Config, tuple[str, int]]:
    """The configuration of the new run, and what it goes on from. ConfigError: one of the two is missing."""
    run_dir, at, step = (source or "").rpartition("@")
    if not (new and at and run_dir and step.isdecimal()):
        raise ConfigError("a fork needs both --fork NEW and --from RUN@STEP")
    return replace(config, run_dir=new), (run_dir, int(step))
