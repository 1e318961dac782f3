"""Says what a start would say or refuse, and what the run will need, without starting and without writing into it.

    python -m scripts.check --config configs/quickstart.py [--json FILE]

Plays the gold of every task twice, compares prompts and gold dialogues with the limits, reads the checkpoint's shape,
lays the policy on the devices that are there, shows which tools pass values on, tries synthesis on a few seeds, and
foresees memory and the first step.  Exit status: 0 it could start, 2 it would be refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rods_jax import run, strict_json, terminal
from rods_jax.commands.common import options_of, program, running
from rods_jax.files import require_own, write_atomically
from rods_jax.types import Json

MAX_ROWS = 24  # of the table of tools; the JSON file has all


@dataclass(frozen=True, kw_only=True)
class Options:
    config: Path
    """a Python file that ends in CONFIG = Config(...)"""
    json: Path | None = None
    """writes the figures there"""


def main() -> None:
    console = Console()
    with running(console):
        options, config = options_of(Options, program("check"), __doc__)
        if options.json is not None:
            require_own(options.json, ("flows", "lengths"))
        found = run.check(config, console)
        _show_flows(found["flows"], console)
        _show_lengths(found["lengths"], console)
        if options.json is not None:
            write_atomically(options.json, strict_json.dumps(found, indent=1) + "\n")
        terminal.say(console, "a run could start with this")


def _show_flows(flows: Mapping[str, Mapping[str, list[str]]], console: Console) -> None:
    """Which tools flow into which; those that pass nothing on come last."""
    table = Table("tool", "what it returns is taken by", title="Flows between tools, by name", title_justify="left")
    for tool, into in sorted(flows.items(), key=lambda item: not item[1])[:MAX_ROWS]:
        taken = ", ".join(f"{name}({', '.join(parameters)})" for name, parameters in into.items())
        table.add_row(terminal.harmless_text(tool), terminal.harmless_text(taken or "-"))
    if len(flows) > MAX_ROWS:
        table.add_row(f"{len(flows) - MAX_ROWS} more", "in the file of --json")
    console.print(table)


def _show_lengths(lengths: Mapping[str, Json], console: Console) -> None:
    """The longest of each part; how many were measured where not all were, and where no solution is known, prompts alone."""
    columns = ("tasks", "do not fit", "prompt", "gold dialogue", "longest call")
    table = Table("part", *columns, title="Longest, of the limit, in tokens", title_justify="left")
    for part, one in lengths.items():
        longest = dict(one["longest"] or {})
        if longest and not one["dialogues"]:
            longest |= {"suffix": "not known", "action": "not known"}
        cells = (f"{longest.get(kind, '-')} of {limit}" for kind, limit in one["limits"].items())
        tasks = f"{one['tasks']}" + (f", {one['measured']} measured" if one["measured"] < one["tasks"] else "")
        table.add_row(terminal.harmless_text(part), tasks, str(len(one["unfit"])), *cells)
    console.print(table)
