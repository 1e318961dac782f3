"""Keys of JAX from the seed of a run, a number of any size."""

import jax
import numpy as np

DIGIT = 2**31
MORE = np.uint32(2**32 - 1)  # folded in before each further digit; no step or task is this number


def seed_key(seed: int) -> jax.Array:
    """The key of a seed, which must not be negative; below 2**31 it is `jax.random.key(seed)`.

    A larger one is read as digits to the base 2**31: the lowest makes the key, the others are folded in.
    """
    key = jax.random.key(seed % DIGIT)
    while seed := seed // DIGIT:
        key = jax.random.fold_in(jax.random.fold_in(key, MORE), seed % DIGIT)
    return key
