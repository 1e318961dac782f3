"""A conversation: an agent, a user who answers and may have tools of its own, and an environment that runs both sides' calls.

    greeting -> user ... -> agent: words     -> user speaks -> its calls run, it speaks again -> its words -> agent
                            agent: calls     -> they run    -> results -> agent
    over     a stop word of the user (or of the agent), a limit, somebody's error: `Reason`; then `decide` says which checks passed

`conversations(make)` is a `Domain.start`; `make` starts the world of one task.  A group shares its prompt, so what its user says
before the agent's first message is asked for once; every rollout then goes its own way.  Who speaks, the stop words and the limits
follow tau2-bench.  The agent's messages alone are the policy's: greeting, policy text, words of users and results carry no loss.

Left out on purpose: taking back what a failing tool had changed, as tau2-bench does not.
"""

import hashlib
import json
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from functools import partial
from itertools import chain, groupby, repeat, takewhile
from typing import NamedTuple

from rods_jax.codecs.grammar import END_OF_THOUGHT, THOUGHT
from rods_jax.environments.foreign import told
from rods_jax.environments.protocol import Answer, EpisodeBatch, Failure, Opening, Rules, Slip
from rods_jax.rewards import CALL_FAILED, CALLED, PARSE_ERROR, SPOKE, TURN_FAILED, TURN_PASSED
from rods_jax.types import Action, Call, Line, Message, Observation, Task, ToolSpec

AGENT, USER = "agent", "user"
WRONG_OWNER = "wrong_owner"  # kind of a Slip
STOP, TRANSFER, OUT_OF_SCOPE = "###STOP###", "###TRANSFER###", "###OUT-OF-SCOPE###"


class Reason(StrEnum):
    """Why a conversation is over."""

    USER_STOP = "user_stop"
    AGENT_STOP = "agent_stop"
    MAX_STEPS = "max_steps"
    TOO_MANY_ERRORS = "too_many_errors"
    AGENT_ERROR = "agent_error"  # words beside calls, where that is not allowed
    USER_ERROR = "user_error"  # the same, or a model that said nothing twice
    CONTEXT_WINDOW = "context_window_exceeded"  # the user's model can read no more


class Heard(NamedTuple):
    """All that a user knows when it speaks: its task, the agent's words, its own messages and their results."""

    task: Task
    lines: tuple[Line, ...]


class Spoken(NamedTuple):
    """What a user answers: words or calls; or why it cannot."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    ended: Reason | None = None  # by the user's own fault: the episode counts
    failure: str = ""  # of the infrastructure: the episode is masked


User = Callable[[Heard], Spoken]  # without a state of its own: what it says follows from what it heard


class Ended(NamedTuple):
    """A finished conversation, as its checks may see it."""

    task: Task
    reason: Reason
    lines: tuple[Line, ...]
    steps: int
    errors: int  # calls of either side that failed, and messages of the agent that cannot be read


class Conversation(NamedTuple):
    """The world of one episode, in its initial state."""

    tools: tuple[ToolSpec, ...]  # of the agent
    user: User
    call: Callable[[str, Call], Observation]  # (who, call); whatever was written, it returns
    num_checks: int
    decide: Callable[[Ended], tuple[bool, ...]]
    sync: Callable[[], None] = lambda: None  # after each step: what one side's state does to the other's
    blame: Callable[[Ended], str] = lambda ended: ""  # AGENT or USER: who caused a failure; asked where a check failed
    policy: str = ""
    greeting: str = "Hi! How can I help you today?"
    history: tuple[Line, ...] = ()  # that has happened already; empty: the greeting
    stop_words: tuple[str, ...] = (STOP, TRANSFER, OUT_OF_SCOPE)  # of the user
    agent_stop_words: tuple[str, ...] = ()
    max_steps: int = 200  # messages of both sides and rounds of calls
    max_errors: int = 10
    one_kind: bool = False  # words beside calls end it, as their speaker's error


# --------------------------------------------------------------------------------------- for users
def noise(heard: Heard, purpose: str = "") -> random.Random:
    """A generator that follows from the task and from what was said: a restart draws the same, and no seed is passed."""
    said = [[one.who, one.text, [[call.name, dict(call.arguments)] for call in one.calls]] for one in heard.lines]
    text = json.dumps([heard.task.id, purpose, said], sort_keys=True, default=str)
    return random.Random(hashlib.sha256(text.encode("utf-8", "replace")).hexdigest())


def scripted(said: Sequence[Spoken]) -> User:
    """A user that says these, one after the other and over again."""
    return lambda heard: said[sum(line.who == USER and not line.result for line in heard.lines) % len(said)]


def answered(lines: Sequence[Line]) -> Iterator[tuple[str, Call, bool]]:
    """(who, call, whether it succeeded) of all calls in their order; one without a result did not."""
    for place, line in enumerate(lines):
        results = (one.ok for one in takewhile(lambda one: one.result, lines[place + 1 :]))
        for call, ok in zip(line.calls, chain(results, repeat(False))):
            yield line.who, call, ok


def view(who: str, lines: Sequence[Line]) -> tuple[Line, ...]:
    """What a side knows: its own messages and their results, and the words of the other."""
    return tuple(line for line in lines if line.who == who or line.is_words)


def wrong_owner(lines: Sequence[Line], tools: Mapping[str, Collection[str]]) -> Iterator[Slip]:
    """Calls of tools that the other side has alone.  tools: the names of each side's."""
    for place, line in enumerate(lines):
        for call in line.calls:
            if call.name not in tools[line.who] and any(call.name in names for names in tools.values()):
                yield Slip(place, line.who, WRONG_OWNER, call.name)


def without_thought(text: str) -> str:
    """A message without what its model thought; nothing where the thought was not closed."""
    behind = text.rpartition(END_OF_THOUGHT)[2]
    return "" if behind.lstrip().startswith(THOUGHT) else behind


# ----------------------------------------------------------------------------------- one conversation
class UserFailed(Exception):
    """The user could not answer, and neither side is to blame."""


class Talk:
    """Live state of one conversation. Not shared between threads."""

    def __init__(self, task: Task, world: Conversation):
        self._task, self._world = task, world
        self.lines = [*world.history] or [Line(AGENT, world.greeting)]
        self.steps = self.errors = 0
        self.reason: Reason | None = None

    def open(self, user: User) -> Opening:
        """Lets the user speak first, unless the history leaves the turn to the agent. UserFailed: it ends the conversation."""
        last = self.lines[-1]
        if (last.who == AGENT and last.is_words) or (last.who == USER and last.result):
            self._listen(user)
        if self.reason is not None:
            raise UserFailed(f"the conversation was over before the agent spoke: {self.reason}")
        world, first = self._world, [line for line in self.lines if line.who == USER and line.is_words]
        words = first[0].text if not world.history else "\n".join(map(_printed, self.lines))
        greeting = "" if world.history else world.greeting
        return Opening(world.tools, words, world.num_checks, world.policy, greeting, tuple(self.lines))

    def hear(self, action: Action) -> Answer:
        """The agent speaks or calls; then all that happens until it is its turn again."""
        before = len(self.lines)
        code = self._act(action)
        added = tuple(self.lines[before:])
        new = [line for line in added if line.who == USER or line.result]
        shown = tuple(map(_printed, new))
        if self.reason is None:
            messages = tuple(
                Message("user" if line.is_words else "tool", line.text)
                for line in view(AGENT, new)
                if line.is_words or line.result
            )
            return Answer(code, messages, shown, lines=added)
        ended = Ended(self._task, self.reason, tuple(self.lines), self.steps, self.errors)
        passed = tuple(self._world.decide(ended))
        if len(passed) != self._world.num_checks:
            raise ValueError(f"{len(passed)} checks were decided of {self._world.num_checks}")
        code = (TURN_PASSED if all(passed) else TURN_FAILED) if code == SPOKE else code
        blame = "" if all(passed) else self._world.blame(ended)
        return Answer(code, (), shown, True, passed, str(self.reason), blame, added)

    def _act(self, action: Action) -> int:
        if not action.calls and (action.error is not None or not action.answer.strip()):
            self._stepped(limited=False)
            return self._refuse(action.error or "the message is empty")
        self._spoke(Line(AGENT, action.answer, action.calls))
        if not action.calls:
            self._listen(self._world.user)
            return SPOKE
        if self.reason is not None:
            return CALLED
        fine = self._run(AGENT, action.calls)
        if action.error is not None and self.reason is None:
            self._refuse(action.error)
            fine = False
        return CALLED if fine else CALL_FAILED

    def _listen(self, user: User) -> None:
        """The user speaks, and calls its tools, until it has said words."""
        while self.reason is None:
            spoken = user(Heard(self._task, view(USER, self.lines)))
            if spoken.failure:
                raise UserFailed(f"the user cannot answer: {spoken.failure}")
            if spoken.ended is not None:
                self.reason = spoken.ended
                return
            text = without_thought(spoken.text)
            if not text.strip() and not spoken.calls:
                raise UserFailed("the user said nothing")
            self._spoke(Line(USER, text, spoken.calls))
            if not spoken.calls:
                return
            if self.reason is None:
                self._run(USER, spoken.calls)

    def _spoke(self, line: Line) -> None:
        """One step of a side.  A limit waits for the calls that follow, so it may be overshot by their step."""
        mine = line.who == USER
        self.lines.append(line)
        if self._world.one_kind and line.calls and line.text.strip():
            self.reason = Reason.USER_ERROR if mine else Reason.AGENT_ERROR
        words = self._world.stop_words if mine else self._world.agent_stop_words
        if line.is_words and any(word in line.text for word in words):
            self.reason = Reason.USER_STOP if mine else Reason.AGENT_STOP
        self._stepped(limited=line.is_words)

    def _run(self, who: str, calls: Sequence[Call]) -> bool:
        """The environment's step: all calls in their order. Whether all went well."""
        observations = [self._world.call(who, call) for call in calls]
        self.lines += [Line(who, one.text, result=True, ok=one.ok) for one in observations]
        self.errors += sum(not one.ok for one in observations)
        self._stepped(limited=True)
        return all(one.ok for one in observations)

    def _refuse(self, why: str) -> int:
        """Tells the agent why its message, or a part of it, cannot be read."""
        self.lines.append(Line(AGENT, f"Error: {why}.", result=True, ok=False))
        self.errors += 1
        self._limit()
        return PARSE_ERROR

    def _stepped(self, limited: bool) -> None:
        self.steps += 1
        self._world.sync()
        if limited:
            self._limit()

    def _limit(self) -> None:
        """A limit overrides a stop in the same step."""
        if self.steps >= self._world.max_steps:
            self.reason = Reason.MAX_STEPS
        if self.errors >= self._world.max_errors:
            self.reason = Reason.TOO_MANY_ERRORS


def _printed(line: Line) -> str:
    """A line as records show it: the agent's results as they are, the user's side with its name."""
    calls = [f"{call.name} {json.dumps(dict(call.arguments), ensure_ascii=False)}" for call in line.calls]
    text = " ".join(filter(None, (line.text, *calls)))
    if line.who == AGENT:
        return text
    return f"user's tool: {text}" if line.result else f"user{' calls' if calls else ''}: {text}"


# ------------------------------------------------------------------------------------- many of them
def conversations(
    make: Callable[[Task], Conversation], *, waits: bool = False
) -> Callable[[Sequence[Task], Rules], EpisodeBatch]:
    """A `Domain.start` that holds conversations.

    make: the world of a task, for one rollout of it; picklable where episodes live in workers.
    waits: its users are slow (a server): every episode is answered in a thread of its own, so that none waits for another.
    """
    return partial(_start, make, waits)


def _start(make: Callable[[Task], Conversation], waits: bool, tasks: Sequence[Task], rules: Rules) -> EpisodeBatch:
    groups = [[*group] for _, group in groupby(tasks, key=id)]
    if waits:
        with ThreadPoolExecutor(max(1, len(groups))) as threads:
            opened = [*threads.map(partial(_open, make), groups)]
    else:
        opened = [*map(partial(_open, make), groups)]
    episodes = [one for group in opened for one in group]

    def act(actions: Mapping[int, Action]) -> dict[int, Answer | Failure]:
        return {place: _answer(episodes[place][0], action) for place, action in actions.items()}

    lanes = tuple((place,) for place in range(len(episodes))) if waits else ()
    return EpisodeBatch(tuple(opening for _, opening in episodes), act, lanes)


def _open(make: Callable[[Task], Conversation], group: Sequence[Task]) -> list[tuple[Talk | None, Opening | Failure]]:
    """A task's rollouts, whose user speaks once for all of them."""
    said: list[Spoken] = []

    def first(user: User, heard: Heard) -> Spoken:
        said.append(user(heard))
        return said[-1]

    try:
        opened: list[tuple[Talk | None, Opening | Failure]] = []
        for task in group:
            world = make(task)
            talk, again = Talk(task, world), iter(said)
            opened.append((talk, talk.open(_repeating(again) if opened else partial(first, world.user))))
        return opened
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return [(None, _failure(error))] * len(group)


def _repeating(said: Iterator[Spoken]) -> User:
    return lambda heard: next(said)


def _answer(talk: Talk | None, action: Action) -> Answer | Failure:
    if talk is None:
        return Failure("the conversation did not begin")
    try:
        return talk.hear(action)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return _failure(error)


def _failure(error: BaseException) -> Failure:
    return Failure(str(error) if isinstance(error, UserFailed) else told(error))
