"""Trains a policy with RODS: the one command.

    python -m scripts.train --config configs/quickstart.py [--rollout.group-size 4 ...]
    ... --resume                                    from the latest checkpoint, as if it had never stopped
    ... --resume-step 40                            from an earlier one; what lies beyond is written again
    ... --fork runs/new --from runs/old@40          a new run that goes on from there, with other settings

SIGTERM or Ctrl-C: it saves after the step and exits with 75; a second one ends it at once. Other exits: 0 done,
2 refused (the message says why), 3 stopped after saving because a number was not finite.
The run directory gets config.json, metrics.jsonl, tasks/, tokenizer/, checkpoints/, trajectories.jsonl,
candidates.jsonl, plots/, summary.json, fidelity.json, and synthesis/ where language models write.  Left out on
purpose: everything that computes; this file only wires the rooms together.
"""

import argparse
import contextlib
import json
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.markup import escape

from rods_jax import checkpoint, config as configuration, grpo, replay, supervised
from rods_jax.config import Config, ConfigError, StageConfig
from rods_jax.demonstrations import demonstrate
from rods_jax.environments.episode import StartEpisodes, start_episodes
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.environments.scoring import RODS
from rods_jax.environments.workers import Workers
from rods_jax.generation import Sampling, generator
from rods_jax.curriculum import num_epochs
from rods_jax.loop import Position, Stages, train
from rods_jax.metrics import MetricWriter, open_metrics
from rods_jax.preemption import SAVED, stop_requests
from rods_jax.rewards import progress_reward
from rods_jax.rollout import Limits, Rollouts, collect, trim
from rods_jax.sharding import micro_batch_cuts
from rods_jax.synthesis.near_duplicates import far_from
from rods_jax.synthesis.dispatch import Dispatch, Synthesize, at_once, beside
from rods_jax.synthesis.pipeline import RULE_BASED, synthesize
from rods_jax.synthesis.worker import Author, working
from rods_jax.task_files import task_to_json, write_atomically
from rods_jax.types import Policy, Task
from scripts.display import cold_start_display, training_display
from scripts.fidelity import print_fidelity, write_fidelity
from scripts.policies import RunPolicy, complete, policy_of
from scripts.run_directory import alone, fork, inputs_of, load_or_build, open_run, require_same_inputs
from scripts.report import print_summary, tell, write_report
from scripts.synthesize import author_of, teller

HALTED = 3  # exit status: stopped after saving, because a number was not finite
COLD_START, EVALUATION = 1 << 30, 1 << 29  # bits of the step that keep their noise apart from training's


def main() -> None:
    parser = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False
    )  # --help is the config's: it lists every key
    parser.add_argument("--config", help="a Python file that ends in CONFIG = Config(...)")
    parser.add_argument("--resume", action="store_true", help="continue the run in the config's run_dir")
    parser.add_argument("--resume-step", type=int, metavar="N", help="continue it from the checkpoint of step N")
    parser.add_argument("--fork", metavar="NEW", help="begin the run directory NEW from the checkpoint of --from")
    parser.add_argument("--from", dest="source", metavar="RUN@STEP")
    arguments, overrides = parser.parse_known_args()
    if arguments.config is None:
        sys.exit(f"{__doc__}\n--config is missing; with it, --help lists every setting.")
    console = Console()
    try:
        config = configuration.load_config(arguments.config, overrides)
        forked = arguments.fork is not None or arguments.source is not None
        if forked:
            config = begin_fork(config, arguments.fork, arguments.source)
        resume = forked or arguments.resume or arguments.resume_step is not None
        run(config, resume=resume, step=arguments.resume_step, console=console)
    except Stopped as stopped:
        console.print(stopped, highlight=False)
        sys.exit(stopped.status)
    except (ConfigError, checkpoint.CheckpointError, ValueError, OSError) as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)
        sys.exit(2)


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
    fork(config, Path(run_dir), int(step))
    return config


def run(config: Config, *, resume: bool, console: Console, step: int | None = None) -> dict[str, Any]:
    """Trains to the end; then the report, which is returned. Stopped: it was saved before its end."""
    advance(config, resume=resume, console=console, at=step)
    directory = Path(config.run_dir)
    summary = write_report(directory)
    print_summary(summary, console)
    print_fidelity(write_fidelity(directory, config.domain()), console)
    tell(directory, summary, console)
    console.print(f"run directory: {directory}", highlight=False)
    return summary


def advance(config: Config, *, resume: bool, console: Console, at: int | None = None) -> None:
    """Cold start, or the latest checkpoint, or that of step `at`; then the loop to its end."""
    directory = Path(config.run_dir)
    if not resume:
        directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(alone(directory))
        open_run(config, directory, resume)
        cache_compilations()
        domain = config.domain()
        tasks, tokenizer = load_or_build(config, domain, directory, console)
        codec = config.codec(tokenizer)
        inputs = inputs_of(directory, codec)
        own_workers = config.synthesis is not None and config.synthesis.workers > 0
        author = author_of(config.synthesis, domain, tasks) if own_workers else None
        learner = policy_of(config, len(tokenizer))
        policy, whole = learner.policy, learner.whole
        objective, optimizer = objective_of(config), optimizer_of(config)
        say = teller(console)

        r = config.retention
        checkpoints = stack.enter_context(
            checkpoint.open_checkpoints(
                directory / "checkpoints", keep=r.latest, every=r.every, best=r.best, by="held_out_progress"
            )
        )
        start_batch = stack.enter_context(episodes_of(config, domain))
        evaluate = evaluation(config, start_batch, policy, codec)
        params = policy.init(jax.random.key(config.seed))
        start = Position(
            grpo.create_state(params, optimizer, objective), replay.create(tasks.seeds, config.replay)
        )
        if at is not None or checkpoints.latest_step() is not None:
            step, state, host = checkpoint.restore(checkpoints, start.train_state, at, say)
            require_same_inputs(inputs, host["inputs"], directory)
            checkpoint.forget_after(checkpoints, step)
            pool = replace(replay.from_json(host["replay"]), settings=config.replay)  # a fork's may be others
            start = Position(state, pool, step, host["epoch"], host["batch"], host["outcomes"])
            console.print(f"resumed at step {step}, epoch {start.epoch}")
        else:
            params = cold_start(config, domain, tasks, params, policy, codec, evaluate, directory, console)
            start = replace(start, train_state=grpo.create_state(params, optimizer, objective))
            save(checkpoints, inputs, start, {})
        parts = checkpoint.sizes(start.train_state, host_of(start, inputs))
        sized = ", ".join(f"{name} {size / 1e6:.3g} MB" for name, size in parts.items() if size > 1000)
        console.print(f"a checkpoint holds {sized}", highlight=False, soft_wrap=True)
        kept = None if not resume else start.step or -1  # what lies beyond the checkpoint is written again
        write_metrics, write_trajectory, write_candidate = (
            stack.enter_context(open_metrics(directory / f"{name}.jsonl", kept))
            for name in ("metrics", "trajectories", "candidates")
        )
        display = stack.enter_context(
            training_display(console, num_epochs(config), config.rollout.tasks_per_step, start.step)
        )
        dispatch = stack.enter_context(synthesis_of(config, domain, tasks, author, start.outcomes, console))
        requested = stack.enter_context(stop_requests())
        skipped: list[int] = []

        def record(step: int, values: Mapping[str, Any]) -> None:
            write_metrics(step, values)
            display(step, values)
            if values.get("skipped"):
                skipped.append(step)
                say(f"step {step} was skipped: a reward, a log-probability or a gradient was not finite")

        def halted() -> bool:
            return bool(skipped) and config.update.on_nonfinite == "stop"

        stages = Stages(
            collect=collector(config, start_batch, learner, codec),
            update=updater(config, learner, optimizer, objective),
            synthesize=dispatch,
            renew=lambda state: grpo.create_state(state.params, optimizer, objective),
            evaluate=lambda params, step: evaluate(whole(params), tasks.held_out, step),
            record=record,
            show=shower(write_trajectory, write_candidate),
            save=partial(save, checkpoints, inputs),
            stop=lambda: requested.is_set() or halted(),
        )
        step = train(config, tasks.seeds, tasks.held_out, stages, start).step
        checkpoints.wait_until_finished()
        if halted():
            raise Stopped(HALTED, f"stopped at step {step}, which is saved: step {skipped[0]} was not finite")
        if requested.is_set():
            raise Stopped(SAVED, f"stopped by a signal at step {step}, which is saved: continue with --resume")


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
def objective_of(config: Config) -> grpo.Objective:
    u = config.update
    return grpo.Objective(
        ratio=u.ratio,
        aggregate=u.aggregate,
        normalize=u.normalize,
        clip_low=u.clip_low,
        clip_high=u.clip_high,
        dual_clip=u.dual_clip,
        kl_coefficient=u.kl_coefficient,
        entropy_coefficient=u.entropy_coefficient,
        signal=u.signal,
        lower=config.replay.lower,
        upper=config.replay.upper,
        quotas=u.quotas,
    )


def optimizer_of(config: Config):
    u = config.update
    return grpo.create_optimizer(
        u.learning_rate, warmup_steps=u.warmup_steps, max_grad_norm=u.max_grad_norm, weight_decay=u.weight_decay
    )


def collector(config: Config, start: StartEpisodes, learner: RunPolicy, codec):
    r = config.rollout
    generate = generator(
        learner.policy,
        stop_token=codec.stop_token,
        group_size=r.group_size,
        suffix_capacity=r.max_suffix_tokens,
        max_action_tokens=r.max_action_tokens,
    )

    def collect_step(params, tasks: Sequence[Task], step: int, stage: StageConfig) -> Rollouts:
        return collect(
            learner.whole(params),
            tasks,
            start=start,
            codec=codec,
            generator=generate,
            group_size=r.group_size,
            limits=limits_of(config),
            sampling=Sampling(r.temperature, r.top_p, r.top_k),
            seed=config.seed,
            step=step,
            reward=stage.reward,
            concurrent_tasks=r.concurrent_tasks or None,
        )

    return collect_step


def updater(config: Config, learner: RunPolicy, optimizer, objective):
    r, u = config.rollout, config.update
    cuts = micro_batch_cuts(u.micro_batches, r.tasks_per_step, r.group_size, config.mesh or (1, 1, 1, 1))
    update = grpo.jit_update(learner.policy, optimizer, objective, complete, cuts=cuts, place=learner.place)
    sizes = (*r.suffix_sizes, r.max_suffix_tokens)
    return lambda state, batch: update(state, trim(batch, sizes), r.temperature, *learner.frozen)


def evaluation(config: Config, start: StartEpisodes, policy: Policy, codec):
    """(params, tasks, step) -> mean progress reward of the first tasks, sampled and greedy, and by category."""
    generate = generator(
        policy,
        stop_token=codec.stop_token,
        group_size=1,
        suffix_capacity=config.rollout.max_suffix_tokens,
        max_action_tokens=config.rollout.max_action_tokens,
    )

    def measure(params, tasks: Sequence[Task], step: int, temperature: float) -> list[float]:
        rollouts = collect(
            params,
            tasks[: config.evaluation.num_tasks],
            start=start,
            codec=codec,
            generator=generate,
            group_size=1,
            limits=limits_of(config),
            sampling=Sampling(temperature),
            seed=config.seed,
            step=EVALUATION | step,
            reward=progress_reward,
        )
        return [progress_reward(trajectory) for trajectory in rollouts.trajectories]

    def evaluate(params, tasks: Sequence[Task], step: int, greedy: bool = True) -> dict[str, float]:
        sampled = measure(params, tasks, step, 1.0)
        metrics = {
            "held_out_progress": float(np.mean(sampled)),
            "held_out_solved": float(np.mean(np.array(sampled) == 1)),
        }
        for category in sorted({task.category for task in tasks}):
            rewards = [r for r, task in zip(sampled, tasks) if task.category == category]
            metrics[f"held_out_{category}"] = float(np.mean(rewards))
        if greedy:
            metrics["held_out_greedy"] = float(np.mean(measure(params, tasks, step, 0.0)))
        return metrics

    return evaluate


def limits_of(config: Config) -> Limits:
    r = config.rollout
    return Limits(r.max_prompt_tokens, r.max_suffix_tokens, r.max_action_tokens, r.observation_chunk)


@contextlib.contextmanager
def episodes_of(config: Config, domain: Domain) -> Iterator[StartEpisodes]:
    """Where episodes live: in this process or in workers."""
    rules = RODS._replace(max_attempts=config.rollout.max_attempts)
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


def cold_start(
    config: Config,
    domain: Domain,
    tasks: TaskSplits,
    params: Any,
    policy: Policy,
    codec,
    evaluate,
    directory: Path,
    console: Console,
):
    """Supervised learning from `params` until the validation reward reaches its target; writes cold_start.json."""
    c = config.cold_start
    if c is None:
        return params
    rng = random.Random(f"{config.seed}/cold start")
    with console.status("playing demonstrations"):
        practice = [task for task in tasks.practice for _ in range(c.rounds)]
        demonstrations = [demonstrate(domain, task, codec, c.habits, rng) for task in practice]
    # A short run: the second moment forgets fast, and the rate falls so that what was learned settles.
    optimizer = grpo.create_optimizer(c.learning_rate, warmup_steps=50, decay_steps=c.max_steps, b2=0.98)
    step_fn = supervised.jit_step(policy, optimizer)
    state = supervised.SupervisedState(params, optimizer.init(params))
    stream = supervised.stream(
        demonstrations,
        batch_size=c.batch_size,
        prompt_size=config.rollout.max_prompt_tokens,
        suffix_sizes=c.suffix_sizes,
        observed_weight=c.observed_weight,
        rng=rng,
    )
    reward, started = 0.0, time.perf_counter()
    with cold_start_display(console, c.max_steps, c.target_reward) as display:
        for step in range(1, c.max_steps + 1):
            state, loss = step_fn(state, next(stream))
            display(step, loss)
            if step % c.evaluate_every == 0:
                reward = evaluate(state.params, tasks.validation, COLD_START | step, greedy=False)[
                    "held_out_progress"
                ]
                display(step, loss, reward)
                if reward >= c.target_reward:
                    break
    record = {
        "steps": step,
        "validation_reward": reward,
        "demonstrator_reward": float(np.mean([np.mean(d.turns_passed) for d in demonstrations])),
        "demonstrations": len(demonstrations),
        "habits": c.habits._asdict(),
        "seconds": time.perf_counter() - started,
    }
    write_atomically(directory / "cold_start.json", json.dumps(record, indent=2) + "\n")
    return state.params


if __name__ == "__main__":
    main()
