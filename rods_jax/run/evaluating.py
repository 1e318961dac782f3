"""Evaluates any policy on any split: scores with intervals, a table, and a page of trajectories.

Writes journal.jsonl (a line per finished episode), scores.json and trajectories.html.  Interrupted, the same call
continues; episodes that the infrastructure failed are played again.  What computes is in evaluation.py.
"""

import contextlib
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from rods_jax import processes, strict_json, terminal
from rods_jax.chat import Endpoint, http_generate
from rods_jax.config import Config
from rods_jax.dialogue import Record, gold_player, null_player
from rods_jax.environments.gold import check_gold
from rods_jax.environments.scoring import OFFICIAL, RODS, Rules
from rods_jax.evaluation import ALL, Key, count_slips, open_journal, score, slips_of
from rods_jax.fields import plain_values
from rods_jax.files import require_begun, write_atomically
from rods_jax.generation import Sampling
from rods_jax.records import decode, encode
from rods_jax.run import advice, played, players
from rods_jax.run.learning import cache_compilations
from rods_jax.run.players import Jobs, PlayJobs
from rods_jax.run.scores_table import print_scores, title_of
from rods_jax.run.splits import Evaluation, Split, floors_of, is_address, is_directory, split_of
from rods_jax.run.trajectory_page import write_page
from rods_jax.task_files import task_to_json
from rods_jax.types import Json, Task

JOURNAL = "journal.jsonl"
TOLD = 256  # records of a journal that the other processes hear at a time: together they may exceed any message
LIMITS = "max_prompt_tokens", "max_suffix_tokens", "max_action_tokens"


def evaluate(settings: Evaluation, console: Console | None = None) -> dict[str, Json]:
    """Plays what the journal lacks, writes the three files, prints the table; returns what scores.json holds.

    ValueError: there are no such tasks, no such player, or no such option for it.
    """
    console = console or Console()
    if settings.rollouts < 1 or (settings.num_tasks is not None and settings.num_tasks < 1):
        raise ValueError("--rollouts and --num-tasks must be at least 1")
    if not 0 <= settings.temperature < math.inf:
        raise ValueError(f"--temperature must be a number of at least 0: got {settings.temperature}")
    if settings.seed < 0:
        raise ValueError(f"--seed must be at least 0: got {settings.seed}")
    if settings.top_p is not None and not 0 < settings.top_p <= 1:
        raise ValueError(f"--top-p must be above 0 and at most 1: got {settings.top_p}")
    settings = under_protocol(settings)
    config = config_of_player(settings)
    if settings.out is not None:  # the other folders are named after what is read
        processes.on_first(partial(require_begun, settings.out, JOURNAL))
    split = split_of(settings)
    if not split.tasks:
        raise ValueError(f"{split.name} has no tasks: there is nothing to play")
    if settings.num_tasks is not None and settings.num_tasks > len(split.tasks):
        terminal.say(console, f"--num-tasks {settings.num_tasks}: the split has {len(split.tasks)}, all are played")
    rules = evaluation_rules(settings, config)
    check_gold(split.domain, split.tasks, rules)
    name, player = player_of(settings, split, rules, config)
    header = header_of(settings, name, split, rules, config)
    directory = settings.out or Path("runs/evaluations") / _slug(f"{name} on {split.name}")
    processes.on_first(lambda: require_begun(directory, JOURNAL))
    # Play.
    jobs = [(task, rollout) for task in split.tasks for rollout in range(settings.rollouts)]
    with journal_of(directory, header) as (kept, append):
        records = play_rest(player, jobs, kept, append, console, is_served=is_address(settings.player))
    floors = floors_of(split, rules)
    # Score.
    by_id = {task.id: task for task in split.tasks}
    slips = [slip for one in records if not one.failure for slip in slips_of(split.domain, by_id[one.task_id], one)]
    result = header | {
        "scores": score(split.tasks, records, seed=settings.seed, disputed=split.disputed) | count_slips(slips),
        "floor": score(split.tasks, floors[0][1], seed=settings.seed, disputed=split.disputed)["rows"],
        "floors": {
            name: score(split.tasks, some, seed=settings.seed)["rows"][ALL]["official"] for name, some in floors
        },
        "disputed": dict(split.disputed),
    }
    # Write and tell.
    if processes.is_first():
        write_atomically(directory / "scores.json", strict_json.dumps(result, indent=2) + "\n")
        write_page(directory / "trajectories.html", title_of(result), split.domain, split.tasks, records, result)
    print_scores(result, console)
    if is_address(settings.player):
        for sentence in advice.advice(records, settings.player, settings.max_tokens):
            terminal.say(console, sentence, "yellow")
    if not has_scores(result):
        most = next(iter(result["scores"]["failures"]))
        terminal.say(console, f"nothing was scored: every episode failed, most of them by {most}", "bold red")
    terminal.say(console, f"written to {directory}: scores.json, trajectories.html, journal.jsonl")
    return result


def header_of(
    settings: Evaluation, player: str, split: Split, rules: Rules, config: Config | None = None
) -> dict[str, Json]:
    """All that a record depends on: a journal is continued under the same header alone.

    config: as `config_of_player` finds it.  A run keeps its own; a checkpoint's file may say something else the next time.
    """
    header = {
        "player": player,
        "protocol": settings.protocol,
        "tasks": split.name,
        "tasks_sha256": digest_of(split.tasks),
        "num_tasks": len(split.tasks),
        "rollouts": settings.rollouts,
        "rules": settings.rules,
        "max_attempts": rules.max_attempts,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_tokens,
        "seed": settings.seed,
    }
    if config is not None and played.is_checkpoint(Path(settings.player)):
        said = plain_values(config)
        header |= {name: said["rollout"][name] for name in LIMITS} | {"codec": said["codec"]}
    header |= {"user": f"{settings.user_model} at {settings.user}"} if settings.user else {}
    header |= {"judge": f"{settings.judge_model} at {settings.judge}"} if settings.judge else {}
    return header | ({"extra": extra} if (extra := extra_of(settings)) else {})


@contextlib.contextmanager
def journal_of(
    directory: Path, header: Mapping[str, Json]
) -> Iterator[tuple[dict[Key, Record], Callable[[Record], None]]]:
    """The journal: what it holds, in every process, and what appends to it in the first one."""
    with contextlib.ExitStack() as stack:
        append: Callable[[Record], None] = lambda record: None
        kept: list[Record] = []

        def opened() -> int:
            nonlocal append
            directory.mkdir(parents=True, exist_ok=True)
            records, append = stack.enter_context(open_journal(directory / JOURNAL, header))
            kept.extend(records.values())
            return len(kept)

        def told(first: int) -> list[Json]:
            return [encode(record) for record in kept[first : first + TOLD]]

        stretches = (processes.on_first(partial(told, n)) for n in range(0, processes.on_first(opened), TOLD))
        records = (decode(Record, line) for some in stretches for line in some)
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


def config_of_player(settings: Evaluation) -> Config | None:
    """How a run or a checkpoint plays; another player has none. ValueError: no such player; said before any task is made."""
    name = settings.player
    if is_directory(name):
        return replace(played.playing_config(Path(name), settings.config), mesh=settings.mesh)
    if name in ("gold", "null"):
        return None
    if not is_address(name):
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
    if config is None or is_address(name):  # a server: what plays on the devices here has a configuration
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


def digest_of(tasks: Sequence[Task]) -> str:
    """The sha256 of tasks in their order, as a journal and scores.json hold it."""
    return hashlib.sha256(json.dumps([task_to_json(task) for task in tasks]).encode()).hexdigest()


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_")
