"""How many seeds a step sends: the epoch's steps together send what the next epoch's start can take as variants.

The number depends only on the pool, the queue and the seeds that are away, so a resumed run sends as many.
"""

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from math import ceil

from rods_jax.replay.rules import exact, retirement
from rods_jax.replay.state import ReplayState
from rods_jax.types import Task


def wanted(state: ReplayState, step: int, left: int) -> int:
    """Seeds that `step` should send; `left` steps of the epoch have not sent theirs, `step` among them.

    The goal is `surplus` variants for each one that the next epoch's start can take.  Seeds are expected to become
    variants at the rate seen so far.  Variants in the queue and seeds that are away count, unless they will be stale by
    then.  `left` 0: no later epoch can play a variant, so none is wanted.
    """
    if not left:
        return 0
    # The share of seeds that became variants; adding one to both counts keeps it above 0.
    settings, share = state.settings, Fraction(state.written + 1, state.settled + 1)
    oldest = step + left - settings.max_age  # a seed of an earlier step will be stale
    queued = sum(entry.seeded >= oldest for entry in state.staged)
    coming = share * sum(entry.step >= oldest for entry in state.away)
    # Variants that are still missing, as seeds, spread evenly over the steps that are left.
    missing = exact(settings.surplus) * _room(state) - queued - coming
    return max(0, ceil(missing / share / left))


def spread(seeds: Sequence[Task], count: int) -> tuple[Task, ...]:
    """At most `count` seeds of a list that is best first: the best of each category, then the second of each, ..."""
    rank: dict[str, int] = defaultdict(int)
    ranks = []
    for seed in seeds:
        ranks.append(rank[seed.category])
        rank[seed.category] += 1
    kept = sorted(range(len(seeds)), key=lambda index: (ranks[index], index))[:count]
    return tuple(seeds[index] for index in sorted(kept))


def _room(state: ReplayState) -> int:
    """Variants that the next epoch's start can take, if no task is measured again until then."""
    settings = state.settings
    leaving = [item for item in state.items if retirement(item, settings) is not None]
    pool = sum(1 for _ in state.items) - len(leaving)
    free = state.slots.count(None) + sum(item.status != "human" for item in leaving)
    return min(int(exact(settings.injection_fraction) * pool), settings.capacity if settings.replace else free)
