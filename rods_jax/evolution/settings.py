"""The configuration of an evolution: a Python file that ends in CONFIG = EvolutionConfig(...), as configs/evolve_helpdesk.py does."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import tyro

from rods_jax.chat import Generate
from rods_jax.evolution.evolve import Pace
from rods_jax.fields import check_types, fraction, not_negative, positive, require


@dataclass(frozen=True, kw_only=True)
class EvolutionConfig:
    """Which domain, who writes, and how much."""

    ground: Callable[[], Any]  # a ground.Ground
    roles: Callable[[Any, Mapping[str, Generate]], Any]  # (ground, backends) -> roles.Roles: evolution.llm.llm_roles
    backends: Callable[[], Mapping[str, Generate]] = dict  # each role's language model
    pace: Pace = field(default_factory=Pace)  # below
    max_tokens: int | None = None  # of all roles together, those of earlier calls of the command among them
    prompt_price: float = 0.0  # per million tokens, for the cost of a task
    completion_price: float = 0.0  # the same, of what models write
    file: tyro.conf.Fixed[str | None] = None  # where it was read from

    def __post_init__(self) -> None:
        check_types("", self)
        check_types("pace", self.pace)
        positive("", self, "max_tokens")
        not_negative("", self, "prompt_price", "completion_price")
        pace = self.pace
        require(4 <= pace.pairs <= 64, f"pace.pairs must be from 4 to 64: got {pace.pairs}")
        positive("pace", pace, "attempts", "rounds", "patience", "tasks", "trials", "workers")
        not_negative("pace", pace, "min_gain", "tolerance")
        fraction("pace", pace, "max_overlap")
