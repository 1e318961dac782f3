"""One picture for each question of a study."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rods_jax.run.reporting import MUTED, STYLE
from rods_jax.types import Json
from scripts.study.plan import Study

COLORS = ("#3D4F73", "#E8A33D", "#2F8F7F", "#C2571A", "#A35C8F", "#8FA3BF", "#8A8A83", "#B23A48", "#6B8E23", "#5B8DEF")


STYLES = ("o-", "s--", "^:")
BUDGETS = {
    "rollouts": ("rollouts generated", 1.0),
    "tokens": ("million tokens", 1e6),
    "seconds": ("minutes with synthesis", 60.0),
}


def draw_curves(study: Study, lines: Sequence[Mapping[str, Json]], path: Path) -> None:
    """What each arm reaches for three budgets: the mean of its seeds; of the primary arms each seed too, thinly.

    A budget is the median of the seeds, because a run that was stopped overnight has the night's minutes.
    """
    primary = {name for pair in study.primary for name in pair} or {arm.name for arm in study.arms}

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(BUDGETS), sharey=True)
        for axes, (budget, (label, unit)) in zip(panels, BUDGETS.items(), strict=True):
            longest = 0.0
            for number, arm in enumerate(study.arms):
                own = [line["way"] for line in lines if line["arm"] == arm.name]
                if not own:
                    continue
                color, style = COLORS[number % len(COLORS)], STYLES[number // len(COLORS) % len(STYLES)]
                x_SP = np.array([[one[budget] / unit for one in way] for way in own])
                y_SP = np.array([[one["progress"] for one in way] for way in own])
                x_P, y_P, name = np.median(x_SP, 0), y_SP.mean(0), f"{arm.name} ({len(own)})"
                longest = max(longest, x_P[-1])
                if arm.name in primary:
                    axes.plot(x_SP.T, y_SP.T, color=color, linewidth=0.6, alpha=0.4)
                    axes.plot(x_P, y_P, style, color=color, linewidth=2.4, markersize=6, label=name, zorder=3)
                else:
                    axes.plot(x_P, y_P, style, color=color, linewidth=1.1, markersize=3.5, label=name)
            axes.set(xlabel=label, xlim=(-0.03 * longest, 1.15 * longest))
        panels[0].set(title=f"{study.name}: held-out progress (seeds)", ylabel="share of checks passed")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)

    save(path, (13.6, 4.8), draw)


def draw_contrasts(found: Sequence[Any], margin: float, path: Path) -> None:
    """Each paired difference with its t interval and its seeds; the band is the margin of equivalence."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axvspan(-margin, margin, color=MUTED, alpha=0.12, linewidth=0)
        axes.axvline(0, color=MUTED, linewidth=1)
        for row, one in enumerate(found):
            color = {"primary": COLORS[3], "secondary": COLORS[0], "added": COLORS[5]}[one.family]
            axes.plot(one.differences_S, [row] * len(one.differences_S), "|", color=color, alpha=0.5)
            axes.plot([one.paired.low, one.paired.high], [row, row], color=color, linewidth=2)
            axes.plot(one.paired.mean, row, "o", color=color, markersize=6)
        axes.set_yticks(range(len(found)), [f"{one.arm} - {one.reference} ({one.paired.num_seeds})" for one in found])
        axes.invert_yaxis()
        axes.set(title="Difference in held-out progress (seeds)", xlabel="mean, 95 % interval, each seed")

    save(path, (8.2, 1.6 + 0.45 * len(found)), draw)


FARED: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    "progress in training": lambda part: part["trained_progress"],
    "share of groups without variance": lambda part: part["zero_variance"],
    "boundary tasks, share of the pool": lambda part: part["boundary"] / part["pool"],
    "life of a variant so far, steps": lambda part: part["life"],
    "calls of a written variant": lambda part: part["calls"],
    "effective call patterns": lambda part: part["patterns"] or None,  # 0: nothing was written
}


def draw_stretches(study: Study, lines: Sequence[Mapping[str, Json]], path: Path) -> None:
    """How each arm's pool fares from stretch to stretch: the mean of its seeds, and each seed thinly."""

    def draw(figure: Figure) -> None:
        panels = figure.subplots(2, 3, sharex=True).ravel()
        for color, arm in zip(itertools.cycle(COLORS), study.arms):
            own = [line["stretches"] for line in lines if line["arm"] == arm.name]
            if not own:
                continue
            steps_P = [part["steps"][1] for part in own[0]]
            for axes, value in zip(panels, FARED.values(), strict=True):
                y_SP = np.array([[value(part) for part in parts] for parts in own], float)  # None becomes nan: a gap
                axes.plot(steps_P, y_SP.T, color=color, linewidth=0.6, alpha=0.4)
                mean_P = np.ma.masked_invalid(y_SP).mean(0).filled(np.nan)
                axes.plot(
                    steps_P, mean_P, "o-", color=color, linewidth=2, markersize=4, label=f"{arm.name} ({len(own)})"
                )
        for axes, label in zip(panels, FARED, strict=True):
            axes.set(title=label)
            axes.set_ylim(bottom=0)
        for axes in panels[3:]:
            axes.set(xlabel="step")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)

    save(path, (13.6, 6.4), draw)


def save(path: Path, size: tuple[float, float], draw: Callable[[Figure], None]) -> None:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        figure.savefig(path, dpi=110, metadata={"Software": None})
