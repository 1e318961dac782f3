"""What may be concluded from paired runs: pure functions of differences between two arms.

Notation: S seeds that both arms have, K held-out tasks that all seeds share.  Left out on purpose: t tests of unpaired
runs, and any test that is not in docs/study/preregistration.md.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import stats

EQUAL = 1e-12  # differences that are no further apart are equal


class Paired(NamedTuple):
    """A paired t test, two-sided, with its 95 % interval."""

    num_seeds: int
    mean: float
    sd: float  # with n - 1
    low: float
    high: float
    p: float


def paired_t(differences_S: Sequence[float]) -> Paired:
    """t = mean / (sd / sqrt n) with n - 1 degrees of freedom; ValueError: fewer than two seeds."""
    if len(differences_S) < 2:
        raise ValueError(f"a paired test needs at least two seeds: got {len(differences_S)}")
    d_S = np.asarray(differences_S, np.float64)
    mean, sd = float(d_S.mean()), float(d_S.std(ddof=1))
    if np.ptp(d_S) < EQUAL:  # equal differences have no t
        return Paired(len(d_S), mean, 0.0, mean, mean, float(mean == 0))
    test = stats.ttest_1samp(d_S, 0.0)
    low, high = test.confidence_interval(0.95)
    return Paired(len(d_S), mean, sd, float(low), float(high), float(test.pvalue))


def sign_flips(differences_S: Sequence[float]) -> float:
    """Exact two-sided p: the share of all 2^S sign patterns whose mean is at least as far from 0 (4,096 for 12 seeds).

    Sums that differ by less than the scores' rounding to six digits count as equal.
    """
    d_S = np.asarray(differences_S, np.float64)
    signs_FS = np.array(list(product((1.0, -1.0), repeat=len(d_S))))
    return float((np.abs(signs_FS @ d_S) >= abs(d_S.sum()) - 1e-6 * len(d_S)).mean())


def crossed_bootstrap(differences_SK: np.ndarray, *, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean over new seeds and new tasks: both are resampled, independently.

    The same indices are taken from both arms, because differences are.  Source: the pigeonhole bootstrap, Owen 2007
    (arXiv 0712.1111), section 3.
    """
    rng = np.random.default_rng(seed)
    seeds, tasks = differences_SK.shape
    # How often each seed and each task was drawn; the mean of a resample is then a bilinear form.
    seeds_DS = rng.multinomial(seeds, [1 / seeds] * seeds, size=draws) / seeds
    tasks_DK = rng.multinomial(tasks, [1 / tasks] * tasks, size=draws) / tasks
    means_D = np.einsum("ds,sk,dk->d", seeds_DS, differences_SK, tasks_DK, optimize=True)
    low, high = np.percentile(means_D, [2.5, 97.5])
    return float(low), float(high)


def holm(p_C: Sequence[float]) -> list[float]:
    """Adjusted p values of a family: max over the smaller ones of (C - rank) p, at most 1 (Holm 1979)."""
    order = np.argsort(p_C, kind="stable")
    adjusted, largest = [0.0] * len(p_C), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_C) - rank) * p_C[place]))
        adjusted[place] = largest
    return adjusted


def equivalence(differences_S: Sequence[float], margin: float) -> float:
    """p of two one-sided t tests that the mean lies within +-margin (TOST): the larger of both."""
    d_S = np.asarray(differences_S, np.float64)
    if np.ptp(d_S) < EQUAL:
        return float(abs(d_S.mean()) >= margin)
    below = stats.ttest_1samp(d_S, -margin, alternative="greater").pvalue
    above = stats.ttest_1samp(d_S, margin, alternative="less").pvalue
    return float(max(below, above))


def power(effect: float, sd: float, count: int, alpha: float = 0.05) -> float:
    """Of a two-sided paired t test with `count` seeds, for a true difference and the sd of differences."""
    critical, shift = stats.t.ppf(1 - alpha / 2, count - 1), effect / sd * count**0.5
    return float(stats.nct.sf(critical, count - 1, shift) + stats.nct.cdf(-critical, count - 1, shift))


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's, of the means of the same arms in two suites; nan where one of them is constant or has one arm."""
    if len(a) < 2 or not np.ptp(a) or not np.ptp(b):
        return float("nan")
    return float(stats.spearmanr(a, b).statistic)


def reliability(scores_AS: np.ndarray, *, splits: int = 2000, seed: int = 0) -> float:
    """Mean rank correlation of the arms between two random halves of the seeds, stepped up to all by Spearman-Brown.

    Where it is low, a rank correlation between suites says nothing.  nan for fewer than four seeds, and for orders that
    are each other's reverse in every split.
    """
    if scores_AS.shape[1] < 4:
        return float("nan")
    rng, half = np.random.default_rng(seed), scores_AS.shape[1] // 2
    orders = (rng.permutation(scores_AS.shape[1]) for _ in range(splits))
    found = [
        rank_correlation(scores_AS[:, order[:half]].mean(1), scores_AS[:, order[half : 2 * half]].mean(1))
        for order in orders
    ]
    mean = float(np.nanmean(found)) if not np.isnan(found).all() else float("nan")
    return 2 * mean / (1 + mean) if mean > -1 else float("nan")
