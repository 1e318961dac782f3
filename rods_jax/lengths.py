"""How many tokens each task needs at least, counted before anything is computed, and which tasks a stage cannot hold.

    task -> prompt tokens, suffix tokens of its gold dialogue, tokens of its longest gold call -> what exceeds a limit

A gold dialogue makes all calls of a turn in one message, reads their outputs, and ends each turn with the shortest
answer.  No rollout that solves the task is much shorter.  In a world of another kind it is the demonstrator's dialogue, or
what `Domain.gold` says; where there is neither, prompts alone are measured.  A task whose gold dialogue does not fit can be played, but not
solved.  A task whose prompt does not fit cannot be played.

Generated tasks are not measured: their prompts differ from their seeds' only in the user's words.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple

from rods_jax.boundary import mean_band
from rods_jax.config import Config, ConfigError, RolloutConfig, rollout_of
from rods_jax.curriculum import tasks_of
from rods_jax.demonstrations import ANSWER, gold_dialogue
from rods_jax.environments.episode import openings_of, start_episodes
from rods_jax.environments.hints import WARNING
from rods_jax.environments.protocol import Domain, Failure, GoldDialogue, Opening, TaskSplits
from rods_jax.environments.scoring import gold_trace
from rods_jax.types import Codec, Json, Message, Task

TOGETHER = 64  # episodes that begin at a time where a world alone knows how
KINDS = ("prompt", "suffix", "action")  # limits are `max_<kind>_tokens` of a rollout


class Length(NamedTuple):
    """Tokens that a task needs at least."""

    prompt: int
    suffix: int  # of the whole gold dialogue
    action: int  # of its longest gold call


def length_of(domain: Domain, codec: Codec, task: Task) -> Length:
    """Counts a task's prompt and its gold dialogue as `codec` writes them; where no gold is known, the prompt alone."""
    if domain.start is not None:
        return _length_of_dialogue(codec, gold_dialogue(domain, task))
    tools = {tool.name: tool for tool in domain.tools_of(task.world.classes)}
    hidden = task.withheld_tools - set(task.turns[0].released_tools)
    visible = [tool for name, tool in tools.items() if name not in hidden]
    prompt = len(codec.encode_prompt(visible, task.turns[0].user))
    suffix, calls = 0, {0}
    for number, (turn, closed) in enumerate(zip(task.turns, gold_trace(domain, task), strict=True)):
        # The user's message (the first is in the prompt), then the calls, what they return, and an answer.
        if number:
            released = tuple(tools[name] for name in turn.released_tools if name in tools)
            suffix += len(codec.encode_messages([Message("user", turn.user, released)]))
        if turn.gold:
            suffix += len(codec.encode_action(turn.gold, ""))
            suffix += len(codec.encode_messages([Message("tool", text) for text in closed.outputs]))
            calls |= {len(codec.encode_action((call,), "")) for call in turn.gold}
        suffix += len(codec.encode_action((), ANSWER))
    return Length(prompt, suffix, max(calls))


def _length_of_dialogue(codec: Codec, dialogue: GoldDialogue) -> Length:
    opening, moves = dialogue
    prompt = len(codec.encode_prompt(opening.tools, opening.user, opening.policy, opening.greeting))
    said = [len(codec.encode_action(action.calls, action.answer)) for action, _ in moves]
    heard = [len(codec.encode_messages(messages)) for _, messages in moves if messages]
    return Length(prompt, sum(said) + sum(heard), max(said, default=0))


def measure(domain: Domain, codec: Codec, tasks: Sequence[Task]) -> dict[str, Length]:
    """Lengths by task id.  A task whose environment or text raises has none, and its rollouts are recorded as failed.

    Tasks with the same tools follow each other, because a codec caches the tokens of a few long prompts only.
    """
    found, begun = {}, _begun(domain, tasks)
    for task in sorted(tasks, key=lambda task: (task.world.classes, sorted(task.withheld_tools))):
        opening = begun.get(task.id)
        if isinstance(opening, Failure):
            continue
        try:
            if opening is None:
                found[task.id] = length_of(domain.of(task), codec, task)
            else:
                found[task.id] = _length_of_dialogue(codec, GoldDialogue(opening, ()))
        except Exception:  # as `start_episodes`: whatever broke, the other tasks go on
            continue
    return found


def _begun(domain: Domain, tasks: Sequence[Task]) -> dict[str, Opening | Failure]:
    """How tasks begin of which no dialogue is known."""
    owners = [(task, domain.of(task)) for task in tasks]
    silent = [task for task, own in owners if own.start and not (own.gold or own.demonstrator)]
    openings = openings_of(partial(start_episodes, domain), silent, TOGETHER)
    return {task.id: one for task, one in zip(silent, openings, strict=True)}


class PlayedTasks(NamedTuple):
    """The tasks of a stage or an evaluation, and the limits of their rollouts."""

    name: str
    tasks: Sequence[Task]
    limits: Length
    synthesis: bool = False  # variants are made of them
    warned: bool = False  # after a call where none was asked for, the policy reads a warning


def played_tasks(config: Config, tasks: TaskSplits) -> Iterator[PlayedTasks]:
    """The played tasks of a run: each stage's with its own limits, and the evaluations' with those of the rollout."""
    for stage in config.stages:
        own = tasks_of(stage, tasks.seeds)
        limits = limits_of(rollout_of(config, stage))
        switches = {"synthesis": stage.synthesis, "warned": stage.warn_of_calls}
        yield PlayedTasks(f"stages.{stage.name}", own, limits, **switches)
    for name in ("held_out", "validation"):
        if getattr(tasks, name):
            yield PlayedTasks(name, getattr(tasks, name), limits_of(config.rollout))


def limits_of(rollout: RolloutConfig) -> Length:
    """The limits of a rollout, in tokens of each kind."""
    return Length(*(getattr(rollout, f"max_{kind}_tokens") for kind in KINDS))


def exceeded(length: Length, limits: Length) -> tuple[str, ...]:
    """The kinds of tokens whose limit a task exceeds."""
    return tuple(kind for kind, need, limit in zip(KINDS, length, limits, strict=True) if need > limit)


def check_lengths(
    config: Config, tasks: TaskSplits, domain: Domain, codec: Codec, say: Callable[[str], None]
) -> dict[str, Json]:
    """Says which tasks fit no rollout; returns lengths.json: every stage's limits and its tasks that exceed them.

    ConfigError: in some stage or in the evaluation, the share of tasks that do not fit is above
    `rollout.max_unfit_share`, or no task's prompt fits.
    """
    everything = {task.id: task for part in (tasks.seeds, tasks.held_out, tasks.validation) for task in part}
    lengths = measure(domain, codec, list(everything.values()))
    record = {}
    for played in played_tasks(config, tasks):
        known = {task.id: lengths[task.id] for task in played.tasks if task.id in lengths}
        unfit = {name: kinds for name, length in known.items() if (kinds := exceeded(length, played.limits))}
        record[played.name] = {
            "limits": played.limits._asdict(),
            "tasks": len(played.tasks),
            "measured": len(known),  # the worlds of the others broke
            "dialogues": sum(length.suffix > 0 for length in known.values()),  # of the others, the prompt alone
            "longest": Length(*map(max, zip(*known.values())))._asdict() if known else None,
            "mean": dict(zip(KINDS, map(fmean, zip(*known.values())), strict=True)) if known else None,
            "unfit": {name: known[name]._asdict() for name in unfit},
        }
        if played.warned and (sentence := _too_long_with_a_warning(played, known, codec)):
            say(sentence)
        if not unfit:
            continue
        sentence, allowed = _sentence(played, known, unfit), config.rollout.max_unfit_share
        if sum("prompt" in kinds for kinds in unfit.values()) == len(played.tasks):
            raise ConfigError(f"{sentence}; not one prompt fits, so that nothing can be played")
        if allowed is not None and len(unfit) > allowed * len(played.tasks):
            raise ConfigError(
                f"{sentence}; these are more than rollout.max_unfit_share allows, {allowed:.0%}: raise the limits, give "
                "other tasks, or raise the share"
            )
        say(sentence + (_BREED if played.synthesis and config.update.signal is mean_band else ""))
    return record


def scores_apart(values: Mapping[str, Any], record: Mapping[str, Json]) -> dict[str, Json]:
    """Metrics of a step: how many of its tasks do not fit their stage, and the mean reward of the others."""
    unfit = record.get(f"stages.{values.get('stage')}", {}).get("unfit", ())
    fits = [name not in unfit for name in values.get("task_ids", ())]
    if all(fits):
        return {}
    means = [float(mean) for mean, fit in zip(values["task_mean"], fits, strict=True) if fit and math.isfinite(mean)]
    return {"unfit_tasks": fits.count(False), "fitting_reward_mean": sum(means) / len(means) if means else None}


def _sentence(played: PlayedTasks, lengths: Mapping[str, Length], unfit: Mapping[str, Sequence[str]]) -> str:
    """Says which tasks do not fit, by category and by limit, and the longest."""
    categories: dict[str, list[bool]] = {category: [] for category in sorted({task.category for task in played.tasks})}
    for task in played.tasks:
        categories[task.category].append(task.id in unfit)
    by_category = ", ".join(f"{sum(found)} of {len(found)} {name}" for name, found in categories.items() if any(found))
    by_kind = ", ".join(
        f"{count} need more than {_NAMES[kind]} of {limit} tokens (max_{kind}_tokens; the longest {longest})"
        for kind, limit in played.limits._asdict().items()
        if (count := sum(kind in kinds for kinds in unfit.values()))
        for longest in [max(getattr(length, kind) for length in lengths.values())]
    )
    return f"{played.name}: {len(unfit)} of {len(played.tasks)} tasks do not fit ({by_category}): {by_kind}"


def _too_long_with_a_warning(played: PlayedTasks, lengths: Mapping[str, Length], codec: Codec) -> str:
    """How many tasks fit, and would not after a warning; nothing where there is none."""
    warning, limit = len(codec.encode_messages([Message("user", WARNING)])), played.limits.suffix
    can_be = {task.id for task in played.tasks if any(not turn.gold for turn in task.turns[:-1])}
    tasks = sum(name in can_be and limit - warning < one.suffix <= limit for name, one in lengths.items())
    if not tasks:
        return ""
    return (
        f"{played.name}: after the warning of warn_of_calls, which has {warning} tokens, {tasks} tasks that fit would not: "
        "raise the stage's max_suffix_tokens"
    )


_BREED = (  # docs/study/seeds.md
    "; what cannot be solved whole stays in the band of the mean, and synthesis makes ever more of it: raise the limits, or "
    "leave these tasks out"
)
_NAMES = {"prompt": "a prompt", "suffix": "a gold dialogue", "action": "a message"}
