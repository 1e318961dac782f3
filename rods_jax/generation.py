"""Sampling with a group-shared prompt: prefill once per task, decode, extend with observations.

    prompts of N slots    one for each task under way: `admit` gives a slot to the next task
    rows [N,G]            one for each rollout under way: `renew` gives a row to the next rollout of its slot's task
    act                   decodes at most `segment` tokens of every active row
    observe               appends a chunk to C of a slot's G rows, one in each column, since few rows wait at a time
    grow                  pads the rows' caches to the next of a few sizes, when the longest row needs it

The KV caches live through whole episodes: no token is computed twice.  Noise depends only on (run seed, step, task,
rollout, position).  A row's numbers depend on no other row and on no cache size.  Results are therefore independent
of batch content, timing and restarts.  Temperature, top-p and top-k are traced: changing them never recompiles.

Left out on purpose: beams, penalties.
"""

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rods_jax.keys import seed_key
from rods_jax.types import Policy

BLOCK = 512  # tokens; larger caches are multiples of it, and attention then cuts all of them into equal blocks


class Sampling(NamedTuple):
    """Traced sampling settings. temperature 0 is greedy; top_p 1 and top_k 0 switch truncation off."""

    temperature: jax.Array | float = 1.0
    top_p: jax.Array | float = 1.0
    top_k: jax.Array | int = 0


class Episodes(NamedTuple):
    """Device state of N x G rollouts between two calls of the policy."""

    prompts: Any  # the policy's caches, one per slot
    first_ND: jax.Array  # predicts the first token of a slot's rows
    suffixes: Any  # the policy's caches, one per row
    hidden_NGD: jax.Array  # predicts each row's next token
    keys_NG: jax.Array  # one key per (run seed, step, task, rollout)
    lengths_NG: jax.Array  # suffix tokens so far; folded into the key of the next token's noise
    said_NG: jax.Array  # tokens of the message under way; 0 between messages


class Generated(NamedTuple):
    """One segment of decoding: the next tokens of each active row's message."""

    tokens_NGA: jax.Array
    log_probs_NGA: jax.Array  # of the untruncated distribution at the sampling temperature
    lengths_NG: jax.Array
    ended_NG: jax.Array  # bool: the message is over, by its stop token or by a limit


class Generator(NamedTuple):
    """The calls of a rollout; shapes are fixed by the arguments of `generator`, and each cache size compiles once."""

    start: Callable[..., Episodes]  # (params, prompt_tokens_NP, prompt_lengths_N, keys_NG)
    admit: Callable[..., Episodes]  # (params, episodes, slot, prompt_tokens_P, prompt_length, keys_G)
    renew: Callable[..., Episodes]  # (episodes, fresh_NG, keys_NG)
    act: Callable[..., tuple[Generated, Episodes]]  # (params, episodes, active_NG, sampling)
    observe: Callable[..., Episodes]  # (params, episodes, rows_NC, tokens_NCT, lengths_NC)
    grow: Callable[..., Episodes]  # (episodes, capacity)


def capacities(suffix_capacity: int) -> tuple[int, ...]:
    """The sizes of a row's cache, in tokens: about an eighth, a quarter and half of the limit, and the limit."""
    if suffix_capacity <= BLOCK:
        return (suffix_capacity,)
    return tuple(sorted({-(-suffix_capacity // (part * BLOCK)) * BLOCK for part in (8, 4, 2, 1)}))


def generator(
    policy: Policy,
    *,
    stop_tokens: Sequence[int],
    group_size: int,
    suffix_capacity: int,
    max_action_tokens: int,
    segment: int | None = None,
    columns: int | None = None,
    num_tokens: int | None = None,
) -> Generator:
    """Compiles a policy into the calls of a rollout.  Every call but `grow` donates the episodes that it gets.

    group_size: rows of a slot.  suffix_capacity: tokens of the longest episode.
    segment: the most tokens that one `act` decodes for a row; None: whole messages.  With a segment, `act` ends earlier
    once the rows whose messages ended have idled, together, for half a decode step of all rows.  To return to the host
    costs about as much.
    columns: rows of a slot that one `observe` extends, a divisor of group_size; None: all.  Column c extends one of the
    G / C rows from c * G / C on.  num_tokens: ids from here on stand for no token and are never sampled.
    """
    whole, segment, columns = segment is None, segment or max_action_tokens, columns or group_size
    if group_size % columns:
        raise ValueError(f"columns must divide group_size: got {columns} and {group_size}")

    def prefilled(params, prompt_tokens_NP, prompt_lengths_N):
        return policy.prefill(params, prompt_tokens_NP, prompt_lengths_N, suffix_capacity)

    @jax.jit
    def start(params, prompt_tokens_NP, prompt_lengths_N, keys_NG) -> Episodes:
        # Prefill the prompts; every row begins at its prompt's end, with an empty cache of the smallest size.
        first_ND, prompts = prefilled(params, prompt_tokens_NP, prompt_lengths_N)
        suffixes = policy.empty(*keys_NG.shape, capacities(suffix_capacity)[0])
        hidden_NGD = jnp.broadcast_to(first_ND[:, None], (*keys_NG.shape, first_ND.shape[-1]))
        zeros_NG = jnp.zeros(keys_NG.shape, jnp.int32)
        return Episodes(prompts, first_ND, suffixes, hidden_NGD, keys_NG, zeros_NG, zeros_NG)

    @partial(jax.jit, donate_argnums=0)
    def renew(episodes: Episodes, fresh_NG, keys_NG) -> Episodes:
        # Choose among the keys' data: jax_debug_key_reuse would take a choice among keys for a use of both.
        new_NGk, old_NGk = jax.random.key_data(keys_NG), jax.random.key_data(episodes.keys_NG)
        # The old entries of the row's cache stay: they lie beyond the new length 0, and nobody reads them.
        return episodes._replace(
            hidden_NGD=jnp.where(fresh_NG[..., None], episodes.first_ND[:, None], episodes.hidden_NGD),
            keys_NG=jax.random.wrap_key_data(jnp.where(fresh_NG[..., None], new_NGk, old_NGk)),
            lengths_NG=jnp.where(fresh_NG, 0, episodes.lengths_NG),
            said_NG=jnp.where(fresh_NG, 0, episodes.said_NG),
        )

    @partial(jax.jit, donate_argnums=1)
    def admit(params, episodes: Episodes, slot, prompt_tokens_P, prompt_length, keys_G) -> Episodes:
        # Prefill the one prompt, write it into its slot, and renew the slot's rows.
        one = prefilled(params, prompt_tokens_P[None], prompt_length[None])
        whole = episodes.first_ND, episodes.prompts
        first_ND, prompts = jax.tree.map(lambda whole, new: whole.at[slot].set(new[0]), whole, one)
        fresh_NG = jnp.broadcast_to((jnp.arange(len(first_ND)) == slot)[:, None], episodes.lengths_NG.shape)
        return renew(episodes._replace(prompts=prompts, first_ND=first_ND), fresh_NG, keys_G[None])

    @partial(jax.jit, donate_argnums=1)
    def act(params, episodes: Episodes, active_NG, sampling: Sampling):
        # The logits are computed in the dtype of the update's (log_probs.py), so that both score a token alike.
        unembedding_VD = policy.unembedding(params).astype(episodes.hidden_NGD.dtype)
        shape = (*active_NG.shape, segment)
        tokens_NGA, log_probs_NGA = jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32)
        generated = Generated(tokens_NGA, log_probs_NGA, jnp.zeros(active_NG.shape, jnp.int32), ~active_NG)

        def step(carry):
            t, idle, generated, episodes = carry
            going_NG = ~generated.ended_NG
            # Choose each row's next token.
            logits = jnp.einsum("ngd,vd->ngv", episodes.hidden_NGD, unembedding_VD, preferred_element_type=jnp.float32)
            keys = jax.vmap(jax.vmap(jax.random.fold_in))(episodes.keys_NG, episodes.lengths_NG)
            token_NG, log_prob_NG = sample(keys, logits, sampling, num_tokens)
            # Append it to the cache, which gives the next prediction's hidden state; rows that ended do not change.
            one_NG = going_NG.astype(jnp.int32)
            hidden_NG1D, suffixes = policy.extend(
                params, episodes.prompts, episodes.suffixes, episodes.lengths_NG, token_NG[..., None], one_NG
            )
            # End messages at a stop token, at the longest message, or at a full cache.
            lengths_NG, said_NG = episodes.lengths_NG + one_NG, episodes.said_NG + one_NG
            over_NG = (said_NG == max_action_tokens) | (lengths_NG == suffix_capacity)
            for stop_token in stop_tokens:
                over_NG |= token_NG == stop_token
            episodes = episodes._replace(
                suffixes=suffixes,
                hidden_NGD=jnp.where(going_NG[..., None], hidden_NG1D[:, :, 0], episodes.hidden_NGD),
                lengths_NG=lengths_NG,
                said_NG=jnp.where(going_NG & over_NG, 0, said_NG),
            )
            generated = Generated(
                generated.tokens_NGA.at[:, :, t].set(jnp.where(going_NG, token_NG, 0)),
                generated.log_probs_NGA.at[:, :, t].set(jnp.where(going_NG, log_prob_NG, 0.0)),
                generated.lengths_NG + one_NG,
                generated.ended_NG | over_NG,
            )
            return t + 1, idle + (active_NG & generated.ended_NG).sum(), generated, episodes

        def unfinished(carry):
            # `idle` counts the steps that active rows have sat through since their message ended.
            t, idle, generated, _ = carry
            return (t < segment) & ~generated.ended_NG.all() & (whole | (idle < active_NG.size / 2))

        zero = jnp.int32(0)
        *_, generated, episodes = lax.while_loop(unfinished, step, (zero, zero, generated, episodes))
        return generated._replace(ended_NG=active_NG & generated.ended_NG), episodes

    @partial(jax.jit, donate_argnums=1)
    def observe(params, episodes: Episodes, rows_NC, tokens_NCT, lengths_NC) -> Episodes:
        # One of each column's G / C rows is chosen: take its length from [N,G] to [N,C].
        to_rows = partial(jnp.repeat, repeats=group_size // columns, axis=1)
        chosen_NG = to_rows(rows_NC) == jnp.arange(group_size)[None]
        seen_NC = jnp.where(chosen_NG, episodes.lengths_NG, 0).reshape(*rows_NC.shape, -1).sum(-1)
        hidden_NCTD, suffixes = policy.extend(
            params,
            episodes.prompts,
            episodes.suffixes,
            seen_NC,
            tokens_NCT,
            lengths_NC,
            None if columns == group_size else rows_NC,
        )
        # The last new token predicts the row's next one. Bring it to [N,G]; rows that got no token do not change.
        last = jnp.maximum(lengths_NC - 1, 0)[..., None, None]
        hidden_NCD = jnp.take_along_axis(hidden_NCTD, last, axis=2)[:, :, 0]
        heard_NG = jnp.where(chosen_NG, to_rows(lengths_NC), 0)
        return episodes._replace(
            suffixes=suffixes,
            hidden_NGD=jnp.where((heard_NG > 0)[..., None], to_rows(hidden_NCD), episodes.hidden_NGD),
            lengths_NG=episodes.lengths_NG + heard_NG,
        )

    def grow(episodes: Episodes, capacity: int) -> Episodes:
        # Pad one array after the other to the shape that an empty cache of this capacity has.
        old, structure = jax.tree.flatten(episodes.suffixes)
        larger = jax.tree.leaves(jax.eval_shape(partial(policy.empty, *episodes.lengths_NG.shape, capacity)))
        new = []
        for x, like in zip(old, larger, strict=True):
            new.append(_padded(x, like.shape))
            x.delete()  # at once: only one array is held twice at a time
        return episodes._replace(suffixes=jax.tree.unflatten(structure, new))

    return Generator(start, admit, renew, act, observe, grow)


@partial(jax.jit, static_argnums=1)
def _padded(x, shape: tuple[int, ...]):
    return jnp.pad(x, [(0, size - length) for size, length in zip(shape, x.shape, strict=True)])


def rollout_keys(seed: int, step: int, task_ids: Sequence[str], group_size: int) -> jax.Array:
    """Typed keys `[N,G]`, a function of (run seed, step, task, rollout) only."""
    tasks_N = np.array([zlib.crc32(task_id.encode()) for task_id in task_ids], np.uint32)
    return _rollout_keys(seed_key(seed), step, tasks_N, group_size)


@partial(jax.jit, static_argnums=3)
def _rollout_keys(key, step, tasks_N, group_size):
    key = jax.random.fold_in(key, step)
    rollouts_G = jnp.arange(group_size, dtype=jnp.uint32)
    fold = jax.random.fold_in
    return jax.vmap(lambda task: jax.vmap(lambda rollout: fold(fold(key, task), rollout))(rollouts_G))(tasks_N)


def sample(keys_NG, logits_NGV, sampling: Sampling, num_tokens: int | None = None):
    """Draws one token per row by the Gumbel trick from softmax(logits / temperature), truncated to top-k, then top-p.

    num_tokens: ids from here on are never drawn.  The log-probability counts all of V, drawn or not.
    Returns (token_NG int32, log_prob_NG float32 under the untruncated distribution at that temperature;
    temperature 0 takes the arg-max and reports its log-probability at temperature 1).
    """
    # Scale the logits, then exclude ids without a token and all but the k largest.
    greedy = sampling.temperature == 0
    logits = logits_NGV / jnp.where(greedy, 1.0, sampling.temperature)
    allowed = logits
    if num_tokens is not None and num_tokens < logits.shape[-1]:
        allowed = jnp.where(jnp.arange(logits.shape[-1]) < num_tokens, logits, -jnp.inf)
    allowed = lax.cond(sampling.top_k > 0, lambda x: _keep_top_k(x, sampling.top_k), lambda x: x, allowed)

    def noisy(allowed):
        noise = jax.vmap(jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[-1:])))(keys_NG)
        return allowed + noise

    # Gumbel trick: the arg-max of logits plus noise is a draw from their softmax. Then move the draw into top-p.
    scores = lax.cond(greedy, lambda x: x, noisy, allowed)
    token_NG = _first_largest(scores)
    within_top_p = partial(_within_top_p, scores=scores, logits=allowed, top_p=sampling.top_p)
    token_NG = lax.cond(sampling.top_p < 1, within_top_p, lambda token_NG: token_NG, token_NG)
    # Score the token under the softmax of all logits.
    taken = jnp.take_along_axis(logits, token_NG[..., None], axis=-1)[..., 0]
    return token_NG, taken - jax.nn.logsumexp(logits, axis=-1)


def _within_top_p(token_NG, scores, logits, top_p):
    """The arg-max of `scores` within the nucleus, given the arg-max over all tokens.

    The nucleus is the smallest set of likeliest tokens with probability >= top_p; ties at its edge belong to it.  A
    token lies outside if likelier tokens already hold top_p.  Every token that is no likelier then lies outside too, so
    the arg-max is taken again among the likelier ones.  One or two passes do, with no sort.
    """
    probability = jax.nn.softmax(logits, axis=-1)
    enough = top_p * (1 - 1e-6)  # the float32 sum over all tokens may be less than 1

    def likelier(token_NG):
        return logits > jnp.take_along_axis(logits, token_NG[..., None], axis=-1)

    def outside(token_NG):
        held_NG = jnp.where(likelier(token_NG), probability, 0.0).sum(-1)
        return (held_NG >= enough) & (held_NG > 0)

    def again(carry):
        token_NG, outside_NG = carry
        next_NG = _first_largest(jnp.where(likelier(token_NG), scores, -jnp.inf))
        token_NG = jnp.where(outside_NG, next_NG, token_NG)
        return token_NG, outside_NG & outside(token_NG)

    return lax.while_loop(lambda carry: carry[1].any(), again, (token_NG, outside(token_NG)))[0]


def _first_largest(x):
    """arg-max over the last axis by two plain reductions.  One reduction over pairs takes a CPU five times as long."""
    places = lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)
    return jnp.where(x == x.max(-1, keepdims=True), places, x.shape[-1] - 1).min(-1)


def _keep_top_k(logits, top_k):
    """-inf for all but the k largest; ties with the k-th stay.  It is found by bisection over 32 bits, not by a sort."""
    ordered = _ordered(logits)

    def halve(_, bounds):
        low, high = bounds  # k or more at low, fewer above high
        middle = low // 2 + high // 2 + (low % 2 + high % 2 + 1) // 2  # upper middle without overflow
        ok = (ordered >= middle[..., None]).sum(-1) >= top_k
        return jnp.where(ok, middle, low), jnp.where(ok, high, middle - 1)

    lowest = jnp.full(logits.shape[:-1], jnp.iinfo(jnp.int32).min, jnp.int32)
    edge, _ = lax.fori_loop(0, 32, halve, (lowest, ordered.max(-1)))
    return jnp.where(ordered >= edge[..., None], logits, -jnp.inf)


def _ordered(x):
    """int32 values in the order of the float32 values x."""
    bits = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32)
    return jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)
