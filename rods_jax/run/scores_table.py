"""The table of an evaluation in the terminal, and its title.

Left out on purpose: the page of trajectories (trajectory_page.py) and a row over seeds (seeds_table.py).
"""

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from rods_jax import terminal
from rods_jax.evaluation import ALL
from rods_jax.types import Json

MAX_LISTED = 8  # reasons of one kind

METRICS = {
    "official": "solved\n(official)",
    "rods": "solved\n(RODS)",
    "state": "final state\nalone",
    "progress": "progress\nreward",
}


def title_of(result: Mapping[str, Json]) -> str:
    return (
        "{player} on {tasks}: {num_tasks} tasks x {rollouts} rollouts, protocol {protocol}, {rules} rules, "
        "temperature {temperature:g}, top-p {top_p:g}, seed {seed}"
    ).format_map(result)


def print_scores(result: Mapping[str, Json], console: Console) -> None:
    scores, floor = result["scores"], result["floor"]
    terminal.say(console, title_of(result), "bold")
    console.print(f"sha256 of the tasks: {result['tasks_sha256']}", highlight=False)
    told = "mean, 95 % interval over tasks, and the floor: a player that never calls a tool"
    console.print(told, markup=False, highlight=False)
    table = Table("", *METRICS.values(), box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name, row in scores["rows"].items():
        cells = [f"{_shown(row[key])}\nfloor {_shown(floor[name][key])[:5]}".replace(" [", "\n[") for key in METRICS]
        failed = f", {row['failed']} failed" if row["failed"] else ""
        table.add_row(*map(terminal.harmless_text, (f"{name}\n{row['tasks']} tasks{failed}", *cells)))
    console.print(table)
    if result["rollouts"] > 1:
        table = Table("k", "pass@k, all tasks", "pass^k, all tasks", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        row = scores["rows"][ALL]
        for k in range(1, result["rollouts"] + 1):
            table.add_row(str(k), *(terminal.harmless_text(_shown(row[f"pass{sign}{k}"])) for sign in "@^"))
        console.print(table)
    if len(result["floors"]) > 1:
        told = ", ".join(f"{name} {_shown(one)}" for name, one in result["floors"].items())
        console.print(f"floors, solved: {told}", markup=False, highlight=False)
    if result["disputed"]:
        told = f"{len(result['disputed'])} tasks have a disputed gold; scores.json names them, with the reasons"
        console.print(told, highlight=False)
    lines = {"actions": scores["codes"], "truncated": scores["truncated"], "failed": scores["failures"]}
    lines |= {"ended": scores["ended"], "failures blamed on": scores["blamed"]}
    lines |= {"calls of the other side's tools, by": scores["wrong_owner_calls"], "user errors": scores["user_errors"]}
    lines["longest (actions)"] = {f"{one['task']}#{one['rollout']}": one["moves"] for one in scores["longest"][:3]}
    for title, counts in lines.items():
        if counts:
            some = [f"{name} {n}" for name, n in list(counts.items())[:MAX_LISTED]]
            more = [f"{len(counts) - MAX_LISTED} more in scores.json"] if len(counts) > MAX_LISTED else []
            terminal.say(console, f"{title}: " + ", ".join(some + more))


def _shown(estimate: Json) -> str:
    return "-" if estimate is None else "{mean:.3f} [{low:.2f}, {high:.2f}]".format(**estimate)
