"""FLOPs, bytes and memory of a step, counted from shapes.

The compiler's own count misses kernels and counts a loop's body once.  A FLOP is one addition or multiplication, so a
product of [m,k] and [k,n] is 2mkn.  Only matrix products are counted: they are 99 % of a step.  Norms, rotations,
softmaxes and the optimizer's arithmetic are left out.
"""

from typing import Any, NamedTuple

import numpy as np

from .decoder import DecoderConfig


class Shape(NamedTuple):
    """A group-shared batch, full to its limits."""

    tasks: int  # N
    group_size: int  # G
    prompt: int  # P
    suffix: int  # S


class Flops(NamedTuple):
    """FLOPs of a step, by part: a mesh cuts each part differently."""

    prompt_layers: float  # projections and feed-forward of the shared prompts
    prompt_attention: float
    suffix_layers: float
    suffix_attention: float
    vocabulary: float

    @property
    def total(self) -> float:
        return sum(self)


def matrices(c: DecoderConfig) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of each of a layer's projections."""
    queries, keys = c.query_heads * c.head_width, c.key_value_heads * c.head_width
    return {
        "query": (c.width, queries), "key": (c.width, keys), "value": (c.width, keys), "output": (queries, c.width),
        "gate": (c.width, c.feed_forward), "up": (c.width, c.feed_forward), "down": (c.feed_forward, c.width),
    }  # fmt: skip


def layer_weights(c: DecoderConfig) -> int:
    """Elements of one layer's matrices."""
    return sum(inputs * outputs for inputs, outputs in matrices(c).values())


def parameters(c: DecoderConfig) -> int:
    """Elements of all parameters; adapters are not counted."""
    norms = 2 * c.width + 2 * c.head_width * c.query_key_norm
    biases = c.head_width * (c.query_heads + 2 * c.key_value_heads) * c.query_key_value_bias
    embeddings = c.vocab_size * c.width * (1 if c.tied_embedding else 2)
    return c.layers * (layer_weights(c) + norms + biases) + embeddings + c.width


def forward(c: DecoderConfig, shape: Shape, *, shared: bool = True, tile: int = 1) -> Flops:
    """One forward pass with log-probabilities of all suffix tokens.

    shared: each prompt passes once per task; else once per rollout, as frameworks without groups do.
    tile: tokens along a side of a causal pass's tiles.  Tiles on the diagonal are computed whole, so tile 1 gives what is
    needed.
    """
    n, g, p, s = shape
    prompts, suffixes = n * (1 if shared else g), n * g
    per_pair = 4 * c.layers * c.query_heads * c.head_width  # q k^T, then weights times v
    per_token = 2 * c.layers * layer_weights(c)
    return Flops(
        prompt_layers=per_token * prompts * p,
        prompt_attention=per_pair * prompts * p * (p + tile) / 2,
        suffix_layers=per_token * suffixes * s,
        suffix_attention=per_pair * suffixes * s * (p + (s + tile) / 2),
        vocabulary=2 * suffixes * s * c.width * c.vocab_size,
    )


def update(c: DecoderConfig, shape: Shape, *, reference: bool, shared: bool = True) -> Flops:
    """FLOPs that an update needs: the forward pass, the backward pass (twice as many), and the reference's forward pass.

    Frozen weights need no gradient.
    """
    attention = 3 + reference
    weights = attention - (c.lora is not None)
    passes = weights, attention, weights, attention, weights
    return Flops(*(a * b for a, b in zip(passes, forward(c, shape, shared=shared), strict=True)))


def played_step(c: DecoderConfig, prompts_N: Any, suffixes_NG: Any, *, reference: bool) -> float:
    """FLOPs that a step of these lengths needs: its rollouts, in which each token passes once, and its update.

    prompts_N, suffixes_NG: tokens, without padding; a prompt counts once per task.  Frozen weights need no gradient.
    """
    # A batch's lengths are int32, which products of the model's size pass.
    prompts_N, suffixes_NG = (np.asarray(lengths, np.float64) for lengths in (prompts_N, suffixes_NG))
    prompts = forward(c, Shape(1, 1, prompts_N, 0))
    suffixes = forward(c, Shape(1, 1, prompts_N[:, None], suffixes_NG))
    weights = np.sum(prompts.prompt_layers) + np.sum(suffixes.suffix_layers) + np.sum(suffixes.vocabulary)
    attention = np.sum(prompts.prompt_attention) + np.sum(suffixes.suffix_attention)
    # Rollout, forward pass, gradients of inputs (attention has two), gradients of weights, the reference.
    return float((3 + (c.lora is None) + reference) * weights + (4 + reference) * attention)


def executed_update(
    c: DecoderConfig, shape: Shape, *, reference: bool, tile: int, flash_attention: bool = False
) -> Flops:
    """FLOPs that the update executes: whole tiles, and what the backward pass recomputes.

    Attention has 2 products in the forward pass, and 5 in the backward pass, which recomputes the scores.  Flash
    attention has 7 there, because both of its kernels compute the scores and the weights' gradient.  A layer recomputes
    all products but `down` and those in `keep`.  The vocabulary's logits are recomputed.  Frozen weights get no gradient.
    """
    # The share of a layer's products that the backward pass recomputes.
    once = sum(inputs * outputs for name, (inputs, outputs) in matrices(c).items() if name in ("down", *c.keep))
    again = 1 - once / layer_weights(c)
    # In units of a forward pass: forward is 1, backward 2 (inputs, weights), then what is recomputed, then the reference's.
    attention, spared = (4.5 if flash_attention else 3.5) + reference, c.lora is not None
    layers, vocabulary = 3 + again + reference - spared, 4.0 + reference - spared
    passes = layers, attention, layers, attention, vocabulary
    return Flops(*(a * b for a, b in zip(passes, forward(c, shape, tile=tile), strict=True)))


def decode_step(c: DecoderConfig, shape: Shape) -> Flops:
    """FLOPs of one decode step: a token for every rollout, at a full suffix."""
    n, g, p, s = shape
    return Flops(
        prompt_layers=0.0,
        prompt_attention=4.0 * c.layers * c.query_heads * c.head_width * n * g * p,
        suffix_layers=2.0 * c.layers * layer_weights(c) * n * g,
        suffix_attention=4.0 * c.layers * c.query_heads * c.head_width * n * g * s,
        vocabulary=2.0 * n * g * c.width * c.vocab_size,
    )


def cache_bytes(c: DecoderConfig, shape: Shape) -> tuple[int, int]:
    """Bytes of the KV cache, (prompts, suffixes); a prompt is held once per task."""
    n, g, p, s = shape
    per_token = 2 * c.layers * c.key_value_heads * c.head_width * itemsize(c)
    return n * p * per_token, n * g * s * per_token


def activation_bytes(c: DecoderConfig, tokens: float) -> float:
    """Bytes of the operands and results of one forward pass's products, each counted once."""
    heads = c.head_width * (2 * c.query_heads + 2 * c.key_value_heads)
    per_token = 4 * c.width + 2 * heads + 4 * c.feed_forward
    return c.layers * tokens * per_token * itemsize(c)


def itemsize(c: DecoderConfig) -> int:
    """Bytes of one activation."""
    return {"float32": 4, "bfloat16": 2}[c.compute_dtype]


# ---------------------------------------------------------------------------------------- one device
class Cuts(NamedTuple):
    """The number of devices that share each part of a step, and each stored array."""

    prompts: int = 1  # tokens of the pass over prompts
    prompt_heads: int = 1  # tasks and heads, while prompts attend
    suffixes: int = 1  # tokens of suffixes
    suffix_heads: int = 1  # tasks, rollouts and heads, while suffixes attend
    prompt_cache: int = 1  # tasks and heads; not rollouts, because each rollout's device needs the prompt
    rows: int = 1  # tasks and rollouts
    tensor: int = 1  # a weight's heads or feed-forward
    vocabulary: int = 1  # logits
    stored: int = 1  # parameters, gradient, optimizer state


def on_device(parts: Flops, cuts: Cuts) -> Flops:
    """Each part over the devices that share it."""
    return Flops(
        prompt_layers=parts.prompt_layers / (cuts.prompts * cuts.tensor),
        prompt_attention=parts.prompt_attention / cuts.prompt_heads,
        suffix_layers=parts.suffix_layers / (cuts.suffixes * cuts.tensor),
        suffix_attention=parts.suffix_attention / cuts.suffix_heads,
        vocabulary=parts.vocabulary / cuts.vocabulary,
    )


class Held(NamedTuple):
    """Bytes that one device holds, by kind."""

    parameters: float = 0.0
    optimizer: float = 0.0
    reference: float = 0.0
    gradients: float = 0.0
    activations: float = 0.0
    caches: float = 0.0
    logits: float = 0.0

    @property
    def total(self) -> float:
        return sum(self)


def adapters(c: DecoderConfig) -> int:
    """Elements of all adapters."""
    if c.lora is None:
        return 0
    sizes = matrices(c)
    return c.layers * c.lora.rank * sum(sum(sizes[name]) for name in c.lora.targets)


def trained_parameters(c: DecoderConfig) -> int:
    """Elements of what trains: the adapters alone, or everything."""
    return adapters(c) or parameters(c)


def state(c: DecoderConfig, *, reference: bool, stored: int = 1) -> Held:
    """Bytes of a train state: float32 weights, AdamW's two moments, the reference, and with adapters a bfloat16 base."""
    trained = 4.0 * trained_parameters(c) / stored
    base = 0.0 if c.lora is None else 2.0 * parameters(c) / stored
    return Held(parameters=trained + base, optimizer=2 * trained, reference=trained * reference)


def update_bytes(c: DecoderConfig, shape: Shape, *, reference: bool, micro_batches: int, cuts: Cuts) -> float:
    """Bytes read from and written to one device's memory: weights, activations, logits, optimizer state.

    shape: of a micro-batch.  A pass reads weights and activations.  There are four: forward, the recomputed forward, and
    backward, which counts twice.  The reference's is a fifth.  The backward pass also writes a gradient.  Of frozen weights
    it has none, and counts once.
    """
    frozen = c.lora is not None
    passes = 4 + reference - frozen
    tokens = shape.tasks * (shape.prompt / cuts.prompts + shape.group_size * shape.suffix / cuts.suffixes)
    weights = parameters(c) / cuts.tensor * (passes + (not frozen)) * itemsize(c)
    activations = activation_bytes(c, tokens) / cuts.tensor * passes
    logits = shape.tasks * shape.group_size * shape.suffix * c.vocab_size / cuts.vocabulary * 4
    optimizer = 4.0 * trained_parameters(c) / cuts.stored * (7 + 2 * micro_batches)
    return micro_batches * (weights + activations + logits * (6 + 2 * reference)) + optimizer


def update_memory(c: DecoderConfig, shape: Shape, *, reference: bool, micro_batches: int, cuts: Cuts) -> Held:
    """Bytes that one device holds in an update: state, gradients, logits, kept activations, one layer's backward pass.

    The layer in its backward pass holds its activations and their gradients.  It also holds its own weights, weights
    that are fetched ahead, and a gradient of weights.  The compiler adds copies: updates compiled for
    TPUs took at most 21 % more.
    """
    # With several micro-batches, their sum is a second gradient.
    gradients = 4.0 * trained_parameters(c) / cuts.stored * (1 + (micro_batches > 1))
    prompts, suffixes = shape.tasks * shape.prompt, shape.tasks * shape.group_size * shape.suffix
    tokens = prompts / cuts.prompts + suffixes / cuts.suffixes
    heads, size = c.query_heads * c.head_width, itemsize(c)
    attended = heads * (prompts / cuts.prompt_heads + suffixes / cuts.suffix_heads)
    activations = activation_bytes(c, tokens) / cuts.tensor
    # What layers keep: their inputs, attention's results, and the products named in `keep`. The product of "output" is
    # whole on every device, like the width. No gradient needs the product of "down".
    widths = {name: outputs for name, (_, outputs) in matrices(c).items() if name in c.keep and name != "down"}
    products = sum(width / (1 if name == "output" else cuts.tensor) for name, width in widths.items())
    kept = c.layers * size * ((c.width + products) * tokens + attended)
    # The layer in its backward pass.
    at_work = 2 * activations / c.layers + 4 * layer_weights(c) / cuts.tensor * size
    return state(c, reference=reference, stored=cuts.stored)._replace(
        gradients=gradients, activations=kept + at_work, logits=logits_memory(c, cuts)
    )


def logits_memory(c: DecoderConfig, cuts: Cuts) -> float:
    """Bytes of the unembedding in both dtypes, of its gradient, and of three float32 arrays of 256 tokens' logits."""
    return c.vocab_size / cuts.vocabulary * c.width * (4 + 4 + itemsize(c)) + 3 * 4 * 256 * c.vocab_size


def update_exchange(c: DecoderConfig, *, reference: bool, micro_batches: int, cuts: Cuts) -> float:
    """Bytes that one device receives: every pass gathers the weights, the backward pass scatters their gradient, if any."""
    passes = 2 + reference + (c.lora is None)
    return micro_batches * passes * parameters(c) / cuts.tensor * itemsize(c) * (1 - cuts.tensor / cuts.stored)
