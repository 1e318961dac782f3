"""Trains a policy with RODS: the one command.

    python -m scripts.train --config configs/quickstart.py [--resume] [--rollout.group-size 4 ...]

The run directory gets config.json, metrics.jsonl, tasks/, tokenizer/, checkpoints/, trajectories.jsonl,
candidates.jsonl, plots/ and summary.json.  Left out on purpose: everything that computes; this file
only wires the rooms together.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from models.policy import callables
from models.tokenizer import load_tokenizer
from rods_jax import checkpoint, config as configuration, grpo, replay, supervised
from rods_jax.config import Config, ConfigError, StageConfig
from rods_jax.demonstrations import corpus, demonstrate
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.generation import Sampling, generator
from rods_jax.curriculum import num_epochs
from rods_jax.loop import Position, Stages, train
from rods_jax.metrics import MetricWriter, open_metrics
from rods_jax.rewards import progress_reward
from rods_jax.rollout import Limits, Rollouts, collect, trim
from rods_jax.synthesis.pipeline import Synthesis, synthesize
from rods_jax.task_files import read_tasks, task_to_json, write_atomically, write_tasks
from rods_jax.types import Policy, Task
from scripts.display import cold_start_display, training_display
from scripts.report import print_summary, tell, write_report

COLD_START, EVALUATION = 1 << 30, 1 << 29  # bits of the step that keep their noise apart from training's


def main() -> None:
    parser = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False
    )  # --help is the config's: it lists every key
    parser.add_argument("--config", help="a Python file that ends in CONFIG = Config(...)")
    parser.add_argument("--resume", action="store_true", help="continue the run in the config's run_dir")
    arguments, overrides = parser.parse_known_args()
    if arguments.config is None:
        sys.exit(f"{__doc__}\n--config is missing; with it, --help lists every setting.")
    console = Console()
    try:
        config = configuration.load_config(arguments.config, overrides)
        run(config, resume=arguments.resume, console=console)
    except (ConfigError, checkpoint.CheckpointError, ValueError, FileExistsError) as error:
        console.print(f"[bold red]error:[/] {error}", highlight=False)
        sys.exit(2)


def run(config: Config, *, resume: bool, console: Console) -> dict[str, Any]:
    """Cold start, or the latest checkpoint; then the loop to its end; then the report, which is returned."""
    directory = Path(config.run_dir)
    open_run(config, directory, resume)
    jax.config.update("jax_compilation_cache_dir", str(Path(".cache/jax").absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    domain = config.domain()
    tasks, tokenizer = load_or_build(config, domain, directory, console)
    codec = config.codec(tokenizer)
    model = replace(config.model, vocab_size=len(tokenizer))
    policy = Policy(**callables(model))
    objective, optimizer = objective_of(config), optimizer_of(config)
    evaluate = evaluation(config, domain, policy, codec)
    key = jax.random.key(config.seed)

    with checkpoint.open_checkpoints(directory / "checkpoints", keep=2) as checkpoints:
        start = Position(
            grpo.create_state(policy.init(key), optimizer, objective), replay.create(tasks.seeds, config.replay)
        )
        if checkpoints.latest_step() is not None:
            step, state, host = checkpoint.restore(checkpoints, start.train_state)
            start = Position(state, replay.from_json(host["replay"]), step, host["epoch"], host["batch"])
            console.print(f"resumed at step {step}, epoch {start.epoch}")
        else:
            params = cold_start(config, domain, tasks, policy, codec, evaluate, directory, console)
            start = replace(start, train_state=grpo.create_state(params, optimizer, objective))
            save(checkpoints, start)
        kept = None if not resume else start.step or -1  # what lies beyond the checkpoint is written again
        with (
            open_metrics(directory / "metrics.jsonl", kept) as write_metrics,
            open_metrics(directory / "trajectories.jsonl", kept) as write_trajectory,
            open_metrics(directory / "candidates.jsonl", kept) as write_candidate,
            training_display(console, num_epochs(config), config.rollout.tasks_per_step, start.step) as display,
        ):

            def record(step: int, values: Mapping[str, Any]) -> None:
                write_metrics(step, values)
                display(step, values)

            stages = Stages(
                collect=collector(config, domain, policy, codec),
                update=updater(config, policy, optimizer, objective),
                synthesize=lambda seed, rng, step, known: synthesize(
                    domain, seed, rng=rng, step=step, known_hashes=known
                ),
                renew=lambda state: grpo.create_state(state.params, optimizer, objective),
                evaluate=lambda params, step: evaluate(params, tasks.held_out, step),
                record=record,
                show=shower(write_trajectory, write_candidate),
                save=partial(save, checkpoints),
            )
            train(config, tasks.seeds, tasks.held_out, stages, start)
    summary = write_report(directory)
    print_summary(summary, console)
    tell(directory, summary, console)
    console.print(f"run directory: {directory}", highlight=False)
    return summary


# ----------------------------------------------------------------------------- the run directory
def open_run(config: Config, directory: Path, resume: bool) -> None:
    """Begins a run directory, or checks that the run in it was started with the same configuration."""
    path = directory / "config.json"
    resolved = configuration.resolved(config)
    if not resume:
        if path.exists():
            raise ConfigError(
                f"{directory} already holds a run: continue it with --resume, or give another --run-dir"
            )
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(resolved, indent=2) + "\n")
        return
    if not path.exists():
        raise ConfigError(f"{directory} holds no run to resume")
    changed = set(configuration.differences(json.loads(path.read_text()), resolved)) - {"max_steps"}
    if changed:
        raise ConfigError(f"{directory} was started with another {', '.join(sorted(changed))}")


def load_or_build(config: Config, domain: Domain, directory: Path, console: Console) -> tuple[TaskSplits, Any]:
    """The run's tasks and tokenizer: built once, then read from the run directory."""
    if (directory / "tokenizer").exists():
        parts = {part: read_tasks(directory / "tasks" / f"{part}.jsonl") for part in TaskSplits._fields}
        return TaskSplits(**parts), load_tokenizer(directory / "tokenizer")
    with console.status("building the tasks"):
        started = time.perf_counter()
        tasks = config.build_tasks(domain, config.seed)
        (directory / "tasks").mkdir(exist_ok=True)
        for part, some in tasks._asdict().items():
            write_tasks(directory / "tasks" / f"{part}.jsonl", some)
        tokenizer = config.tokenizer(corpus(domain, tasks.practice or tasks.seeds))
        tokenizer.save_pretrained(directory / "tokenizer")
    sizes = ", ".join(f"{len(some)} {part}" for part, some in tasks._asdict().items())
    console.print(
        f"{domain.name}: {sizes} tasks; {len(tokenizer)} tokens; {time.perf_counter() - started:.0f} s",
        soft_wrap=True,
    )
    return tasks, tokenizer


def save(checkpoints: Any, position: Position) -> None:
    host = {"replay": replay.to_json(position.replay), "epoch": position.epoch, "batch": position.batch}
    checkpoint.save(checkpoints, position.step, position.train_state, host)


def shower(write_trajectory: MetricWriter, write_candidate: MetricWriter):
    """Keeps what one may want to read: a few trajectories every ten steps, and every accepted candidate."""

    def show(step: int, rollouts: Rollouts, results: Sequence[Synthesis]) -> None:
        if step % 10 == 1:
            for trajectory in rollouts.trajectories[:: max(1, len(rollouts.trajectories) // 4)]:
                write_trajectory(step, asdict(trajectory))
        for result in results:
            if result.candidate is not None:
                write_candidate(step, {"task": task_to_json(result.candidate)})

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
        lower=config.replay.lower,
        upper=config.replay.upper,
        quotas=u.quotas,
    )


def optimizer_of(config: Config):
    u = config.update
    return grpo.create_optimizer(
        u.learning_rate, warmup_steps=u.warmup_steps, max_grad_norm=u.max_grad_norm, weight_decay=u.weight_decay
    )


def collector(config: Config, domain: Domain, policy: Policy, codec):
    r = config.rollout
    generate = generator(
        policy,
        stop_token=codec.stop_token,
        group_size=r.group_size,
        suffix_capacity=r.max_suffix_tokens,
        max_action_tokens=r.max_action_tokens,
    )

    def collect_step(params, tasks: Sequence[Task], step: int, stage: StageConfig) -> Rollouts:
        return collect(
            params,
            tasks,
            domain=domain,
            codec=codec,
            generator=generate,
            group_size=r.group_size,
            limits=limits_of(config),
            sampling=Sampling(r.temperature, r.top_p, r.top_k),
            seed=config.seed,
            step=step,
            reward=stage.reward,
        )

    return collect_step


def updater(config: Config, policy: Policy, optimizer, objective):
    update = grpo.jit_update(policy, optimizer, objective)
    sizes = (*config.rollout.suffix_sizes, config.rollout.max_suffix_tokens)
    return lambda state, batch: update(state, trim(batch, sizes), config.rollout.temperature)


def evaluation(config: Config, domain: Domain, policy: Policy, codec):
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
            domain=domain,
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
    return Limits(
        r.max_prompt_tokens, r.max_suffix_tokens, r.max_action_tokens, r.observation_chunk, r.max_attempts
    )


def cold_start(
    config: Config,
    domain: Domain,
    tasks: TaskSplits,
    policy: Policy,
    codec,
    evaluate,
    directory: Path,
    console: Console,
):
    """Supervised learning until the validation reward reaches its target; writes cold_start.json."""
    c, key = config.cold_start, jax.random.key(config.seed)
    if c is None:
        return policy.init(key)
    rng = random.Random(f"{config.seed}/cold start")
    with console.status("playing demonstrations"):
        practice = [task for task in tasks.practice for _ in range(c.rounds)]
        demonstrations = [demonstrate(domain, task, codec, c.habits, rng) for task in practice]
    # A short run: the second moment forgets fast, and the rate falls so that what was learned settles.
    optimizer = grpo.create_optimizer(c.learning_rate, warmup_steps=50, decay_steps=c.max_steps, b2=0.98)
    step_fn = supervised.jit_step(policy, optimizer)
    params = policy.init(key)
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
