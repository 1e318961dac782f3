"""What a run measures on tasks that it does not train on: which of them, and the scores of their rollouts.

A rollout that the infrastructure broke counts in no mean.  A mean over no rollouts is left out, and not 0 or NaN.
"""

import random
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from rods_jax.types import Task


# ------------------------------------------------------------------------------------- which tasks
def sample_tasks(tasks: Sequence[Task], count: int | None) -> tuple[Task, ...]:
    """`count` tasks: each category's share, at least one, from all over the category; None: all, in their order."""
    return tuple(tasks) if count is None or count >= len(tasks) else sampling_order(tasks)[:count]


def sampling_order(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """The tasks in an order of which every prefix is such a sample, in whatever order they came."""
    categories = dict.fromkeys(task.category for task in tasks)
    ranked = []
    for category in categories:
        own = [task for task in tasks if task.category == category]
        ranked += [(rank / len(own), own[place]) for rank, place in enumerate(_all_over(len(own)))]
    return tuple(task for _, task in sorted(ranked, key=lambda pair: pair[0]))  # ties: one of each category


def _all_over(size: int) -> Iterator[int]:
    """0 to size - 1, each far from those before it: the numbers with their bits reversed (van der Corput)."""
    bits = max(1, (size - 1).bit_length())
    for number in range(1 << bits):
        place = int(f"{number:0{bits}b}"[::-1], 2)
        if place < size:
            yield place


def set_aside(tasks: Sequence[Task], count: int, seed: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
    """(the others, at least `count` tasks drawn by whole scenarios), each in the tasks' order.

    Validation tasks, on which `retention.best` selects, are taken from the training tasks this way.  Consumes its own
    Random(seed).
    """
    sizes = Counter(task.scenario for task in tasks)
    aside: set[str] = set()
    taken = 0
    for scenario in random.Random(f"{seed}/set aside").sample(sorted(sizes), len(sizes)):
        if taken >= count:
            break
        aside.add(scenario)
        taken += sizes[scenario]
    return (
        tuple(task for task in tasks if task.scenario not in aside),
        tuple(task for task in tasks if task.scenario in aside),
    )


# --------------------------------------------------------------------------------------- what they add up to
# Of all tasks; those of a category bear its name.
TOTALS = "progress", "solved", "failed", "greedy", "greedy_solved", "unfit", "fitting", "fitting_greedy_solved"


def scores(
    name: str,
    tasks: Sequence[Task],
    sampled: Sequence[float | None],
    greedy: Sequence[float | None] | None = None,
    unfit: Collection[str] = (),
) -> dict[str, float]:
    """Metrics `<name>_...` of one rollout of each task: progress in [0, 1], or None where the infrastructure failed.

    sampled: `progress`, `solved` (all checks passed), the progress of each category, and how many `failed`.
    greedy: progress as `greedy`, whole tasks as `greedy_solved`, and these by category.
    unfit: tasks that the limits cannot hold (lengths.py); how many, and the progress and greedy_solved of the others.
    """
    found: dict[str, float | None] = {"progress": _mean(sampled), "solved": _solved(sampled)}
    fits = [task.id not in unfit for task in tasks]
    groups = {category: [task.category == category for task in tasks] for category in _categories(tasks)}
    found |= {category: _mean(_only(sampled, own)) for category, own in groups.items()}
    found["failed"] = sum(reward is None for reward in sampled)
    if greedy is not None:
        found |= {"greedy": _mean(greedy), "greedy_solved": _solved(greedy)}
        found |= {f"greedy_solved_{category}": _solved(_only(greedy, own)) for category, own in groups.items()}
    if not all(fits):
        found |= {"unfit": fits.count(False), "fitting": _mean(_only(sampled, fits))}
        if greedy is not None:
            found["fitting_greedy_solved"] = _solved(_only(greedy, fits))
    return {f"{name}_{key}": value for key, value in found.items() if value is not None}


def _categories(tasks: Sequence[Task]) -> list[str]:
    return sorted({task.category for task in tasks})


def _only(rewards: Sequence[float | None], chosen: Sequence[bool]) -> list[float | None]:
    return [reward for reward, is_chosen in zip(rewards, chosen, strict=True) if is_chosen]


def _mean(rewards: Sequence[float | None]) -> float | None:
    valid = [reward for reward in rewards if reward is not None]
    return sum(valid) / len(valid) if valid else None


def _solved(rewards: Sequence[float | None]) -> float | None:
    return _mean([None if reward is None else float(reward == 1) for reward in rewards])
