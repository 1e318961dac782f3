"""Files and folders that commands write: where a command may begin, and how a wrong file is reported.

A folder has a mark while it is being written.  A command writes only into a folder that is absent, empty or marked.  It
removes what an interrupted command left, and nothing else.
"""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from rods_jax import strict_json
from rods_jax.strict_json import JsonError
from rods_jax.types import Json

MARK = ".unfinished"
LOCK = "lock"
_STORE = re.compile(r"[a-z][a-z0-9]+:/.+")  # `Path` has left one slash of two
_WORDS = "Being written, or interrupted while it was: the command that began this folder may replace all of it.\n"


class FolderError(ValueError):
    """A folder that a command must not write into, in one sentence."""


class CheckpointError(ValueError):
    """A run's or a model's checkpoint that is not there or cannot be read, in one sentence that names file and key."""


def require_checkpoint(folder: Path) -> None:
    """CheckpointError: there is no such folder; the sentence has the command that fetches a checkpoint into it."""
    if not folder.is_dir():
        remedy = f"hf download NAME --local-dir {folder}"
        raise CheckpointError(f"no checkpoint at {folder}: name another directory, or get one with `{remedy}`")


# ------------------------------------------------------------------------------------- new folders
def is_unfinished(folder: Path) -> bool:
    """Whether an interrupted command of ours left it."""
    try:
        return (folder / MARK).read_text("utf-8") == _WORDS
    except (OSError, ValueError):
        return False


def require_free(folder: Path) -> None:
    """FolderError: something stands there that no interrupted command of ours left, it lies inside a run, or it is the
    address of a store, as gs://bucket/runs, which would become a folder of the local disk."""
    if _STORE.fullmatch(str(folder)):
        raise FolderError(f"{folder} is an address: mount the store, and name the folder under its mount")
    if os.path.lexists(folder) and not folder.is_dir():
        raise FolderError(f"{folder} is no folder, and is left as it is: name another")
    for parent in folder.absolute().resolve().parents:
        if (parent / "config.json").is_file() and (parent / "tasks").is_dir():
            raise FolderError(f"{folder} lies inside the run {parent}, which is left as it is: name another folder")
    held = sorted(name for name in os.listdir(folder) if name != LOCK) if folder.is_dir() else []
    if held and not is_unfinished(folder):
        raise FolderError(f"{folder} holds {held[0]!r} and is left as it is: name a folder that is new or empty")


def require_begun(folder: Path, name: str) -> None:
    """FolderError: as for `require_free`, unless a file of this name shows that the command began the folder before."""
    if not (folder / name).is_file():
        require_free(folder)


def require_own(path: Path, keys: Collection[str]) -> None:
    """FolderError: a file stands there that is no JSON object with these keys, which the command itself would write.

    So it is where there is no folder to write it into.
    """
    if not path.parent.is_dir():
        raise FolderError(f"{path} cannot be written: there is no folder {path.parent}")
    try:
        own = not path.exists() or set(keys) <= read_object(path).keys()
    except (OSError, ValueError):
        own = False
    if not own:
        raise FolderError(f"{path} is no file of this command, and is left as it is: move it away, or name another")


def begin(folder: Path) -> None:
    """Makes the folder and marks it as unfinished; what an interrupted command left there goes.

    FolderError: as for `require_free`; nothing was touched.
    """
    require_free(folder)
    if is_unfinished(folder):
        for entry in list(os.scandir(folder)):
            if entry.name not in (MARK, LOCK):
                shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else os.unlink(entry)
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / MARK, _WORDS)
    sync(folder)


def finish(folder: Path) -> None:
    """Takes the mark away: from here on no command of ours replaces the folder."""
    (folder / MARK).unlink(missing_ok=True)
    sync(folder)


# ------------------------------------------------------------------------------------ single files
@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Gives this file's name to an OSError that has none, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def beside(path: Path) -> Path:
    """A name beside the file that nobody has, for what is to replace it."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")


def write_atomically(path: str | Path, text: str) -> None:
    """Replaces the file's text in one rename, so that no reader and no crash meets half of it."""
    path = Path(path)
    temporary = beside(path)
    try:
        with naming(path), temporary.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Writes a folder to the disk; the names of new files are safe only then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_object(path: str | Path, **kinds: type) -> dict[str, Json]:
    """The JSON object of a file, with these keys of these types; JsonError names the file, and the key."""
    return require_object(strict_json.loads(Path(path).read_bytes(), str(path)), str(path), **kinds)


def require_object(value: Json, where: str, **kinds: type) -> dict[str, Json]:
    """The value, if it is an object with these keys of these types (float: any number); or JsonError."""
    if not isinstance(value, dict):
        raise JsonError(f"{where}: it must be an object: got {shown(value)}")
    for key, kind in kinds.items():
        if key not in value:
            raise JsonError(f"{where}: it lacks the key {key}")
        kinds_of_it = (int, float) if kind is float else kind
        if not isinstance(value[key], kinds_of_it) or isinstance(value[key], bool) and kind is not bool:
            raise JsonError(f"{where}: {key} must be {_NAMES[kind]}: got {shown(value[key])}")
    return value


_NAMES = {
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
    bool: "true or false",
}


def shown(value: Any) -> str:
    """A wrong value in a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
