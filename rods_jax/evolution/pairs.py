"""Pairs of plans, each for a slice of the domain: how tasks are written and tried, and how they are judged.

AReaL-SEA (arXiv 2601.22607) calls the two P_s and P_e.  Both are lines of plain text, so that versions can be compared
line by line.  Pairs are made one after another, and each is told of the earlier ones, so that slices do not overlap.
"""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from rods_jax.evolution.ground import Ground
from rods_jax.synthesis.errors import Rejected
from rods_jax.types import Json, Task

OVERLAPS = "overlaps"  # a pair whose slice is too near that of an earlier one
MAX_DEPTH = 12  # gold calls
MAX_LINES, MAX_LINE = 40, 600  # of a plan; characters of a line


@dataclass(frozen=True)
class Slice:
    """A part of the domain."""

    tools: tuple[str, ...]  # that its tasks are about
    clauses: tuple[str, ...]  # of the policy
    style: str  # of the user
    depth: tuple[int, ...]  # how many gold calls a task may have


@dataclass(frozen=True)
class PlanPair:
    """One version of a synthesis plan and an evaluation plan."""

    name: str
    slice: Slice
    synthesis: tuple[str, ...]  # how tasks are written
    trial: tuple[str, ...]  # how assistant and user play them
    rubric: tuple[str, ...]  # how tasks and dialogues are judged
    version: int = 0


def text_of(pair: PlanPair) -> str:
    """The pair as people read it."""
    part = pair.slice
    about = (
        f"tools: {', '.join(part.tools)}",
        f"clauses: {' | '.join(part.clauses)}",
        f"style: {part.style}",
        f"gold calls: {', '.join(map(str, part.depth))}",
    )
    named = (("slice", about), ("synthesis", pair.synthesis), ("trial", pair.trial), ("rubric", pair.rubric))
    return "".join(f"[{name}]\n" + "".join(f"{line}\n" for line in lines) for name, lines in named)


def difference(old: PlanPair, new: PlanPair) -> str:
    """What a version changed, as a unified diff."""
    before, after = (text_of(one).splitlines(True) for one in (old, new))
    was, now = (f"{one.name} version {one.version}" for one in (old, new))
    return "".join(difflib.unified_diff(before, after, was, now, n=0))


def require_pair(ground: Ground, pair: PlanPair) -> PlanPair:
    """The pair. Rejected: its slice names what does not exist, or its text is no plan."""
    part = pair.slice
    for kind, named, known in (
        ("tool", part.tools, ground.domain.tools),
        ("clause", part.clauses, ground.clauses),
        ("style", (part.style,), ground.styles),
    ):
        if unknown := [name for name in named if name not in known]:
            raise Rejected("unknown_name", f"there is no {kind} {unknown[0]!r}")
    if not part.tools or not part.depth or not all(0 < depth <= MAX_DEPTH for depth in part.depth):
        raise Rejected("unreadable", f"a slice needs tools, and depths from 1 to {MAX_DEPTH}")
    for lines in (pair.synthesis, pair.trial, pair.rubric):
        if len(lines) > MAX_LINES or any(len(line) > MAX_LINE for line in lines):
            raise Rejected("unreadable", f"a plan has at most {MAX_LINES} lines of {MAX_LINE} characters")
    return pair


# ---------------------------------------------------------------------------------------- overlap
def _features(part: Slice) -> set[tuple[str, ...]]:
    tools = sorted(part.tools)
    return {
        *(("tool", one) for one in tools),
        *(("tools", *two) for two in combinations(tools, 2)),
        *(("clause", one) for one in part.clauses),
        ("style", part.style),
        *(("depth", str(one)) for one in part.depth),
    }


def overlap(a: Slice, b: Slice) -> float:
    """Jaccard similarity of tools, pairs of tools, clauses, style and depths, in [0, 1]."""
    mine, other = _features(a), _features(b)
    return len(mine & other) / len(mine | other)


def require_apart(pair: PlanPair, earlier: Sequence[PlanPair], limit: float) -> PlanPair:
    """The pair. Rejected: it overlaps an earlier one by more than the limit."""
    for other in earlier:
        if (found := overlap(pair.slice, other.slice)) > limit:
            raise Rejected(
                OVERLAPS, f"{found:.0%} of the slice is that of {other.name}: choose other tools and clauses"
            )
    return pair


# --------------------------------------------------------------------------------------- coverage
def coverage(ground: Ground, tasks: Iterable[Task]) -> dict[str, Json]:
    """How much of the domain the tasks use: shares of tools that a gold calls, of clauses and styles; counts by depth.

    tool_pairs counts different pairs of tools whose calls follow each other in some gold.
    """
    tools, pairs, clauses, styles, depths = (Counter[Json]() for _ in range(5))
    for task in tasks:
        names = [name for _, name, _ in task.world.options["gold"]]
        tools.update(set(names))
        pairs.update(set(zip(names, names[1:])))
        clauses.update(set(task.world.options["clauses"]))
        styles[task.world.options["style"]] += 1
        depths[len(names)] += 1

    def share(found: Counter[Json], all_of: Iterable[str]) -> float:
        known = set(all_of)
        return len(known & found.keys()) / len(known) if known else 1.0

    return {
        "tools": share(tools, ground.domain.tools),
        "tool_pairs": len(pairs),
        "clauses": share(clauses, ground.clauses),
        "styles": share(styles, ground.styles),
        "depths": {str(depth): count for depth, count in sorted(depths.items())},
    }


def least_used(names: Sequence[str], counts: Mapping[str, int], number: int) -> list[str]:
    """Those that were used least so far, in the order of `names` where they are equal."""
    return sorted(names, key=lambda name: counts.get(name, 0))[:number]
