"""Scores turns against a gold trace, over any Domain (RODS section 1.1, BFCL V3 multi-turn checker).

What RODS and the leaderboard decide differently is a `Rules`: pass `RODS` or `OFFICIAL`.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from rods_jax.environments.foreign import equal, kept
from rods_jax.environments.protocol import Domain
from rods_jax.types import Call, Json, Task


class TurnTrace(NamedTuple):
    """What the gold calls leave behind when a turn closes."""

    state: Mapping[str, Mapping[str, Json]]  # after the gold calls of turns 1..t
    outputs: tuple[str, ...]  # of the gold calls of turn t alone


GoldTrace = tuple[TurnTrace, ...]  # one per turn; compute it once per task and share it read-only
TurnPassed = Callable[[GoldTrace, int, Task, Mapping[str, Mapping[str, Json]], Sequence[str], bool, bool], bool]


class GoldError(ValueError):
    """A gold call did not run, or left a state that no rollout can match: the task, not the policy, is wrong."""


def gold_trace(domain: Domain, task: Task) -> GoldTrace:
    """Runs the gold calls on a fresh simulator. GoldError names task, turn (from 0), and call or attribute."""
    simulator = domain.simulator(task.world)
    trace = []
    for number, turn in enumerate(task.turns):
        outputs = []
        for call in turn.gold:
            observation = simulator.call(call)
            if not observation.ok:
                raise GoldError(f"{task.id} turn {number}: gold call {call} failed: {observation.text}")
            outputs.append(observation.text)
        try:
            state = kept(simulator.state())
        except ValueError as error:
            raise GoldError(f"{task.id} turn {number}: {error}") from error
        trace.append(TurnTrace(state, tuple(outputs)))
    return tuple(trace)


def turn_passed(
    trace: GoldTrace,
    turn: int,
    task: Task,
    state: Mapping[str, Mapping[str, Json]],
    outputs_so_far: Sequence[str],
    called_this_turn: bool,
    answered: bool = True,
) -> bool:
    """Whether a turn that closes now counts, r_state * r_exec of RODS section 1.1.

    With gold calls: at least one call was made in this turn, the state equals the trace, and the
    turn's gold outputs are a sub-multiset of all outputs so far. Without: plain answer, no call.
    `answered` is False where the loop, not the policy, closed the turn.
    """
    if not task.turns[turn].gold:
        return answered and not called_this_turn
    return official_turn_passed(trace, turn, task, state, outputs_so_far, called_this_turn)


def official_turn_passed(
    trace: GoldTrace,
    turn: int,
    task: Task,
    state: Mapping[str, Mapping[str, Json]],
    outputs_so_far: Sequence[str],
    called_this_turn: bool,
    answered: bool = True,
) -> bool:
    """The leaderboard's rule: as `turn_passed`, but a turn without gold calls always counts."""
    if not task.turns[turn].gold:
        return True
    if not called_this_turn:
        return False
    return Counter(trace[turn].outputs) <= Counter(outputs_so_far) and equal(state, trace[turn].state)


class Rules(NamedTuple):
    """The options in which a protocol is free; docs/bfcl.md says why each differs."""

    turn_passed: TurnPassed
    max_attempts: int  # a turn is closed when its attempts exceed this
    limit_ends_episode: bool  # ... and the turns after it are never reached
    unreadable_ends_turn: bool  # a message that cannot be parsed; if not, the policy is told and may try again
    runs_withheld_tools: bool  # before the turn that releases them
    runs_calls_without_gold: bool  # in turns that ask for a plain answer; if not, such a call fails the turn
    explains_failures: bool = False  # the policy reads the domain's hint after a failure (hints.py); no score does
    warns_of_calls: bool = False  # the turn after one that such a call failed begins with a warning (hints.py)
    reads_as_leaderboard: bool = False  # a run's messages, by Codec.official; if not, by Codec.parse


RODS = Rules(turn_passed, 5, False, False, False, False)  # sections 1.1 and 1.4
OFFICIAL = Rules(official_turn_passed, 20, True, True, True, True, reads_as_leaderboard=True)  # BFCL V3 multi-turn


def replay(
    domain: Domain,
    task: Task,
    calls_per_turn: Sequence[Sequence[Call]],
    turn_passed: TurnPassed,
    trace: GoldTrace | None = None,
) -> tuple[bool, ...]:
    """Runs the given calls, every one of them, and scores each turn; turns not given are False.

    Pass `trace` to share it between replays of one task. GoldError as in `gold_trace`.
    """
    trace = trace or gold_trace(domain, task)
    simulator = domain.simulator(task.world)
    outputs: list[str] = []
    passed = []
    for turn, calls in enumerate(calls_per_turn):
        outputs += [simulator.call(call).text for call in calls]
        passed.append(turn_passed(trace, turn, task, simulator.state(), outputs, bool(calls), True))
    return tuple(passed) + (False,) * (len(task.turns) - len(passed))
