"""TPU's kernel, interpreted: dense softmax, gradients, padding, the decoder; lowered for a TPU: what is kept."""

import json
import re
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from test_attention import dense, normal
from test_train import CONFIG as RUN

from models import attention, counts, flash, presets
from models.decoder import DecoderConfig
from models.layout import Layout
from models.policy import callables
from rods_jax import config as configuration
from rods_jax import run, sharding
from rods_jax.config import ConfigError
from rods_jax.older import LAYOUT
from rods_jax.types import Policy

N, G, K, E = 2, 2, 1, 128
blockwise, interpreted = Layout().attend, partial(flash.flash_attend, interpret=True)


def inputs(t, p, q):
    """(query, prompts' keys and values, own keys and values, direction); far from uniform."""
    shapes = (N, G, K, q, t, E), (N, K, p, E), (N, K, p, E), (N, G, K, t, E), (N, G, K, t, E), (N, G, K, q, t, E)
    query, *rest = (normal(seed, *shape) for seed, shape in enumerate(shapes))
    return 2 * E**-0.5 * query, tuple(rest[:2]), tuple(rest[2:4]), rest[4]


def derivatives(attend, query, prompt, own, direction, lengths):
    """(output, gradients along a direction); without a prompt where it is None."""

    def functional(query, prompt, own):
        shared = () if prompt is None else (attention.Shared(*prompt, lengths),)
        output = attend(query, (*shared, attention.Causal(*own)))
        return jnp.sum(output.astype(jnp.float32) * direction), output

    (_, output), gradients = jax.jit(jax.value_and_grad(functional, argnums=(0, 1, 2), has_aux=True))(
        query, prompt, own
    )
    return output, gradients


def close(actual, expected, tolerance):
    """To a share of the largest number."""
    expected = np.asarray(expected, np.float64)
    atol = tolerance * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, atol=atol, rtol=0)


def lengths_up_to(p, seed=0):
    return np.random.default_rng(seed).integers(1, p + 1, N).astype(np.int32)


@pytest.mark.parametrize("t, p, q", [(128, 256, 1), (200, 136, 2), (40, 24, 2), (640, 384, 1)])
def test_value_and_gradients_are_those_of_the_dense_softmax(t, p, q):
    """Whole blocks and padded ones, less than a block, and several blocks of keys and queries."""
    query, prompt, own, direction = inputs(t, p, q)
    lengths = lengths_up_to(p)
    empty = np.zeros((N, G, K, 0, E), np.float32)
    seen = lengths, np.zeros((N, G), int)
    expected, d_query, d_pairs = dense(query, (prompt, (empty, empty), own), seen, direction)
    output, found = derivatives(interpreted, query, prompt, own, direction, lengths)
    close(output, expected, 3e-6)
    for a, b in zip(jax.tree.leaves(found), (d_query, *d_pairs[0], *d_pairs[2]), strict=True):
        close(a, b, 3e-6)


def test_a_prompt_attends_to_itself_as_blockwise_does():
    query, _, own, direction = inputs(200, 1, 2)
    expected, found = (derivatives(f, query, None, own, direction, None) for f in (blockwise, interpreted))
    jax.tree.map(partial(close, tolerance=3e-6), found, expected)


def test_bfloat16_to_its_precision():
    *arrays, direction = jax.tree.map(lambda x: x.astype(jnp.bfloat16), inputs(136, 200, 2))
    lengths = lengths_up_to(200)
    exact = jax.tree.map(lambda x: x.astype(jnp.float32), arrays)
    expected = derivatives(blockwise, *exact, direction, lengths)
    found = derivatives(interpreted, *arrays, direction, lengths)
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype(jnp.bfloat16)}
    jax.tree.map(partial(close, tolerance=2e-2), found, expected)


def test_padding_of_a_prompt_contributes_exactly_nothing():
    query, prompt, own, direction = inputs(128, 200, 1)
    lengths = np.array([200, 37], np.int32)
    padding = (np.arange(200) >= lengths[:, None])[:, None, :, None] & np.ones((1, K, 1, E), bool)
    loud = tuple(np.where(padding, 1e4 * normal(9, *x.shape), x) for x in prompt)
    expected, found = (derivatives(interpreted, query, x, own, direction, lengths) for x in (prompt, loud))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    _, (_, d_prompt, _) = found
    assert all(not np.any(np.asarray(x)[padding]) and np.any(x) for x in d_prompt)


def test_decoding_stays_with_blockwise():
    query, prompt, own, _ = inputs(3, 5, 2)
    shared = attention.Shared(*prompt, np.array([5, 2], np.int32))
    for last, expected in ((attention.Own(*own, np.full((N, G, 3), 2, np.int32)), 0), (attention.Causal(*own), 1)):
        jaxpr = jax.make_jaxpr(flash.flash_attend)(query, (shared, last))
        assert str(jaxpr).count("pallas_call[") == expected


# ------------------------------------------------------------------------- compiled for a TPU that is not there
def kernels(policy):
    """Names of the kernels in the gradient of three recomputed layers, lowered for a TPU."""
    query, prompt, own, _ = inputs(200, 136, 2)

    @partial(jax.checkpoint, policy=policy)
    def layer(query, prompt, own):
        lengths = jnp.full((N,), 99, jnp.int32)
        return flash.flash_attend(jnp.sin(query), (attention.Shared(*prompt, lengths), attention.Causal(*own)))

    def functional(*arrays):
        return jax.lax.scan(lambda query, _: (layer(query, *arrays[1:]), None), arrays[0], None, length=3)[0].sum()

    gradient = jax.jit(jax.grad(functional, argnums=(0, 1, 2)))
    lowered = jax.export.export(gradient, platforms=["tpu"])(query, prompt, own).mlir_module()
    return sorted(re.findall(r'kernel_name = "splash_mqa_(\w+?)_', lowered))


def test_a_layer_that_is_computed_again_does_not_attend_again():
    keeping = jax.checkpoint_policies.save_only_these_names(attention.SAVED)
    assert kernels(keeping) == ["dkv", "dq", "fwd"]
    assert kernels(None) == ["dkv", "dq", "fwd", "fwd"]


@pytest.mark.parametrize(
    "length, blocks",
    [(1, (128, 128)), (128, (128, 128)), (513, (768, 384)), (1152, (1152, 384)), (18432, (18432, 512))],
)
def test_blocks_are_few_and_whole_vectors(length, blocks):
    assert flash._blocks(length) == blocks


# ------------------------------------------------------------------------------------------ in the decoder
DECODER = DecoderConfig(
    vocab_size=31, layers=2, width=16, query_heads=4, key_value_heads=2, head_width=128, feed_forward=24
)


@pytest.mark.slow
def test_the_decoder_computes_on_a_mesh_what_it_computes_blockwise_on_one_device():
    """Rollouts are cut in two, and tokens, which are traded for heads; prompts and suffixes have to be padded."""
    rng = np.random.default_rng(0)
    prompts, suffixes = (rng.integers(0, 31, shape).astype(np.int32) for shape in ((N, 130), (N, G, 70)))
    lengths, direction = np.array([130, 61], np.int32), normal(3, N, G, 70, DECODER.width)
    params = Policy(**callables(DECODER)).init(jax.random.key(0))
    params = jax.tree.map(lambda x: x * 4 if x.ndim > 2 else x, params)

    def decode(layout):
        policy = Policy(**callables(DECODER, layout))

        def functional(params):
            hidden = policy.forward(params, prompts, lengths, suffixes)
            return jnp.sum(hidden * direction), hidden

        prefill = lambda params: policy.prefill(params, prompts, lengths, 8)[0]
        functions = [jax.jit(f).trace(params) for f in (jax.grad(functional, has_aux=True), prefill)]
        kernels = ["pallas_call[" in str(f.jaxpr) for f in functions]
        return [f.lower().compile()(params) for f in functions], kernels

    mesh = sharding.create_mesh(1, 2, 1, 2, devices=jax.devices()[:4])
    found, kernels = decode(Layout(**sharding.layout_fields(mesh))._replace(attend=interpreted))
    expected, none = decode(Layout())
    jax.tree.map(partial(close, tolerance=2e-5), found, expected)
    assert kernels == [True, True] and none == [False, False]


def test_a_run_without_tpus_is_refused_before_it_begins(tmp_path):
    config = replace(RUN, run_dir=str(tmp_path / "run"), flash_attention=True)
    sentence = "flash_attention is a kernel for TPUs, and the devices found are of the kind cpu"
    for command in (run.check, run.train):
        with pytest.raises(ConfigError, match=sentence):
            command(config, console=Console(quiet=True))
    assert not (tmp_path / "run").exists()


def test_a_run_keeps_its_kernel(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"layout": LAYOUT} | configuration.plain_values(RUN)))
    configuration.require_same_run(RUN, tmp_path)
    with pytest.raises(ConfigError, match="was started with another flash_attention"):
        configuration.require_same_run(replace(RUN, flash_attention=True), tmp_path)


def test_its_backward_pass_computes_scores_twice():
    c, shape = presets.QWEN3_4B, counts.Shape(1, 1, 8, 8)
    plain, kernel = (
        counts.executed_update(c, shape, reference=False, tile=1, flash_attention=flag) for flag in (False, True)
    )
    assert [x / y for x, y in zip(kernel, plain, strict=True)] == pytest.approx([1, 9 / 7, 1, 9 / 7, 1])  # products
