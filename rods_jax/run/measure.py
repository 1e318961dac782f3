"""Held-out evaluation of a run: the policy plays a sample of tasks once each, as many at a time as training has rollouts.

held_out.py computes the scores.  evaluating.py evaluates other players, and on other tasks.
"""

import itertools
from collections.abc import Collection, Sequence

from rods_jax import processes
from rods_jax.config import Config
from rods_jax.environments.protocol import StartEpisodes
from rods_jax.generation import Sampling
from rods_jax.held_out import sample_tasks, scores
from rods_jax.rewards import progress_reward
from rods_jax.rollout import collect
from rods_jax.run.learner import Learner
from rods_jax.run.playing import evaluation_player
from rods_jax.types import Task

EVALUATION = 1 << 29  # a bit of the step that keeps its noise apart from training's


def evaluation(config: Config, start: StartEpisodes, learner: Learner, codec, num_tokens: int, unfit: Collection[str]):
    """(params, tasks, step) -> the scores of a sample of the tasks, played once at temperature 1 and once greedily.

    unfit: tasks that exceed the limits; the others are scored apart as well.
    """
    play = evaluation_player(config, learner, codec, num_tokens, config.evaluation.num_tasks)

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
        chosen = sample_tasks(tasks, config.evaluation.num_tasks)
        if not chosen:
            return {}
        params = learner.whole(params)  # once, because it sends every parameter to the other processes
        sampled = measure_all(params, chosen, step, 1.0)
        greedily = measure_all(params, chosen, step, 0.0) if greedy else None
        return scores(name, chosen, sampled, greedily, unfit)

    return evaluate
