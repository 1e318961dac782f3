"""Whether an evolution works, seen without a language model: imperfect rules on the help desk, with parts switched off.

    python -m scripts.evolution_study [--seeds 5] [--out evolution_study]

Every arm has as many attempts in a round.  Acceptance is of attempts; soundness is of accepted tasks, by the simulation's
own truth, which no role and no loop is told.  Prints a table with means and 95 % intervals over the seeds (Student's t),
writes rounds.jsonl and draws rounds.png.  Left out on purpose: what a policy learns of the tasks.
"""

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt
from pathlib import Path

import matplotlib
import tyro
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table

from rods_jax import strict_json, terminal
from rods_jax.evolution.attempt import Tried, acceptance, agreement
from rods_jax.evolution.evolve import Evolved, Pace, accepted, evolve
from rods_jax.evolution.ground import Ground
from rods_jax.evolution.helpdesk import ground as helpdesk
from rods_jax.evolution.imperfect import make_imperfect
from rods_jax.evolution.ledger import unwritten
from rods_jax.evolution.pairs import coverage
from rods_jax.evolution.roles import Roles
from rods_jax.evolution.slips import defects
from rods_jax.files import write_atomically
from rods_jax.run.reporting import STYLE
from rods_jax.types import Json

STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # 97.5 %


@dataclass(frozen=True)
class Arm:
    """The method, with parts of it switched off."""

    verifies: bool = True
    evolves: bool = True
    pairs: int = 16


ARMS = {
    "all of it": Arm(),
    "no validation": Arm(verifies=False),
    "no evolution": Arm(evolves=False),
    "4 fixed pairs": Arm(evolves=False, pairs=4),
    "4 pairs that evolve": Arm(pairs=4),
}
COLORS = dict(zip(ARMS, ("#E8A33D", "#A35C8F", "#3D4F73", "#8FA3BF", "#2F8F7F"), strict=True))
MEASURES = ("acceptance", "soundness", "sound_per_attempt", "duplicates", "tools", "tool_pairs")


def main(seeds: int = 5, out: Path = Path("evolution_study"), attempts: int = 256, rounds: int = 6) -> None:
    """Runs every arm with every seed.

    Args:
        seeds: from 2 to 10.
        out: the folder of rounds.jsonl and rounds.png.
        attempts: in a round, over all pairs.
        rounds: of the pilot; one more follows, in which the best versions are scaled.
    """
    console = Console(width=130)
    if seeds not in STUDENT:
        terminal.refuse(console, "--seeds must be from 2 to 10")
        sys.exit(2)
    if attempts < (least := max(arm.pairs for arm in ARMS.values())) or rounds < 1:
        terminal.refuse(console, f"--attempts must be at least {least}, and --rounds 1")
        sys.exit(2)
    ground, rows = helpdesk(), list[dict[str, Json]]()
    jobs = [(name, seed) for name in ARMS for seed in range(seeds)]
    for name, seed in track(jobs, "evolutions", console=console):
        rows += measured(ground, name, seed, attempts, rounds)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "rounds.jsonl", "".join(strict_json.dumps(row) + "\n" for row in rows))
    draw(out / "rounds.png", rows)
    for number, title in ((0, "first round"), (rounds - 1, "last round"), (rounds, "scaled")):
        console.print(table_of(f"{title}, {seeds} seeds", [row for row in rows if row["round"] == number]))


def measured(ground: Ground, name: str, seed: int, attempts: int, rounds: int) -> list[dict[str, Json]]:
    """One evolution: a row for each round of the pilot, and one for a round of the best versions."""
    arm = ARMS[name]
    pace = Pace(
        seed=seed,
        pairs=arm.pairs,
        attempts=attempts // arm.pairs,
        rounds=rounds,
        patience=rounds,
        tasks=1,  # one round of the best versions
        verifies=arm.verifies,
    )
    found = evolve(ground, partial(_roles, arm, ground), pace, unwritten())
    return [
        {"arm": name, "seed": seed, "round": number} | figures(ground, outcomes)
        for number, outcomes in enumerate(_by_round(found))
    ]


def _roles(arm: Arm, ground: Ground, backends: Mapping) -> Roles:
    roles = make_imperfect(ground, backends)
    return roles if arm.evolves else roles._replace(reflect=lambda pair, evidence, worse: pair)


def _by_round(found: Evolved) -> list[Sequence[Tried]]:
    return [*(one.outcomes for one in found.rounds), found.scaled]


def figures(ground: Ground, outcomes: Sequence[Tried]) -> dict[str, Json]:
    """Of the attempts of a round."""
    tasks = accepted(outcomes)
    sound = sum(not defects(ground, task) for task in tasks)
    covered = coverage(ground, tasks)
    return {
        "attempts": len(outcomes),
        "acceptance": acceptance(outcomes),
        "agreement": agreement(outcomes),
        "soundness": sound / len(tasks) if tasks else None,
        "sound_per_attempt": sound / len(outcomes),
        "duplicates": sum(one.error == "duplicate" for one in outcomes) / len(outcomes),
        "tools": covered["tools"],
        "tool_pairs": covered["tool_pairs"],
    }


# ------------------------------------------------------------------------------------------ table
def interval(values: Sequence[float]) -> tuple[float, float]:
    """(mean, half the width of the 95 % interval) over seeds."""
    return statistics.fmean(values), STUDENT[len(values)] * statistics.stdev(values) / sqrt(len(values))


def table_of(title: str, rows: Sequence[Mapping[str, Json]]) -> Table:
    table = Table("arm", *(name.replace("_", " ") for name in MEASURES), title=title, title_justify="left")
    for arm in ARMS:
        own = [row for row in rows if row["arm"] == arm]
        table.add_row(arm, *(_shown(measure, [row[measure] for row in own]) for measure in MEASURES))
    return table


def _shown(measure: str, values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return "-"
    mean, half = interval(known)
    return f"{mean:.0f} ± {half:.0f}" if measure == "tool_pairs" else f"{mean:.3f} ± {half:.3f}"


# ------------------------------------------------------------------------------------------- plot
def draw(path: Path, rows: Sequence[Mapping[str, Json]]) -> None:
    """Acceptance and soundness by round, with intervals over the seeds."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 4.2), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        for axes, measure, title in zip(
            figure.subplots(1, 2),
            ("acceptance", "soundness"),
            ("Attempts that are accepted", "Accepted tasks that are sound"),
            strict=True,
        ):
            _draw(axes, rows, measure)
            axes.set_title(title)
        axes.legend(loc="lower right")
        figure.savefig(path, metadata={"Software": None})


def _draw(axes: Axes, rows: Sequence[Mapping[str, Json]], measure: str) -> None:
    numbers = sorted({row["round"] for row in rows})[:-1]
    for arm, color in COLORS.items():
        found = {n: [row[measure] for row in rows if row["arm"] == arm and row["round"] == n] for n in numbers}
        found = {n: [value for value in values if value is not None] for n, values in found.items()}
        spans = {n: interval(values) for n, values in found.items() if len(values) > 1}
        means, halves = [mean for mean, _ in spans.values()], [half for _, half in spans.values()]
        axes.plot([*spans], means, color=color, linewidth=2, label=arm)
        low, high = ([mean + sign * half for mean, half in zip(means, halves)] for sign in (-1, 1))
        axes.fill_between([*spans], low, high, color=color, alpha=0.15, linewidth=0)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("round")


if __name__ == "__main__":
    tyro.cli(main)
