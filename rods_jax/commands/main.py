"""`rods COMMAND ...`: finds the command among those that are installed and runs it.

Commands are the entry points of the group "rods_jax.commands", so that other packages can bring some.
"""

import os
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points


def main() -> None:
    """Exit status 2: there is no such command, or a package that it needs is not installed."""
    commands = {entry.name: entry for entry in entry_points(group="rods_jax.commands")}
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in commands:
        sys.path.append(
            os.getcwd()
        )  # a checkout's configs and models, as with `python -m`; what is installed comes first
        sys.argv = [f"rods {name}", *sys.argv[2:]]
        load(name, commands[name])()
        return
    asked = name in ("-h", "--help")
    print(command_list(commands) if asked else f"rods: no command {name!r}: one of {', '.join(sorted(commands))}",
          file=sys.stdout if asked else sys.stderr)  # fmt: skip
    sys.exit(0 if asked else 2)


def load(name: str, command: EntryPoint) -> Callable[[], None]:
    try:
        return command.load()
    except ModuleNotFoundError as error:
        print(f"rods {name}: {error}; commands need what `pip install rods_jax` brings along", file=sys.stderr)
        sys.exit(2)


def command_list(commands: dict[str, EntryPoint]) -> str:
    return "\n".join(["usage: rods COMMAND [--help] ...", "", *(f"  {name}" for name in sorted(commands))])
