"""One decoder (Flax NNX, Qwen3 architecture) with a group-shared forward, prefill and extend.

The G rollouts of a task share one prompt: it passes through the layers once per task, and the
suffixes attend to its keys and values.  Layers are stacked; the update and the prefill scan them, so
their compile time does not grow with depth.  `policy(config)` packs the decoder into the callables that rods_jax asks for.

Left out on purpose: other families and pretrained weights (the config has one shape for now),
sharding annotations.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from models import attention


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of a Qwen3-architecture decoder: grouped queries, query/key norm, SwiGLU, RoPE, tied embedding."""

    vocab_size: int
    layers: int
    width: int
    query_heads: int
    key_value_heads: int
    head_width: int
    feed_forward: int
    rope_theta: float = 1e6
    norm_epsilon: float = 1e-6
    rematerialize: bool = True  # recompute a layer's activations in the backward pass

    def __post_init__(self):
        if self.query_heads % self.key_value_heads:
            raise ValueError(
                f"model.query_heads must be a multiple of model.key_value_heads: "
                f"got {self.query_heads} and {self.key_value_heads}"
            )
        if self.head_width % 2:
            raise ValueError(f"model.head_width must be even for rotary positions: got {self.head_width}")


class Cache(NamedTuple):
    """Keys and values of a batch of episodes: prompts once per task, suffixes per rollout."""

    prompt_keys_LNKPE: jax.Array
    prompt_values_LNKPE: jax.Array
    prompt_lengths_N: jax.Array
    suffix_keys_NGKSE: tuple[jax.Array, ...]  # one array a layer, so that a decode step copies none of them
    suffix_values_NGKSE: tuple[jax.Array, ...]
    suffix_lengths_NG: jax.Array


class Layer(nnx.Module):
    """Pre-norm attention and SwiGLU; the caller owns the attention pattern."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        c = config
        group = c.query_heads // c.key_value_heads
        reader, writer = (
            c.width**-0.5,
            (2 * c.layers * c.width) ** -0.5,
        )  # writers smaller, so depth keeps the scale

        def weight(scale, *shape):
            return nnx.Param(scale * jax.random.normal(rngs.params(), shape))

        self.attention_norm = nnx.Param(jnp.ones(c.width))
        self.query = weight(reader, c.width, c.key_value_heads, group, c.head_width)
        self.key = weight(reader, c.width, c.key_value_heads, c.head_width)
        self.value = weight(reader, c.width, c.key_value_heads, c.head_width)
        # The sharpest attention of a fresh policy is that of 128-wide heads, however narrow its own are.
        self.query_norm = nnx.Param(jnp.full(c.head_width, (128 / c.head_width) ** 0.5, jnp.float32))
        self.key_norm = nnx.Param(jnp.ones(c.head_width))
        self.output = weight(writer, c.key_value_heads, group, c.head_width, c.width)
        self.feed_forward_norm = nnx.Param(jnp.ones(c.width))
        self.gate = weight(reader, c.width, c.feed_forward)
        self.up = weight(reader, c.width, c.feed_forward)
        self.down = weight(writer, c.feed_forward, c.width)

    def __call__(self, config: DecoderConfig, x_NGTD, positions_NGT, attend):
        """Returns the layer's output and the new keys and values; `attend(q, k, v)` is the pattern."""
        epsilon = config.norm_epsilon
        h = rms_norm(x_NGTD, self.attention_norm[...], epsilon)
        q = _heads_first(_linear(h, self.query[...]))
        k = _heads_first(_linear(h, self.key[...])[..., None, :])
        v = _heads_first(_linear(h, self.value[...])[..., None, :])[:, :, :, 0]
        q = attention.rotate(rms_norm(q, self.query_norm[...], epsilon), positions_NGT, config.rope_theta)
        k = attention.rotate(rms_norm(k, self.key_norm[...], epsilon), positions_NGT, config.rope_theta)[
            :, :, :, 0
        ]
        attended = jnp.moveaxis(attend(q * config.head_width**-0.5, k, v), 4, 2)  # [N,G,T,K,Q,E]
        x = x_NGTD + _linear(attended.reshape(*x_NGTD.shape[:3], -1), self.output[...].reshape(-1, config.width))
        h = rms_norm(x, self.feed_forward_norm[...], epsilon)
        return x + _linear(jax.nn.silu(_linear(h, self.gate[...])) * _linear(h, self.up[...]), self.down[...]), (
            k,
            v,
        )


class Decoder(nnx.Module):
    """Embedding, stacked layers, final norm; the embedding is also the output projection."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        self.config = config
        # Large enough to stay audible in the residual stream: small policies copy words by their identity.
        shape = (config.vocab_size, config.width)
        self.embedding = nnx.Param(0.1 * jax.random.normal(rngs.params(), shape))

        @nnx.split_rngs(splits=config.layers)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def stacked(rngs):
            return Layer(config, rngs)

        self.layers = stacked(rngs)
        self.final_norm = nnx.Param(jnp.ones(config.width))

    def forward(self, prompt_tokens_NP, prompt_lengths_N, suffix_tokens_NGS):
        """Hidden states that predict each suffix token, `[N,G,S,D]`; equal to the unshared computation."""
        prompt_positions = _positions(prompt_tokens_NP[:, None])
        suffix_positions = prompt_lengths_N[:, None, None] + _positions(suffix_tokens_NGS)
        visible_NP = prompt_positions[:, 0] < prompt_lengths_N[:, None]
        causal_prompt = attention.causal_mask(prompt_tokens_NP.shape[1], prompt_tokens_NP[:, None].shape[:2])
        causal_suffix = attention.causal_mask(suffix_tokens_NGS.shape[2], suffix_tokens_NGS.shape[:2])

        def step(layer, carry, _):
            prompt, suffix = carry
            prompt, (pk, pv) = layer(self.config, prompt, prompt_positions, _own(causal_prompt))

            def attend(q, k, v):
                blocks = attention.Shared(pk[:, 0], pv[:, 0], visible_NP), attention.Own(k, v, causal_suffix)
                return attention.attend(q, blocks)

            suffix, _ = layer(self.config, suffix, suffix_positions, attend)
            return (prompt, suffix), None

        carry = self._embed(prompt_tokens_NP[:, None]), self._embed(suffix_tokens_NGS)
        (prompt, suffix), _ = self._scan(step, carry, None, rematerialize=self.config.rematerialize)
        # The prompt's last token predicts the first suffix token, and suffix token s predicts s + 1.
        first = jnp.broadcast_to(_at(prompt, prompt_lengths_N[:, None] - 1)[:, :, None], suffix[:, :, :1].shape)
        return self._normalize(jnp.concatenate([first, suffix[:, :, :-1]], axis=2))

    def prefill(self, prompt_tokens_NP, prompt_lengths_N, group_size: int, suffix_capacity: int):
        """Runs each prompt once: (hidden_ND of its last token, cache for `group_size` rollouts)."""
        positions = _positions(prompt_tokens_NP[:, None])
        causal = attention.causal_mask(prompt_tokens_NP.shape[1], prompt_tokens_NP[:, None].shape[:2])

        def step(layer, x, _):
            return layer(self.config, x, positions, _own(causal))

        x, (keys, values) = self._scan(step, self._embed(prompt_tokens_NP[:, None]), None)
        c, (n, _) = self.config, prompt_tokens_NP.shape
        shape = n, group_size, c.key_value_heads, suffix_capacity, c.head_width
        keys_NGKSE, values_NGKSE = (tuple(jnp.zeros(shape, keys.dtype) for _ in range(c.layers)) for _ in range(2))
        lengths_NG = jnp.zeros((n, group_size), jnp.int32)
        cache = Cache(keys[:, :, 0], values[:, :, 0], prompt_lengths_N, keys_NGKSE, values_NGKSE, lengths_NG)
        return self._normalize(_at(x, prompt_lengths_N[:, None] - 1)[:, 0]), cache

    def extend(self, cache: Cache, tokens_NGT, lengths_NG):
        """Appends `lengths_NG` of the T tokens to each rollout: (hidden_NGTD, cache). Length 0 leaves a row as it was."""
        offsets = _positions(tokens_NGT)
        slots = cache.suffix_lengths_NG[..., None] + offsets
        positions = cache.prompt_lengths_N[:, None, None] + slots
        capacity = cache.suffix_keys_NGKSE[0].shape[3]
        visible_NP = jnp.arange(cache.prompt_keys_LNKPE.shape[3])[None] < cache.prompt_lengths_N[:, None]
        written = jnp.arange(capacity)[None, None] < cache.suffix_lengths_NG[..., None]
        written_NGTS = jnp.broadcast_to(written[:, :, None], (*tokens_NGT.shape, capacity))
        causal = attention.causal_mask(tokens_NGT.shape[2], tokens_NGT.shape[:2])
        # Slots past a row's length fall outside the cache and are dropped by the scatter.
        slots = jnp.where(offsets < lengths_NG[..., None], slots, capacity)
        n, g = (axis[..., None] for axis in jnp.indices(lengths_NG.shape))

        def write(stored_NGKSE, new_NGKTE):
            return stored_NGKSE.at[n, g, :, slots].set(jnp.moveaxis(new_NGKTE, 3, 2), mode="drop")

        x, keys, values = self._embed(tokens_NGT), [], []
        graph, parameters = nnx.split(self.layers)
        for index in range(self.config.layers):
            shared = attention.Shared(cache.prompt_keys_LNKPE[index], cache.prompt_values_LNKPE[index], visible_NP)
            stored = cache.suffix_keys_NGKSE[index], cache.suffix_values_NGKSE[index]

            def attend(q, k, v):
                return attention.attend(
                    q, (shared, attention.Own(*stored, written_NGTS), attention.Own(k, v, causal))
                )

            layer = nnx.merge(graph, jax.tree.map(lambda p: p[index], parameters))
            x, (new_keys, new_values) = layer(self.config, x, positions, attend)
            keys.append(write(stored[0], new_keys))
            values.append(write(stored[1], new_values))
        cache = cache._replace(
            suffix_keys_NGKSE=tuple(keys),
            suffix_values_NGKSE=tuple(values),
            suffix_lengths_NG=cache.suffix_lengths_NG + lengths_NG,
        )
        return self._normalize(x), cache

    def _embed(self, tokens):
        return jnp.take(self.embedding[...], tokens, axis=0)

    def _normalize(self, x):
        return rms_norm(x, self.final_norm[...], self.config.norm_epsilon)

    def _scan(self, step, carry, xs, rematerialize: bool = False):
        graph, parameters = nnx.split(self.layers)

        def body(carry, layer_and_x):
            layer, x = layer_and_x
            return step(nnx.merge(graph, layer), carry, x)

        if rematerialize:
            body = jax.checkpoint(body, policy=jax.checkpoint_policies.save_only_these_names(attention.SAVED))
        return jax.lax.scan(body, carry, (parameters, xs))


def rms_norm(x, scale, epsilon: float):
    """x / sqrt(mean(x^2) + epsilon) * scale over the last axis, in float32."""
    x32 = x.astype(jnp.float32)
    normal = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + epsilon)
    return (normal * scale.reshape((1,) * (x.ndim - 1) + scale.shape)).astype(x.dtype)


def _linear(x, weight):
    """x [..., D] @ weight [D, ...], tokens flattened: one large matrix product, in the gradient too."""
    product = x.reshape(-1, x.shape[-1]) @ weight.reshape(weight.shape[0], -1)
    return product.reshape(*x.shape[:-1], *weight.shape[1:])


def _heads_first(x_NGTKQE):
    return jnp.moveaxis(x_NGTKQE, 2, 4)


def _own(mask):
    return lambda q, k, v: attention.attend(q, (attention.Own(k, v, mask),))


def _positions(tokens_NGT):
    return jnp.broadcast_to(jnp.arange(tokens_NGT.shape[2], dtype=jnp.int32)[None, None], tokens_NGT.shape)


def _at(x_NGTD, index_NG):
    """x[n, g, index[n, g]], `[N,G,D]`."""
    return jnp.take_along_axis(x_NGTD, index_NG[..., None, None], axis=2)[:, :, 0]
