"""One decoder (Flax NNX) for Qwen3, Qwen2.5 and Llama 3, with a group-shared forward, prefill and extend.

The G rollouts of a task share one prompt.  The prompt passes through the layers once per task, and the suffixes attend
to its keys and values.  The update joins prompts and suffixes in one array: a projection and its gradient are then one
matrix product each, and only attention tells the two apart.  Layers are stacked.  The update and the prefill scan them,
so compile time does not grow with depth.  Families differ only in the fields of `DecoderConfig`.  There are no sliding
windows and no mixtures of experts.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from . import attention, rotary
from .layout import Layout, for_few, for_prompts, for_rows, gathered, rows_of
from .norm import rms_norm
from .rotary import RopeScaling

# A layer's projections, and how many of a weight's leading axes are inputs.
PROJECTIONS = {"query": 1, "key": 1, "value": 1, "output": 3, "gate": 1, "up": 1, "down": 1}


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters y = W x + alpha / rank B A x beside some projections (arXiv 2106.09685)."""

    rank: int
    alpha: float
    targets: tuple[str, ...] = tuple(PROJECTIONS)

    def __post_init__(self):
        if self.rank < 1:
            raise ValueError(f"model.lora.rank must be at least 1: got {self.rank}")
        if not self.targets or not set(self.targets) <= set(PROJECTIONS):
            raise ValueError(f"model.lora.targets must be some of {tuple(PROJECTIONS)}: got {self.targets}")


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of a decoder: grouped queries, SwiGLU, RoPE; the defaults are Qwen3's."""

    vocab_size: int
    layers: int
    width: int
    query_heads: int
    key_value_heads: int
    head_width: int
    feed_forward: int
    rope_theta: float = 1e6
    rope_scaling: RopeScaling | None = None  # Llama 3.1 and later
    norm_epsilon: float = 1e-6
    query_key_norm: bool = True  # Qwen3
    query_key_value_bias: bool = False  # Qwen2.5
    tied_embedding: bool = True  # the embedding is also the output projection
    max_positions: int | None = None  # prompt and suffix together
    compute_dtype: str = "float32"  # of activations and caches; parameters keep their own
    keep: tuple[str, ...] = ()  # projections kept for the backward pass, beside attention; the rest is recomputed
    lora: LoraConfig | None = None

    def __post_init__(self):
        for name in ("layers", "width", "query_heads", "key_value_heads", "head_width", "feed_forward", "vocab_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be above 0: got {getattr(self, name)}")
        if (q := self.query_heads) % (k := self.key_value_heads):
            raise ValueError(f"model.query_heads must be a multiple of model.key_value_heads: got {q} and {k}")
        if self.head_width % 2:
            raise ValueError(f"model.head_width must be even for rotary positions: got {self.head_width}")
        if self.compute_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"model.compute_dtype must be float32 or bfloat16: got {self.compute_dtype}")
        if not set(self.keep) <= set(PROJECTIONS):
            raise ValueError(f"model.keep must be some of {tuple(PROJECTIONS)}: got {self.keep}")


# Axes of the parameters; a layer's parameter has the stacked axis before these.
EMBEDDING_AXES = {"embedding": "VD", "unembedding": "VD", "final_norm": "-"}
LAYER_AXES = {
    "query": "DKQE", "key": "DKE", "value": "DKE", "output": "KQED", "gate": "DF", "up": "DF", "down": "FD",
    "query_bias": "KQE", "key_bias": "KE", "value_bias": "KE", "query_norm": "-", "key_norm": "-",
    "attention_norm": "-", "feed_forward_norm": "-",
}  # fmt: skip
_PART_AXES = {
    attention.Shared: ("NH-E", "NH-E", "N"),
    attention.Own: ("NGH-E", "NGH-E", "NG-"),
    attention.Causal: ("NGH-E", "NGH-E"),
}


def parameter_axes(path: tuple[str, ...]) -> str:
    """One letter for each axis of the parameter at `path`, "-" for the stacked one; adapters' rank is never cut."""
    if path[0] != "layers":
        return EMBEDDING_AXES[path[0]]
    name, _, adapter = path[1].partition("_lora_")
    axes, inputs = LAYER_AXES[name], PROJECTIONS.get(name)
    return "-" + {"": axes, "a": axes[:inputs] + "-", "b": "-" + axes[inputs:]}[adapter]


class Prompts(NamedTuple):
    """KV cache of the prompts, once per task: one array per layer, so that a decode step copies none of them."""

    keys_NKPE: tuple[jax.Array, ...]
    values_NKPE: tuple[jax.Array, ...]
    lengths_N: jax.Array


class Suffixes(NamedTuple):
    """KV cache of the suffixes, one per rollout; the caller keeps their lengths."""

    keys_NGKSE: tuple[jax.Array, ...]
    values_NGKSE: tuple[jax.Array, ...]


class Layer(nnx.Module):
    """Pre-norm attention and SwiGLU; the caller owns the attention pattern."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        c = config
        group = c.query_heads // c.key_value_heads
        # `down` writes into the residual stream and starts smaller, so that the scale does not grow with depth.
        reader, writer = c.width**-0.5, (2 * c.layers * c.width) ** -0.5

        def weight(scale, *shape):
            return nnx.Param(scale * jax.random.normal(rngs.params(), shape))

        self.attention_norm = nnx.Param(jnp.ones(c.width))
        # Queries start near their keys, and the output as the value's transpose. A fresh policy then attends to similar
        # tokens and repeats them; it learns to copy in a third of the steps (docs/log/quickstart.md).
        self.key = weight(reader, c.width, c.key_value_heads, c.head_width)
        own = weight(reader * 0.5**0.5, c.width, c.key_value_heads, group, c.head_width)
        self.query = nnx.Param(0.5**0.5 * self.key[...][:, :, None] + own[...])
        self.value = weight(reader, c.width, c.key_value_heads, c.head_width)
        self.output = nnx.Param(jnp.repeat(2 * jnp.moveaxis(self.value[...], 0, 2)[:, None], group, axis=1))
        self.feed_forward_norm = nnx.Param(jnp.ones(c.width))
        self.gate = weight(reader, c.width, c.feed_forward)
        self.up = weight(reader, c.width, c.feed_forward)
        self.down = weight(writer, c.feed_forward, c.width)
        if c.query_key_norm:
            # The largest score of a fresh policy is then that of heads of width 128, whatever its own head width.
            self.query_norm = nnx.Param(jnp.full(c.head_width, (128 / c.head_width) ** 0.5, jnp.float32))
            self.key_norm = nnx.Param(jnp.ones(c.head_width))
        if c.query_key_value_bias:
            self.query_bias = nnx.Param(jnp.zeros((c.key_value_heads, group, c.head_width)))
            self.key_bias = nnx.Param(jnp.zeros((c.key_value_heads, c.head_width)))
            self.value_bias = nnx.Param(jnp.zeros((c.key_value_heads, c.head_width)))
        # B starts at zero, so that a fresh adapter changes nothing.
        if c.lora:
            for name in c.lora.targets:
                shape, inputs = getattr(self, name).shape, PROJECTIONS[name]
                scale = math.prod(shape[:inputs]) ** -0.5
                setattr(self, f"{name}_lora_a", weight(scale, *shape[:inputs], c.lora.rank))
                setattr(self, f"{name}_lora_b", nnx.Param(jnp.zeros((c.lora.rank, *shape[inputs:]))))

    def ready(self, config: DecoderConfig, layout: Layout) -> dict[str, jax.Array]:
        """Weights in the compute dtype, gathered along the width; for few tokens they stay cut."""

        def use(name):
            axes, weight = parameter_axes(("layers", name))[1:], getattr(self, name)[...]
            whole = axes.replace("D", "-") if layout.weights_move else axes
            return gathered(weight.astype(config.compute_dtype), axes, whole, layout)

        biases = [f"{name}_bias" for name in ("query", "key", "value") if config.query_key_value_bias]
        adapters = [f"{name}_lora_{x}" for name in (config.lora.targets if config.lora else ()) for x in "ab"]
        return {name: use(name) for name in (*PROJECTIONS, *biases, *adapters)}

    def __call__(self, config: DecoderConfig, ready, x_NGTD, rotation, attend, layout: Layout):
        """(the layer's output, what `attend` keeps); attend(q_NGTKQE, k_NGTKE, v_NGTKE) -> (attended_NGTKQE, kept)."""
        linear = partial(_linear, merge=not layout.cut_tokens)

        def normalize(name, x):
            return rms_norm(x, getattr(self, name)[...], config.norm_epsilon)

        def project(name, x):
            # W x, then its bias, then the low-rank adapter.
            inputs = PROJECTIONS[name]
            y = linear(x, ready[name], inputs)
            if (bias := ready.get(f"{name}_bias")) is not None:
                y += bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)
            if config.lora and f"{name}_lora_a" in ready:
                low = linear(x, ready[f"{name}_lora_a"], inputs)
                y += linear(low, ready[f"{name}_lora_b"], 1) * (config.lora.alpha / config.lora.rank)
            return checkpoint_name(y, name)

        # Attention on the normalised input; its result is added to the residual stream.
        h = normalize("attention_norm", x_NGTD)
        q, k, v = project("query", h), project("key", h), project("value", h)
        if config.query_key_norm:
            q, k = normalize("query_norm", q), normalize("key_norm", k)
        q, k = rotary.rotate(q, rotation), rotary.rotate(k[..., None, :], rotation)[..., 0, :]
        attended, kept = attend(q * config.head_width**-0.5, k, v)
        x = layout.constrain(x_NGTD + project("output", attended), "NGT-")
        # SwiGLU on the normalised result; it is added likewise.
        h = normalize("feed_forward_norm", x)
        h = layout.constrain(jax.nn.silu(project("gate", h)) * project("up", h), "NGTF")
        return layout.constrain(x + project("down", h), "NGT-"), kept


class Decoder(nnx.Module):
    """Embedding, stacked layers, final norm, and an output projection where the embedding is not it."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs, layout: Layout = Layout()):
        self.config, self.layout, self._prompts = config, layout, for_prompts(layout)
        # Embeddings start large enough to persist in the residual stream: small policies copy words by identity.
        shape = (config.vocab_size, config.width)
        self.embedding = nnx.Param(0.1 * jax.random.normal(rngs.params(), shape))

        @nnx.split_rngs(splits=config.layers)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def stacked(rngs):
            return Layer(config, rngs)

        self.layers = stacked(rngs)
        self.final_norm = nnx.Param(jnp.ones(config.width))
        if not config.tied_embedding:
            self.unembedding = nnx.Param(config.width**-0.5 * jax.random.normal(rngs.params(), shape))

    def forward(self, prompt_tokens_NP, prompt_lengths_N, suffix_tokens_NGS):
        """Hidden states that predict each suffix token, `[N,G,S,D]`; equal to the unshared computation."""
        self._check_positions(prompt_tokens_NP.shape[1] + suffix_tokens_NGS.shape[2])
        # Prompts and suffixes side by side in one array; a suffix's positions begin where its prompt ends.
        rows = rows_of(prompt_tokens_NP.shape, suffix_tokens_NGS.shape, self.layout)
        layout = for_rows(self.layout)
        prompt_tokens = jnp.pad(prompt_tokens_NP, [(0, 0), (0, rows.prompt - prompt_tokens_NP.shape[1])])[:, None]
        suffix_positions = prompt_lengths_N[:, None, None] + _positions(suffix_tokens_NGS)
        rotation = self._rotation(rows.join(_positions(prompt_tokens), suffix_positions))

        def attend(q, k, v):
            # A prompt attends to itself; a suffix to its prompt and to itself.
            prompts, (q, k, v) = zip(*(rows.apart(x) for x in (q, k, v)))
            prompt, (prompt_keys, prompt_values) = self._causal(*prompts)
            shared = attention.Shared(prompt_keys[:, 0], prompt_values[:, 0], prompt_lengths_N)
            suffix, _ = self._attend(q, k, v, lambda k, v: (shared, attention.Causal(k, v)), self.layout)
            return rows.join(prompt, suffix), None

        def step(layer, x, _):
            return layer(self.config, layer.ready(self.config, layout), x, rotation, attend, layout)

        x = self._embed(rows.join(prompt_tokens, suffix_tokens_NGS), layout)
        x, _ = self._scan(step, x, None, keep=(attention.SAVED, *self.config.keep))
        prompt, suffix = rows.apart(x)
        # The prompt's last token predicts the first suffix token, and suffix token s predicts s + 1.
        first = jnp.broadcast_to(_at(prompt, prompt_lengths_N[:, None] - 1)[:, :, None], suffix[:, :, :1].shape)
        hidden = jnp.concatenate([first, suffix[:, :, :-1]], axis=2)
        return self._normalize(self.layout.constrain(hidden, "NGT-"))

    def prefill(self, prompt_tokens_NP, prompt_lengths_N, suffix_tokens: int):
        """Runs each prompt once: (hidden_ND of its last token, Prompts).  At most `suffix_tokens` may follow."""
        self._check_positions(prompt_tokens_NP.shape[1] + suffix_tokens)
        rotation = self._rotation(_positions(prompt_tokens_NP[:, None]))

        def step(layer, x, _):
            ready = layer.ready(self.config, self.layout)
            return layer(self.config, ready, x, rotation, self._causal, self._prompts)

        # Each prompt passes through all layers, as the only rollout of its task.
        x, kept = self._scan(step, self._embed(prompt_tokens_NP[:, None], self._prompts), None)
        # The scan stacks the layers' caches: take them apart, and drop the axis of rollouts.
        keys, values = (tuple(self.layout.constrain(x, "NH-E") for x in stacked[:, :, 0]) for stacked in kept)
        return self._normalize(_at(x, prompt_lengths_N[:, None] - 1)[:, 0]), Prompts(keys, values, prompt_lengths_N)

    def empty(self, num_tasks: int, group_size: int, capacity: int) -> Suffixes:
        """Caches with room for `capacity` tokens of every rollout."""
        c = self.config
        shape = num_tasks, group_size, c.key_value_heads, capacity, c.head_width

        def room():
            return tuple(self.layout.constrain(jnp.zeros(shape, c.compute_dtype), "NGH-E") for _ in range(c.layers))

        return Suffixes(room(), room())

    def extend(self, prompts: Prompts, suffixes: Suffixes, seen_NG, tokens_NGT, lengths_NG, rows_NC=None):
        """Appends `lengths_NG` of the T tokens to rollouts that hold `seen_NG`: (hidden_NGTD, Suffixes).

        Length 0 leaves a row unchanged.  rows_NC: only these rows are extended, and all other arguments have C for G.
        Column c's row is one of the G / C rows from c * G / C on, so that each device finds its own.
        """
        offsets = _positions(tokens_NGT)
        places = seen_NG[..., None] + offsets
        rotation = self._rotation(prompts.lengths_N[:, None, None] + places)
        capacity = suffixes.keys_NGKSE[0].shape[3]
        # Tokens past a row's length get a slot outside the cache, and the scatter drops them.
        slots = jnp.where(offsets < lengths_NG[..., None], places, capacity)[:, :, None]
        n, g, k = (axis[..., None] for axis in jnp.indices((*lengths_NG.shape, self.config.key_value_heads)))

        def write(stored_NGKSE, new_NGKTE):
            """(the whole cache with new entries, the rows of it that are extended)."""
            # Heads are indexed, not sliced: a TPU then writes a token in place and never copies the cache.
            if rows_NC is None:
                stored = stored_NGKSE.at[n, g, k, slots].set(new_NGKTE, mode="drop")
                stored = self.layout.constrain(stored, "NGH-E")
                return stored, stored
            # [N, C, G/C, ...]: a mesh that cuts rollouts cuts C, and each device chooses among its own rows.
            columns = stored_NGKSE.reshape(*rows_NC.shape, -1, *stored_NGKSE.shape[2:])
            which_NC = rows_NC % columns.shape[2]
            columns = columns.at[n, g, which_NC[..., None, None], k, slots].set(new_NGKTE, mode="drop")
            chosen = jnp.take_along_axis(columns, which_NC.reshape(*which_NC.shape, 1, 1, 1, 1), axis=2)[:, :, 0]
            stored = self.layout.constrain(columns.reshape(stored_NGKSE.shape), "NGH-E")
            return stored, self.layout.constrain(chosen, "NGH-E")

        # Few tokens travel to the weights; for many tokens the weights are gathered.
        layout = for_few(self.layout) if tokens_NGT.size <= self.config.width else self.layout
        x, keys, values = self._embed(tokens_NGT, layout), [], []
        # A loop over the layers, not a scan: each layer's cache is an array of its own, and none is copied.
        graph, parameters = nnx.split(self.layers)
        for index in range(self.config.layers):
            shared = attention.Shared(prompts.keys_NKPE[index], prompts.values_NKPE[index], prompts.lengths_N)

            def parts(k, v):
                # Write before attention reads: to read first would copy the whole cache for every token.
                stored_keys, own_keys = write(suffixes.keys_NGKSE[index], k)
                stored_values, own_values = write(suffixes.values_NGKSE[index], v)
                keys.append(stored_keys)
                values.append(stored_values)
                return shared, attention.Own(own_keys, own_values, places + 1)

            def attend(q, k, v):
                return self._attend(q, k, v, parts, layout)

            layer = nnx.merge(graph, jax.tree.map(lambda p: _unstacked(p[index]), parameters))
            x, _ = layer(self.config, layer.ready(self.config, layout), x, rotation, attend, layout)
        return self._normalize(x), Suffixes(tuple(keys), tuple(values))

    def _rotation(self, positions_NGT):
        c = self.config
        return rotary.rotation(positions_NGT, rotary.frequencies(c.head_width, c.rope_theta, c.rope_scaling))

    def _check_positions(self, needed: int):
        most = self.config.max_positions
        if most is not None and needed > most:
            raise ValueError(f"prompt and suffix together need {needed} positions, and the model has {most}")

    def _attend(self, q_NGTKQE, k_NGTKE, v_NGTKE, parts, layout: Layout):
        """(attention over `parts(keys, values)`, tokens first; the tokens' own keys and values, heads first)."""
        # Before and after attention, arrays are cut by tokens. The exchange of tokens for heads then happens here, in
        # the compute dtype and in both passes. Else the projections' gradients would gather whole sequences.
        q = layout.constrain(_heads_first(q_NGTKQE), "NGKQT-")
        k, v = (layout.constrain(_heads_first(x), "NGKT-") for x in (k_NGTKE, v_NGTKE))
        parts = parts(k, v)
        axes = tuple(type(part)(*_PART_AXES[type(part)]) for part in parts)
        # Tasks, rollouts and heads are independent, so each device attends by itself.
        attend = layout.local(layout.attend, ("NGHQ-E", axes), "NGHQ-E")
        return jnp.moveaxis(layout.constrain(attend(q, parts), "NGKQT-"), -2, 2), (k, v)

    def _causal(self, q, k, v):
        return self._attend(q, k, v, lambda k, v: (attention.Causal(k, v),), self._prompts)

    def _embed(self, tokens, layout: Layout):
        x = jnp.take(self.embedding[...].astype(self.config.compute_dtype), tokens, axis=0)
        # Each device looks up its part of the width for all tokens. It then exchanges that, one mesh axis at a time,
        # for the whole width of its own tokens. So no device gathers the table or its gradient.
        for axes in ("---D", "-GTD", "NGT-"):
            x = layout.constrain(x, axes)
        return x

    def _normalize(self, x):
        return rms_norm(x, self.final_norm[...], self.config.norm_epsilon)

    def _scan(self, step, carry, xs, keep: tuple[str, ...] | None = None):
        """Scans the layers; the backward pass recomputes what `keep` does not name (None: it recomputes nothing)."""
        graph, parameters = nnx.split(self.layers)

        def body(carry, layer_and_x):
            layer, x = layer_and_x
            return step(nnx.merge(graph, layer), carry, x)

        if keep is not None:
            body = jax.checkpoint(body, policy=jax.checkpoint_policies.save_only_these_names(*keep))
        return jax.lax.scan(body, carry, (parameters, xs))


def _linear(x, weight, inputs: int, merge: bool):
    """x [..., *inputs] @ weight [*inputs, ...]; merged tokens make one large matrix product, in the gradient too."""
    if not merge:
        return jnp.tensordot(x, weight, axes=inputs)
    width, tokens = math.prod(weight.shape[:inputs]), x.shape[: x.ndim - inputs]
    product = x.reshape(-1, width) @ weight.reshape(width, -1)
    return product.reshape(*tokens, *weight.shape[inputs:])


@jax.jit
def _unstacked(weight):
    """A layer's weight.  The barrier makes a CPU copy it once, before the decode loop, and not for every token."""
    return jax.lax.platform_dependent(weight, cpu=jax.lax.optimization_barrier, default=lambda weight: weight)


def _heads_first(x_NGTKE):
    return jnp.moveaxis(x_NGTKE, 2, -2)


def _positions(tokens_NGT):
    return jnp.broadcast_to(jnp.arange(tokens_NGT.shape[2], dtype=jnp.int32)[None, None], tokens_NGT.shape)


def _at(x_NGTD, index_NG):
    """x[n, g, index[n, g]], `[N,G,D]`."""
    return jnp.take_along_axis(x_NGTD, index_NG[..., None, None], axis=2)[:, :, 0]
