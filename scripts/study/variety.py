"""Beside the registered tests: what an arm gains, by how many different tasks it trains on.

Arms share their reference and their seeds, so that they are no independent points: this describes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from rods_jax.run.reporting import MUTED
from rods_jax.synthesis.algebra import the_seed_itself
from scripts.study import inference
from scripts.study.draw import COLORS, save
from scripts.study.plan import Lines, Planned, Study, by_seed, config_of

FEWEST = 3  # arms that are drawn and correlated


class Gain(NamedTuple):
    """An arm minus the study's reference, over the seeds that both have."""

    arm: str
    tasks: float  # different ones that it trained on, the mean of these seeds
    paired: inference.Paired  # of progress at the end


def gains(study: Study, lines: Lines) -> list[Gain]:
    """Of all arms with two seeds or more, in the order of their tasks.

    tasks = human seeds + variants that entered the pool; a variant that is its seed again is no other task.
    """
    reference, found = by_seed(lines, study.reference), []
    for arm in study.arms:
        own = by_seed(lines, arm.name)
        both = sorted(own.keys() & reference.keys())
        if arm.name == study.reference or len(both) < 2:
            continue
        author = config_of(study, Planned(arm, both[0])).synthesis
        copies = author is not None and author.author is the_seed_itself
        tasks = [own[seed]["pool"]["pool_human"] + (0 if copies else own[seed]["pool"]["injected"]) for seed in both]
        differences_S = [own[seed]["progress"] - reference[seed]["progress"] for seed in both]
        found.append(Gain(arm.name, float(np.mean(tasks)), inference.paired_t(differences_S)))
    return sorted(found, key=lambda one: one.tasks)


def sentence(study: Study, found: Sequence[Gain]) -> str:
    """Spearman's correlation over the arms."""
    correlation = inference.rank_correlation([one.tasks for one in found], [one.paired.mean for one in found])
    return (
        f"Over {len(found)} arms, Spearman's correlation between the number of different tasks and the difference from "
        f"`{study.reference}` is {correlation:.2f}. Arms share seeds and their reference: it describes."
    )


def draw_gains(study: Study, found: Sequence[Gain], path: Path) -> None:
    """A point for each arm with its 95 % interval; what lies within a tenth stands side by side."""
    added = {arm.name for arm in study.arms if arm.against is not None}

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axhline(0, color=MUTED, linewidth=1)
        groups = _near(found)
        for group in groups:
            for place, one in enumerate(group):
                x = group[len(group) // 2].tasks * 1.025 ** (place - (len(group) - 1) / 2)
                color = COLORS[1] if one.arm in added else COLORS[0]
                axes.plot([x, x], [one.paired.low, one.paired.high], color=color, linewidth=1.2)
                axes.plot(x, one.paired.mean, "o", color=color, markersize=5)
        for color, label in ((COLORS[0], "registered arms"), (COLORS[1], "exploration")):
            axes.plot([], [], "o", color=color, label=label)
        axes.set(
            title=f"{study.name}: gain by the number of different tasks",
            xlabel="different tasks that were trained on",
            ylabel=f"held-out progress minus {study.reference}, 95 %",
            xscale="log",
        )
        middles = [group[len(group) // 2].tasks for group in groups]
        axes.set_xticks(middles, [f"{tasks:,.0f}" for tasks in middles])
        axes.set_xticks([], minor=True)
        axes.legend(loc="lower right")

    save(path, (8.2, 4.8), draw)


def _near(found: Sequence[Gain]) -> list[list[Gain]]:
    """Neighbours in the order of their tasks: those within a tenth of a group's first."""
    groups: list[list[Gain]] = []
    for one in found:
        if groups and one.tasks <= 1.1 * groups[-1][0].tasks:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups
