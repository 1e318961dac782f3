"""The hours and the cost of a whole run, from its programs' rooflines and from stated lengths of episodes.

    steps         those of each stage's epochs; its pool grows by what may be injected
    rollouts      of all tasks that are played, with `rollout.keep` as many as may be: every prompt once, every message token
                  by token in as many rows as there are, every answer of an environment in chunks
    copy, update  of a step: as compiled, for the longest suffix that is stated
    evaluation    every held-out task twice, sampled and greedy; every validation task once, if they choose a checkpoint

Every time is the roofline's, divided by an efficiency: the share of the datasheet's peaks that the run reaches.  Left out
on purpose: environments, checkpoints, compilation and starts, which overlap or are short; synthesis, which needs machines
of its own.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rods_jax.config import Config, StageConfig, most_tasks, rollout_of
from rods_jax.curriculum import tasks_of
from rods_jax.environments.protocol import TaskSplits
from rods_jax.rollout import Player

from .. import counts
from ..counts import Shape
from ..decoder import DecoderConfig
from ..learner import describe, mesh_of
from .ahead_of_time import Slice, Work, roofline
from .layouts import cuts_of
from .programs import meshes_of, players_of, update_sizes


class Lengths(NamedTuple):
    """A mean episode, in tokens.  `longest` is a step's longest suffix: its update is cut to that."""

    prompt: int
    messages: float  # of the policy
    message: float
    observation: float  # after each message
    longest: int

    @property
    def suffix(self) -> float:
        return self.messages * (self.message + self.observation)


def hours(
    config: Config,
    model: DecoderConfig,
    found: Slice,
    reports: Sequence[Mapping[str, Any]],
    tasks: TaskSplits,
    lengths: Lengths,
    efficiency: float,
    price: float | None,
) -> dict[str, Any]:
    """Hours of a whole run by part, chip-hours, and their cost; `reports` are those of all programs."""
    seconds = {one["program"]: one["seconds"]["roofline"] / efficiency for one in reports}
    exchanged = {one["program"]: sum(one["collectives"].values()) for one in reports}

    def played(part: str, play: Player, name: str, episodes: float) -> float:
        """Seconds of a host's episodes."""
        token, chunk = (exchanged.get(f"{part}: {call}{name}", 0.0) for call in ("act", "observe"))
        return play_seconds(model, found, config, play, episodes, lengths, (token, chunk)) / efficiency

    plays = players_of(config, describe(config, model, *meshes_of(config, found)))
    parts = dict.fromkeys(("rollouts", "copy", "update", "evaluation"), 0.0)
    steps, all_played = planned_steps(config, tasks), planned_tasks(config, tasks)
    for stage in config.stages:
        sizes, count = rollout_of(config, stage), steps[stage.name]
        (play, name) = plays["rollouts", sizes]
        parts["rollouts"] += played("rollouts", play, name, all_played[stage.name] * sizes.group_size / found.hosts)
        size = next((size for size in update_sizes(sizes) if size >= lengths.longest), sizes.max_suffix_tokens)
        parts["update"] += count * next(s for name, s in seconds.items() if name.startswith(f"update, {size:,} "))
        parts["copy"] += count * seconds.get("copy", 0.0)
    evaluations = evaluations_of(config, tasks)
    play, name = plays["evaluation", None]
    validation = tasks.validation if config.retention.best else ()
    held_out, chosen_by = (min(config.evaluation.num_tasks, len(some)) for some in (tasks.held_out, validation))
    evaluated = played("evaluation", play, name, (2 * held_out + chosen_by) / found.hosts)
    parts["evaluation"] = evaluations * (evaluated + (1 + bool(validation)) * seconds.get("copy", 0.0))
    total = sum(parts.values()) / 3600
    chip_hours = total * found.count * found.chip.of_a_chip
    return {
        "steps": steps,
        "evaluations": evaluations,
        "stated": lengths._asdict() | {"efficiency": efficiency, "price": price},
        "hours": {part: value / 3600 for part, value in parts.items()} | {"total": total},
        "chip_hours": chip_hours,
        "cost": None if price is None else chip_hours * price,
    }


def play_seconds(
    model: DecoderConfig,
    found: Slice,
    config: Config,
    play: Player,
    episodes: float,
    lengths: Lengths,
    exchanged: tuple[float, float],
) -> float:
    """Seconds of a host's `episodes` at the peaks.  exchanged: bytes that a device receives for a token, for a chunk."""
    data, fsdp, *others = mesh_of(config)
    cut = math.gcd(fsdp, play.rows)
    sizes = data // found.hosts * fsdp // cut, cut, *others
    n, g, c, chunk = play.slots, play.rows, play.columns, play.sizes.observation_chunk
    shape = Shape(n, g, lengths.prompt, round(lengths.suffix / 2))  # caches are half full on average
    cuts = cuts_of(model, sizes, shape)
    weights = counts.parameters(model) / cuts.tensor * counts.itemsize(model)
    prompts, suffixes = counts.cache_bytes(model, shape)
    caches = prompts / cuts.prompt_cache + suffixes / cuts.suffix_heads

    def seconds(parts: counts.Flops, bytes: float, exchanged: float) -> float:
        work = Work(counts.on_device(parts, cuts).total, bytes, exchanged)
        return max(roofline(found.chip, work).values())

    # Prompts: padded to their limit, computed once for each task.
    whole = shape._replace(prompt=play.sizes.max_prompt_tokens)
    passed = counts.forward(model, whole)
    prefill = counts.Flops(passed.prompt_layers, passed.prompt_attention, 0.0, 0.0, 0.0)
    moved = weights + counts.activation_bytes(model, n * whole.prompt / cuts.prompts) / cuts.tensor
    read = episodes / play.group_size / n * seconds(prefill, moved, 0.0)
    # Messages: one token of all rows at a time, because few rows wait for their environments.
    token = counts.decode_step(model, shape)
    said = episodes * lengths.messages * lengths.message / (n * g) * seconds(token, weights + caches, exchanged[0])
    # Observations: one chunk of c rows of each task at a time; the last chunk is padded.
    heard = counts.Flops(*(chunk * c / g * part for part in token._replace(vocabulary=0.0)))
    moved = weights + caches + counts.activation_bytes(model, n * c * chunk / cuts.rows) / cuts.tensor
    chunks = episodes * lengths.messages * math.ceil(lengths.observation / chunk) / (n * c)
    return read + said + chunks * seconds(heard, moved, exchanged[1])


def planned_steps(config: Config, tasks: TaskSplits) -> dict[str, int]:
    """Steps of each stage, up to the limits of steps and rollouts."""
    r, left, steps = config.rollout, config.max_steps or math.inf, dict[str, int]()
    if config.max_rollouts is not None:  # the step that reaches them is the last
        left = min(left, math.ceil(config.max_rollouts / (r.tasks_per_step * r.group_size)))
    for stage in config.stages:
        steps[stage.name] = int(min(sum(steps_of(config, stage, tasks)), left))
        left -= steps[stage.name]
    return steps


def planned_tasks(config: Config, tasks: TaskSplits) -> dict[str, int]:
    """The most tasks that each stage plays: in every step as many as a refill allows, until its epochs or the limits end."""
    r, steps, played = config.rollout, planned_steps(config, tasks), dict[str, int]()
    most = most_tasks(r)
    left: float = math.inf
    if config.max_rollouts is not None:
        left = math.ceil(config.max_rollouts / (most * r.group_size)) * most
    for stage in config.stages:
        epochs = most * sum(steps_of(config, stage, tasks, most))
        played[stage.name] = int(min(most * steps[stage.name], epochs, left))
        left -= played[stage.name]
    return played


def steps_of(config: Config, stage: StageConfig, tasks: TaskSplits, size: int | None = None) -> list[int]:
    """Steps of a stage's epochs. Its pool grows in each after the first by the most that may be injected.

    size: tasks that a step plays; None: those that it learns from.
    """
    seeds = pool = len(tasks_of(stage, tasks.seeds))
    steps = []
    for epoch in range(stage.epochs):
        if epoch and stage.synthesis:
            pool = min(pool + int(config.replay.injection_fraction * pool), seeds + config.replay.capacity)
        steps.append(math.ceil(pool / (size or config.rollout.tasks_per_step)))
    return steps


def evaluations_of(config: Config, tasks: TaskSplits) -> int:
    """The number of evaluations: before the first step, every few epochs that end before the last step, and at the end."""
    last, total, between = sum(planned_steps(config, tasks).values()), 0, 0
    epochs = [steps for stage in config.stages for steps in steps_of(config, stage, tasks)]
    for number, steps in enumerate(epochs, 1):
        total += steps
        between += total < last and number % config.evaluation.every_epochs == 0
    return 1 + between + (last > 0)


def hours_text(result: Mapping[str, Any], count: int) -> str:
    """The hours for a reader."""
    steps = ", ".join(f"{name} {steps}" for name, steps in result["steps"].items())
    *parts, (_, total) = result["hours"].items()
    stated = ", ".join(f"{name} {value:g}" for name, value in result["stated"].items() if value is not None)
    lines = [f"a whole run: {sum(result['steps'].values())} steps ({steps}), {result['evaluations']} evaluations"]
    lines += [f"{part:>10} {value:8.2f} h" for part, value in parts if value]
    cost = "" if result["cost"] is None else f", at {result['stated']['price']:g} each {result['cost']:,.0f}"
    lines.append(f"{'in all':>10} {total:8.2f} h on {count} devices: {result['chip_hours']:,.0f} chip-hours{cost}")
    return "\n".join([*lines, f"stated: {stated}"])
