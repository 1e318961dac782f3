"""The policy of a run, or of a checkpoint's directory, as a player of evaluations."""

import itertools
import json
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rods_jax import checkpoint, processes
from rods_jax import config as configuration
from rods_jax.codecs.tokenizer import load_tokenizer
from rods_jax.config import Config, ConfigError
from rods_jax.dialogue import Act, Difference, Move, Record, Said, Stop, play
from rods_jax.environments.episode import openings_of, start_episodes
from rods_jax.environments.protocol import Domain, Failure, Opening, Rules
from rods_jax.files import read_object
from rods_jax.generation import Sampling
from rods_jax.keys import seed_key
from rods_jax.older import saved_config
from rods_jax.records import decode, encode
from rods_jax.rewards import PARSE_ERROR, progress_reward
from rods_jax.rollout import collect
from rods_jax.run.directory import require_same_inputs
from rods_jax.run.learner import Learner, frozen_inputs
from rods_jax.run.measure import EVALUATION
from rods_jax.run.players import Jobs, PlayJobs
from rods_jax.run.playing import evaluation_player
from rods_jax.types import Action, Json, Message, Task, Trajectory

# Keys of a rollout that say what training draws: functions, which no evaluation reads.
_DRAWN = ("keep", "weights", "group_sizes")


class Played(NamedTuple):
    """What plays: `name` is printed with every score, and the noise of its rollouts follows `step`."""

    name: str
    step: int
    config: Config
    tokenizer: Any
    learner: Learner
    params: Any  # whole


def is_checkpoint(directory: Path) -> bool:
    """Whether a directory holds weights as transformers writes them; a run's config.json names no model type."""
    path = directory / "config.json"
    return path.is_file() and "model_type" in read_object(path)


def playing_config(directory: Path, path: Path | None) -> Config:
    """A run's own configuration, or the one that says how a checkpoint plays: its domain, codec and limits.

    ConfigError: there is none, or it is another run's.
    """
    if not is_checkpoint(directory):
        return run_config(directory, path)
    if path is None:
        raise ConfigError(
            f"{directory} is a checkpoint: name in --config what says how it plays, e.g. configs/bfcl_qwen3_4b.py"
        )
    config = configuration.load_config(path)
    return replace(config, cold_start=None, flash_attention=False)


def played(directory: Path, config: Config) -> Played:
    """Reads the newest checkpoint of a run, or a checkpoint's weights; CheckpointError, ConfigError."""
    bare = is_checkpoint(directory)
    make_learner = config.learner(config, directory if bare else None)
    tokenizer = load_tokenizer(directory if bare else directory / "tokenizer")
    learner = make_learner(len(tokenizer))
    if bare:
        name, step, params = f"{directory} by {config.name}", 0, learner.policy.init(seed_key(config.seed))
    else:
        step, params = newest(directory, learner)
        name = f"{directory} step {step}"
    return Played(name, step, config, tokenizer, learner, learner.whole(params))


def run_config(directory: Path, path: Path | None) -> Config:
    """The configuration of a run: functions from its config file, which it remembers, values from the run directory."""
    saved = saved_config(directory, name=str, seed=int, model=dict, rollout=dict)
    config = configuration.load_config(path or _config_file(directory, saved))
    try:
        sizes = {"suffix_sizes": tuple(saved["rollout"]["suffix_sizes"])}
        config = replace(
            config,
            seed=saved["seed"],
            model=config.model and replace(config.model, **_plain(saved["model"], config.model)),
            rollout=replace(config.rollout, **{k: v for k, v in saved["rollout"].items() if k not in _DRAWN} | sizes),
            # Nobody who reads a run updates it, and the file's number may not divide the run's sizes.
            update=replace(config.update, micro_batches=1),
            flash_attention=False,  # what TPUs trained plays and is exported anywhere
        )
    except (KeyError, TypeError, AttributeError) as error:  # another model's keys, or another version's
        raise ConfigError(f"{directory / 'config.json'} is not of the config {config.file}: {error}") from error
    now = configuration.plain_values(config)
    for key in ("domain", "codec"):
        if changed := configuration.differences(_functions(saved[key]), _functions(now[key]), key):
            raise ConfigError(f"{directory} was trained with another {', '.join(changed)}: name its file in --config")
    return config


def _config_file(directory: Path, saved: Mapping[str, Json]) -> Path:
    """The file that the run was started with, or configs/NAME.py. It is code, so a run directory, which is data and may
    be somebody else's, cannot bring one. ConfigError: there is none."""
    name, file = saved["name"], saved.get("file")
    candidates = [Path(file)] if isinstance(file, str) and Path(file).is_absolute() else []
    candidates += [Path("configs") / f"{name}.py"] if name.isidentifier() else []
    for path in candidates:
        if path.is_file() and directory.resolve() not in path.resolve().parents:
            return path
    raise ConfigError(f"the config file of {directory}, {file or name}, is not there: name it in --config")


def _plain(resolved: Json, model: Any) -> Json:
    """The saved values of a model, those of its parts too (adapters, the scaling of positions); functions are the file's.

    TypeError: the file's model lacks a part.
    """
    values: dict[str, Any] = {}
    for key, value in resolved.items():
        own = getattr(model, key)
        if isinstance(value, dict) and own is None:
            raise TypeError(f"its model has {key}, and the file's has none")
        if isinstance(value, dict) and is_dataclass(own) and not isinstance(own, type):
            values[key] = replace(own, **_plain(value, own))
        elif not isinstance(value, dict) and not callable(own):
            values[key] = tuple(value) if isinstance(own, tuple) else value
    return values


def begun_with(
    directory: str, learner: Callable[..., Callable[[int], Learner]], config: Config, checkpoint: Path | None = None
) -> Callable[[int], Learner]:
    """A config's `learner` that begins with the newest policy of a run of the same model.

    ConfigError: there is no such run.
    """
    if not (Path(directory) / "checkpoints").is_dir():
        raise ConfigError(f"no run in {directory}, whose policy this one begins with: train it first")
    make_own = learner(config, checkpoint)

    def make(vocab_size: int) -> Learner:
        own = make_own(vocab_size)
        begun = own.policy._replace(init=lambda key: newest(Path(directory), own)[1])
        return own._replace(policy=begun, random_weights=False)

    return make if checkpoint is None else make_own


def newest(directory: Path, learner: Learner) -> tuple[int, Any]:
    """(step, what trains) of a run's newest checkpoint. ConfigError: it was trained beside other frozen weights."""
    checkpoints = directory / "checkpoints"
    step, params = checkpoint.read_params(checkpoints, learner.shapes, tell=lambda it: print(it, file=sys.stderr))
    if frozen := frozen_inputs(learner):
        host = processes.on_first(lambda: checkpoint.read_host(checkpoints / str(step)))
        require_same_inputs(frozen, host.get("inputs", {}), directory)
    return step, params


def _functions(resolved: Json) -> Json:
    """Without the modules of functions: files and modules move."""
    return json.loads(re.sub(r'"[\w.]+:(\w+)"', r'"\1"', json.dumps(resolved)))


def policy_player(
    own: Played,
    domain: Domain,
    tasks: Sequence[Task],
    *,
    rollouts: int,
    sampling: Sampling,
    seed: int,
    rules: Rules,
) -> PlayJobs:
    """Plays `tasks` on the devices of this process; noise is that of a run's own evaluations."""
    config, learner, num_tokens = own.config, own.learner, len(own.tokenizer)
    codec = config.codec(own.tokenizer)
    if rules.reads_as_leaderboard:
        codec = codec._replace(parse=codec.official)
    start = partial(start_episodes, domain, rules=rules)
    limit = config.rollout.max_prompt_tokens

    def fits(opening: Opening | Failure) -> bool:
        if isinstance(opening, Failure):
            return True
        return len(codec.encode_prompt(opening.tools, opening.user, opening.policy, opening.greeting)) <= limit

    # As many begin at a time as in training.
    openings = openings_of(start, tasks, config.rollout.tasks_per_step)
    fitting = {task.id: task for task, one in zip(tasks, openings, strict=True) if fits(one)}
    playing = evaluation_player(config, learner, codec, num_tokens, len(fitting), rollouts)
    playing = playing._replace(sampling=sampling)
    # Batches do not depend on what is left to play, so that a continued evaluation computes the same numbers.
    size = 4 * playing.slots * learner.hosts  # so that few slots are empty at a batch's end
    batches = [list(fitting.values())[i : i + size] for i in range(0, len(fitting), size)]

    def play_all(jobs: Jobs) -> Iterator[Record]:
        pending = {(task.id, rollout) for task, rollout in jobs}
        too_long = Stop(truncated=f"the prompt is longer than {limit} tokens")
        for task, rollout in jobs:  # a limit of the policy: left out of the scores it would flatter them
            if task.id not in fitting:
                yield play(domain, task, rollout, lambda _: too_long, rules)
        for batch in batches:
            if not any((task.id, rollout) in pending for task in batch for rollout in range(rollouts)):
                continue
            # Every process plays its share, and all of them hear of all.
            here = play_batch(processes.share_of(batch), pending)
            for line in itertools.chain.from_iterable(processes.gather([encode(record) for record in here])):
                yield decode(Record, line)

    def play_batch(batch: Sequence[Task], pending: Collection[tuple[str, int]]) -> Iterator[Record]:
        if not batch:
            return
        collected = collect(
            own.params,
            batch,
            playing,
            start=start,
            seed=seed,
            step=EVALUATION | own.step,
            reward=progress_reward,
        )
        tokens = np.asarray(collected.batch.action_mask_NGS).sum(-1).reshape(-1).tolist()
        played = [task for task in batch for _ in range(rollouts)]
        for task, trajectory, count in zip(played, collected.trajectories, tokens, strict=True):
            if (task.id, trajectory.rollout) in pending:
                if domain.of(task).start is None:
                    record = play(domain, task, trajectory.rollout, recorded(trajectory, codec.parse), rules)
                else:  # a user may not say the same again
                    record = record_of(trajectory, codec.parse)
                yield replace(record, tokens=count)

    return play_all


def record_of(trajectory: Trajectory, parse: Callable[[str], Action]) -> Record:
    """The record of a rollout whose world's checks are all its verdicts, without playing it again."""
    failed = (Difference("check", "passed", "failed"),)
    moves = (
        Move(one.turn, one.text, parse(one.text).calls, one.code, one.observations, num_lines=one.num_lines)
        for one in trajectory.steps
    )
    return Record(
        trajectory.task_id,
        trajectory.rollout,
        rods=trajectory.passed,
        official=trajectory.passed,
        state=all(trajectory.passed),
        reasons=tuple(() if passed else failed for passed in trajectory.passed),
        moves=tuple(moves),
        truncated=trajectory.truncated or "",
        failure=trajectory.failure or "",
        ended=trajectory.ended,
        blame=trajectory.blame,
        lines=trajectory.lines,
    )


def recorded(trajectory: Trajectory, parse: Callable[[str], Action]) -> Act:
    """Says again what a rollout said."""
    steps = iter(trajectory.steps)

    def act(messages: Sequence[Message]) -> Said | Stop:
        step = next(steps, None)
        if step is None:
            return Stop(trajectory.truncated or "", trajectory.failure or "")
        if step.code == PARSE_ERROR:  # or cut short, which its text does not tell
            return Said(step.text, Action(error=step.observations[0].removeprefix("Error: ").removesuffix(".")))
        return Said(step.text, parse(step.text))

    return act
