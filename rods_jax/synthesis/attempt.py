"""What one synthesis attempt starts from, and the records that it leaves behind.

An attempt follows from its seed, its number and the history alone, so that a restart continues where the last attempt
ended.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rods_jax.environments.protocol import Domain, Simulator
from rods_jax.synthesis.profile import Profile
from rods_jax.types import Json, Task, World

UNSEEN = "unseen"  # a Rejection's error: the content is a known task's, as the gate critique.is_new finds too


@dataclass(frozen=True)
class Rejection:
    """Why one attempt ended, what it had planned, and how it changes the attempts after it."""

    attempt: int
    error: str  # a type of errors.py, or the name of the gate or judge that refused
    detail: str
    functions: tuple[str, ...] = ()  # tools to blame: no later attempt may plan them
    plan: tuple[tuple[str, ...], ...] = ()  # the tools of each turn; empty where no plan was made
    patch: Mapping[str, Json] = field(default_factory=dict)  # merged into the initial state of later attempts
    refused_patches: tuple[str, ...] = ()  # why proposed patches were left out


@dataclass(frozen=True)
class Exchange:
    """One question to a language model, so that calls and tokens can be counted and prompts be traced."""

    attempt: int
    role: str
    prompt: str  # version of the prompt
    error: str | None  # of the reply, or why it could not be used
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Attempt:
    """All that a role may know beside the output of the stages before it."""

    domain: Domain
    profile: Profile
    world: World  # with every patch of the history
    rng: random.Random
    seed: Task | None = None  # None: authored from the profile alone
    examples: Mapping[str, Sequence[Json]] = field(default_factory=dict)  # values that suit the state
    tool_weights: Mapping[str, float] | None = None
    number: int = 0
    history: tuple[Rejection, ...] = ()
    log: Callable[[Exchange], None] = lambda exchange: None

    def simulator(self) -> Simulator:
        """A new one, in the initial state."""
        return self.domain.simulator(self.world)

    @property
    def blocked(self) -> tuple[str, ...]:
        """The cumulative block list: every tool that an earlier attempt blamed."""
        return tuple(dict.fromkeys(name for rejection in self.history for name in rejection.functions))
