"""What stands in the lines of the journals between trainer and workers, written and read.

seeds.jsonl      {"key", "step", "random", "task", "trajectories"}; an older line has no trajectories
outcomes.jsonl   {"key", "candidate", "content", "rejections", "exchanges"}
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from rods_jax.environments.protocol import Domain
from rods_jax.journal import Entry, JournalError
from rods_jax.records import RecordError, decode, encode
from rods_jax.synthesis.attempt import Exchange, Rejection
from rods_jax.synthesis.author import Order, Synthesis
from rods_jax.synthesis.critique import content_hash
from rods_jax.task_files import TaskFileError, task_from_json, task_line, task_to_json
from rods_jax.types import Json, Task, Trajectory

SEEDS, OUTCOMES, TAKEN, WORK = "seeds.jsonl", "outcomes.jsonl", "taken.jsonl", "work"


class Sent(NamedTuple):
    """An order under way."""

    key: str  # "step/seed"
    order: Order
    step: int
    random: str  # the seed of the author's random numbers


def sent_to_json(sent: Sent) -> Json:
    """A line of seeds.jsonl."""
    return {
        "key": sent.key,
        "step": sent.step,
        "random": sent.random,
        "task": task_to_json(sent.order.seed),
        "trajectories": trajectories_to_json(sent.order.trajectories),
    }


def read_sent(path: Path, entry: Entry) -> Sent:
    """Inverse of `sent_to_json`. JournalError: the task is of another version."""
    record = entry.record
    try:
        order = Order(task_from_json(record["task"]), trajectories_from_json(record.get("trajectories", ())))
    except (TaskFileError, RecordError) as error:
        raise JournalError(f"{path}, line {entry.line}: {error}") from None
    return Sent(record["key"], order, record["step"], record["random"])


def trajectories_to_json(trajectories: Sequence[Trajectory]) -> list[Json]:
    """What `trajectories_from_json` reads."""
    return [encode(trajectory) for trajectory in trajectories]


def trajectories_from_json(records: Sequence[Mapping[str, Json]]) -> tuple[Trajectory, ...]:
    """Trajectories equal to those that were written. RecordError: they are of another version."""
    return tuple(decode(Trajectory, record) for record in records)


def outcome_record(key: str, result: Synthesis) -> Json:
    """A line of outcomes.jsonl, with the variant's content hash, by which workers know it."""
    candidate = result.candidate
    return {
        "key": key,
        "candidate": candidate and task_to_json(candidate),
        "content": candidate and content_hash(candidate),
        **attempts_record(result),
    }


def attempts_record(result: Synthesis) -> dict[str, Json]:
    """What `read_attempts` reads."""
    return {
        "rejections": [asdict(rejection) for rejection in result.rejections],
        "exchanges": [asdict(exchange) for exchange in result.exchanges],
    }


def read_attempts(record: Mapping[str, Json]) -> tuple[tuple[Rejection, ...], tuple[Exchange, ...]]:
    """The rejections and exchanges of a record, equal to those that were written."""
    rejections = (
        Rejection(
            **rejection
            | {name: tuple(rejection[name]) for name in ("functions", "refused_patches")}
            | {"plan": tuple(map(tuple, rejection["plan"]))}
        )
        for rejection in record["rejections"]
    )
    return tuple(rejections), tuple(Exchange(**exchange) for exchange in record["exchanges"])


def storable(domain: Domain, task: Task) -> str | None:
    """Gate: the task survives journals and task files unchanged; else the reason why it does not."""
    try:
        task_line(replace(task, id="any"))
    except (TypeError, ValueError, RecursionError) as error:
        return str(error)
    return None
