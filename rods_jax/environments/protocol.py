"""What a tool world must offer; any Python classes can (see toolkit.py), BFCL does (bfcl.py).

Scoring and the interaction loop are in episode.py, text formats in codecs/.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from rods_jax.types import Call, Json, Observation, Task, ToolSpec, World


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
    explain: Callable[[FailedCall], str] | None = None  # a hint for the policy, or ""; hints.explained makes one

    def tools_of(self, classes: Sequence[str]) -> tuple[ToolSpec, ...]:
        return tuple(tool for tool in self.tools.values() if tool.class_name in classes)


class TaskSplits(NamedTuple):
    """The tasks of a run, in parts that no scenario crosses."""

    seeds: tuple[Task, ...]  # the human seeds of the replay pool
    held_out: tuple[Task, ...]  # what every reported score is measured on
    practice: tuple[Task, ...] = ()  # what the cold start's demonstrations are made of
    validation: tuple[Task, ...] = ()  # what the cold start stops on
