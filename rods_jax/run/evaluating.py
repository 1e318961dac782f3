"""Evaluates any policy on any split: scores with intervals, a table, and a page of trajectories.

Writes journal.jsonl (a line per finished episode), scores.json and trajectories.html.  Interrupted, the same call
continues; episodes that the infrastructure failed are played again.  What computes is in evaluation.py.
"""

import contextlib
import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.console import Console
from rich.progress import track

from rods_jax import processes, strict_json, terminal
from rods_jax.chat import Endpoint, http_generate
from rods_jax.config import Config
from rods_jax.dialogue import Record, gold_player, null_player, play
from rods_jax.environments import bfcl
from rods_jax.environments.bfcl_disputed import reason
from rods_jax.environments.bfcl_splits import pick, read_ids
from rods_jax.environments.gold import check_gold
from rods_jax.environments.protocol import Domain
from rods_jax.environments.scoring import OFFICIAL, RODS, Rules
from rods_jax.environments.workplace.domain import WORKPLACE
from rods_jax.evaluation import ALL, Key, open_journal, score
from rods_jax.files import write_atomically
from rods_jax.generation import Sampling
from rods_jax.held_out import sample_tasks
from rods_jax.records import decode, encode
from rods_jax.run import advice, played, players
from rods_jax.run.learning import cache_compilations
from rods_jax.run.players import Jobs, PlayJobs
from rods_jax.run.scores_table import print_scores, title_of
from rods_jax.run.trajectory_page import write_page
from rods_jax.synthesis.pipeline import author_tasks
from rods_jax.task_files import read_tasks, task_to_json
from rods_jax.types import Json, Task

NUM_AUTHORED = 128


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Plays tasks with a player and prints its scores beside those of a player that never calls a tool."""

    player: str
    """gold, null, the directory of a run (its newest checkpoint) or of a checkpoint, or an OpenAI-compatible server's address, up to /v1"""
    tasks: str = ""
    """bfcl-held-out, bfcl-train, bfcl-all, workplace, or a run directory: held-out part (default: the player)"""
    num_tasks: int | None = None
    """a sample of the split with a share of each category, as training takes it (default: all of them; the workplace has 128)"""
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
    json: bool = False
    """prints on standard output what scores.json holds, and the table on standard error"""


class Split(NamedTuple):
    """What is played: `name` is printed with every score."""

    name: str
    domain: Domain
    tasks: tuple[Task, ...]
    disputed: Mapping[str, str] = {}  # task id -> why its gold cannot be reached


def evaluate(settings: Evaluation, console: Console | None = None) -> dict[str, Json]:
    """Plays what the journal lacks, writes the three files, prints the table; returns what scores.json holds.

    ValueError: there are no such tasks, no such player, or no such option for it.
    """
    console = console or Console()
    if settings.rollouts < 1 or (settings.num_tasks is not None and settings.num_tasks < 1):
        raise ValueError("--rollouts and --num-tasks must be at least 1")
    settings = under_protocol(settings)
    config = config_of_player(settings)
    split = split_of(settings)
    if not split.tasks:
        raise ValueError(f"{split.name} has no tasks: there is nothing to play")
    if settings.num_tasks is not None and settings.num_tasks > len(split.tasks):
        terminal.say(console, f"--num-tasks {settings.num_tasks}: the split has {len(split.tasks)}, all are played")
    rules = evaluation_rules(settings, config)
    check_gold(split.domain, split.tasks, rules)
    name, player = player_of(settings, split, rules, config)
    header = header_of(settings, name, split, rules)
    directory = settings.out or Path("runs/evaluations") / _slug(f"{name} on {split.name}")
    # Play.
    jobs = [(task, rollout) for task in split.tasks for rollout in range(settings.rollouts)]
    with journal_of(directory, header) as (kept, append):
        records = play_rest(player, jobs, kept, append, console, is_served=_is_address(settings.player))
    floor = [play(split.domain, task, 0, null_player(task), rules) for task in split.tasks]
    # Score.
    result = header | {
        "scores": score(split.tasks, records, seed=settings.seed, disputed=split.disputed),
        "floor": score(split.tasks, floor, seed=settings.seed, disputed=split.disputed)["rows"],
        "disputed": dict(split.disputed),
    }
    # Write and tell.
    if processes.is_first():
        write_atomically(directory / "scores.json", strict_json.dumps(result, indent=2) + "\n")
        write_page(directory / "trajectories.html", title_of(result), split.tasks, records, result)
    print_scores(result, console)
    if _is_address(settings.player):
        for sentence in advice.advice(records, settings.player, settings.max_tokens):
            terminal.say(console, sentence, "yellow")
    if not has_scores(result):
        most = next(iter(result["scores"]["failures"]))
        terminal.say(console, f"nothing was scored: every episode failed, most of them by {most}", "bold red")
    terminal.say(console, f"written to {directory}: scores.json, trajectories.html, journal.jsonl")
    return result


def header_of(settings: Evaluation, player: str, split: Split, rules: Rules) -> dict[str, Json]:
    """All that a record depends on: a journal is continued under the same header alone."""
    header = {
        "player": player,
        "protocol": settings.protocol,
        "tasks": split.name,
        "tasks_sha256": _digest(split.tasks),
        "num_tasks": len(split.tasks),
        "rollouts": settings.rollouts,
        "rules": settings.rules,
        "max_attempts": rules.max_attempts,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_tokens,
        "seed": settings.seed,
    }
    return header | ({"extra": extra} if (extra := extra_of(settings)) else {})


@contextlib.contextmanager
def journal_of(
    directory: Path, header: Mapping[str, Json]
) -> Iterator[tuple[dict[Key, Record], Callable[[Record], None]]]:
    """The journal: what it holds, in every process, and what appends to it in the first one."""
    with contextlib.ExitStack() as stack:
        append: Callable[[Record], None] = lambda record: None

        def opened() -> list[Json]:
            nonlocal append
            directory.mkdir(parents=True, exist_ok=True)
            records, append = stack.enter_context(open_journal(directory / "journal.jsonl", header))
            return [encode(record) for record in records.values()]

        records = (decode(Record, line) for line in processes.on_first(opened))
        yield {(record.task_id, record.rollout): record for record in records}, append


def play_rest(
    player: PlayJobs,
    jobs: Jobs,
    kept: Mapping[Key, Record],
    append: Callable[[Record], None],
    console: Console,
    *,
    is_served: bool,
) -> list[Record]:
    """The records of all jobs in their order: those of the journal that did not fail, and the rest, played now."""
    records = {key: record for key, record in kept.items() if not record.failure}
    if kept:
        console.print(f"continuing: {len(records)} of {len(jobs)} episodes are in the journal")
    pending = [(task, rollout) for task, rollout in jobs if (task.id, rollout) not in records]
    calls, told = Counter[str](), not is_served
    disable = not console.is_terminal
    for record in track(player(pending), "playing", len(pending), console=console, disable=disable):
        append(record)
        records[record.task_id, record.rollout] = record
        calls += advice.calls_of(record)
        if not told and (sentence := advice.left_in_text(calls, advice.EARLY)):
            told = True  # while there is time to stop
            terminal.say(console, sentence, "yellow")
    return [records[task.id, rollout] for task, rollout in jobs]


def has_scores(result: Mapping[str, Json]) -> bool:
    """Whether any episode counts."""
    return result["scores"]["rows"][ALL]["official"] is not None


# ------------------------------------------------------------------------------- tasks and player
TABLE1: dict[str, Any] = {"num_tasks": None, "rollouts": 1, "rules": "rods", "temperature": 0.0, "top_p": 1.0}


def under_protocol(settings: Evaluation) -> Evaluation:
    """The settings that a protocol fixes. ValueError: another value was asked for."""
    if settings.protocol == "free":
        return settings
    plain = Evaluation(player=settings.player)
    for name, value in TABLE1.items():
        if (asked := getattr(settings, name)) not in (value, getattr(plain, name)):
            option = name.replace("_", "-")
            raise ValueError(f"--protocol table1 fixes --{option} at {value}: got {asked}")
    return replace(settings, **TABLE1)


def split_of(settings: Evaluation) -> Split:
    """ValueError: no such tasks."""
    chosen = settings.tasks or settings.player
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
    directory = Path(chosen)
    if not _is_directory(chosen) or played.is_checkpoint(directory):
        raise ValueError(
            f"--tasks must be bfcl-held-out, bfcl-train, bfcl-all, workplace or a run directory: got {chosen!r}"
        )
    config = played.run_config(directory, settings.config)
    tasks = read_tasks(directory / "tasks" / "held_out.jsonl")
    return _sampled(Split(f"{directory} held-out, seed {config.seed}", config.domain(), tasks), settings.num_tasks)


def _sampled(split: Split, count: int | None) -> Split:
    tasks = sample_tasks(split.tasks, count)
    if len(tasks) == len(split.tasks):
        return split
    disputed = {task.id: split.disputed[task.id] for task in tasks if task.id in split.disputed}
    return split._replace(name=f"{split.name}, {count} of {len(split.tasks)}", tasks=tasks, disputed=disputed)


def config_of_player(settings: Evaluation) -> Config | None:
    """How a run or a checkpoint plays; another player has none. ValueError: no such player; said before any task is made."""
    name = settings.player
    if _is_directory(name):
        return replace(played.playing_config(Path(name), settings.config), mesh=settings.mesh)
    if name in ("gold", "null"):
        return None
    if not _is_address(name):
        raise ValueError(
            f"no such run: {name}: --player must be gold, null, the directory of a run or of a checkpoint, or an "
            "address that begins with http://"
        )
    if not settings.model:
        raise ValueError("--model must name the model at the server")
    return None


def evaluation_rules(settings: Evaluation, config: Config | None) -> Rules:
    """The limit of attempts of what plays holds under the RODS rules."""
    if settings.rules == "official":
        return OFFICIAL
    return RODS if config is None else RODS._replace(max_attempts=config.rollout.max_attempts)


def player_of(settings: Evaluation, split: Split, rules: Rules, config: Config | None) -> tuple[str, PlayJobs]:
    """(name, player). ValueError: the server's key or options are none."""
    name = settings.player
    if name in ("gold", "null"):
        return name, players.scripted_player(split.domain, gold_player if name == "gold" else null_player, rules)
    if config is None or _is_address(name):  # a server: what plays on the devices here has a configuration
        endpoint = Endpoint(
            url=name,
            model=settings.model,
            api_key_env=settings.api_key_env,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=settings.max_tokens,
            timeout=settings.timeout,
            concurrency=settings.concurrency,
            max_retries=settings.max_retries,
            extra=extra_of(settings),
        )
        player = players.served(split.domain, http_generate(endpoint, seed=settings.seed), settings.concurrency, rules)
        return f"{settings.model} at {name}", player
    cache_compilations()
    own = played.played(Path(name), config)
    player = played.policy_player(
        own,
        split.domain,
        split.tasks,
        rollouts=settings.rollouts,
        sampling=Sampling(settings.temperature, settings.top_p),
        seed=settings.seed,
        rules=rules,
    )
    return own.name, player


def extra_of(settings: Evaluation) -> dict[str, Json]:
    """ValueError: it is no JSON object."""
    extra = strict_json.loads(settings.extra, "--extra")
    if not isinstance(extra, dict):
        raise ValueError(f"--extra must be a JSON object: got {settings.extra}")
    return extra


def _is_address(name: str) -> bool:
    return name.lower().startswith(("http://", "https://"))


def _is_directory(name: str) -> bool:
    """A run's or a checkpoint's."""
    return (Path(name) / "config.json").exists()


def _digest(tasks: Sequence[Task]) -> str:
    return hashlib.sha256(json.dumps([task_to_json(task) for task in tasks]).encode()).hexdigest()


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_")
