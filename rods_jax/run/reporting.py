"""Plots and a summary of a run, from its metrics.jsonl alone.

Writes plots/{reward,zones,pool,variance,overview}.png and summary.json into the run directory and
prints the summary.  Of the metrics, `injected` and `retired_*` are totals so far; `candidates`,
`rejected` and `seconds_*` belong to their step.  A metric that a run does not have is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from rich.console import Console
from rich.table import Table

from rods_jax import strict_json
from rods_jax.environments.protocol import Domain
from rods_jax.files import read_object, require_object, require_own, write_atomically
from rods_jax.metrics import finished_summary, read_metrics
from rods_jax.run.fidelity import print_fidelity, write_fidelity
from rods_jax.strict_json import JsonError
from rods_jax.terminal import harmless_text, say

Records = Sequence[Mapping[str, Any]]
Draw = Callable[[Axes, Records], None]

INK, MUTED, GRID = "#1F2933", "#697586", "#E4E7EB"
# Each zone is darker than the one before: the order is visible in grey print and with any colour vision.
ZONES = {"mastered": "#B9D8D0", "boundary": "#E8A33D", "hard": "#3D4F73"}
POOL = {"human": "#3D4F73", "active": "#E8A33D", "trial": "#F6DDB0"}
FLOWS = {
    "injected": "#E8A33D",
    "retired_mastered": "#2F8F7F",
    "retired_hard": "#3D4F73",
    "retired_stuck": "#C2571A",
    "retired_pruned": "#A35C8F",
    "retired_stale": "#8A8A83",
}
LISTS = ("task_mean", "task_variance")  # a number for each group of a step
DRAWN = (*LISTS, "progress_mean", "held_out_progress", "zone_", "pool_", "seconds_", *FLOWS, "candidates", "rejected")
TRAIN, HELD_OUT = "#8FA3BF", "#C2571A"
STYLE: dict[Any, Any] = {
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.solid_capstyle": "round",
}


def report(
    run_dir: str | Path, domain: Domain | None = None, console: Console | None = None, *, finished: bool = False
) -> dict[str, Any]:
    """Plots and summary of a run, written, told and returned; with its domain, the fidelity of its variants too.

    finished: the run has just come to its end, which the summary keeps until there are more steps.
    """
    console = console or Console()
    summary = write_report(run_dir, finished)
    print_summary(summary, console)
    if domain is not None:
        print_fidelity(write_fidelity(run_dir, domain), console)
    tell(run_dir, summary, console)
    say(console, f"run directory: {run_dir}")
    return summary


def write_report(run_dir: str | Path, finished: bool = False) -> dict[str, Any]:
    """Draws the plots, writes and returns the summary, as for `report`.

    ValueError: there is nothing to draw.  FolderError: a summary.json stands there that no report wrote; it stays.
    """
    run_dir = Path(run_dir)
    records = read_records(run_dir / "metrics.jsonl")
    if not records:
        raise ValueError(f"{run_dir / 'metrics.jsonl'} holds no step yet")
    require_own(run_dir / "summary.json", ("steps",))
    (run_dir / "plots").mkdir(exist_ok=True)
    variance = partial(draw_variance, band=band_of(run_dir))
    with matplotlib.rc_context(STYLE):
        _save(run_dir / "plots" / "reward.png", records, [[draw_reward]], (7.2, 4.2))
        _save(run_dir / "plots" / "zones.png", records, [[draw_zones]], (7.2, 4.2))
        _save(run_dir / "plots" / "pool.png", records, [[draw_pool], [draw_flows]], (7.2, 6.4))
        _save(run_dir / "plots" / "variance.png", records, [[variance]], (7.2, 4.6))
        overview: list[list[Draw]] = [[draw_reward, draw_zones], [draw_pool, variance]]
        _save(run_dir / "plots" / "overview.png", records, overview, (12.4, 8.2))
    summary, before = summarize(records), finished_summary(run_dir)
    summary["finished"] = finished or (before is not None and before.get("steps") == summary["steps"])
    write_atomically(run_dir / "summary.json", strict_json.dumps(summary, indent=2) + "\n")
    return summary


def band_of(run_dir: Path) -> tuple[float, float] | None:
    """The run's own boundary zone, where its configuration is there."""
    path = run_dir / "config.json"
    if not path.is_file():
        return None
    settings = require_object(read_object(path, replay=dict)["replay"], f"{path}, replay", lower=float, upper=float)
    return settings["lower"], settings["upper"]


def read_records(path: Path) -> list[dict[str, Any]]:
    """The metrics of a run; JsonError names line and key where one that is drawn is no number, or no list of numbers."""
    records = read_metrics(path)
    for number, record in enumerate(records, start=1):
        for key, value in record.items():
            numbers = value if isinstance(value, list) and key in LISTS else [value]
            if key in LISTS and value is not None and not isinstance(value, list):
                raise JsonError(f"{path}, line {number}: {key} must be a list: got {value!r:.60}")
            if key.startswith(DRAWN) and not all(isinstance(one, (int, float, type(None))) for one in numbers):
                raise JsonError(f"{path}, line {number}: {key} must be a number: got {value!r:.60}")
    return records


def summarize(records: Records) -> dict[str, Any]:
    """The run in a few numbers; training figures are means over the first and last tenth of the steps."""
    summary: dict[str, Any] = {"steps": sum("progress_mean" in record for record in records)}
    _, held_out = _series(records, "held_out_progress")
    if held_out.size:
        first, last = float(held_out[0]), float(held_out[-1])
        summary["held_out_progress"] = {
            "first": first,
            "last": last,
            "best": float(held_out.max()),
            "gain": last - first,
        }
    evaluated = [
        {key.removeprefix("held_out_"): value for key, value in record.items() if key.startswith("held_out_")}
        for record in records
        if "held_out_progress" in record
    ]
    if evaluated:
        summary["held_out"] = {"before": evaluated[0], "after": evaluated[-1]}
    for key in ("progress_mean", "zone_hard", "zone_boundary", "zone_mastered"):
        _, values = _series(records, key)
        if values.size:
            tenth = max(1, values.size // 10)
            summary[key] = {"first": float(values[:tenth].mean()), "last": float(values[-tenth:].mean())}
    for keys, reduce in (
        (("candidates", "rejected", "failed_rollouts", "truncated_rollouts"), np.sum),
        ((*FLOWS, *(f"pool_{name}" for name in POOL)), np.max),
    ):
        for key in keys:
            _, values = _series(records, key)
            if values.size:
                summary[key] = int(values[-1] if key.startswith("pool") else reduce(values))
    _, without_variance = _series(records, "zero_variance")
    summary["steps_without_variance"] = int((without_variance == 1).sum())
    means, variances, _ = _groups(records)
    middle = (means >= 0.25) & (means <= 0.75)
    if middle.any() and not middle.all():
        summary["variance"] = {
            "middle": float(variances[middle].mean()),
            "outside": float(variances[~middle].mean()),
        }
    # The device updates while the host goes on, so a rollout's seconds include those of the update before it.
    seconds = {name: float(_series(records, f"seconds_{name}")[1].sum()) for name in ("rollout", "synthesis")}
    return summary | {"seconds": seconds}


def tell(run_dir: str | Path, summary: Mapping[str, Any], console: Console) -> None:
    """Says in words what the demonstrations were, and what reinforcement learning changed."""
    path = Path(run_dir) / "cold_start.json"
    if path.exists():
        cold = read_object(path, steps=int, demonstrations=int, demonstrator_reward=float, habits=dict)
        rates = require_object(cold["habits"], f"{path}, habits", **dict.fromkeys(cold["habits"], float))
        habits = ", ".join(f"{name.replace('_', ' ')} {p:g}" for name, p in rates.items() if p)
        say(
            console,
            f"Cold start: {cold['steps']} supervised steps on {cold['demonstrations']} demonstrations whose demonstrator "
            f"passes {cold['demonstrator_reward']:.0%} of the checks (habits, per opportunity: {habits or 'none'}).",
        )
    held_out = summary.get("held_out")
    if held_out:
        first, last = held_out["before"], held_out["after"]
        counts = ("failed", "unfit")
        both = [n for n in last if n not in counts and first.get(n) is not None and last[n] is not None]
        changes = ", ".join(f"{name} {first[name]:.3g} -> {last[name]:.3g}" for name in both)
        scores = ", ".join(f"{name} {last[name]:.3g}" for name in both)
        learned = f"Reinforcement learning, held-out mean progress reward: {changes}."
        say(console, learned if summary["steps"] else f"Held-out mean progress reward: {scores}.")
        if (last.get("solved") or 0.0) < 0.02:
            console.print("The policy solves hardly any held-out task: this run shows the wiring, not learning.")
        for name, what in (("failed", "failed by infrastructure"), ("unfit", "exceed the limits of their rollouts")):
            if last.get(name):
                console.print(f"Of the held-out tasks {last[name]} {what} at the last evaluation.")
    else:
        console.print("No held-out score was measured.")
    if summary["steps"] and summary["steps_without_variance"] == summary["steps"]:
        console.print("No group of rollouts had variance in any step: nothing was learned from rewards.")


# ------------------------------------------------------------------------------------------ plots
def draw_reward(axes: Axes, records: Records) -> None:
    """Mean progress reward on the training batches and on held-out tasks."""
    steps, progress = _series(records, "progress_mean")
    if steps.size:
        axes.plot(steps, progress, color=TRAIN, linewidth=1, alpha=0.55)
        axes.plot(steps, _smoothed(progress), color=TRAIN, linewidth=2.2, label="training batches (smoothed)")
    steps, held_out = _series(records, "held_out_progress")
    if steps.size:
        axes.plot(steps, held_out, color=HELD_OUT, linewidth=2, marker="o", markersize=4.5, label="held-out tasks")
        for at, offset, side in ((0, (6, -13), "left"), (-1, (4, 8), "right"))[: steps.size]:
            place, label = (steps[at], held_out[at]), f"{held_out[at]:.2f}"
            text = axes.annotate(
                label, place, offset, textcoords="offset points", ha=side, color=HELD_OUT, weight="bold"
            )
            text.set_path_effects([withStroke(linewidth=3, foreground="white")])
    axes.set(title="Progress reward", xlabel="step", ylabel="mean share of checks passed", ylim=(0, 1.05))
    _mark_stages(axes, records)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right")


def draw_zones(axes: Axes, records: Records) -> None:
    """How many tasks of the pool the policy fails, half-solves and masters."""
    _stack(axes, records, {f"zone_{name}": (name, color) for name, color in reversed(ZONES.items())})
    axes.set(title="Capability zones of the pool", xlabel="step", ylabel="tasks, by latest measurement")


def draw_pool(axes: Axes, records: Records) -> None:
    """Human seeds, and the generated tasks that came and went."""
    labels = {"human": "human seeds", "active": "generated, active", "trial": "generated, on trial"}
    _stack(axes, records, {f"pool_{name}": (labels[name], color) for name, color in POOL.items()}, step="post")
    axes.set(title="Replay pool", xlabel="step", ylabel="tasks trained on")


def draw_flows(axes: Axes, records: Records) -> None:
    """What has entered and left the pool so far, and what waits."""
    for key, color in FLOWS.items():
        steps, values = _series(records, key)
        if steps.size and values.any():
            axes.plot(steps, values, color=color, linewidth=2, drawstyle="steps-post", label=key.replace("_", ", "))
    steps, staged = _series(records, "pool_staged")
    if steps.size:
        axes.plot(steps, staged, color=MUTED, linewidth=1.4, linestyle=(0, (3, 2)), label="staged, waiting")
    axes.set(title="In and out, totals", xlabel="step", ylabel="generated tasks", ylim=(0, None))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left")


def draw_variance(axes: Axes, records: Records, band: tuple[float, float] | None) -> None:
    """Each group's population variance against its mean, below the bound r(1-r) (RODS section 2.1).

    band: (lower, upper) of the run's boundary zone (RODS section 2.2).
    """
    means, variances, steps = _groups(records)
    grid = np.linspace(0, 1, 201)
    if band is not None:
        middle = sum(band) / 2
        axes.axvspan(*band, color=ZONES["boundary"], alpha=0.10, linewidth=0)
        axes.text(middle, 0.263, "boundary band", color="#9A6414", ha="center", va="center", fontsize=9.5)
    axes.plot(grid, grid * (1 - grid), color=INK, linewidth=1.8)
    axes.text(0.185, 0.168, "bound r(1\u2212r)", color=INK, ha="right")
    axes.set(title="Reward variance of the groups", xlabel="mean reward r of the group", ylabel="variance")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.008, 0.275))
    if not means.size:
        return
    # Many groups share a point, because rewards are fractions: draw one dot for them, larger for more groups.
    places = np.round(np.stack([means, variances], axis=1), 9)
    places, which, sizes = np.unique(places, axis=0, return_inverse=True, return_counts=True)
    average_step = np.bincount(which.ravel(), weights=steps) / sizes
    xs, ys = places.T
    dots = axes.scatter(xs, ys, c=average_step, cmap="cividis_r", s=14 * sizes**0.6, linewidths=0, zorder=3)
    dots.set_clim(steps.min(), steps.max())
    bins = np.clip((means * 10).astype(int), 0, 9)
    filled = np.unique(bins)
    averages = [variances[bins == b].mean() for b in filled]
    axes.plot((filled + 0.5) / 10, averages, color=HELD_OUT, linewidth=2, zorder=4, label="average by tenth of r")
    axes.legend(loc="upper right", bbox_to_anchor=(1.0, 0.93), handlelength=1.2)
    colorbar = axes.figure.colorbar(dots, ax=axes, pad=0.015, aspect=30, label="step, mean over a dot's groups")
    colorbar.outline.set_visible(False)


def _stack(axes: Axes, records: Records, layers: Mapping[str, tuple[str, str]], step: str | None = None) -> None:
    """Stacked areas, the first one lowest."""
    present = [key for key in layers if _series(records, key)[0].size]
    rows = [record for record in records if all(record.get(key) is not None for key in present)]
    if present and rows:
        steps = [record["step"] for record in rows]
        values = [[record[key] for record in rows] for key in present]
        labels, colors = zip(*(layers[key] for key in present), strict=True)
        axes.stackplot(steps, values, labels=labels, colors=colors, step=step, linewidth=0.6, edgecolor="white")
        axes.set_xlim(steps[0], max(steps[-1], steps[0] + 1))
        highest = max(map(sum, zip(*values, strict=True)), default=0) or 1  # of an empty pool too
        axes.set_ylim(0, 1.22 * highest)  # head-room for the legend
        axes.legend(loc="upper left", ncols=len(present), handlelength=1.1, columnspacing=1.3)
    axes.set_axisbelow(False)
    axes.grid(color="white", alpha=0.35, linewidth=0.7)


def _mark_stages(axes: Axes, records: Records) -> None:
    starts: dict[str, int] = {}
    for record in records:
        if record.get("stage") is not None:
            starts.setdefault(record["stage"], record["step"])
    for name, start in starts.items() if len(starts) > 1 else ():
        axes.axvline(start, color=MUTED, linewidth=0.9, linestyle=":")
        axes.text(start, 1.04, f"{name} ", color=MUTED, fontsize=9, rotation=90, ha="right", va="top", parse_math=False)


def _save(path: Path, records: Records, rows: Sequence[Sequence[Draw]], size: tuple[float, float]) -> None:
    spaced = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08, hspace=0.03, wspace=0.03)
    figure = Figure(figsize=size, dpi=160, layout=spaced)
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for axes_row, draws in zip(grid, rows, strict=True):
        for axes, draw in zip(axes_row, draws, strict=True):
            draw(axes, records)
    figure.savefig(path, metadata={"Software": None})


# ------------------------------------------------------------------------------------------- data
def _series(records: Records, key: str) -> tuple[np.ndarray, np.ndarray]:
    rows = [(record["step"], record[key]) for record in records if record.get(key) is not None]
    steps, values = np.array(rows, float).reshape(-1, 2).T
    return steps, values


def _groups(records: Records) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, variances and steps of all measured groups."""
    rows = [
        (mean, variance, record["step"])
        for record in records
        for mean, variance in zip(record.get("task_mean") or (), record.get("task_variance") or ())
        if mean is not None and variance is not None
    ]
    means, variances, steps = np.array(rows, float).reshape(-1, 3).T
    return means, variances, steps


def _smoothed(values: np.ndarray) -> np.ndarray:
    """A centred mean over about a tenth of the run."""
    half = max(1, values.size // 20)
    return np.array([values[max(0, i - half) : i + half + 1].mean() for i in range(values.size)])


def print_summary(summary: Mapping[str, Any], console: Console) -> None:
    table = Table("", "first", "last", title=f"{summary['steps']} steps", title_justify="left")
    for key, value in summary.items():
        if isinstance(value, Mapping) and {"first", "last"} <= set(value):
            table.add_row(harmless_text(key.replace("_", " ")), f"{value['first']:.3g}", f"{value['last']:.3g}")
    console.print(table if table.row_count else f"{summary['steps']} steps")
    counts = {key: x for key, x in summary.items() if isinstance(x, int) and key not in ("steps", "finished")}
    say(console, ", ".join(f"{key.replace('_', ' ')} {count}" for key, count in counts.items()))
    seconds = summary["seconds"]
    console.print(f"seconds: rollout and update {seconds['rollout']:.0f}, synthesis {seconds['synthesis']:.0f}")
