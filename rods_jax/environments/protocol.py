"""What a world must offer: episodes that open and answer, and for worlds of tools a simulator and gold calls.

Any Python classes can be a world of tools (toolkit.py), BFCL is one (bfcl.py), and episode.py plays them all.  A world of
another kind has a `Domain.start` of its own.  Text formats are in codecs/.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from rods_jax.types import Action, Call, Json, Line, Message, Observation, Task, ToolSpec, World


# --------------------------------------------------------------------------------------- episodes
class Opening(NamedTuple):
    """How an episode begins for the policy."""

    tools: tuple[ToolSpec, ...]
    user: str  # the first message
    num_checks: int  # that the world will decide; progress is passed / all, and an undecided check is not passed
    policy: str = ""  # the rules that the policy must follow, in the system message
    greeting: str = ""  # the policy's own first words, before the user's: given, so they carry no loss
    lines: tuple[Line, ...] = ()  # of a conversation, so far


class Answer(NamedTuple):
    """What one action led to."""

    code: int  # RODS 1.2; a turn that is forced to close keeps the code of its last action
    messages: tuple[Message, ...]  # empty when the episode is over
    observations: tuple[str, ...] = ()
    done: bool = False
    passed: tuple[bool, ...] = ()  # the checks that this action decided, in the order of the episode's checks
    ended: str = ""  # why a conversation is over
    blame: str = ""  # who caused its failure: "agent" or "user"
    lines: tuple[Line, ...] = ()  # that the action added to the conversation, its own among them


class GoldDialogue(NamedTuple):
    """A dialogue that solves a task: how it begins, and each action with what comes back, nothing after the last."""

    opening: Opening
    moves: tuple[tuple[Action, tuple[Message, ...]], ...]  # none: it is not known


class Failure(NamedTuple):
    """The world broke, not the policy: the rollout is recorded and masked."""

    reason: str


class EpisodeBatch(NamedTuple):
    """B episodes under way, wherever they live."""

    openings: tuple[Opening | Failure, ...]
    act: Callable[[Mapping[int, Action]], Mapping[int, Answer | Failure]]  # by place in the batch
    lanes: tuple[Sequence[int], ...] = ()  # places that answer together; lanes are asked at once, each in a thread


StartEpisodes = Callable[[Sequence[Task]], EpisodeBatch]  # one task per episode; equal neighbours are one task's


# ------------------------------------------------------------------------------------ gold and rules
class TurnTrace(NamedTuple):
    """What the gold calls leave behind when a turn closes."""

    state: Mapping[str, Mapping[str, Json]]  # after the gold calls of turns 1..t
    outputs: tuple[str, ...]  # of the gold calls of turn t alone


GoldTrace = tuple[TurnTrace, ...]  # one per turn; compute it once per task and share it read-only


class Closing(NamedTuple):
    """All that a scorer may know of a turn that closes now."""

    task: Task
    trace: GoldTrace
    turn: int  # from 0
    state: Mapping[str, Mapping[str, Json]]  # a live view
    outputs: Sequence[str]  # of all calls so far, of earlier turns too
    called: bool  # whether a call was made in this turn
    answered: bool = True  # False: the loop closed the turn, not the policy
    said: str = ""  # the answer that closed it


class Rules(NamedTuple):
    """The options in which a protocol is free; docs/reference/bfcl.md says why each differs."""

    turn_passed: Callable[[Closing], bool]
    max_attempts: int  # a turn is closed when its attempts exceed this
    limit_ends_episode: bool  # ... and the turns after it are never reached
    unreadable_ends_turn: bool  # a message that cannot be parsed; if not, the policy is told and may try again
    runs_withheld_tools: bool  # before the turn that releases them
    runs_calls_without_gold: bool  # in turns that ask for a plain answer; if not, such a call fails the turn
    explains_failures: bool = False  # the policy reads the domain's hint after a failure (hints.py); no score does
    warns_of_calls: bool = False  # the turn after one that such a call failed begins with a warning (hints.py)
    reads_as_leaderboard: bool = False  # a run's messages, by Codec.official; if not, by Codec.parse


def unchanged(rules: Rules) -> Rules:
    """A domain without rules of its own; a function with a name, since domains travel to other processes."""
    return rules


# ----------------------------------------------------------------------------------------- domains
class Stratum(NamedTuple):
    """What sets the tasks of a stratum apart, for those who write them."""

    options: Mapping[str, Json] = {}  # of their worlds
    withholds: str = ""  # what one turn lacks, so that it asks for no call: a "function", or a "parameter"


STRATA = {
    "base": Stratum(),
    "missing_function": Stratum(withholds="function"),
    "missing_parameter": Stratum(withholds="parameter"),
    "long_context": Stratum({"long_context": True}),
}


class Slip(NamedTuple):
    """An error of either side, found in a transcript alone."""

    place: int  # of its line; the number of lines where it is that nothing was said
    who: str  # "agent" or "user"
    kind: str
    about: str = ""  # a tool or what was asked for


class Reading(NamedTuple):
    """What a domain's conversations are about, for people who read them and for models that learn from them."""

    policy: Callable[[Task], str]  # what the agent must follow
    instructions: Callable[[Task], str]  # what the user is told
    user_tools: Callable[[Task], tuple[ToolSpec, ...]]  # that the user may call
    checks: Callable[[Task], tuple[str, ...]]  # what each check asks for, in their order
    slips: Callable[[Task, Sequence[Line], str], Sequence[Slip]]  # of all lines, and why they ended
    tau2_entry: Callable[[Task], Json] | None = None  # the task as tau2-bench's files have it

    def user_errors(self, task: Task, lines: Sequence[Line], ended: str) -> int:
        """How often the user erred, as far as a transcript shows."""
        return sum(slip.who == "user" for slip in self.slips(task, lines, ended))


class Simulator(Protocol):
    """Live tool objects of one rollout. Deterministic, picklable, no shared state."""

    def call(self, call: Call) -> Observation:
        """Runs one call; whatever the model wrote, this returns and never raises, KeyboardInterrupt apart."""

    def state(self) -> Mapping[str, Mapping[str, Json]]:
        """Public attributes by class name, comparable with == (a live view: copy to keep)."""


class FailedCall(NamedTuple):
    """A call that failed, as an explanation may see it."""

    call: Call
    text: str  # of the observation
    offered: tuple[ToolSpec, ...]  # tools that the policy may use in this turn
    repeated: bool  # the same call failed before in this turn


class Domain(NamedTuple):
    """A family of tool classes: their tools, how to start them, and how to write about them."""

    name: str
    tools: Mapping[str, ToolSpec]  # by tool name, unique over all classes
    simulator: Callable[[World], Simulator]
    sample_state: Callable[[random.Random, Sequence[str]], Mapping[str, Json]] | None = (
        None  # None: reuse the seed's state
    )
    sample_argument: Callable[[random.Random, ToolSpec, str], Json] | None = (
        None  # (rng, tool, parameter) -> a free value, None when it must come from state or outputs
    )
    phrases: Mapping[str, Sequence[str]] = {}  # tool name -> wordings with {parameter} fields
    nouns: Mapping[str, str] = {}  # parameter -> noun: "ticket 41" (without: "41"), "that ticket"
    strata: Mapping[str, Stratum] = STRATA  # what its tasks are told apart by: quotas, scores and plots follow it
    rules: Callable[[Rules], Rules] = unchanged  # the run's, changed to its own: another scorer, say
    start: Callable[[Sequence[Task], Rules], EpisodeBatch] | None = None  # None: scripted turns and gold (episode.py)
    member: Callable[[Task], "Domain"] | None = None  # of a mixture: the one of its domains that a task is of
    explain: Callable[[FailedCall], str] | None = None  # a hint for the policy, or ""; hints.explained makes one
    # (task, calls before it, call) -> the text of a failure in its place, or ""; the policy's calls alone (unreliable.py)
    fail: Callable[[Task, Sequence[Call], Call], str] | None = None
    reading: Reading | None = None  # of its conversations; None: it holds none, or their transcripts tell no more
    # (task, config.Habits, rng) -> who plays a cold start's demonstrations: what came back -> the next action; None: gold calls
    demonstrator: Callable[..., Callable[[Sequence[Message]], Action]] | None = None
    # of a world with a `start`: how short a dialogue that solves a task can be, for lengths.py; None: the demonstrator's
    gold: Callable[[Task], "GoldDialogue"] | None = None

    def of(self, task: Task) -> "Domain":
        """Whose task it is: of a mixture one of its domains, else this one."""
        return self if self.member is None else self.member(task)

    def tools_of(self, classes: Sequence[str]) -> tuple[ToolSpec, ...]:
        return tuple(tool for tool in self.tools.values() if tool.class_name in classes)


class TaskSplits(NamedTuple):
    """The tasks of a run, in parts that no scenario crosses."""

    seeds: tuple[Task, ...]  # the human seeds of the replay pool
    held_out: tuple[Task, ...]  # what every reported score is measured on
    practice: tuple[Task, ...] = ()  # what the cold start's demonstrations are made of
    validation: tuple[Task, ...] = ()  # what the cold start stops on
