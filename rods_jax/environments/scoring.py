"""Scores turns against a gold trace, over any Domain (RODS section 1.1, BFCL V3 multi-turn checker).

What RODS and the leaderboard decide differently is a `Rules`: pass `RODS` or `OFFICIAL`.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from rods_jax.environments.foreign import equal, kept
from rods_jax.environments.protocol import Closing, Domain, GoldTrace, Rules, TurnTrace
from rods_jax.types import Call, Task


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


def turn_passed(closing: Closing) -> bool:
    """Whether a turn that closes now counts, r_state * r_exec of RODS section 1.1.

    With gold calls: at least one call was made in this turn, the state equals the trace, and the
    turn's gold outputs are a sub-multiset of all outputs so far. Without: plain answer, no call.
    """
    if not closing.task.turns[closing.turn].gold:
        return closing.answered and not closing.called
    return official_turn_passed(closing)


def official_turn_passed(closing: Closing) -> bool:
    """The leaderboard's rule: as `turn_passed`, but a turn without gold calls always counts."""
    if not closing.task.turns[closing.turn].gold:
        return True
    if not closing.called:
        return False
    gold = closing.trace[closing.turn]
    return Counter(gold.outputs) <= Counter(closing.outputs) and equal(closing.state, gold.state)


RODS = Rules(turn_passed, 5, False, False, False, False)  # sections 1.1 and 1.4
OFFICIAL = Rules(official_turn_passed, 20, True, True, True, True, reads_as_leaderboard=True)  # BFCL V3 multi-turn


def turns_passed(
    domain: Domain,
    task: Task,
    calls_per_turn: Sequence[Sequence[Call]],
    passes: Callable[[Closing], bool],
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
        passed.append(passes(Closing(task, trace, turn, simulator.state(), outputs, bool(calls))))
    return tuple(passed) + (False,) * (len(task.turns) - len(passed))
