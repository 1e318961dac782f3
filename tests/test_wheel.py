"""What a wheel's user has: a run from a file of his own, with our decoder and with a policy of his own, and `rods`."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from wheels import build_wheel

MINE = '''
import random
from functools import partial

import jax, jax.numpy as jnp
from rods_jax import grpo, run
from rods_jax.codecs.documents import tool_name
from rods_jax.codecs.qwen import qwen_codec
from rods_jax.codecs.tokenizer import train_tokenizer
from rods_jax.config import Config, EvaluationConfig, ReplaySettings, RolloutConfig, StageConfig, UpdateConfig
from rods_jax.environments.protocol import TaskSplits
from rods_jax.environments.workplace.domain import WORKPLACE
from rods_jax.rewards import progress_reward
from rods_jax.synthesis.pipeline import author_tasks
from rods_jax.types import Policy
from rods_jax_models.decoder import DecoderConfig
from rods_jax_models.learner import decoder

WIDTH, VOCABULARY = 8, 400


def build_tasks(domain, seed):
    tasks = author_tasks(domain, count=4, rng=random.Random(seed), turns=(1, 1), calls_per_turn=(1, 1))
    return TaskSplits(seeds=tasks[:2], held_out=tasks[2:])


def bag_of_words(params, tokens, start=0.0):
    """A hidden state that is the sum of all embeddings so far."""
    return start + jnp.cumsum(params["embedding"][tokens], axis=-2)


def prefill(params, prompt_tokens_NP, prompt_lengths_N, suffix_tokens):
    hidden_NPD = bag_of_words(params, prompt_tokens_NP)
    last_ND = jnp.take_along_axis(hidden_NPD, prompt_lengths_N[:, None, None] - 1, axis=1)[:, 0]
    return last_ND, last_ND


def extend(params, prompts_ND, suffixes, seen_NG, tokens_NGT, lengths_NG, rows_NC=None):
    sums_NGD = suffixes["sums_NGD"]
    part = sums_NGD if rows_NC is None else jnp.take_along_axis(sums_NGD, rows_NC[..., None], axis=1)
    hidden_NGTD = bag_of_words(params, tokens_NGT, part[..., None, :] + prompts_ND[:, None, None])
    heard_NGT = (jnp.arange(tokens_NGT.shape[-1]) < lengths_NG[..., None])[..., None]
    added = jnp.sum(params["embedding"][tokens_NGT] * heard_NGT, axis=-2)
    if rows_NC is None:
        return hidden_NGTD, {"sums_NGD": sums_NGD + added}
    rows_N1 = jnp.arange(len(rows_NC))[:, None]
    return hidden_NGTD, {"sums_NGD": sums_NGD.at[rows_N1, rows_NC].add(added)}


def forward(params, prompt_tokens_NP, prompt_lengths_N, suffix_tokens_NGS):
    last_ND, _ = prefill(params, prompt_tokens_NP, prompt_lengths_N, 0)
    before_NGSD = bag_of_words(params, suffix_tokens_NGS) - params["embedding"][suffix_tokens_NGS]
    return last_ND[:, None, None] + before_NGSD


OWN = Policy(
    init=lambda key: {"embedding": 0.1 * jax.random.normal(key, (VOCABULARY, WIDTH))},
    forward=forward,
    unembedding=lambda params: params["embedding"],
    prefill=prefill,
    empty=lambda tasks, group, capacity: {"sums_NGD": jnp.zeros((tasks, group, WIDTH))},
    extend=extend,
)


def own(config, checkpoint=None):
    return lambda vocab_size: run.on_one_device(OWN)


CONFIG = Config(
    name="mine", seed=0, run_dir="", domain=lambda: WORKPLACE, build_tasks=build_tasks,
    tokenizer=partial(train_tokenizer, vocab_size=VOCABULARY), codec=partial(qwen_codec, document=tool_name),
    learner=decoder, model=DecoderConfig(VOCABULARY, 1, 16, 2, 1, 8, 16), cold_start=None,
    stages=(StageConfig(name="online", reward=progress_reward, epochs=1, synthesis=True),),
    rollout=RolloutConfig(
        tasks_per_step=2, group_size=2, max_prompt_tokens=128, max_suffix_tokens=64, max_action_tokens=16,
        observation_chunk=16, max_attempts=1,
    ),
    update=UpdateConfig(learning_rate=1e-3, ratio=grpo.token_ratio, aggregate=grpo.sequence_mean),
    replay=ReplaySettings(capacity=4), evaluation=EvaluationConfig(num_tasks=2, every_epochs=1), checkpoint_every=9,
)
'''  # fmt: skip

TRAIN = """
from dataclasses import replace
from mine import CONFIG, own
from rods_jax import run

for name, learner, model in (("decoder", CONFIG.learner, CONFIG.model), ("own", own, None)):
    summary = run.train(replace(CONFIG, run_dir=name, learner=learner, model=model))
    assert summary["steps"] == 1, summary
result = run.evaluate(run.Evaluation(player="gold", tasks="workplace", num_tasks=2))
assert result["scores"]["rows"]["all tasks"]["rods"]["mean"] == 1.0, result
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that holds what the wheel installs, and nothing of the checkout."""
    directory = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(build_wheel(directory)) as wheel:
        wheel.extractall(directory / "installed")
    return directory / "installed"


def python(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": f"{installed}{os.pathsep}{cwd}", "COLUMNS": "200"}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


def test_a_user_of_the_wheel_trains_a_decoder_and_a_policy_of_his_own(installed, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "train.py").write_text(TRAIN)
    ended = python(installed, tmp_path, "-W", "error", "train.py")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for name in ("decoder", "own"):
        assert json.loads((tmp_path / name / "summary.json").read_text())["steps"] == 1


def test_rods_lists_its_commands_and_runs_them(installed, tmp_path):
    rods = "import sys; from rods_jax.commands.main import main; sys.argv[0] = 'rods'; main()"
    listed = python(installed, tmp_path, "-c", rods)
    assert listed.returncode == 0 and {"train", "evaluate", "export", "plan", "check", "report"} <= {
        *listed.stdout.split()
    }
    assert "usage: rods train" in python(installed, tmp_path, "-c", rods, "train", "--help").stdout
    assert "--topology" in python(installed, tmp_path, "-c", rods, "plan", "--help").stdout
    unknown = python(installed, tmp_path, "-c", rods, "tarin")
    assert unknown.returncode == 2 and "no command 'tarin'" in unknown.stderr and "train" in unknown.stderr
    (tmp_path / "mine.py").write_text(MINE)
    checked = python(installed, tmp_path, "-c", rods, "check", "--config", "mine.py")
    assert checked.returncode == 0 and "a run could start with this" in checked.stdout, checked.stdout + checked.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["mine.py"]


def test_a_new_environment_can_start(installed, tmp_path):
    rods = "import sys; from rods_jax.commands.main import main; sys.argv[0] = 'rods'; main()"
    made = python(installed, tmp_path, "-c", rods, "new", "tea_shop")
    assert made.returncode == 0 and "rods train --config tea_shop/config.py" in made.stdout, made.stdout + made.stderr
    config = tmp_path / "tea_shop" / "config.py"
    assert "from rods_jax_models.learner import decoder" in config.read_text()
    config.write_text(config.read_text().replace("PRACTICE = 3000", "PRACTICE = 40"))
    checked = python(installed, tmp_path, "-c", rods, "check", "--config", "tea_shop/config.py")
    assert checked.returncode == 0 and "a run could start with this" in checked.stdout, checked.stdout + checked.stderr
    assert "40 seeds, 64 held_out, 40 practice, 32 validation tasks" in checked.stdout
    assert "the cold start has 40 demonstrations: a policy from scratch needs thousands" in checked.stdout
