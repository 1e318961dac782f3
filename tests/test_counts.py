"""Counts from shapes equal the arrays themselves, and small cases by hand."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import attention, counts, presets
from models.counts import Shape
from models.decoder import DecoderConfig, LoraConfig
from models.policy import callables
from rods_jax.log_probs import log_probs


@pytest.mark.parametrize("preset", ["TINY_QWEN3", "TINY_QWEN2_5", "TINY_LLAMA3", "QWEN3_4B", "LLAMA_3_1_8B"])
def test_parameters_are_those_of_the_decoder(preset):
    config = getattr(presets, preset)
    shapes = jax.eval_shape(callables(config)["init"], jax.random.key(0))
    assert counts.parameters(config) == sum(x.size for x in jax.tree.leaves(shapes))


def test_a_forward_pass_by_hand():
    config = DecoderConfig(10, 1, 2, 2, 1, 4, 3)  # one layer: 2*2*4*(2+1) + 3*2*3 = 66 weights
    parts = counts.forward(config, Shape(tasks=1, group_size=2, prompt=2, suffix=3))
    assert parts.prompt_layers == 2 * 66 * 2 and parts.suffix_layers == 2 * 66 * 6
    assert parts.prompt_attention == 4 * 8 * 3  # pairs: 1 + 2
    assert parts.suffix_attention == 4 * 8 * 2 * (3 + 4 + 5)  # two prompt tokens, and 1, 2, 3 of its own
    assert parts.vocabulary == 2 * 6 * 2 * 10


def test_sharing_saves_the_prompts_of_all_rollouts_but_one():
    shape = Shape(tasks=3, group_size=4, prompt=5, suffix=6)
    shared, unshared = (counts.forward(presets.TINY_QWEN3, shape, shared=x) for x in (True, False))
    assert unshared.prompt_layers == 4 * shared.prompt_layers
    assert unshared.suffix_attention == shared.suffix_attention


def test_a_played_step_is_counted_rollout_by_rollout_without_padding():
    config = replace(presets.TINY_QWEN3, lora=None)
    one = lambda p, s: (
        counts.forward(config, Shape(1, len(s), p, 0)).total
        + sum(
            counts.forward(config, Shape(1, 1, p, length))._replace(prompt_layers=0, prompt_attention=0).total
            for length in s
        )
    )
    played = partial(counts.played_step, config, np.array([5, 7]), np.array([[3, 4], [0, 6]]))
    once = one(5, [3, 4]) + one(7, [0, 6])
    # Rollout, forward, backward twice; and the reference.
    assert played(reference=False) == pytest.approx(4 * once) and played(reference=True) == pytest.approx(5 * once)


def test_a_batchs_own_lengths_of_32_bits_count_a_large_step():
    """One prompt of 2,000 tokens and a suffix of 1,000 of a policy of 4B: its products pass 2^31 many times."""
    config, lengths = presets.QWEN3_4B, (np.array([2000], np.int32), np.array([[1000]], np.int32))
    layers = 2 * 36 * (2 * 2560 * 4096 + 2 * 2560 * 1024 + 3 * 2560 * 9728) * 3000
    attention = 4 * 36 * 32 * 128 * 3000 * 3001 / 2
    by_hand = 4 * (layers + attention + 2 * 2560 * 151_936 * 1000)
    assert counts.played_step(config, *lengths, reference=False) == pytest.approx(by_hand)


def test_adapters_alone_spare_the_gradients_of_the_weights():
    whole = replace(presets.TINY_QWEN3, lora=None)
    adapted = replace(whole, lora=LoraConfig(rank=3, alpha=1.0, targets=("query",)))
    lengths = np.array([5]), np.array([[3, 3]])
    spared, parts = (
        counts.played_step(whole, *lengths, reference=False) - counts.played_step(adapted, *lengths, reference=False),
        counts.forward(whole, Shape(1, 2, 5, 3)),
    )
    products = parts.prompt_layers + parts.suffix_layers + parts.vocabulary
    assert spared == pytest.approx(products)
    # A plan's update spares the same, and what is moved for it.
    needed = [counts.update(c, Shape(1, 2, 5, 3), reference=True) for c in (whole, adapted)]
    executed = [counts.executed_update(c, Shape(1, 2, 5, 3), reference=True, tile=1) for c in (whole, adapted)]
    assert [a.total - b.total for a, b in (needed, executed)] == pytest.approx([products, products])
    assert needed[0].suffix_attention == needed[1].suffix_attention
    how = dict(reference=True, micro_batches=4, cuts=counts.Cuts(stored=2))
    received = [counts.update_exchange(c, **how) for c in (whole, adapted)]
    assert received == [4 * n * counts.parameters(whole) * 4 / 2 for n in (4, 3)]
    moved = [counts.update_bytes(c, Shape(1, 2, 5, 3), **how) for c in (whole, adapted)]
    # Weights are read by a pass less and no gradient of theirs is written; 15 arrays are the adapters' instead of theirs.
    weights = 4 * 2 * counts.parameters(whole) * 4 + 4 * counts.activation_bytes(whole, 11)
    optimizer = 4 * (counts.parameters(whole) - counts.adapters(adapted)) / 2 * 15
    assert moved[0] - moved[1] == pytest.approx(weights + optimizer)


def compiled_flops(function, *arguments) -> float:
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_an_update_counts_what_the_compiler_counts_where_no_loop_hides_anything(monkeypatch, shared):
    """Two layers, unrolled, attention in one tile: the compiler sees every product; it never runs."""
    monkeypatch.setattr(jax.lax, "scan", partial(jax.lax.scan, unroll=True))
    monkeypatch.setattr(attention, "TILE", 1 << 40)
    config = replace(presets.QWEN3_0_6B, layers=2, vocab_size=32_768)
    n, g, p, s = (1, 4, 256, 128) if shared else (4, 1, 256, 128)
    forward = callables(config)["forward"]

    def loss(params, prompts, lengths, suffixes):
        hidden = forward(params, prompts, lengths, suffixes)
        return log_probs(hidden, params["embedding"], suffixes, chunk_size=n * g * s).log_probs_T.sum()

    shapes = jax.eval_shape(callables(config)["init"], jax.random.key(0))
    tokens = [jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((n, p), (n,), (n, g, s))]
    shape = Shape(n, g, p, s)
    # Whole tiles: a causal sequence in one tile computes its upper half too.
    forward_parts = counts.forward(config, shape, tile=1)
    square = lambda length, rows: 4 * config.layers * config.query_heads * config.head_width * rows * length**2 / 2
    whole = forward_parts.total + square(p, n) + square(s, n * g) - square(1, n * p) - square(1, n * g * s)
    assert compiled_flops(loss, shapes, *tokens) == pytest.approx(whole, rel=0.02)
    parts = counts.executed_update(config, shape, reference=False, tile=1)
    whole = parts.total + 3.5 * (square(p, n) + square(s, n * g) - square(1, n * p) - square(1, n * g * s))
    assert compiled_flops(jax.grad(loss), shapes, *tokens) == pytest.approx(whole, rel=0.02)


def test_what_is_kept_is_not_computed_again():
    config, shape = presets.TINY_QWEN3, Shape(tasks=1, group_size=2, prompt=8, suffix=4)
    again, less = (
        counts.executed_update(replace(config, keep=keep), shape, reference=False, tile=1)
        for keep in ((), ("query", "gate"))
    )
    weights = config.width * (config.query_heads * config.head_width + config.feed_forward)
    assert again.prompt_layers - less.prompt_layers == pytest.approx(2 * weights * config.layers * 8)
    assert again.suffix_layers - less.suffix_layers == pytest.approx(2 * weights * config.layers * 2 * 4)
    assert again[1::2] == less[1::2] and again.vocabulary == less.vocabulary


def test_a_device_does_its_share():
    config, shape = presets.TINY_QWEN3, Shape(tasks=2, group_size=4, prompt=8, suffix=4)
    parts = counts.forward(config, shape)
    cuts = counts.Cuts(prompts=2, prompt_heads=4, suffixes=8, suffix_heads=16, rows=8, tensor=2, vocabulary=16)
    part = counts.on_device(parts, cuts)
    assert part.prompt_layers == parts.prompt_layers / 4 and part.suffix_layers == parts.suffix_layers / 16
    assert part.prompt_attention == parts.prompt_attention / 4
    assert part.suffix_attention == parts.suffix_attention / 16
    assert part.vocabulary == parts.vocabulary / 16


def test_adapters_alone_have_an_optimizer_and_the_base_is_half_as_wide():
    lora = LoraConfig(rank=3, alpha=1.0, targets=("query", "down"))
    config = replace(presets.TINY_QWEN3, lora=lora)  # width 32, 4 heads of 16, feed-forward 48, two layers
    shapes = jax.eval_shape(callables(config)["init"], jax.random.key(0))["layers"]
    size = 2 * 3 * ((32 + 64) + (48 + 32))
    assert counts.adapters(config) == size == sum(x.size for name, x in shapes.items() if "_lora_" in name)
    held = counts.state(config, reference=False)
    assert held == counts.Held(parameters=4 * size + 2 * counts.parameters(config), optimizer=8 * size)


def test_state_and_exchange_by_hand():
    config = presets.TINY_QWEN3
    size = counts.parameters(config)
    held = counts.state(config, reference=True, stored=4)
    assert held == counts.Held(parameters=size, optimizer=2 * size, reference=size) and held.total == 16 * size / 4
    cuts = counts.Cuts(stored=4)  # three quarters come from other devices: reference, forward, again, gradient
    assert counts.update_exchange(config, reference=True, micro_batches=2, cuts=cuts) == 2 * 4 * size * 4 * 3 / 4
