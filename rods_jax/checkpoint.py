"""Checkpoints with Orbax: the train state on device, and one JSON record of everything on the host.

`open_checkpoints` gives Orbax's own manager: use it in a `with` block, ask it for `latest_step()`.
Left out on purpose: anything that is not passed in; no clock, no global state, no code is stored.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from rods_jax.types import Json


class CheckpointError(RuntimeError):
    """There is no such checkpoint, or it cannot be read into what was asked for."""


def open_checkpoints(directory: str | Path, *, keep: int) -> ocp.CheckpointManager:
    """Opens or creates the folder; `keep` checkpoints stay, the oldest go."""
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
    return ocp.CheckpointManager(Path(directory).absolute(), options=options)


def save(checkpoints: ocp.CheckpointManager, step: int, train_state: Any, host: Mapping[str, Json]) -> None:
    """Copies the arrays off the device, then writes in the background; the state may be donated at once.

    Raises CheckpointError when the folder already holds this step or a later one.
    """
    latest = checkpoints.latest_step()
    if latest is not None and step <= latest:
        raise CheckpointError(f"{checkpoints.directory} already holds step {latest}: step {step} is not saved")
    checkpoints.save(
        step,
        args=ocp.args.Composite(train_state=ocp.args.StandardSave(train_state), host=ocp.args.JsonSave(host)),
    )


def restore(
    checkpoints: ocp.CheckpointManager, like: Any, step: int | None = None
) -> tuple[int, Any, dict[str, Json]]:
    """The latest checkpoint, or that of `step`: (step, train_state, host), bit for bit what was saved.

    `like` is a train state of arrays or ShapeDtypeStructs; its structure, shapes, dtypes and
    shardings are those of the result. Raises CheckpointError when nothing fits.
    """
    checkpoints.wait_until_finished()
    found = checkpoints.latest_step() if step is None else step
    if found is None or found not in checkpoints.all_steps():
        wanted = "checkpoint" if step is None else f"checkpoint of step {step}"
        raise CheckpointError(
            f"{checkpoints.directory} holds no {wanted}: it has {sorted(checkpoints.all_steps())}"
        )
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
    try:
        restored = checkpoints.restore(
            found,
            args=ocp.args.Composite(train_state=ocp.args.StandardRestore(abstract), host=ocp.args.JsonRestore()),
        )
    except Exception as error:  # Orbax raises many kinds; whatever it was, the checkpoint is of no use
        reason = " ".join(str(error).split())[:400]
        raise CheckpointError(f"{checkpoints.directory}/{found} cannot be restored: {reason}") from error
    return found, restored.train_state, restored.host
