"""One episode between a player and a world, and what is recorded of it.

A player is a function from the messages that came back to the next action (`Act`).  `play` therefore plays a gold
player, a null player, a server and a recorded rollout alike, under the rules of either protocol.  An episode with gold
calls gets three verdicts: the RODS rule, live; the leaderboard's rule, on its calls replayed as the leaderboard would;
and whether the final state is the gold's, however the episode reached it.  Another world's checks are all its verdicts.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from rods_jax import chat
from rods_jax.chat import Generate
from rods_jax.codecs.grammar import answer, read_message, sendable, unreadable
from rods_jax.config import Habits
from rods_jax.environments.conversation import without_thought
from rods_jax.environments.episode import Episode, readable, start_episodes
from rods_jax.environments.foreign import equal, shown, told
from rods_jax.environments.gold import require_repeats
from rods_jax.environments.protocol import Answer, Closing, Domain, EpisodeBatch, Failure, Opening, Rules
from rods_jax.environments.scoring import RODS, gold_trace, official_turn_passed, turns_passed
from rods_jax.types import Action, Call, Json, Line, Message, Task, ToolSpec

MAX_DIFFERENCES = 8  # per turn: one wrong early call can leave hundreds
MAX_SHOWN = 500  # characters of an expected or found value


# ---------------------------------------------------------------------------------------- records
@dataclass(frozen=True)
class Move:
    """One assistant message as it was understood, and what came back."""

    turn: int
    text: str
    calls: tuple[Call, ...]
    code: int  # diagnostic event code, RODS 1.2
    observations: tuple[str, ...]
    reasoning: str = ""  # what a served model thought before it, where the server tells
    num_lines: int = 0  # of its conversation that it added


@dataclass(frozen=True)
class Difference:
    """One reason why a turn failed: what should have been there, and what was."""

    where: str
    expected: str
    found: str


@dataclass(frozen=True)
class Record:
    """One finished episode: a line of the journal."""

    task_id: str
    rollout: int
    rods: tuple[bool, ...]  # its world's checks, for BFCL the turns by the RODS rule; undecided ones are False
    official: tuple[bool, ...]  # the same under the leaderboard's rule
    state: bool  # the final state is the gold's
    reasons: tuple[tuple[Difference, ...], ...]  # per check; empty where it passed under the RODS rule
    moves: tuple[Move, ...]
    tokens: int = 0  # that the policy generated, where it knows
    truncated: str = ""  # which limit of the policy ended the episode early
    failure: str = ""  # of the infrastructure: counted, and in no score
    ended: str = ""  # why a conversation ended, as in a Trajectory
    blame: str = ""  # who caused its failure
    lines: tuple[Line, ...] = ()  # of a conversation: all of both sides, first what preceded the first move


class Said(NamedTuple):
    """What a player answers with: the raw text and what it means."""

    text: str
    action: Action
    tokens: int = 0
    reasoning: str = ""


class Stop(NamedTuple):
    """What a player answers with when it cannot go on."""

    truncated: str = ""
    failure: str = ""


Act = Callable[[Sequence[Message]], Said | Stop]  # what came back since the last action -> the next action


# -------------------------------------------------------------------------------------- one episode
@dataclass
class _Played:
    """An episode's record under way."""

    rods: list[bool]
    official: list[bool]
    reasons: list[tuple[Difference, ...]]
    state: bool = False
    moves: list[Move] = field(default_factory=list)
    tokens: int = 0
    stop: Stop = Stop()
    ended: str = ""
    blame: str = ""
    lines: list[Line] = field(default_factory=list)


def play(domain: Domain, task: Task, rollout: int, act: Act, rules: Rules = RODS) -> Record:
    """Plays one episode to its end; the first message that `act` gets carries the visible tools.

    rules: of the interaction; the record has both verdicts under any rules.  Never raises: an exception of the player,
    the task or the environment is the record's `failure`.
    """
    domain, played = domain.of(task), _unreached(len(task.turns))
    try:
        if domain.start is None:
            _play_gold(domain, task, act, rules, played)
        else:
            played = _play_checks(start_episodes(domain, [task], rules), act)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever broke, the other episodes go on
        played.stop = Stop(failure=told(error))
    return Record(
        task.id,
        rollout,
        rods=tuple(played.rods),
        official=tuple(played.official),
        state=played.state,
        reasons=tuple(played.reasons),
        moves=tuple(played.moves),
        tokens=played.tokens,
        truncated=played.stop.truncated,
        failure=played.stop.failure,
        ended=played.ended,
        blame=played.blame,
        lines=tuple(played.lines),
    )


def _unreached(num_checks: int) -> _Played:
    reason = (Difference("turn", "closed", "the episode ended before"),)
    return _Played([False] * num_checks, [False] * num_checks, [reason] * num_checks)


def _play_gold(domain: Domain, task: Task, act: Act, rules: Rules, played: _Played) -> None:
    """Against a gold trace: each turn is a check, and the rules of RODS and of the leaderboard both judge it."""
    trace, own = gold_trace(domain, task), domain.rules(rules)

    def judge(closing: Closing) -> bool:
        passed = domain.rules(RODS).turn_passed(closing)
        played.rods[closing.turn] = passed
        played.reasons[closing.turn] = () if passed else _why(closing)
        return own.turn_passed(closing)

    judged = domain._replace(rules=lambda _: own._replace(turn_passed=judge))
    episode = Episode(judged, task, trace)
    _converse(episode.opening, episode.act, act, played)
    if not all(played.rods):  # the policy failed, unless gold itself plays differently each time
        require_repeats(domain, task, trace)
    played.state = equal(episode.state, trace[-1].state)
    made = [[call for move in played.moves if move.turn == t for call in move.calls] for t in range(len(task.turns))]
    for turn, call in episode.injected:  # it has not run, and its repetition has
        made[turn].remove(call)
    played.official[:] = turns_passed(domain, task, made[: episode.turn], official_turn_passed, trace)


def _play_checks(batch: EpisodeBatch, act: Act) -> _Played:
    """In a world that plays by itself: its checks are all the verdicts there are."""
    (opening,) = batch.openings
    if isinstance(opening, Failure):
        return replace(_unreached(1), stop=Stop(failure=opening.reason))
    played, passed = _unreached(opening.num_checks), list[bool]()
    played.lines += opening.lines

    def answer(action: Action) -> Answer | Failure:
        found = batch.act({0: action})[0]
        passed.extend(() if isinstance(found, Failure) else found.passed)
        if len(passed) > opening.num_checks:
            raise ValueError(f"the world decided more than the {opening.num_checks} checks that it has")
        return found

    _converse(opening, answer, act, played)
    failed = (Difference("check", "passed", "failed"),)
    played.rods[: len(passed)] = played.official[: len(passed)] = passed
    played.reasons[: len(passed)] = [() if one else failed for one in passed]
    played.state = all(played.rods)
    return played


def _converse(opening: Opening, answer: Callable[[Action], Answer | Failure], act: Act, played: _Played) -> None:
    """Lets the player and the world speak in turn until one of them ends it."""
    said = [Message(role, text) for role, text in _before(opening)]
    messages: tuple[Message, ...] = (*said, Message("user", opening.user, opening.tools))
    turn, done = 0, False
    while not done:
        spoken = act(messages)
        if isinstance(spoken, Stop):
            played.stop = spoken
            return
        action = readable(spoken.action)
        found = answer(action)
        if isinstance(found, Failure):
            played.stop = Stop(failure=found.reason)
            return
        played.moves.append(
            Move(
                turn,
                spoken.text,
                action.calls,
                found.code,
                found.observations,
                spoken.reasoning,
                len(found.lines),
            )
        )
        played.lines += found.lines
        played.tokens += spoken.tokens
        played.ended, played.blame = found.ended, found.blame
        messages, done = found.messages, found.done
        turn += sum(message.role == "user" for message in messages)


def _before(opening: Opening) -> tuple[tuple[str, str], ...]:
    """(role, text) of what stands before the user's first words."""
    said = (("system", opening.policy), ("assistant", opening.greeting))
    return tuple((role, text) for role, text in said if text)


def gold_player(task: Task) -> Act:
    """Makes the gold calls of each turn in one message, then answers; a world that goes on after them is a failure."""

    def script() -> Iterator[Said]:
        for turn in task.turns:
            if turn.gold:
                yield Said("", Action(calls=turn.gold))
            yield Said("Done.", Action(answer="Done."))

    said, over = script(), Stop(failure="the task's gold calls are all made, and its world goes on")
    return lambda messages: next(said, over)


def demonstrator_player(domain: Domain, task: Task, habits: Habits = Habits(), seed: int = 0) -> Act:
    """Plays as the domain's demonstrator, and so records its conversations. ValueError: the domain has none."""
    if domain.demonstrator is None:
        raise ValueError(f"{domain.name} has no demonstrator")
    act = domain.demonstrator(task, habits, random.Random(f"{seed}/{task.id}"))

    def said(messages: Sequence[Message]) -> Said:
        action = act([one for one in messages if one.role in ("user", "tool")])
        return Said(action.answer, action)

    return said


def null_player(task: Task) -> Act:
    """Answers every turn and never calls: what it scores is the floor."""
    return lambda messages: Said("I cannot do that.", Action(answer="I cannot do that."))


# -------------------------------------------------------------------------------- a served model
def converse(generate: Generate) -> Act:
    """One conversation: tools that are released later join the request's tools.

    docs/reference/blame.md says who is to blame for what: a message that cannot be read, or that was cut short, is the
    policy's error; a conversation that a server took so far and now finds too long is a limit of the policy; any
    other error is in no score.
    """
    conversation: list[dict] = []
    tools: list[dict] = []
    unanswered: list[str] = []  # ids of the latest calls
    num_calls = 0
    answered = False  # the server has taken this conversation before

    def act(messages: Sequence[Message]) -> Said | Stop:
        nonlocal num_calls, answered
        # Thoughts go back within a turn, and are forgotten after it.
        if any(message.role == "user" for message in messages):
            conversation[:] = map(_without_reasoning, conversation)
        hear(messages, conversation, tools, unanswered)
        (reply,) = generate([chat.Request(tuple(conversation), tuple(tools))])
        if reply.error == chat.TOO_LONG and answered:
            return Stop(truncated=f"{reply.error}: {reply.detail}")
        if reply.error not in (None, *chat.BY_THE_MODEL):
            return Stop(failure=f"{reply.error}: {reply.detail}")
        answered = True
        unanswered.extend(f"call{num_calls + i:05d}" for i in range(len(reply.calls)))  # 9 letters: Mistral's rule
        num_calls += len(reply.calls)
        conversation.append(_assistant(reply, unanswered))
        return Said(reply.text, _action(reply), reply.completion_tokens, reply.reasoning)

    return act


def hear(messages: Sequence[Message], conversation: list[Any], tools: list[Any], unanswered: list[str]) -> None:
    """Adds what a served model is told next: released tools, the results of its calls, and messages by their roles.

    unanswered: ids of its latest calls, none of which is left.  Servers insist on a result of each: one that closed its
    turn, or that the world did not answer, was not run.
    """

    def close() -> None:
        conversation.extend(_result(call, "Not run.") for call in unanswered)
        unanswered.clear()

    for message in messages:
        tools.extend(map(_function, message.tools))
        if message.role == "tool" and unanswered:
            conversation.append(_result(unanswered.pop(0), message.content))
            continue
        close()
        role = message.role if message.role in ("system", "assistant") else "user"
        conversation.append({"role": role, "content": message.content})
    close()


def _function(tool: ToolSpec) -> dict:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _result(call_id: str, content: str) -> dict:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def _assistant(reply: chat.Reply, ids: Sequence[str]) -> dict:
    """The message as it goes back: servers refuse an empty one, and names that no tool could have."""
    calls = [
        {
            "id": call_id,
            "type": "function",
            "function": {"name": sendable(call.name), "arguments": json.dumps(call.arguments)},
        }
        for call_id, call in zip(ids, reply.calls, strict=True)
    ]
    message = {"role": "assistant", "content": reply.text or ("" if calls else "(nothing that can be read)")}
    message |= {reply.reasoning_field: reply.reasoning} if reply.reasoning_field else {}
    return message | ({"tool_calls": calls} if calls else {})


def _without_reasoning(message: dict) -> dict:
    return {name: value for name, value in message.items() if name not in chat.REASONING_FIELDS}


def _action(reply: chat.Reply) -> Action:
    """By the grammar of a run's policy, but that the server has read the calls."""
    if reply.error == chat.CUT:
        return Action(error=reply.detail)
    if reply.error is not None:
        return unreadable(reply.detail, reply.calls)
    if reply.calls:  # words beside calls are told to nobody, and scores of conversations look at them
        return Action(reply.calls, without_thought(reply.text).strip())
    return read_message(answer, reply.text)


# ---------------------------------------------------------------------------- why a turn failed
def _why(closing: Closing) -> tuple[Difference, ...]:
    """What a turn lacks that fails under the RODS rule."""
    task, turn = closing.task, closing.turn
    if not task.turns[turn].gold:
        instead = "a call" if closing.called else "no answer within the attempts"
        return (Difference("answer", "a plain answer and no call", instead),)
    if not closing.called:
        return (Difference("calls", ", ".join(call.name for call in task.turns[turn].gold), "none"),)
    gold = closing.trace[turn]
    missing = Counter(gold.outputs) - Counter(closing.outputs)
    found = [Difference("output", _shown(text), "in no output so far") for text in missing.elements()]
    found += _state_differences("state", gold.state, closing.state)
    more = [Difference("more", f"{len(found) - MAX_DIFFERENCES} more differences", "")]
    return (*found[:MAX_DIFFERENCES], *more[: len(found) > MAX_DIFFERENCES])


def _state_differences(path: str, expected: Json, found: Json) -> list[Difference]:
    """Leaves in which two states differ; empty exactly where they are equal."""
    if equal(expected, found):
        return []
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        keys = [*expected, *(key for key in found if key not in expected)]
        pairs = [(f"{path}.{key}", expected.get(key, _ABSENT), found.get(key, _ABSENT)) for key in keys]
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = [(f"{path}[{i}]", a, b) for i, (a, b) in enumerate(zip(expected, found, strict=True))]
    else:
        return [Difference(path, _shown(expected), _shown(found))]
    return [difference for pair in pairs for difference in _state_differences(*pair)]


class _Absent:
    def __repr__(self) -> str:
        return "absent"


_ABSENT = _Absent()


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else shown(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({len(text)} characters)"
