"""With how many tasks and rows at a time a run's policy plays: in training, in its evaluations, and in scripts.evaluate.

Left out on purpose: playing itself (rods_jax/rollout.py).
"""

import math
from typing import Any

from rods_jax.config import Config, RolloutConfig
from rods_jax.rollout import Player, player
from rods_jax.run.learner import Learner


def training_player(config: Config, learner: Learner, codec: Any, sizes: RolloutConfig, num_tokens: int) -> Player:
    """A stage's: whole groups of the tasks that a process has at a time."""
    share = config.rollout.tasks_per_step // learner.hosts
    actor = learner.actor(sizes.concurrent_rollouts or sizes.group_size)
    slots = min(config.rollout.concurrent_tasks or share, share)
    return player(actor, codec, sizes, slots=slots, num_tokens=num_tokens)


def evaluation_player(
    config: Config, learner: Learner, codec: Any, num_tokens: int, num_tasks: int, group_size: int = 1
) -> Player:
    """Of `num_tasks` as many at a time as give as many rollouts as in training, unless the config says how many.

    A multiple of the parts that a process's devices cut tasks into.
    """
    r, (data, fsdp, *_) = config.rollout, config.mesh or (1, 1)
    rows = (r.concurrent_tasks or r.tasks_per_step // learner.hosts) * (r.concurrent_rollouts or r.group_size)
    share = max(1, -(-num_tasks // learner.hosts))
    most = min(config.evaluation.concurrent_tasks or max(1, rows // group_size), share)
    wanted = -(-share // -(-share // most))  # as many each time: the last few must not play among empty slots
    parts = max(1, data * fsdp // math.gcd(fsdp, group_size) // learner.hosts)
    slots = -(-wanted // parts) * parts
    actor = learner.actor(group_size)
    return player(actor, codec, config.rollout, slots=slots, group_size=group_size, num_tokens=num_tokens)
