"""Supervised learning on demonstrations: the cold start before reinforcement learning.

Left out on purpose: packing of several episodes into one row; rows of similar length share a batch.
"""

import random
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rods_jax.demonstrations import Demonstration
from rods_jax.log_probs import log_probs
from rods_jax.types import Policy


class DemonstrationBatch(NamedTuple):
    """N episodes of one rollout each."""

    prompt_tokens_NP: jax.Array
    prompt_lengths_N: jax.Array
    suffix_tokens_NGS: jax.Array  # G = 1
    weights_NGS: jax.Array  # float32; 1 where the demonstrator speaks, less where it listens, 0 in the padding


class SupervisedState(NamedTuple):
    """Parameters and optimizer state of the cold start."""

    params: Any
    optimizer_state: Any


def loss(params, batch: DemonstrationBatch, policy: Policy):
    """Weighted mean of -log pi(token) over a batch of demonstrations."""
    hidden = policy.forward(params, batch.prompt_tokens_NP, batch.prompt_lengths_N, batch.suffix_tokens_NGS)
    scored = log_probs(hidden, policy.unembedding(params), batch.suffix_tokens_NGS, mask_T=batch.weights_NGS > 0)
    return -jnp.sum(scored.log_probs_T * batch.weights_NGS) / batch.weights_NGS.sum()


def jit_step(policy: Policy, optimizer: optax.GradientTransformation):
    """(state, batch) -> (state, loss), jitted, the old state donated."""

    @partial(jax.jit, donate_argnums=0)
    def step(state: SupervisedState, batch: DemonstrationBatch):
        value, gradient = jax.value_and_grad(loss)(state.params, batch, policy)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.params)
        return SupervisedState(optax.apply_updates(state.params, updates), optimizer_state), value

    return step


def batches(
    demonstrations: Sequence[Demonstration],
    *,
    batch_size: int,
    prompt_size: int,
    suffix_sizes: Sequence[int],
    observed_weight: float,
    rng: random.Random,
) -> Iterator[DemonstrationBatch]:
    """One pass in random order; each batch holds rows of one suffix bucket, leftovers are dropped.

    Demonstrations longer than the largest bucket, or with a longer prompt, are left out.
    """
    buckets: dict[int, list[Demonstration]] = {size: [] for size in suffix_sizes}
    order = rng.sample(range(len(demonstrations)), len(demonstrations))
    for index in order:
        one = demonstrations[index]
        size = next((size for size in suffix_sizes if len(one.suffix) <= size), None)
        if size is None or len(one.prompt) > prompt_size:
            continue
        buckets[size].append(one)
        if len(buckets[size]) == batch_size:
            yield _batch(buckets[size], prompt_size, size, observed_weight)
            buckets[size] = []


def _batch(rows: Sequence[Demonstration], prompt_size: int, suffix_size: int, observed_weight: float):
    prompts = np.zeros((len(rows), prompt_size), np.int32)
    suffixes = np.zeros((len(rows), 1, suffix_size), np.int32)
    weights = np.zeros((len(rows), 1, suffix_size), np.float32)
    for n, row in enumerate(rows):
        prompts[n, : len(row.prompt)] = row.prompt
        suffixes[n, 0, : len(row.suffix)] = row.suffix
        weights[n, 0, : len(row.suffix)] = np.where(row.acted, 1.0, observed_weight)
    lengths = np.array([len(row.prompt) for row in rows], np.int32)
    return DemonstrationBatch(prompts, lengths, suffixes, weights)
