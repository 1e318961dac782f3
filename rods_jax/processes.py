"""Several processes of one run, one for each host: which tasks are whose, and what all of them know.

Every process runs the whole loop on the same replay state, and rolls out its own share of each step's tasks.  The
global batch consists of the parts on the processes' devices; no process gathers it.  `[N]` feedback is replicated.
Files and synthesis are the first process's; `on_first` brings their results to the others.  In a run of one process
every function here is the identity.

Left out on purpose: going on without a process that died (jax.distributed ends the others; resume the run), and axes
of the mesh other than `data` across processes (a task's rollouts stay with the process of its environments).
"""

import contextlib
import json
import platform
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from rods_jax.config import ConfigError
from rods_jax.fields import differences
from rods_jax.sharding import AXES, batch_shardings
from rods_jax.types import Json, RolloutBatch, Standing


def start(coordinator: str | None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Joins the run's processes, before anything else asks for devices.

    coordinator: HOST:PORT of the first process, which every other process reaches; "auto": asks the cluster (TPU
    slices, SLURM and others that jax.distributed knows) for all three; None: this process is a run of its own.
    ValueError: one of them is missing.
    A process that ends alone, by an error of its own, makes the others end after 60 seconds.
    """
    initialize = partial(jax.distributed.initialize, shutdown_timeout_seconds=60)
    if coordinator is None:
        if num_processes is not None or process_id is not None:
            raise ValueError("--num-processes and --process-id need --coordinator HOST:PORT")
    elif coordinator == "auto":
        initialize()
    elif num_processes is None or process_id is None:
        raise ValueError("--coordinator HOST:PORT needs --num-processes and --process-id too")
    else:
        # Without "deactivate", a detected cluster such as SLURM would hide all but one of the process's devices.
        initialize(coordinator, num_processes, process_id, cluster_detection_method="deactivate")


def is_first() -> bool:
    """Whether this is the process that owns the files."""
    return jax.process_index() == 0


def share_of(items: Any) -> Any:
    """This process's part of a sequence or array that all processes hold.  Parts are contiguous and differ by at most 1."""
    index, count = jax.process_index(), jax.process_count()
    return items[index * len(items) // count : (index + 1) * len(items) // count]


# --------------------------------------------------------------------------- what all of them know
def gather(value: Json) -> list[Json]:
    """The values of all processes, in their order.  All processes call it at the same place, with a JSON value."""
    if jax.process_count() == 1:
        return [value]
    data = json.dumps(value).encode()
    size = int(multihost_utils.process_allgather(np.int32(len(data))).max())
    return [json.loads(row.tobytes()) for row in multihost_utils.process_allgather(_padded(data, size))]


def on_first(function: Callable[[], Json]) -> Json:
    """Runs the function in the first process only, and returns its result, a JSON value, in all of them.

    An exception ends all processes: the first raises it as it is, the others raise a ValueError with its name and text.
    """
    if jax.process_count() == 1:
        return function()
    data, error = b"", None
    if is_first():
        try:
            data = json.dumps({"result": function()}).encode()
        except Exception as raised:  # raised below, after the others have been told
            error = raised
            data = json.dumps({"error": f"{type(error).__name__}: {error}"}).encode()
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    answer = json.loads(multihost_utils.broadcast_one_to_all(_padded(data, size)).tobytes())
    if error is not None:
        raise error
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer["result"]


def require_same(settings: Mapping[str, Json]) -> None:
    """ConfigError in every process, naming the keys: some were started with other settings.  All call it at the start."""
    first, *others = gather(settings)
    changed = {key: index for index, other in enumerate(others, start=1) for key in differences(first, other)}
    if changed:
        named = ", ".join(f"{key} (process {index})" for key, index in sorted(changed.items()))
        raise ConfigError(f"the processes must be started alike, and they differ from process 0 in {named}")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers and tokens depend on."""
    packages = ("rods_jax", "jax", "jaxlib", "numpy", "optax", "flax", "transformers", "tokenizers")
    found = {"python": platform.python_version()}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _padded(data: bytes, size: int) -> np.ndarray:
    """JSON bytes, padded with blanks to a power of two: few sizes are then compiled."""
    return np.frombuffer(data.ljust(1 << (size - 1).bit_length()), np.uint8)


# ----------------------------------------------------------------------------------------- arrays
def require_shares(data: int, num_tasks: int, count: int) -> None:
    """ValueError: `count` processes cannot each have whole tasks of a step on their own rows of `data`."""
    if count > 1 and (data % count or num_tasks % data):
        raise ValueError(
            f"{count} processes need a mesh whose data axis they divide and that divides rollout.tasks_per_step: "
            f"got data {data}, {num_tasks} tasks"
        )


def assemble(mesh: Mesh, batch: RolloutBatch[np.ndarray], standing: Standing[np.ndarray]):
    """Batch and standing of all tasks on the mesh, from this process's rollouts of its share; nothing is sent.

    standing: of all tasks, as every process knows it.
    """
    share = batch, Standing._make(map(share_of, standing))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((len(x) * jax.process_count(), *x.shape[1:]), x.dtype), share)
    return jax.tree.map(
        lambda x, shape, sharding: jax.make_array_from_process_local_data(sharding, x, shape.shape),
        share,
        shapes,
        tuple(batch_shardings(mesh, part) for part in shapes),
    )


def copier(mesh: Mesh, count: int, on_host: Any, convert: Callable[[Any], Any]):
    """Jitted: converts a tree of the mesh's arrays, and copies it to the devices of each of `count` processes.

    on_host: a tree of NamedShardings, the copy's layout.  A process receives only what it lacks.
    """
    # A mesh of the same devices with one more axis; arrays are replicated along it, once for each process.
    rows = Mesh(mesh.devices.reshape(count, -1, *mesh.devices.shape[1:]), ("process", *AXES))
    return jax.jit(convert, out_shardings=jax.tree.map(lambda s: NamedSharding(rows, s.spec), on_host))


def own_part(copied: Any, on_host: Any) -> Any:
    """This process's copy of what a `copier` made, as arrays on its own devices; nothing moves."""

    def view(x: jax.Array, sharding: NamedSharding) -> jax.Array:
        pieces = [shard.data for shard in x.addressable_shards]
        return jax.make_array_from_single_device_arrays(x.shape, sharding, pieces)

    return jax.tree.map(view, copied, on_host)
