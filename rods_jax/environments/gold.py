"""Plays every task's gold calls before anything is trained or scored: what gold cannot pass, no policy can.

The author must mend four faults: a gold call that fails, a state that cannot be compared, an environment that answers
differently when it is played again, and a released tool that does not exist.  Without this check the first three would
be rollouts that silently never pass, and of the last nothing would be withheld.
"""

from collections.abc import Iterable

from rods_jax.environments.episode import Episode
from rods_jax.environments.foreign import equal, shown, told
from rods_jax.environments.protocol import Domain, GoldTrace, Rules, unchanged
from rods_jax.environments.scoring import RODS, GoldError, gold_trace
from rods_jax.types import Action, Task

MAX_NAMED = 3  # tasks in the message
_MAX_SHOWN = 80  # characters of a value


def check_gold(domain: Domain, tasks: Iterable[Task], rules: Rules = RODS) -> None:
    """Plays each gold dialogue twice, once for its trace and once under the rules; takes about twice a gold trace.

    Tasks of a domain with episodes of its own (`Domain.start`) have no gold dialogue here, and a
    scorer of its own (`Domain.rules`) is not asked: gold has no words.

    GoldError: some do not pass; the message names the first of them, each with its turn (from 0) and the reason.
    """
    tasks = [task for task in tasks if domain.of(task).start is None]
    faults = [fault for task in tasks if (fault := _fault(domain.of(task), task, rules))]
    if faults:
        more = f"; and {len(faults) - MAX_NAMED} more" if len(faults) > MAX_NAMED else ""
        named = "; ".join(faults[:MAX_NAMED])
        raise GoldError(f"the gold of {len(faults)} of {len(tasks)} tasks fails: {named}{more}")


def require_repeats(domain: Domain, task: Task, trace: GoldTrace) -> None:
    """Plays the gold calls once more. GoldError: they answer or leave something else than in the trace."""
    for number, (first, second) in enumerate(zip(trace, gold_trace(domain, task), strict=True)):
        if first.outputs != second.outputs or not equal(first.state, second.state):
            reason = _difference(trace, number, second.outputs, second.state)
            raise GoldError(f"{task.id} turn {number}: {reason}")


def _fault(domain: Domain, task: Task, rules: Rules) -> str:
    """Why gold does not pass its own task, or nothing."""
    try:
        trace = gold_trace(domain, task)
        episode = Episode(domain._replace(rules=unchanged, fail=None), task, trace, rules)
        tools = {tool.name for tool in domain.tools_of(task.world.classes)}
        for number, turn in enumerate(task.turns):
            if unknown := [name for name in turn.released_tools if name not in tools]:
                return f"{task.id} turn {number}: it releases {unknown[0]}, which is no tool of its classes"
            # Act as a policy that knows the gold: all calls of the turn in one message, then an answer.
            outputs = episode.act(Action(calls=turn.gold)).observations if turn.gold else ()
            state = episode.state
            if episode.turn == number and not all(episode.act(Action(answer="Done.")).passed):
                return f"{task.id} turn {number}: {_difference(trace, number, outputs, state)}"
    except GoldError as error:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"{task.id}: {told(error)}"
    return ""


def _difference(trace: GoldTrace, number: int, outputs: tuple[str, ...], state) -> str:
    """How the second play differs from the first."""
    for first, second in zip(trace[number].outputs, outputs, strict=True):
        if first != second:
            return f"a call first gave {_cut(first)} and then {_cut(second)}"
    for class_name, attributes in trace[number].state.items():
        for name in attributes:
            first, second = attributes[name], state[class_name].get(name)
            if not equal(first, second):
                return f"{class_name}.{name} was first {_cut(shown(first))} and then {_cut(shown(second))}"
    return "the states of two plays differ"


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
