"""Where two runs first differ, and in what: settings, metrics, logs, and checkpoints bit for bit.

Seconds, and what comes of them, are left out.  Of the checkpoints those are compared that both runs hold.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from rods_jax import checkpoint
from rods_jax.config import ConfigError
from rods_jax.fields import differences
from rods_jax.files import CheckpointError, read_object
from rods_jax.metrics import TIMED, read_metrics
from rods_jax.types import Json

LOGS = ("metrics", "candidates", "trajectories")


def compare(a: Path, b: Path) -> list[str]:
    """One sentence for each kind of thing that differs, about its first difference.

    ConfigError: no run.  CheckpointError: a checkpoint that both hold is damaged.
    """
    for run in (a, b):
        if not (run / "config.json").exists():
            raise ConfigError(f"{run} holds no run")
    found = [*_configs(a, b)]
    for name in LOGS:
        found += _logs(name, _read(a / f"{name}.jsonl"), _read(b / f"{name}.jsonl"))
    return found + [*_checkpoints(a / "checkpoints", b / "checkpoints")]


def _configs(a: Path, b: Path) -> Iterator[str]:
    first, second = (read_object(run / "config.json") for run in (a, b))
    if keys := [key for key in differences(first, second) if key not in ("run_dir", "file")]:
        yield f"settings: {', '.join(keys)}"


def _read(path: Path) -> list[dict[str, Json]]:
    records = read_metrics(path) if path.exists() else []
    return [{key: value for key, value in r.items() if not key.startswith(TIMED)} for r in records]


def _logs(name: str, first: list[dict[str, Json]], second: list[dict[str, Json]]) -> Iterator[str]:
    for x, y in zip(first, second):
        if x["step"] != y["step"]:
            yield f"{name}: step {min(x['step'], y['step'])} has a line in one of them alone"
            return
        if json.dumps(x) != json.dumps(y):  # as text, because NaN is no difference
            keys = [key for key in x | y if json.dumps(x.get(key)) != json.dumps(y.get(key))] or ["the order of keys"]
            shown = ", ".join(f"{key} ({_short(x.get(key))} | {_short(y.get(key))})" for key in keys)
            yield f"{name}: step {x['step']} differs in {shown}"
            return
    if len(first) != len(second):
        longer, length = max(first, second, key=len), min(len(first), len(second))
        yield f"{name}: equal for {length} lines; step {longer[length]['step']} is in one of them alone"


def _checkpoints(a: Path, b: Path) -> Iterator[str]:
    common = sorted(_steps(a) & _steps(b))
    if not common and (_steps(a) or _steps(b)):
        yield f"checkpoints: no step in common ({sorted(_steps(a))} | {sorted(_steps(b))})"
    for step in common:
        first, second = leaves(a / str(step)), leaves(b / str(step))
        wrong = [key for key in first | second if not _same(first.get(key), second.get(key))]
        if wrong:
            yield f"checkpoints: step {step} differs in {len(wrong)} of {len(first | second)} parts: " + ", ".join(
                f"{key}{_distance(first.get(key), second.get(key))}" for key in wrong[:5]
            )
            return


def _steps(directory: Path) -> set[int]:
    return {int(path.name) for path in directory.glob("*") if path.name.isdecimal()}


def leaves(path: Path) -> dict[str, Any]:
    """Every array by its path, whatever devices it lay on, and the parts of the host's record. CheckpointError."""
    if wrong := checkpoint.damage(path):
        raise CheckpointError(f"{path} is damaged: {wrong}")
    checkpoint.hush()
    state = path.absolute() / "train_state"  # Orbax finds nothing under a relative path
    with ocp.PyTreeCheckpointer() as reader:
        tree = reader.metadata(state).item_metadata.tree
        on_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        arrays = reader.restore(state, restore_args=on_host)
    host = checkpoint.read_host(path).items()
    parts = {f"{key}.{name}": part for key, value in host for name, part in _items(value)}
    leaves = {jax.tree_util.keystr(key): np.asarray(leaf) for key, leaf in jax.tree_util.tree_leaves_with_path(arrays)}
    return leaves | parts


def _items(value: Json) -> list[tuple[str, Json]]:
    return list(value.items()) if isinstance(value, Mapping) else [("", value)]


def _same(x: Any, y: Any) -> bool:
    if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
        return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
    return type(x) is type(y) and json.dumps(x) == json.dumps(y)


def _distance(x: Any, y: Any) -> str:
    if isinstance(x, np.ndarray) and isinstance(y, np.ndarray) and x.shape == y.shape:
        return f" (by {np.max(np.abs(x.astype(np.float64) - y.astype(np.float64))):.3g})"
    return ""


def _short(value: Json) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
