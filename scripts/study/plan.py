"""What a study is: arms and seeds, in the order in which they run, and the lines of those that have ended.

configs/study_office.py     STUDY = Study(name="office", config=CONFIG, arms=(Arm("static"), ...), ...)
docs/study/office.jsonl     a line for each run that has ended, in the order in which they ended
runs/study/office/          cold/SEED-..., and ARM-SEED of each run
"""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rods_jax import config as configuration
from rods_jax.config import Config, ConfigError, RetentionConfig
from rods_jax.fields import default_of, require
from rods_jax.journal import read_log
from rods_jax.types import Json

Lines = Sequence[Mapping[str, Json]]
LINES, RUNS = Path("docs/study"), Path("runs/study")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train, as a change of the study's configuration."""

    name: str
    about: str  # in a table: what differs
    change: Callable[[Config], Config] = lambda config: config
    seeds: int = 6  # the first so many of the study's
    against: str | None = None  # exploration, added after the first counted run: the arm that it is compared with


class Square(NamedTuple):
    """Four arms that differ in two choices: arms[row][column]."""

    arms: tuple[tuple[str, str], tuple[str, str]]
    rows: tuple[str, str]  # in words
    columns: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Study:
    """Arms that share seeds, cold starts, seed tasks, held-out tasks and the number of rollouts."""

    name: str
    config: Config  # of the arm without a change; `max_rollouts` is the budget
    arms: tuple[Arm, ...]  # in their order of priority
    seeds: tuple[int, ...] = tuple(range(12))
    primary: tuple[tuple[str, str], ...] = ()  # contrasts (arm, reference) that are corrected apart from all others
    reference: str = "static"  # of all other registered contrasts
    square: Square | None = None  # two choices at once, told beside the tests
    asides: tuple[tuple[str, str], ...] = ()  # pairs compared after a look at the results, without a correction
    points: int = 4  # evaluations on the way, at equal shares of the budget, the last at its end
    held_out_rollouts: int = 4  # of each held-out task
    margin: float = 0.03  # of progress, within which two arms count as equivalent
    stretches: int = 0  # of a run's steps, for each of which a line says how the pool fared
    page: str = ""  # of its results, in docs/study/; "": NAME.md
    registered: str = ""  # the page with what was decided before the first counted run

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        require(len(set(names)) == len(names), f"the arms of a study have different names: got {names}")
        require(self.config.max_rollouts, "a study's config needs max_rollouts, its budget")
        named = {self.reference, *(name for pair in self.contrasts.values() for one in pair for name in one)}
        named |= {name for row in (*(self.square.arms if self.square else ()), *self.asides) for name in row}
        require(named <= set(names), f"contrasts name {', '.join(sorted(named - set(names)))}, which is no arm")

    @property
    def budget(self) -> int:
        return self.config.max_rollouts or 0

    @property
    def contrasts(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """(arm, reference) by family; each family is corrected for itself."""
        others = [arm for arm in self.arms if arm.against is None and arm.name != self.reference]
        registered = ((arm.name, self.reference) for arm in others)
        return {
            "primary": self.primary,
            "secondary": tuple(pair for pair in registered if pair not in self.primary),
            "added": tuple((arm.name, arm.against) for arm in self.arms if arm.against is not None),
        }

    @property
    def primary_arms(self) -> frozenset[str]:
        return frozenset(name for pair in self.primary for name in pair)


class Planned(NamedTuple):
    """One run of a study."""

    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm.name}@{self.seed}"


def load(path: Path) -> Study:
    """The STUDY of a config file. ConfigError: the file is wrong, or has none."""
    configuration.from_file(path)
    study = getattr(sys.modules[f"{path.resolve().parent.name}.{path.stem}"], "STUDY", None)
    if not isinstance(study, Study):
        raise ConfigError(f"{path} must hold STUDY = Study(...): got {study!r}")
    return replace(study, config=replace(study.config, file=str(path.resolve())))


def planned(study: Study) -> tuple[Planned, ...]:
    """All runs: primary arms, other registered ones, added ones; each time seed by seed, so that a seed's arms share a
    machine."""
    groups: tuple[list[Arm], ...] = ([], [], [])
    for arm in study.arms:
        groups[0 if arm.name in study.primary_arms else 1 if arm.against is None else 2].append(arm)
    return tuple(
        Planned(arm, seed)
        for group in groups
        for number, seed in enumerate(study.seeds)
        for arm in group
        if number < arm.seeds
    )


def named(study: Study, name: str) -> Planned:
    """ARM@SEED, of the plan or with a seed for tuning. ConfigError: no such arm, or no seed."""
    arm, _, seed = name.partition("@")
    found = [one for one in study.arms if one.name == arm]
    if not found or not seed.isdecimal():
        arms = ", ".join(one.name for one in study.arms)
        raise ConfigError(f"a run is named ARM@SEED, its arm one of {arms}: got {name!r}")
    return Planned(found[0], int(seed))


# ------------------------------------------------------------------------------ configurations of runs
def config_of(study: Study, run: Planned) -> Config:
    """The configuration of a run: it keeps its checkpoints, which the study evaluates, and evaluates next to nothing."""
    config = run.arm.change(replace(study.config, seed=run.seed))
    return replace(
        config,
        name=f"{study.name}_{run.arm.name}",
        run_dir=str(folder_of(study, run)),
        retention=RetentionConfig(latest=2, every=config.checkpoint_every),
        evaluation=replace(config.evaluation, num_tasks=1),
    )


def cold_config_of(study: Study, run: Planned) -> Config:
    """The configuration whose first checkpoint a run goes on from; arms with equal tasks share it."""
    config, plain = config_of(study, run), study.config
    shared = {name: getattr(plain, name) for name in ("rollout", "update", "replay", "synthesis", "evaluation")}
    if [stage.name for stage in config.stages] == [stage.name for stage in plain.stages]:
        shared["stages"] = plain.stages
    cold = replace(config, name=f"{study.name}_cold", max_steps=1, max_rollouts=None, **shared)
    digest = digest_of(replace(cold, run_dir="", file=None))[:8]
    return replace(cold, run_dir=str(RUNS / study.name / "cold" / f"{run.seed}-{digest}"))


def folder_of(study: Study, run: Planned) -> Path:
    return RUNS / study.name / f"{run.arm.name}-{run.seed}"


def digest_of(config: Config) -> str:
    """sha256 of the settings that differ from their defaults, so that a later key with a default changes nothing."""
    of_no_weight = replace(config, run_dir="", file=None, name="", stop_seconds=Config.stop_seconds)
    chosen = _chosen(of_no_weight)
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


def _chosen(value: Any) -> Json:
    if not dataclasses.is_dataclass(value):
        return configuration.plain_values(value)
    chosen = {}
    for field in dataclasses.fields(value):
        own = getattr(value, field.name)
        if own != default_of(field):
            chosen[field.name] = [_chosen(one) for one in own] if isinstance(own, tuple) else _chosen(own)
    return chosen


# ------------------------------------------------------------------------------------------ lines
def lines_of(study: Study) -> Path:
    return LINES / f"{study.name}.jsonl"


def read_lines(study: Study, path: Path | None = None) -> list[Mapping[str, Json]]:
    """What has ended. ConfigError: a line is of another configuration of its arm, and would be compared with this one."""
    path = path or lines_of(study)
    lines = [entry.record for entry in read_log(path)] if path.exists() else []
    arms = {arm.name for arm in study.arms}
    for line in lines:
        if line["arm"] not in arms:
            raise ConfigError(f"{path} holds runs of {line['arm']}, which is no arm of the study")
        run = named(study, f"{line['arm']}@{line['seed']}")
        if line["config"] != digest_of(config_of(study, run)):
            raise ConfigError(
                f"{path} holds {run.name} with another configuration: put that back, or give the study another name"
            )
    return lines


def remaining(study: Study, lines: Sequence[Mapping[str, Json]]) -> tuple[Planned, ...]:
    """The runs of the plan that have no line yet."""
    had = {(line["arm"], line["seed"]) for line in lines}
    return tuple(run for run in planned(study) if (run.arm.name, run.seed) not in had)


def by_seed(lines: Lines, arm: str) -> dict[int, Mapping[str, Json]]:
    return {line["seed"]: line for line in lines if line["arm"] == arm}


def shared_scores(lines: Lines, names: Sequence[str]) -> np.ndarray:
    """Progress of each arm with each of the seeds that all of them have: [A, S]."""
    own = [by_seed(lines, name) for name in names]
    seeds = sorted(set.intersection(*map(set, own))) if own else []
    return np.array([[some[seed]["progress"] for seed in seeds] for some in own]).reshape(len(own), len(seeds))
