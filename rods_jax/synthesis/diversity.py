"""How varied the gold calls of a set of tasks are (ProgSearch, arXiv 2510.13913, compares sets by their tool use).

`rods check` prints it of a run's seeds, and `rods fidelity` of its variants.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rods_jax.types import Task


@dataclass(frozen=True)
class Diversity:
    """Counts over the gold calls of a set of tasks; an effective number is exp(entropy), at most the plain one."""

    tasks: int
    patterns: int  # different call patterns: the tools of each turn, in order
    effective_patterns: float  # as many equally frequent ones would be as varied
    tools: int  # that are called
    effective_tools: float
    pairs: int  # different (tool, tool that is called next), in a turn or across two


def diversity(tasks: Sequence[Task]) -> Diversity:
    """Of no tasks, all is 0.

    exp(-sum_i p_i log p_i) over the shares p_i is the Hill number of order 1, and the Vendi score (arXiv 2210.02410)
    of a similarity that is 1 between equals and 0 otherwise.
    """
    patterns = [tuple(tuple(call.name for call in turn.gold) for turn in task.turns) for task in tasks]
    calls = [[name for turn in pattern for name in turn] for pattern in patterns]
    tools = [name for names in calls for name in names]
    pairs = {pair for names in calls for pair in pairwise(names)}
    effective = _effective(patterns), _effective(tools)
    return Diversity(len(tasks), len(set(patterns)), effective[0], len(set(tools)), effective[1], len(pairs))


def _effective(values: Iterable[Hashable]) -> float:
    counts = Counter(values)
    total = counts.total()
    return math.exp(-sum(n / total * math.log(n / total) for n in counts.values())) if total else 0.0
