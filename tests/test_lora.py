"""Adapters start as the base, train alone, and leave merged or as PEFT files that compute the same."""

import functools
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from make_golden_logits import reference_model
from safetensors.numpy import load_file

from models import lora, presets, weights
from models.decoder import PROJECTIONS, LoraConfig
from models.families import read_config
from models.policy import callables
from rods_jax.types import Policy

BASE = presets.TINY_QWEN2_5
CONFIG = replace(BASE, lora=LoraConfig(rank=3, alpha=6.0))
BATCH = np.arange(5, dtype=np.int32)[None], np.array([4], np.int32), np.arange(12, dtype=np.int32).reshape(1, 2, 6)


def trained(config, seed=1):
    """Adapters as after some training: no zeros left."""
    adapters = lora.init(config, jax.random.key(seed))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: 0.2 * rng.standard_normal(x.shape).astype(np.float32), adapters)


@pytest.fixture(scope="module")
def base():
    return policy_of(BASE).init(jax.random.key(0))


@functools.cache
def policy_of(config) -> Policy:
    policy = Policy(**callables(config))
    return policy._replace(forward=jax.jit(policy.forward))


def forward(config, params, batch=BATCH):
    policy = policy_of(config)
    return policy.forward(params, *batch) @ policy.unembedding(params).T


def test_fresh_adapters_leave_the_policy_as_it_is(base):
    joined = lora.join_adapters(lora.init(CONFIG, jax.random.key(1)), base)
    np.testing.assert_array_equal(forward(CONFIG, joined), forward(BASE, base))


def test_split_and_join_are_inverse_and_every_target_has_two_factors(base):
    params = policy_of(CONFIG).init(jax.random.key(0))
    adapters, rest = lora.split_adapters(params)
    assert jax.tree.structure(rest) == jax.tree.structure(base)
    assert sorted(adapters["layers"]) == sorted(f"{name}_lora_{x}" for name in PROJECTIONS for x in "ab")
    assert adapters["layers"]["output_lora_a"].shape == (2, 2, 2, 8, 3)  # layers, key heads, queries, width, rank
    jax.tree.map(np.testing.assert_array_equal, lora.join_adapters(adapters, rest), params)


@pytest.mark.parametrize("targets", [tuple(PROJECTIONS), ("query", "output")])
def test_merged_weights_compute_what_the_adapters_compute(base, targets):
    config = replace(BASE, lora=LoraConfig(rank=3, alpha=6.0, targets=targets))
    adapters = trained(config)
    expected = forward(config, lora.join_adapters(adapters, base))
    merged, plain = lora.merge(adapters, base, config)
    assert plain == BASE and jax.tree.structure(merged) == jax.tree.structure(base)
    np.testing.assert_allclose(forward(plain, merged), expected, atol=1e-5)
    assert np.abs(expected - forward(BASE, base)).max() > 0.01


def test_one_adapter_is_alpha_over_rank_times_the_product(base):
    config = replace(BASE, lora=LoraConfig(rank=1, alpha=0.5, targets=("up",)))
    adapters = trained(config)
    merged, _ = lora.merge(adapters, base, config)
    a, b = (adapters["layers"][f"up_lora_{x}"] for x in "ab")
    np.testing.assert_allclose(
        merged["layers"]["up"][1], base["layers"]["up"][1] + 0.5 * np.outer(a[1, :, 0], b[1, 0]), atol=1e-6
    )


def test_gradients_reach_the_adapters(base):
    policy = policy_of(CONFIG)
    score = lambda adapters: jnp.sum(jnp.sin(policy.forward(lora.join_adapters(adapters, base), *BATCH)))
    gradient = jax.jit(jax.grad(score))(trained(CONFIG))
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    "changes, message",
    [({"rank": 0}, "lora.rank"), ({"targets": ("bias",)}, "lora.targets"), ({"targets": ()}, "lora.targets")],
)
def test_impossible_adapters_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        LoraConfig(**dict(rank=2, alpha=1.0) | changes)


# ------------------------------------------------------------------------------------------ PEFT
def test_peft_files_have_pefts_names_and_shapes(tmp_path):
    adapters = trained(CONFIG)
    lora.save_adapters(tmp_path, adapters, CONFIG, "some/base")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    a, b = (tensors[f"base_model.model.model.layers.1.self_attn.o_proj.lora_{x}.weight"] for x in "AB")
    np.testing.assert_array_equal(a, adapters["layers"]["output_lora_a"][1].reshape(-1, 3).T)
    np.testing.assert_array_equal(b, adapters["layers"]["output_lora_b"][1].T)
    values = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (values["r"], values["lora_alpha"], values["base_model_name_or_path"]) == (3, 6.0, "some/base")
    assert values["target_modules"] == [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    ]
    assert len(tensors) == 2 * 7 * 2


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's own
def test_peft_computes_what_the_adapters_compute(tmp_path):
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    model = reference_model("qwen2")
    model.save_pretrained(tmp_path / "base")
    config = replace(read_config(tmp_path / "base"), lora=LoraConfig(rank=4, alpha=6.0))
    adapters, params = trained(config), weights.load_weights(tmp_path / "base", config)
    lora.save_adapters(tmp_path / "adapters", adapters, config, str(tmp_path / "base"))
    tuned = peft.PeftModel.from_pretrained(model, tmp_path / "adapters").eval()
    tokens = np.arange(20, dtype=np.int32)
    logits = forward(
        config, lora.join_adapters(adapters, params), (tokens[None, :1], np.ones(1, np.int32), tokens[None, None, 1:])
    )
    with torch.no_grad():
        expected = tuned(torch.from_numpy(tokens.astype(np.int64))[None]).logits
    np.testing.assert_allclose(logits[0, 0], expected.numpy()[0, :-1], atol=1e-4, rtol=0)
