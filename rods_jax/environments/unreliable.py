"""Tools that fail now and then, as real services do: the injected failures of ASTRA (arXiv 2601.21558).

    domain=partial(with_failures, office, rate=0.1)

A call of the policy fails before its tool has run, so that nothing has changed.  The same call, made again, gets
through.  So gold passes whenever failed calls are repeated.  Checks before a run, traces, demonstrations and synthesis
play gold without failures.  The trajectory holds the text of a failure in place of the result.  The leaderboard's verdict
is on the calls that have run.

Whether a call fails follows from (seed, task, number of calls before it, the call).  Rollouts of a task that do the
same meet the same failures, in any process, so that luck makes no difference between their rewards.

Left out on purpose: failures after the tool has run, because gold repeated would then do things twice; conversations,
whose worlds make their own calls.
"""

import json
import random
from collections.abc import Callable, Sequence
from functools import partial

from rods_jax.environments.protocol import Domain
from rods_jax.types import Call, Task

KINDS = (
    "Error: the request timed out. Please try again.",
    "Error: the service is temporarily unavailable. Please try again.",
    "Error: too many requests. Please try again.",
)


def with_failures(
    make: Callable[[], Domain], *, rate: float = 0.1, kinds: Sequence[str] = KINDS, seed: int = 0
) -> Domain:
    """The domain, whose tools fail this share of the calls that are made for the first time in an episode.

    make: as `Config.domain`.  kinds: texts of failures, equally frequent.  ValueError: rate is no share, there are no
    kinds, or the domain is a mixture or plays by itself.
    """
    domain = make()
    if not 0 <= rate <= 1:
        raise ValueError(f"the rate of failures must lie in [0, 1]: got {rate}")
    if not kinds or not all(kinds):
        raise ValueError("failures need kinds, each with a text")
    if domain.member is not None:
        raise ValueError(f"{domain.name} is a mixture: give its domains failures before they are mixed")
    if domain.start is not None:
        raise ValueError(f"{domain.name} makes its own calls: only worlds of tools can be given failures")
    return domain._replace(fail=partial(_fail, rate, tuple(kinds), seed))


def _fail(rate: float, kinds: Sequence[str], seed: int, task: Task, made: Sequence[Call], call: Call) -> str:
    if call in made:
        return ""
    rng = random.Random(json.dumps([seed, task.id, len(made), call.name, dict(call.arguments)], sort_keys=True))
    return rng.choice(kinds) if rng.random() < rate else ""
