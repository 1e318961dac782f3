"""What learns in a run: the objective, the optimizer, the states they make, the update, and the cold start.

Left out on purpose: the computations themselves (grpo.py, supervised.py); this file gives them the run's settings.
"""

import contextlib
import itertools
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import SingleDeviceSharding
from rich.console import Console

from rods_jax import checkpoint, grpo, processes, strict_json, supervised
from rods_jax.config import Config, RetentionConfig
from rods_jax.demonstrations import demonstrate
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.files import write_atomically
from rods_jax.grpo import create_optimizer
from rods_jax.preemption import SAVED, Stopped
from rods_jax.sharding import micro_batch_cuts, state_shardings
from rods_jax.terminal import say
from rods_jax.types import RolloutBatch, TrainState
from scripts.display import cold_start_display
from scripts.policies import RunPolicy, complete
from scripts.run_directory import COLD_START, require_same_inputs

COLD_START_NOISE = 1 << 30  # a bit of the step that keeps its noise apart from training's


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


def optimizer_of(config: Config) -> optax.GradientTransformation:
    u = config.update
    return create_optimizer(
        u.learning_rate, warmup_steps=u.warmup_steps, max_grad_norm=u.max_grad_norm, weight_decay=u.weight_decay
    )


class Learning(NamedTuple):
    """The programs that make a run's train state and change it, jitted, and the state's shapes."""

    state: TrainState  # shapes, each with its place
    create: Any  # (what trains) -> TrainState
    renew: Any  # (state, donated) -> TrainState with a fresh optimizer, and the policy as its own reference
    update: Any  # (state, donated, batch, temperature, *frozen) -> (TrainState, Feedback)


def learning(config: Config, learner: RunPolicy) -> Learning:
    """What a run trains with; of a described policy, what it would train with."""
    objective, optimizer, mesh = objective_of(config), optimizer_of(config), learner.mesh
    create = partial(grpo.create_state, optimizer=optimizer, objective=objective)
    state = jax.eval_shape(create, learner.shapes)
    if mesh is None:
        (device,) = jax.tree.leaves(learner.shardings)[0].device_set
        places = jax.tree.map(lambda _: SingleDeviceSharding(device), state)
    else:
        places = state_shardings(mesh, state, learner.shardings, optimizer)
    shardings = None if mesh is None else places
    r, u = config.rollout, config.update
    return Learning(
        jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), state, places),
        jax.jit(create, out_shardings=shardings),
        # What goes is kept as an argument, or its memory could not be given to what comes.
        jax.jit(lambda state: create(state.params), donate_argnums=0, keep_unused=True, out_shardings=shardings),
        grpo.jit_update(
            learner.policy,
            optimizer,
            objective,
            complete,
            shardings=shardings,
            cuts=micro_batch_cuts(u.micro_batches, r.tasks_per_step, r.group_size, config.mesh or (1, 1, 1, 1)),
            place=learner.place,
        ),
    )


def updating(
    config: Config, learner: RunPolicy, learn: Learning
) -> Callable[[TrainState, RolloutBatch], tuple[TrainState, grpo.Feedback]]:
    """(state, batch) -> (state, feedback); the batch is this process's share."""

    def update(state: TrainState, batch: RolloutBatch) -> tuple[TrainState, grpo.Feedback]:
        batch = batch if learner.mesh is None else processes.assemble(learner.mesh, batch)
        return learn.update(state, batch, config.rollout.temperature, *learner.frozen)

    return update


def cold_start(
    config: Config,
    domain: Domain,
    tasks: TaskSplits,
    params: Any,
    learner: RunPolicy,
    codec,
    evaluate,
    directory: Path,
    inputs: Mapping[str, str],
    stop: Callable[[], bool],
    console: Console,
):
    """Supervised learning from `params` until the validation reward reaches its target; writes cold_start.json.

    It is saved at every evaluation, and where `stop` says so: then Stopped is raised.  Called again, it goes on from
    there to the same bits.
    """
    c = config.cold_start
    if c is None:
        return params
    rng = random.Random(f"{config.seed}/cold start")
    with console.status("playing demonstrations"):
        practice = [task for task in tasks.practice for _ in range(c.rounds)]
        demonstrations = [demonstrate(domain, task, codec, c.habits, rng) for task in practice]
    # A short run: the second moment forgets fast, and the rate falls so that what was learned settles.
    optimizer = create_optimizer(c.learning_rate, warmup_steps=50, decay_steps=c.max_steps, b2=0.98)
    step_fn = supervised.jit_step(learner.policy, optimizer)
    state = supervised.SupervisedState(params, optimizer.init(params))
    stream = supervised.stream(
        demonstrations,
        batch_size=c.batch_size,
        prompt_size=config.rollout.max_prompt_tokens,
        suffix_sizes=c.suffix_sizes,
        observed_weight=c.observed_weight,
        rng=rng,
    )
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(
            checkpoint.open_checkpoints(directory / COLD_START, RetentionConfig(latest=1))
        )
        step, reward, seconds, started = 0, 0.0, 0.0, time.perf_counter()
        if checkpoints.latest_step() is not None:
            step, state, host = checkpoint.restore(checkpoints, state)
            require_same_inputs(inputs, host["inputs"], directory)
            checkpoint.forget(checkpoints, step, RetentionConfig(latest=1))
            reward, seconds = host["reward"], host["seconds"]
            say(console, f"resumed at step {step} of the cold start")
        stream = itertools.islice(stream, step, None)
        display = stack.enter_context(cold_start_display(console, c.max_steps, c.target_reward))
        while step < c.max_steps and reward < c.target_reward:
            step += 1
            state, loss = step_fn(state, next(stream))
            display(step, loss)
            if evaluated := step % c.evaluate_every == 0:
                noise = COLD_START_NOISE | step
                measured = evaluate(state.params, tasks.validation, noise, "validation", greedy=False)
                reward = measured.get("validation_progress", 0.0)
                display(step, loss, reward)
            stopped = stop()
            if evaluated or stopped:
                spent = seconds + time.perf_counter() - started
                host = {"reward": reward, "seconds": spent, "inputs": dict(inputs)}
                checkpoint.save(checkpoints, step, state, host)
            if stopped:
                checkpoints.wait_until_finished()
                raise Stopped(
                    SAVED,
                    f"stopped by a signal at step {step} of the cold start, which is saved: continue with --resume",
                )
    record = {
        "steps": step,
        "validation_reward": reward,
        "demonstrator_reward": float(np.mean([np.mean(d.turns_passed) for d in demonstrations])),
        "demonstrations": len(demonstrations),
        "habits": c.habits._asdict(),
        "seconds": seconds + time.perf_counter() - started,
    }
    if processes.is_first():
        write_atomically(directory / "cold_start.json", strict_json.dumps(record, indent=2) + "\n")
    return state.params
