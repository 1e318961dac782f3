"""What an author is: a function that makes a variant of an order, and says what became of it.

    def author(order, *, step, rng, known_hashes, backends={}, history=(), attempts=3) -> Synthesis: ...

`pipeline.five_stages` is one.  courier/ carries orders to it, and knows nothing else of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rods_jax.chat import Generate
from rods_jax.synthesis.attempt import Exchange, Rejection
from rods_jax.types import Task, Trajectory


class Order(NamedTuple):
    """What an author is asked for: a variant of this task."""

    seed: Task
    trajectories: tuple[Trajectory, ...] = ()  # its rollouts in the step whose feedback chose it


@dataclass(frozen=True)
class Synthesis:
    """What became of one seed."""

    candidate: Task | None
    rejections: tuple[Rejection, ...] = ()
    exchanges: tuple[Exchange, ...] = ()  # with language models, in order


# (order, step=, rng=, known_hashes=, backends=, history=, attempts=) -> Synthesis
#
# step: the step whose feedback chose the seed.  rng: the only source of chance.  known_hashes: content hashes that no
# variant may have.  backends: each role's language model, asked in an order that follows from the arguments and the
# replies alone, because a restart answers the same questions with the recorded replies.  history: the rejections of an
# earlier call with an equal `rng`; the result begins with them.  attempts: how many may fail in all, those of the
# history among them.  A failure is a Rejection, never an exception.
Write = Callable[..., Synthesis]


class Author(NamedTuple):
    """Who settles the orders of a run."""

    write: Write
    backends: Mapping[str, Generate]  # by role
    attempts: int  # for each order
    known: frozenset[str]  # content hashes that no variant may have; those of earlier variants are added


def orders_of(seeds: Sequence[Task], trajectories: Sequence[Trajectory]) -> tuple[Order, ...]:
    """An order for each seed, with those of a step's trajectories that are its own and were played."""
    played = [one for one in trajectories if one.played]
    return tuple(Order(seed, tuple(one for one in played if one.task_id == seed.id)) for seed in seeds)
