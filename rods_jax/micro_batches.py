"""A sum over micro-batches: the result of the whole batch, in the memory of a part.  Arrays' names give their axes."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


def micro_batches(arrays: Mapping[str, jax.Array], cuts: tuple[int, int]) -> dict[str, jax.Array]:
    """Arrays whose names end in their axes, N first, as `[tasks * rollouts, N / tasks, G / rollouts, ...]`.

    cuts: (tasks, rollouts).  Neighbours go to different parts.  Each device therefore holds an equal share of every part,
    and nothing moves.  An array without G, such as the prompts, is repeated for every cut of its rollouts.
    """
    tasks, rollouts = cuts

    def cut(name: str, x: jax.Array) -> jax.Array:
        # Cut N, then G: the part's index is the minor axis, and moves to the front.
        x = jnp.moveaxis(x.reshape(-1, tasks, *x.shape[1:]), 1, 0)
        if "G" in name.rsplit("_", 1)[1]:
            x = jnp.moveaxis(x.reshape(*x.shape[:2], -1, rollouts, *x.shape[3:]), 3, 1)
        else:
            x = jnp.broadcast_to(x[:, None], (tasks, rollouts, *x.shape[1:]))
        return x.reshape(tasks * rollouts, *x.shape[2:])

    return {name: cut(name, x) for name, x in arrays.items()}


def accumulate(function: Callable[..., Any], arrays: Mapping[str, jax.Array], cuts: tuple[int, int], place):
    """The sum of `function(**part)`, a tree of floats, over micro-batches, in float32; `place` lays it on devices."""
    if cuts == (1, 1):
        return place(function(**arrays))
    # Scan the parts; the sum is float32, and has the results' own dtypes at the end.
    parts = micro_batches(arrays, cuts)
    shapes = jax.eval_shape(function, **{name: x[0] for name, x in parts.items()})

    def add(total, part):
        return place(jax.tree.map(lambda a, b: a + b.astype(jnp.float32), total, function(**part))), None

    nothing = place(jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes))
    total, _ = jax.lax.scan(add, nothing, parts)
    return jax.tree.map(lambda a, b: a.astype(b.dtype), total, shapes)
