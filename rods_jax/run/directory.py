"""The directory of a run: who may write there, what a checkpoint relies on beside itself, and forks.

    run/  lock  config.json  tasks/  tokenizer/  cold_start.json  checkpoints/  metrics.jsonl  ...

A directory that is begun carries a mark (rods_jax/files.py) until its first checkpoint is written: a start that was
interrupted before it is simply repeated.  While it learns from demonstrations its checkpoints are in cold_start/.
Left out on purpose: stale locks. The operating system gives a lock back when its process ends, however it ends.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from rods_jax import checkpoint, files, journal, terminal
from rods_jax import config as configuration
from rods_jax.checks import check_opens
from rods_jax.codecs.tokenizer import load_tokenizer
from rods_jax.config import Config, ConfigError
from rods_jax.demonstrations import corpus
from rods_jax.environments.gold import check_gold
from rods_jax.environments.methods import NoTool
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.files import CheckpointError
from rods_jax.metrics import read_metrics
from rods_jax.older import LAYOUT, saved_config
from rods_jax.synthesis.courier.lines import OUTCOMES, SEEDS, TAKEN
from rods_jax.task_files import read_tasks, write_tasks
from rods_jax.types import Call, Codec, Json, Message, ToolSpec

COLD_START = "cold_start"  # the folder of its checkpoints
LOGS = "metrics.jsonl", "trajectories.jsonl", "candidates.jsonl"
_FIXED = ("domain", "build_tasks", "tokenizer", "codec", "model", "cold_start", "replay.capacity")
_PROBE = ToolSpec("probe", "A probe.", {"type": "object", "properties": {"n": {"type": "integer"}}}, "Probe")


class Inputs(NamedTuple):
    """What a run is made of beside its configuration."""

    tasks: TaskSplits
    tokenizer: Any


# ------------------------------------------------------------------------------ whose the directory is
def begins(directory: Path, resume: bool) -> bool:
    """Whether a run begins here (or begins again: an earlier start was interrupted before anything was saved); otherwise
    one goes on. ConfigError, FolderError: neither can be. Nothing is touched."""
    saved = checkpoint.steps(directory / "checkpoints") or checkpoint.steps(directory / COLD_START)
    if files.is_unfinished(directory) and not saved:
        return True
    if not (directory / "config.json").exists():
        if resume:
            raise ConfigError(f"{directory} holds no run")
        files.require_free(directory)
        return True
    if not resume:
        raise ConfigError(
            f"{directory} already holds a run: continue it with --resume, or give another --run-dir or --fork"
        )
    if not saved:
        raise ConfigError(
            f"{directory} holds a run without a checkpoint, and is left as it is: put {directory / 'checkpoints'} back "
            "(is its disk mounted?), or begin another run with another --run-dir"
        )
    return False


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Holds the directory for one trainer; ConfigError: another process does, or there is none.

    Two locks: that of the folder cannot be removed, and that of a file in it reaches the other hosts of an NFS.
    """
    if not directory.is_dir():
        raise ConfigError(f"{directory} holds no run")
    with contextlib.ExitStack() as stack:
        for path, flags in ((directory, os.O_RDONLY), (directory / files.LOCK, os.O_RDWR | os.O_CREAT)):
            descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"{directory} is being trained by another process") from None
        yield


# ------------------------------------------------------------------------------ what a run is made of
def world(config: Config) -> Domain:
    """The configuration's domain.  ConfigError: a member of its classes cannot become a tool, and why."""
    try:
        return config.domain()
    except NoTool as error:
        raise ConfigError(f"domain: {error}") from error


def look(
    config: Config,
    domain: Domain,
    directory: Path,
    resume: bool,
    source: tuple[Path, int] | None,
    console: Console,
    held: contextlib.ExitStack,
) -> tuple[bool, Inputs]:
    """(whether a run begins, what it is made of): built in memory, or that of the run that goes on, which is `held`.

    source: of a fork, whose inputs are those of the run that it is to go on from.
    ConfigError, FolderError: as for `begins`, `alone` and `require_forkable`, or the run was started with other settings.
    """
    if source is not None:
        require_forkable(config, *source)
        return False, read_inputs(source[0])
    if begins(directory, resume):
        return True, build(config, domain, console)
    held.enter_context(alone(directory))
    configuration.require_same_run(config, directory)
    return False, read_inputs(directory)


def build(config: Config, domain: Domain, console: Console) -> Inputs:
    """The tasks and the tokenizer of a run that begins, in memory alone.

    ConfigError: what build_tasks returns is no `TaskSplits`, or an episode cannot begin.  GoldError: as `check_gold`.
    """
    with console.status("building the tasks"):
        started = time.perf_counter()
        tasks = config.build_tasks(domain, config.seed)
        sentence = f"build_tasks must return TaskSplits(seeds=..., held_out=...): got a {type(tasks).__name__}"
        configuration.require(isinstance(tasks, TaskSplits), sentence)
        check_gold(domain, [task for some in tasks for task in some])
        check_opens(domain, tasks.seeds)
        tokenizer = config.tokenizer(corpus(domain, tasks.practice or tasks.seeds))
    sizes = ", ".join(f"{len(some)} {part}" for part, some in tasks._asdict().items())
    seconds = time.perf_counter() - started
    terminal.say(console, f"{domain.name}: {sizes} tasks; {len(tokenizer)} tokens; {seconds:.0f} s")
    return Inputs(tasks, tokenizer)


def take(config: Config, inputs: Inputs, directory: Path, held: contextlib.ExitStack) -> None:
    """Begins the directory of a run, `held` from here on: it is marked as unfinished until `has_begun`."""
    directory.mkdir(parents=True, exist_ok=True)
    held.enter_context(alone(directory))
    files.begin(directory)
    (directory / "tasks").mkdir()
    for part, some in inputs.tasks._asdict().items():
        write_tasks(directory / "tasks" / f"{part}.jsonl", some)
    with files.naming(directory / "tokenizer"):
        inputs.tokenizer.save_pretrained(directory / "tokenizer")
    _write_config(config, directory)


def read_inputs(directory: Path) -> Inputs:
    """What `take` wrote, which every process and every continuation reads."""
    parts = {part: read_tasks(directory / "tasks" / f"{part}.jsonl") for part in TaskSplits._fields}
    return Inputs(TaskSplits(**parts), load_tokenizer(directory / "tokenizer"))


def has_begun(directory: Path) -> None:
    """Its first checkpoint is written: from here on the directory is a run's, and no start replaces it."""
    files.finish(directory)
    shutil.rmtree(directory / COLD_START, ignore_errors=True)


# ----------------------------------------------------------------- what a checkpoint relies on
def inputs_of(directory: Path, codec: Codec) -> dict[str, str]:
    """Digests of what training reads beside the checkpoint: the tasks, the tokenizer, and how the codec writes."""
    template = [
        codec.encode_prompt([_PROBE], "one"),
        codec.encode_messages([Message("user", "two"), Message("tool", "three")]),
        codec.encode_action([Call("probe", {"n": 4})], ""),
        codec.encode_action([], "five"),
    ]
    return {name: _digest_of(directory / name) for name in ("tasks", "tokenizer")} | {
        "template": hashlib.sha256(json.dumps(template).encode()).hexdigest()
    }


def require_same_inputs(now: Mapping[str, str], then: Mapping[str, str], directory: Path) -> None:
    """ConfigError: a resumed run would read other tasks, tokens or frozen weights than before.

    Checkpoints of earlier versions have no digest of frozen weights.
    """
    changed = [name for name in now if now[name] != then.get(name, now[name])]
    if changed:
        raise ConfigError(f"{directory}: {', '.join(changed)} changed since the checkpoint was written")


def _digest_of(directory: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):  # several chat templates have a folder
        name = file.relative_to(directory).as_posix()
        digest.update(f"{name} {file.stat().st_size} ".encode() + file.read_bytes())
    return digest.hexdigest()


# --------------------------------------------------------------------------------------- forks
def fork(config: Config, source: Path, step: int) -> None:
    """Begins `config.run_dir` as what `source` was at `step`; from there on it is a run to be resumed.

    ConfigError, CheckpointError: as for `require_forkable`, or the checkpoint is damaged.
    """
    require_forkable(config, source, step)
    directory, old = Path(config.run_dir), source / "checkpoints" / str(step)
    if wrong := checkpoint.damage(old):
        raise CheckpointError(f"{old} is damaged: {wrong}")
    directory.mkdir(parents=True, exist_ok=True)
    with alone(directory):
        files.begin(directory)
        _copy(source, directory, step)
        _write_config(config, directory)
        files.finish(directory)


def _copy(source: Path, directory: Path, step: int) -> None:
    """What a run was at `step`; its log lines of later steps are cut when the fork goes on."""
    old, new = (run / "checkpoints" / str(step) for run in (source, directory))
    for name in ("tasks", "tokenizer"):
        shutil.copytree(source / name, directory / name)
    for name in (*LOGS, "cold_start.json"):
        if (source / name).exists():
            shutil.copy(source / name, directory / name)
    if (source / "synthesis").exists():
        (directory / "synthesis").mkdir()
        outcomes = checkpoint.read_host(old)["outcomes"]
        for name in (SEEDS, OUTCOMES, TAKEN):
            records = [entry.record for entry in journal.read(source / "synthesis" / name)[0]]
            kept = records[:outcomes] if name == OUTCOMES else [r for r in records if r["step"] < step]
            _write_journal(directory / "synthesis" / name, kept)
    shutil.copytree(old, new)  # last: begun with it, the directory is a run
    if wrong := checkpoint.damage(new):  # as where its trainer removed it meanwhile
        raise CheckpointError(f"{old} could not be copied whole: {wrong}")


def require_readable(directory: Path) -> None:
    """JournalError, JsonError: a record of the run is damaged."""
    for path in (directory / name for name in LOGS):
        if path.exists():
            read_metrics(path)
    for name in (SEEDS, OUTCOMES, TAKEN):
        journal.read(directory / "synthesis" / name)


def require_forkable(config: Config, source: Path, step: int) -> None:
    """What the checkpoint's arrays, pool and place in the curriculum are made of stays as it was. Nothing is touched.

    ConfigError: the configuration changes what the checkpoint's contents mean.  CheckpointError: there is no such
    checkpoint.  ConfigError, FolderError: as for `begins`.
    """
    then = configuration.completed(saved_config(source, update=dict, stages=list), config)
    now = configuration.plain_values(config)
    early = "|".join(str(number) for number in range(len(config.stages) - 1)) or "none"
    fixed = re.compile(
        rf"({'|'.join(map(re.escape, _FIXED))})(\.|$)|stages$|stages\.\d+\.name$|stages\.({early})\.epochs$"
    )
    refused = [key for key in configuration.differences(then, now) if fixed.match(key)]
    if bool(then["update"].get("kl_coefficient")) != bool(now["update"]["kl_coefficient"]):
        refused.append("update.kl_coefficient (the reference policy would appear or vanish)")
    if step and not _writes_beside(then) and _writes_beside(now):
        refused.append("synthesis (the variants so far have no journal)")
    if refused:
        raise ConfigError(f"a fork cannot change {', '.join(refused)}")
    begins(Path(config.run_dir), resume=False)
    if not (source / "checkpoints" / str(step)).is_dir():
        raise CheckpointError(f"{source} holds no checkpoint of step {step}")


def _writes_beside(config: Json) -> bool:
    synthesis = config.get("synthesis")
    return synthesis is not None and not synthesis.get("at_once")


def _write_journal(path: Path, records: list[Json]) -> None:
    with journal.writing(path) as append:
        append(*records)


def _write_config(config: Config, directory: Path) -> None:
    values = {"layout": LAYOUT} | configuration.plain_values(config)
    files.write_atomically(directory / "config.json", json.dumps(values, indent=2) + "\n")
