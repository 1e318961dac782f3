"""Learning from a subset of each group: what is left out has no effect, and is measured all the same."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from grpo_toy import objective_with
from test_grpo import BAG_OF_WORDS, G, N, V, make_batch, make_standing

from rods_jax import grpo


def test_a_subset_learns_as_if_the_others_had_not_been_played_and_all_are_measured():
    objective, optimizer = objective_with(kl_coefficient=0.0, entropy_coefficient=0.0), optax.sgd(1.0)
    params = {
        name: np.random.default_rng(4).normal(size=(V, 16)).astype(np.float32) for name in ("embedding", "unembedding")
    }
    first_NG = np.arange(G)[None, :] < 2
    objective = replace(objective, subset=lambda rewards_NG, valid_NG: valid_NG & first_NG)
    batch, update = make_batch(BAG_OF_WORDS, params), grpo.jit_update(BAG_OF_WORDS, optimizer, objective)

    def updated(valid_NG):
        state = grpo.create_state(jax.tree.map(jnp.array, params), optimizer, objective)
        return update(state, batch._replace(valid_NG=valid_NG), make_standing(), 1.0)

    all_NG = np.ones((N, G), bool)
    (state, feedback), (alone, _) = updated(all_NG), updated(all_NG & first_NG)
    assert np.abs(state.params["unembedding"] - params["unembedding"]).max() > 1e-3
    np.testing.assert_array_equal(state.params["unembedding"], alone.params["unembedding"])
    np.testing.assert_array_equal(feedback.passed_N, batch.passed_NG.sum(1))
    np.testing.assert_array_equal(feedback.low_N, batch.passed_NG.min(1))
    np.testing.assert_array_equal(feedback.high_N, batch.passed_NG.max(1))
    np.testing.assert_array_equal(feedback.total_N, G * batch.checks_N)
