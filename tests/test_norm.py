"""Root-mean-square normalisation: the equation and its gradient in float64, types, and shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.norm import rms_norm

EPSILON = 1e-2  # as large as some of the inputs, so that it counts


def inputs(*shape):
    rng = np.random.default_rng(len(shape))
    x, direction = rng.normal(size=shape), rng.normal(size=shape)
    return x * rng.choice([1e-3, 1.0, 30.0], size=(*shape[:-1], 1)), rng.normal(size=shape[-1]), direction


def derivatives(x, scale, direction):
    output, pull = jax.vjp(lambda x, scale: rms_norm(x, scale, EPSILON), x, scale)
    return output, *pull(direction.astype(output.dtype))


def reference(x, scale, direction):
    """(output, gradients), from the quotient's derivative by x_j: (d_ij - x_i x_j / (D (m + epsilon))) scale_i."""
    size = x.shape[-1]
    mean = np.mean(x**2, axis=-1, keepdims=True) + EPSILON
    jacobian = np.eye(size) - x[..., :, None] * x[..., None, :] / (size * mean[..., None])
    d_x = np.einsum("...i,...ij->...j", direction * scale, jacobian) / np.sqrt(mean)
    normal = x / np.sqrt(mean)
    return normal * scale, d_x, np.sum(direction * normal, axis=tuple(range(x.ndim - 1)))


@pytest.mark.parametrize("shape", [(7,), (300, 5), (2, 3, 4, 2, 2, 8)])
def test_value_and_gradients_are_those_of_float64(shape):
    given = inputs(*shape)
    found = jax.jit(derivatives)(*(np.float32(x) for x in given))
    for x, expected in zip(found, reference(*given), strict=True):
        assert x.dtype == jnp.float32
        np.testing.assert_allclose(x, expected, atol=3e-6 * np.abs(expected).max(), rtol=3e-6)


def test_sixteen_bits_are_normalised_in_float32():
    given = [jnp.asarray(x, jnp.bfloat16).astype(jnp.float32) for x in inputs(40, 64)]
    x, scale, direction = given
    half = derivatives(x.astype(jnp.bfloat16), scale, direction)
    assert [x.dtype for x in half] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]
    for found, expected in zip(half, derivatives(*given), strict=True):
        # One rounding to 8 bits at the end; a sum of squares in 16 bits would be a percent off.
        np.testing.assert_allclose(np.float32(found), expected, rtol=2**-8, atol=1e-5)


def test_zeros_stay_zero_and_their_gradient_is_finite():
    output, d_x, d_scale = derivatives(jnp.zeros((2, 4)), jnp.ones(4), jnp.ones((2, 4)))
    assert not np.any(output) and not np.any(d_scale)
    np.testing.assert_allclose(d_x, np.full((2, 4), EPSILON**-0.5), rtol=1e-6)
