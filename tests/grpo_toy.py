"""The paper's objective, but for what a test changes; a batch of random rollouts, and a policy without context."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rods_jax import grpo
from rods_jax.config import UpdateConfig
from rods_jax.types import Policy, RolloutBatch, Standing

V, N, G, P, S = 19, 8, 4, 6, 10


def objective_with(**changes: Any) -> UpdateConfig:
    paper = {"learning_rate": 1.0, "ratio": grpo.token_ratio, "aggregate": grpo.sequence_mean}
    return UpdateConfig(**paper | changes)


def make_batch(policy, params, seed=0) -> RolloutBatch:
    rng = np.random.default_rng(seed)
    prompt_lengths = rng.integers(1, P + 1, N).astype(np.int32)
    lengths = rng.integers(2, S + 1, (N, G)).astype(np.int32)
    prompt = rng.integers(0, V, (N, P)).astype(np.int32)
    suffix = rng.integers(0, V, (N, G, S)).astype(np.int32)
    action = (rng.random((N, G, S)) < 0.6) & (np.arange(S) < lengths[..., None])
    hidden = policy.forward(params, prompt, prompt_lengths, suffix)
    log_probs = jax.nn.log_softmax(hidden @ policy.unembedding(params).T)
    behavior = np.take_along_axis(np.asarray(log_probs), suffix[..., None], -1)[..., 0]
    turns = rng.integers(1, 5, N).astype(np.int32)
    passed = rng.integers(0, turns[:, None] + 1, (N, G)).astype(np.int32)
    return RolloutBatch(
        prompt,
        prompt_lengths,
        suffix,
        lengths,
        action,
        behavior + 0.1 * rng.normal(size=behavior.shape).astype(np.float32),
        (passed / turns[:, None]).astype(np.float32),
        rng.random((N, G)) < 0.9,
        passed,
        turns,
    )


def make_standing(seed=0) -> Standing:
    return grpo.first_seen(N)._replace(categories_N=np.random.default_rng(seed).integers(0, 4, N).astype(np.int32))


def bag_of_words(params, prompt_NP, lengths_N, suffix_NGS):
    """Hidden states that depend on the prompt and on the suffix so far, cheap to compile."""
    said = params["embedding"][suffix_NGS].cumsum(axis=2) - params["embedding"][suffix_NGS]
    told = params["embedding"][prompt_NP] * (np.arange(P)[None] < lengths_N[:, None])[..., None]
    return jnp.tanh(said + told.sum(1)[:, None, None])


BAG_OF_WORDS = Policy(None, bag_of_words, lambda params: params["unembedding"], None, None, None)
