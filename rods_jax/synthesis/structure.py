"""Whether a model's calls and words keep the flow of values of the seed (RODS section 5: the profile).

A link is kept if an argument holds a value that the link's call returned, and if no user message has named that value
before.  `extract_profile` finds just these links again in the finished task.  Each check runs as early as it can, so
that the role at fault is asked again.
"""

from collections.abc import Sequence
from typing import NamedTuple

from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.ask import Unfit
from rods_jax.synthesis.attempt import Attempt
from rods_jax.synthesis.errors import STRUCTURE_LOST
from rods_jax.synthesis.execute import ExecutedCall
from rods_jax.synthesis.profile import Edge, atoms_by_key, extract_profile, first_edge
from rods_jax.synthesis.values import atoms, mentions
from rods_jax.types import Call, Json, Task, Turn


class ToldValues(NamedTuple):
    """Argument values that user messages must name, and values that no message may name before their call."""

    named: tuple[Json, ...] = ()
    unnamed: tuple[Json, ...] = ()


def producers(attempt: Attempt, consumer: int) -> tuple[int, ...]:
    """The calls whose outputs must flow into a call, counted over the task."""
    return tuple(sorted(source for source, target in attempt.profile.links if target == consumer))


def told_values(attempt: Attempt, done: Sequence[ExecutedCall], calls: Sequence[ExecutedCall]) -> ToldValues:
    """What users must and must not name of `calls`, which follow `done`, for values to flow as in the seed."""
    named: list[Json] = []
    unnamed: list[Json] = []
    before = list(done)
    for call in calls:
        wanted = producers(attempt, len(before))
        for edge in _edges(attempt.domain, before, call.call):
            value = call.arguments[edge.parameter].value
            (unnamed if edge.producer in wanted else named).append(value)
        before.append(call)
    return ToldValues(tuple(named), tuple(value for value in unnamed if value not in named))


def check_arguments(
    attempt: Attempt,
    done: Sequence[ExecutedCall],
    turn: Sequence[ExecutedCall],
    call: Call,
    queries: Sequence[str],
) -> None:
    """Unfit("structure_lost"): the call takes nothing of a call that must flow into it, or only what users name.

    done: the calls so far, those of this `turn` among them; queries: of the turns before.
    """
    # The user of this turn will name every value that its calls have from nowhere else.
    text = "\n".join(queries)
    for index, earlier in enumerate(turn, len(done) - len(turn)):
        flowing = {edge.parameter for edge in _edges(attempt.domain, done[:index], earlier.call)}
        values = (argument for name, argument in earlier.call.arguments.items() if name not in flowing)
        text += "".join(f"\n{atom}" for value in values for atom in atoms(value))

    edges = _edges(attempt.domain, done, call)
    found = {edge.producer for edge in edges if not mentions(text, call.arguments[edge.parameter])}
    for producer in producers(attempt, len(done)):
        if producer not in found:
            source = done[producer].tool
            raise Unfit(
                STRUCTURE_LOST,
                f"an argument of {call.name} must be a value that {source} (call {producer}) was the first to return, "
                "and that no user has named",
            )


def check_words(attempt: Attempt, turns: Sequence[Turn]) -> None:
    """Unfit("structure_lost"): with these user messages, values do not flow between the calls as in the seed."""
    profile = attempt.profile
    task = Task("", "", profile.category, attempt.world, tuple(turns))
    calls = [call for turn in turns for call in turn.gold]
    found = {(edge.producer, edge.consumer): edge for edge in extract_profile(attempt.domain, task).edges}
    wanted = {link for link in profile.links if link[1] < len(calls)}
    for producer, consumer in sorted(wanted - found.keys()):
        source, target = calls[producer].name, calls[consumer].name
        raise Unfit(
            STRUCTURE_LOST,
            f"what {target} (call {consumer}) takes from {source} (call {producer}) must not be named by the user up to "
            "then: refer to it instead",
        )
    for link in sorted(found.keys() - wanted):
        edge = found[link]
        value = calls[edge.consumer].arguments[edge.parameter]
        raise Unfit(
            STRUCTURE_LOST,
            f"the user must name {value!r} by the turn of {calls[edge.consumer].name} (call {edge.consumer}), though "
            f"{calls[edge.producer].name} has returned it",
        )


def _edges(domain: Domain, done: Sequence[ExecutedCall], call: Call) -> list[Edge]:
    """Where each argument of a call was first returned, whatever users say."""
    produced = [(earlier.call, atoms_by_key(earlier.output)) for earlier in done]
    edges = (
        first_edge(domain, produced, call, parameter, value)
        for parameter, value in call.arguments.items()
        if any(True for _ in atoms(value))
    )
    return [edge for edge in edges if edge is not None]
