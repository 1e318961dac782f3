"""What each boundary signal measures, on simulated tasks whose success probabilities are known, and on recorded runs.

    python -m scripts.boundary_signals [--runs runs/a runs/b] [--plot docs/log/boundary.png]

In the simulation every task is seen once an epoch and drifts in between.  A rollout of U turns passes them all or none
with probability `correlation`, else each turn by itself; in a share of the tasks the last turn always fails.
Left out on purpose: training. What the signals do to a policy is for runs to tell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import comb
from pathlib import Path
from typing import NamedTuple

import jax
import matplotlib
import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from rods_jax.boundary import (
    BOUNDARY,
    Evidence,
    any_task,
    beta_posterior,
    binary_band,
    informative,
    mean_band,
    observed_variance,
    select_seeds,
)
from rods_jax.metrics import read_metrics
from rods_jax.run.reporting import MUTED, STYLE

SIGNALS = (mean_band, observed_variance, beta_posterior, informative, binary_band, any_task)
COLORS = dict(zip(SIGNALS, ("#3D4F73", "#E8A33D", "#2F8F7F", "#C2571A", "#A35C8F", "#8FA3BF"), strict=True))
BAND = {"lower": 0.20, "upper": 0.85}  # RODS section 2.2
MAX_TURNS = 5
STEPS_PER_EPOCH = 13  # 400 tasks, 32 a step
QUOTAS = (4, 4, 4, 4)


@dataclass(frozen=True)
class World:
    """Tasks and how the policy changes between two visits, in logits of a task's success probability."""

    tasks: int = 3200
    group_size: int = 16
    epochs: int = 8
    drift: float = 0.15  # upwards
    noise: float = 0.25
    stuck: float = 0.2  # share of tasks whose last turn always fails
    half_life: float = 13.0  # steps
    history: int = 4  # earlier visits that are remembered


class Truth(NamedTuple):
    """What no signal knows."""

    mean_N: np.ndarray  # of the progress reward
    solved_N: np.ndarray  # probability that all turns pass
    variance_N: np.ndarray
    informative_N: np.ndarray  # probability that the rewards of a group differ

    @property
    def in_band_N(self) -> np.ndarray:
        return (BAND["lower"] <= self.mean_N) & (self.mean_N <= BAND["upper"])


def simulate(world: World, rng: np.random.Generator, signals: Sequence = SIGNALS) -> dict:
    """{signal: figures}; all signals see the same rollouts, and figures are means over the second epoch and later.

    bias, error: mean and root mean square of score - truth, the truth being what the score estimates.
    flips: zones that differ from the visit before; wrong: zones that are not the true one.
    seeds, in_band, variance, informative: seeds a step, and what is true of them (variance as 4 Var R).
    """
    n = world.tasks
    turns_N, correlation_N = rng.integers(2, MAX_TURNS + 1, n), rng.choice([0.0, 0.3, 1.0], n)
    stuck_N = rng.random(n) < world.stuck
    logits_N = rng.normal(-0.3, 1.8, n)
    figures: dict = {signal: [] for signal in signals}
    zones: dict = {}
    visits: list[np.ndarray] = []  # passed turns of all rollouts together, oldest first
    detect = {signal: jax.jit(partial(signal, **BAND)) for signal in signals}
    for epoch in range(world.epochs):
        logits_N = logits_N + world.drift + world.noise * rng.normal(size=n)
        truth, passed_NG = visit(rng, 1 / (1 + np.exp(-logits_N)), turns_N, correlation_N, stuck_N, world.group_size)
        remembered = visits[-world.history :]
        weights = [2.0 ** (-(len(remembered) - i) * STEPS_PER_EPOCH / world.half_life) for i in range(len(remembered))]
        evidence = Evidence(
            passed_NG.astype(np.int32),
            np.ones(passed_NG.shape, bool),
            turns_N.astype(np.int32),
            sum((w * x for w, x in zip(weights, remembered, strict=True)), np.zeros(n)).astype(np.float32),
            (sum(weights) * turns_N * world.group_size).astype(np.float32),
        )
        visits.append(passed_NG.sum(axis=1))
        for signal in signals:
            scores_N, zones_N = (np.asarray(x) for x in detect[signal](evidence))
            if epoch > 0:
                figures[signal].append(figures_of(signal, truth, scores_N, zones_N, zones[signal]))
            zones[signal] = zones_N
        true_N = np.where(truth.in_band_N, BOUNDARY, np.where(truth.mean_N > BAND["upper"], 2, 0))
        if epoch > 0:
            for signal in signals:
                figures[signal][-1]["wrong"] = np.mean(zones[signal] != true_N)
                figures[signal][-1]["true_flips"] = np.mean(zones["true"] != true_N)
        zones["true"] = true_N
    return {
        signal: {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        for signal, rows in figures.items()
    }


def visit(rng, probability_N, turns_N, correlation_N, stuck_N, group_size: int) -> tuple[Truth, np.ndarray]:
    """One group of each task, and the truth behind it."""
    free_N = turns_N - stuck_N  # turns that can pass
    levels_L = np.arange(MAX_TURNS + 1)
    choose_NL = np.array([[comb(n, k) for k in levels_L] for n in free_N])
    p_N1, free_N1 = probability_N[:, None], free_N[:, None]
    each_NL = choose_NL * p_N1**levels_L * (1 - p_N1) ** np.maximum(free_N1 - levels_L, 0)
    all_NL = (levels_L == free_N1) * p_N1 + (levels_L == 0) * (1 - p_N1)
    pmf_NL = correlation_N[:, None] * all_NL + (1 - correlation_N[:, None]) * each_NL
    rewards_NL = levels_L / turns_N[:, None]
    mean_N = np.sum(pmf_NL * rewards_NL, axis=1)
    truth = Truth(
        mean_N,
        np.where(stuck_N, 0.0, pmf_NL[np.arange(len(turns_N)), free_N]),
        np.sum(pmf_NL * np.square(rewards_NL), axis=1) - np.square(mean_N),
        1 - np.sum(pmf_NL**group_size, axis=1),
    )
    draws_NG1 = rng.random((len(turns_N), group_size, 1))
    return truth, np.sum(draws_NG1 > np.cumsum(pmf_NL, axis=1)[:, None, :-1], axis=2)


def figures_of(signal, truth: Truth, scores_N, zones_N, before_N) -> dict[str, float]:
    estimated_N = {
        observed_variance: 4 * truth.variance_N,
        informative: truth.informative_N,
        binary_band: 4 * truth.solved_N * (1 - truth.solved_N),
        any_task: np.zeros_like(truth.mean_N),
    }.get(signal, 4 * truth.mean_N * (1 - truth.mean_N))
    chosen = seeds_of(scores_N, zones_N)
    return {
        "bias": np.mean(scores_N - estimated_N),
        "error": np.sqrt(np.mean(np.square(scores_N - estimated_N))),
        "flips": np.mean(zones_N != before_N),
        "seeds": len(chosen) / len(zones_N) * 32,
        "in_band": np.mean(truth.in_band_N[chosen]),
        "variance": 4 * np.mean(truth.variance_N[chosen]),
        "informative": np.mean(truth.informative_N[chosen]),
    }


@jax.jit
@jax.vmap
def _select(scores_N, zones_N):
    categories_N = np.arange(32) % len(QUOTAS)
    return select_seeds(scores_N, zones_N, categories_N, np.ones(32, bool), quotas=QUOTAS).indices_k


def seeds_of(scores_N, zones_N) -> np.ndarray:
    """The tasks chosen when they come in steps of 32, in the given order."""
    chosen_BK = np.asarray(_select(scores_N.reshape(-1, 32), zones_N.reshape(-1, 32)))
    return (chosen_BK + 32 * np.arange(len(chosen_BK))[:, None])[chosen_BK >= 0]


# ---------------------------------------------------------------------------------- recorded runs
def foresight(records: Sequence[Mapping]) -> dict[str, float]:
    """How well a task's mean and its variance, at one visit, foretell its variance at the next; in the band only.

    Correlations, and the next 4 Var R of the quarter that each ranks highest; all: of all tasks in the band.  Fewer than
    four pairs have no quarter, and their number alone is told.
    """
    last, pairs = {}, []
    for record in records:
        for name, mean, variance in zip(*(record.get(key) or () for key in ("task_ids", "task_mean", "task_variance"))):
            if mean is None or variance is None:  # too few of its rollouts were valid
                continue
            if name in last:
                pairs.append((*last[name], variance))
            last[name] = mean, variance
    mean, variance, later = np.array(pairs).reshape(-1, 3).T
    band = (BAND["lower"] <= mean) & (mean <= BAND["upper"])
    later = 4 * later[band]
    if len(later) < 4:
        return {"pairs": len(later)}
    result = {"pairs": len(later), "all": later.mean()}
    for name, rank in {"bound": mean * (1 - mean), "observed": variance}.items():
        best = np.argsort(-rank[band], kind="stable")[: len(later) // 4]
        result |= {f"{name} r": np.corrcoef(rank[band], later)[0, 1], f"{name} best quarter": later[best].mean()}
    return result


# -------------------------------------------------------------------------------------- the output
def table_of(title: str, rows: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table(title=title, title_justify="left")
    columns = list(next(iter(rows.values())))
    for name in ("", *columns):
        table.add_column(name, justify="right" if name else "left")
    for name, row in rows.items():
        table.add_row(name, *(f"{row[column]:.3f}" for column in columns))
    return table


def draw(path: Path, figures: Mapping, sweep: Mapping[float, Mapping]) -> None:
    """Seeds by signal, and what forgetting costs and gains."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 4.2), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        draw_seeds(left, figures)
        draw_sweep(right, sweep)
        figure.savefig(path, metadata={"Software": None})


def draw_seeds(axes: Axes, figures: Mapping) -> None:
    columns = {"in_band": "in the band", "informative": "next group\ninformative", "variance": "4 Var R"}
    width = 0.8 / len(figures)
    for i, (signal, row) in enumerate(figures.items()):
        x = np.arange(len(columns)) + (i - (len(figures) - 1) / 2) * width
        axes.bar(x, [row[c] for c in columns], width * 0.92, color=COLORS[signal], label=signal.__name__)
    axes.set_xticks(range(len(columns)), columns.values())
    axes.grid(axis="x", visible=False)
    axes.set_ylim(0, 1.45)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.legend(ncols=2, loc="upper left")
    axes.set_title("What is true of the seeds")


def draw_sweep(axes: Axes, sweep: Mapping[float, Mapping]) -> None:
    half_lives = list(sweep)
    for signal in (mean_band, beta_posterior):
        for name, style in {"flips": "-", "wrong": (0, (2, 2))}.items():
            values = [row[signal][name] for row in sweep.values()]
            label = f"{signal.__name__}, {name}"
            axes.plot(half_lives, values, color=COLORS[signal], linestyle=style, linewidth=2, label=label)
    true = [row[mean_band]["true_flips"] for row in sweep.values()]
    axes.plot(half_lives, true, color=MUTED, linewidth=1.4, label="true zones, flips")
    axes.set_xscale("log", base=2)
    axes.set_xticks(half_lives, [f"{x:g}" for x in half_lives])
    axes.set_ylim(0, 0.24)
    axes.set_xlabel(f"half-life of a measurement, in steps (an epoch has {STEPS_PER_EPOCH})")
    axes.legend(ncols=2, loc="upper left")
    axes.set_title("Share of zones, per visit")


def main(runs: tuple[Path, ...] = (), plot: Path | None = None, seed: int = 0) -> None:
    """Prints the figures of docs/log/boundary.md; draws its plot where one is asked for."""
    console = Console(width=130)
    worlds = {
        "groups of 16": World(),
        "groups of 8": World(group_size=8),
        "a policy that hardly moves": World(drift=0.05, noise=0.1),
        "a policy that moves fast": World(drift=0.4, noise=0.5),
    }
    for name, world in worlds.items():
        figures = simulate(world, np.random.default_rng(seed))
        console.print(table_of(name, {signal.__name__: row for signal, row in figures.items()}))
    for run in runs:
        console.print(table_of(str(run), {"": foresight(read_metrics(run / "metrics.jsonl"))}))
    if plot is not None:
        both = (mean_band, beta_posterior)
        sweep = {x: simulate(World(half_life=x), np.random.default_rng(seed), both) for x in (3.25, 6.5, 13, 26, 52)}
        draw(plot, simulate(World(), np.random.default_rng(seed)), sweep)


if __name__ == "__main__":
    tyro.cli(main)
