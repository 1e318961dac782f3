"""A page of a run, or of several beside each other, that a browser shows while they train.

    python -m scripts.look runs/quickstart                            prints the page's address; Ctrl-C ends it
    python -m scripts.look runs/a runs/b results.jsonl                two runs compared, and a table of results
    python -m scripts.look runs/quickstart --out quickstart.html      the page as one file instead

The page shows curves, zones, the pool with its ancestry, trajectories, synthesis and settings. It is served to this
machine alone, and runs are only read. Keys: ? on the page lists them.
"""

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from rods_jax import terminal
from rods_jax.commands.common import program, running
from rods_jax.files import FolderError, write_atomically
from rods_jax.look.page import MARK, page
from rods_jax.look.pieces import addresses, piece, source
from rods_jax.look.serving import HOST, server


def look(
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    out: Path | None = None,
    port: int = 0,
) -> None:
    """Shows runs in a browser.

    Args:
        paths: run directories, and *.jsonl files of results
        out: writes the page into this file instead of serving it; only a page of ours is replaced
        port: of the server; 0: any free one
    """
    console = Console()
    with running(console):
        found = source(paths)
        if not paths:
            raise ValueError("give a run directory")
        if out is not None:
            require_ours(out)
            write_atomically(out, page({address: piece(found, address) for address in addresses(found)})[0])
            terminal.say(console, f"written: {out}")
            return
        with server(lambda address: piece(found, address), port) as serving:
            terminal.say(console, f"http://{HOST}:{serving.server_address[1]}  (Ctrl-C ends it)")
            serving.serve_forever()


def require_ours(path: Path) -> None:
    """FolderError: a file stands there that this command has not written."""
    if path.exists() and not (path.is_file() and path.read_bytes()[: len(MARK)] == MARK.encode()):
        raise FolderError(f"{path} is no page of this command, and is left as it is: name another file")


def main() -> None:
    tyro.cli(look, prog=program("look"), description=__doc__)
