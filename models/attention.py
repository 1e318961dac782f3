"""Attention over [shared prompt | own suffix]: blockwise partial softmaxes that are merged exactly.

A query's keys lie in parts of different batch structure: one prompt for G rollouts, one cache per rollout.  Each part
gives its normalised output and the log-sum-exp of its scores.  Their merge is the softmax over all keys, and nothing
is concatenated.  Inside a part, the scores exist one tile (row block x key block) at a time.  A tile that no row sees
is not computed: it lies above the diagonal or beyond the longest sequence.  The backward pass recomputes each tile's
weights from the saved log-sum-exp.  Memory is therefore linear in the number of tokens; a short sequence is one tile.

Shapes: N tasks, G rollouts, T query tokens, P prompt keys, S own keys, K key/value heads, Q queries per
key/value head, E head width.  A part's queries are M rows, its batch axes are `...`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

SAVED = "attention"  # checkpoint name of the results that a rematerialised layer keeps
TILE = 1 << 20  # scores in one tile, over all its batch axes; as float32 they are 4 MB and fit into a CPU's caches
SHORTEST, LONGEST = 128, 512  # tokens along either side of a tile, unless the sequence is shorter
FEW = 16  # rows: for at most so many, a CPU computes keys x rows; a decode step has Q rows per key/value head
NOTHING = -1e30  # log-sum-exp of a row that sees no key of a part: its weight in the merge is exp(-1e30) = 0


class Shared(NamedTuple):
    """One prompt for all rollouts of a task: every query sees its first `lengths_N` keys."""

    key_NKPE: jax.Array
    value_NKPE: jax.Array
    lengths_N: jax.Array

    def rows(self, x_NGKQT):
        """[N,G,K,Q,T,...] as [N,K, G*Q*T, ...]."""
        n, g, k, q, t, *rest = x_NGKQT.shape
        return jnp.moveaxis(x_NGKQT, 1, 2).reshape(n, k, g * q * t, *rest)

    def unrows(self, x, shape):
        n, g, k, q, t = shape
        return jnp.moveaxis(x.reshape(n, k, g, q, t, *x.shape[3:]), 2, 1)

    def limits(self, shape):
        """How many of the part's first keys each row sees, `[N,1,1]`."""
        return self.lengths_N[:, None, None]


class Own(NamedTuple):
    """Each rollout's cache: query token t sees its first `lengths_NGT` keys."""

    key_NGKSE: jax.Array
    value_NGKSE: jax.Array
    lengths_NGT: jax.Array

    def rows(self, x_NGKQT):
        return _by_token(x_NGKQT)

    def unrows(self, x, shape):
        return _from_tokens(x, shape)

    def limits(self, shape):
        """`[N,G,1,T*Q]`: a token's Q queries see equally many keys."""
        return jnp.repeat(self.lengths_NGT, shape[3], axis=-1)[:, :, None]


class Causal(NamedTuple):
    """The queries' own chunk: token t sees tokens 0..t."""

    key_NGKTE: jax.Array
    value_NGKTE: jax.Array

    def rows(self, x_NGKQT):
        return _by_token(x_NGKQT)

    def unrows(self, x, shape):
        return _from_tokens(x, shape)

    def limits(self, shape):
        *_, q, t = shape
        return (1 + jnp.arange(t * q, dtype=jnp.int32) // q)[None, None, None]


def _by_token(x_NGKQT):
    """[N,G,K,Q,T,...] as [N,G,K, T*Q, ...]: neighbouring rows are neighbouring tokens."""
    n, g, k, q, t, *rest = x_NGKQT.shape
    return jnp.moveaxis(x_NGKQT, 3, 4).reshape(n, g, k, t * q, *rest)


def _from_tokens(x, shape):
    """The inverse of `_by_token`."""
    n, g, k, q, t = shape
    return jnp.moveaxis(x.reshape(n, g, k, t, q, *x.shape[4:]), 4, 3)


Part = Shared | Own | Causal
Partial = Callable[[jax.Array, Part], tuple[jax.Array, jax.Array]]  # -> output_NGKQTE, log_sum_NGKQT


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def attend(query_NGKQTE, parts: tuple[Part, ...], partial_attention: Partial):
    """softmax(q k^T) v over the keys of all parts together, `[N,G,K,Q,T,E]`.  Every query must see some key."""
    return _attend(query_NGKQTE, parts, partial_attention)[0]


def _attend(query, parts, partial_attention):
    output, log_sum = _merge(*(partial_attention(query, part) for part in parts))
    return output.astype(query.dtype), log_sum


def _forward(query, parts, partial_attention):
    # Name these two arrays: a rematerialised layer then keeps them, and does not attend again.
    output, log_sum = checkpoint_name(_attend(query, parts, partial_attention), SAVED)
    # Times one makes the result another variable than the saved output, which then stays where it was computed.
    return output * 1, (query, parts, output, log_sum)


def _backward(partial_attention, saved, d_output):
    query, parts, output, log_sum = saved
    # The row term of the softmax's gradient, shared by all parts: delta = d_output . output.
    delta = jnp.vecdot(d_output.astype(jnp.float32), output.astype(jnp.float32), precision="highest")
    # Given the log-sum-exp over all keys, each part's gradients are independent; the query's is their sum.
    d_queries, d_parts = zip(*(_gradients(query, part, d_output, log_sum, delta) for part in parts))
    return sum(d_queries).astype(query.dtype), d_parts


attend.defvjp(_forward, _backward)


def _merge(*partials):
    """(output, log-sum-exp) over the keys of all partials; one that saw no key leaves the others' result as it is."""
    if len(partials) == 1:
        return partials[0]
    # Each partial's share of the softmax's sum, relative to the largest, so that exp cannot overflow.
    highest = jnp.stack([log_sum for _, log_sum in partials]).max(0)
    scales = [jnp.exp(log_sum - highest) for _, log_sum in partials]
    total = sum(scales[1:], scales[0])
    output = sum(output * scale[..., None] for (output, _), scale in zip(partials, scales))
    return output / total[..., None], highest + jnp.log(total)


def blockwise(query_NGKQTE, part: Part):
    """(softmax(q k^T) v over the keys of one part, log-sum-exp of its scores), both float32; XLA everywhere."""
    tiles = _cut(query_NGKQTE.shape, part)

    def row_block(args):
        rows, limits = args

        def weigh(j):
            # The softmax within key block j, shifted by each row's maximum; the bounds keep an empty row finite.
            scores = tiles.scores(rows, limits, j)
            maximum = jnp.maximum(scores.max(-1), NOTHING)
            weights = jnp.exp(scores - maximum[..., None])
            total = jnp.maximum(weights.sum(-1), 1e-30)
            output = _product("...ms,...se->...me", weights.astype(rows.dtype), tiles.block(1, j))
            return output / total[..., None], maximum + jnp.log(total)

        if tiles.blocks == 1:
            return weigh(0)
        # Merge one key block after the other into the running output and log-sum-exp.
        nothing = jnp.zeros(rows.shape, jnp.float32), jnp.full(rows.shape[:-1], NOTHING, jnp.float32)
        return tiles.over_keys(limits, lambda j, state: _merge(state, weigh(j)), nothing)

    # One row block after the other, so that only one tile of scores exists at a time.
    output, log_sum = lax.map(row_block, (tiles.rows(query_NGKQTE), tiles.limits))
    return tiles.unrows(output), tiles.unrows(log_sum)


def _gradients(query, part: Part, d_output, log_sum, delta):
    """(d_query, d_part) of one part; log_sum is over all parts, delta = sum(d_output * output) of each query."""
    tiles = _cut(query.shape, part)

    def row_block(d_keys_values, args):
        rows, d_out, log_sum, delta, limits = args

        def add(j, state):
            d_rows, d_keys, d_values = state
            # Recompute this tile's weights from the log-sum-exp over all parts.
            weights = jnp.exp(tiles.scores(rows, limits, j) - log_sum[..., None])
            # Through the softmax: d_scores = weights * (d_weights - delta).
            d_weights = _product("...me,...se->...ms", d_out, tiles.block(1, j))
            d_scores = (weights * (d_weights - delta[..., None])).astype(rows.dtype)
            # Gradients of keys and values are [E, S]: in this layout a CPU contracts the long row axis faster.
            d_key = _product("...me,...ms->...es", rows, d_scores)
            d_value = _product("...me,...ms->...es", d_out, weights.astype(rows.dtype))
            d_rows += _product("...ms,...se->...me", d_scores, tiles.block(0, j))
            return d_rows, d_keys.at[j].add(d_key), d_values.at[j].add(d_value)

        # Fold over the key blocks: the rows' gradient starts at zero, the keys' and values' go on from the last block.
        zero = jnp.zeros(rows.shape, jnp.float32)
        d_rows, *d_keys_values = tiles.over_keys(limits, add, (zero, *d_keys_values))
        return tuple(d_keys_values), d_rows

    blocks = *(tiles.rows(x) for x in (query, d_output, log_sum, delta)), tiles.limits
    # Scan the row blocks; the gradients of all key blocks are carried in float32.
    first = jax.eval_shape(lambda: tiles.block(0, 0))
    zero = jnp.zeros((tiles.blocks, *first.shape[:-2], first.shape[-1], first.shape[-2]), jnp.float32)
    d_keys_values, d_rows = lax.scan(row_block, (zero, zero), blocks)
    # Undo the transposition and the cut into blocks. The lengths of a part are integers and get no gradient.
    d_key, d_value = (
        _join(jnp.swapaxes(x, -1, -2), x.ndim - 3, part[0].shape[-2]).astype(part[0].dtype) for x in d_keys_values
    )
    return tiles.unrows(d_rows), type(part)._make((d_key, d_value, *[None] * (len(part) - 2)))


class _Tiles(NamedTuple):
    """A part cut into I blocks of M rows and J blocks of S keys; row blocks are stacked on a new first axis."""

    part: Part
    shape: tuple[int, ...]  # [N,G,K,Q,T] of the query
    limits: jax.Array  # [I, ..., M or 1]
    blocks: int  # J
    size: int  # S
    keys_values: tuple[jax.Array, jax.Array]  # [..., J * S, E], padded

    def block(self, which: int, j):
        """Block j of the keys (0) or the values (1), `[..., S, E]`: a slice, so that nothing is copied beforehand."""
        x = self.keys_values[which]
        return x if self.blocks == 1 else lax.dynamic_slice_in_dim(x, j * self.size, self.size, x.ndim - 2)

    def rows(self, x_NGKQT):
        return _split(self.part.rows(x_NGKQT), self.part[0].ndim - 2, len(self.limits))

    def unrows(self, x):
        axis = self.part[0].ndim - 2
        return self.part.unrows(_join(x, axis, math.prod(self.shape) // math.prod(x.shape[1 : axis + 1])), self.shape)

    def scores(self, rows, limits, j):
        """q k^T of a tile, `[..., M, S]`; -inf where a key lies at or beyond its row's limit."""
        scores = _scores(rows, self.block(0, j))
        places = j * self.size + lax.broadcasted_iota(jnp.int32, scores.shape, scores.ndim - 1)
        return jnp.where(places < limits[..., None], scores, -jnp.inf)

    def over_keys(self, limits, body, state):
        """Folds `body(j, state)` over the key blocks that some row sees."""
        if self.blocks == 1:
            return body(0, state)
        # The largest limit bounds the loop: no row sees a later block.
        stop = jnp.minimum(-(-limits.max() // self.size), self.blocks)
        return lax.fori_loop(0, stop, body, state)


def _cut(shape, part: Part) -> _Tiles:
    """Cuts a part into tiles of at most about TILE scores; shape: the query's, [N,G,K,Q,T,E]."""
    *heads, queries, _ = shape
    heads, keys, axis = math.prod(heads), part[0].shape[-2], part[0].ndim - 2
    # Rows first: a tile is about square, so its side is the root of one head's scores.
    num_rows = _count(queries, math.isqrt(TILE // heads))
    rows = heads * -(-queries // num_rows)
    # Then as many keys as TILE leaves room for beside these rows.
    num_keys, size = _key_blocks(part, TILE // rows)
    limits = part.limits(shape[:-1])
    # Limits are cut as rows are: padding gets limit 0 and sees nothing. One limit for all rows is repeated.
    limits = (
        _split(limits, axis, num_rows)
        if limits.shape[axis] > 1
        else jnp.broadcast_to(limits, (num_rows, *limits.shape))
    )
    # Pad the keys to whole blocks; the padding lies beyond every limit.
    keys_values = tuple(pad(x, axis, size * num_keys - keys) for x in part[:2])
    return _Tiles(part, shape[:-1], limits, num_keys, size, keys_values)


def _key_blocks(part: Part, most: int) -> tuple[int, int]:
    """(how many blocks a part's keys are cut into, keys in a block)."""
    keys = part[0].shape[-2]
    if isinstance(part, Own) and keys >= LONGEST:
        # A growing cache keeps one block size, so that results are equal to the bit at every capacity.
        side = _side(most)
        return -(-keys // side), side
    count = _count(keys, most)
    return count, -(-keys // count)


def _count(length: int, most: int) -> int:
    """How many blocks of at most `most` tokens a length is cut into; `most` is held within SHORTEST and LONGEST."""
    return 1 if length <= min(max(most, SHORTEST), LONGEST) else -(-length // _side(most))


def _side(most: int) -> int:
    """Tokens along a block: LONGEST, a half or a quarter of it.  All divide usual lengths and fill a TPU's vectors."""
    side = LONGEST
    while side > max(most, SHORTEST):
        side //= 2
    return side


def _split(x, axis: int, count: int):
    """[..., L, ...] as [count, ..., ceil(L / count), ...], padded with zeros."""
    size = -(-x.shape[axis] // count)
    x = pad(x, axis, size * count - x.shape[axis])
    return jnp.moveaxis(x.reshape(*x.shape[:axis], count, size, *x.shape[axis + 1 :]), axis, 0)


def pad(x, axis: int, count: int):
    """x with `count` zeros more at the end of an axis."""
    return jnp.pad(x, [(0, count if i == axis else 0) for i in range(x.ndim)])


def _join(x, axis: int, length: int):
    """The inverse of `_split`, back to `length`."""
    x = jnp.moveaxis(x, 0, axis)
    x = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
    return lax.slice_in_dim(x, 0, length, axis=axis)


def _scores(rows, keys):
    """q k^T, `[..., M, S]`."""

    def keys_first(rows, keys):
        # For few rows a CPU takes up to a third less time this way. The barrier keeps XLA from swapping the operands.
        return jnp.swapaxes(lax.optimization_barrier(_product("...se,...me->...sm", keys, rows)), -1, -2)

    rows_first = partial(_product, "...me,...se->...ms")
    if rows.shape[-2] > FEW:
        return rows_first(rows, keys)
    return lax.platform_dependent(rows, keys, cpu=keys_first, default=rows_first)


def _product(subscripts: str, *operands):
    return jnp.einsum(subscripts, *operands, preferred_element_type=jnp.float32)
