"""What all commands have in common: their options and a config's in one --help, their errors, their exit statuses.

The table of exit statuses stands in docs/reference/exit_status.md.  Left out on purpose: what the commands do.
"""

import argparse
import contextlib
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import make_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import jax
import tyro
from rich.console import Console

from rods_jax import config as configuration
from rods_jax import terminal
from rods_jax.config import Config
from rods_jax.preemption import Stopped, stop_requests

Chosen = TypeVar("Chosen")
ADDRESS_SPACE = 4 * 10**9  # bytes: with less, native libraries abort before a step is done; the quickstart has 3e9
DESCRIPTORS = 256  # open files: a run has 11, and up to 128 more while it saves
OF_A_WORKER = 3  # beside these, for each environment worker


def program(name: str) -> str:
    """A command as this person types commands: `rods NAME`, or the checkout's script."""
    return f"rods {name}" if sys.argv[0].startswith("rods ") else f"python -m scripts.{name}"


@contextlib.contextmanager
def running(console: Console, out_of_memory: str = "") -> Iterator[None]:
    """A command: whatever ends it is said in one sentence, with the exit status of the table.

    A signal ends it at once, except where a block of `stop_requests` inside says otherwise.
    out_of_memory: the remedy that is named where the device's memory does not do.
    """
    terminal.outlive_output()
    try:
        with stop_requests(seconds=0.0):
            yield
    except Stopped as stopped:
        terminal.say(console, stopped)
        sys.exit(stopped.status)
    except REFUSED as error:
        refuse(console, error, out_of_memory)
    else:
        return
    sys.exit(2)


REFUSED = (ImportError, ValueError, OSError, MemoryError, jax.errors.JaxRuntimeError)


def refuse(console: Console, error: Exception, out_of_memory: str = "") -> None:
    """Says one of `REFUSED` in a sentence; an error of the device that is no want of memory is raised again."""
    if isinstance(error, MemoryError):
        terminal.refuse(console, "out of the host's memory; what was saved stands")
    elif not isinstance(error, jax.errors.JaxRuntimeError):
        terminal.refuse(console, error)
    elif any(words in str(error) for words in ("RESOURCE_EXHAUSTED", "Out of memory")):
        terminal.refuse(console, f"out of memory ({str(error).splitlines()[0]}){out_of_memory}")
    else:
        raise error


def options_of(
    kind: Callable[..., Chosen],
    prog: str,
    description: str | None,
    args: Sequence[str] | None = None,
    settings: type = Config,
) -> tuple[Chosen, Any]:
    """The command's own options and the configuration that its --config names, with the keys that are given beside it.

    settings: what the file's CONFIG is.
    ConfigError: as for `load_config`. A wrong option, or none, exits with 2 and what tyro says of it.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config")
    file = finder.parse_known_args(args)[0].config
    if file is None:
        more = f"{description}\nWith --config FILE, --help lists every key of it too."
        tyro.cli(kind, prog=prog, description=more, args=args)  # says that it is required, or gives help
        raise AssertionError("--config is required")
    flat = tyro.conf.arg(name="")  # no prefix: --resume, --rollout.group-size
    both: Any = make_dataclass("Options", [("options", Annotated[kind, flat]), ("settings", Annotated[settings, flat])])
    default = both(kind(config=Path(file)), configuration.from_file(file, settings))
    found = configuration.parse_options(both, default, f"{prog} --config {file}", args, description)
    return found.options, found.settings


def require_limits(workers: int) -> None:
    """Lets the process open as many files as training needs; OSError: it may not, or there is too little memory.

    workers: processes of environments.
    """
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space != resource.RLIM_INFINITY and space < ADDRESS_SPACE:
        raise OSError(
            f"a process may have {space / 1e9:.1f} GB of address space here, and training needs at least "
            f"{ADDRESS_SPACE / 1e9:.0f}: raise `ulimit -v`"
        )
    needed = DESCRIPTORS + OF_A_WORKER * workers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise OSError(f"a process may open {hard} files here, and training needs {needed}: raise `ulimit -n`")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
