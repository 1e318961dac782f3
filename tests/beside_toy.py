"""A run in small, trainer and workers as real processes: the real loop, pool, journals and roles on the toy domain.

Only what a GPU would do is missing: every rollout passes half of its turns, and every fourth step has a seed.
"""

import json
import os
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from synthesis_model import LOOSE, Model, seed_of, tags
from synthesis_toy import TOY

from rods_jax import replay
from rods_jax.boundary import Seeds
from rods_jax.config import (
    Config,
    EvaluationConfig,
    ReplaySettings,
    RolloutConfig,
    StageConfig,
    SynthesisConfig,
    UpdateConfig,
)
from rods_jax.environments.protocol import STRATA, TaskSplits
from rods_jax.files import write_atomically
from rods_jax.group_statistics import GroupStatistics
from rods_jax.grpo import Feedback, sequence_mean, token_ratio
from rods_jax.loop import Position, Stages, train
from rods_jax.records import decode, encode
from rods_jax.replay import ReplayState
from rods_jax.rewards import progress_reward
from rods_jax.rollout import Rollouts
from rods_jax.run.authors import author_of
from rods_jax.synthesis.ask import ROLES
from rods_jax.synthesis.courier.dispatch import beside
from rods_jax.synthesis.courier.worker import working
from rods_jax.synthesis.llm import llm_roles
from rods_jax.task_files import VERSIONED
from rods_jax.types import RolloutBatch, Step, TrainState, Trajectory

SEEDS = tuple(replace(seed_of(c, LOOSE), id=f"{c}_{i}", scenario=f"{c}_{i}") for i in range(2) for c in STRATA)
TASKS = TaskSplits(seeds=SEEDS, held_out=(), validation=(), practice=())


def moody(data) -> str:
    """A judge that refuses half of what it sees, always the same half."""
    if zlib.crc32(json.dumps(data).encode()) % 2:
        return tags(reasoning="No.", verdict="reject", reason="Turn 1 is odd.")
    return tags(reasoning="All is well.", verdict="accept", reason="")


def model(requests):
    """Answers by the question alone, whoever asks, however often; writes down that it was asked."""
    if "ASKED" in os.environ:
        with open(os.environ["ASKED"], "a") as file:
            file.write("asked\n" * len(requests))
        time.sleep(0.002)  # so that a kill can come between a question and its answer
    return [reply for request in requests for reply in Model(judge=moody)([request])]


def backends():
    return dict.fromkeys(ROLES, model)


def domain():
    return TOY


def anything(*_):
    """What this run never calls."""


CONFIG = Config(
    name="beside",
    seed=0,
    run_dir="",
    domain=domain,
    build_tasks=anything,
    tokenizer=anything,
    codec=anything,
    learner=dict,
    cold_start=None,
    stages=(StageConfig(name="online", reward=progress_reward, epochs=10**6, synthesis=True),),
    rollout=RolloutConfig(
        tasks_per_step=2, group_size=2, max_prompt_tokens=8, max_suffix_tokens=8, max_action_tokens=8,
        observation_chunk=8,
    ),
    update=UpdateConfig(learning_rate=1e-3, ratio=token_ratio, aggregate=sequence_mean),
    evaluation=EvaluationConfig(num_tasks=1, every_epochs=10**6),
    replay=ReplaySettings(cooldown=2, surplus=1000.0, max_age=10**6),  # every seed is sent, nothing leaves
    synthesis=SynthesisConfig(backends=backends, roles=llm_roles, workers=0),
    checkpoint_every=2,
)  # fmt: skip
AUTHOR = author_of(CONFIG.synthesis, TOY, TASKS)


def position_of(directory: Path) -> Position:
    """Where the run stopped, or its beginning."""
    state = TrainState(None, None, None, 0)
    path = directory / "checkpoint.json"
    if not path.exists():
        return Position(state, replay.create(SEEDS, CONFIG.replay))
    host = json.loads(path.read_text())
    return Position(state, decode(ReplayState, host.pop("replay"), forms=VERSIONED), **host)


def rollout_of(task, step: int, number: int) -> Trajectory:
    """Of a policy that names the task, the step and the rollout."""
    return Trajectory(task.id, number, (True, False), (Step(0, f"{task.id} {step} {number}", 0),))


def run(directory: Path, dispatch, *, until: int, seconds: float = 0.0, record=anything) -> Position:
    """The loop, from its last checkpoint until a step; a step takes so many seconds."""

    def collect(params, tasks, step, stage, sizes):
        return Rollouts(batch, tuple(rollout_of(task, step, number) for task in tasks for number in range(2)))

    def update(state, batch, standing):
        time.sleep(seconds)
        half, four = np.full(2, 2, np.int32), np.full(2, 4, np.int32)
        first = int(standing.eligible_N[0]) - 1 if state.step % 4 == 0 else -1  # position in the batch, -1: none
        feedback = Feedback(
            GroupStatistics(half / four, half / four, None, None),
            half,
            four,
            half - 1,
            half + 1,
            four,
            None,
            Seeds(np.array([first]), 1),
            {},
        )
        return state._replace(step=state.step + 1), feedback

    def save(position: Position, held_out) -> None:
        host = {name: getattr(position, name) for name in ("step", "epoch", "place", "outcomes")}
        host["replay"] = encode(position.replay, VERSIONED)
        write_atomically(directory / "checkpoint.json", json.dumps(host))

    start = position_of(directory)
    start = replace(start, train_state=start.train_state._replace(step=start.step))
    batch = RolloutBatch(*[None] * len(RolloutBatch._fields))
    stages = Stages(
        collect=collect,
        update=update,
        synthesize=dispatch,
        renew=lambda state: state,
        evaluate=lambda *_: {},
        record=record,
        show=anything,
        save=save,
        stop=lambda: False,
    )
    return train(replace(CONFIG, max_steps=until), tuple(STRATA), SEEDS, (), stages, start)


# ------------------------------------------------------------------- as processes, to be killed
def tell(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def trainer(directory: str, until: int, workers: int) -> None:
    """Trains; with workers in its own process too, if there are any."""
    path = Path(directory)
    taken = position_of(path).outcomes
    with beside(path / "synthesis", CONFIG.seed, taken=taken, tell=tell) as dispatch:
        with working(path / "synthesis", AUTHOR, workers=workers, tell=tell, poll=0.01):
            run(path, dispatch, until=until, seconds=0.02)


def worker(directory: str) -> None:
    with working(Path(directory) / "synthesis", AUTHOR, workers=2, tell=tell, poll=0.01) as threads:
        for thread in threads:
            thread.join()
