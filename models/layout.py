"""How a decoder's arrays are laid out on several devices, and how prompts and suffixes share one array.

The decoder names the axes of its arrays by letters: N tasks, G rollouts, T tokens, D width where it may be cut,
K key/value heads (H while they attend), F feed-forward, V vocabulary.  In the pass over prompts, B stands for N,
P for T and I for H.  No other letter is ever cut.  `rods_jax/sharding.py` holds the table from letters to mesh axes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from . import attention


class Layout(NamedTuple):
    """How arrays are laid out on several devices; the default constrains nothing."""

    constrain: Callable[[jax.Array, str], jax.Array] = lambda x, axes: x
    local: Callable[[Callable, Any, str], Callable] = lambda function, inputs, output: function  # per device
    attend: Callable = lambda query, parts: attention.attend(query, parts, attention.blockwise)  # or flash.flash_attend
    cuts: tuple[int, int] = (1, 1)  # number of parts of a suffix's tokens, and of a task's rollouts
    cut_tokens: bool = False  # True: a mesh may cut the axes of tokens, so they must not be merged
    weights_move: bool = True  # True: weights are gathered for use; False: they stay, and the tokens move
    chunk_size: int = 1024  # tokens whose logits exist at a time, on all devices together


def for_prompts(layout: Layout) -> Layout:
    """The layout of the pass over prompts: devices that share a task's rollouts share its prompt's tokens, or heads."""
    letters = str.maketrans("NGTH", "B-PI")

    def local(function, inputs, output):
        inputs = jax.tree.map(lambda axes: axes.translate(letters), inputs)
        return layout.local(function, inputs, output.translate(letters))

    return layout._replace(constrain=lambda x, axes: layout.constrain(x, axes.translate(letters)), local=local)


def for_rows(layout: Layout) -> Layout:
    """The layout of `Rows`: each device holds whole rows, because a task has one row for each device's part of it."""
    letters = str.maketrans("GT", "P-")
    return layout._replace(constrain=lambda x, axes: layout.constrain(x, axes.translate(letters)))


def for_few(layout: Layout) -> Layout:
    """The layout for few tokens: each device computes its part of the width for all, and no weight is gathered."""
    letters = {"NGT-": "---D", "NGTF": "---F"}

    def constrain(x: jax.Array, axes: str) -> jax.Array:
        return layout.constrain(x, letters.get(axes, axes))

    return layout._replace(constrain=constrain, weights_move=False)


def gathered(x, cut: str, whole: str, layout: Layout):
    """Moves x from the layout `cut` to the layout `whole`; the gradient is summed straight into `cut`.

    The sum runs over the devices that cut tasks, then over the others.  A TPU that does both in one step sums whole
    gradients and cuts them afterwards, unless a part is a multiple of 16 columns.
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

    C is the number of parts that devices cut a task's tokens into.  A row is what one device holds of prompt and
    suffixes, so joining moves nothing.  On one device a task is one row.
    """

    num_tasks: int
    prompt: int  # tokens, a multiple of the rows
    group_size: int
    suffix: int
    cuts: tuple[int, int]  # number of parts of a suffix's tokens, and of rollouts; the product is C

    def join(self, prompt, suffix):
        c, (s, g) = self.cuts[0] * self.cuts[1], self.cuts
        # Cut the prompt's tokens into C parts, and rollouts and suffix tokens into g x s = C parts.
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
    """Rows for prompts `[N,P]`, padded to a multiple of C, and suffixes `[N,G,S]`, uncut if a cut does not divide."""
    (num_tasks, prompt), (_, group_size, suffix) = prompt_shape, suffix_shape
    tokens, rollouts = (cut if size % cut == 0 else 1 for cut, size in zip(layout.cuts, (suffix, group_size)))
    count = tokens * rollouts
    return Rows(num_tasks, -(-prompt // count) * count, group_size, suffix, (tokens, rollouts))
