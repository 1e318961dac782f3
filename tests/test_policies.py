"""A run that starts from a checkpoint: whole or through adapters, and what it writes is a checkpoint again."""

import io
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from grpo_toy import objective_with
from rich.console import Console
from test_train import CONFIG

from models import presets, weights
from models.decoder import LoraConfig
from models.families import Pretrained, read_config
from models.learner import complete, decoder, for_rollouts, policy_on
from models.policy import callables
from rods_jax import grpo
from rods_jax.codecs.tokenizer import checkpoint_tokenizer, load_tokenizer, train_tokenizer
from rods_jax.config import ConfigError
from rods_jax.run import train
from rods_jax.run.directory import require_same_inputs
from rods_jax.run.learner import frozen_inputs
from rods_jax.types import RolloutBatch

LORA = LoraConfig(rank=2, alpha=4.0, targets=("query", "value", "down"))
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A small checkpoint with its tokenizer."""
    directory = tmp_path_factory.mktemp("base")
    tokenizer = train_tokenizer(["find the report and close the ticket"], vocab_size=300)
    config = replace(presets.TINY_QWEN2_5, vocab_size=len(tokenizer) + 5, max_positions=512)
    weights.save_weights(directory, callables(config)["init"](jax.random.key(0)), config, tokenizer)
    return directory


def of(base, **changes):
    return replace(CONFIG, model=Pretrained(directory=str(base), compute_dtype="float32", **changes), cold_start=None)


def batch(n=2, g=3, p=5, s=8) -> RolloutBatch:
    rng = np.random.default_rng(0)
    full = lambda value, *shape: np.full(shape, value)
    return RolloutBatch(
        prompt_tokens_NP=rng.integers(0, 250, (n, p), np.int32),
        prompt_lengths_N=np.arange(p, p - n, -1, np.int32),
        suffix_tokens_NGS=rng.integers(0, 250, (n, g, s), np.int32),
        suffix_lengths_NG=full(np.int32(s), n, g),
        action_mask_NGS=full(True, n, g, s),
        behavior_log_probs_NGS=full(np.float32(-5.5), n, g, s),
        rewards_NG=rng.random((n, g), np.float32),
        valid_NG=full(True, n, g),
        passed_NG=full(np.int32(1), n, g),
        checks_N=full(np.int32(2), n),
    )


def test_without_adapters_the_checkpoint_itself_trains_in_float32(base):
    learner = decoder(of(base))(200)
    params = learner.policy.init(jax.random.key(0))
    assert learner.frozen == () and learner.whole(params) is params
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    jax.tree.map(np.testing.assert_array_equal, params, weights.load_weights(base, read_config(base)))


def test_adapters_train_alone_and_leave_as_whole_weights(base, tmp_path):
    learner = decoder(of(base, lora=LORA))(200)
    optimizer, objective = optax.adam(0.01), objective_with()
    state = grpo.create_state(learner.policy.init(jax.random.key(0)), optimizer, objective)
    assert {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(state.params)} == {
        f"{name}_lora_{x}" for name in LORA.targets for x in "ab"
    }
    before = jax.tree.map(np.asarray, learner.frozen)
    update = grpo.jit_update(learner.policy, optimizer, objective, complete)
    state, feedback = update(state, batch(), grpo.first_seen(2), 1.0, *learner.frozen)
    assert feedback.metrics["grad_norm"] > 0
    assert all(np.abs(x).max() > 0 for name, x in state.params["layers"].items() if name.endswith("_b"))
    jax.tree.map(np.testing.assert_array_equal, learner.frozen, before)
    whole = learner.whole(state.params)
    assert whole["embedding"] is learner.frozen[0]["embedding"]  # no copy

    learner.export(tmp_path / "merged", state.params, load_tokenizer(base), max_positions=9, base=None)
    merged = weights.load_weights(tmp_path / "merged", read_config(tmp_path / "merged"))
    change = merged["layers"]["query"] - learner.frozen[0]["layers"]["query"].astype(jnp.float32)
    assert np.abs(change).max() > 0
    np.testing.assert_array_equal(merged["layers"]["key"], learner.frozen[0]["layers"]["key"].astype(np.float32))
    learner.export(tmp_path / "adapters", state.params, load_tokenizer(base), max_positions=9, base=str(base))
    assert sorted(path.name for path in (tmp_path / "adapters").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip


def test_other_frozen_weights_are_another_input_of_a_run(base, tmp_path):
    """The digest is of the weights, wherever they lie; a checkpoint of an earlier version has none."""
    changed, params = tmp_path / "changed", weights.load_weights(base, read_config(base))
    params["layers"]["gate"] = params["layers"]["gate"].at[1, 2, 3].add(0.5)
    weights.save_weights(changed, params, read_config(base), load_tokenizer(base))
    config, other = of(base, lora=LORA), of(changed, lora=LORA)
    meshed = replace(config, mesh=(2, 2, 2, 1))
    then, again, cut, now = (frozen_inputs(decoder(one)(200)) for one in (config, config, meshed, other))
    assert then == again == cut and set(then) == {"frozen weights"} and frozen_inputs(decoder(of(base))(200)) == {}
    require_same_inputs(now, {"tasks": "as before"}, tmp_path)
    with pytest.raises(ConfigError, match="frozen weights changed since the checkpoint was written"):
        require_same_inputs(now, then, tmp_path)


def test_on_a_mesh_what_trains_and_what_is_made_of_it_lie_as_the_table_says(base):
    learner = decoder(replace(of(base), mesh=(2, 2, 2, 1)))(200)
    params = learner.policy.init(jax.random.key(0))
    state = grpo.create_state(params, optax.adam(0.01), objective_with())
    for tree in (params, state.reference_params, state.optimizer_state[0].mu):
        assert tree["layers"]["gate"].addressable_shards[0].data.shape == (2, 8, 24)  # width by data and fsdp
    scratch = decoder(replace(CONFIG, mesh=(1, 4, 1, 2), model=presets.TINY_QWEN3, cold_start=None))(96)
    params = scratch.policy.init(jax.random.key(0))
    assert params["embedding"].addressable_shards[0].data.shape == (96, 8)
    with pytest.raises(ConfigError, match="mesh must be 4 numbers above 0"):
        replace(CONFIG, mesh=(2, 4))


def test_the_copy_for_rollouts_is_smaller_and_computes_the_same():
    model = replace(presets.TINY_QWEN3, compute_dtype="bfloat16")
    policy = policy_on(None, model)
    params = policy.init(jax.random.key(0))
    lean = for_rollouts(model, params)
    assert lean["layers"]["gate"].dtype == jnp.bfloat16 and lean["embedding"] is params["embedding"]
    rng = np.random.default_rng(0)
    prompts, suffixes = rng.integers(0, 50, (2, 8)), rng.integers(0, 50, (2, 3, 6))
    hidden = [policy.forward(p, prompts, np.array([8, 5]), suffixes) for p in (params, lean)]
    np.testing.assert_array_equal(*(np.float32(h) for h in hidden))


def test_what_cannot_train_together_is_refused(base):
    with pytest.raises(ConfigError, match="cold_start must be None where model.lora is given"):
        decoder(replace(of(base, lora=LORA), cold_start=CONFIG.cold_start))(200)
    with pytest.raises(ConfigError, match="the tokenizer has 9999 tokens, and .* embeds [0-9]+"):
        decoder(of(base))(9999)
    learner = decoder(of(base))(200)
    with pytest.raises(ConfigError, match="the run has no adapters"):
        learner.export("nowhere", {}, None, max_positions=9, base="base")


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, LORA])
def test_a_run_from_a_checkpoint_resumes_and_exports(base, tmp_path, lora):
    file = tmp_path / "configuration.py"
    config = replace(
        of(base, lora=lora), run_dir=str(tmp_path / "run"), tokenizer=partial(checkpoint_tokenizer, directory=base)
    )
    config = replace(config, rollout=replace(config.rollout, max_prompt_tokens=352))
    for stop in (1, 2):
        train(replace(config, max_steps=stop), resume=stop > 1, console=Console(file=io.StringIO()))
    file.write_text(
        "from dataclasses import replace\nfrom functools import partial\nfrom models.decoder import LoraConfig\n"
        "from rods_jax.codecs.tokenizer import checkpoint_tokenizer\nfrom models.families import Pretrained\n"
        f"import sys\nsys.path.insert(0, {str(ROOT / 'tests')!r})\nfrom test_train import CONFIG\n"
        f"CONFIG = replace(CONFIG, cold_start=None, model=Pretrained(directory={str(base)!r}, "
        f"compute_dtype='float32', lora={lora!r}))\n"
    )
    command = [sys.executable, "-m", "scripts.export", "--run-dir", config.run_dir, "--to", str(tmp_path / "out")]
    subprocess.run([*command, "--config", str(file)], check=True, cwd=ROOT)
    assert load_tokenizer(tmp_path / "out").get_vocab() == load_tokenizer(base).get_vocab()
    exported = weights.load_weights(tmp_path / "out", read_config(tmp_path / "out"))
    start = weights.load_weights(base, read_config(base))
    assert np.abs(exported["layers"]["query"] - start["layers"]["query"]).max() > 0
