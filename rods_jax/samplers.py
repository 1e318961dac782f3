"""Which tasks a step plays: weights in the place of epochs.

    pool -> table of its latest measurements -> weights -> the order in which a step draws its tasks

A sampler is `weights(table, rng) -> float64 [N]`, pure, on the host; `rng` follows from the run's seed and the step.
There is one draw for all of them, without replacement, from random numbers that follow from seed, step and task.  So a
run resumes exactly without a state of its own, and runs that differ in their weights share their chance: where weights
are equal, so are the batches.

How often each of them is played is `group_sizes`' choice, from the same table.
What is synthesised from is another choice (boundary.py), and what is learnt from of what was played a third (filtering.py).
"""

import hashlib
from collections.abc import Callable

import numpy as np

from rods_jax.replay import ReplayState, Table, table
from rods_jax.types import Task

Weights = Callable[[Table, np.random.Generator], np.ndarray]
GroupSizes = Callable[[Table, int], np.ndarray]  # (table, G) -> int [N], at least G/2 and at most G

FIRST = 1e30  # a weight with which a task precedes all of weight 1: a gumbel of 53 bits is from -4 to 37


# -------------------------------------------------------------------------------------- the draw
def drawn(state: ReplayState, weights: Weights, *, seed: int, step: int) -> tuple[Task, ...]:
    """All tasks of the pool in the order in which `step` draws them; those of weight 0 come last, in an even draw.

    ValueError: the weights are not one for each task, or one of them is negative or not finite.
    """
    seen = table(state, step)
    weights_N = np.asarray(weights(seen, np.random.default_rng([seed, step])), np.float64)
    if weights_N.shape != (len(seen.ids),) or not np.isfinite(weights_N).all() or (weights_N < 0).any():
        raise ValueError(f"rollout.weights must give a finite weight of at least 0 for each of {len(seen.ids)} tasks")
    gumbel_N = np.array([gumbel(seed, step, task_id) for task_id in seen.ids])
    none_N = weights_N == 0
    order_N = np.lexsort((-np.log(np.where(none_N, 1.0, weights_N)) - gumbel_N, none_N))
    tasks = [item.task for item in state.items]
    return tuple(tasks[place] for place in order_N)


def gumbel(seed: int, step: int, task_id: str) -> float:
    """-log(-log u), u uniform in (0, 1) from a hash: the n largest of log w + gumbel are n draws without replacement.

    Source: Kool et al., arXiv 1903.06059, section 2.2.
    """
    digest = hashlib.sha256(f"{seed}/{step}/{task_id}".encode()).digest()
    u = ((int.from_bytes(digest[:8], "big") >> 11) + 0.5) / 2.0**53
    return float(-np.log(-np.log(u)))


# ------------------------------------------------------------------------------------- samplers
def equal(table: Table, rng: np.random.Generator) -> np.ndarray:
    """All tasks alike: a uniform draw in every step, without epochs."""
    return np.ones(len(table.ids))


def difficulty_pools(
    table: Table,
    rng: np.random.Generator,
    *,
    hard: float = 0.25,
    easy: float = 0.75,
    weights: tuple[float, float, float] = (0.2, 1.0, 0.2),
) -> np.ndarray:
    """By the latest mean: hard up to 0.25, normal up to 0.75, easy above; 1 for tasks that were never played.

    Source: prime-rl's DifficultyPoolSampler with its defaults.  There one task may be drawn twice in a step.
    """
    of_pool_N = np.select([table.mean_N <= hard, table.mean_N <= easy], weights[:2], weights[2])
    return np.where(table.seen_N, of_pool_N, 1.0)


def thompson(table: Table, rng: np.random.Generator, *, decay: float = 0.7, floor: float = 0.05) -> np.ndarray:
    """theta ~ Beta(1 + I, 1 + T - I): T of the W latest groups, I with different rewards, discounted by decay^age.

    A share `floor` of the mass is spread evenly.  Source: marin's curriculum sampler, which has bins of tasks; here each
    task is a bin, and a visit discounts (our choice).
    """
    past_W = decay ** np.arange(table.steps_NW.shape[1])
    groups_N = (past_W * (table.steps_NW >= 0)).sum(1)
    informative_N = (past_W * table.differed_NW).sum(1)
    theta_N = np.asarray(rng.beta(1 + informative_N, 1 + groups_N - informative_N))
    return (1 - floor) * theta_N / theta_N.sum() + floor / len(theta_N)


def learnability(table: Table, rng: np.random.Generator, *, decay: float = 0.7) -> np.ndarray:
    """p (1 - p) with p ~ Beta(1 + S, 1 + n - S): n rollouts with summed progress S, discounted as in `thompson`.

    Source: marin's curriculum sampler, `learnability`; progress counts in the place of solved rollouts (our choice).
    """
    past_W = decay ** np.arange(table.steps_NW.shape[1])
    rollouts_N = (past_W * table.counts_NW).sum(1)
    progress_N = (past_W * table.counts_NW * np.nan_to_num(table.means_NW)).sum(1)
    p_N = np.asarray(rng.beta(1 + progress_N, 1 + rollouts_N - progress_N))
    return p_N * (1 - p_N)


def variance_priority(
    table: Table, rng: np.random.Generator, *, tasks_per_step: int, momentum: float = 0.9
) -> np.ndarray:
    """A step's tasks drawn evenly; after them, to replace what is dropped, 4 m (1 - m) of the W latest means.

    m is weighed by momentum^age, and new tasks have 1.  m is progress, for success is not in the table: the score is 0 where
    no rollout or every one passed all checks.  With `filtering.varied` and a refill it stands for VCRL (arXiv 2509.19803),
    whose bank holds what was kept.  The average over W and the weight of new tasks are our choice.
    """
    past_W = momentum ** np.arange(table.steps_NW.shape[1]) * (table.steps_NW >= 0)
    mixed_NW = (table.lows_NW < 1) & (table.highs_NW == 1)
    score_NW = np.where(mixed_NW, 4 * np.nan_to_num(table.means_NW) * (1 - np.nan_to_num(table.means_NW)), 0.0)
    share_N = past_W.sum(1)
    weights_N = np.where(table.seen_N, (past_W * score_NW).sum(1) / np.where(share_N > 0, share_N, 1), 1.0)
    weights_N[rng.permutation(len(table.ids))[:tasks_per_step]] = FIRST
    return weights_N


def recycling(table: Table, rng: np.random.Generator, *, tasks_per_step: int) -> np.ndarray:
    """0 for a task whose latest rollouts differed, for as many steps as an epoch has; 1 for all others.

    With `filtering.differing` and a refill it is query recycling (arXiv 2606.10709): what taught is consumed, the rest
    returns.  When consumed tasks return is our choice.  The step before is not known yet (`Table`), so that what taught
    in it may be drawn once more, and rests after that.  A group that differed and found no place rests too.
    """
    epoch = len(table.ids) / tasks_per_step
    consumed_N = table.differed_NW[:, 0] & (table.step - table.steps_NW[:, 0] <= epoch)
    return np.where(consumed_N, 0.0, 1.0)


def prompt_replay(
    table: Table,
    rng: np.random.Generator,
    *,
    share: float = 0.5,
    band: tuple[float, float] = (0.25, 0.75),
    cooldown: int = 5,
) -> np.ndarray:
    """`share` of the mass for tasks in the band that have rested for `cooldown` steps, by 1 - |2 p - 1|; the rest evenly.

    The step before is not known yet (`Table`), so that a task may be drawn twice in a row, and rests after that.
    Source: Prompt Replay (arXiv 2603.21177); share and cooldown are our choice, and no task is used up.
    """
    mean_N = np.nan_to_num(table.mean_N, nan=-1.0)
    rested_N = table.step - table.steps_NW[:, 0] > cooldown
    score_N = np.where((band[0] <= mean_N) & (mean_N <= band[1]) & rested_N, 1 - np.abs(2 * mean_N - 1), 0.0)
    even_N = np.full(len(table.ids), (1 - share) / len(table.ids))
    return even_N + (share * score_N / score_N.sum() if score_N.any() else 0.0)


def nearest_half(
    table: Table, rng: np.random.Generator, *, tasks_per_step: int, candidates: int = 4, width: float = 1e-3
) -> np.ndarray:
    """exp(-|V - 1/2| / width) for `candidates` times a step's tasks, drawn evenly; 0 for all others.

    V is the mean of Beta(1 + S, 1 + n - S) as in `learnability`, but all W measurements count alike.  Source: PCL
    (arXiv 2510.01135), with a posterior in the place of its value model (our choice); `width` is that of DOTS (2506.05316).
    """
    rollouts_N = table.counts_NW.sum(1)
    value_N = (1 + (table.counts_NW * np.nan_to_num(table.means_NW)).sum(1)) / (2 + rollouts_N)
    chosen = rng.permutation(len(table.ids))[: candidates * tasks_per_step]
    weights_N = np.zeros(len(table.ids))
    weights_N[chosen] = np.exp(-np.abs(value_N[chosen] - 0.5) / width)
    return weights_N


# ------------------------------------------------------------------------------------- group sizes
def group_sizes_of(state: ReplayState, sizes: GroupSizes | None, *, group_size: int, step: int) -> dict[str, int]:
    """How often `step` plays each task of the pool; None: `group_size` times.

    ValueError: the sizes are not one for each task, or one of them is below half of `group_size`, or above it.
    """
    if sizes is None:
        return {item.task.id: group_size for item in state.items}
    seen = table(state, step)
    sizes_N = np.asarray(sizes(seen, group_size))
    fit = sizes_N.shape == (len(seen.ids),) and np.issubdtype(sizes_N.dtype, np.integer)
    if not fit or (2 * sizes_N < group_size).any() or (sizes_N > group_size).any():
        least = (group_size + 1) // 2
        raise ValueError(
            f"rollout.group_sizes must give a whole number from {least} to {group_size} for each of {len(seen.ids)} tasks"
        )
    return dict(zip(seen.ids, sizes_N.tolist(), strict=True))


def by_difficulty(table: Table, group_size: int) -> np.ndarray:
    """ceil(G min(1, 3/2 - m)), m the latest mean: G up to one half, then down to G/2 at 1; G for new tasks.

    Source: DART (arXiv 2509.23866), which plays tasks less often the better they are mastered; this line is our choice.
    """
    mean_N = np.nan_to_num(table.mean_N, nan=0.0)
    return np.ceil(group_size * np.minimum(1.0, 1.5 - mean_N) - 1e-9).astype(np.int64)  # what rounding adds is none
