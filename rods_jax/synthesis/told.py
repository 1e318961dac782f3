"""Gates on what user text tells: a policy can only use values that it was told or has been returned.

Templates keep this by construction (rewrite.py); these gates are for text that a language model wrote.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.values import atoms, holds, mentions
from rods_jax.types import Call, Json, Task

MAX_QUERY_CHARACTERS = 1_500
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
RESIDUE = re.compile(r"thought process|\b(function|tool|API) calls?\b|\b(step|turn) ?\d+ ?[:.)]|ground truth", re.I)


def check_query(domain: Domain, query: str, calls: Sequence[Call]) -> str:
    """The query. ValueError: it is empty or too long, names a function or parameter, or tells of its making."""
    if not query or len(query) > MAX_QUERY_CHARACTERS:
        raise ValueError(f"a query must have 1 to {MAX_QUERY_CHARACTERS} characters, not {len(query)}")
    residue = RESIDUE.search(query)
    if residue is not None:
        raise ValueError(f"a query must not hold {residue[0]!r}")
    names = [*domain.tools, *(parameter for call in calls for parameter in call.arguments)]
    values = [str(atom) for call in calls for value in call.arguments.values() for atom in atoms(value)]
    for name in names:
        identifier = re.search(r"_|[a-z][A-Z]", name) is not None
        if identifier and holds(query, name) and name not in values:
            raise ValueError(f"a query must not name {name}")
    return query


def numbers_are_told(domain: Domain, task: Task) -> str | None:
    """Gate: every number of 3 or more digits in a gold call is named so far, was returned, or is the default.

    People paraphrase texts and small numbers ("the latest entry"): whether those can be known is the judge's to
    say. 748 of the 800 human tasks of BFCL pass this gate, and 123 a gate on every value.
    """
    for turn, call, parameter, atom in _untold(domain, task):
        default = domain.tools[call.name].parameters["properties"][parameter].get("default")
        if isinstance(atom, int | float) and len(str(abs(int(atom)))) >= 3 and atom != default:
            return f"turn {turn}: {call.name}: {parameter} {atom} was never told"
    return None


def value_is_withheld(domain: Domain, task: Task) -> str | None:
    """Gate: where a parameter is withheld, the empty turn cannot be served before the next one supplies a value."""
    if domain.strata[task.category].withholds != "parameter":
        return None
    for index, turn in enumerate(task.turns[:-1]):
        recovery = task.turns[index + 1]
        if not turn.gold and recovery.gold:
            turns = (*task.turns[: index + 1], replace(recovery, user=""), *task.turns[index + 2 :])
            silenced = replace(task, turns=turns)
            return None if any(at == index + 1 for at, *_ in _untold(domain, silenced)) else "no value is withheld"
    return "no turn withholds anything"


def _untold(domain: Domain, task: Task) -> Iterator[tuple[int, Call, str, Json]]:
    """(turn, call, parameter, string or number) of all that nothing said or returned so far holds."""
    simulator = domain.simulator(task.world)
    told = ""
    for index, turn in enumerate(task.turns):
        told += f"\n{turn.user}\n{THOUSANDS.sub('', turn.user)}"
        for call in turn.gold:
            for parameter, value in call.arguments.items():
                yield from ((index, call, parameter, atom) for atom in atoms(value) if not mentions(told, atom))
            told += f"\n{simulator.call(call).text}"
