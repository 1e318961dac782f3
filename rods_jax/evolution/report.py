"""What an evolution came to, as JSON and as tables: rounds, rejections, pairs, coverage, cost."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from rich.console import Console
from rich.table import Table

from rods_jax.evolution.attempt import Tried, acceptance, agreement
from rods_jax.evolution.evolve import Evolved, accepted
from rods_jax.evolution.ground import Ground
from rods_jax.evolution.ledger import Spent
from rods_jax.evolution.lineage import score
from rods_jax.evolution.pairs import coverage, overlap
from rods_jax.terminal import harmless_text, say


def report_of(
    ground: Ground, evolved: Evolved, spent: Mapping[str, Spent], *, prompt_price: float, completion_price: float
) -> dict[str, Any]:
    """All figures; shares in [0, 1], prices per million tokens."""
    pairs = [one.pair for one in evolved.lineages]
    overlaps = [overlap(a.slice, b.slice) for a, b in combinations(pairs, 2)]
    return {
        "ended": evolved.ended,
        "rounds": [_figures(one.outcomes) for one in evolved.rounds],
        "scaled": _figures(evolved.scaled),
        "pairs": [
            {
                "pair": one.pair.name,
                "version": one.pair.version,
                "versions": one.latest + 1,
                "rolled_back": one.rolled_back,
                "score": score(one.outcomes),
                "paused": one.pair.name in evolved.paused,
            }
            for one in evolved.lineages
        ],
        "refused_pairs": dict(Counter(one.error for one in evolved.refused_pairs).most_common()),
        "refused_reflections": dict(Counter(one.error for one in evolved.refused_reflections).most_common()),
        "overlap": {"mean": sum(overlaps) / max(1, len(overlaps)), "largest": max(overlaps, default=0.0)},
        "coverage": coverage(ground, evolved.tasks),
        "cost": _cost(spent, len(evolved.tasks), prompt_price, completion_price),
    }


def _figures(outcomes: Sequence[Tried]) -> dict[str, Any]:
    return {
        "attempts": len(outcomes),
        "accepted": len(accepted(outcomes)),
        "acceptance": acceptance(outcomes),
        "agreement": agreement(outcomes),
        "rejections": dict(Counter(one.error for one in outcomes if one.error).most_common()),
    }


def _cost(spent: Mapping[str, Spent], tasks: int, prompt_price: float, completion_price: float) -> dict[str, Any]:
    """Of the whole evolution, its pilot too, and for each accepted task. None: no task was accepted."""
    questions = sum(one.questions for one in spent.values())
    tokens = sum(one.prompt_tokens + one.completion_tokens for one in spent.values())
    cost = sum(one.prompt_tokens * prompt_price + one.completion_tokens * completion_price for one in spent.values())
    total = {"questions": questions, "tokens": tokens, "cost": cost / 1e6}
    return {
        "total": total,
        "per_task": {name: value / tasks for name, value in total.items()} if tasks else None,
        "by_role": {role: one._asdict() for role, one in sorted(spent.items())},
    }


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """The figures as tables."""
    table = Table("round", "attempts", "accepted", "share", "agreement", "rejections", title_justify="left")
    named = [*((str(n), one) for n, one in enumerate(report["rounds"])), ("scaled", report["scaled"])]
    for name, one in named:
        rejections = ", ".join(f"{error} {count}" for error, count in one["rejections"].items())
        shares = (_share(one["acceptance"]), _share(one["agreement"]))
        table.add_row(name, str(one["attempts"]), str(one["accepted"]), *shares, harmless_text(rejections))
    console.print(table)
    pairs, covered, cost = report["pairs"], report["coverage"], report["cost"]
    back = sum(one["rolled_back"] for one in pairs)
    say(console, f"{len(pairs)} pairs, {sum(one['versions'] for one in pairs)} versions, {back} taken back.")
    if refused := report["refused_reflections"]:
        why = harmless_text(", ".join(f"{error} {count}" for error, count in refused.items()))
        say(console, f"Reflections that nobody wrote, so that a pair went on as it was: {why}.", "yellow")
    covering = ", ".join(f"{name} {_share(covered[name])}" for name in ("tools", "clauses", "styles"))
    say(console, f"The tasks cover {covering}, and {covered['tool_pairs']} pairs of tools.")
    if cost["total"]["questions"] and cost["per_task"]:
        each = cost["per_task"]
        say(
            console,
            f"An accepted task took {each['questions']:.1f} questions and {each['tokens']:,.0f} tokens; "
            f"all of it cost {cost['total']['cost']:.2f}.",
        )
    if report["ended"]:
        say(console, f"Ended early: {report['ended']}.", "yellow")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
