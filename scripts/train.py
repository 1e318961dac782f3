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

import contextlib
import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
from rich.console import Console

from models.families import Pretrained, read_config
from rods_jax import checkpoint, files, processes, replay, strict_json, terminal
from rods_jax import config as configuration
from rods_jax.checks import check_start
from rods_jax.config import Config, ConfigError, RolloutConfig, StageConfig, rollout_of
from rods_jax.curriculum import num_epochs, require_hints, rules_of
from rods_jax.environments.episode import EpisodeBatch, start_episodes
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.environments.workers import Workers
from rods_jax.keys import seed_key
from rods_jax.lengths import check_lengths, scores_apart
from rods_jax.loop import Position, Stages, train
from rods_jax.metrics import MetricWriter, open_metrics
from rods_jax.preemption import SAVED, Stopped, maintenance_notices, stop_requests
from rods_jax.rollout import Player, Rollouts, collect, trim
from rods_jax.synthesis.dispatch import (
    Dispatch,
    Synthesize,
    at_once,
    beside,
    dispatch_from_json,
    dispatch_to_json,
)
from rods_jax.synthesis.near_duplicates import far_from
from rods_jax.synthesis.pipeline import RULE_BASED, synthesize
from rods_jax.synthesis.worker import Author, working
from rods_jax.task_files import task_to_json
from rods_jax.types import Task
from scripts import run_directory
from scripts.commands import options_of, require_limits, running
from scripts.display import training_display, warnings
from scripts.fidelity import print_fidelity, write_fidelity
from scripts.held_out import evaluation
from scripts.learning import cold_start, learning, updating
from scripts.playing import training_player
from scripts.policies import RunPolicy, policy_of
from scripts.report import print_summary, tell, write_report
from scripts.run_directory import Inputs, fork, inputs_of, require_same_inputs
from scripts.synthesize import author_of, teller

HALTED = 3  # exit status: stopped after saving, because a number was not finite


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
    coordinator: str | None = None
    """HOST:PORT of the first of several processes; auto: asks the cluster (docs/launch.md)"""
    num_processes: int | None = None
    """how many they are"""
    process_id: int | None = None
    """which of them this is, from 0"""


def main() -> None:
    console = Console()
    config_file = next((b for a, b in itertools.pairwise(sys.argv) if a == "--config"), "CONFIG")
    plan = f"python -m scripts.plan --config {config_file} --topology v5e:8x8"
    with running(console, f"; what fits a TPU slice, and what to change: {plan}"):
        options, config = options_of(Options, "python -m scripts.train", __doc__)
        require_limits()
        if options.coordinator is not None:
            processes.start(options.coordinator, options.num_processes, options.process_id)
            processes.require_same(settings_of(config, options))
        forked = options.fork is not None or options.source is not None
        if forked:
            config = begin_fork(config, options.fork, options.source)
        resume = forked or options.resume or options.resume_step is not None
        run(config, resume=resume, step=options.resume_step, console=console)


def settings_of(config: Config, options: Options) -> dict[str, Any]:
    """What all processes of a run must have in common; a run directory may have another path on each host."""
    ways = {"--resume": options.resume, "--resume-step": options.resume_step, "--from": options.source}
    settings = {
        name: value for name, value in configuration.resolved(config).items() if name not in ("run_dir", "file")
    }
    return settings | ways | {"installed": processes.versions()}


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
        if isinstance(config.model, Pretrained):
            read_config(config.model.directory)  # what is not there is said before anything is built
        domain, say = config.domain(), teller(console)
        seen: Inputs | None = None  # in the first process; all others read them when they are written
        require_hints(config, domain)

        def look() -> tuple[bool, int, dict[str, Any]]:
            nonlocal seen
            begins, seen = run_directory.look(config, domain, directory, resume, console, stack)
            for sentence in check_start(config, seen.tasks):
                say(sentence)
            lengths = check_lengths(config, seen.tasks, domain, config.codec(seen.tokenizer), say)
            return begins, len(seen.tokenizer), lengths

        # The directory is taken when nothing more can be refused: a start that was refused is simply repeated.
        begins, vocab_size, lengths = processes.on_first(look)
        learner = policy_of(config, vocab_size)
        learn = learning(config, learner)
        own_workers = first and config.synthesis is not None and config.synthesis.workers > 0
        author = author_of(config.synthesis, domain, seen.tasks) if own_workers else None
        if begins:
            processes.on_first(lambda: run_directory.take(config, seen, directory, stack))
        tasks, tokenizer = run_directory.read(directory)
        codec = config.codec(tokenizer)
        inputs = inputs_of(directory, codec)
        if first:
            files.write_atomically(directory / "lengths.json", strict_json.dumps(lengths, indent=1) + "\n")

        checkpoints = stack.enter_context(checkpoint.open_checkpoints(directory / "checkpoints", config.retention))
        start_batch = stack.enter_context(episodes_of(config, domain))
        unfit = {task_id for room in ("held_out", "validation") for task_id in lengths.get(room, {}).get("unfit", ())}
        evaluate = evaluation(config, start_batch, learner, codec, len(tokenizer), unfit)
        requested = stack.enter_context(stop_requests())
        if jax.default_backend() == "tpu":
            stack.enter_context(maintenance_notices())

        def asked_to_stop() -> bool:
            return any(processes.gather(requested.is_set()))

        if at is not None or checkpoints.latest_step() is not None:
            step, state, host = checkpoint.restore(checkpoints, learn.state, at, say)
            require_same_inputs(inputs, host["inputs"], directory)
            checkpoint.forget(checkpoints, step, config.retention)
            pool = replace(replay.from_json(host["replay"]), settings=config.replay)  # a fork's may be others
            start = Position(state, pool, step, host["epoch"], host["batch"], host["outcomes"])
            terminal.say(console, f"resumed at step {step}, epoch {start.epoch}")
        else:
            params = learner.policy.init(seed_key(config.seed))
            params = cold_start(
                config, domain, tasks, params, learner, codec, evaluate, directory, inputs, asked_to_stop, console
            )
            start = Position(learn.create(params), replay.create(tasks.seeds, config.replay))
            save(checkpoints, inputs, start, {})
            checkpoints.wait_until_finished()  # before any log has a line
        processes.on_first(partial(run_directory.has_begun, directory))
        parts = checkpoint.sizes(start.train_state, host_of(start, inputs))
        sized = ", ".join(f"{name} {size / 1e6:.3g} MB" for name, size in parts.items() if size > 1000)
        terminal.say(console, f"a checkpoint holds {sized}")
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
            stop=lambda: asked_to_stop() or halted(),
        )
        step = train(config, tasks.seeds, tasks.held_out, stages, start).step
        checkpoints.wait_until_finished()
        if halted():
            raise Stopped(HALTED, f"stopped at step {step}, which is saved: step {skipped[0]} was not finite")
        if asked_to_stop():
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
    @functools.cache  # stages with the same lengths share what is compiled
    def player_of(sizes: RolloutConfig) -> Player:
        return training_player(config, learner, codec, sizes, num_tokens)

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
