"""One rollout's side of the conversation: what happens when the policy says something (RODS 1.4).

An Episode turns parsed actions into messages, codes and passed turns; tokens are rollout.py's.
Where the protocol leaves a choice: a call in a turn whose gold is empty is not executed and closes
the turn as failed (RODS 1.1), so that nothing done there can help or hurt later turns.

Left out on purpose: threads, clocks and any text format.
"""

from typing import NamedTuple

from rods_jax.environments.protocol import Domain
from rods_jax.environments.scoring import GoldTrace, TurnPassed
from rods_jax.rewards import CALL_FAILED, CALLED, PARSE_ERROR, TURN_FAILED, TURN_PASSED
from rods_jax.types import Action, Message, Observation, Task, ToolSpec


class Feedback(NamedTuple):
    """What one action led to."""

    code: int  # RODS 1.2; a turn that is forced to close keeps the code of its last action
    messages: tuple[Message, ...]  # empty when the episode is over
    observations: tuple[str, ...]
    done: bool


class Episode:
    """Live state of one rollout of one task. Not shared between threads; never raises on model input."""

    def __init__(
        self, domain: Domain, task: Task, trace: GoldTrace, *, turn_passed: TurnPassed, max_attempts: int = 5
    ):
        self.task = task
        self.turn = 0
        self.turns_passed = [False] * len(task.turns)
        self._trace = trace
        self._turn_passed = turn_passed
        self._max_attempts = max_attempts
        self._simulator = domain.simulator(task.classes, task.initial_state, task.long_context)
        self._tools = {tool.name: tool for tool in domain.tools_of(task.classes)}
        self._hidden = set(task.withheld_tools) - set(task.turns[0].released_tools)
        self._outputs: list[str] = []
        self._attempts = 0
        self._called = False

    @property
    def visible_tools(self) -> tuple[ToolSpec, ...]:
        return tuple(tool for name, tool in self._tools.items() if name not in self._hidden)

    def act(self, action: Action) -> Feedback:
        """Executes an action of the current turn: calls, an answer that closes the turn, or a parse error."""
        if action.error is not None:
            return self._attempt(PARSE_ERROR, (f"Error: {action.error}.",))
        if not action.calls:
            passed = self._turn_passed(
                self._trace, self.turn, self.task, self._simulator.state(), self._outputs, self._called
            )
            return self._close(passed)
        self._called = True
        if not self.task.turns[self.turn].gold:
            return self._close(False)
        observations = [self._call(call) for call in action.calls]
        self._outputs += [observation.text for observation in observations]
        code = CALLED if all(observation.ok for observation in observations) else CALL_FAILED
        return self._attempt(code, tuple(observation.text for observation in observations))

    def _call(self, call) -> Observation:
        if call.name in self._hidden:
            return Observation(f"Error: there is no tool {call.name}.", ok=False)
        return self._simulator.call(call)

    def _attempt(self, code: int, observations: tuple[str, ...]) -> Feedback:
        messages = tuple(Message("tool", text) for text in observations)
        self._attempts += 1
        if self._attempts <= self._max_attempts:
            return Feedback(code, messages, observations, done=False)
        # Forced quit: the turn is scored as it stands, but silence on an empty-gold turn is no answer.
        passed = bool(self.task.turns[self.turn].gold) and self._turn_passed(
            self._trace, self.turn, self.task, self._simulator.state(), self._outputs, self._called
        )
        closed = self._close(passed)
        return Feedback(code, messages + closed.messages if not closed.done else (), observations, closed.done)

    def _close(self, passed: bool) -> Feedback:
        code = TURN_PASSED if passed else TURN_FAILED
        self.turns_passed[self.turn] = passed
        self.turn += 1
        self._attempts = 0
        self._called = False
        if self.turn == len(self.task.turns):
            return Feedback(code, (), (), done=True)
        turn = self.task.turns[self.turn]
        self._hidden -= set(turn.released_tools)
        released = tuple(self._tools[name] for name in turn.released_tools if name in self._tools)
        return Feedback(code, (Message("user", turn.user, released),), (), done=False)
