"""The mechanical gate: a checker must accept the gold, every order of it that ends the same, and nothing less.

unknown_name      a tool, an argument, a path or a predicate that does not exist
gold_call_fails   a call of the gold is refused by its tool
gold_fails        the checker refuses the gold
null_passes       it accepts that nothing was done
prefix_passes     it accepts a strict prefix of the gold
perturbed_passes  it accepts the gold without one call, or with one argument changed
order_fails       it refuses another order of the gold that ends in the same state
not_repeatable    two plays of the gold differ

The agent's last words are what the checker wants to be said; a prefix of the gold has said nothing yet.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from rods_jax.environments.checker import Checker, End, checker_of, decided, unknown_names
from rods_jax.environments.foreign import equal
from rods_jax.evolution.draft import UNKNOWN, gold_of
from rods_jax.evolution.ground import Act, Ground, snapshot
from rods_jax.synthesis.errors import Rejected
from rods_jax.types import Json, Task

GOLD_CALL, GOLD, NULL, PREFIX = "gold_call_fails", "gold_fails", "null_passes", "prefix_passes"
PERTURBED, ORDER, REPEAT = "perturbed_passes", "order_fails", "not_repeatable"
GATE = (UNKNOWN, GOLD_CALL, GOLD, NULL, PREFIX, PERTURBED, ORDER, REPEAT)
MAX_ORDERS = 16  # of one gold: the reverse and neighbours exchanged
MAX_VALUES = 4  # other values of one argument


class Played(NamedTuple):
    """What some calls lead to."""

    states: tuple[Json, ...]  # before the first and after each, or after the last alone
    outputs: tuple[str, ...]
    ok: tuple[bool, ...]


def run(ground: Ground, task: Task, acts: Sequence[Act], *, every: bool = True) -> Played:
    """The calls in a new world of the task; every: with the state after each of them."""
    live = ground.live(task.world)
    states, outputs, ok = [snapshot(live)], [], []
    for place, act in enumerate(acts, start=1):
        observation = live.call(act.who, act.call)
        states += [snapshot(live)] if every or place == len(acts) else []
        outputs.append(observation.text)
        ok.append(observation.ok)
    return Played(tuple(states), tuple(outputs), tuple(ok))


def require_sound(ground: Ground, task: Task) -> None:
    """Rejected: the first rule that the task breaks, by its name."""
    checker, gold = checker_of(task), gold_of(task)
    if checker is None or not gold and not checker.said:
        raise Rejected(UNKNOWN, "the task has no checker, or asks for nothing")
    start = run(ground, task, ())
    for name in (*unknown_names(checker, start.states[0], ground.predicates), *_unknown_calls(ground, gold)):
        raise Rejected(UNKNOWN, name)

    def passes(acts: Sequence[Act], state: Json, words: Sequence[str] = checker.said) -> bool:
        calls = tuple((act.who, act.call) for act in acts)
        return decided(checker, End(start.states[0], state, calls, tuple(words)), ground.predicates)[-1]

    # Gold runs, is accepted, and is the same when it is played again.
    played = run(ground, task, gold)
    if not all(played.ok):
        place = played.ok.index(False)
        raise Rejected(GOLD_CALL, f"the gold call {gold[place].call.name} fails: {played.outputs[place]}")
    if not passes(gold, played.states[-1]):
        raise Rejected(GOLD, f"the checker refuses the gold: {_missed(checker, played, gold, ground)}")
    again = run(ground, task, gold)
    if again.outputs != played.outputs or not equal(again.states, played.states):
        raise Rejected(REPEAT, "two plays of the gold differ")
    # Nothing done, strict prefixes, and gold without its last words are refused.
    if passes((), played.states[0], ()):
        raise Rejected(NULL, "the checker accepts that nothing was done")
    for count in range(1, len(gold) + bool(checker.said)):
        if passes(gold[:count], played.states[count], ()):
            raise Rejected(PREFIX, f"the checker accepts the first {count} calls of the gold alone")
    # So is gold with one thing wrong.
    for what, other in _perturbed(ground, gold, played):
        if passes(other, run(ground, task, other, every=False).states[-1]):
            raise Rejected(PERTURBED, f"the checker accepts the gold {what}")
    # Another order that ends in the same state is accepted.
    for order in islice(_orders(gold), MAX_ORDERS):
        alternative = run(ground, task, order, every=False)
        same = all(alternative.ok) and equal(alternative.states[-1], played.states[-1])
        if same and not passes(order, alternative.states[-1]):
            raise Rejected(ORDER, "the checker refuses another order of the gold that ends in the same state")


def _unknown_calls(ground: Ground, gold: Sequence[Act]) -> Iterator[str]:
    """What the gold names and what does not exist on that side."""
    for act in gold:
        tools = {tool.name: tool for tool in ground.tools_of(act.who)}
        if act.call.name not in tools:
            yield f"there is no tool {act.call.name} of the {act.who}"
            continue
        schema = tools[act.call.name].parameters
        for name in act.call.arguments:
            if name not in schema.get("properties", {}):
                yield f"{act.call.name} has no argument {name}"


def _missed(checker: Checker, played: Played, gold: Sequence[Act], ground: Ground) -> str:
    """Which part of the checker the gold misses."""
    calls = tuple((act.who, act.call) for act in gold)
    parts = decided(checker, End(played.states[0], played.states[-1], calls, checker.said), ground.predicates)
    named = [
        *(f"{'.'.join(goal.path)} is not {goal.value!r}" for goal in checker.goal),
        *(f"{one.predicate} does not hold as it should" for one in checker.assertions),
        *(f"{words!r} is not said" for words in checker.said),
        "something else has changed",
    ]
    return named[parts.index(False)]


def _perturbed(ground: Ground, gold: Sequence[Act], played: Played) -> Iterator[tuple[str, tuple[Act, ...]]]:
    """(what is wrong, calls): gold without a call that changed something, and with another argument in it."""
    for place, act in enumerate(gold):
        if equal(played.states[place], played.states[place + 1]):
            continue  # a look: another agent may know without it
        rest = gold[:place], gold[place + 1 :]
        yield f"without {act.call.name}", (*rest[0], *rest[1])
        for name, value in act.call.arguments.items():
            schema = ground.domain.tools[act.call.name].parameters["properties"][name]
            for other in islice(_others(schema, value), MAX_VALUES):
                call = replace(act.call, arguments={**act.call.arguments, name: other})
                yield f"with {name} {other!r} in {act.call.name}", (*rest[0], Act(act.who, call), *rest[1])


def _others(schema: Json, value: Json) -> Iterator[Json]:
    """Other values of the same kind."""
    if "enum" in schema:
        yield from (one for one in schema["enum"] if one != value)
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (one for one in (value + 1, value - 1) if one != value)  # a huge float plus 1 is itself
    elif isinstance(value, str):
        yield f"{value}x"


def _orders(gold: Sequence[Act]) -> Iterator[tuple[Act, ...]]:
    """The reverse, then gold with two neighbours exchanged."""
    if len(gold) > 1:
        yield tuple(reversed(gold))
    for place in range(len(gold) - 1):
        yield (*gold[:place], gold[place + 1], gold[place], *gold[place + 2 :])
