"""The arms of a study, the same for every suite: each is a change of the configuration that trains on its seeds alone."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rods_jax import boundary, filtering, samplers
from rods_jax.config import Config, SynthesisConfig
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.group_statistics import max_variance
from rods_jax.run.authors import contents_of, rule_based
from rods_jax.synthesis.algebra import the_seed_itself
from rods_jax.synthesis.offline import fill
from scripts.study.plan import Arm, Square

GeneratedBy = Callable[[Domain], Callable] | None  # an author as in SynthesisConfig; None: the rules


# --------------------------------------------------------------------------------------- who seeds synthesis
def synthesis(config: Config, *, author: GeneratedBy, signal: Callable = boundary.mean_band, **replay) -> Config:
    """Seeds by `signal`; variants are written between two steps, so that a run is the same to the bit."""
    made = None if author is None else SynthesisConfig(backends=dict, author=author, at_once=True)
    *before, last = config.stages
    return replace(
        config,
        stages=(*before, replace(last, synthesis=True)),
        update=replace(config.update, signal=signal),
        replay=replace(config.replay, **replay),
        synthesis=made,
    )


def once(config: Config, author: GeneratedBy) -> Config:
    """The first epoch writes what the others take: no refresh (Table 2, static pool).

    A seed is sent once in an epoch, and the quotas hold, so that there are about a seventh of the variants of `rods`.
    """
    made = synthesis(config, author=author, surplus=5.0, max_age=100)
    *before, last = made.stages
    return replace(made, stages=(*before, replace(last, refresh=False)))


ours = partial(synthesis, signal=boundary.beta_posterior, surplus=3.0, nearest_first=True, half_life=12.0)


# ----------------------------------------------------------------------------------------- what is played
def drawn(config: Config, weights: samplers.Weights, **rollout) -> Config:
    return replace(config, rollout=replace(config.rollout, weights=weights, **rollout))


def of_step(config: Config, weights: Callable, **rollout) -> Config:
    """A sampler that knows how many tasks a step has."""
    return drawn(config, partial(weights, tasks_per_step=config.rollout.tasks_per_step), **rollout)


def refilled(
    config: Config, keep: filtering.Keep = filtering.differing, refill: float = 3.0, even: bool = False
) -> Config:
    """Groups that `keep` refuses are dropped; even: they count in the mean of the loss all the same."""
    rollout = replace(config.rollout, keep=keep, refill=refill)
    return replace(config, rollout=rollout, update=replace(config.update, count_dropped=even))


def half_of_each_group(config: Config) -> Config:
    subset = partial(max_variance, keep=config.rollout.group_size // 2)
    return replace(config, update=replace(config.update, subset=subset))


def with_pool(config: Config, times: float) -> Config:
    """Variants of the seeds by the rules, so many times the seeds, written before training."""
    return replace(config, build_tasks=partial(offline, build_tasks=config.build_tasks, times=times))


def offline(domain: Domain, seed: int, *, build_tasks: Callable[[Domain, int], TaskSplits], times: float) -> TaskSplits:
    tasks = build_tasks(domain, seed)
    count = round(times * len(tasks.seeds))
    with tempfile.TemporaryDirectory() as folder:
        journal, write, known = Path(folder) / "journal", rule_based(domain, tasks), contents_of(tasks)
        settled = fill(journal, write, tasks.seeds, count=count, run_seed=seed, known=known)
        variants = [replace(one.candidate, ancestry=()) for one in settled if one.candidate is not None]
    return tasks._replace(seeds=(*tasks.seeds, *variants))


# ------------------------------------------------------------------------------------------------- the list
DIFFERING: dict[str, Any] = dict(keep=filtering.differing, refill=3.0)


def arms(author: GeneratedBy = None) -> tuple[Arm, ...]:
    """The registered arms, the primary ones first. author: of the suite's variants; None: the rules."""
    made, copied = partial(synthesis, author=author), partial(synthesis, author=the_seed_itself)
    return (
        Arm(name="static", about="the seeds, in epochs", seeds=12),
        Arm(name="rods", about="as published: seeds in the band, oldest variants first", change=made, seeds=12),
        Arm(name="random", about="synthesis from any seed", change=partial(made, signal=boundary.any_task), seeds=12),
        Arm(
            name="rods_ours", about="posterior with memory, surplus, nearest first", change=partial(ours, author=author)
        ),
        Arm(name="refill", about="static, groups without a gradient replaced (DAPO)", change=refilled),
        Arm(name="rods_copies", about="seeds in the band, played again instead of varied", change=copied),
        Arm(name="random_copies", about="any seed, played again", change=partial(copied, signal=boundary.any_task)),
    )


SQUARE = Square(
    arms=(("rods", "random"), ("rods_copies", "random_copies")),
    rows=("new tasks", "copies of the seeds"),
    columns=("seeds in the band", "any seeds"),
)


def rivals(author: GeneratedBy = None) -> tuple[Arm, ...]:
    """What others do, each with six seeds. author: as for `arms`."""
    coevolve = partial(synthesis, author=author, signal=boundary.coevolve)
    return (
        Arm(name="uniform", about="drawn evenly, without epochs", change=partial(drawn, weights=samplers.equal)),
        Arm(
            name="filtered",
            about="groups without a gradient dropped, none replaced",
            change=partial(refilled, refill=1.0),
        ),
        Arm(name="refill_even", about="refill; dropped groups count in the mean", change=partial(refilled, even=True)),
        Arm(name="pools", about="prime-rl's pools", change=partial(drawn, weights=samplers.difficulty_pools)),
        Arm(
            name="pools_gate",
            about="prime-rl's pools and gate",
            change=partial(drawn, weights=samplers.difficulty_pools, **DIFFERING),
        ),
        Arm(name="thompson", about="marin's Thompson, by task", change=partial(drawn, weights=samplers.thompson)),
        Arm(name="learnability", about="marin's p (1 - p)", change=partial(drawn, weights=samplers.learnability)),
        Arm(
            name="vcrl",
            about="drawn evenly; groups whose success does not vary replaced by those with most variance",
            change=partial(of_step, weights=samplers.variance_priority, keep=filtering.varied, refill=3.0),
        ),
        Arm(
            name="recycling",
            about="what taught rests for an epoch",
            change=partial(of_step, weights=samplers.recycling, **DIFFERING),
        ),
        Arm(
            name="prompt_replay",
            about="half of the mass by |p - 1/2|",
            change=partial(drawn, weights=samplers.prompt_replay),
        ),
        Arm(name="pcl", about="nearest to 1/2 by posterior", change=partial(of_step, weights=samplers.nearest_half)),
        Arm(name="pods", about="half of each group, by variance", change=half_of_each_group),
        Arm(name="coevolve", about="RODS with CoEvolve's signals", change=coevolve),
    )


OFFLINE = (
    Arm(name="offline", about="variants made beforehand, twice the seeds", change=partial(with_pool, times=2.0)),
    Arm(name="offline_17", about="variants made beforehand, 16 times the seeds", change=partial(with_pool, times=16.0)),
)


def ablations(author: GeneratedBy = None) -> tuple[Arm, ...]:
    """Exploration: Table 2 of RODS, as far as it is about rules and not about language models; random seeds are in `arms`."""
    made = partial(synthesis, author=author)
    return (
        Arm(
            name="binary",
            about="seeds by the share of whole tasks",
            change=partial(made, signal=boundary.binary_band),
            against="rods",
        ),
        Arm(
            name="no_retirement",
            about="what was injected stays",
            change=partial(made, retire_generated=False),
            against="rods",
        ),
        Arm(
            name="written_once",
            about="variants of the first epoch alone: fewer, and none later",
            change=partial(once, author=author),
            against="rods",
        ),
    )


def suggested(author: GeneratedBy = None) -> tuple[Arm, ...]:
    """Exploration: what the first runs suggested (docs/study/seeds.md)."""
    split = partial(synthesis, author=author, signal=boundary.split_band)
    unstuck = partial(split, retire_stuck=True)
    return (
        Arm(name="rods_split", about="seeds in the band whose rollouts differ", change=split, against="rods"),
        Arm(name="rods_unstuck", about="rods_split, and stuck variants leave", change=unstuck, against="rods"),
    )
