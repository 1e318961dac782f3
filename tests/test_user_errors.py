"""A run whose users err: what they break is out of the update, and counted.  Conversations and updates are real."""

import functools
import random
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rollout_toy import CODEC, V

from configs.helpdesk import CONFIG
from rods_jax import grpo, loop, replay
from rods_jax.config import Habits
from rods_jax.demonstrations import demonstrate
from rods_jax.dialogue import Said, play
from rods_jax.environments.helpdesk.demonstrator import demonstrator
from rods_jax.environments.helpdesk.domain import helpdesk
from rods_jax.environments.helpdesk.tasks import build
from rods_jax.environments.helpdesk.user import Dials
from rods_jax.rollout import Rollouts, reasons_of
from rods_jax.types import Policy, RolloutBatch, Trajectory

DOMAIN = helpdesk(Dials(ignores=0.2, misreads=0.1, acts_unasked=0.1, stops_early=0.2, invents=0.1))
HABITS = Habits(stop_early=0.3)
N, G, P, S = 3, 4, 256, 512
TASKS = build(random.Random(0), max_faults=2, seeds=12, held_out=5, validation=0, practice=0).seeds
# Each token follows from the one before it.
BIGRAMS = Policy(
    None,
    lambda params, prompts, lengths, suffixes: params["embedding"][jnp.roll(suffixes, 1, -1)],
    lambda params: params["unembedding"],
    None,
    None,
    None,
)


@functools.cache
def played(task, step, g):
    """(its tokens, what is recorded of it) of the demonstrator of the help desk, with a user that errs."""
    rng = lambda: random.Random(f"{step}/{task}/{g}")
    (own,) = (one for one in TASKS if one.id == task)
    act = demonstrator(own, HABITS, rng())

    def say(messages):
        action = act(messages)
        return Said(action.answer, action)

    demo, record = demonstrate(DOMAIN, own, CODEC, HABITS, rng()), play(DOMAIN, own, g, say)
    assert record.rods == demo.passed  # the same conversation
    return demo, Trajectory(task, g, record.rods, (), ended=record.ended, blame=record.blame)


def rollouts(tasks, step, bonus) -> Rollouts:
    """The conversations of a step; `bonus` is given to those that the user broke."""
    demos, trajectories = zip(*(played(task.id, step, g) for task in tasks for g in range(G)))
    pad = lambda lists, width: np.array([[*row[:width], *[0] * (width - len(row))] for row in lists])
    grouped = lambda rows: np.array(rows).reshape(len(tasks), G, *np.shape(rows)[1:])
    rewards = [float(all(one.passed)) + bonus * (one.blame == "user") for one in trajectories]
    batch = RolloutBatch(
        prompt_tokens_NP=pad([one.prompt for one in demos[::G]], P).astype(np.int32),
        prompt_lengths_N=np.array([min(P, len(one.prompt)) for one in demos[::G]], np.int32),
        suffix_tokens_NGS=grouped(pad([one.suffix for one in demos], S)).astype(np.int32),
        suffix_lengths_NG=grouped([min(S, len(one.suffix)) for one in demos]).astype(np.int32),
        action_mask_NGS=grouped(pad([one.acted for one in demos], S)).astype(bool),
        behavior_log_probs_NGS=np.zeros((len(tasks), G, S), np.float32),
        rewards_NG=grouped(rewards).astype(np.float32),
        valid_NG=np.ones((len(tasks), G), bool),
        passed_NG=grouped([sum(one.passed) for one in demos]).astype(np.int32),
        checks_N=np.array([len(one.passed) for one in demos[::G]], np.int32),
    )
    return Rollouts(batch, trajectories, reasons=reasons_of(trajectories))


def test_what_users_broke_is_counted_and_teaches_nothing():
    records = []
    optimizer, rng = optax.sgd(1.0), np.random.default_rng(0)
    params = {name: rng.normal(size=(V, 16)).astype(np.float32) for name in ("embedding", "unembedding")}
    update = grpo.jit_update(BIGRAMS, optimizer, CONFIG.update, quotas=(2,) * len(DOMAIN.strata))

    def trained(masks: bool, bonus: float = 0.0):
        """The parameters after an epoch of the loop."""
        config = replace(
            CONFIG,
            stages=tuple(replace(stage, epochs=1, synthesis=False) for stage in CONFIG.stages),
            rollout=replace(CONFIG.rollout, tasks_per_step=N, group_size=G),
            update=replace(CONFIG.update, mask_user_errors=masks),
        )
        stages = loop.Stages(
            collect=lambda params, tasks, step, stage, sizes: rollouts(tasks, step, bonus),
            update=lambda state, batch, standing: update(state, batch, standing, 1.0),
            synthesize=lambda *_: (),
            renew=lambda state: state,
            evaluate=lambda params, step: {},
            record=lambda step, values: records.append(dict(values) | {"masks": masks}),
            show=lambda *_: None,
            save=lambda position, metrics: None,
            stop=lambda: False,
        )
        state = grpo.create_state(jax.tree.map(jnp.array, params), optimizer, config.update)
        start = loop.Position(state, replay.create(TASKS, config.replay))
        return loop.train(config, tuple(DOMAIN.strata), TASKS, (), stages, start).train_state.params

    masked = trained(True)
    steps = [one for one in records if "task_ids" in one]
    assert len(steps) == len(TASKS) // N and sum(one["blame"].get("user", 0) for one in steps) > 5
    for one in steps:
        assert one["valid_rollouts"] == N * G - one["blame"].get("user", 0)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), masked, params)
    assert min(moved.values()) > 0  # it learns from the others
    # Whatever reward the broken rollouts get, nothing changes; without the switch, all does.
    jax.tree.map(np.testing.assert_array_equal, trained(True, bonus=3.0), masked)
    kept, bent = trained(False), trained(False, bonus=3.0)
    assert not np.array_equal(kept["embedding"], bent["embedding"])
    assert not np.array_equal(kept["embedding"], masked["embedding"])
