"""Parts of a batch: a sum over micro-batches, and the parts of mapped devices.  Arrays' names give their axes."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rods_jax.types import Fields


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


# ------------------------------------------------------------------------------- devices of a mapped axis
def gathered(batch: Fields, axis_name: str | None, split: str) -> Fields:
    """The fields with the small ones gathered from all devices along the split axis; tokens stay apart.

    Of the [N,G,S] arrays only the mask is gathered, because the aggregations count its tokens and sequences.
    """
    if axis_name is None:
        return batch

    def join(name: str, x: jax.Array) -> jax.Array:
        axes = name.rsplit("_", 1)[1]
        if split not in axes or name in _TOKENS:
            return x
        return jax.lax.all_gather(x, axis_name, axis=axes.index(split), tiled=True)

    return batch._replace(**{name: join(name, x) for name, x in batch._asdict().items()})


_TOKENS = ("prompt_tokens_NP", "suffix_tokens_NGS", "behavior_log_probs_NGS")


def own_part(x_NG: jax.Array, shape: tuple[int, ...], axis_name: str | None, split: str) -> jax.Array:
    """This device's `shape` of an array that is whole on every device."""
    if axis_name is None:
        return x_NG
    axis = "NG".index(split)
    start = jax.lax.axis_index(axis_name) * shape[axis]
    return jax.lax.dynamic_slice_in_dim(x_NG, start, shape[axis], axis)
