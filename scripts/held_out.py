"""Held-out evaluation of a run: the policy plays a sample of tasks once each, as many at a time as training has rollouts.

Left out on purpose: what is scored (rods_jax/held_out.py), and evaluations of other players (scripts/evaluate.py).
"""

import itertools
import math
from collections.abc import Collection, Sequence

import jax

from rods_jax import processes
from rods_jax.config import Config
from rods_jax.environments.episode import StartEpisodes
from rods_jax.generation import Sampling
from rods_jax.held_out import sample, scores
from rods_jax.rewards import progress_reward
from rods_jax.rollout import collect, player
from rods_jax.types import Task
from scripts.policies import RunPolicy, actor_for

EVALUATION = 1 << 29  # a bit of the step that keeps its noise apart from training's


def evaluation(
    config: Config, start: StartEpisodes, learner: RunPolicy, codec, num_tokens: int, unfit: Collection[str]
):
    """(params, tasks, step) -> the scores of a sample of the tasks, played once at temperature 1 and once greedily.

    unfit: tasks that the limits cannot hold, which are scored apart too.
    """
    slots = evaluation_slots(config, config.evaluation.num_tasks)
    play = player(
        actor_for(config, learner, 1), codec, config.rollout, slots=slots, group_size=1, num_tokens=num_tokens
    )

    def measure(params, tasks: Sequence[Task], step: int, temperature: float) -> list[float | None]:
        rollouts = collect(
            params,
            tasks,
            play._replace(sampling=Sampling(temperature)),
            start=start,
            seed=config.seed,
            step=EVALUATION | step,
            reward=progress_reward,
        )
        return [None if one.failure is not None else progress_reward(one) for one in rollouts.trajectories]

    def measure_all(params, tasks: Sequence[Task], step: int, temperature: float) -> list[float | None]:
        share = processes.share_of(tasks)
        rewards = processes.gather(measure(params, share, step, temperature) if share else [])
        return list(itertools.chain.from_iterable(rewards))

    def evaluate(params, tasks: Sequence[Task], step: int, name: str, greedy: bool = True) -> dict[str, float]:
        chosen = sample(tasks, config.evaluation.num_tasks)
        if not chosen:
            return {}
        params = learner.whole(params)  # once: between processes this sends every parameter
        sampled = measure_all(params, chosen, step, 1.0)
        greedily = measure_all(params, chosen, step, 0.0) if greedy else None
        return scores(name, chosen, sampled, greedily, unfit)

    return evaluate


def evaluation_slots(config: Config, num_tasks: int, group_size: int = 1) -> int:
    """How many of `num_tasks` a process evaluates at a time: with as many rollouts as in training, unless the config says.

    A multiple of the parts that its devices cut tasks into.
    """
    r, (data, fsdp, *_) = config.rollout, config.mesh or (1, 1)
    hosts = jax.process_count()
    rows = (r.concurrent_tasks or r.tasks_per_step // hosts) * (r.concurrent_rollouts or r.group_size)
    share = max(1, -(-num_tasks // hosts))
    most = min(config.evaluation.concurrent_tasks or max(1, rows // group_size), share)
    wanted = -(-share // -(-share // most))  # as many each time: the last few must not play among empty slots
    parts = max(1, data * fsdp // math.gcd(fsdp, group_size) // hosts)
    return -(-wanted // parts) * parts
