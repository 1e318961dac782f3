"""Stage V: makes the turns of a task, with what its category withholds (RODS section 5, Appendix P).

Runs before the gates, which check its result. Long context needs no turn of its own: the simulator does it.
"""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.errors import CONVERSATION_CONSTRUCT_FAILED, Rejected
from rods_jax.synthesis.execute import ExecutedCall, Execution
from rods_jax.synthesis.rewrite import noun, show, word_turn
from rods_jax.synthesis.values import fields, mentions
from rods_jax.types import Json, Turn

RELEASES = (
    "more tools are available now, please try again.",
    "i have just given you another tool, does that help?",
    "there is a new tool for you now, please go on with what i asked.",
)
SUPPLIES = ("the {noun} is {value}.", "use {value} as the {noun}.", "i mean {value} for the {noun}.")


class Gap(NamedTuple):
    """An argument that a query can leave out: the call within its turn, the parameter, the value."""

    call: int
    parameter: str
    value: Json


# (domain, calls of the turn, gap, rng, turns up to this one) -> (query without the value, query that supplies it)
WordGap = Callable[[Domain, Sequence[ExecutedCall], Gap, random.Random, Sequence[Turn]], tuple[str, str]]


def word_gap(
    domain: Domain, calls: Sequence[ExecutedCall], gap: Gap, rng: random.Random, turns: Sequence[Turn]
) -> tuple[str, str]:
    """The wording of templates: "a certain" something in place of the value."""
    query = word_turn(domain, calls, rng, (gap.call, gap.parameter))
    return query, rng.choice(SUPPLIES).format(noun=noun(domain, gap.parameter), value=show(gap.value))


def augment(
    domain: Domain,
    execution: Execution,
    queries: tuple[str, ...],
    withholds: str,
    withheld_turn: int | None,
    rng: random.Random,
    word: WordGap = word_gap,
) -> tuple[Turn, ...]:
    """Joins queries and gold calls to turns; where something is withheld (`Stratum.withholds`), its turn becomes two.

    Raises Rejected("conversation_construct_failed") where nothing in that turn can be withheld.
    """
    if len(queries) != len(execution.turns):
        detail = f"{len(queries)} queries for {len(execution.turns)} turns"
        raise Rejected(CONVERSATION_CONSTRUCT_FAILED, detail)
    turns = [
        Turn(query, tuple(executed.call for executed in calls))
        for query, calls in zip(queries, execution.turns, strict=True)
    ]
    if not withholds:
        return tuple(turns)
    assert withheld_turn is not None
    if withholds == "function":
        withheld = _withhold_function(domain, execution, turns, withheld_turn, rng)
    else:
        withheld = _withhold_parameter(domain, execution, turns, withheld_turn, rng, word)
    return (*turns[:withheld_turn], *withheld, *turns[withheld_turn + 1 :])


def _withhold_function(
    domain: Domain, execution: Execution, turns: Sequence[Turn], index: int, rng: random.Random
) -> list[Turn]:
    """The query unanswered for want of a tool that no earlier turn used, then the tool."""
    used = {call.name for turn in turns[:index] for call in turn.gold}
    names = [call.name for call in turns[index].gold if call.name not in used]
    if not names or len(domain.tools_of(execution.world.classes)) < 2:
        raise Rejected(CONVERSATION_CONSTRUCT_FAILED, f"no tool of turn {index} can be withheld")
    released = (rng.choice(names),)
    return [Turn(turns[index].user), Turn(rng.choice(RELEASES), turns[index].gold, released)]


def _withhold_parameter(
    domain: Domain,
    execution: Execution,
    turns: Sequence[Turn],
    index: int,
    rng: random.Random,
    word: WordGap,
) -> list[Turn]:
    """The query without one required value that nothing said or returned so far tells, then the value."""
    calls = execution.turns[index]
    said = "\n".join(turn.user for turn in turns[:index])
    earlier = [call for turn in execution.turns[:index] for call in turn]
    gaps = []
    for gap in _gaps(domain, calls):
        outputs = [call.output for call in (*earlier, *calls[: gap.call])]
        returned = any(gap.value == value for output in outputs for _, value in fields(output))
        if not returned and not mentions(said, gap.value):
            gaps.append(gap)
    rng.shuffle(gaps)
    for gap in gaps:
        query, supply = word(domain, calls, gap, rng, turns[: index + 1])
        if not mentions(query, gap.value):
            return [Turn(query), Turn(supply, turns[index].gold)]
    raise Rejected(CONVERSATION_CONSTRUCT_FAILED, f"no argument of turn {index} can be withheld")


def _gaps(domain: Domain, calls: tuple[ExecutedCall, ...]) -> list[Gap]:
    return [
        Gap(position, parameter, argument.value)
        for position, executed in enumerate(calls)
        for parameter, argument in executed.arguments.items()
        if argument.origin is None
        and parameter in domain.tools[executed.tool].parameters.get("required", ())
        and isinstance(argument.value, str | int | float)
        and not isinstance(argument.value, bool)
    ]
