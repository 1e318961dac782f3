"""Trains a policy with RODS: the one command.

    python -m scripts.train --config configs/quickstart.py [--rollout.group-size 4 ...]
    ... --resume                                    from the latest checkpoint, as if it had never stopped
    ... --resume-step 40                            from an earlier one; what lies beyond is written again
    ... --fork runs/new --from runs/old@40          a new run that goes on from there, with other settings
    ... --coordinator auto                          one process of several, on a TPU slice or under SLURM
    ... --coordinator HOST:PORT --num-processes 2 --process-id 0    the same anywhere (docs/launch.md)

SIGTERM or Ctrl-C: it saves after the step and exits with 75; a second one ends it at once. Other exits: 0 done,
2 refused (the message says why), 3 stopped after saving because a number was not finite.
The run directory gets config.json, metrics.jsonl, tasks/, tokenizer/, checkpoints/, trajectories.jsonl,
candidates.jsonl, plots/, summary.json, fidelity.json, and synthesis/ where language models write.  Left out on
purpose: everything that computes; this file only wires the rooms together.
"""

import argparse
import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from rods_jax import checkpoint, config as configuration, processes, replay, strict_json, terminal
from rods_jax.checks import check_start
from rods_jax.config import Config, ConfigError, RolloutConfig, StageConfig, rollout_of
from rods_jax.environments.episode import EpisodeBatch, StartEpisodes, start_episodes
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.environments.workers import Workers
from rods_jax.curriculum import num_epochs, require_hints, rules_of
from rods_jax.keys import seed_key
from rods_jax.lengths import check_lengths, scores_apart
from rods_jax.loop import Position, Stages, train
from rods_jax.metrics import MetricWriter, open_metrics
from rods_jax.preemption import SAVED, maintenance_notices, stop_requests
from rods_jax.rollout import Player, Rollouts, collect, player, trim
from rods_jax.synthesis.near_duplicates import far_from
from rods_jax.synthesis.dispatch import (
    Dispatch,
    Synthesize,
    at_once,
    beside,
    dispatch_from_json,
    dispatch_to_json,
)
from rods_jax.synthesis.pipeline import RULE_BASED, synthesize
from rods_jax.synthesis.worker import Author, working
from rods_jax.task_files import task_to_json, write_atomically
from rods_jax.types import Task
from scripts.display import training_display, warnings
from scripts.fidelity import print_fidelity, write_fidelity
from scripts.held_out import evaluation
from scripts.learning import cold_start, learning, updating
from scripts.policies import RunPolicy, actor_for, policy_of
from scripts.run_directory import alone, fork, inputs_of, load_or_build, open_run, require_same_inputs
from scripts.report import print_summary, tell, write_report
from scripts.synthesize import author_of, teller

HALTED = 3  # exit status: stopped after saving, because a number was not finite


def main() -> None:
    parser = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False
    )  # --help is the config's: it lists every key
    parser.add_argument("--config", help="a Python file that ends in CONFIG = Config(...)")
    parser.add_argument("--resume", action="store_true", help="continue the run in the config's run_dir")
    parser.add_argument("--resume-step", type=int, metavar="N", help="continue it from the checkpoint of step N")
    parser.add_argument("--fork", metavar="NEW", help="begin the run directory NEW from the checkpoint of --from")
    parser.add_argument("--from", dest="source", metavar="RUN@STEP")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="of several processes; auto: asks the cluster")
    parser.add_argument("--num-processes", type=int)
    parser.add_argument("--process-id", type=int)
    arguments, overrides = parser.parse_known_args()
    if arguments.config is None:
        sys.exit(f"{__doc__}\n--config is missing; with it, --help lists every setting.")
    terminal.outlive_output()
    console = Console()
    try:
        config = configuration.load_config(arguments.config, overrides)
        if arguments.coordinator is not None:
            processes.start(arguments.coordinator, arguments.num_processes, arguments.process_id)
            processes.require_same(settings_of(config, arguments))
        forked = arguments.fork is not None or arguments.source is not None
        if forked:
            config = begin_fork(config, arguments.fork, arguments.source)
        resume = forked or arguments.resume or arguments.resume_step is not None
        run(config, resume=resume, step=arguments.resume_step, console=console)
    except Stopped as stopped:
        terminal.say(console, stopped)
        sys.exit(stopped.status)
    except (ConfigError, checkpoint.CheckpointError, ValueError, OSError) as error:
        terminal.refuse(console, error)
        sys.exit(2)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        plan = f"python -m scripts.plan --config {arguments.config} --topology v5e:8x8"
        sentence = f"out of memory ({str(error).splitlines()[0]}); what fits a TPU slice, and what to change: {plan}"
        terminal.refuse(console, sentence)
        sys.exit(2)


def settings_of(config: Config, arguments: argparse.Namespace) -> dict[str, Any]:
    """What all processes of a run must have in common; a run directory may have another path on each host."""
    ways = {"--resume": arguments.resume, "--resume-step": arguments.resume_step, "--from": arguments.source}
    settings = {name: value for name, value in configuration.resolved(config).items() if name != "run_dir"}
    return settings | ways | {"installed": processes.versions()}


class Stopped(Exception):
    """The run was saved before its end; `status` is what the process exits with."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


def begin_fork(config: Config, new: str | None, source: str | None) -> Config:
    run_dir, at, step = (source or "").rpartition("@")
    if not (new and at and run_dir and step.isdecimal()):
        raise ConfigError("a fork needs both --fork NEW and --from RUN@STEP")
    config = replace(config, run_dir=new)
    processes.on_first(partial(fork, config, Path(run_dir), int(step)))
    return config


def run(config: Config, *, resume: bool, console: Console, step: int | None = None) -> dict[str, Any]:
    """Trains to the end; then the report, which is returned. Stopped: it was saved before its end."""
    advance(config, resume=resume, console=console, at=step)
    return processes.on_first(partial(report, config, console))


def report(config: Config, console: Console) -> dict[str, Any]:
    directory = Path(config.run_dir)
    summary = write_report(directory)
    print_summary(summary, console)
    print_fidelity(write_fidelity(directory, config.domain()), console)
    tell(directory, summary, console)
    terminal.say(console, f"run directory: {directory}")
    return summary


def advance(config: Config, *, resume: bool, console: Console, at: int | None = None) -> None:
    """Cold start, or the latest checkpoint, or that of step `at`; then the loop to its end."""
    if config.flash_attention and (found := jax.default_backend()) != "tpu":
        raise ConfigError(f"flash_attention is a kernel for TPUs, and the devices found are of the kind {found}")
    directory, first = Path(config.run_dir), processes.is_first()
    console = console if first else Console(quiet=True)
    with contextlib.ExitStack() as stack:
        cache_compilations()
        domain = config.domain()
        require_hints(config, domain)

        def open_directory() -> None:
            if not resume:
                directory.mkdir(parents=True, exist_ok=True)
            stack.enter_context(alone(directory))
            open_run(config, directory, resume)
            load_or_build(config, domain, directory, console)

        processes.on_first(open_directory)
        tasks, tokenizer = load_or_build(config, domain, directory, console)
        codec = config.codec(tokenizer)
        inputs = inputs_of(directory, codec)
        own_workers = first and config.synthesis is not None and config.synthesis.workers > 0
        author = author_of(config.synthesis, domain, tasks) if own_workers else None
        say = teller(console)
        for sentence in check_start(config, tasks):
            say(sentence)
        lengths = processes.on_first(lambda: check_lengths(config, tasks, domain, codec, say))
        if first:
            write_atomically(directory / "lengths.json", strict_json.dumps(lengths, indent=1) + "\n")
        learner = policy_of(config, len(tokenizer))
        learn = learning(config, learner)

        checkpoints = stack.enter_context(checkpoint.open_checkpoints(directory / "checkpoints", config.retention))
        start_batch = stack.enter_context(episodes_of(config, domain))
        unfit = {task_id for room in ("held_out", "validation") for task_id in lengths.get(room, {}).get("unfit", ())}
        evaluate = evaluation(config, start_batch, learner, codec, len(tokenizer), unfit)
        if at is not None or checkpoints.latest_step() is not None:
            step, state, host = checkpoint.restore(checkpoints, learn.state, at, say)
            require_same_inputs(inputs, host["inputs"], directory)
            checkpoint.forget(checkpoints, step, config.retention)
            pool = replace(replay.from_json(host["replay"]), settings=config.replay)  # a fork's may be others
            start = Position(state, pool, step, host["epoch"], host["batch"], host["outcomes"])
            console.print(f"resumed at step {step}, epoch {start.epoch}")
        else:
            params = learner.policy.init(seed_key(config.seed))
            params = cold_start(config, domain, tasks, params, learner, codec, evaluate, directory, console)
            start = Position(learn.create(params), replay.create(tasks.seeds, config.replay))
            save(checkpoints, inputs, start, {})
        parts = checkpoint.sizes(start.train_state, host_of(start, inputs))
        sized = ", ".join(f"{name} {size / 1e6:.3g} MB" for name, size in parts.items() if size > 1000)
        console.print(f"a checkpoint holds {sized}", highlight=False, soft_wrap=True)
        kept = None if not resume else start.step or -1  # what lies beyond the checkpoint is written again
        write_metrics, write_trajectory, write_candidate = (
            stack.enter_context(open_metrics(directory / f"{name}.jsonl", kept) if first else nowhere())
            for name in ("metrics", "trajectories", "candidates")
        )
        display = stack.enter_context(
            training_display(console, num_epochs(config), config.rollout.tasks_per_step, start.step)
        )
        dispatch = None  # the first process alone has an author, or sends seeds to others
        if first:
            dispatch = stack.enter_context(synthesis_of(config, domain, tasks, author, start.outcomes, console))
        requested = stack.enter_context(stop_requests())
        if jax.default_backend() == "tpu":
            stack.enter_context(maintenance_notices())
        skipped: list[int] = []

        warn = warnings(say)

        def record(step: int, values: Mapping[str, Any]) -> None:
            values = {**values, **scores_apart(values, lengths)}
            write_metrics(step, values)
            display(step, values)
            warn(step, values)
            if values.get("skipped"):
                skipped.append(step)
                say(f"step {step} was skipped: a reward, a log-probability or a gradient was not finite")

        def halted() -> bool:
            return bool(skipped) and config.update.on_nonfinite == "stop"

        def evaluate_all(params: Any, step: int) -> dict[str, float]:
            """Reported scores, and those that the best checkpoint is chosen by: never the same tasks."""
            chosen_by = tasks.validation if config.retention.best else ()
            validation = evaluate(params, chosen_by, step, "validation", greedy=False)
            return evaluate(params, tasks.held_out, step, "held_out") | validation

        stages = Stages(
            collect=collector(config, start_batch, learner, codec, len(tokenizer)),
            update=updating(config, learner, learn),
            synthesize=partial(heard_by_all, dispatch),
            renew=learn.renew,
            evaluate=evaluate_all,
            record=record,
            show=shower(write_trajectory, write_candidate),
            save=partial(save, checkpoints, inputs),
            stop=lambda: any(processes.gather(requested.is_set())) or halted(),
        )
        step = train(config, tasks.seeds, tasks.held_out, stages, start).step
        checkpoints.wait_until_finished()
        if halted():
            raise Stopped(HALTED, f"stopped at step {step}, which is saved: step {skipped[0]} was not finite")
        if any(processes.gather(requested.is_set())):
            raise Stopped(SAVED, f"stopped by a signal at step {step}, which is saved: continue with --resume")


@contextlib.contextmanager
def nowhere() -> Iterator[MetricWriter]:
    """A writer of a process that owns no files."""
    yield lambda step, values: None


def cache_compilations() -> None:
    jax.config.update("jax_compilation_cache_dir", str(Path(".cache/jax").absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


# ---------------------------------------------------------------------------- what is written down
def save(checkpoints: Any, inputs: Mapping[str, str], position: Position, metrics: Mapping[str, float]) -> None:
    checkpoint.save(checkpoints, position.step, position.train_state, host_of(position, inputs), metrics)


def host_of(position: Position, inputs: Mapping[str, str]) -> dict[str, Any]:
    """All of a position that is no array, and the digests of what else a resumed run reads."""
    place = {name: getattr(position, name) for name in ("epoch", "batch", "outcomes")}
    return {"replay": replay.to_json(position.replay), "inputs": dict(inputs)} | place


def shower(write_trajectory: MetricWriter, write_candidate: MetricWriter):
    """Keeps what one may want to read: a few trajectories every ten steps, and what became of every seed."""

    def show(step: int, rollouts: Rollouts, dispatches: Sequence[Dispatch]) -> None:
        if step % 10 == 1:
            for trajectory in rollouts.trajectories[:: max(1, len(rollouts.trajectories) // 4)]:
                write_trajectory(step, asdict(trajectory))
        for seed, dispatched, result in dispatches:
            candidate = result.candidate and task_to_json(result.candidate)
            origin = {"seed": seed.id, "dispatched": dispatched + 1}  # records count steps from 1
            write_candidate(step, origin | asdict(result) | {"candidate": candidate})

    return show


# ------------------------------------------------------------------------------------ the stages
def collector(config: Config, start: Callable[..., EpisodeBatch], learner: RunPolicy, codec, num_tokens: int):
    share = config.rollout.tasks_per_step // jax.process_count()
    slots = min(config.rollout.concurrent_tasks or share, share)

    @functools.cache  # stages with the same lengths share what is compiled
    def player_of(sizes: RolloutConfig) -> Player:
        actor = actor_for(config, learner, sizes.concurrent_rollouts or sizes.group_size)
        return player(actor, codec, sizes, slots=slots, num_tokens=num_tokens)

    def collect_step(params, tasks: Sequence[Task], step: int, stage: StageConfig) -> Rollouts:
        sizes = rollout_of(config, stage)
        rollouts = collect(
            learner.whole(params),
            processes.share_of(tasks),
            player_of(sizes),
            start=partial(start, rules=rules_of(config, stage)),
            seed=config.seed,
            step=step,
            reward=stage.reward,
        )
        longest = int(rollouts.batch.suffix_lengths_NG.max())
        lengths, failed, truncated = zip(*processes.gather((longest, rollouts.failed, rollouts.truncated)))
        batch = trim(rollouts.batch, (*sizes.suffix_sizes, sizes.max_suffix_tokens), max(lengths))
        return rollouts._replace(batch=batch, failed=sum(failed), truncated=sum(truncated))

    return collect_step


@contextlib.contextmanager
def episodes_of(config: Config, domain: Domain) -> Iterator[Callable[..., EpisodeBatch]]:
    """Where episodes live, in this process or in workers: (tasks, rules of the batch if not the run's) -> episodes."""
    rules = rules_of(config)
    if config.rollout.environment_workers:
        with Workers(config.domain, rules, num_workers=config.rollout.environment_workers) as workers:
            yield workers.start
    else:
        yield partial(start_episodes, domain, rules=rules)


@contextlib.contextmanager
def synthesis_of(
    config: Config, domain: Domain, tasks: TaskSplits, author: Author | None, taken: int, console: Console
) -> Iterator[Synthesize]:
    """The rule-based author, at once; or `author`, or that of other processes, beside the trainer."""
    if config.synthesis is None:
        roles = RULE_BASED._replace(gates=(*RULE_BASED.gates, far_from(tasks.held_out)))
        yield at_once(partial(synthesize, domain, roles=roles), config.seed)
        return
    directory, say = Path(config.run_dir) / "synthesis", teller(console)
    with contextlib.ExitStack() as stack:
        dispatch = stack.enter_context(beside(directory, config.seed, taken=taken, tell=say))
        if author is not None:
            stack.enter_context(working(directory, author, workers=config.synthesis.workers, tell=say))
        yield dispatch


def heard_by_all(dispatch: Synthesize | None, *seeds) -> list[Dispatch]:
    """What the first process's `dispatch` brings, in every process; the others have none."""
    records = processes.on_first(lambda: [dispatch_to_json(settled) for settled in dispatch(*seeds)])
    return [dispatch_from_json(record) for record in records]


if __name__ == "__main__":
    main()
