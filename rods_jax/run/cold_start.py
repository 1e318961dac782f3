"""The cold start of a run: supervised learning on demonstrations, saved and stopped as training is.

While it lasts its checkpoints are in the run directory's cold_start/.  The step itself is in supervised.py.
"""

import contextlib
import itertools
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from rods_jax import checkpoint, processes, strict_json, supervised
from rods_jax.config import ColdStartConfig, Config, RetentionConfig
from rods_jax.demonstrations import Demonstration, can_demonstrate, demonstrate, demonstration_of
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.files import write_atomically
from rods_jax.grpo import create_optimizer
from rods_jax.preemption import HALTED, SAVED, Stopped
from rods_jax.run.directory import COLD_START, require_same_inputs
from rods_jax.run.display import cold_start_display
from rods_jax.run.learner import Learner
from rods_jax.sharding import state_shardings
from rods_jax.terminal import say
from rods_jax.types import Codec, TrainState

HARDLY = 0.02  # validation reward; below it nothing is there that rewards could raise
COLD_START_NOISE = 1 << 30  # a bit of the step that keeps its noise apart from training's


def cold_start(
    config: Config,
    domain: Domain,
    tasks: TaskSplits,
    params: Any,
    learner: Learner,
    codec: Codec,
    evaluate,
    directory: Path,
    inputs: Mapping[str, str],
    stop: Callable[[], bool],
    console: Console,
):
    """Supervised learning from `params` until the validation reward reaches its target; writes cold_start.json.

    It is saved at every evaluation, and where `stop` says so: then Stopped is raised.  Called again, it goes on from
    there to the same bits.  A step whose gradient is not finite is skipped, counted and said; with `update.on_nonfinite`
    "stop", Stopped is raised after it is saved.
    """
    c = config.cold_start
    if c is None:
        return params
    rng = random.Random(f"{config.seed}/cold start")
    demonstrations, left_out, inputs = shown_to_it(c, domain, tasks, codec, rng, inputs, console)
    sizes = config.rollout.max_prompt_tokens, c.suffix_sizes
    if too_long := sum(supervised.size_of(one, *sizes) is None for one in demonstrations):
        left_out = {**left_out, "too long": too_long}
        say(console, f"the cold start leaves out {too_long} of {len(demonstrations)} demonstrations: they are too long")
    # A short run: the second moment forgets fast, and the rate falls so that what was learned settles.
    optimizer = create_optimizer(c.learning_rate, warmup_steps=50, decay_steps=c.max_steps, b2=0.98)
    step_fn = supervised.jit_step(learner.policy, optimizer)
    state = supervised.SupervisedState(params, _initial(optimizer, learner)(params))
    stream = supervised.stream(
        demonstrations,
        batch_size=c.batch_size,
        prompt_size=sizes[0],
        suffix_sizes=c.suffix_sizes,
        observed_weight=c.observed_weight,
        rng=rng,
    )
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(
            checkpoint.open_checkpoints(directory / COLD_START, RetentionConfig(latest=1))
        )
        step, reward, skipped, seconds, started = 0, 0.0, 0, 0.0, time.perf_counter()
        if checkpoints.latest_step() is not None:
            step, state, host = checkpoint.restore(checkpoints, state, tell=partial(say, console))
            require_same_inputs(inputs, host["inputs"], directory)
            checkpoint.forget(checkpoints, step, RetentionConfig(latest=1))
            reward, seconds, skipped = host["reward"], host["seconds"], host.get("skipped", 0)
            say(console, f"resumed at step {step} of the cold start")
        stream = itertools.islice(stream, step, None)
        display = stack.enter_context(cold_start_display(console, c.max_steps, c.target_reward))
        finite: list[jax.Array] = []  # of the steps since it was last saved
        while step < c.max_steps and reward < c.target_reward:
            step += 1
            state, loss, taken = step_fn(state, next(stream))
            finite.append(taken)
            display(step, loss)
            if evaluated := step % c.evaluate_every == 0:
                noise = COLD_START_NOISE | step
                measured = evaluate(state.params, tasks.validation, noise, "validation", greedy=False)
                reward = measured.get("validation_progress", 0.0)
                display(step, loss, reward)
            stopped = stop()
            if evaluated or stopped:
                spent, lost = seconds + time.perf_counter() - started, sum(not one for one in finite)
                skipped, finite = skipped + lost, []
                host = {"reward": reward, "seconds": spent, "skipped": skipped, "inputs": dict(inputs)}
                checkpoint.save(checkpoints, step, state, host)
                if lost:
                    say(console, f"{skipped} steps of the cold start were skipped so far: a gradient was not finite")
                if lost and config.update.on_nonfinite == "stop":
                    checkpoints.wait_until_finished()
                    raise Stopped(
                        HALTED, f"stopped at step {step} of the cold start, which is saved: a gradient was not finite"
                    )
            if stopped:
                checkpoints.wait_until_finished()
                raise Stopped(
                    SAVED,
                    f"stopped by a signal at step {step} of the cold start, which is saved: continue with --resume",
                )
    if tasks.validation and step % c.evaluate_every == 0 and reward < HARDLY:
        say(
            console,
            f"the cold start ends with a validation reward of {reward:.3f}: hardly a check is passed, and no reward teaches "
            "what never happens; give it more practice tasks or steps, or begin with a checkpoint",
        )
    record = {
        "steps": step,
        "skipped": skipped + sum(not one for one in finite),  # a gradient was not finite
        "validation_reward": reward,
        "demonstrator_reward": float(np.mean([np.mean(d.passed) for d in demonstrations])),
        "demonstrations": len(demonstrations),
        "left_out": left_out,  # by reason
        "habits": c.habits._asdict(),
        "seconds": seconds + time.perf_counter() - started,
    }
    if processes.is_first():
        write_atomically(directory / "cold_start.json", strict_json.dumps(record, indent=2) + "\n")
    return state.params


def _initial(optimizer: optax.GradientTransformation, learner: Learner) -> Callable[[Any], Any]:
    """The optimizer's `init`; on a mesh its state lies there as a restored one must."""
    if learner.mesh is None:
        return optimizer.init
    moments = jax.eval_shape(optimizer.init, learner.shapes)
    at = state_shardings(
        learner.mesh, TrainState(learner.shapes, None, moments, jnp.zeros((), jnp.int32)), learner.shardings, optimizer
    )
    return jax.jit(optimizer.init, out_shardings=at.optimizer_state)


def shown_to_it(
    c: ColdStartConfig,
    domain: Domain,
    tasks: TaskSplits,
    codec: Codec,
    rng: random.Random,
    inputs: Mapping[str, str],
    console: Console,
) -> tuple[list[Demonstration], Mapping[str, int], Mapping[str, str]]:
    """Demonstrations; how many recorded ones are left out for which reason; the inputs, with the file of recorded ones."""
    with console.status("reading dialogues" if c.dialogues else "playing demonstrations"):
        if c.dialogues is not None:
            found = c.dialogues(tasks)
            read = [demonstration_of(one, codec) for one in found.dialogues]
            return read, found.left_out, {**inputs, "dialogues": found.sha256}
        practice = [task for task in tasks.practice if can_demonstrate(domain, task) for _ in range(c.rounds)]
        return [demonstrate(domain, task, codec, c.habits, rng) for task in practice], {}, inputs
