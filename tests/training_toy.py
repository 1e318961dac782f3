"""A real run in small that exercises everything a checkpoint must carry: seeds, synthesis, injection, retirement.

Importable by processes that train (forks.py) until they kill themselves, or something breaks, where a test says so.
"""

import contextlib
import importlib
import io
import itertools
import json
import os
import random
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
from forks import host_devices
from rich.console import Console

from models.decoder import DecoderConfig
from models.learner import decoder
from rods_jax import grpo, loop
from rods_jax.boundary import any_task
from rods_jax.codecs.documents import tool_name
from rods_jax.codecs.qwen import qwen_codec
from rods_jax.codecs.tokenizer import train_tokenizer
from rods_jax.commands import train as command
from rods_jax.config import Config, EvaluationConfig, ReplaySettings, RolloutConfig, StageConfig, UpdateConfig
from rods_jax.environments.protocol import TaskSplits
from rods_jax.environments.workplace.domain import WORKPLACE
from rods_jax.run.training import advance
from rods_jax.synthesis.pipeline import author_tasks


def workplace():
    return WORKPLACE


def few_tasks(domain, seed) -> TaskSplits:
    tasks = author_tasks(domain, count=44, rng=random.Random(seed), turns=(1, 1), calls_per_turn=(1, 1))
    return TaskSplits(seeds=tasks[:6], held_out=tasks[6:10], validation=(), practice=tasks[16:])


def more_tasks(domain, seed) -> TaskSplits:
    """An epoch is as long as the quickstart's checkpoints are apart."""
    tasks = author_tasks(domain, count=80, rng=random.Random(seed), turns=(1, 1), calls_per_turn=(1, 1))
    return TaskSplits(seeds=tasks[:40], held_out=tasks[40:44], validation=(), practice=tasks[44:])


def varied_reward(trajectory) -> float:
    """A reward that a policy from scratch gets in all sizes."""
    return sum(len(step.text) for step in trajectory.steps) % 7 / 7


CONFIG = Config(
    name="toy",
    seed=0,
    run_dir="",
    domain=workplace,
    build_tasks=few_tasks,
    tokenizer=partial(train_tokenizer, vocab_size=640),
    codec=partial(qwen_codec, document=tool_name),
    learner=decoder,
    model=DecoderConfig(640, 1, 16, 2, 1, 8, 16),  # sizes, signal and objective as in test_train: compiled once for both
    cold_start=None,
    stages=(StageConfig(name="online", reward=varied_reward, epochs=3, synthesis=True),),
    rollout=RolloutConfig(
        tasks_per_step=2, group_size=2, max_prompt_tokens=96, max_suffix_tokens=128, max_action_tokens=12,
        observation_chunk=32, max_attempts=1,  # a gold call has more than 12 tokens
    ),
    update=UpdateConfig(
        learning_rate=1e-3, ratio=grpo.token_ratio, aggregate=grpo.sequence_mean, signal=any_task
    ),
    replay=ReplaySettings(
        capacity=8, cooldown=2, lower=0.0001, upper=0.9, injection_fraction=0.4, max_share=0.6, surplus=3.0
    ),
    evaluation=EvaluationConfig(num_tasks=4, every_epochs=2),
    checkpoint_every=2,
)  # fmt: skip


def toy(directory, **changes) -> Config:
    return replace(CONFIG, run_dir=str(directory), **changes)


def play(config: Config, step: int | None = None) -> str:
    """Trains to the end, from the beginning or from where an earlier run left it; returns what was said."""
    said = io.StringIO()
    resume = step is not None or (Path(config.run_dir) / "config.json").exists()
    advance(config, resume=resume, console=Console(file=said, width=1000), at=step)
    return said.getvalue()


# ------------------------------------------------------------------------ in a process of its own
def train(
    directory: str,
    cache: str,
    options: list[str],
    death: tuple[str, float] | None = None,
    devices: int = 8,
) -> None:
    """The command without its report; its exit status and what it said are written beside the run, if it lives."""
    os.environ["XLA_FLAGS"] = host_devices(devices)
    share_compilations(cache)
    said = io.StringIO()
    file = [] if "--config" in options else ["--config", __file__]
    resume = ["--resume"] if Path(directory, "config.json").exists() else []
    sys.argv = ["train", *file, "--run-dir", directory, *resume, *options]
    status = 0
    try:
        if death is not None:
            die(*death)
        command.main(Console(file=said, width=1000), without_report)
    except SystemExit as end:
        status = end.code
    except Exception:
        status = traceback.format_exc()
    Path(f"{directory}.end").write_text(f"{status} {said.getvalue()}")
    os._exit(0)


def without_report(config, *, resume, step, source, console, profile):
    assert source is None
    advance(config, resume=resume, console=console, at=step, profile=profile)


def soak(directory: str, cache: str, steps: int) -> None:
    """A long run; beside it, for each step, what the process holds and how many programs it has compiled."""
    share_compilations(cache)
    rows, settle, programs = [], loop._settle, 0

    def count(event: str, seconds: float, **_) -> None:
        nonlocal programs
        programs += event == "/jax/core/compile/backend_compile_duration"

    def watched(position, pending, *arguments):
        result = settle(position, pending, *arguments)
        if pending is not None:
            # Pages of files, programs among them, come and go with what else the machine does.
            memory = next(line for line in Path("/proc/self/status").open() if line.startswith("RssAnon"))
            held = int(memory.split()[1]), len(os.listdir("/proc/self/fd")), threading.active_count()
            names = list(thread_names())
            writers = names.count("ts_pool_worker")  # tensorstore's
            rows.append((pending.step, pending.epoch, *held, len(names) - writers, writers, programs))
        return result

    jax.monitoring.register_event_duration_secs_listener(count)
    loop._settle = watched
    stage = replace(CONFIG.stages[0], epochs=10**6)
    long = {"stages": (stage,), "build_tasks": more_tasks, "max_steps": steps, "checkpoint_every": 20}
    play(toy(directory, evaluation=replace(CONFIG.evaluation, every_epochs=10), **long))
    Path(f"{directory}.json").write_text(json.dumps(rows))
    os._exit(0)


def thread_names() -> Iterator[str]:
    """Of the system's threads; one that ends while it is asked is not there."""
    for path in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):
            yield path.read_text().strip()


def share_compilations(cache: str) -> None:
    """As the command does, but programs that compile fast too; apart, for a process that is killed may leave half of one."""
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def die(at: str, number: float) -> None:
    """SIGKILL `number` seconds after the first rollout began; or at that call of a function; or where a file with
    `at` in its path is put on the disk for the `number`-th time, a line short of its end; or another fault."""
    if at == "seconds":
        before_call("rods_jax.run.stages.collect", 1, lambda: threading.Timer(number, kill).start())
    elif at == "full disk":  # no file can grow beyond so many bytes
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        before_call("rods_jax.checkpoint.save", number, limit)
    elif at == "without privileges":
        if os.geteuid() == 0:
            os.setuid(65534)
    elif at == "clock back":  # at every look
        now = time.time
        looks = itertools.count()
        time.time = lambda: now() - number * next(looks)
    elif "/" in at:
        synchronise, left = os.fsync, number

        def cut_short(descriptor: int) -> None:
            nonlocal left
            if at in os.readlink(f"/proc/self/fd/{descriptor}"):
                left -= 1
                if not left:
                    os.ftruncate(descriptor, max(0, os.fstat(descriptor).st_size - 7))
                    kill()
            synchronise(descriptor)

        os.fsync = cut_short
    else:
        before_call(at, number, kill)


def before_call(function: str, number: float, do: Callable[[], None]) -> None:
    module, _, name = function.rpartition(".")
    original, left = getattr(importlib.import_module(module), name), number

    def counted(*arguments, **keywords):
        nonlocal left
        left -= 1
        if left == 0:
            do()
        return original(*arguments, **keywords)

    setattr(importlib.import_module(module), name, counted)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
