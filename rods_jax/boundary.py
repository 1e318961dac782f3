"""Public kernel: which tasks sit at the policy's capability boundary, and which become seeds, on device.

The caller defines the boundary by a function, signal(evidence, lower=, upper=) -> Detection.  `mean_band` is the
paper's.  `observed_variance`, `beta_posterior` and `informative` are others, measured in docs/log/boundary.md;
`split_band` is what the study suggests (docs/study/seeds.md).
`binary_band` and `any_task` are the paper's ablations; `coevolve` and `reward_entropy` are rivals'.  All are elementwise
over tasks, so N may be mapped or sharded; a task's G rollouts stay together.

The caller clears `eligible_N` while a task cools down; the replay pool retires tasks.
"""

from fractions import Fraction
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

HARD, BOUNDARY, MASTERED = 0, 1, 2
BAND = (0.20, 0.85)  # the mean rewards between which a task is at the boundary, both inclusive (RODS section 2.2)

_LARGEST_DENOMINATOR = 10_000  # keeps the cross products of `partition` inside int32


class Evidence(NamedTuple):
    """What a step shows of its tasks, and what earlier steps showed."""

    passed_NG: jax.Array  # int32, checks that each rollout passed
    valid_NG: jax.Array  # bool, False: the rollout tells nothing
    checks_N: jax.Array  # int32
    earlier_passed_N: jax.Array  # float32, checks passed in earlier steps; older steps have less weight
    earlier_total_N: jax.Array  # float32, all checks in earlier steps, with the same weights
    best_before_N: jax.Array | float = 0.0  # float32, largest share of the checks that an earlier rollout passed

    @property
    def passed_N(self) -> jax.Array:
        """int32 [N], checks passed by the valid rollouts together."""
        return jnp.sum(self.passed_NG * self.valid_NG, axis=1)

    @property
    def total_N(self) -> jax.Array:
        """int32 [N], valid rollouts times checks."""
        return self.checks_N * self.count_N

    @property
    def low_N(self) -> jax.Array:
        """int32 [N], fewest checks that a valid rollout passed; all of them where none is valid."""
        return jnp.min(jnp.where(self.valid_NG, self.passed_NG, self.checks_N[:, None]), axis=1)

    @property
    def high_N(self) -> jax.Array:
        """int32 [N], most checks that a valid rollout passed; 0 where none is valid."""
        return jnp.max(self.passed_NG * self.valid_NG, axis=1)

    @property
    def count_N(self) -> jax.Array:
        """int32 [N], valid rollouts."""
        return jnp.sum(self.valid_NG, axis=1, dtype=jnp.int32)


class Detection(NamedTuple):
    """Where a signal sees the tasks."""

    scores_N: jax.Array  # float32 in [0, 1], the rank among seeds
    zones_N: jax.Array  # int32; only BOUNDARY tasks become seeds


class Seeds(NamedTuple):
    """The selected tasks, best first."""

    indices_k: jax.Array  # int32 [sum(quotas)], positions in the batch, -1 after the last seed
    count: jax.Array  # type: ignore[assignment]  # int32 scalar, number of seeds; hides the count() of tuples


def boundary_score(mean: jax.Array) -> jax.Array:
    """4 r (1 - r): the bound of the reward variance, scaled to [0, 1]; any shape (RODS section 2.1)."""
    return 4.0 * mean * (1.0 - mean)


def partition(
    passed_N: jax.Array,
    total_N: jax.Array,
    *,
    lower: float | Fraction = BAND[0],
    upper: float | Fraction = BAND[1],
) -> jax.Array:
    """Zone of each task: HARD if r < lower, MASTERED if r > upper, else BOUNDARY, with r = passed / total.

    The inclusive edges are exact.  A threshold is read as the decimal that it prints as (0.85 is 17/20), and compared
    by cross-multiplied integers.  A task without checks (all masked) is HARD, hence never a seed.

    Args:
      passed_N: [N] integers, checks passed by the task's valid rollouts together.
      total_N: [N] integers, valid rollouts times checks; at most 214,748.
      lower, upper: 0 <= lower <= upper <= 1, denominator at most 10,000 (four decimals, or a Fraction).

    Returns [N] int32.  Raises AssertionError (dtypes) and ValueError (thresholds).  Source: RODS section 2.2.
    """
    chex.assert_type([passed_N, total_N], int)
    low, high = Fraction(str(lower)), Fraction(str(upper))
    if not 0 <= low <= high <= 1:
        raise ValueError(f"thresholds must satisfy 0 <= lower <= upper <= 1, got {lower} and {upper}")
    if max(low.denominator, high.denominator) > _LARGEST_DENOMINATOR:
        raise ValueError(f"thresholds have at most four decimals, got {lower} and {upper}")
    # passed / total < lower and > upper, multiplied by both denominators.
    passed_N, total_N = passed_N.astype(jnp.int32), total_N.astype(jnp.int32)
    hard_N = (passed_N * low.denominator < low.numerator * total_N) | (total_N == 0)
    mastered_N = passed_N * high.denominator > high.numerator * total_N
    return jnp.where(hard_N, HARD, jnp.where(mastered_N, MASTERED, BOUNDARY)).astype(jnp.int32)


# ---------------------------------------------------------------------------------------- signals
def mean_band(evidence: Evidence, *, lower: float | Fraction, upper: float | Fraction) -> Detection:
    """The paper's: zones and `boundary_score` of the mean progress reward r (RODS sections 2.1 and 2.2)."""
    return _band(evidence.passed_N, evidence.total_N, lower, upper)


def split_band(evidence: Evidence, *, lower: float | Fraction, upper: float | Fraction) -> Detection:
    """`mean_band` of the tasks whose rollouts differ: where all valid ones pass equally many checks, the zone is HARD.

    Such a group has no gradient, whatever its mean, and a policy that fails one check each time stays in the band for good.
    """
    scores_N, zones_N = mean_band(evidence, lower=lower, upper=upper)
    stuck_N = (zones_N == BOUNDARY) & (evidence.low_N >= evidence.high_N)
    return Detection(scores_N, jnp.where(stuck_N, HARD, zones_N))


def binary_band(evidence: Evidence, *, lower: float | Fraction, upper: float | Fraction) -> Detection:
    """`mean_band` of the share of rollouts that pass every check (ablation: binary accuracy for detection)."""
    solved_NG = (evidence.passed_NG == evidence.checks_N[:, None]) & evidence.valid_NG
    return _band(jnp.sum(solved_NG, axis=1, dtype=jnp.int32), evidence.count_N, lower, upper)


def any_task(evidence: Evidence, *, lower: float | Fraction, upper: float | Fraction) -> Detection:
    """All tasks score alike, so the batch's first eligible tasks are seeds (ablation: random seed selection).

    They are a uniform draw only if the batch is in random order, as `replay.epoch_batches` gives it.
    """
    zeros_N = jnp.zeros_like(evidence.checks_N)
    return Detection(zeros_N.astype(jnp.float32), zeros_N + BOUNDARY)


def coevolve(evidence: Evidence, *, lower: float | Fraction, upper: float | Fraction) -> Detection:
    """Forgotten, or solved by some rollouts only; the score is the share of the two that holds (CoEvolve, arXiv 2604.15840).

    A rollout that passes half of the checks is a success.  Forgotten: an earlier one was, and the mean is below half now.
    The third signal, rare patterns of calls, is left out; the union and the score are our choice.
    """
    checks_N = evidence.checks_N
    forgotten_N = (evidence.best_before_N >= 0.5) & (2 * evidence.passed_N < evidence.total_N)
    split_N = (2 * evidence.high_N >= checks_N) & (2 * evidence.low_N < checks_N)
    count_N = forgotten_N.astype(jnp.int32) + split_N
    return Detection(count_N / 2.0, jnp.where(count_N > 0, BOUNDARY, HARD).astype(jnp.int32))


def observed_variance(evidence: Evidence, *, lower: float | Fraction, upper: float | Fraction) -> Detection:
    """Zones of `mean_band`; the score is 4 Var R, of which the paper's 4 r (1 - r) is the upper bound."""
    valid_NG, count_N = evidence.valid_NG, jnp.maximum(evidence.count_N, 1)
    mean_N = evidence.passed_N / count_N  # exact where all rollouts pass equally many checks
    deviations_NG = jnp.where(valid_NG, evidence.passed_NG - mean_N[:, None], 0.0)
    variance_N = jnp.sum(jnp.square(deviations_NG), axis=1) / (count_N * jnp.square(_checks(evidence)))
    return Detection(4.0 * variance_N, partition(evidence.passed_N, evidence.total_N, lower=lower, upper=upper))


def beta_posterior(evidence: Evidence, *, lower: float | Fraction, upper: float | Fraction) -> Detection:
    """Zones of the mean of p ~ Beta(1/2 + S, 1/2 + T - S), score 4 E[p (1 - p)] = 4 ab / ((a + b)(a + b + 1)).

    S sums the progress rewards of this step's rollouts and, discounted, of earlier ones; T counts the rollouts.  A
    rollout is one trial, however many checks it has, because those of one episode depend on each other.  It tells at
    least as much as one trial, because Var R <= r (1 - r).  The prior is Jeffreys'.  A task without rollouts is HARD.
    """
    checks_N = _checks(evidence)
    successes_N = (evidence.passed_N + evidence.earlier_passed_N) / checks_N
    trials_N = (evidence.total_N + evidence.earlier_total_N) / checks_N
    a_N, b_N = 0.5 + successes_N, 0.5 + trials_N - successes_N
    mean_N = a_N / (a_N + b_N)
    hard_N = (mean_N < float(lower)) | (trials_N == 0)
    zones_N = jnp.where(hard_N, HARD, jnp.where(mean_N > float(upper), MASTERED, BOUNDARY))
    return Detection(4.0 * a_N * b_N / ((a_N + b_N) * (a_N + b_N + 1.0)), zones_N.astype(jnp.int32))


def informative(evidence: Evidence, *, lower: float | Fraction, upper: float | Fraction) -> Detection:
    """Zones of `mean_band`; the score is the probability that the next group's G rewards are not all equal.

    A group of equal rewards has advantage 0 and no gradient, whatever its mean.  n_l of n rollouts pass l of U checks;
    the prior is a Dirichlet distribution with weights 1 / (U + 1).  The score is
    1 - sum_l prod_{i<G} (n_l + 1 / (U + 1) + i) / (n + 1 + i).
    """
    # For each rollout: how many valid ones passed equally many checks, and its share of that level l.
    alike_NG, valid_NG, group_size = _alike(evidence), evidence.valid_NG, evidence.valid_NG.shape[1]
    share_NG = valid_NG / jnp.maximum(alike_NG, 1)  # sums to 1 over the valid rollouts of a level
    levels_N = _checks(evidence) + 1.0

    def all_reach(weights_NG):
        """The probability that G rollouts all reach one level of this weight."""
        draws_G = jnp.arange(group_size, dtype=jnp.float32)[None, None, :]
        totals_N = evidence.count_N[:, None, None] + 1.0
        return jnp.prod((weights_NG[:, :, None] + draws_G) / (totals_N + draws_G), axis=2)

    # Sum over the levels that some rollout reached, then over all others, which have n_l = 0.
    seen_N = jnp.sum(share_NG * all_reach(alike_NG + 1.0 / levels_N[:, None]), axis=1)
    unseen_N = (levels_N - share_NG.sum(axis=1)) * all_reach(1.0 / levels_N[:, None])[:, 0]
    scores_N = 1.0 - jnp.minimum(seen_N + unseen_N, 1.0)
    return Detection(scores_N, partition(evidence.passed_N, evidence.total_N, lower=lower, upper=upper))


def reward_entropy(evidence: Evidence, *, lower: float | Fraction, upper: float | Fraction) -> Detection:
    """Zones of `mean_band`; the score is the entropy of the number of checks passed (DreamGym, arXiv 2511.03773).

    n_l of n valid rollouts pass l of U checks, and the score is -sum_l (n_l / n) log(n_l / n) / log(U + 1).
    The plain estimate is biased low, by about (levels seen - 1) / (2 n) nats.  DreamGym's rewards are binary.
    """
    alike_NG, count_N = _alike(evidence), evidence.count_N
    # A rollout of a level that n_l share adds log(n / n_l) / n, so that together they add the level's term.
    surprise_NG = jnp.log(jnp.maximum(count_N, 1)[:, None] / jnp.maximum(alike_NG, 1))
    entropy_N = jnp.sum(surprise_NG, axis=1, where=evidence.valid_NG) / jnp.maximum(count_N, 1)
    scores_N = jnp.minimum(entropy_N / jnp.log(_checks(evidence) + 1.0), 1.0)
    return Detection(scores_N, partition(evidence.passed_N, evidence.total_N, lower=lower, upper=upper))


def _alike(evidence: Evidence) -> jax.Array:
    """int32 [N,G], for each rollout: how many valid ones passed equally many checks."""
    passed_NG, valid_NG = evidence.passed_NG, evidence.valid_NG
    return jnp.sum((passed_NG[:, :, None] == passed_NG[:, None, :]) & valid_NG[:, None, :], axis=2)


def _band(passed_N: jax.Array, total_N: jax.Array, lower: float | Fraction, upper: float | Fraction) -> Detection:
    scores_N = boundary_score(passed_N / jnp.maximum(total_N, 1))
    return Detection(scores_N, partition(passed_N, total_N, lower=lower, upper=upper))


def _checks(evidence: Evidence) -> jax.Array:
    return jnp.maximum(evidence.checks_N, 1).astype(jnp.float32)


# -------------------------------------------------------------------------------------- selection
def select_seeds(
    scores_N: jax.Array,
    zones_N: jax.Array,
    categories_N: jax.Array,
    eligible_N: jax.Array,
    *,
    quotas: tuple[int, ...],
) -> Seeds:
    """The best-scored eligible boundary tasks, at most `quotas[c]` of category c, ties by lower index.

    Unused quota is not redistributed.  A category outside [0, len(quotas)) has no quota.

    Args:
      scores_N, zones_N: [N] float32 and int32, as a signal gives.
      categories_N: [N] int32.
      eligible_N: [N] bool, False while a task cools down or must not be a seed.
      quotas: static; their sum k may exceed N.

    Raises AssertionError (shapes) and ValueError (negative quota).  Source: RODS section 2.3.
    """
    scores_N, zones_N, categories_N, eligible_N = map(jnp.asarray, (scores_N, zones_N, categories_N, eligible_N))
    chex.assert_rank(scores_N, 1)
    chex.assert_equal_shape([scores_N, zones_N, categories_N, eligible_N])
    if min(quotas, default=0) < 0:
        raise ValueError(f"quotas must not be negative, got {quotas}")
    # Sort by score, and keep the first `quotas[c]` candidates of each category.
    order_N = jnp.argsort(-scores_N, stable=True)
    candidate_N = ((zones_N == BOUNDARY) & eligible_N)[order_N]
    member_NC = candidate_N[:, None] & (categories_N[order_N][:, None] == jnp.arange(len(quotas))[None, :])
    within_NC = jnp.cumsum(member_NC, axis=0) <= jnp.array(quotas, jnp.int32)[None, :]
    chosen_N = (member_NC & within_NC).any(axis=1)
    # Their places in the batch, best first; -1 fills up.
    positions_k = jnp.flatnonzero(chosen_N, size=sum(quotas), fill_value=order_N.size)
    return Seeds(jnp.append(order_N, -1)[positions_k].astype(jnp.int32), chosen_N.sum(dtype=jnp.int32))
