"""A run, from its configuration to its report.

    from rods_jax import run

    run.train(CONFIG)                                   begins in CONFIG.run_dir
    run.train(CONFIG, resume=True)                      goes on there, as if it had never stopped
    run.train(CONFIG, resume=True, step=40)             from an earlier checkpoint; what lies beyond is written again
    run.train(replace(CONFIG, run_dir="runs/new"), source=("runs/old", 40))      a fork, with other settings

The run directory gets config.json, metrics.jsonl, tasks/, tokenizer/, checkpoints/, trajectories.jsonl,
candidates.jsonl, plots/, summary.json, fidelity.json, synthesis/ where an author works beside it, and dashboards.json where
the configuration has writers.  Everything that computes is elsewhere: this file only wires the rooms together.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console

from rods_jax import checkpoint, dashboards, files, loop, processes, replay, strict_json, terminal
from rods_jax.checks import check_devices, check_start
from rods_jax.config import Config
from rods_jax.curriculum import require_hints
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.keys import seed_key
from rods_jax.lengths import check_lengths, scores_apart
from rods_jax.loop import Position, Stages
from rods_jax.metrics import MetricWriter, open_metrics
from rods_jax.preemption import HALTED, SAVED, Stopped, maintenance_notices, stop_requests
from rods_jax.run import directory as place
from rods_jax.run import positions
from rods_jax.run.authors import author_of, teller
from rods_jax.run.cold_start import cold_start
from rods_jax.run.directory import Inputs, inputs_of, require_same_inputs
from rods_jax.run.display import training_display, warnings
from rods_jax.run.forecast import forecast, sentences
from rods_jax.run.learner import Learner, frozen_inputs
from rods_jax.run.learning import Learning, cache_compilations, learning, updating
from rods_jax.run.measure import evaluation
from rods_jax.run.profile import profiled
from rods_jax.run.reporting import report
from rods_jax.run.speed import peak_of, speeds
from rods_jax.run.stages import collector, episodes_of, heard_by_all, shower, synthesis_of, with_rollouts_where_read
from rods_jax.synthesis.author import Author
from rods_jax.synthesis.courier.dispatch import Synthesize
from rods_jax.types import Codec, Json


def train(
    config: Config,
    *,
    resume: bool = False,
    step: int | None = None,
    source: tuple[str | Path, int] | None = None,
    console: Console | None = None,
    profile: int | None = None,
) -> dict[str, Any]:
    """Trains to the end; then the report, whose summary is returned. Stopped: it was saved before its end.

    resume: goes on with the run in `config.run_dir`, from its latest checkpoint, or from that of `step`.
    source: (run directory, step) that a new run in `config.run_dir` goes on from, with other settings.
    profile: the step that a trace is written of, into `profile/`.
    ConfigError, FolderError, CheckpointError, ImportError: refused, before anything is touched.
    """
    console = console or Console()
    cache_compilations()
    resume = resume or source is not None or step is not None
    advance(config, resume=resume, console=console, at=step, profile=profile, source=source)
    return processes.on_first(partial(report, config.run_dir, config.domain(), console, finished=True))


# ------------------------------------------------------------------------------------- from start to end
def advance(
    config: Config,
    *,
    resume: bool,
    console: Console,
    at: int | None = None,
    profile: int | None = None,
    source: tuple[str | Path, int] | None = None,
) -> None:
    """Cold start, or the latest checkpoint, or that of step `at`; then the loop to its end."""
    boards = dashboards.prepared(config)
    with contextlib.ExitStack() as stack:
        run = enter(config, resume, source, console, stack)
        checkpoints = stack.enter_context(checkpoint.open_checkpoints(run.directory / "checkpoints", config.retention))
        start_batch = stack.enter_context(episodes_of(config, run.domain))
        evaluate = evaluation(config, start_batch, run.learner, run.codec, len(run.tokenizer), run.unfit)
        requested = stack.enter_context(stop_requests(config.stop_seconds))
        if jax.default_backend() == "tpu":
            stack.enter_context(maintenance_notices())

        def asked_to_stop() -> bool:
            return any(processes.gather(requested.is_set()))

        # Where it begins, and what of the logs belongs to that.
        if at is not None or checkpoints.latest_step() is not None:
            start = restored(run, checkpoints, at)
        else:
            start = begun(run, checkpoints, evaluate, asked_to_stop)
        processes.on_first(partial(place.has_begun, run.directory))
        tell_sizes(run, start)
        kept = None if not resume else start.step or -1  # what lies beyond the checkpoint is written again
        write_metrics, write_trajectory, write_candidate = (
            stack.enter_context(open_metrics(run.directory / name, kept) if run.first else nowhere())
            for name in place.LOGS
        )
        show_elsewhere = stack.enter_context(
            dashboards.shown(boards, run.directory, run.say) if run.first else nowhere()
        )
        display = stack.enter_context(training_display(run.console, config, start))
        dispatch: Synthesize = lambda *orders: ()  # the first process alone has an author, or sends orders to others
        if run.first:
            dispatch = stack.enter_context(
                synthesis_of(config, run.domain, run.tasks, run.author, start.outcomes, run.console)
            )
        skipped: list[int] = []
        warn, peak = warnings(run.say), peak_of(run.learner)

        def record(step: int, values: Mapping[str, Any]) -> None:
            values = {**values, **scores_apart(values, run.lengths), **speeds(values, peak)}
            write_metrics(step, values)
            display(step, values)
            warn(step, values)
            show_elsewhere(step, values)
            if values.get("skipped"):
                skipped.append(step)
                run.say(f"step {step} was skipped: a reward, a log-probability or a gradient was not finite")

        def halted() -> bool:
            return bool(skipped) and config.update.on_nonfinite == "stop"

        def evaluate_all(params: Any, step: int) -> dict[str, float]:
            """Reported scores, and those that the best checkpoint is chosen by: never the same tasks."""
            chosen_by = run.tasks.validation if config.retention.best else ()
            validation = evaluate(params, chosen_by, step, "validation", greedy=False)
            return evaluate(params, run.tasks.held_out, step, "held_out") | validation

        stages = Stages(
            collect=collector(config, start_batch, run.learner, run.codec, len(run.tokenizer)),
            update=updating(run.learner, run.learn, config.rollout.temperature),
            synthesize=with_rollouts_where_read(partial(heard_by_all, dispatch), config),
            renew=run.learn.renew,
            evaluate=evaluate_all,
            record=record,
            show=shower(write_trajectory, write_candidate, run.codec.decode),
            save=partial(positions.save_position, checkpoints, inputs=run.inputs),
            stop=lambda: asked_to_stop() or halted(),
        )
        if profile is not None and run.first:
            stages = profiled(stages, profile, run.directory / "profile", run.say)
        step = loop.train(config, tuple(run.domain.strata), run.tasks.seeds, run.tasks.held_out, stages, start).step
        checkpoints.wait_until_finished()
        if profile is not None and not start.step < profile <= step:
            run.say(f"no trace was written: step {profile} is none of the steps {start.step + 1} to {step} of this run")
        if halted():
            raise Stopped(HALTED, f"stopped at step {step}, which is saved: step {skipped[0]} was not finite")
        if asked_to_stop():
            raise Stopped(SAVED, f"stopped by a signal at step {step}, which is saved: continue with --resume")


class Run(NamedTuple):
    """What a run is made of, once nothing more can be refused."""

    config: Config
    directory: Path
    console: Console  # quiet in all processes but the first
    first: bool  # whether this process owns the files
    domain: Domain
    tasks: TaskSplits
    tokenizer: Any
    codec: Codec
    inputs: Mapping[str, str]  # digests of what a checkpoint relies on
    lengths: Mapping[str, Json]  # what `check_lengths` found
    learner: Learner
    learn: Learning
    author: Author | None  # of variants, in this process

    def say(self, sentence: str) -> None:
        teller(self.console)(sentence)

    @property
    def unfit(self) -> set[str]:
        """Tasks of the evaluations that the limits cannot hold."""
        parts = ("held_out", "validation")
        return {task_id for part in parts for task_id in self.lengths.get(part, {}).get("unfit", ())}


def enter(
    config: Config,
    resume: bool,
    source: tuple[str | Path, int] | None,
    console: Console,
    stack: contextlib.ExitStack,
) -> Run:
    """Builds or reads what the run is made of, checks it, and takes the directory, held until the stack ends.

    A start that is refused has touched nothing, so that it is simply repeated.
    """
    check_devices(config)
    directory, first = Path(config.run_dir), processes.is_first()
    fork = None if source is None else (Path(source[0]), source[1])
    console = console if first else Console(quiet=True)
    make_learner = config.learner(config)  # what is not there is said before anything is built
    domain, say = place.world(config), teller(console)
    seen: list[Inputs] = []  # one in the first process; all others read it when it is written
    author: Author | None = None  # in the first process too
    require_hints(config, domain)

    def look() -> tuple[bool, int, dict[str, Any]]:
        nonlocal author
        begins, inputs = place.look(config, domain, directory, resume, fork, console, stack)
        seen.append(inputs)
        for sentence in check_start(config, inputs.tasks, domain):
            say(sentence)
        lengths = check_lengths(config, inputs.tasks, domain, config.codec(inputs.tokenizer), say)
        if config.synthesis is not None and config.synthesis.workers > 0:
            author = author_of(config.synthesis, domain, inputs.tasks)
        return begins, len(inputs.tokenizer), lengths

    begins, vocab_size, lengths = processes.on_first(look)
    learner = make_learner(vocab_size)
    learn = learning(config, learner, tuple(domain.strata))
    if begins and first:
        for sentence in sentences(forecast(config, seen[0].tasks, domain, learner, learn, lengths)):
            terminal.say(console, sentence)
    if begins:
        processes.on_first(lambda: place.take(config, seen[0], directory, stack))
    if fork is not None:
        processes.on_first(lambda: place.fork(config, *fork))
        processes.on_first(lambda: stack.enter_context(place.alone(directory)))
    tasks, tokenizer = place.read_inputs(directory)
    codec = config.codec(tokenizer)
    if first:
        files.write_atomically(directory / "lengths.json", strict_json.dumps(lengths, indent=1) + "\n")
    inputs = inputs_of(directory, codec) | frozen_inputs(learner)
    return Run(
        config, directory, console, first, domain, tasks, tokenizer, codec, inputs, lengths, learner, learn, author
    )


def restored(run: Run, checkpoints: Any, at: int | None) -> Position:
    """The latest checkpoint's position, or that of step `at`."""
    start, inputs = positions.restore_position(checkpoints, run.learn.state, run.config.replay, at, run.say)
    require_same_inputs(run.inputs, inputs, run.directory)
    if at is not None:  # later checkpoints go: not where a record that the start reads next would refuse it
        processes.on_first(partial(place.require_readable, run.directory))
    checkpoint.forget(checkpoints, start.step, run.config.retention)
    terminal.say(run.console, f"resumed at step {start.step}, epoch {start.epoch}")
    return start


def begun(run: Run, checkpoints: Any, evaluate: Callable[..., Any], stop: Callable[[], bool]) -> Position:
    """The position of step 0, after the cold start; it is saved before any log has a line."""
    config, learner = run.config, run.learner
    params = learner.policy.init(seed_key(config.seed))
    params = cold_start(
        config,
        run.domain,
        run.tasks,
        params,
        learner,
        run.codec,
        evaluate,
        run.directory,
        run.inputs,
        stop,
        run.console,
    )
    start = Position(run.learn.create(params), replay.create(run.tasks.seeds, config.replay))
    positions.save_position(checkpoints, start, inputs=run.inputs)
    checkpoints.wait_until_finished()
    return start


def tell_sizes(run: Run, start: Position) -> None:
    parts = checkpoint.sizes(start.train_state, positions.host_of(start, run.inputs))
    sized = ", ".join(f"{name} {size / 1e6:.3g} MB" for name, size in parts.items() if size > 1000)
    terminal.say(run.console, f"a checkpoint holds {sized}")


@contextlib.contextmanager
def nowhere() -> Iterator[MetricWriter]:
    """A writer of a process that owns no files."""
    yield lambda step, values: None
