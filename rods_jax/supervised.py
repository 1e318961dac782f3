"""Supervised learning on demonstrations: the cold start before reinforcement learning.

No row packs several episodes; rows of similar length share a batch.
"""

import random
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rods_jax.demonstrations import Demonstration
from rods_jax.log_probs import log_probs
from rods_jax.types import Array, Policy


class DemonstrationBatch(NamedTuple, Generic[Array]):
    """N episodes of one rollout each."""

    prompt_tokens_NP: Array
    prompt_lengths_N: Array
    suffix_tokens_NGS: Array  # G = 1
    weights_NGS: Array  # float32; 1 where the demonstrator speaks, less where it listens, 0 in the padding


class SupervisedState(NamedTuple):
    """Parameters and optimizer state of the cold start."""

    params: Any
    optimizer_state: Any


def demonstration_loss(params, batch: DemonstrationBatch[jax.Array], policy: Policy):
    """Weighted mean of -log pi(token) over a batch of demonstrations."""
    hidden = policy.forward(params, batch.prompt_tokens_NP, batch.prompt_lengths_N, batch.suffix_tokens_NGS)
    scored = log_probs(hidden, policy.unembedding(params), batch.suffix_tokens_NGS, mask_T=batch.weights_NGS > 0)
    return -jnp.sum(scored.log_probs_T * batch.weights_NGS) / batch.weights_NGS.sum()


def jit_step(policy: Policy, optimizer: optax.GradientTransformation):
    """(state, batch) -> (state, loss, finite), jitted, the old state donated.

    finite: the gradient is.  Where it is not, the step changes nothing.
    """

    @partial(jax.jit, donate_argnums=0)
    def step(state: SupervisedState, batch: DemonstrationBatch[jax.Array]):
        value, gradient = jax.value_and_grad(demonstration_loss)(state.params, batch, policy)
        finite = jnp.isfinite(optax.tree.norm(gradient))
        updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.params)
        learned = SupervisedState(optax.apply_updates(state.params, updates), optimizer_state)
        return jax.tree.map(partial(jnp.where, finite), learned, state), value, finite

    return step


def stream(
    demonstrations: Sequence[Demonstration],
    *,
    batch_size: int,
    prompt_size: int,
    suffix_sizes: Sequence[int],
    observed_weight: float,
    rng: random.Random,
) -> Iterator[DemonstrationBatch[np.ndarray]]:
    """Endless passes in random order; each batch holds rows of one suffix size.

    Demonstrations that do not fit the largest size, or whose prompt does not fit, are left out.  A size with too few rows
    for a batch shares those of its neighbours, so that every row is learned.  ValueError: all are too few for one batch.
    """
    # Put each demonstration into the smallest size that holds it, and fill sizes that have too few for a batch.
    buckets: dict[int, list[Demonstration]] = {size: [] for size in suffix_sizes}
    for one in demonstrations:
        if (size := size_of(one, prompt_size, suffix_sizes)) is not None:
            buckets[size].append(one)
    _fill(buckets, batch_size)
    if all(len(rows) < batch_size for rows in buckets.values()):
        raise ValueError(
            f"the sizes {tuple(suffix_sizes)} hold fewer than the {batch_size} demonstrations of one batch: their prompts have "
            f"up to {max((len(one.prompt) for one in demonstrations), default=0)} tokens, where rollout.max_prompt_tokens "
            f"is {prompt_size}, and the rest up to {max((len(one.suffix) for one in demonstrations), default=0)}, where "
            f"cold_start.suffix_sizes end at {max(suffix_sizes)}"
        )
    # In each pass, shuffle the rows of each size, cut them into batches, and shuffle the batches.
    while True:
        batches = []
        for size, rows in buckets.items():
            rows = rng.sample(rows, len(rows))
            batches += [(size, rows[i : i + batch_size]) for i in range(0, len(rows) - batch_size + 1, batch_size)]
        for size, rows in rng.sample(batches, len(batches)):
            yield _batch(rows, prompt_size, size, observed_weight)


def _fill(buckets: dict[int, list[Demonstration]], batch_size: int) -> None:
    """Too few rows for a batch move to the next larger size, and the largest size takes what it lacks from those below."""
    sizes = sorted(buckets)
    for size, larger in pairwise(sizes):
        if len(buckets[size]) < batch_size:
            buckets[larger] += buckets[size]
            buckets[size] = []
    largest = buckets[sizes[-1]]
    for size in reversed(sizes[:-1]):
        if largest and (lacking := batch_size - len(largest)) > 0:
            rows = sorted(buckets[size], key=lambda one: len(one.suffix))  # the longest move
            left = len(rows) - lacking if len(rows) - lacking >= batch_size else 0
            largest += rows[left:]
            buckets[size] = rows[:left]


def size_of(one: Demonstration, prompt_size: int, suffix_sizes: Sequence[int]) -> int | None:
    """The smallest size that holds a demonstration; None: it is left out."""
    fitting = [size for size in suffix_sizes if len(one.suffix) <= size and len(one.prompt) <= prompt_size]
    return min(fitting, default=None)


def _batch(
    rows: Sequence[Demonstration], prompt_size: int, suffix_size: int, observed_weight: float
) -> DemonstrationBatch[np.ndarray]:
    prompts = np.zeros((len(rows), prompt_size), np.int32)
    suffixes = np.zeros((len(rows), 1, suffix_size), np.int32)
    weights = np.zeros((len(rows), 1, suffix_size), np.float32)
    for n, row in enumerate(rows):
        prompts[n, : len(row.prompt)] = row.prompt
        suffixes[n, 0, : len(row.suffix)] = row.suffix
        weights[n, 0, : len(row.suffix)] = np.where(row.acted, 1.0, observed_weight)
    lengths = np.array([len(row.prompt) for row in rows], np.int32)
    return DemonstrationBatch(prompts, lengths, suffixes, weights)
