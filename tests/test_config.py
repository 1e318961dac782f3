"""Configuration: every impossible value fails before any work, in one sentence that names the key."""

import dataclasses
import functools
import json
import math
import sys
from pathlib import Path

import pytest

from rods_jax.boundary import mean_band
from rods_jax.commands.common import options_of
from rods_jax.config import (
    ColdStartConfig,
    Config,
    ConfigError,
    EvaluationConfig,
    ReplaySettings,
    RolloutConfig,
    StageConfig,
    UpdateConfig,
    differences,
    load_config,
    plain_values,
    rollout_of,
)
from rods_jax.rewards import progress_reward

FILE = """
from dataclasses import dataclass
from functools import partial

from rods_jax.config import ColdStartConfig, Config, EvaluationConfig, Habits
from rods_jax.config import RolloutConfig, StageConfig, UpdateConfig
from rods_jax.rewards import format_reward, progress_reward


@dataclass(frozen=True)
class Shape:
    width: int = 128


def build_tasks(domain, seed, num_tasks):
    return num_tasks


CONFIG = Config(
    name="tiny",
    seed=0,
    run_dir="runs/tiny",
    learner=dict,
    model=Shape(),
    domain=dict,
    build_tasks=partial(build_tasks, num_tasks=4),
    tokenizer=list,
    codec=tuple,
    cold_start=ColdStartConfig(
        learning_rate=2e-3, habits=Habits(), batch_size=8, suffix_sizes=(64, 128),
        max_steps=100, target_reward=0.4, evaluate_every=10,
    ),
    stages=(
        StageConfig(name="format", reward=format_reward, epochs=1, synthesis=False, categories=("base",)),
        StageConfig(name="full", reward=progress_reward, epochs=5, synthesis=True),
    ),
    rollout=RolloutConfig(
        tasks_per_step=4, group_size=8, max_prompt_tokens=64, max_suffix_tokens=128, max_action_tokens=32,
        observation_chunk=16,
    ),
    update=UpdateConfig(learning_rate=1e-4, aggregate=max, ratio=max),
    evaluation=EvaluationConfig(num_tasks=16, every_epochs=5),
    checkpoint_every=10,
)
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "tiny.py").write_text(FILE)
    return tmp_path / "tiny.py"


@pytest.fixture
def config(path):
    return load_config(path)


def test_a_file_and_overrides_make_a_config(path):
    overrides = "--rollout.group-size 4 --rollout.top_k 20 --replay.upper=0.8 --replay.replace --seed 3"
    overrides += " --model.width 64 --stages.1.epochs 2 --cold_start.max_steps 7"
    config = load_config(path, overrides.split())
    assert (config.rollout.group_size, config.rollout.top_k, config.replay.upper, config.seed) == (
        4,
        20,
        0.8,
        3,
    )
    assert (config.model.width, config.stages[1].epochs, config.cold_start.max_steps) == (64, 2, 7)
    assert config.build_tasks(None, 0) == 4 and config.replay.replace
    assert config.max_steps is None and load_config(path, ["--max-steps", "3"]).max_steps == 3
    assert config.stages[0].categories == ("base",)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["--replay.uper", "0.8"], "--replay.uper"),
        (["--rollout.group-size", "many"], "--rollout.group-size"),
        (["--replay.upper", "0.1"], "replay.upper must be above replay.lower: got 0.1 <= 0.2"),
        (["--build-tasks", "x"], "--build-tasks"),
        (["--max-steps", "0"], "max_steps must be above 0: got 0"),
    ],
)
def test_a_wrong_override_exits_and_names_the_key(path, capsys, overrides, words):
    with pytest.raises(SystemExit) as exit_:
        load_config(path, overrides)
    assert exit_.value.code == 2
    assert words in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("group_size=8", "group_sise=8", r"tiny\.py, line \d+: RolloutConfig has no key group_sise"),
        ("seed=0,", "", r"tiny\.py, line \d+: Config needs the key 'seed'"),
        ("group_size=8", "group_size='8'", r"tiny\.py, line \d+: rollout.group_size must be int: got '8'"),
        ("CONFIG =", "CONFIGURATION =", r"tiny\.py must end in CONFIG = Config\(\.\.\.\): got None"),
        ("seed=0,", "seed=zero,", r"tiny\.py, line \d+: NameError: name 'zero' is not defined"),
        ("seed=0,", "seed=(,", r"tiny\.py, line \d+: SyntaxError"),
        ("import dataclass", "import dataclasss", r"tiny\.py, line 2: ImportError"),
    ],
)
def test_a_wrong_file_is_one_sentence_with_file_line_and_key(path, old, new, words):
    assert old in FILE
    path.write_text(FILE.replace(old, new, 1))
    with pytest.raises(ConfigError, match=words) as error:
        load_config(path)
    assert "\n" not in str(error.value)


def test_the_line_is_that_of_the_mistake(path):
    line = FILE[: FILE.index("    rollout=Roll")].count("\n") + 1
    path.write_text(FILE.replace("group_size=8", "group_size=1"))
    with pytest.raises(ConfigError, match=f"line {line}: rollout.group_size must be at least 2: got 1"):
        load_config(path)


def test_a_file_that_is_not_there(tmp_path):
    for name in ("nowhere.py", "tasks.jsonl"):
        with pytest.raises(ConfigError, match=f"{name} is not a Python file"):
            load_config(tmp_path / name)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("seed", True, "seed must be int: got True"),
        ("seed", -1, "seed must not be negative: got -1"),
        ("domain", "bfcl", "^domain must be a function: got 'bfcl'"),
        ("build_tasks", (), r"^build_tasks must be a function: got \(\)"),
        ("tokenizer", None, "^tokenizer must be a function: got None"),
        ("codec", "qwen", "^codec must be a function: got 'qwen'"),
        ("max_steps", 0, "^max_steps must be above 0: got 0"),
        ("max_steps", 1.5, "^max_steps must be int or None: got 1.5"),
        (
            "replay",
            ReplaySettings(capacity=0),
            "^replay.capacity must be above 0 where stages.full.synthesis is on: got 0",
        ),
        ("cold_start", 3, "cold_start must be ColdStartConfig or None: got 3"),
        ("stages", ("full",), "stages must be a tuple of StageConfig: got"),
        ("checkpoint_every", 0, "checkpoint_every must be above 0: got 0"),
        ("cold_start.target_reward", 1.5, "cold_start.target_reward must be between 0 and 1: got 1.5"),
        ("cold_start.learning_rate", 0.0, "cold_start.learning_rate must be above 0: got 0.0"),
        ("cold_start.batch_size", 0, "cold_start.batch_size must be above 0: got 0"),
        ("cold_start.max_steps", -1, "cold_start.max_steps must be above 0: got -1"),
        ("cold_start.evaluate_every", 0, "cold_start.evaluate_every must be above 0: got 0"),
        ("cold_start.rounds", 0, "cold_start.rounds must be above 0: got 0"),
        ("cold_start.observed_weight", -0.1, "cold_start.observed_weight must be between 0 and 1: got -0.1"),
        ("cold_start.suffix_sizes", (128, 64), r"cold_start.suffix_sizes must increase .*: got \(128, 64\)"),
        ("cold_start.suffix_sizes", (64, 64), r"cold_start.suffix_sizes must increase .*: got \(64, 64\)"),
        ("cold_start.suffix_sizes", (0, 64), r"cold_start.suffix_sizes must increase from above 0"),
        ("cold_start.suffix_sizes", (64.0,), "cold_start.suffix_sizes must be a tuple of int"),
        ("cold_start.suffix_sizes", [64, 128], "cold_start.suffix_sizes must be a tuple of int"),
        ("rollout.suffix_sizes", (96, 64), r"rollout.suffix_sizes must increase .*: got \(96, 64, 128\)"),
        ("rollout.suffix_sizes", (64, 128), r"rollout.suffix_sizes must increase .*: got \(64, 128, 128\)"),
        ("rollout.suffix_sizes", (-1,), "rollout.suffix_sizes must increase from above 0"),
        ("rollout.observation_chunk", 0, "rollout.observation_chunk must be above 0: got 0"),
        ("rollout.max_attempts", 0, "rollout.max_attempts must be above 0: got 0"),
        ("rollout.top_k", -1, "rollout.top_k must not be negative: got -1"),
        ("rollout.top_k", 2.0, "rollout.top_k must be int: got 2.0"),
        ("rollout.top_p", 1.2, "rollout.top_p must be at most 1: got 1.2"),
        ("rollout.temperature", float("nan"), "rollout.temperature must be above 0: got nan"),
        (
            "rollout.max_action_tokens",
            500,
            "rollout.max_action_tokens must be at most rollout.max_suffix_tokens",
        ),
        ("update.micro_batches", 0, "update.micro_batches must be above 0: got 0"),
        (
            "update.micro_batches",
            3,
            "update.micro_batches must divide rollout.tasks_per_step, or that and then rollout.group_size, as far as "
            "the mesh leaves them whole: got 3, 4 x 8, mesh None",
        ),
        ("update.learning_rate", float("inf"), "update.learning_rate must be above 0: got inf"),
        ("update.clip_low", 1.0, "update.clip_low must be below 1: got 1.0"),
        (
            "update.dual_clip",
            1.2,
            r"update.dual_clip must be above 1 \+ update.clip_high: got 1.2 <= 1 \+ 0.28",
        ),
        ("update.normalize", "mean", "update.normalize must be one of 'std', 'none': got 'mean'"),
        ("update.quotas", {"base": -1}, "update.quotas must not be negative: got {'base': -1}"),
        ("update.quotas", (4, 4), "update.quotas must be int or a mapping to int"),
        ("replay.lower", 1 / 3, "replay.lower must have at most four decimals: got 0.333"),
        ("replay.upper", 0.1, "replay.upper must be above replay.lower: got 0.1 <= 0.2"),
        ("replay.retire_above", 0.85, "replay.retire_above must be above replay.upper: got 0.85 <= 0.85"),
        ("replay.capacity", -1, "replay.capacity must not be negative: got -1"),
        ("replay.max_share", 0.0, "replay.max_share must be above 0: got 0.0"),
        ("replay.max_share", 1.5, "replay.max_share must be between 0 and 1: got 1.5"),
        ("replay.half_life", -1.0, "replay.half_life must not be negative: got -1.0"),
        ("update.signal", "variance", "update.signal must be a function: got 'variance'"),
        ("replay.injection_fraction", "0.2", "replay.injection_fraction must be float: got '0.2'"),
        ("evaluation.every_epochs", 2.0, "evaluation.every_epochs must be int: got 2.0"),
        ("evaluation.every_epochs", 0, "evaluation.every_epochs must be above 0: got 0"),
        ("evaluation.num_tasks", 0, "evaluation.num_tasks must be above 0: got 0"),
    ],
)
def test_an_impossible_value_names_its_key(config, key, value, words):
    with pytest.raises(ConfigError, match=words):
        if "." in key:
            part, name = key.split(".")
            value, key = dataclasses.replace(getattr(config, part), **{name: value}), part
        dataclasses.replace(config, **{key: value})


def test_a_stage_names_itself():
    with pytest.raises(ConfigError, match="stages.full.reward must be a function: got 'progress'"):
        StageConfig(name="full", reward="progress", epochs=1, synthesis=True)
    with pytest.raises(ConfigError, match="stages.full.epochs must be above 0: got 0"):
        StageConfig(name="full", reward=progress_reward, epochs=0, synthesis=True)
    with pytest.raises(ConfigError, match="stages.full.categories must name a stratum, or be None for all"):
        StageConfig(name="full", reward=progress_reward, epochs=1, synthesis=True, categories=())


def test_a_stage_may_have_lengths_of_its_own(config):
    """The update then pads to the sizes below its limit, and the rollout's own limit is one of them."""
    r = dataclasses.replace(config.rollout, max_suffix_tokens=128, suffix_sizes=(32, 64))
    stage = config.stages[0]
    longer, shorter = (dataclasses.replace(stage, max_suffix_tokens=size) for size in (512, 64))
    config = dataclasses.replace(config, rollout=r, stages=(longer,))
    assert rollout_of(config, stage) == r
    assert rollout_of(config, longer) == dataclasses.replace(r, max_suffix_tokens=512, suffix_sizes=(32, 64, 128))
    assert rollout_of(config, shorter) == dataclasses.replace(r, max_suffix_tokens=64, suffix_sizes=(32,))
    with pytest.raises(ConfigError, match=f"stages.{stage.name}: rollout.max_action_tokens must be at most"):
        dataclasses.replace(config, stages=(dataclasses.replace(stage, max_suffix_tokens=8),))
    with pytest.raises(ConfigError, match=f"stages.{stage.name}.max_prompt_tokens must be above 0: got 0"):
        dataclasses.replace(stage, max_prompt_tokens=0)


def test_a_long_value_is_cut_in_the_message(config):
    for key, what in (("domain", "a function"), ("update", "UpdateConfig")):
        with pytest.raises(ConfigError, match=rf"^{key} must be {what}: got Config\(name='.{{44}}\.\.\.$"):
            dataclasses.replace(config, **{key: config})


def test_two_stages_of_one_name_are_refused(config):
    with pytest.raises(ConfigError, match="stages must have different names"):
        dataclasses.replace(config, stages=config.stages[:1] * 2)


def test_a_pool_without_room_is_refused_only_where_synthesis_fills_it(config):
    closed = ReplaySettings(capacity=0)
    still = dataclasses.replace(config, replay=closed, stages=config.stages[:1])
    assert still.replay.capacity == 0
    assert dataclasses.replace(config, replay=ReplaySettings(capacity=1)).replay.capacity == 1


def test_a_required_key_has_no_default():
    for build in (ColdStartConfig, RolloutConfig, EvaluationConfig):
        required = {f.name for f in dataclasses.fields(build) if f.default is dataclasses.MISSING}
        assert required == {
            ColdStartConfig: {
                "learning_rate", "batch_size", "suffix_sizes", "max_steps", "target_reward", "evaluate_every"
            },
            RolloutConfig: {
                "tasks_per_step", "group_size", "max_prompt_tokens", "max_suffix_tokens", "max_action_tokens",
            },
            EvaluationConfig: {"num_tasks", "every_epochs"},
        }[build]  # fmt: skip


def test_the_resolved_config_is_json(path, config):
    record = plain_values(config)
    assert json.loads(json.dumps(record)) == record
    assert record["build_tasks"] == {
        "partial": f"{path.parent.name}.tiny:build_tasks",
        "args": [],
        "keywords": {"num_tasks": 4},
    }
    assert record["update"]["aggregate"] == "builtins:max"
    assert record["stages"][1]["reward"] == "rods_jax.rewards:progress_reward"
    assert record["model"] == {"width": 128}
    assert record["stages"][0]["categories"] == ["base"]


def test_infinity_is_written_as_a_word_that_is_the_same_again(config):
    """JSON has none, and a run whose settings cannot be read again cannot go on."""
    unclipped = dataclasses.replace(config, update=dataclasses.replace(config.update, dual_clip=math.inf))
    text = json.dumps(plain_values(unclipped), allow_nan=False)
    assert json.loads(text)["update"]["dual_clip"] == "inf"
    assert differences(json.loads(text), plain_values(unclipped)) == ()
    assert differences(json.loads(text), plain_values(config)) == ("update.dual_clip",)


def test_differences_are_the_keys_that_differ(config):
    changed = dataclasses.replace(
        config,
        seed=1,
        build_tasks=functools.partial(config.build_tasks, num_tasks=5),
        replay=dataclasses.replace(config.replay, upper=0.8),
        cold_start=None,
        stages=(config.stages[0], dataclasses.replace(config.stages[1], epochs=4)),
    )
    assert differences(plain_values(config), plain_values(config)) == ()
    assert differences(plain_values(config), plain_values(changed)) == (
        "seed", "build_tasks.keywords.num_tasks", "cold_start", "stages.1.epochs", "replay.upper"
    )  # fmt: skip


def test_defaults_are_the_published_ones():
    replay = ReplaySettings()
    assert (replay.capacity, replay.injection_fraction, replay.lower, replay.upper) == (400, 0.20, 0.20, 0.85)
    assert (replay.retire_above, replay.cooldown, replay.retire_seeds) == (0.95, 13, False)
    assert (replay.retire_generated, replay.max_share, replay.half_life) == (True, 1.0, 0.0)
    update = UpdateConfig(learning_rate=1e-6, ratio=max, aggregate=sum)
    assert update.signal is mean_band and update.quotas == 4
    assert StageConfig(name="a", reward=progress_reward, epochs=1, synthesis=True).refresh


def test_configs_are_frozen(config):
    assert {type(config.rollout), type(config.update), type(config.evaluation)} == {
        RolloutConfig, UpdateConfig, EvaluationConfig
    }  # fmt: skip
    for part in (config, config.rollout, config.update, config.replay, config.evaluation, config.cold_start):
        with pytest.raises(dataclasses.FrozenInstanceError):
            part.seed = 1
    assert isinstance(config, Config) and isinstance(config.cold_start, ColdStartConfig)


def test_a_relative_path_names_the_line_too_and_the_file_is_remembered(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    assert load_config(path.name).file == str(path.resolve())
    assert load_config(path.name, ["--seed", "9"]).file == str(path.resolve())
    path.write_text(FILE.replace("group_size=8", "group_size=1"))
    with pytest.raises(ConfigError, match=r"^tiny\.py, line [1-9]\d*: rollout.group_size"):
        load_config(path.name)
    path.write_text("import sys\nsys.exit('no licence')\n")
    with pytest.raises(ConfigError, match=r"tiny\.py, line 2: SystemExit: no licence"):
        load_config(path.name)


def test_what_lies_beside_a_config_can_be_imported(path, monkeypatch):
    monkeypatch.setattr("sys.path", [*sys.path])
    (path.parent / "my_own_tools.py").write_text("NAME = 'desk'\n")
    path.write_text("import my_own_tools\n" + FILE.replace('name="tiny"', "name=my_own_tools.NAME"))
    assert load_config(path).name == "desk"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    config: Path
    resume: bool = False


def test_one_help_lists_the_command_s_options_and_the_config_s_keys(path, capsys):
    prog = "python -m scripts.train"
    options, config = options_of(Options, prog, "About.", ["--config", str(path), "--resume", "--seed", "5"])
    assert options == Options(config=path, resume=True) and config.seed == 5 and config.file == str(path.resolve())
    with pytest.raises(SystemExit) as end:
        options_of(Options, prog, "About.", ["--config", str(path), "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert end.value.code == 0 and f"usage: {prog} --config {path} [-h]" in said
    assert (
        all(key in said for key in ("About.", "--resume", "--rollout.group-size", "--run-dir")) and "--file" not in said
    )
    with pytest.raises(SystemExit) as end:
        options_of(Options, prog, "About.", ["--resume"])
    assert end.value.code == 2 and "--config" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        options_of(Options, prog, "About.", ["--help"])
    assert "lists every key of it too" in " ".join(capsys.readouterr().out.split())
