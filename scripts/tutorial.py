"""Makes the tutorial's notebook of its page, runs it in an empty folder, and keeps what it printed.

    python -m scripts.tutorial

Needs the extra `notebook`, and trains as the page does.  Prose becomes a cell of Markdown, a file's block a cell that writes
the file, and commands a cell that runs them.  Printed output of the page is left out: the cells have their own.
"""

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rods_jax.types import Json

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "start" / "tutorial.md"
NOTEBOOK = ROOT / "examples" / "lending_desk" / "tutorial.ipynb"
_FENCE = re.compile(r"^(?:<!-- (not run[^>]*) -->\n)?```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?!https:|#)([^)]+)\)")


class Block(NamedTuple):
    """A part of the page: prose, a piece of a file, commands, or something printed."""

    kind: str  # "prose", "file", "commands", "printed"
    text: str
    file: str = ""


def blocks(page: str) -> Iterator[Block]:
    """The parts of the page in their order; together they are all of it, but for the marks."""
    end = 0
    for fence in _FENCE.finditer(page):
        yield Block("prose", page[end : fence.start()].strip())
        mark, language, text = fence.groups()
        if language == "python":
            yield Block("file", text, mark.split(": ")[1])
        elif language or mark:
            yield Block("printed", f"```{language}\n{text}```")
        else:
            yield Block("commands", text.strip())
        end = fence.end()
    yield Block("prose", page[end:].strip())


def files(page: str) -> dict[str, str]:
    """The files that the page writes: the blocks of a file, two empty lines between them."""
    found: dict[str, str] = {}
    for block in blocks(page):
        if block.kind == "file":
            found[block.file] = f"{found[block.file]}\n\n{block.text}" if block.file in found else block.text
    return found


def cells(page: str) -> list[dict[str, Json]]:
    """The page as cells of nbformat 4.5, without outputs."""
    found: list[dict[str, Json]] = [code("%env FORCE_COLOR=")]  # Jupyter asks programs for colours and moving bars
    begun: set[str] = set()
    for block in blocks(page):
        if block.kind == "file":
            write = "%%writefile -a {}\n\n\n" if block.file in begun else "%%writefile {}\n"
            found.append(code(write.format(block.file) + block.text.rstrip()))
            begun.add(block.file)
        elif block.kind == "commands":
            found.append(code(f"%%bash -e\n{block.text}"))
        elif block.text and not block.text.startswith("```text"):
            text = _LINK.sub(lambda link: f"]({_from_notebook(link[1])})", block.text)
            found.append({"cell_type": "markdown", "metadata": {}, "source": text})
    return [cell | {"id": f"cell-{number}"} for number, cell in enumerate(found)]


def code(source: str) -> dict[str, Json]:
    return {"cell_type": "code", "metadata": {}, "execution_count": None, "source": source, "outputs": []}


def notebook(page: str) -> dict[str, Json]:
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells(page), "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def executed(made: dict[str, Json], folder: Path) -> dict[str, Json]:
    """The notebook after its cells ran in `folder`; nbclient's error names the cell that failed."""
    import nbformat
    from nbclient import NotebookClient

    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    where = {"metadata": {"path": str(folder)}}
    node = nbformat.from_dict(made)
    client = NotebookClient(node, timeout=None, record_timing=False, coalesce_streams=True, resources=where)
    return json.loads(nbformat.writes(client.execute()))


def _from_notebook(link: str) -> str:
    path = (PAGE.parent / link.partition("#")[0]).resolve()
    return os.path.relpath(path, NOTEBOOK.parent) + "".join(link.partition("#")[1:])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        done = executed(notebook(PAGE.read_text("utf-8")), Path(folder))
        text = json.dumps(done, indent=1, ensure_ascii=False).replace(folder, "")
    NOTEBOOK.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
