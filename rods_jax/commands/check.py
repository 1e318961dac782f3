"""Says what a start would say or refuse, without starting and without writing anything.

    python -m scripts.check --config configs/quickstart.py

Plays the gold of every task twice, compares prompts and gold dialogues with the limits, reads the checkpoint's shape,
and lays the policy on the devices that are there.  Exit status: 0 it could start, 2 it would be refused.
"""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from rods_jax import run, terminal
from rods_jax.commands.common import options_of, program, running


@dataclass(frozen=True, kw_only=True)
class Options:
    config: Path
    """a Python file that ends in CONFIG = Config(...)"""


def main() -> None:
    console = Console()
    with running(console):
        _, config = options_of(Options, program("check"), __doc__)
        lengths = run.check(config, console)
        for room, found in lengths.items():
            longest = ", ".join(f"{kind} {count:,}" for kind, count in (found["longest"] or {}).items())
            terminal.say(
                console, f"{room}: {found['tasks']} tasks, {len(found['unfit'])} do not fit; longest {longest}"
            )
        terminal.say(console, "a run could start with this")
