"""A position of the loop in a checkpoint: arrays as Orbax's, all else as one JSON record."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from rods_jax import checkpoint, successes
from rods_jax.config import ReplaySettings
from rods_jax.loop import Position
from rods_jax.records import decode, encode
from rods_jax.replay import ReplayState
from rods_jax.task_files import VERSIONED
from rods_jax.types import Json, TrainState

_PLACE = ("epoch", "place", "outcomes", "tokens", "rollouts")


def host_of(position: Position, inputs: Mapping[str, str] = {}) -> dict[str, Json]:
    """All of a position that is no array, and the digests of what else a resumed run reads."""
    place = {name: getattr(position, name) for name in _PLACE}
    kept = {"successes": successes.written(position.successes)} if position.successes else {}
    return {"replay": encode(position.replay, VERSIONED), "inputs": dict(inputs)} | place | kept


def save_position(
    checkpoints: Any, position: Position, metrics: Mapping[str, float] = {}, inputs: Mapping[str, str] = {}
) -> None:
    """Writes it in the background, as `checkpoint.save` does and with its errors."""
    checkpoint.save(checkpoints, position.step, position.train_state, host_of(position, inputs), metrics)


def restore_position(
    checkpoints: Any,
    like: TrainState,
    settings: ReplaySettings,
    at: int | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> tuple[Position, dict[str, str]]:
    """(the latest position, or that of step `at`; the digests it was saved with), as `checkpoint.restore` finds it.

    settings: of the pool from here on, which may be others than it was saved with.
    """
    step, state, host = checkpoint.restore(checkpoints, like, at, tell)
    pool = replace(decode(ReplayState, host["replay"], "replay", VERSIONED), settings=settings)
    place = {name: host[name] for name in _PLACE if name in host}  # earlier versions counted no rollouts
    kept = successes.read(host.get("successes", {}))
    return Position(state, pool, step, **place, successes=kept), host["inputs"]
