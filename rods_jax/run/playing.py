"""The players of a run's policy: how many tasks and rows play at a time, in training and in evaluations.

Left out on purpose: playing itself (rods_jax/rollout.py).
"""

import math
from typing import Any

from rods_jax.config import Config, RolloutConfig
from rods_jax.rollout import Player, player
from rods_jax.run.learner import Learner


def training_player(config: Config, learner: Learner, codec: Any, sizes: RolloutConfig, num_tokens: int) -> Player:
    """A stage's player, with a slot for each task that a process plays at a time."""
    slots, rows = places_of(config, learner, sizes)
    return player(learner.actor(rows), codec, sizes, slots=slots, num_tokens=num_tokens)


def places_of(config: Config, learner: Learner, sizes: RolloutConfig) -> tuple[int, int]:
    """(tasks, rollouts of each) that a process plays at a time in training."""
    share = config.rollout.tasks_per_step // learner.hosts
    return min(config.rollout.concurrent_tasks or share, share), sizes.concurrent_rollouts or sizes.group_size


def evaluation_player(
    config: Config, learner: Learner, codec: Any, num_tokens: int, num_tasks: int, group_size: int = 1
) -> Player:
    """The player of an evaluation of `num_tasks`.

    It plays as many tasks at a time as give as many rollouts as training has, unless the config gives a number.  This is
    rounded up to a multiple of the parts that a process's devices cut tasks into.
    """
    r, (data, fsdp, *_) = config.rollout, config.mesh or (1, 1)
    rows = (r.concurrent_tasks or r.tasks_per_step // learner.hosts) * (r.concurrent_rollouts or r.group_size)
    share = max(1, -(-num_tasks // learner.hosts))
    most = min(config.evaluation.concurrent_tasks or max(1, rows // group_size), share)
    wanted = -(
        -share // -(-share // most)
    )  # equal numbers each time, so that the last tasks do not play among empty slots
    parts = max(1, data * fsdp // math.gcd(fsdp, group_size) // learner.hosts)
    slots = -(-wanted // parts) * parts
    actor = learner.actor(group_size)
    return player(actor, codec, config.rollout, slots=slots, group_size=group_size, num_tokens=num_tokens)
