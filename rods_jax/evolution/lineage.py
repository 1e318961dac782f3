"""How a version of a pair did, whether it stays, and when rounds bring nothing more."""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from rods_jax.evolution.attempt import Tried, acceptance, agreement
from rods_jax.evolution.pairs import PlanPair


class Lineage(NamedTuple):
    """The best version of a pair."""

    pair: PlanPair
    outcomes: tuple[Tried, ...] = ()  # of this version
    latest: int = 0  # the number of the pair's latest version
    worse: tuple[str, ...] = ()  # lines of versions that did worse
    rolled_back: int = 0  # so many versions


class Round(NamedTuple):
    """What was tried in a round of the pilot."""

    pairs: tuple[PlanPair, ...]
    outcomes: tuple[Tried, ...]


def after_trying(lineage: Lineage, pair: PlanPair, outcomes: Sequence[Tried], tolerance: float) -> Lineage:
    """The lineage after a version was tried: it becomes the best, unless it did worse."""
    if pair.version == lineage.pair.version:
        return lineage._replace(outcomes=(*lineage.outcomes, *outcomes))
    if not is_worse(outcomes, lineage.outcomes, tolerance):
        return lineage._replace(pair=pair, outcomes=(*outcomes,))
    added = set(lines_of(pair)) - set(lines_of(lineage.pair))
    return lineage._replace(worse=(*lineage.worse, *sorted(added)), rolled_back=lineage.rolled_back + 1)


def lines_of(pair: PlanPair) -> tuple[str, ...]:
    return (*pair.synthesis, *pair.trial, *pair.rubric)


def score(outcomes: Sequence[Tried]) -> float:
    """The mean of acceptance and agreement, in [0, 1]; acceptance alone where no trial tells."""
    agreed = agreement(outcomes)
    return acceptance(outcomes) if agreed is None else (acceptance(outcomes) + agreed) / 2


def is_worse(new: Sequence[Tried], old: Sequence[Tried], tolerance: float) -> bool:
    """Whether the score fell by more than so many standard errors."""
    return is_lower(score(new), len(new), score(old), len(old), tolerance)


def is_lower(new: float, num_new: int, old: float, num_old: int, errors: float) -> bool:
    """Whether a share fell by more than so many standard errors of the difference of two equal shares."""
    if not num_new or not num_old:
        return False
    mean = (new * num_new + old * num_old) / (num_new + num_old)
    return old - new > errors * sqrt(mean * (1 - mean) * (1 / num_new + 1 / num_old))


def is_settled(rounds: Sequence[Round], patience: int, min_gain: float) -> bool:
    """Whether the latest rounds brought nothing better than the rounds before them."""
    scores = [score(one.outcomes) for one in rounds]
    earlier, latest = scores[:-patience], scores[-patience:]
    return bool(earlier) and max(latest) < max(earlier) + min_gain


def has_fallen(lineage: Lineage, scaled: Sequence[Tried], window: int, errors: float) -> bool:
    """Whether a pair's latest attempts were accepted more rarely than those of the pilot, by so many standard errors."""
    own = [one for one in scaled if one.pair == lineage.pair.name][-window:]
    return is_lower(acceptance(own), len(own), acceptance(lineage.outcomes), len(lineage.outcomes), errors)
