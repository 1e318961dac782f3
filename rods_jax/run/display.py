"""The live panel of a run, drawn from its metrics alone.

Without a terminal, single lines are printed.  Left out on purpose: anything that slows a step down.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from rods_jax.config import Config
from rods_jax.curriculum import num_epochs
from rods_jax.loop import Position
from rods_jax.metrics import MetricWriter

Show = Callable[..., None]

PATIENCE = 20  # steps over which the share of groups without variance is taken
ALIKE = 0.9  # of these groups have no variance: a warning is printed
FRUITLESS = 3  # ... and without one check passed


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


@contextmanager
def cold_start_display(console: Console, max_steps: int, target: float) -> Iterator[Show]:
    """show(step, loss, reward or None): the bar ends early when the target is reached."""
    progress = _bar(console)
    task = progress.add_task("cold start", total=max_steps)
    with progress if console.is_terminal else _nothing():

        def show(step: int, loss: float, reward: float | None = None) -> None:
            progress.update(task, completed=step)
            if reward is not None:
                console.print(
                    f"  cold start step {step}: loss {loss:.3f}, validation reward {reward:.3f} (target {target})",
                    soft_wrap=True,
                )

        yield show


@contextmanager
def training_display(console: Console, config: Config, start: Position) -> Iterator[MetricWriter]:
    """A MetricWriter that draws step, reward, zones, pool, and the time left if the pool keeps its size."""
    progress, total = _bar(console), all_steps(config, start)
    task = progress.add_task("RODS", total=None, completed=start.step)
    held_out: list[float] = []
    lost = dict.fromkeys(("failed", "truncated"), 0)  # rollouts, so far
    began = time.perf_counter()

    def table(values: Mapping[str, Any]) -> Table:
        grid = Table.grid(padding=(0, 2))
        grid.add_row(progress)
        grid.add_row(_line(values, held_out, lost))
        return grid

    with Live(progress, console=console, refresh_per_second=4) if console.is_terminal else _nothing() as live:

        def write(step: int, values: Mapping[str, Any]) -> None:
            progress.update(task, completed=step, total=total(step, values))
            for name in lost:
                lost[name] += values.get(f"{name}_rollouts", 0)
            if "held_out_progress" in values:
                held_out.append(values["held_out_progress"])
            if live is not None:
                live.update(table(values))
            elif "held_out_progress" in values or step % 10 == 0:
                console.print(
                    f"  {time.perf_counter() - began:5.0f} s  step {step:4d}  {_line(values, held_out, lost)}",
                    highlight=False,
                    soft_wrap=True,
                )

        yield write


def all_steps(config: Config, start: Position) -> Callable[[int, Mapping[str, Any]], int]:
    """(step, its record) -> the run's last step, if the pool keeps its size and each step plays one batch."""
    size, epoch = config.rollout.tasks_per_step, start.epoch
    before = start.step - start.place // size  # steps before this epoch

    def total(step: int, values: Mapping[str, Any]) -> int:
        nonlocal epoch, before
        if values["epoch"] != epoch:
            epoch, before = values["epoch"], step - 1
        pool = sum(values[f"pool_{kind}"] for kind in ("human", "trial", "active"))
        last = max(step, before + (num_epochs(config) - epoch) * -(-pool // size))
        return min(last, config.max_steps or last)

    return total


def _line(values: Mapping[str, Any], held_out: list[float], lost: Mapping[str, int]) -> str:
    parts = []
    if "progress_mean" in values:
        progress = float(values["progress_mean"])
        parts.append(f"epoch {values['epoch']}  reward {'-' if math.isnan(progress) else f'{progress:.2f}'}")
        zones = "/".join(str(values[f"zone_{zone}"]) for zone in ("hard", "boundary", "mastered"))
        parts.append(f"hard/boundary/mastered {zones}  without variance {values['zero_variance']:.0%}")
    pool = (
        f"pool {values['pool_human']}+{values['pool_trial']}+{values['pool_active']} (staged {values['pool_staged']})"
    )
    parts += [pool] + ([f"held out {held_out[-1]:.3f}"] if held_out else [])
    if any(lost.values()):
        parts.append("rollouts so far: " + ", ".join(f"{count} {name}" for name, count in lost.items() if count))
    return "  ".join(parts)


def warnings(say: Callable[[str], None]) -> MetricWriter:
    """A MetricWriter that warns of steps without a passed check or without variance, of lost rollouts, of free places."""
    fruitless, said_alike, said_failed, said_free = 0, False, False, False
    alike = deque[float](maxlen=PATIENCE)  # the latest steps' shares of groups without variance

    def write(step: int, values: Mapping[str, Any]) -> None:
        nonlocal fruitless, said_alike, said_failed, said_free
        if "task_mean" not in values:
            return
        progress = float(values.get("progress_mean", math.nan))
        if not math.isnan(progress):  # else all have failed or were dropped, perhaps because they passed every check
            fruitless = fruitless + 1 if progress == 0 else 0
            if fruitless == FRUITLESS:
                say(
                    f"step {step}: no rollout of {FRUITLESS} steps passed a check, and no reward teaches what never "
                    "happens: begin with a checkpoint, or with a longer cold start on more practice tasks"
                )
        alike.append(float(values["zero_variance"]))
        share = sum(alike) / PATIENCE
        if not said_alike and len(alike) == PATIENCE and share >= ALIKE:
            said_alike = True
            say(
                f"step {step}: {share:.0%} of the groups of {PATIENCE} steps had no variance, which teaches nothing: give "
                "other tasks, raise the limits where tasks do not fit, or let stuck ones leave (replay.retire_stuck)"
            )
        if not said_failed and 0 < values["rollouts_played"] == values["failed_rollouts"]:
            said_failed = True
            say(f"step {step}: every rollout failed: {_reasons(values['failures'])}")
        if not said_free and values.get("tasks_kept", len(values["task_ids"])) < len(values["task_ids"]):
            said_free = True
            say(
                f"step {step}: {values['tasks_kept']} of {len(values['task_ids'])} places hold a task that teaches, after "
                f"{values['tasks_played']} were played: raise rollout.refill, or give tasks nearer the boundary"
            )

    return write


def _reasons(failures: Mapping[str, int]) -> str:
    return "; ".join(f"{count} x {reason}" for reason, count in failures.items())


@contextmanager
def _nothing() -> Iterator[None]:
    yield None
