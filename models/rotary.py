"""Rotary position embedding, halves convention (as in the Hugging Face checkpoints), with Llama 3's scaling.

Left out on purpose: linear, dynamic and YaRN scaling, which none of the supported families needs.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's: wavelengths above positions / low grow `factor` times; those below positions / high do not change."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_positions: int


def frequencies(width: int, theta: float, scaling: RopeScaling | None = None) -> jax.Array:
    """Radians per position of each pair of a head, `[E/2]` float32: theta^(-2i/E), scaled between two wavelengths."""
    half = width // 2
    frequency_e = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    if scaling is None:
        return frequency_e
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    turns_e = scaling.original_positions * frequency_e / (2 * math.pi)
    kept_e = jnp.clip((turns_e - low) / (high - low), 0.0, 1.0)
    return kept_e * frequency_e + (1 - kept_e) * frequency_e / scaling.factor


def rotation(positions_NGT, frequency_e: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(sin, cos) of every position's rotation angles, `[N,G,T,1,1,E/2]`; computed once for all layers."""
    angle_NGTe = positions_NGT[..., None].astype(jnp.float32) * frequency_e[None, None, None]
    sin, cos = (f(angle_NGTe)[:, :, :, None, None] for f in (jnp.sin, jnp.cos))
    return sin, cos


def rotate(x_NGTKQE, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turns each pair (i, i + E/2) of a head by its position's angle, in float32."""
    sin, cos = rotation
    first, second = jnp.split(x_NGTKQE.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_NGTKQE.dtype)
