"""A model as a run uses it: its functions, and the shardings of its arrays.

A configuration's `learner` is called with the configuration and gives `make`; `make(vocab_size)` gives the `Learner`.
The first call refuses whatever needs no vocabulary to be refused.  `models/learner.py` makes the Learner of a decoder.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, SingleDeviceSharding

from rods_jax.types import Policy


def _as_given(policy: Policy, *frozen: Any) -> Policy:
    return policy


class Learner(NamedTuple):
    """A policy that trains, on one device or on a mesh, whole or beside frozen parts."""

    policy: Policy  # takes whole parameters; its `init` gives the trained ones
    shapes: Any  # of the trained parameters: ShapeDtypeStructs, each with its sharding
    actor: Callable[[int], Policy]  # (group size) -> the policy that plays such groups on this process's devices
    whole: Callable[[Any], Any] = lambda trained: trained  # trained parameters -> whole ones for the actor
    complete: Callable[..., Policy] = _as_given  # (policy, *frozen) -> a policy that takes the trained parameters alone
    frozen: tuple[Any, ...] = ()  # passed to every update
    mesh: Mesh | None = None
    hosts: int = 1  # processes that share the mesh
    export: Callable[..., None] | None = None  # (directory, trained, tokenizer, *, max_positions, base, dtype)
    flops: Callable[[Any, Any], float] | None = None  # (prompts' tokens [N], suffixes' [N,G]) -> needed for their step
    random_weights: bool = False  # whether `policy.init` draws the weights instead of reading a checkpoint

    def place(self, tree: Any) -> Any:
        """Constrains a tree like the trained parameters to their shardings; to be called in a jitted function."""
        return tree if self.mesh is None else jax.lax.with_sharding_constraint(tree, self.shardings)

    @property
    def shardings(self) -> Any:
        """Those of the trained parameters."""
        return jax.tree.map(lambda x: x.sharding, self.shapes)


def on_one_device(policy: Policy) -> Learner:
    """The learner of any policy whose parameters fit a device."""
    device = SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(policy.init, jax.random.key(0))
    placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)
    return Learner(policy, placed, actor=lambda group_size: policy)


def frozen_inputs(learner: Learner) -> dict[str, str]:
    """A digest of the weights that a run reads and never saves: nothing where all are trained."""
    if not learner.frozen:
        return {}
    sums = [int(one) for one in jax.tree.leaves(_sums_of_bits(learner.frozen))]
    return {"frozen weights": hashlib.sha256(json.dumps(sums).encode()).hexdigest()}


@jax.jit
def _sums_of_bits(tree: Any) -> Any:
    """The sum of each array's bits, read as integers, modulo 2^32: of no order, and so the same however it is cut."""

    def summed(x: jax.Array) -> jax.Array:
        bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))
        return jnp.sum(bits.astype(jnp.uint32), dtype=jnp.uint32)

    return jax.tree.map(summed, tree)
