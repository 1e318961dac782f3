"""Where arrays lie on several devices: one mesh of four axes, and one table from axes of arrays to axes of the mesh.

An axis of an array is a letter of the dimension key, so `rewards_NG` is cut as "NG" says.  Nothing else in the
library names a device: the compiler inserts what has to be exchanged.

    data, fsdp    data cuts tasks, fsdp their rollouts; both together cut stored parameters and optimizer state (width)
    tensor        heads, feed-forward and vocabulary
    sequence      tokens; while a layer attends, it cuts heads instead (all-to-all, arXiv 2309.14509)

Left out on purpose: pipelines of layers, rings over keys.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from rods_jax.types import Fields, TrainState

AXES = ("data", "fsdp", "tensor", "sequence")

RULES = {
    "N": ("data",),  # tasks
    "G": ("fsdp",),  # rollouts of a task
    "B": ("data", "fsdp"),  # tasks in the pass over prompts, which has no rollouts
    "P": ("sequence", "fsdp"),  # prompt tokens: devices that hold other rollouts of a task share out its prompt
    "I": ("tensor", "sequence", "fsdp"),  # key/value heads while prompts attend to themselves
    "S": ("sequence",),  # suffix tokens
    "T": ("sequence",),  # tokens inside the model
    "D": ("data", "fsdp"),  # width of a stored parameter
    "K": ("tensor",),  # key/value heads, each with its queries
    "H": ("tensor", "sequence"),  # key/value heads while they attend, and in caches
    "F": ("tensor",),  # feed-forward
    "V": ("tensor",),  # vocabulary
    "U": ("tensor", "fsdp"),  # vocabulary on the way from V to W, while data still cuts the width
    "W": ("tensor", "fsdp", "data", "sequence"),  # vocabulary while log-probabilities run: tokens move, weights do not
}


def create_mesh(data: int, fsdp: int, tensor: int, sequence: int, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of all devices (or of those given). Raises ValueError when the sizes do not multiply to their number.

    Rows along `data` belong to one process each, as far as their number is a multiple of the processes'.
    """
    if devices is None:
        devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    sizes = (data, fsdp, tensor, sequence)
    if math.prod(sizes) != len(devices):
        asked = " x ".join(f"{axis} {size}" for axis, size in zip(AXES, sizes))
        raise ValueError(f"the mesh {asked} needs {math.prod(sizes)} devices, and there are {len(devices)}")
    return Mesh(np.array(devices).reshape(sizes), AXES)


def abstract_mesh(data: int, fsdp: int, tensor: int, sequence: int) -> AbstractMesh:
    """A mesh without devices, which serves to plan. As in a Mesh, the compiler lays out what nothing constrains."""
    return AbstractMesh((data, fsdp, tensor, sequence), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def for_groups(mesh: Mesh | AbstractMesh, group_size: int) -> Mesh | AbstractMesh:
    """The same devices for groups of `group_size`: those along fsdp that would get no rollouts take tasks instead.

    Arrays that data and fsdp cut together, such as parameters, keep their layout.
    """
    data, fsdp, *others = mesh.shape.values()
    cut = math.gcd(fsdp, group_size)
    sizes = data * fsdp // cut, cut, *others
    if isinstance(mesh, AbstractMesh):  # without devices, for plans
        return abstract_mesh(*sizes)
    return Mesh(mesh.devices.reshape(sizes), AXES)


def spec(mesh: Mesh | AbstractMesh, axes: str, shape: Sequence[int]) -> PartitionSpec:
    """An array's cut by the table.  A mesh axis is skipped if it cuts an earlier axis, or does not divide this one."""
    cuts, taken = [], set()
    for letter, size in zip(axes, shape, strict=True):
        cut: tuple[str, ...] = ()
        for axis in RULES.get(letter, ()):
            if axis not in taken and size % (mesh.shape[axis] * math.prod(mesh.shape[a] for a in cut)) == 0:
                cut += (axis,)
        taken |= set(cut)
        cuts.append(cut or None)
    return PartitionSpec(*cuts)


def micro_batch_cuts(count: int, num_tasks: int, group_size: int, sizes: Sequence[int]) -> tuple[int, int] | None:
    """(parts of the tasks, parts of the rollouts) such that each of `count` micro-batches spans a mesh of `sizes`.

    Tasks are cut first: a cut of the rollouts computes their prompts once more.  None: there is no such cut.
    """
    here = [n if n % size else n // size for n, size in zip((num_tasks, group_size), sizes)]  # what a device holds
    tasks = math.gcd(count, here[0])
    rollouts = count // tasks
    return None if here[1] % rollouts else (tasks, rollouts)


def layout_fields(mesh: Mesh | AbstractMesh) -> dict[str, Any]:
    """The fields of a model's `Layout` on a mesh.

    constrain(x, axes) -> x.
    local(function, axes of its arguments, axes of its result) -> the function on every device's own part; the result is
    shaped like the first argument.
    cuts: of T and of G.  cut_tokens: N, G and T may all be cut.
    chunk_size: tokens whose logits exist at a time; it grows with the mesh, because each device holds a part of them.
    """

    def constrain(x: jax.Array, axes: str) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec(mesh, axes, x.shape)))

    def local(function: Callable, inputs: Any, output: str) -> Callable:
        def call(*arrays):
            specs = jax.tree.map(lambda axes, x: spec(mesh, axes, x.shape), inputs, arrays)
            out = spec(mesh, output, arrays[0].shape)
            # check_vma is off: functions with custom gradients cannot declare which results differ between devices.
            return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)(*arrays)

        return call

    return {
        "constrain": constrain,
        "local": local,
        "cuts": (mesh.shape["sequence"], mesh.shape["fsdp"]),
        "cut_tokens": True,
        "chunk_size": max(1024, 256 * mesh.size),
    }


# -------------------------------------------------------------------------------- whole states
def parameter_shardings(mesh: Mesh | AbstractMesh, params: Any, axes_of: Callable[[tuple[str, ...]], str]) -> Any:
    """A tree of shardings for nested dicts of parameters (arrays or shapes); `axes_of` names the axes at a path.

    Raises ValueError, naming the parameter, where the mesh does not divide it.
    """

    def sharding(entry, x):
        path = tuple(key.key for key in entry)
        for letter, size in zip(axes_of(path), x.shape, strict=True):
            parts = math.prod(mesh.shape[axis] for axis in RULES.get(letter, ()))
            if size % parts:
                raise ValueError(
                    f"the mesh cuts axis {letter} of {'.'.join(path)} into {parts} parts, and its size is {size}"
                )
        return NamedSharding(mesh, spec(mesh, axes_of(path), x.shape))

    return jax.tree_util.tree_map_with_path(sharding, params)


def state_shardings(
    mesh: Mesh | AbstractMesh, state: TrainState, params: Any, optimizer: optax.GradientTransformation
) -> TrainState:
    """Shardings of a train state (arrays or shapes): moments and reference have those of the parameters."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    optimizer_state = optax.tree.map_params(
        optimizer,
        lambda _, sharding: sharding,
        state.optimizer_state,
        params,
        transform_non_params=lambda _: everywhere,
    )
    reference = None if state.reference_params is None else params
    return TrainState._make((params, reference, optimizer_state, everywhere))


def batch_shardings(mesh: Mesh | AbstractMesh, batch: Fields) -> Fields:
    """Shardings of a batch, or of its standing: every field's name ends in its axes."""
    return batch._replace(
        **{
            name: NamedSharding(mesh, spec(mesh, name.rsplit("_", 1)[1], x.shape))
            for name, x in batch._asdict().items()
        }
    )
