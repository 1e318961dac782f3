"""Scoring over a domain small enough to check by hand: one counter, one tool that adds."""

import pytest

from rods_jax.environments.protocol import Closing, Domain, TurnTrace
from rods_jax.environments.scoring import (
    GoldError,
    gold_trace,
    official_turn_passed,
    turn_passed,
    turns_passed,
)
from rods_jax.types import Call, Observation, Task, ToolSpec, Turn, World


class Counter:
    """`add(n)` appends n and returns the total; `total()` returns it; anything else is an error."""

    def __init__(self, world):
        self.added = list(world.state["Counter"]["added"])

    def call(self, call):
        if call.name == "add":
            self.added.append(call.arguments["n"])
        elif call.name != "total":
            return Observation(f"no tool {call.name}", ok=False)
        return Observation(str(sum(self.added)))

    def state(self):
        return {"Counter": {"added": self.added}}


TOOLS = {name: ToolSpec(name, "", {"type": "object"}, "Counter") for name in ("add", "total")}
DOMAIN = Domain("counter", TOOLS, Counter)
TOTAL = Call("total")


def add(n):
    return Call("add", {"n": n})


def task(*gold):
    turns = tuple(Turn("please", tuple(calls)) for calls in gold)
    return Task("t", "s", "base", World(("Counter",), {"Counter": {"added": [1]}}), turns)


def test_trace_is_a_copy_of_every_turn():
    trace = gold_trace(DOMAIN, task([add(2), TOTAL], [], [add(4)]))
    assert trace == (
        TurnTrace({"Counter": {"added": [1, 2]}}, ("3", "3")),
        TurnTrace({"Counter": {"added": [1, 2]}}, ()),
        TurnTrace({"Counter": {"added": [1, 2, 4]}}, ("7",)),
    )


def test_gold_error_names_task_turn_and_call():
    with pytest.raises(GoldError, match=r"^t turn 1: .*name='fly'.*no tool fly"):
        gold_trace(DOMAIN, task([TOTAL], [Call("fly")]))


@pytest.mark.parametrize(
    "calls, expected",
    [
        ([[add(2), TOTAL], [add(4)]], (True, True)),
        ([[TOTAL, add(2)], [add(4)]], (False, True)),  # outputs 1, 3: one 3 is missing, then 7 is there
        ([[add(2)], [add(4)]], (False, True)),  # multiplicity counts: "3" once is not "3" twice
        ([[add(2), TOTAL, TOTAL, Call("fly")], [add(4)]], (True, True)),  # extra reads and errors are free
        ([[add(2), TOTAL], [add(3), add(1)]], (True, False)),  # total 7, but the state differs
        ([[add(2), TOTAL, add(4)], []], (False, False)),  # all there in time, but no call in the turn
        ([[add(2), TOTAL]], (True, False)),  # a turn never reached
    ],
)
@pytest.mark.parametrize("passed", [turn_passed, official_turn_passed])
def test_turns_with_gold_calls(calls, expected, passed):
    assert turns_passed(DOMAIN, task([add(2), TOTAL], [add(4)]), calls, passed) == expected


def test_outputs_of_earlier_turns_count():
    a_task = task([add(2)], [TOTAL], [TOTAL])
    # the gold output "3" was seen in turn 0; any call in the later turns will do
    assert turns_passed(DOMAIN, a_task, [[add(2)], [Call("fly")], [Call("fly")]], turn_passed) == (True, True, True)


def test_empty_turns_differ_by_protocol():
    a_task = task([add(2)], [], [add(4)])
    quiet = [[add(2)], [], [add(4)]]
    busy = [[add(2)], [TOTAL], [add(4)]]
    assert turns_passed(DOMAIN, a_task, quiet, turn_passed) == (True, True, True)
    assert turns_passed(DOMAIN, a_task, busy, turn_passed) == (True, False, True)
    assert turns_passed(DOMAIN, a_task, busy, official_turn_passed) == (True, True, True)


def test_empty_turn_that_the_loop_closed_fails():
    a_task = task([])
    trace, state = gold_trace(DOMAIN, a_task), {"Counter": {"added": [1]}}
    closing = Closing(a_task, trace, 0, state, [], called=False)
    assert turn_passed(closing)
    assert not turn_passed(closing._replace(answered=False))


def test_a_given_trace_is_used_and_not_changed():
    a_task = task([add(2)])
    wrong = (TurnTrace({"Counter": {"added": [1, 5]}}, ("6",)),)
    assert turns_passed(DOMAIN, a_task, [[add(5)]], turn_passed, wrong) == (True,)
    assert turns_passed(DOMAIN, a_task, [[add(2)]], turn_passed, wrong) == (False,)
    assert wrong == (TurnTrace({"Counter": {"added": [1, 5]}}, ("6",)),)
