"""Checkpoints with Orbax: the train state on device, and one JSON record of everything on the host.

`open_checkpoints` gives Orbax's own manager: use it in a `with` block, ask it for `latest_step()`.  Opening changes
nothing; `restore` and `forget` are for the one process that owns the run.
Each checkpoint holds a manifest with its step and the size and SHA-256 of every file of its items, written in the
background before the rename that makes it a checkpoint: there is none without it, a flipped bit is found before anything
is used, and so is a checkpoint that was copied to the name of another step.
Left out on purpose: anything that is not passed in; no clock, no global state, no code is stored.
"""

import hashlib
import itertools
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as preservation

from rods_jax import processes
from rods_jax.config import RetentionConfig
from rods_jax.files import read_object, write_atomically
from rods_jax.types import Json

MANIFEST = "manifest.json"
_READS = 5  # times that a reader begins again because the checkpoint was removed under it
_TIMES = "_CHECKPOINT_METADATA"  # Orbax's own file beside the items
_HALF_WRITTEN = "[0-9]*.orbax-checkpoint-tmp*"  # Orbax renames the folder when all is written
BEST_BY = "validation_progress"  # the metric whose highest values `RetentionConfig.best` keeps


class CheckpointError(RuntimeError):
    """There is no such checkpoint, or it cannot be read into what was asked for."""


def open_checkpoints(directory: str | Path, retention: RetentionConfig = RetentionConfig()) -> ocp.CheckpointManager:
    """Opens or creates the folder; what `retention` does not name goes when something is saved.

    CheckpointError: the file that Orbax keeps beside a checkpoint's items is damaged.
    """
    directory = Path(directory).absolute()
    options = ocp.CheckpointManagerOptions(
        create=True,
        preservation_policy=_policy(retention),
        best_fn=(lambda m: m[BEST_BY]) if retention.best else None,
        async_options=ocp.AsyncOptions(post_finalization_callback=lambda: _seal_unfinished(directory)),
    )
    # Without OCDBT an array's shards are files of their own, and saving keeps a quarter of the memory that it keeps with
    # it (docs/reliability.md).
    handlers = {
        "train_state": ocp.StandardCheckpointHandler(use_ocdbt=False),
        "host": ocp.JsonCheckpointHandler(),
    }
    logging.getLogger("absl").addFilter(_is_news)
    try:
        return ocp.CheckpointManager(directory, options=options, item_handlers=handlers)
    except Exception as error:  # Orbax reads every checkpoint's times when it opens a folder
        raise CheckpointError(_unreadable(directory) or f"{directory} cannot be opened: {_reason(error)}") from error


def save(
    checkpoints: ocp.CheckpointManager,
    step: int,
    train_state: Any,
    host: Mapping[str, Json],
    metrics: Mapping[str, float] | None = None,
) -> None:
    """Copies the arrays off the device, then writes in the background; the state may be donated at once.

    metrics: `BEST_BY` among them; a checkpoint without them is never one of the best.
    Raises CheckpointError when the folder already holds this step or a later one, or when an earlier save failed.
    """
    latest = checkpoints.latest_step()
    if latest is not None and step <= latest:
        raise CheckpointError(f"{checkpoints.directory} already holds step {latest}: step {step} is not saved")
    arguments = ocp.args.Composite(train_state=ocp.args.StandardSave(train_state), host=ocp.args.JsonSave(host))
    checkpoints.save(step, args=arguments, metrics=dict(metrics) if metrics and BEST_BY in metrics else None)


def restore(
    checkpoints: ocp.CheckpointManager,
    like: Any,
    step: int | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> tuple[int, Any, dict[str, Json]]:
    """The latest undamaged checkpoint, or that of `step`: (step, train_state, host), bit for bit what was saved.

    `like` is a train state of arrays or ShapeDtypeStructs; its structure, shapes, dtypes and
    shardings are those of the result. A damaged checkpoint is set aside as `damaged-<step>`, `tell` hears of it, and
    the one before it is taken. Raises CheckpointError when nothing fits.
    """
    checkpoints.wait_until_finished()
    found = processes.on_first(lambda: _undamaged(checkpoints, step, tell))
    checkpoints.reload()  # in each process of the run: the first may have set some aside
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
    try:
        restored = checkpoints.restore(
            found,
            args=ocp.args.Composite(train_state=ocp.args.StandardRestore(abstract), host=ocp.args.JsonRestore()),
        )
    except Exception as error:  # Orbax raises many kinds; whatever it was, the checkpoint is of no use
        raise CheckpointError(f"{checkpoints.directory}/{found} cannot be restored: {_reason(error)}") from error
    return found, restored.train_state, restored.host


def read_params(
    directory: str | Path,
    like: Any,
    step: int | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> tuple[int, Any]:
    """(step, what trains) of the newest undamaged checkpoint, or of that of `step`, and nothing else of its train state.

    `like`: ShapeDtypeStructs with shardings. The folder may be a run's that is being trained: nothing in it is changed,
    and a save under way is not seen. `tell` hears of what is damaged. Raises CheckpointError when nothing fits.
    """
    directory = Path(directory).absolute()
    abstract = {"params": jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)}
    arguments = ocp.args.PyTreeRestore(
        item=abstract, restore_args=ocp.checkpoint_utils.construct_restore_args(abstract), partial_restore=True
    )
    for _ in range(_READS):
        found, failed = processes.on_first(lambda: _newest(directory, step, tell)), None
        try:
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)) as reader:
                restored = reader.restore(directory / str(found) / "train_state", args=arguments)
        except Exception as error:  # as in `restore`
            failed = error
        if all(processes.gather(failed is None)):
            return found, restored["params"]
        if processes.on_first(lambda: found in steps(directory)):  # or its trainer has removed it meanwhile
            break
    reason = "another process failed" if failed is None else _reason(failed)
    raise CheckpointError(f"{directory}/{found} cannot be read: {reason}") from failed


def forget(checkpoints: ocp.CheckpointManager, after: int, retention: RetentionConfig) -> None:
    """Deletes the checkpoints of steps after `after`, so that they can be saved again, what a crash left half-written,
    and those that were to go when a kill came: Orbax removes them after it commits the next one, and a run that has ended
    saves no next one."""

    def sweep() -> None:
        for path in Path(checkpoints.directory).glob(_HALF_WRITTEN):
            shutil.rmtree(path)

    checkpoints.wait_until_finished()
    processes.on_first(sweep)
    steps = sorted(checkpoints.all_steps())
    earlier = [_Info(step, checkpoints.metrics(step)) for step in steps if step <= after]
    kept = _policy(retention).should_preserve(earlier, context=preservation.PreservationContext())
    stay = {info.step for info, is_kept in zip(earlier, kept, strict=True) if is_kept}
    for step in steps:
        if step not in stay:
            checkpoints.delete(step)


def steps(directory: Path) -> list[int]:
    """The steps whose checkpoints stand in a folder, whole or not, in order; nothing is opened or changed."""
    found = [int(path.name) for path in directory.glob("[0-9]*") if path.name.isdecimal() and path.is_dir()]
    return sorted(step for step in found if (directory / str(step)).is_dir())


def sizes(train_state: Any, host: Mapping[str, Json]) -> dict[str, int]:
    """Bytes of each part of a checkpoint before compression: the fields of the train state, and the host's record."""
    parts = {name: sum(leaf.nbytes for leaf in jax.tree.leaves(x)) for name, x in train_state._asdict().items()}
    return parts | {"host": len(json.dumps(host).encode())}


def damage(path: Path, part: str = "") -> str | None:
    """What a checkpoint's files lack against its manifest, or None; reads every byte of those that begin with `part`."""
    try:
        expected = read_object(path / MANIFEST)
    except FileNotFoundError:
        return "it has no manifest"
    except (ValueError, OSError):
        return "its manifest is unreadable"
    step = expected.pop("step", None)  # of checkpoints that know it
    if step is not None and path.name.isdecimal() and path.name != str(step):
        return f"it is a copy of the checkpoint of step {step}"
    expected = {name: digest for name, digest in expected.items() if name.startswith(part)}
    found = _digests(path, part)
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    return f"{len(wrong)} files differ from its manifest, the first is {wrong[0]}" if wrong else None


class _Info(NamedTuple):
    """What retention asks of a checkpoint."""

    step: int
    metrics: Mapping[str, float] | None


def _policy(retention: RetentionConfig) -> preservation.PreservationPolicy:
    policies = [preservation.LatestN(retention.latest)]
    if retention.every is not None:
        policies.append(preservation.EveryNSteps(retention.every))
    if retention.best:
        policies.append(
            preservation.BestN(
                get_metric_fn=lambda m: m[BEST_BY], n=retention.best, keep_checkpoints_without_metrics=False
            )
        )
    return preservation.AnyPreservationPolicy(policies)


def _undamaged(checkpoints: ocp.CheckpointManager, step: int | None, tell: Callable[[str], None]) -> int:
    directory = Path(checkpoints.directory)
    steps = sorted(checkpoints.all_steps(), reverse=True)
    if step is not None and step not in steps or not steps:
        wanted = "checkpoint" if step is None else f"checkpoint of step {step}"
        raise CheckpointError(f"{directory} holds no {wanted}: it has {steps[::-1]}")
    if step is not None:
        if wrong := damage(directory / str(step)):
            raise CheckpointError(f"{directory}/{step} is damaged: {wrong}")
        return step
    reasons: dict[int, str] = {}
    for found in steps:
        if wrong := damage(directory / str(found)):
            reasons[found] = wrong
            continue
        for damaged, reason in reasons.items():  # only now: where none is whole, nothing is touched
            aside = _set_aside(directory / str(damaged))
            tell(f"{directory}/{damaged} is damaged: {reason}. It is now {aside.name}; the one before it is taken")
        return found
    newest = f"of {steps[0]}, {reasons[steps[0]]}"
    raise CheckpointError(f"{directory} holds damaged checkpoints alone: {steps[::-1]}; {newest}. Nothing was changed")


def _set_aside(path: Path) -> Path:
    """Renames a damaged checkpoint to a name that is free."""
    again = itertools.chain([""], map("-{}".format, itertools.count(2)))
    aside = next(aside for mark in again if not os.path.lexists(aside := path.with_name(f"damaged-{path.name}{mark}")))
    path.rename(aside)
    return aside


def _newest(directory: Path, step: int | None, tell: Callable[[str], None]) -> int:
    """The newest step whose parameters are whole; Orbax renames a checkpoint to its step when all of it is written."""
    for found in (found for found in steps(directory)[::-1] if step in (None, found)):
        try:
            wrong = damage(directory / str(found), "train_state/params.")
        except FileNotFoundError:  # a trainer removes it
            continue
        if wrong is None:
            return found
        tell(f"{directory}/{found} is damaged: {wrong}")
    wanted = "undamaged checkpoint" if step is None else f"undamaged checkpoint of step {step}"
    raise CheckpointError(f"{directory} holds no {wanted}: it has {steps(directory)}")


def _unreadable(directory: Path) -> str | None:
    """Which checkpoint's times cannot be read, and what to do."""
    for step in steps(directory)[::-1]:
        try:
            read_object(directory / str(step) / _TIMES)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            return f"{_reason(error)}: move {directory / str(step)} away, and the checkpoint before it is taken"
    return None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:400]


def _is_news(record: logging.LogRecord) -> bool:
    """Not what Orbax says of every save without OCDBT, that there is none to merge; and not the traceback of a save that
    failed in the background, since the same error is raised where the save is waited for."""
    message = str(record.msg)
    of_merging = message.startswith("[process=%s][thread=%s] Skipping merge of OCDBT")
    return not of_merging and not (record.exc_info and message.startswith("[process="))


def _seal_unfinished(directory: Path) -> None:
    """Writes the manifest of the checkpoint that is about to be renamed; Orbax does not say which, but there is one."""
    for path in directory.glob(_HALF_WRITTEN):
        manifest = {"step": int(path.name.partition(".")[0])} | _digests(path)
        write_atomically(path / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def _digests(path: Path, part: str = "") -> dict[str, Json]:
    """[bytes, SHA-256] of every file of the items; beside their folders Orbax writes times when it commits."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.parent != path)
    names = [(file.relative_to(path).as_posix(), file) for file in files]
    return {name: [file.stat().st_size, _digest(file)] for name, file in names if name.startswith(part)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
