"""What can be known of a run before its first step: impossible settings are refused, odd ones are said.

config.py checks single values when it is built, and lengths.py checks lengths.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain

import jax

from rods_jax.config import Config, ConfigError
from rods_jax.curriculum import tasks_of
from rods_jax.demonstrations import can_demonstrate
from rods_jax.dialogue_files import told
from rods_jax.environments.episode import start_episodes
from rods_jax.environments.protocol import Domain, Failure, TaskSplits
from rods_jax.held_out import TOTALS
from rods_jax.synthesis.near_duplicates import NEAR, nearest, shingle_index
from rods_jax.task_files import content_hash
from rods_jax.types import MEASURED, Task

FEW = 1000  # demonstrations: with fewer, a policy from scratch learns hardly a tool


def check_start(config: Config, tasks: TaskSplits, domain: Domain) -> tuple[str, ...]:
    """Compares a configuration with its tasks, before anything is written or computed; returns what to say.

    ConfigError: a stage or the cold start cannot draw a batch, a part that a setting needs is empty, a task is in two
    parts, a task or a stage names a stratum that the domain has not, or a stratum has the name of a score.
    """
    _check_strata(config, tasks, tuple(domain.strata))
    _check_parts(config, tasks)
    _check_stages(config, tasks.seeds)
    said = _sizes(config, tasks), _demonstrations(config, tasks, domain), _stale(config, tasks.seeds), _overlaps(tasks)
    return tuple(chain.from_iterable(said))


def check_opens(domain: Domain, tasks: Sequence[Task]) -> None:
    """Begins one episode of each world with a `start`.  ConfigError: it cannot, as where a user's server is not there."""
    firsts = {domain.of(task).name: task for task in reversed(tasks) if domain.of(task).start is not None}
    for task in firsts.values():
        (opening,) = start_episodes(domain.of(task), [task]).openings
        if isinstance(opening, Failure):
            raise ConfigError(f"no episode of task {task.id} can begin: {opening.reason}")


def check_devices(config: Config) -> None:
    """ConfigError: the devices that are found cannot run this."""
    if config.flash_attention and (found := jax.default_backend()) != "tpu":
        raise ConfigError(f"flash_attention is a kernel for TPUs, and the devices found are of the kind {found}")


def _check_strata(config: Config, tasks: TaskSplits, strata: Sequence[str]) -> None:
    if taken := [name for name in TOTALS if name in strata]:
        raise ConfigError(f"the stratum {taken[0]!r} has the name of a score of all held-out tasks: choose another")
    named = {task.category: f"task {task.id}" for some in tasks for task in some}
    named |= {name: f"stages.{stage.name}.categories" for stage in config.stages for name in stage.categories or ()}
    for name, where in named.items():
        if name not in strata:
            raise ConfigError(f"{where} names the stratum {name!r}: the domain's are {', '.join(strata)}")


def _check_parts(config: Config, tasks: TaskSplits) -> None:
    for name, part in tasks._asdict().items():
        if twice := sorted(task_id for task_id, count in Counter(task.id for task in part).items() if count > 1):
            raise ConfigError(f"build_tasks gives {_named(twice)} twice in {name}: each task has an id of its own")
    trained = {task.id for task in (*tasks.seeds, *tasks.practice)}
    if both := sorted(trained & {task.id for task in (*tasks.held_out, *tasks.validation)}):
        raise ConfigError(
            f"build_tasks gives {_named(both)} both to train on and to measure on: a task is in one part alone"
        )
    if public := sorted(task.id for task in (*tasks.seeds, *tasks.practice) if task.world.options.get(MEASURED)):
        raise ConfigError(
            f"build_tasks trains on tasks of a test split, which are for measuring alone: {_named(public)}"
        )
    if config.cold_start is not None and config.cold_start.dialogues is None and not tasks.practice:
        raise ConfigError("cold_start makes its demonstrations of practice tasks, and build_tasks gives none")
    if config.cold_start is not None and config.cold_start.dialogues is not None and any(config.cold_start.habits):
        raise ConfigError(
            "cold_start.habits are a demonstrator's, and cold_start.dialogues are recorded: give one of them"
        )
    if config.retention.best and not tasks.validation:
        raise ConfigError(
            f"retention.best is {config.retention.best} and selects on validation tasks, and build_tasks gives none: "
            "set some aside from the seeds (held_out.set_aside), or set retention.best to 0"
        )


def _check_stages(config: Config, seeds: Sequence[Task]) -> None:
    """A stage before which nothing was synthesised has its human seeds alone."""
    size = config.rollout.tasks_per_step
    for number, stage in enumerate(config.stages):
        own = len(tasks_of(stage, seeds))
        grown = any(earlier.synthesis for earlier in config.stages[:number])
        if own < size and not grown:
            raise ConfigError(
                f"rollout.tasks_per_step is {size}, and a batch of so many different tasks cannot be drawn in "
                f"stages.{stage.name}: of its categories ({', '.join(stage.categories or ('all',))}) there are {own} tasks"
            )


def _sizes(config: Config, tasks: TaskSplits) -> Iterator[str]:
    count, held_out = config.evaluation.num_tasks, len(tasks.held_out)
    if not held_out:
        yield "there are no held-out tasks: no score is measured"
    elif count > held_out:
        yield f"evaluation.num_tasks is {count}, and there are {held_out} held-out tasks: all are measured"
    if config.cold_start is not None and not tasks.validation:
        yield f"there are no validation tasks: the cold start goes on for {config.cold_start.max_steps} steps"
    if config.mesh is not None:
        rollout = config.rollout
        sizes = {"data": rollout.tasks_per_step, "fsdp": rollout.group_size}
        names = {"data": "rollout.tasks_per_step", "fsdp": "rollout.group_size"}
        for axis, along in zip(sizes, config.mesh):
            if sizes[axis] % along:
                yield (
                    f"the mesh does not divide {names[axis]}: {sizes[axis]} on {axis} {along}, so that devices do the "
                    f"same work; a multiple of {along} uses them all"
                )


def _demonstrations(config: Config, tasks: TaskSplits, domain: Domain) -> Iterator[str]:
    """What the cold start learns from.  ConfigError: that is less than a batch."""
    c = config.cold_start
    if c is None:
        return
    if c.dialogues is not None:
        found = c.dialogues(tasks)
        shown, left_out = len(found.dialogues), f"; left out: {told(found.left_out)}" if found.left_out else ""
        yield f"the cold start has {shown} recorded dialogues{left_out}"
    else:
        shown = c.rounds * sum(can_demonstrate(domain, task) for task in tasks.practice)
        if not shown:
            raise ConfigError("cold_start plays gold calls or a demonstrator, and no practice task has either")
        if shown < FEW:
            yield (
                f"the cold start has {shown} demonstrations: a policy from scratch needs thousands, in the words of its "
                "tasks, and no reward teaches what never happens; have an author write practice tasks, or begin with a "
                "checkpoint"
            )
    if shown < c.batch_size:
        raise ConfigError(f"cold_start.batch_size must be at most its {shown} demonstrations: got {c.batch_size}")


def _stale(config: Config, seeds: Sequence[Task]) -> Iterator[str]:
    """Epochs at whose end the variants of their first steps are too old to be played; the run's last one writes none."""
    for stage in config.stages:
        steps = math.ceil(len(tasks_of(stage, seeds)) / config.rollout.tasks_per_step)
        followed = stage.epochs > 1 or stage is not config.stages[-1]
        if stage.synthesis and followed and steps > config.replay.max_age:
            yield (
                f"replay.max_age is {config.replay.max_age} steps, and an epoch of stages.{stage.name} has {steps}: what "
                "its first steps write is too old at its end and never played; raise it"
            )


def _overlaps(tasks: TaskSplits) -> Iterator[str]:
    """Leaks of what is trained on into what is measured: scenarios, equal contents, near-duplicates."""
    trained = (*tasks.seeds, *tasks.practice)
    scenarios, contents = {task.scenario for task in trained}, set(map(content_hash, trained))
    index = shingle_index(trained)
    for name in ("held_out", "validation"):
        measured = getattr(tasks, name)
        crossing = [task.id for task in measured if task.scenario in scenarios]
        equal = [task.id for task in measured if content_hash(task) in contents]
        found = {task.id: nearest(task, index) for task in measured if task.id not in equal}
        near = [task_id for task_id, one in found.items() if one is not None and one.similarity >= NEAR]
        for what, ids in (
            ("share a scenario with tasks that are trained on", crossing),
            ("are equal to tasks that are trained on", equal),
            (f"share at least {NEAR:.0%} of their shingles with tasks that are trained on", near),
        ):
            if ids:
                yield f"{name} overlaps with training: {len(ids)} of {len(measured)} tasks {what} ({_named(ids)})"


def _named(ids: Sequence[str]) -> str:
    return ", ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
