"""Demonstrations for the cold start: gold calls played by a demonstrator with habits, or recorded dialogues.

The habits are the imperfections that reinforcement learning is later asked to remove; each one is
a probability, stated in the run's summary.
"""

import json
import random
from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

from rods_jax.config import Habits
from rods_jax.dialogue_files import Dialogue
from rods_jax.environments.episode import Episode, start_episodes
from rods_jax.environments.protocol import Answer, Domain, Failure, GoldDialogue, Opening
from rods_jax.environments.scoring import RODS, gold_trace
from rods_jax.types import Action, Call, Codec, Message, Task, ToolSpec

ANSWER = "Done."
QUESTION = "What is missing?"  # the plain answer to a turn that cannot be served yet


class Demonstration(NamedTuple):
    """Tokens of one played episode."""

    prompt: list[int]
    suffix: list[int]
    acted: list[bool]  # True where the demonstrator speaks
    passed: tuple[bool, ...]  # its checks


def demonstrate(domain: Domain, task: Task, codec: Codec, habits: Habits, rng: random.Random) -> Demonstration:
    """Plays the gold calls one at a time, bent by the habits, and answers at the end of each turn."""
    domain = domain.of(task)
    if domain.start is not None:
        return _shown(domain, task, codec, habits, rng)
    episode = Episode(domain._replace(fail=None), task, gold_trace(domain, task))
    prompt = codec.encode_prompt(episode.visible_tools, task.turns[0].user)
    suffix: list[int] = []
    acted: list[bool] = []

    def say(action: Action) -> None:
        tokens = codec.encode_action(action.calls, action.answer)
        answer = episode.act(action)
        observed = [] if answer.done else codec.encode_messages(answer.messages)
        suffix.extend(tokens + observed)
        acted.extend([True] * len(tokens) + [False] * len(observed))

    for number, turn in enumerate(task.turns):
        gold = turn.gold
        if not gold and rng.random() < habits.guess:
            gold = _guess(task.turns[number + 1 :])
        calls = _bend(gold, episode.visible_tools, habits, rng)
        # One call a message; more where the turn would close for too many messages before the last gold call.
        size = max(1, ceil(len(gold) / (RODS.max_attempts + 1)))
        for first in range(0, len(calls), size):
            if episode.turn == number:  # a guess, or too many attempts, has closed the turn
                say(Action(calls=tuple(calls[first : first + size])))
        if episode.turn == number:
            say(Action(answer=ANSWER if turn.gold else QUESTION))
    return Demonstration(prompt, suffix, acted, tuple(episode.passed))


def demonstration_of(dialogue: Dialogue, codec: Codec) -> Demonstration:
    """A recorded dialogue in the tokens of the template; the agent's messages that are learned are marked."""
    said = dialogue.opening
    prompt = codec.encode_prompt(dialogue.tools, said["user"], said.get("system", ""), said.get("assistant", ""))
    suffix: list[int] = []
    acted: list[bool] = []
    learned = iter(dialogue.learned)
    heard: list[Message] = []  # since the agent spoke last: the template prints them together
    for one in dialogue.rest:
        if isinstance(one, Message):
            heard.append(one)
            continue
        observed = codec.encode_messages(heard) if heard else []
        tokens = codec.encode_action(one.calls, one.answer)
        suffix += observed + tokens
        acted += [False] * len(observed) + [next(learned)] * len(tokens)
        heard = []
    return Demonstration(prompt, suffix, acted, (dialogue.passed,))


def can_demonstrate(domain: Domain, task: Task) -> bool:
    """Whether a task has gold calls to play, or its domain a demonstrator."""
    domain = domain.of(task)
    return domain.start is None or domain.demonstrator is not None


def _shown(domain: Domain, task: Task, codec: Codec, habits: Habits, rng: random.Random) -> Demonstration:
    """Plays a world of its own kind by its demonstrator.  ValueError: the world broke."""
    opening, moves = _played(domain, task, habits, rng)
    suffix: list[int] = []
    acted: list[bool] = []
    passed: tuple[bool, ...] = ()
    for action, answer in moves:
        tokens = codec.encode_action(action.calls, action.answer)
        observed = [] if answer.done else codec.encode_messages(answer.messages)
        suffix.extend(tokens + observed)
        acted.extend([True] * len(tokens) + [False] * len(observed))
        passed += answer.passed
    prompt = codec.encode_prompt(opening.tools, opening.user, opening.policy, opening.greeting)
    return Demonstration(prompt, suffix, acted, passed)


def _played(
    domain: Domain, task: Task, habits: Habits, rng: random.Random
) -> tuple[Opening, list[tuple[Action, Answer]]]:
    """The opening, and each action of the demonstrator with its answer."""
    assert domain.demonstrator is not None
    batch, act = start_episodes(domain, [task]), domain.demonstrator(task, habits, rng)
    (opening,) = batch.openings
    if isinstance(opening, Failure):
        raise ValueError(f"{task.id}: {opening.reason}")
    messages: Sequence[Message] = (Message("user", opening.user, opening.tools),)
    moves: list[tuple[Action, Answer]] = []
    while not moves or not moves[-1][1].done:
        action = act(messages)
        answer = batch.act({0: action})[0]
        if isinstance(answer, Failure):
            raise ValueError(f"{task.id}: {answer.reason}")
        moves.append((action, answer))
        messages = answer.messages
    return opening, moves


def gold_dialogue(domain: Domain, task: Task) -> GoldDialogue:
    """How a task of a world of its own kind is solved, as far as that is known.  ValueError: the world broke."""
    if domain.gold is not None:
        return domain.gold(task)
    if domain.demonstrator is not None:
        opening, moves = _played(domain, task, Habits(), random.Random(0))
        return GoldDialogue(opening, tuple((action, tuple(answer.messages)) for action, answer in moves))
    (begun,) = start_episodes(domain, [task]).openings
    if isinstance(begun, Failure):
        raise ValueError(f"{task.id}: {begun.reason}")
    return GoldDialogue(begun, ())


def corpus(domain: Domain, tasks: Sequence[Task]) -> list[str]:
    """All text that a policy of this domain reads or writes, for training a tokenizer."""
    texts = [ANSWER, QUESTION]
    for tool in domain.tools.values():
        texts += [tool.name, tool.description, json.dumps(tool.parameters, ensure_ascii=False)]
    for task in tasks:
        texts += [turn.user for turn in task.turns]
        texts += [json.dumps(dict(call.arguments), ensure_ascii=False) for turn in task.turns for call in turn.gold]
        if domain.of(task).start is None:
            texts += [output for turn in gold_trace(domain, task) for output in turn.outputs]
        elif can_demonstrate(domain, task):
            opening, moves = _played(domain.of(task), task, Habits(), random.Random(0))
            texts += [opening.policy, opening.greeting, opening.user]
            for action, answer in moves:
                texts += [action.answer, *(message.content for message in answer.messages)]
                texts += [json.dumps(dict(call.arguments), ensure_ascii=False) for call in action.calls]
    return texts


def _bend(gold: Sequence[Call], tools: Sequence[ToolSpec], habits: Habits, rng: random.Random) -> list[Call]:
    if rng.random() < habits.skip:
        return []
    if len(gold) > 1 and rng.random() < habits.stop_early:
        gold = gold[:1]
    calls = []
    for call in gold:
        siblings = _siblings(call, tools)
        if siblings and rng.random() < habits.wrong_sibling:
            call = Call(rng.choice(siblings), call.arguments)
        calls += [call] * (2 if rng.random() < habits.repeat else 1)
    return calls


def _siblings(call: Call, tools: Sequence[ToolSpec]) -> list[str]:
    return [
        tool.name
        for own in tools
        if own.name == call.name
        for tool in tools
        if tool is not own
        and tool.class_name == own.class_name
        and set(tool.parameters.get("required", ())) == set(own.parameters.get("required", ())) == set(call.arguments)
    ]


def _guess(later: Sequence) -> tuple[Call, ...]:
    """What the user turns out to have meant: the first call that a later turn asks for."""
    return next((turn.gold[:1] for turn in later if turn.gold), ())
