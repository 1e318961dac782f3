"""Sampling with a group-shared prompt: prefill once per task, decode, extend with observations.

The cache lives through the whole episode: what was generated or observed is never computed again.
A message may be decoded in several segments, and a slot whose episodes are over takes the next task's.
Noise depends on (run seed, step, task, rollout, position) only, so results do not depend on batch
content, timing or a restart.  Temperature, top-p and top-k are traced: changing them never recompiles.

Left out on purpose: beams, penalties, and slots for single rollouts (a group shares its prompt and its slot).
"""

import zlib
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rods_jax.keys import seed_key
from rods_jax.types import Policy


class Sampling(NamedTuple):
    """Traced sampling settings. temperature 0 is greedy; top_p 1 and top_k 0 switch truncation off."""

    temperature: jax.Array | float = 1.0
    top_p: jax.Array | float = 1.0
    top_k: jax.Array | int = 0


class Episodes(NamedTuple):
    """Device state of N x G episodes between two calls of the policy."""

    cache: Any
    hidden_NGD: jax.Array  # predicts each row's next token
    keys_NG: jax.Array  # one key per (run seed, step, task, rollout)
    lengths_NG: jax.Array  # suffix tokens so far: the position that noise is folded with
    said_NG: jax.Array  # tokens of the message under way; 0 between messages


class Generated(NamedTuple):
    """One segment of decoding: the next tokens of each active row's message."""

    tokens_NGA: jax.Array
    log_probs_NGA: jax.Array  # of the untruncated distribution at the sampling temperature
    lengths_NG: jax.Array
    ended_NG: jax.Array  # bool: the message is over, by a stop token or by a limit


class Generator(NamedTuple):
    """The four jitted calls of a rollout; shapes are fixed by the arguments of `generator`."""

    start: Any  # (params, prompt_tokens_NP, prompt_lengths_N, keys_NG) -> Episodes
    admit: Any  # (params, episodes, slot, prompt_tokens_P, prompt_length, keys_G) -> Episodes
    act: Any  # (params, episodes, active_NG, sampling, enough=all, steps=all) -> (Generated, Episodes)
    observe: Any  # (params, episodes, tokens_NGT, lengths_NG) -> Episodes


def generator(
    policy: Policy, *, stop_tokens: Sequence[int], group_size: int, suffix_capacity: int, max_action_tokens: int
) -> Generator:
    """Compiles a policy into `start`, `admit`, `act` and `observe`; episodes are donated from call to call.

    act: goes on with the active rows' messages until `enough` of them have ended, or `steps` tokens were decoded.
    admit: gives the N-th slot, whose episodes are over, to another task.
    """
    stops = np.array(stop_tokens, np.int32)

    def begin(params, prompt_tokens_NP, prompt_lengths_N, keys_NG) -> Episodes:
        hidden_ND, cache = policy.prefill(params, prompt_tokens_NP, prompt_lengths_N, group_size, suffix_capacity)
        hidden_NGD = jnp.broadcast_to(hidden_ND[:, None], (len(hidden_ND), group_size, hidden_ND.shape[-1]))
        zeros_NG = jnp.zeros(keys_NG.shape, jnp.int32)
        return Episodes(cache, hidden_NGD, keys_NG, zeros_NG, zeros_NG)

    start = jax.jit(begin)

    @partial(jax.jit, donate_argnums=1)
    def admit(params, episodes: Episodes, slot, prompt_tokens_P, prompt_length, keys_G) -> Episodes:
        one = begin(params, prompt_tokens_P[None], prompt_length[None], keys_G[None])
        return jax.tree.map(lambda whole, new: whole.at[slot].set(new[0]), episodes, one)

    @partial(jax.jit, donate_argnums=1)
    def act(
        params, episodes: Episodes, active_NG, sampling: Sampling, enough=np.int32(2**30), steps=np.int32(2**30)
    ):
        unembedding_VD = policy.unembedding(params)
        shape = (*active_NG.shape, max_action_tokens)
        tokens_NGA, log_probs_NGA = jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32)
        generated = Generated(tokens_NGA, log_probs_NGA, jnp.zeros(active_NG.shape, jnp.int32), ~active_NG)
        enough = jnp.minimum(enough, active_NG.sum())

        def step(carry):
            t, generated, episodes = carry
            going_NG = ~generated.ended_NG
            logits = jnp.einsum(
                "ngd,vd->ngv", episodes.hidden_NGD, unembedding_VD, preferred_element_type=jnp.float32
            )
            keys = jax.vmap(jax.vmap(jax.random.fold_in))(episodes.keys_NG, episodes.lengths_NG)
            token_NG, log_prob_NG = sample(keys, logits, sampling)
            one_NG = going_NG.astype(jnp.int32)
            hidden_NG1D, cache = policy.extend(params, episodes.cache, token_NG[..., None], one_NG)
            lengths_NG, said_NG = episodes.lengths_NG + one_NG, episodes.said_NG + one_NG
            over_NG = jnp.isin(token_NG, stops) | (said_NG == max_action_tokens) | (lengths_NG == suffix_capacity)
            episodes = episodes._replace(
                cache=cache,
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
            return t + 1, generated, episodes

        def unfinished(carry):
            t, generated, _ = carry
            return (t < jnp.minimum(steps, max_action_tokens)) & ((active_NG & generated.ended_NG).sum() < enough)

        _, generated, episodes = lax.while_loop(unfinished, step, (jnp.int32(0), generated, episodes))
        return generated._replace(ended_NG=active_NG & generated.ended_NG), episodes

    @partial(jax.jit, donate_argnums=1)
    def observe(params, episodes: Episodes, tokens_NGT, lengths_NG) -> Episodes:
        hidden_NGTD, cache = policy.extend(params, episodes.cache, tokens_NGT, lengths_NG)
        last = jnp.maximum(lengths_NG - 1, 0)[..., None, None]
        hidden_NGD = jnp.take_along_axis(hidden_NGTD, last, axis=2)[:, :, 0]
        return episodes._replace(
            cache=cache,
            hidden_NGD=jnp.where((lengths_NG > 0)[..., None], hidden_NGD, episodes.hidden_NGD),
            lengths_NG=episodes.lengths_NG + lengths_NG,
        )

    return Generator(start, admit, act, observe)


def rollout_keys(seed: int, step: int, task_ids: Sequence[str], group_size: int) -> jax.Array:
    """Typed keys `[N,G]` from (run seed, step, task, rollout) and nothing else."""
    tasks_N = np.array([zlib.crc32(task_id.encode()) for task_id in task_ids], np.uint32)
    return _rollout_keys(seed_key(seed), step, tasks_N, group_size)


@partial(jax.jit, static_argnums=3)
def _rollout_keys(key, step, tasks_N, group_size):
    key = jax.random.fold_in(key, step)
    rollouts_G = jnp.arange(group_size, dtype=jnp.uint32)
    fold = jax.random.fold_in
    return jax.vmap(lambda task: jax.vmap(lambda rollout: fold(fold(key, task), rollout))(rollouts_G))(tasks_N)


def sample(keys_NG, logits_NGV, sampling: Sampling):
    """Draws one token per row by the Gumbel trick from softmax(logits / temperature), truncated to top-k, then top-p.

    Returns (token_NG int32, log_prob_NG float32 under the untruncated distribution at that temperature;
    temperature 0 takes the arg-max and reports its log-probability at temperature 1).
    """
    greedy = sampling.temperature == 0
    logits = logits_NGV / jnp.where(greedy, 1.0, sampling.temperature)
    allowed = lax.cond(sampling.top_k > 0, lambda x: _keep_top_k(x, sampling.top_k), lambda x: x, logits)

    def noisy(allowed):
        noise = jax.vmap(jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[-1:])))(keys_NG)
        return allowed + noise

    scores = lax.cond(greedy, lambda x: x, noisy, allowed)
    token_NG = _first_largest(scores)
    within_top_p = partial(_within_top_p, scores=scores, logits=allowed, top_p=sampling.top_p)
    token_NG = lax.cond(sampling.top_p < 1, within_top_p, lambda token_NG: token_NG, token_NG)
    taken = jnp.take_along_axis(logits, token_NG[..., None], axis=-1)[..., 0]
    return token_NG, taken - jax.nn.logsumexp(logits, axis=-1)


def _within_top_p(token_NG, scores, logits, top_p):
    """From the arg-max of `scores` to that of the smallest set of the likeliest tokens with probability >= top_p;
    ties at its edge belong to it.

    A token lies outside where likelier ones hold top_p already.  Then so does every token that is no likelier, and
    the arg-max is taken again without them: one or two passes, no search for the edge and no sort.
    """
    probability = jax.nn.softmax(logits, axis=-1)
    enough = top_p * (1 - 1e-6)  # the float32 sum of all tokens may fall short of 1

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
    """arg-max over the last axis in two plain reductions: a CPU takes five times as long over one of pairs."""
    places = lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)
    return jnp.where(x == x.max(-1, keepdims=True), places, x.shape[-1] - 1).min(-1)


def _keep_top_k(logits, top_k):
    """-inf for all but the k largest, found by bisection on float32 bit patterns: 32 passes and no sort; ties at the
    edge stay."""
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
    """int32 that compares like the float32 it came from."""
    bits = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32)
    return jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)
