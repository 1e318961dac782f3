"""Beside the registered tests: two choices at once, what each does on average over the other; and pairs looked at later."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from scripts.study import inference
from scripts.study.draw import COLORS, save
from scripts.study.plan import Lines, Square, Study, shared_scores


class Effect(NamedTuple):
    """A difference that each seed has, over the seeds that all four arms have."""

    name: str
    paired: inference.Paired


def scores_of(square: Square, lines: Lines) -> np.ndarray:
    """Progress at the end by row, column and common seed: [2, 2, S]."""
    return shared_scores(lines, [name for row in square.arms for name in row]).reshape(2, 2, -1)


def effects(square: Square, lines: Lines) -> list[Effect]:
    """Of the rows, of the columns, and their interaction; none with fewer than two common seeds.

    row = mean over columns of (x_0c - x_1c); column = mean over rows of (x_r0 - x_r1);
    interaction = (x_00 - x_10) - (x_01 - x_11).
    """
    x_RCS = scores_of(square, lines)
    if x_RCS.shape[-1] < 2:
        return []
    rows_CS, columns_RS = x_RCS[0] - x_RCS[1], x_RCS[:, 0] - x_RCS[:, 1]
    return [
        Effect(" instead of ".join(square.rows), inference.paired_t(rows_CS.mean(0))),
        Effect(" instead of ".join(square.columns), inference.paired_t(columns_RS.mean(0))),
        Effect("how much the first depends on the second", inference.paired_t(rows_CS[0] - rows_CS[1])),
    ]


def asides(study: Study, lines: Lines) -> list[Effect]:
    """Paired differences at the end, of the study's asides that have two common seeds or more."""
    scores = {pair: shared_scores(lines, pair) for pair in study.asides}
    return [
        Effect(f"`{arm}` - `{reference}`", inference.paired_t(x_2S[0] - x_2S[1]))
        for (arm, reference), x_2S in scores.items()
        if x_2S.shape[-1] >= 2
    ]


def draw_square(square: Square, lines: Lines, path: Path) -> None:
    """A line for each row over the columns: the mean of the seeds, and each seed thinly."""
    x_RCS = scores_of(square, lines)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for row, name in enumerate(square.rows):
            axes.plot([0, 1], x_RCS[row], color=COLORS[row], linewidth=0.6, alpha=0.4)
            axes.plot([0, 1], x_RCS[row].mean(1), "o-", color=COLORS[row], linewidth=2.2, label=name)
        axes.set_xticks([0, 1], square.columns)
        axes.set(
            title=f"Held-out progress at the end ({x_RCS.shape[-1]} seeds)",
            ylabel="share of checks passed",
            xlim=(-0.3, 1.3),
        )
        axes.legend()

    save(path, (5.6, 4.2), draw)
