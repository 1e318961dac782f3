"""The directory of a run: who may write there, what a checkpoint relies on beside itself, and forks.

    run/  lock  config.json  tasks/  tokenizer/  cold_start.json  checkpoints/  metrics.jsonl  ...

`config.json` is written last when a directory is begun, so a directory without it holds no run and may be begun again.
Left out on purpose: stale locks. The operating system gives a lock back when its process ends, however it ends.
"""

import contextlib
import fcntl
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from models.tokenizer import load_tokenizer
from rods_jax import checkpoint, config as configuration, journal, terminal
from rods_jax.config import Config, ConfigError
from rods_jax.demonstrations import corpus
from rods_jax.environments.gold import check_gold
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.synthesis.dispatch import OUTCOMES, SEEDS, TAKEN
from rods_jax.task_files import read_tasks, write_atomically, write_tasks
from rods_jax.types import Call, Codec, Json, Message, ToolSpec

_FIXED = ("domain", "build_tasks", "tokenizer", "codec", "model", "cold_start", "replay.capacity")
_PROBE = ToolSpec("probe", "A probe.", {"type": "object", "properties": {"n": {"type": "integer"}}}, "Probe")


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Holds the directory for one trainer; ConfigError: another process does, or there is none."""
    if not directory.is_dir():
        raise ConfigError(f"{directory} holds no run")
    with (directory / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{directory} is being trained by another process") from None
        yield


def open_run(config: Config, directory: Path, resume: bool) -> None:
    """Begins a run directory, or checks that the run in it was started with the same configuration."""
    path = directory / "config.json"
    if not resume:
        if path.exists():
            raise ConfigError(
                f"{directory} already holds a run: continue it with --resume, or give another --run-dir"
            )
        directory.mkdir(parents=True, exist_ok=True)
        _write_config(config, directory)
        return
    configuration.require_same_run(config, directory)


def load_or_build(config: Config, domain: Domain, directory: Path, console: Console) -> tuple[TaskSplits, Any]:
    """The run's tasks and tokenizer: built once, then read from the run directory."""
    if (directory / "tokenizer").exists():
        parts = {part: read_tasks(directory / "tasks" / f"{part}.jsonl") for part in TaskSplits._fields}
        return TaskSplits(**parts), load_tokenizer(directory / "tokenizer")
    with console.status("building the tasks"):
        started = time.perf_counter()
        tasks = config.build_tasks(domain, config.seed)
        check_gold(domain, [task for some in tasks for task in some])
        (directory / "tasks").mkdir(exist_ok=True)
        for part, some in tasks._asdict().items():
            write_tasks(directory / "tasks" / f"{part}.jsonl", some)
        tokenizer = config.tokenizer(corpus(domain, tasks.practice or tasks.seeds))
        partial = directory / "tokenizer.partial"  # it is several files, and a crash may come between them
        shutil.rmtree(partial, ignore_errors=True)
        tokenizer.save_pretrained(partial)
        partial.rename(directory / "tokenizer")
    sizes = ", ".join(f"{len(some)} {part}" for part, some in tasks._asdict().items())
    seconds = time.perf_counter() - started
    terminal.say(console, f"{domain.name}: {sizes} tasks; {len(tokenizer)} tokens; {seconds:.0f} s")
    return tasks, tokenizer


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
    """ConfigError: a resumed run would read other tasks or other tokens than before."""
    changed = [name for name in now if now[name] != then[name]]
    if changed:
        raise ConfigError(f"{directory}: {', '.join(changed)} changed since the checkpoint was written")


def _digest_of(directory: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(directory.iterdir()):
        digest.update(f"{file.name} {file.stat().st_size} ".encode() + file.read_bytes())
    return digest.hexdigest()


# --------------------------------------------------------------------------------------- forks
def fork(config: Config, source: Path, step: int) -> None:
    """Begins `config.run_dir` as what `source` was at `step`; from there on it is a run to be resumed.

    ConfigError: the configuration changes what the checkpoint's contents mean. CheckpointError: there is no such
    checkpoint, or it is damaged.
    """
    directory, old = Path(config.run_dir), source / "checkpoints" / str(step)
    _require_forkable(config, source)
    if (directory / "config.json").exists():
        raise ConfigError(f"{directory} already holds a run")
    if not old.is_dir():
        raise checkpoint.CheckpointError(f"{source} holds no checkpoint of step {step}")
    if wrong := checkpoint.damage(old):
        raise checkpoint.CheckpointError(f"{old} is damaged: {wrong}")
    shutil.rmtree(directory, ignore_errors=True)  # what an interrupted fork left
    (directory / "checkpoints").mkdir(parents=True)
    shutil.copytree(old, directory / "checkpoints" / str(step))
    for name in ("tasks", "tokenizer"):
        shutil.copytree(source / name, directory / name)
    for name in ("metrics.jsonl", "trajectories.jsonl", "candidates.jsonl", "cold_start.json"):  # cut when resumed
        if (source / name).exists():
            shutil.copy(source / name, directory / name)
    if (source / "synthesis").exists():
        (directory / "synthesis").mkdir()
        outcomes = json.loads((old / "host" / "metadata").read_text("utf-8"))["outcomes"]
        for name in (SEEDS, OUTCOMES, TAKEN):
            records = [entry.record for entry in journal.read(source / "synthesis" / name)[0]]
            kept = records[:outcomes] if name == OUTCOMES else [r for r in records if r["step"] < step]
            _write_journal(directory / "synthesis" / name, kept)
    _write_config(config, directory)


def _require_forkable(config: Config, source: Path) -> None:
    """What the checkpoint's arrays, pool and place in the curriculum are made of stays as it was."""
    path = source / "config.json"
    if not path.exists():
        raise ConfigError(f"{source} holds no run")
    then, now = json.loads(path.read_text("utf-8")), configuration.resolved(config)
    early = "|".join(str(number) for number in range(len(config.stages) - 1)) or "none"
    fixed = re.compile(
        rf"({'|'.join(map(re.escape, _FIXED))})(\.|$)|stages$|stages\.\d+\.name$|stages\.({early})\.epochs$"
    )
    refused = [key for key in configuration.differences(then, now) if fixed.match(key)]
    if bool(then["update"]["kl_coefficient"]) != bool(now["update"]["kl_coefficient"]):
        refused.append("update.kl_coefficient (the reference policy would appear or vanish)")
    if then["synthesis"] is None and now["synthesis"] is not None:
        refused.append("synthesis (the variants so far have no journal)")
    if refused:
        raise ConfigError(f"a fork cannot change {', '.join(refused)}")


def _write_journal(path: Path, records: list[Json]) -> None:
    with journal.writing(path) as append:
        append(*records)


def _write_config(config: Config, directory: Path) -> None:
    write_atomically(directory / "config.json", json.dumps(configuration.resolved(config), indent=2) + "\n")
