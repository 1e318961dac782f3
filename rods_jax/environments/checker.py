"""What must hold when an episode is over, as data that a task carries.  One function evaluates it; nothing in it is ever run.

    {"goal": [{"path": ["Desk", "accounts", "41", "port"], "value": "up"}],      values that the state must have
     "assertions": [{"predicate": "called", "arguments": {"tool": "test_line"}}],  named predicates of the domain
     "said": ["technician"],                                                     what the agent must have told the user
     "kept": [["Desk", "accounts", "17"]],                                       where nothing may change, goals apart
     "refusal": false}                                                           true: kept is the whole state

Each goal, assertion and saying is a check.  The last check is all of them, and that nothing else has changed.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rods_jax.environments.conversation import AGENT, Line
from rods_jax.environments.foreign import equal
from rods_jax.records import decode, encode
from rods_jax.types import Call, Json, Task

CHECKER = "checker"  # option of a world that carries one
Keys = tuple[str, ...]


@dataclass(frozen=True)
class Goal:
    """The value at a path of the state; the first key is a class."""

    path: Keys
    value: Json


@dataclass(frozen=True)
class Assertion:
    """A predicate of the domain, with its arguments."""

    predicate: str
    arguments: Mapping[str, Json] = field(default_factory=dict)
    holds: bool = True  # False: it must not hold


@dataclass(frozen=True)
class Checker:
    """When a task counts as done."""

    goal: tuple[Goal, ...] = ()
    assertions: tuple[Assertion, ...] = ()
    said: tuple[str, ...] = ()  # in the agent's words, in any case of letters
    kept: tuple[Keys, ...] = ()
    refusal: bool = False


class End(NamedTuple):
    """All that a checker may know of an episode."""

    before: Mapping[str, Json]
    after: Mapping[str, Json]
    calls: tuple[tuple[str, Call], ...]  # (who, call) of both sides, in order
    words: tuple[str, ...]  # of the agent


Predicate = Callable[..., bool]  # (End, **arguments); called with what a model wrote, so it may raise


def called(end: End, tool: str) -> bool:
    """Either side has called the tool."""
    return any(call.name == tool for _, call in end.calls)


BUILT_IN: Mapping[str, Predicate] = {"called": called}


def checker_of(task: Task) -> Checker | None:
    """The checker that a task carries. RecordError: it is none."""
    carried = task.world.options.get(CHECKER)
    return None if carried is None else decode(Checker, carried, f"options.{CHECKER}")


def checker_option(checker: Checker) -> dict[str, Json]:
    """What `checker_of` reads, as an option of a world."""
    return {CHECKER: encode(checker)}


def check_names(checker: Checker) -> tuple[str, ...]:
    """What each of the checks asks for, in the order of `decided`."""
    goals = (f"{'.'.join(goal.path)} is {goal.value!r}" for goal in checker.goal)
    asserted = (f"{'' if one.holds else 'not '}{one.predicate} {dict(one.arguments)}" for one in checker.assertions)
    return (*goals, *asserted, *(f"said: {words}" for words in checker.said), "all of it, and nothing else has changed")


def decided(checker: Checker, end: End, predicates: Mapping[str, Predicate] = {}) -> tuple[bool, ...]:
    """Goals, assertions and sayings in their order; then all of it, with everything kept that must be."""
    known = {**BUILT_IN, **predicates}
    heard = "\n".join(end.words).lower()
    parts = (
        *(equal(value_at(end.after, goal.path), goal.value) for goal in checker.goal),
        *(_holds(known, one, end) for one in checker.assertions),
        *(words.lower() in heard for words in checker.said),
    )
    kept = ((),) if checker.refusal else checker.kept
    apart = {goal.path for goal in checker.goal}
    return (*parts, all(parts) and not any(_changed(end.before, end.after, path, apart) for path in kept))


def end_of(before: Mapping[str, Json], after: Mapping[str, Json], lines: Sequence[Line]) -> End:
    """Of a conversation's lines; its first, the greeting, says nothing."""
    calls = tuple((line.who, call) for line in lines for call in line.calls)
    return End(before, after, calls, tuple(line.text for line in lines[1:] if line.who == AGENT and line.is_words))


def unknown_names(
    checker: Checker, state: Mapping[str, Json], predicates: Mapping[str, Predicate] = {}
) -> Iterator[str]:
    """What the checker names and what does not exist: a path, a predicate, an argument; or that it says nothing."""
    for path in (*(goal.path for goal in checker.goal), *checker.kept):
        if not path or value_at(state, path) is ABSENT:
            yield f"the state has no {'.'.join(path) or 'empty path'}"
    known = {**BUILT_IN, **predicates}
    for one in checker.assertions:
        if one.predicate not in known:
            yield f"there is no predicate {one.predicate}"
        else:
            try:
                inspect.signature(known[one.predicate]).bind(None, **one.arguments)
            except TypeError as error:
                yield f"the predicate {one.predicate}: {error}"
    if not all(words.strip() for words in checker.said):
        yield "nothing is to be said in one of its sayings"
    if checker.refusal and not checker.said:
        yield "a refusal states nothing"
    if not (checker.goal or checker.assertions or checker.said):
        yield "the checker checks nothing"


# ------------------------------------------------------------------------------------------ state
class _Absent:
    """No value; equal to none."""


ABSENT = _Absent()


def value_at(state: Json, path: Keys) -> Json:
    """The value at a path of objects and lists, or ABSENT."""
    for key in path:
        if isinstance(state, Mapping) and key in state:
            state = state[key]
        elif isinstance(state, list) and key.isdecimal() and len(key) < 10 and int(key) < len(state):
            state = state[int(key)]
        else:
            return ABSENT
    return state


def _holds(known: Mapping[str, Predicate], one: Assertion, end: End) -> bool:
    try:
        return bool(known[one.predicate](end, **one.arguments)) == one.holds
    except Exception:  # an argument of another type than the predicate's
        return False


def _changed(before: Json, after: Json, path: Keys, apart: set[Keys]) -> bool:
    """Whether anything below the path is not what it was, but for the paths apart."""
    return _differs(value_at(before, path), value_at(after, path), path, apart)


def _differs(old: Json, new: Json, path: Keys, apart: set[Keys]) -> bool:
    if path in apart:
        return False
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return any(_differs(old.get(key, ABSENT), new.get(key, ABSENT), (*path, key), apart) for key in {**old, **new})
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return any(_differs(a, b, (*path, str(place)), apart) for place, (a, b) in enumerate(zip(old, new)))
    return not (old is new or equal(old, new))
