"""What a model gives to a run: its functions, and where its arrays lie.

A configuration's `learner` is called with the configuration and gives `make`; `make(vocab_size)` gives the `Learner`.
What can be refused without a vocabulary is refused by the first call.  `models/learner.py` makes one of a decoder.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, SingleDeviceSharding

from rods_jax.types import Policy


def _as_given(policy: Policy, *frozen: Any) -> Policy:
    return policy


class Learner(NamedTuple):
    """A policy that trains, on one device or on a mesh, alone or with parts that stay as they are."""

    policy: Policy  # takes whole parameters; its `init` gives those that train
    shapes: Any  # of what trains: ShapeDtypeStructs, each with its sharding
    actor: Callable[[int], Policy]  # (group size) -> the policy that plays such groups on this process's devices
    whole: Callable[[Any], Any] = lambda trained: trained  # what trains -> whole parameters for the actor
    complete: Callable[..., Policy] = _as_given  # (policy, *frozen) -> the policy of what trains alone
    frozen: tuple[Any, ...] = ()  # passed to every update
    mesh: Mesh | None = None
    hosts: int = 1  # processes that share the mesh
    export: Callable[..., None] | None = None  # (directory, trained, tokenizer, *, max_positions, base, dtype)

    def place(self, tree: Any) -> Any:
        """Inside a jitted function: a tree shaped like what trains lies as that does."""
        return tree if self.mesh is None else jax.lax.with_sharding_constraint(tree, self.shardings)

    @property
    def shardings(self) -> Any:
        """Of what trains."""
        return jax.tree.map(lambda x: x.sharding, self.shapes)


def on_one_device(policy: Policy) -> Learner:
    """The learner of any policy whose parameters fit a device."""
    device = SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(policy.init, jax.random.key(0))
    placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)
    return Learner(policy, placed, actor=lambda group_size: policy)
