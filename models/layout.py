"""Where a decoder's arrays lie on several devices, and how prompts and suffixes stand in one array.

The decoder only names the axes of its arrays, in the letters of the dimension key: N tasks, G, T tokens (B and P
in the attention of prompts, and I its heads), D width where it may be cut, K heads (H where attention runs), F, V;
any other letter is never cut.  `rods_jax/sharding.py` holds the table from letters to a mesh.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from models import attention


class Layout(NamedTuple):
    """How arrays lie on several devices; by default nothing is said."""

    constrain: Callable[[jax.Array, str], jax.Array] = lambda x, axes: x
    local: Callable[[Callable, Any, str], Callable] = lambda function, inputs, output: function  # per device
    attend: Callable = lambda query, parts: attention.attend(query, parts, attention.blockwise)  # or flash.attend
    cuts: tuple[int, int] = (1, 1)  # into how many parts devices cut a suffix's tokens, and a task's rollouts
    cut_tokens: bool = False  # axes of tokens may be cut, so that they must not be merged
    weights_move: bool = True  # gathered where they are used; else they stay, and the few tokens go to them
    chunk_size: int = 1024  # tokens whose logits exist at a time, on all devices together


def for_prompts(layout: Layout) -> Layout:
    """Prompts share out their tokens where others share out rollouts, and heads while they attend."""
    letters = str.maketrans("NGTH", "B-PI")

    def local(function, inputs, output):
        inputs = jax.tree.map(lambda axes: axes.translate(letters), inputs)
        return layout.local(function, inputs, output.translate(letters))

    return layout._replace(constrain=lambda x, axes: layout.constrain(x, axes.translate(letters)), local=local)


def for_rows(layout: Layout) -> Layout:
    """Every device holds whole rows of `Rows`: they are as many as the parts that devices cut tokens into."""
    letters = str.maketrans("GT", "P-")
    return layout._replace(constrain=lambda x, axes: layout.constrain(x, axes.translate(letters)))


def for_few(layout: Layout) -> Layout:
    """Every device computes its part of the width for all tokens, instead of gathering weights for its own few."""
    letters = {"NGT-": "---D", "NGTF": "---F"}

    def constrain(x: jax.Array, axes: str) -> jax.Array:
        return layout.constrain(x, letters.get(axes, axes))

    return layout._replace(constrain=constrain, weights_move=False)


def gathered(x, cut: str, whole: str, layout: Layout):
    """x, which lies as `cut` says, as `whole` says; its gradient is summed straight into the cut.

    First over the devices that cut tasks, then over the others: into all parts of a width at once, a TPU sums whole
    gradients where a part is no multiple of 16 columns, and cuts afterwards.
    """

    @jax.custom_vjp
    def gather(x):
        return layout.constrain(x, whole)

    def scatter(_, gradient):
        return (layout.constrain(layout.constrain(gradient, cut.replace("D", "N")), cut),)

    gather.defvjp(lambda x: (gather(x), None), scatter)
    return gather(x)


class Rows(NamedTuple):
    """A task's prompt `[N,1,P,...]` and its suffixes `[N,G,S,...]` in one array `[N,C,P/C + G*S/C,...]`.

    C is the number of parts that devices cut a task's tokens into, so that a row is what one device holds of both and
    nothing moves; on one device a task is one row.
    """

    num_tasks: int
    prompt: int  # tokens, a multiple of the rows
    group_size: int
    suffix: int
    cuts: tuple[int, int]  # of a suffix's tokens, and of rollouts; their product is the number of rows

    def join(self, prompt, suffix):
        c, (s, g) = self.cuts[0] * self.cuts[1], self.cuts
        prompt = prompt.reshape(self.num_tasks, c, self.prompt // c, *prompt.shape[3:])
        shape = self.num_tasks, g, self.group_size // g, s, self.suffix // s
        suffix = jnp.moveaxis(suffix.reshape(*shape, *suffix.shape[3:]), 3, 1)
        return jnp.concatenate([prompt, suffix.reshape(self.num_tasks, c, -1, *suffix.shape[5:])], axis=2)

    def apart(self, x):
        """The inverse of `join`: (prompt, suffix)."""
        c, (s, g) = self.cuts[0] * self.cuts[1], self.cuts
        prompt, suffix = jnp.split(x, [self.prompt // c], axis=2)
        shape = self.num_tasks, s, g, self.group_size // g, self.suffix // s
        suffix = jnp.moveaxis(suffix.reshape(*shape, *x.shape[3:]), 1, 3)
        return (
            prompt.reshape(self.num_tasks, 1, self.prompt, *x.shape[3:]),
            suffix.reshape(self.num_tasks, self.group_size, self.suffix, *x.shape[3:]),
        )


def rows_of(prompt_shape: tuple[int, int], suffix_shape: tuple[int, int, int], layout: Layout) -> Rows:
    """Rows for prompts `[N,P]`, padded until the cuts divide them, and suffixes `[N,G,S]`, uncut where they do not."""
    (num_tasks, prompt), (_, group_size, suffix) = prompt_shape, suffix_shape
    tokens, rollouts = (cut if size % cut == 0 else 1 for cut, size in zip(layout.cuts, (suffix, group_size)))
    count = tokens * rollouts
    return Rows(num_tasks, -(-prompt // count) * count, group_size, suffix, (tokens, rollouts))
