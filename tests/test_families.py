"""One decoder, three families: logits equal transformers', whichever way the decoder computes them."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from make_golden_logits import FAMILIES, GOLDEN, checkpoint_weights, reference_model, tokens
from safetensors.numpy import save_file

from models import presets, weights
from models.decoder import DecoderConfig
from models.families import config_from_json, config_to_json, read_config
from models.policy import callables
from models.rotary import RopeScaling, frequencies
from rods_jax.files import CheckpointError
from rods_jax.types import Policy

TOKENS = tokens()  # [2, 40]
G, CAPACITY = 3, 40
PROMPT_LENGTHS = np.array([5, 17], np.int32)


def write_checkpoint(directory: Path, family: str) -> dict:
    record = json.loads((GOLDEN / f"{family}.json").read_text())
    (directory / "config.json").write_text(json.dumps(record["config"]))
    save_file(checkpoint_weights(record["shapes"]), directory / weights.SINGLE)
    return record


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request, tmp_path_factory):
    """(policy, params, what transformers computes: logits_NTV of TOKENS at every third position)."""
    directory = tmp_path_factory.mktemp(request.param)
    record = write_checkpoint(directory, request.param)
    config = read_config(directory)
    return jitted(config), weights.load_weights(directory, config), np.array(record["logits"])


def jitted(config) -> Policy:
    policy = Policy(**callables(config))
    prefill = jax.jit(policy.prefill, static_argnums=3)
    return policy._replace(forward=jax.jit(policy.forward), prefill=prefill, extend=jax.jit(policy.extend))


def grouped():
    """Prompts padded with other tokens, and suffixes of which the first rollout's goes on as in TOKENS."""
    rng = np.random.default_rng(2)
    prompts = rng.integers(0, 64, (2, 20)).astype(np.int32)
    suffixes = rng.integers(0, 64, (2, G, CAPACITY)).astype(np.int32)
    for n, length in enumerate(PROMPT_LENGTHS):
        prompts[n, :length] = TOKENS[n, :length]
        suffixes[n, 0, : 40 - length] = TOKENS[n, length:]
    return prompts, PROMPT_LENGTHS, suffixes


def compare(logits_NSV, expected_NTV, atol=1e-4):
    """`logits_NSV[n, s]` follows the prompt and s suffix tokens: position length - 1 + s of the whole."""
    for n, length in enumerate(PROMPT_LENGTHS):
        for t, expected in zip(range(0, 40, 3), expected_NTV[n], strict=True):
            if t >= length - 1:
                np.testing.assert_allclose(logits_NSV[n, t - length + 1], expected, atol=atol, rtol=0)


def test_padded_group_shared_logits_are_those_of_transformers(loaded):
    policy, params, expected = loaded
    hidden = policy.forward(params, *grouped())
    compare(hidden[:, 0] @ policy.unembedding(params).T, expected)
    assert np.abs(expected).max() > 1  # far from uniform


def test_logits_with_the_cache_are_those_of_transformers(loaded):
    policy, params, expected = loaded
    prompts, lengths, suffixes = grouped()
    first, cache = policy.prefill(params, prompts, lengths, CAPACITY)
    caches = policy.empty(2, G, CAPACITY)
    hidden = [jnp.broadcast_to(first[:, None, None], (2, G, 1, first.shape[-1]))]
    for start, stop in [(0, 1), (1, 2), (2, 3), (3, 19), (19, 35)]:
        chunk = suffixes[:, :, start:stop]
        seen, count = (np.full((2, G), number, np.int32) for number in (start, stop - start))
        more, caches = policy.extend(params, cache, caches, seen, chunk, count)
        hidden.append(more)
    hidden = jnp.concatenate(hidden, axis=2)
    compare(hidden[:, 0] @ policy.unembedding(params).T, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers_now(family, tmp_path):
    """Against the library itself, padded and masked there too; needs torch."""
    torch = pytest.importorskip("torch")
    model = reference_model(family)
    model.save_pretrained(tmp_path)
    config = read_config(tmp_path)
    policy, params = jitted(config), weights.load_weights(tmp_path, config)
    rng = np.random.default_rng(3)
    whole = rng.integers(0, 64, (5, 60))
    lengths = np.array([60, 1, 33, 59, 17])
    mask = np.arange(60)[None] < lengths[:, None]
    with torch.no_grad():
        expected = model(torch.from_numpy(whole), attention_mask=torch.from_numpy(mask.astype(np.int64))).logits
    hidden = policy.forward(
        params, whole[:, :1].astype(np.int32), np.ones(5, np.int32), whole[:, None, 1:].astype(np.int32)
    )
    logits = hidden[:, 0] @ policy.unembedding(params).T
    np.testing.assert_allclose(logits[mask[:, :-1]], expected.numpy()[:, :-1][mask[:, :-1]], atol=1e-4, rtol=0)


# ---------------------------------------------------------------------------------- config.json
HUB = {  # as the Hub has them, without the keys that say nothing of the shape
    "QWEN2_5_7B": dict(
        model_type="qwen2", attention_dropout=0.0, hidden_act="silu", hidden_size=3584, intermediate_size=18944,
        max_position_embeddings=32768, max_window_layers=28, num_attention_heads=28, num_hidden_layers=28,
        num_key_value_heads=4, rms_norm_eps=1e-06, rope_theta=1000000.0, sliding_window=131072,
        tie_word_embeddings=False, use_sliding_window=False, vocab_size=152064,
    ),
    "QWEN3_4B": dict(
        model_type="qwen3", attention_bias=False, head_dim=128, hidden_act="silu", hidden_size=2560,
        intermediate_size=9728, max_position_embeddings=40960, max_window_layers=36, num_attention_heads=32,
        num_hidden_layers=36, num_key_value_heads=8, rms_norm_eps=1e-06, rope_scaling=None, rope_theta=1000000,
        sliding_window=None, tie_word_embeddings=True, use_sliding_window=False, vocab_size=151936,
    ),
    "LLAMA_3_1_8B": dict(
        model_type="llama", attention_bias=False, hidden_act="silu", hidden_size=4096, intermediate_size=14336,
        max_position_embeddings=131072, mlp_bias=False, num_attention_heads=32, num_hidden_layers=32,
        num_key_value_heads=8, rms_norm_eps=1e-05, rope_theta=500000.0, tie_word_embeddings=False, vocab_size=128256,
        rope_scaling=dict(
            factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192,
            rope_type="llama3",
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("preset", HUB)
def test_the_presets_are_the_shapes_of_the_hub(preset):
    assert config_from_json(HUB[preset]) == getattr(presets, preset)


def test_heads_whose_width_is_not_said_have_their_familys():
    """Qwen3's is 128 where the key is not there; other families divide the model's width."""
    for preset, width in (("QWEN3_4B", 128), ("QWEN2_5_7B", 3584 // 28), ("LLAMA_3_1_8B", 4096 // 32)):
        unsaid = {key: value for key, value in HUB[preset].items() if key != "head_dim"}
        assert config_from_json(unsaid) == getattr(presets, preset) and getattr(presets, preset).head_width == width
    assert config_from_json(HUB["QWEN3_4B"] | {"head_dim": None}).head_width == 2560 // 32


@pytest.mark.parametrize(
    "preset, millions",  # as the model cards count them, in units that show every layer
    [
        ("QWEN2_5_0_5B", 494.032768), ("QWEN2_5_1_5B", 1543.714304), ("QWEN2_5_3B", 3085.938688),
        ("QWEN2_5_7B", 7615.616512), ("QWEN3_0_6B", 596.049920), ("QWEN3_1_7B", 1720.574976),
        ("QWEN3_4B", 4022.468096), ("QWEN3_8B", 8190.735360), ("LLAMA_3_2_1B", 1235.814400),
        ("LLAMA_3_2_3B", 3212.749824), ("LLAMA_3_1_8B", 8030.261248),
    ],
)  # fmt: skip
def test_the_presets_have_the_published_number_of_parameters(preset, millions):
    shapes = jax.eval_shape(callables(getattr(presets, preset))["init"], jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == round(millions * 1e6)


@pytest.mark.parametrize("preset", [name for name in dir(presets) if name.isupper() and name != "FAMILIES"])
def test_every_preset_survives_config_json(preset):
    config = getattr(presets, preset)
    assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


LLAMA_SCALING = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


@pytest.mark.parametrize("name", ["QWEN3_4B", "LLAMA_3_1_8B"])
def test_the_rope_may_stand_in_either_place_or_in_both(name):
    """transformers 5 writes `rope_parameters`, with theta inside or beside it; those before wrote two keys."""
    before = HUB[name]
    scaling, theta = before.get("rope_scaling") or {"rope_type": "default"}, before["rope_theta"]
    after = {key: value for key, value in before.items() if key not in ("rope_theta", "rope_scaling")}
    for form in (
        after | {"rope_parameters": scaling | {"rope_theta": theta}},
        after | {"rope_parameters": scaling, "rope_theta": theta},
        before | {"rope_parameters": scaling | {"rope_theta": theta}},
    ):
        assert config_from_json(form) == config_from_json(before)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model_type": "mistral"}, "unknown architecture 'mistral': it must be one of qwen3, qwen2, llama"),
        ({"attention_bias": True}, "attention_bias must be False: got True"),
        ({"use_sliding_window": True}, "use_sliding_window must be False"),
        ({"hidden_act": "gelu"}, "hidden_act must be 'silu': got 'gelu'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config must be None"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope scaling must be of type default or llama3"),
        ({"num_key_value_heads": 5}, "query_heads must be a multiple of model.key_value_heads: got 32 and 5"),
        ({"hidden_size": "wide"}, "hidden_size must be a whole number above 0 and below 2.31: got 'wide'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be a whole number"),
        ({"vocab_size": 2.5}, "vocab_size must be a whole number"),
        ({"vocab_size": True}, "vocab_size must be a whole number"),
        ({"num_attention_heads": 10**40}, "num_attention_heads must be a whole number"),
        ({"num_attention_heads": 0, "head_dim": None}, "num_attention_heads must be a whole number"),
        ({"num_attention_heads": 48, "head_dim": None}, "hidden_size must be a multiple of num_attention_heads"),
        ({"head_dim": -1}, "head_dim must be a whole number"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be a finite number above 0: got nan"),
        ({"rope_theta": "x"}, "rope_theta must be a finite number above 0: got 'x'"),
        ({"rope_theta": float("inf")}, "rope_theta must be a finite number above 0"),
        ({"rope_scaling": [1]}, "rope_scaling must be an object"),
        ({"rope_scaling": LLAMA_SCALING | {"factor": 0}}, "factor must be a finite number above 0"),
        ({"rope_scaling": LLAMA_SCALING | {"high_freq_factor": 1.0}}, "low_freq_factor must be below high_freq_factor"),
        ({"rope_parameters": {"rope_theta": 7.0}}, "rope_theta must be said once: rope_parameters has 7.0"),
        ({"tie_word_embeddings": [1]}, "tie_word_embeddings must be true or false"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types must be full_attention throughout"),
    ],
)
def test_what_the_decoder_does_not_compute_is_refused_by_name(changes, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(HUB["QWEN3_4B"] | changes))
    with pytest.raises(CheckpointError, match=message) as error:
        read_config(tmp_path)
    assert str(tmp_path / "config.json") in str(error.value)


def test_a_config_that_is_missing_or_incomplete_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="is no checkpoint: .*config.json"):
        read_config(tmp_path)
    absent = tmp_path / "absent"
    with pytest.raises(
        CheckpointError, match=f"^no checkpoint at {absent}: .*`hf download NAME --local-dir {absent}`$"
    ):
        read_config(absent)
    path = tmp_path / "config.json"
    for key in ("model_type", "num_hidden_layers", "rope_theta"):
        path.write_text(json.dumps({k: v for k, v in HUB["QWEN3_4B"].items() if k != key}))
        with pytest.raises(CheckpointError, match=f"config.json lacks the key '{key}'"):
            read_config(tmp_path)
    broken = (
        b"{",
        b"[]",
        b"null",
        b'{"model_type": ["qwen3"]}',
        b"\xff",
        b"[" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
    )
    for text in broken:
        path.write_bytes(text)
        with pytest.raises(CheckpointError, match="config.json"):
            read_config(tmp_path)


# ----------------------------------------------------------------------------------------- rope
def test_llama_scaling_keeps_short_waves_stretches_long_ones_and_blends_between():
    scaling = RopeScaling(8.0, 1.0, 4.0, 8192)
    plain, scaled = frequencies(128, 5e5), frequencies(128, 5e5, scaling)
    wavelength = 2 * np.pi / np.asarray(plain, np.float64)
    short, long = wavelength < 8192 / 4, wavelength > 8192
    assert short.sum() > 10 and long.sum() > 10 and (~short & ~long).sum() > 1
    np.testing.assert_array_equal(scaled[short], plain[short])
    np.testing.assert_allclose(scaled[long], plain[long] / 8, rtol=1e-6)
    middle = ~short & ~long
    kept = (8192 / wavelength[middle] - 1) / 3
    np.testing.assert_allclose(scaled[middle], plain[middle] * (kept + (1 - kept) / 8), rtol=1e-5)


def test_more_positions_than_the_model_has_are_refused_before_anything_runs():
    policy = Policy(**callables(presets.TINY_LLAMA3))
    params = jax.eval_shape(policy.init, jax.random.key(0))
    prompt, lengths = np.zeros((1, 200), np.int32), np.ones(1, np.int32)
    message = "prompt and suffix together need 257 positions, and the model has 256"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(policy.forward, params, prompt, lengths, np.zeros((1, 2, 57), np.int32))
    with pytest.raises(ValueError, match=message):
        policy.prefill(params, prompt, lengths, 57)
    jax.eval_shape(policy.forward, params, prompt, lengths, np.zeros((1, 2, 56), np.int32))


@pytest.mark.parametrize(
    "changes, message",
    [({"head_width": 7}, "head_width must be even"), ({"compute_dtype": "float8"}, "compute_dtype")],
)
def test_impossible_decoders_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        DecoderConfig(
            **dict(vocab_size=8, layers=1, width=8, query_heads=2, key_value_heads=2, head_width=4, feed_forward=8)
            | changes
        )
