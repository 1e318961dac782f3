"""Counts from shapes equal the arrays themselves, and small cases by hand."""

import jax
import pytest

from models import counts, presets
from models.counts import Shape
from models.decoder import DecoderConfig
from models.policy import callables


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
