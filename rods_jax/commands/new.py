"""Writes the folder of a new environment: a class, its tasks, a configuration, a test, and a page that says what to change.

    python -m scripts.new my_env

The folder's name becomes that of the module, and of the class in capitals: my_env, MyEnv.  All of it runs at once.  Exit
status 2: the name will not do, or the folder holds something, which is left as it is.
"""

import importlib.util
import keyword
import re
import shlex
import sys
import tokenize
from pathlib import Path

import tyro
from rich.console import Console

from rods_jax import files, terminal
from rods_jax.commands.common import program, running

SKELETON = Path(__file__).with_name("skeleton")
MODULE, CLASS = "my_env", "MyEnv"  # as the skeleton calls them
MODELS = "rods_jax_models"  # in a checkout: models


def write_skeleton(folder: Path) -> list[Path]:
    """Copies the skeleton under the folder's name; returns what was written.

    ValueError: the name cannot be a module's.  FolderError: the folder holds something; nothing was touched.
    """
    name = folder.absolute().name
    files.require_free(folder)
    require_name(name)
    names = {MODULE: name, CLASS: class_name(name)}
    if importlib.util.find_spec(MODELS) is None:
        names[MODELS] = "models"
    files.begin(folder)
    written = [_copy(source, folder, names) for source in sorted(SKELETON.iterdir()) if source.is_file()]
    files.finish(folder)
    return written


def class_name(name: str) -> str:
    """my_env -> MyEnv."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def require_name(name: str) -> None:
    """ValueError: no module and class can have this name here, or they would hide something."""
    if not name.isidentifier() or keyword.iskeyword(name) or not name[0].isalpha():
        raise ValueError(f"{name!r} cannot name a Python module: use letters, digits and _, as in my_env")
    found = importlib.util.find_spec(name)
    if name in sys.stdlib_module_names or (found is not None and found.origin is not None):
        raise ValueError(f"Python has a module {name} already, which this one would hide: choose another name")
    for source in SKELETON.glob("*.py"):
        with tokenize.open(source) as file:
            used = {token.string for token in tokenize.generate_tokens(file.readline) if token.type == tokenize.NAME}
        for one in (name, class_name(name)):
            if one in used - {MODULE, CLASS} or one == source.stem != MODULE:
                raise ValueError(f"the code that would be written uses the name {one} already: choose another name")


def _copy(source: Path, folder: Path, names: dict[str, str]) -> Path:
    """One file, with the names in its text and in its own name put right."""
    found = re.compile("|".join(map(re.escape, names)))  # all at once: a new name may hold an old one
    target, text = (found.sub(lambda old: names[old[0]], one) for one in (source.name, source.read_text("utf-8")))
    files.write_atomically(folder / target, text)
    return folder / target


def new(folder: Path, /) -> None:
    """Writes the folder of a new environment that runs at once."""
    console = Console()
    with running(console):
        written = write_skeleton(folder)
        terminal.say(console, f"{folder}: {', '.join(path.name for path in written)}")
        config = shlex.quote(str(folder / "config.py"))
        for command in (f"{program('check')} --config {config}", f"{program('train')} --config {config}"):
            terminal.say(console, f"    {command}")


def main() -> None:
    tyro.cli(new, prog=program("new"), description=__doc__)
