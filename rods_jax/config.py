"""The configuration of a run: frozen dataclasses, one per stage, checked when they are built.

An experiment is a Python file that ends in `CONFIG = Config(...)`; the command line overrides
single keys.  A config passes a function itself, never its name.
"""

import dataclasses
import importlib.util
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import tyro

from rods_jax import sharding
from rods_jax.boundary import BAND, Detection, mean_band
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.fields import (
    ConfigError,
    check_types,
    completed,
    differences,
    fraction,
    increasing,
    line_of,
    not_negative,
    plain_values,
    positive,
    require,
    said_of,
)
from rods_jax.files import shown
from rods_jax.older import advice, saved_config
from rods_jax.types import Codec, Trajectory


class Habits(NamedTuple):
    """Probabilities of the demonstrator's imperfections, each per opportunity (demonstrations.py)."""

    stop_early: float = 0.0  # answers after the first call of a turn that needs several
    skip: float = 0.0  # answers without any call
    repeat: float = 0.0  # makes a call twice
    wrong_sibling: float = 0.0  # calls another visible tool of the class that takes the same arguments
    guess: float = 0.0  # calls where a value or a tool is missing, instead of asking


@dataclass(frozen=True, kw_only=True)
class ColdStartConfig:
    """Supervised learning on demonstrations until the validation tasks' mean progress reward reaches a target."""

    learning_rate: float  # after the warm-up; it falls to a tenth
    habits: Habits = Habits()  # of the demonstrator
    dialogues: Callable[[TaskSplits], Any] | None = None  # dialogue_files.recorded; None: demonstrations of practice
    batch_size: int  # dialogues a step
    suffix_sizes: tuple[int, ...]  # tokens; each size compiles once
    max_steps: int  # of the cold start
    target_reward: float  # sampled at temperature 1; stop here
    evaluate_every: int  # steps
    rounds: int = 2  # demonstrations of each practice task, each with habits of its own
    observed_weight: float = 0.1  # loss weight of tokens that the demonstrator only reads

    def __post_init__(self) -> None:
        check_types("cold_start", self)
        positive("cold_start", self, "learning_rate", "batch_size", "max_steps", "evaluate_every", "rounds")
        fraction("cold_start", self, "target_reward", "observed_weight")
        increasing("cold_start.suffix_sizes", self.suffix_sizes)


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage of the curriculum (RODS section 4)."""

    name: str  # in every line of metrics.jsonl
    reward: Callable[[Trajectory], float]  # rewards.progress_reward, or another of that module
    epochs: int  # passes over the pool
    synthesis: bool  # whether its seeds become variants
    refresh: bool = True  # False: seeds are chosen in the stage's first epoch alone
    categories: tuple[str, ...] | None = None  # strata of the domain; None: all
    max_prompt_tokens: int | None = None  # None: those of the rollout, and so are the next two
    max_suffix_tokens: int | None = None  # of the whole episode
    max_action_tokens: int | None = None  # of one assistant message
    explain_failures: bool = False  # the policy reads the domain's hint after a failed call (environments/hints.py)
    warn_of_calls: bool = False  # ... and a warning after a turn that a call where none was asked for has failed

    def __post_init__(self) -> None:
        key = f"stages.{self.name}"
        check_types(key, self)
        positive(key, self, "epochs", "max_prompt_tokens", "max_suffix_tokens", "max_action_tokens")
        require(self.categories != (), f"{key}.categories must name a stratum, or be None for all")


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """How a batch of N tasks is rolled out G times each (RODS section 1.4)."""

    tasks_per_step: int  # N
    group_size: int  # G
    group_sizes: Callable[[Any, int], Any] | None = None  # of each task, samplers.by_difficulty; None: G
    max_prompt_tokens: int  # P
    max_suffix_tokens: int  # S, the whole episode
    max_action_tokens: int  # one assistant message
    observation_chunk: int = 64  # observations enter the cache this many tokens at a time
    suffix_sizes: tuple[int, ...] = ()  # the update pads to the smallest that fits; each size compiles once
    max_unfit_share: float | None = None  # of the tasks may need more tokens than these limits, or the run is refused
    max_attempts: int = 5  # a user turn is closed when its attempts exceed this
    temperature: float = 1.0  # of sampling in training
    top_p: float = 1.0  # 1: all tokens
    top_k: int = 0  # 0: all tokens
    concurrent_tasks: int = 0  # tasks on the devices of a process at a time; 0: all of its share of a step
    concurrent_rollouts: int = 0  # of each of them, one after the other in as many rows; 0: all of its group
    environment_workers: int = 0  # processes that step the environments; 0: the run's own
    keep: Callable[[Any, int], bool] | None = None  # which groups to learn from, filtering.mixed; None: all
    refill: float = 3.0  # with `keep`, a step plays at most so many times tasks_per_step tasks
    weights: Callable[[Any, Any], Any] | None = None  # which tasks are drawn for a step, samplers.py; None: epochs
    replay_success: bool = False  # where all rollouts fail, one makes room for the task's latest success (successes.py)

    def __post_init__(self) -> None:
        check_types("rollout", self)
        positive("rollout", self, "tasks_per_step", "max_prompt_tokens", "max_suffix_tokens")
        positive("rollout", self, "max_action_tokens", "observation_chunk", "max_attempts")
        positive("rollout", self, "temperature", "top_p")
        not_negative("rollout", self, "top_k", "concurrent_tasks", "concurrent_rollouts", "environment_workers")
        increasing("rollout.suffix_sizes", (*self.suffix_sizes, self.max_suffix_tokens))
        require(self.group_size >= 2, f"rollout.group_size must be at least 2: got {self.group_size}")
        fraction("rollout", self, "max_unfit_share")
        require(1 <= self.refill < math.inf, f"rollout.refill must be a number of at least 1: got {self.refill}")
        require(self.top_p <= 1, f"rollout.top_p must be at most 1: got {self.top_p}")
        action, suffix = self.max_action_tokens, self.max_suffix_tokens
        sentence = f"rollout.max_action_tokens must be at most rollout.max_suffix_tokens: got {action} > {suffix}"
        require(action <= suffix, sentence)


@dataclass(frozen=True, kw_only=True)
class UpdateConfig:
    """The GRPO update (RODS section 3)."""

    learning_rate: float  # after the warm-up
    ratio: Callable[[jax.Array, jax.Array], jax.Array]  # grpo.token_ratio or grpo.sequence_ratio
    aggregate: Callable[
        [jax.Array, jax.Array, Any], jax.Array
    ]  # grpo.sequence_mean, grpo.token_mean or grpo.group_mean
    signal: Callable[..., Detection] = mean_band  # which tasks are at the boundary; boundary.py has others
    warmup_steps: int = 0  # of linear warm-up, at each stage's start
    weight_decay: float = 0.0  # AdamW's, of matrices alone
    max_grad_norm: float = 1.0  # the gradient's global norm is cut to this
    clip_low: float = 0.2  # ratios below 1 - clip_low count as that
    clip_high: float = 0.28  # ratios above 1 + clip_high count as that
    dual_clip: float = 10.0  # where A < 0, the loss is at most this times |A|
    kl_coefficient: float = 0.01  # 0: the reference policy is never run
    entropy_coefficient: float = 0.001  # 0: the entropy is never computed
    normalize: Literal["std", "none"] = "std"  # "none": mean-centred advantages (Dr. GRPO, arXiv 2503.20783)
    subset: Callable[..., jax.Array] | None = None  # which rollouts of a group to learn from, max_variance; None: all
    count_dropped: bool = False  # groups that rollout.keep dropped count in the mean of the loss
    mask_truncated: bool = False  # episodes that a limit cut off are in their groups' means, and not in the loss
    mask_user_errors: bool = False  # conversations that failed by their user's fault are as if they had not been played
    micro_batches: int = 1  # parts whose gradients are added up: as the whole batch, with a part's activations
    on_nonfinite: Literal["skip", "stop"] = "skip"  # what NaN or Inf does to the step, or to the run
    quotas: int | dict[str, int] = 4  # seeds per step of each stratum; by name, those that are not named get none

    def __post_init__(self) -> None:
        check_types("update", self)
        positive("update", self, "learning_rate", "max_grad_norm", "clip_low", "clip_high", "micro_batches")
        not_negative("update", self, "warmup_steps", "weight_decay", "kl_coefficient", "entropy_coefficient")
        require(self.clip_low < 1, f"update.clip_low must be below 1: got {self.clip_low}")
        require(
            self.dual_clip > 1 + self.clip_high,
            f"update.dual_clip must be above 1 + update.clip_high: got {self.dual_clip} <= 1 + {self.clip_high}",
        )
        numbers = self.quotas.values() if isinstance(self.quotas, dict) else [self.quotas]
        require(all(count >= 0 for count in numbers), f"update.quotas must not be negative: got {self.quotas}")


@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """The life cycle of generated tasks (RODS sections 2.2, 2.3 and 6); r is the mean reward."""

    capacity: int = 400  # P_max: generated items, human seeds not counted
    injection_fraction: float = 0.20  # of the active pool, at each epoch's start
    surplus: float = 1.0  # variants that are written for each that can enter then; above 1 there is a choice
    max_age: int = 30  # steps since its seed was chosen after which a waiting candidate leaves, stale
    nearest_first: bool = False  # enter first: candidates of seeds that are foreseen to lie nearest the boundary
    lower: float = BAND[0]  # r < lower: hard, a generated item leaves
    upper: float = BAND[1]  # lower <= r <= upper: boundary
    retire_above: float = 0.95  # r > retire_above: mastered, the item leaves
    retire_generated: bool = True  # False: what was injected stays, hard or mastered
    retire_stuck: bool = False  # True: what was injected leaves where all rollouts passed equally many checks, too
    retire_seeds: bool = False  # True: mastered human seeds leave too
    replace: bool = False  # True: a full pool makes room by pruning its lowest boundary scores
    cooldown: int = 13  # steps before a task may be a seed again
    max_share: float = 1.0  # of the pool, that one class or one call pattern may grow to by injection
    half_life: float = 0.0  # steps in which a measurement loses half its weight in r; 0: r is the latest
    history: int = 4  # latest measurements kept of each item
    log_size: int = 100  # latest retirements kept; the counts are complete

    def __post_init__(self) -> None:
        check_types("replay", self)
        not_negative("replay", self, "capacity", "cooldown", "half_life")
        positive("replay", self, "surplus", "max_age", "max_share", "history", "log_size")
        fraction("replay", self, "injection_fraction", "lower", "upper", "retire_above", "max_share")
        for low, high in (("lower", "upper"), ("upper", "retire_above")):
            a, b = getattr(self, low), getattr(self, high)
            require(a < b, f"replay.{high} must be above replay.{low}: got {b} <= {a}")
            # The device compares turn counts with these fractions in int32.
            require(round(a, 4) == a, f"replay.{low} must have at most four decimals: got {a}")


@dataclass(frozen=True, kw_only=True)
class SynthesisConfig:
    """Language models write the variants beside the trainer (RODS sections 5 and 7)."""

    backends: Callable[[], Mapping[str, Callable]]  # each role's chat.Generate
    roles: Callable[[Mapping[str, Callable]], Any] | None = None  # of the five stages: synthesis.llm.llm_roles
    author: Callable[[Domain], Callable] | None = None  # in place of roles: to an author.Write of one's own
    attempts: int = 3  # for each seed
    at_once: bool = False  # the trainer writes itself, between two steps: for an author that waits for nobody
    workers: int = 8  # seeds at a time in the trainer's process; 0: those of scripts.synthesize alone

    def __post_init__(self) -> None:
        check_types("synthesis", self)
        require(self.workers > 0 or not self.at_once, "synthesis.at_once needs synthesis.workers above 0")
        require((self.roles is None) != (self.author is None), "synthesis needs roles, or an author of one's own")
        positive("synthesis", self, "attempts")
        not_negative("synthesis", self, "workers")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Held-out evaluation, once sampled at temperature 1 and once greedy."""

    num_tasks: int  # a sample with a share of each category (held_out.sample_tasks); so many validation tasks too
    every_epochs: int  # and at the end
    concurrent_tasks: int = 0  # on the devices of a process at a time; 0: as many as there are rollouts in training

    def __post_init__(self) -> None:
        check_types("evaluation", self)
        positive("evaluation", self, "num_tasks", "every_epochs")
        not_negative("evaluation", self, "concurrent_tasks")


@dataclass(frozen=True, kw_only=True)
class RetentionConfig:
    """Which checkpoints stay."""

    latest: int = 2  # so many of the newest
    every: int | None = None  # steps: those of every such step
    best: int = 0  # those with the highest progress on the validation tasks, never on the held-out ones

    def __post_init__(self) -> None:
        check_types("retention", self)
        positive("retention", self, "latest", "every")
        not_negative("retention", self, "best")


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run."""

    name: str  # of the experiment
    seed: int  # every random number follows from it, the step, the task and the rollout
    run_dir: str  # where the run writes
    domain: Callable[[], Domain]  # the world: its tools, rules and strata
    build_tasks: Callable[[Domain, int], TaskSplits]  # from the domain and the seed
    tokenizer: Callable[[Iterable[str]], Any]  # from a run's texts to a transformers tokenizer
    codec: Callable[[Any], Codec]  # of the tokenizer
    learner: Callable[..., Callable[[int], Any]]  # (config, checkpoint=None) -> (vocab_size) -> Learner
    model: Any = None  # what the learner reads: models.decoder.DecoderConfig or models.families.Pretrained
    mesh: tuple[int, ...] | None = None  # devices along data, fsdp, tensor, sequence (sharding.py); None: one device
    flash_attention: bool = False  # TPU's own kernel attends, in the update and the prefill (models/flash.py)
    cold_start: ColdStartConfig | None  # None: the policy starts as the learner makes it
    stages: tuple[StageConfig, ...]  # of the curriculum, in their order; none: the cold start is all
    rollout: RolloutConfig  # below, as all that follow
    update: UpdateConfig  # the objective and the optimizer
    evaluation: EvaluationConfig  # on held-out tasks
    replay: ReplaySettings = field(default_factory=ReplaySettings)  # the pool of variants
    synthesis: SynthesisConfig | None = None  # None: the rule-based author, at once
    checkpoint_every: int  # steps; and at the end of each epoch
    stop_seconds: float = 25.0  # that the step under way may take after a signal; longer, it ends unsaved
    retention: RetentionConfig = field(default_factory=RetentionConfig)  # which checkpoints stay
    writers: tuple[Callable[[Path], AbstractContextManager], ...] = ()  # where else metrics go: dashboards.py has three
    max_steps: int | None = None  # stop early, ready to be resumed
    max_rollouts: int | None = None  # the same after the step in which so many were generated, dropped ones too
    file: tyro.conf.Fixed[str | None] = None  # where it was read, so that other commands find it again

    def __post_init__(self) -> None:
        check_types("", self)
        not_negative("", self, "seed")
        positive("", self, "checkpoint_every", "stop_seconds", "max_steps", "max_rollouts")
        require(
            self.mesh is None or len(self.mesh) == 4 and min(self.mesh) > 0,
            f"mesh must be 4 numbers above 0: got {self.mesh}",
        )
        r, count = self.rollout, self.update.micro_batches
        require(
            sharding.micro_batch_cuts(count, r.tasks_per_step, r.group_size, self.mesh or (1, 1, 1, 1)),
            "update.micro_batches must divide rollout.tasks_per_step, or that and then rollout.group_size, as far as "
            f"the mesh leaves them whole: got {count}, {r.tasks_per_step} x {r.group_size}, mesh {self.mesh}",
        )
        by_table = self.rollout.weights is not None or self.rollout.group_sizes is not None
        sentence = "replay.history must be above 1 where rollout.weights draws, or rollout.group_sizes decides"
        require(not by_table or self.replay.history > 1, sentence)
        names = [stage.name for stage in self.stages]
        require(names or self.cold_start, "stages may be empty only where a cold_start is all there is to learn")
        require(len(set(names)) == len(names), f"stages must have different names: got {names}")
        for stage in self.stages:  # what a stage's seeds grow into needs room in the pool
            rollout_of(self, stage)  # whose lengths go together
            require(
                self.replay.capacity > 0 or not stage.synthesis,
                f"replay.capacity must be above 0 where stages.{stage.name}.synthesis is on: "
                f"got {self.replay.capacity}",
            )


def rollout_of(config: Config, stage: StageConfig) -> RolloutConfig:
    """The rollouts of a stage, with its own lengths. Raises ConfigError where they do not go together."""
    r, names = config.rollout, ("max_prompt_tokens", "max_suffix_tokens", "max_action_tokens")
    lengths = {name: value for name in names if (value := getattr(stage, name)) is not None}
    longest = lengths.get("max_suffix_tokens", r.max_suffix_tokens)
    sizes = tuple(size for size in (*r.suffix_sizes, r.max_suffix_tokens) if size < longest)
    try:
        return dataclasses.replace(r, **lengths, suffix_sizes=sizes)
    except ConfigError as error:
        raise ConfigError(f"stages.{stage.name}: {error}") from error


def rollouts_of(config: Config) -> dict[str, RolloutConfig]:
    """The rollouts of a run by where they are played: in each stage, and in its evaluations."""
    stages = {f"stages.{stage.name}": rollout_of(config, stage) for stage in config.stages}
    return stages | {"evaluations": config.rollout}


def positions_of(config: Config) -> dict[str, int]:
    """The most tokens of a prompt and its suffix, by where they are read: as `rollouts_of`, and in the cold start."""
    most = {where: r.max_prompt_tokens + r.max_suffix_tokens for where, r in rollouts_of(config).items()}
    c = config.cold_start
    return most if c is None else most | {"cold_start": config.rollout.max_prompt_tokens + max(c.suffix_sizes)}


def most_tasks(r: RolloutConfig) -> int:
    """Tasks that a step plays at most: with `keep`, until enough of them are kept."""
    return r.tasks_per_step if r.keep is None else int(r.refill * r.tasks_per_step)


# ------------------------------------------------------------------------- reading and comparing
def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The CONFIG of a config file, with `--rollout.group-size 4` and the like applied.

    ConfigError: as for `from_file`. A wrong override exits with the message that tyro prints.
    """
    return parse_options(Config, from_file(path), str(path), overrides)


def parse_options(
    kind: type, default: Any, prog: str, args: Sequence[str] | None, description: str | None = None
) -> Any:
    """A dataclass whose fields are options of the command line; help and mistakes exit with what tyro prints."""
    markers = (tyro.conf.AvoidSubcommands, tyro.conf.SuppressFixed)
    return tyro.cli(kind, default=default, args=args, prog=prog, description=description, config=markers)


def from_file(path: str | Path, kind: type[Any] = Config) -> Any:
    """Runs a config file and takes its CONFIG. What lies beside the file can be imported, by it and by workers.

    Anything wrong in the file raises ConfigError with file, line and key.
    """
    folder = str(Path(path).resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = f"{Path(path).resolve().parent.name}.{Path(path).stem}"  # as an import would name it
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise ConfigError(f"{path} is not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{path}, {line_of(path, error)}: {advice(said_of(error))}") from error
    config = getattr(module, "CONFIG", None)
    if not isinstance(config, kind):
        raise ConfigError(f"{path} must end in CONFIG = {kind.__name__}(...): got {shown(config)}")
    return dataclasses.replace(config, file=str(Path(path).resolve()))


def require_same_run(config: Config, directory: str | Path) -> None:
    """ConfigError: the folder holds no run, or one that a configuration with other results has started."""
    changed = set(differences(completed(saved_config(directory), config), plain_values(config)))
    # Where it runs and how far, who helps, when it saves and stops, and what is kept change nothing of what it learns.
    changed -= {"max_steps", "max_rollouts", "run_dir", "file", "synthesis.workers"}
    changed -= {"checkpoint_every", "stop_seconds", "update.on_nonfinite"}
    changed = {key for key in changed if key.split(".")[0] not in ("mesh", "retention", "writers")}
    if changed:
        raise ConfigError(f"{directory} was started with another {', '.join(sorted(changed))}")
