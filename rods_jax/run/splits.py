"""What an evaluation plays and how: its options, the split of tasks that they name, and the floors beside its scores."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from rods_jax.chat import Endpoint
from rods_jax.dialogue import Record, null_player, play
from rods_jax.environments import bfcl
from rods_jax.environments.bfcl_disputed import reason
from rods_jax.environments.bfcl_splits import pick, read_ids
from rods_jax.environments.protocol import Domain
from rods_jax.environments.scoring import Rules
from rods_jax.environments.workplace.domain import WORKPLACE
from rods_jax.held_out import sample_tasks
from rods_jax.run import played, tau2_tasks
from rods_jax.synthesis.pipeline import author_tasks
from rods_jax.task_files import read_tasks
from rods_jax.types import Task

NUM_AUTHORED = 128


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Plays tasks with a player and prints its scores beside those of a player that never calls a tool."""

    player: str
    """gold, null, the directory of a run (its newest checkpoint) or of a checkpoint, or an OpenAI-compatible server's address, up to /v1"""
    tasks: str = ""
    """bfcl-held-out, bfcl-train, bfcl-all, workplace, tau2-DOMAIN-SPLIT such as tau2-airline-test, or a run directory: held-out part (default: the player)"""
    num_tasks: int | None = None
    """a sample of the split with a share of each category, as training takes it (default: all; the workplace writes as many, 128 by default)"""
    rollouts: int = 1
    """per task: pass@k and pass^k go up to it"""
    protocol: Literal["free", "table1"] = "free"
    """table1: the paper's Table 1, every task of the split once, greedy, under the RODS rules; sets those options"""
    rules: Literal["rods", "official"] = "rods"
    """of the interaction; all three verdicts are always given"""
    temperature: float = 1.0
    """0: greedy"""
    top_p: float = 1.0
    seed: int = 0
    """of the policy's noise (not a server's) and of the intervals"""
    split_seed: int = 0
    """of the bfcl halves, and of the workplace tasks"""
    split_file: tuple[Path, ...] = ()
    """bfcl-held-out: the tasks that these files name (EnvTuning's Parquet files, JSON or text with an id a line)"""
    out: Path | None = None
    """default: a folder of runs/evaluations that is named after player and tasks"""
    config: Path | None = None
    """of a checkpoint: what says how it plays; of a run: its config file, where it is no longer where it was"""
    model: str = ""
    """the server's name of the model"""
    api_key_env: str | None = None
    """environment variable that holds the server's key"""
    max_tokens: int = 4096
    """of one of the server's replies"""
    timeout: float = 120.0
    """seconds for one of the server's replies"""
    concurrency: int = 8
    """episodes under way at the server"""
    max_retries: int = 4
    """of a request, with growing waits; then its episode is failed by infrastructure, and in no score"""
    extra: str = "{}"
    """more fields of a request, as JSON, e.g. '{"reasoning_effort": "low"}'; null takes a field out"""
    mesh: tuple[int, int, int, int] | None = None
    """of a run that no single device holds: devices along data, fsdp, tensor, sequence, as in training"""
    coordinator: str | None = None
    """of several processes that share the mesh, each with its tasks (docs/guide/slice.md)"""
    num_processes: int | None = None
    process_id: int | None = None
    user: str = ""
    """of tau2: the OpenAI-compatible server, up to /v1, whose model plays the user"""
    user_model: str = ""
    """the server's name of that model; it speaks at temperature 0, as officially"""
    user_key_env: str | None = None
    """environment variable that holds that server's key"""
    judge: str = ""
    """of tau2: the OpenAI-compatible server whose model decides statements about a dialogue; without one, tasks that have some are left out"""
    judge_model: str = ""
    """the server's name of that model; it decides at temperature 0"""
    judge_key_env: str | None = None
    """environment variable that holds that server's key"""
    scoring: Literal["official", "strict"] = "official"
    """of tau2: strict mends what a policy could exploit (docs/reference/tau2.md)"""
    json: bool = False
    """prints on standard output what scores.json holds, and the table on standard error"""


class Split(NamedTuple):
    """What is played: `name` is printed with every score."""

    name: str
    domain: Domain
    tasks: tuple[Task, ...]
    disputed: Mapping[str, str] = {}  # task id -> why its gold cannot be reached
    floors: Callable[..., list[Record]] | None = None  # (name of tau2_tasks.FLOORS, tasks); None: the null player's


def split_of(settings: Evaluation) -> Split:
    """ValueError: no such tasks."""
    chosen = settings.tasks or settings.player
    if settings.split_file and not chosen.startswith("bfcl-"):
        raise ValueError(f"--split-file names tasks of BFCL, for --tasks bfcl-held-out: got {chosen}")
    asked = {"--user": settings.user, "--judge": settings.judge, "--scoring": settings.scoring == "strict"}
    if (given := [option for option, it in asked.items() if it]) and not tau2_tasks.NAMES.fullmatch(chosen):
        raise ValueError(f"{given[0]} is of tau2-bench's tasks, for --tasks tau2-DOMAIN-SPLIT: got {chosen}")
    seed = settings.split_seed
    if chosen == "workplace":
        count = settings.num_tasks or NUM_AUTHORED
        tasks = author_tasks(WORKPLACE, count=count, rng=random.Random(f"evaluation/{seed}"))
        return Split(f"workplace, seed {seed}", WORKPLACE, tasks)
    if chosen in ("bfcl-held-out", "bfcl-train", "bfcl-all"):
        tasks, named = bfcl.load_tasks(), f"split seed {seed}"
        train, held_out = bfcl.split(tasks, seed=seed)
        if settings.split_file:
            held_out = pick(tasks, [one for path in settings.split_file for one in read_ids(path)])
            ids = {task.id for task in held_out}
            train = tuple(task for task in tasks if task.id not in ids)
            named = "split of " + ", ".join(path.name for path in settings.split_file)
        part = {"bfcl-held-out": held_out, "bfcl-train": train, "bfcl-all": tasks}[chosen]
        disputed = {task.id: why for task in part if (why := reason(task.id))}
        split = Split(f"{chosen}, {named}", bfcl.bfcl_domain(train), part, disputed)
        return _sampled(split, settings.num_tasks)
    if found := tau2_tasks.tau2_tasks(chosen, user_of(settings), judge_of(settings), settings.scoring, settings.seed):
        if settings.player == "gold":
            raise ValueError(f"--player gold: {chosen} has no gold dialogues, only gold states")
        floors = partial(tau2_tasks.floor_records, found.floors)
        split = Split(found.name, found.domain, found.tasks, found.disputed, floors)
        return _sampled(split, settings.num_tasks)
    directory = Path(chosen)
    if not is_directory(chosen) or played.is_checkpoint(directory):
        raise ValueError(
            "--tasks must be bfcl-held-out, bfcl-train, bfcl-all, workplace, tau2-DOMAIN-SPLIT or a run directory: "
            f"got {chosen!r}"
        )
    config = played.run_config(directory, settings.config)
    tasks = read_tasks(directory / "tasks" / "held_out.jsonl")
    return _sampled(Split(f"{directory} held-out, seed {config.seed}", config.domain(), tasks), settings.num_tasks)


def user_of(settings: Evaluation) -> Endpoint | None:
    """The server of the user's model. ValueError: it is no address, or the model has no name."""
    return _endpoint(settings, "user", settings.user, settings.user_model, settings.user_key_env)


def judge_of(settings: Evaluation) -> Endpoint | None:
    """The server of the judge's model. ValueError: as of the user's."""
    return _endpoint(settings, "judge", settings.judge, settings.judge_model, settings.judge_key_env)


def _endpoint(settings: Evaluation, who: str, url: str, model: str, key_env: str | None) -> Endpoint | None:
    if not url and not model:
        return None
    if not is_address(url) or not model:
        raise ValueError(
            f"--{who} must be an address that begins with http://, and --{who}-model the name of its model"
        )
    return Endpoint(
        url=url,
        model=model,
        api_key_env=key_env,
        temperature=0.0,
        top_p=1.0,
        timeout=settings.timeout,
        concurrency=settings.concurrency,
        max_retries=settings.max_retries,
    )


def _sampled(split: Split, count: int | None) -> Split:
    tasks = sample_tasks(split.tasks, count)
    if len(tasks) == len(split.tasks):
        return split
    disputed = {task.id: split.disputed[task.id] for task in tasks if task.id in split.disputed}
    return split._replace(name=f"{split.name}, {count} of {len(split.tasks)}", tasks=tasks, disputed=disputed)


def floors_of(split: Split, rules: Rules) -> list[tuple[str, list[Record]]]:
    """What policies score that look at nothing, the null player first."""
    if split.floors is None:
        return [("nothing done", [play(split.domain, task, 0, null_player(task), rules) for task in split.tasks])]
    return [(name, split.floors(name, split.tasks)) for name in tau2_tasks.FLOORS]


def is_address(name: str) -> bool:
    return name.lower().startswith(("http://", "https://"))


def is_directory(name: str) -> bool:
    """A run's or a checkpoint's."""
    return (Path(name) / "config.json").exists()
