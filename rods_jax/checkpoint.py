"""Checkpoints with Orbax: the train state on device, and one JSON record of everything on the host.

`open_checkpoints` gives Orbax's own manager: use it in a `with` block, ask it for `latest_step()`.  Opening changes
nothing; `restore` and `forget` are for the one process that owns the run.

Each checkpoint holds a manifest: its step, and the size and SHA-256 of every file of its items.  The manifest is
written in the background, before the rename that makes the folder a checkpoint, so every checkpoint has one.  A flipped
bit is found before anything is used; so is a checkpoint that was copied to the name of another step.
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
from rods_jax.files import CheckpointError, read_object, write_atomically
from rods_jax.types import Json

MANIFEST = "manifest.json"
_READS = 5  # tries of a reader whose checkpoint is removed while it reads
_TIMES = "_CHECKPOINT_METADATA"  # Orbax's own file beside the items
_HALF_WRITTEN = "[0-9]*.orbax-checkpoint-tmp*"  # Orbax renames the folder when all is written
BEST_BY = "validation_progress"  # the metric whose highest values `RetentionConfig.best` keeps


def open_checkpoints(directory: str | Path, retention: RetentionConfig = RetentionConfig()) -> ocp.CheckpointManager:
    """Opens or creates the folder.  Each save removes the checkpoints that `retention` does not keep.

    CheckpointError: the file that Orbax keeps beside a checkpoint's items is damaged.
    """
    directory = Path(directory).absolute()
    options = ocp.CheckpointManagerOptions(
        create=True,
        preservation_policy=_policy(retention),
        best_fn=(lambda m: m[BEST_BY]) if retention.best else None,
        async_options=ocp.AsyncOptions(post_finalization_callback=lambda: _seal_unfinished(directory)),
    )
    # OCDBT is off. With it, Orbax's default, each save leaves over three times as much host memory allocated
    # (docs/log/reliability.md). Without it, each shard of an array is a file.
    handlers = {
        "train_state": ocp.StandardCheckpointHandler(use_ocdbt=False),
        "host": ocp.JsonCheckpointHandler(),
    }
    hush()
    try:
        return ocp.CheckpointManager(directory, options=options, item_handlers=handlers)
    except Exception as error:  # opening reads every checkpoint's times, and one of them may be damaged
        raise CheckpointError(_unreadable(directory) or f"{directory} cannot be opened: {_reason(error)}") from error


def save(
    checkpoints: ocp.CheckpointManager,
    step: int,
    train_state: Any,
    host: Mapping[str, Json],
    metrics: Mapping[str, float] | None = None,
) -> None:
    """Copies the arrays off the device, then writes in the background; the state may be donated on return.

    metrics: those with `BEST_BY`; without it, a checkpoint is never one of the best.
    Raises CheckpointError when the folder already holds this step or a later one, or when an earlier save failed.
    """
    latest = checkpoints.latest_step()
    if latest is not None and step <= latest:
        raise CheckpointError(f"{checkpoints.directory} already holds step {latest}: step {step} is not saved")
    # An array whose computation failed, as when memory ran out, raises here. Orbax would wait for it for ever.
    jax.block_until_ready(train_state)
    arguments = ocp.args.Composite(train_state=ocp.args.StandardSave(train_state), host=ocp.args.JsonSave(host))
    checkpoints.save(step, args=arguments, metrics=dict(metrics) if metrics and BEST_BY in metrics else None)


def restore(
    checkpoints: ocp.CheckpointManager,
    like: Any,
    step: int | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> tuple[int, Any, dict[str, Json]]:
    """The latest undamaged checkpoint, or that of `step`: (step, train_state, host), bit for bit what was saved.

    like: a train state of arrays or ShapeDtypeStructs with the structure, shapes, dtypes and shardings of the result.
    A damaged checkpoint is renamed to `damaged-<step>` and reported to `tell`; the one before it is taken.  Raises
    CheckpointError when no checkpoint fits.
    """
    checkpoints.wait_until_finished()
    found = processes.on_first(lambda: _undamaged(checkpoints, step, tell))
    checkpoints.reload()  # in every process: the first may have renamed damaged ones
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
    try:
        restored = checkpoints.restore(
            found,
            args=ocp.args.Composite(train_state=ocp.args.StandardRestore(abstract), host=ocp.args.JsonRestore()),
        )
    except Exception as error:  # Orbax raises many types; with any of them the checkpoint cannot be used
        raise CheckpointError(f"{checkpoints.directory}/{found} cannot be restored: {_reason(error)}") from error
    return found, restored.train_state, restored.host


def read_params(
    directory: str | Path,
    like: Any,
    step: int | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> tuple[int, Any]:
    """(step, trained parameters) of the newest undamaged checkpoint, or of that of `step`; reads nothing else.

    like: ShapeDtypeStructs with shardings.  The run may still be training: its folder is not changed, and a save under
    way is not seen.  Damage is reported to `tell`.  Raises CheckpointError when no checkpoint fits.
    """
    # Name the parameters' subtree, so that only it is read.
    directory = Path(directory).absolute()
    abstract = {"params": jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)}
    arguments = ocp.args.PyTreeRestore(
        item=abstract, restore_args=ocp.checkpoint_utils.construct_restore_args(abstract), partial_restore=True
    )
    # Read the newest checkpoint. If the trainer removes it meanwhile, all processes try the next one.
    for _ in range(_READS):
        found, failed = processes.on_first(lambda: _newest(directory, step, tell)), None
        try:
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)) as reader:
                restored = reader.restore(directory / str(found) / "train_state", args=arguments)
        except Exception as error:  # as in `restore`
            failed = error
        if all(processes.gather(failed is None)):
            return found, restored["params"]
        if processes.on_first(lambda: found in steps(directory)):  # it is still there: another try would fail too
            break
    reason = "another process failed" if failed is None else _reason(failed)
    raise CheckpointError(f"{directory}/{found} cannot be read: {reason}") from failed


def read_host(path: Path) -> dict[str, Json]:
    """The host's record of one checkpoint, which is the folder `path`. FileNotFoundError: it is not there any more."""
    return json.loads((path / "host" / "metadata").read_text("utf-8"))


def forget(checkpoints: ocp.CheckpointManager, after: int, retention: RetentionConfig) -> None:
    """Deletes the checkpoints of steps after `after`, so that they can be saved again, and what a crash left behind.

    A crash can leave a half-written folder.  A kill after a save's commit can leave a checkpoint that `retention` does
    not keep: Orbax would remove it only after the next save, and a run that has ended saves nothing more.
    """

    def sweep() -> None:
        for path in Path(checkpoints.directory).glob(_HALF_WRITTEN):
            shutil.rmtree(path)

    # Half-written folders first.
    checkpoints.wait_until_finished()
    processes.on_first(sweep)
    # Then every checkpoint that retention would not keep, judged as if the run had just saved step `after`.
    steps = sorted(checkpoints.all_steps())
    earlier = [_Info(step, checkpoints.metrics(step)) for step in steps if step <= after]
    kept = _policy(retention).should_preserve(earlier, context=preservation.PreservationContext())
    stay = {info.step for info, is_kept in zip(earlier, kept, strict=True) if is_kept}
    for step in steps:
        if step not in stay:
            checkpoints.delete(step)


def steps(directory: Path) -> list[int]:
    """The steps of the checkpoints in a folder, damaged or not, in order; opens and changes nothing."""
    found = [int(path.name) for path in directory.glob("[0-9]*") if path.name.isdecimal() and path.is_dir()]
    return sorted(step for step in found if (directory / str(step)).is_dir())


def sizes(train_state: Any, host: Mapping[str, Json]) -> dict[str, int]:
    """Bytes of each part of a checkpoint before compression: the fields of the train state, and the host's record."""
    parts = {name: sum(leaf.nbytes for leaf in jax.tree.leaves(x)) for name, x in train_state._asdict().items()}
    return parts | {"host": len(json.dumps(host).encode())}


def damage(path: Path, part: str = "") -> str | None:
    """How a checkpoint's files differ from its manifest, or None.  Reads all files whose names begin with `part`."""
    try:
        expected = read_object(path / MANIFEST)
    except FileNotFoundError:
        return "it has no manifest"
    except (ValueError, OSError):
        return "its manifest is unreadable"
    step = expected.pop("step", None)  # older manifests have none
    if step is not None and path.name.isdecimal() and path.name != str(step):
        return f"it is a copy of the checkpoint of step {step}"
    expected = {name: digest for name, digest in expected.items() if name.startswith(part)}
    found = _digests(path, part)
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    return f"{len(wrong)} files differ from its manifest, the first is {wrong[0]}" if wrong else None


class _Info(NamedTuple):
    """The fields of a checkpoint that retention policies read."""

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
    """The step of the newest undamaged checkpoint, or `step`.  Sets damaged newer ones aside."""
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
        for damaged, reason in reasons.items():  # rename only now: if all are damaged, nothing is changed
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
    """The newest step whose parameters are undamaged.  A folder named by its step is completely written."""
    for found in (found for found in steps(directory)[::-1] if step in (None, found)):
        try:
            wrong = damage(directory / str(found), "train_state/params.")
        except FileNotFoundError:  # the trainer has just removed it
            continue
        if wrong is None:
            return found
        tell(f"{directory}/{found} is damaged: {wrong}")
    wanted = "undamaged checkpoint" if step is None else f"undamaged checkpoint of step {step}"
    raise CheckpointError(f"{directory} holds no {wanted}: it has {steps(directory)}")


def _unreadable(directory: Path) -> str | None:
    """Which checkpoint's metadata file cannot be read, and what to do about it."""
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


def hush() -> None:
    """Keeps Orbax's harmless records out of its log."""
    logging.getLogger("absl").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Drops three kinds of Orbax's log records.

    Every save without OCDBT logs that there is nothing to merge.  Every reader of one item logs that the item has no
    metadata file.  A save that fails in the background logs a traceback; the same error is raised when somebody waits
    for the save.
    """
    message = str(record.msg)
    idle = message.startswith(("[process=%s][thread=%s] Skipping merge of OCDBT", "Metadata file does not exist"))
    return not idle and not (record.exc_info and message.startswith("[process="))


def _seal_unfinished(directory: Path) -> None:
    """Writes the manifest of the checkpoint that is about to be renamed: the only unfinished folder there is."""
    for path in directory.glob(_HALF_WRITTEN):
        manifest = {"step": int(path.name.partition(".")[0])} | _digests(path)
        write_atomically(path / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def _digests(path: Path, part: str = "") -> dict[str, Json]:
    """[bytes, SHA-256] of every file in the items' folders.  Files beside these still change when Orbax commits."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.parent != path)
    names = [(file.relative_to(path).as_posix(), file) for file in files]
    return {name: [file.stat().st_size, _digest(file)] for name, file in names if name.startswith(part)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
