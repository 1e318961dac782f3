"""Keys of seeds of any size: small ones are JAX's own, large ones differ from each other in every digit."""

import jax
import numpy as np
import pytest

from rods_jax.generation import rollout_keys
from rods_jax.keys import seed_key


@pytest.mark.parametrize("seed", [0, 7, 2**31 - 1])
def test_a_small_seed_has_the_bits_that_it_always_had(seed):
    np.testing.assert_array_equal(jax.random.key_data(seed_key(seed)), jax.random.key_data(jax.random.key(seed)))


def test_large_seeds_are_told_apart():
    seeds = [2**31 - 1, 2**31, 2**31 + 1, 2**32, 2**32 + 1, 2**62, 2**63, 20261129143005, 10**40, 10**40 + 1]
    keys = {tuple(jax.random.key_data(seed_key(seed)).tolist()) for seed in seeds}
    assert len(keys) == len(seeds)


def test_rollouts_take_a_date_as_their_seed():
    keys = [jax.random.key_data(rollout_keys(seed, 3, ["a", "b"], 2)) for seed in (20261129143005, 20261129143006)]
    assert (keys[0] != keys[1]).any()
    np.testing.assert_array_equal(keys[0], jax.random.key_data(rollout_keys(20261129143005, 3, ["a", "b"], 2)))
