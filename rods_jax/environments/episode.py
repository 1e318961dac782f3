"""A scripted user and gold calls: what happens when the policy says something (RODS 1.4).

An Episode turns parsed actions into messages, codes and checks: each of its turns is one.  Tokens are rollout.py's.
`start_episodes` runs many of them in this process, workers.py in others: a rollout cannot tell which.
RODS leaves one choice open.  Here, a call in a turn without gold calls is not executed and closes the turn as failed
(RODS 1.1), so that nothing done there can help or hurt later turns.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby

from rods_jax.environments.foreign import told
from rods_jax.environments.hints import MAX_HINT, WARNING, has_failed, with_hint
from rods_jax.environments.protocol import (
    Answer,
    Closing,
    Domain,
    EpisodeBatch,
    FailedCall,
    Failure,
    GoldTrace,
    Opening,
    Rules,
    StartEpisodes,
)
from rods_jax.environments.scoring import RODS, gold_trace
from rods_jax.rewards import CALL_FAILED, CALLED, PARSE_ERROR, TURN_FAILED, TURN_PASSED
from rods_jax.strict_json import MAX_NESTING, is_deeper
from rods_jax.types import Action, Call, Json, Message, Observation, Task, ToolSpec


def readable(action: Action) -> Action:
    """The action, or a parse error where its arguments nest deeper than records and printers bear, as in a codec."""
    if any(is_deeper(call.arguments, MAX_NESTING) for call in action.calls):
        return Action(error=f"values are nested more than {MAX_NESTING} levels deep")
    return action


class Episode:
    """Live state of one rollout of one task. Not shared between threads; never raises on model input."""

    def __init__(self, domain: Domain, task: Task, trace: GoldTrace, rules: Rules = RODS):
        self.task = task
        self.turn = 0
        self.passed = [False] * len(task.turns)
        self.injected: list[tuple[int, Call]] = []  # (turn, call): those that the domain's `fail` kept from running
        self._trace = trace
        self._rules = rules = domain.rules(rules)
        self._explain = domain.explain if rules.explains_failures else None
        self._failed: list[Call] = []  # of this turn
        self._fail = domain.fail
        self._made: list[Call] = []  # so far
        self._simulator = domain.simulator(task.world)
        self._tools = {tool.name: tool for tool in domain.tools_of(task.world.classes)}
        self._hidden = task.withheld_tools - set(task.turns[0].released_tools)
        self._outputs: list[str] = []
        self._attempts = 0
        self._called = False

    @property
    def visible_tools(self) -> tuple[ToolSpec, ...]:
        return tuple(tool for name, tool in self._tools.items() if name not in self._hidden)

    @property
    def opening(self) -> Opening:
        return Opening(self.visible_tools, self.task.turns[0].user, len(self.task.turns))

    @property
    def state(self) -> Mapping[str, Mapping[str, Json]]:
        """Of the world, as it is now: a live view, comparable with a trace's."""
        return self._simulator.state()

    def snapshot(self) -> "Episode":
        """An independent copy of the episode.  Restore by continuing with a snapshot of the snapshot.

        The copy shares what no action changes: task, trace, rules and tools.
        """
        other = copy.copy(self)
        other._simulator = copy.deepcopy(self._simulator)
        other._outputs = self._outputs.copy()
        other._failed = self._failed.copy()
        other._made = self._made.copy()
        other.injected = self.injected.copy()
        other.passed = self.passed.copy()
        return other

    def act(self, action: Action) -> Answer:
        """Executes an action of the current turn: calls, an answer that closes the turn, or a parse error."""
        action = readable(action)
        if action.error is not None and not action.calls:
            unreadable = (f"Error: {action.error}.",)
            if self._rules.unreadable_ends_turn:
                return self._close(False, PARSE_ERROR, unreadable)
            return self._attempt(PARSE_ERROR, unreadable)
        if not action.calls:
            return self._close(True, said=action.answer)
        self._called = True
        if not self.task.turns[self.turn].gold and not self._rules.runs_calls_without_gold:
            return self._close(True)
        observations = [self._call(call) for call in action.calls]
        texts = tuple(observation.text for observation in observations)
        self._outputs += texts
        shown = tuple(map(self._shown, action.calls, observations))
        if action.error is not None and not self._rules.unreadable_ends_turn:
            return self._attempt(CALL_FAILED, (*shown, f"Error: {action.error}."))  # why others were not made
        return self._attempt(CALLED if all(one.ok for one in observations) else CALL_FAILED, shown)

    def _call(self, call: Call) -> Observation:
        if call.name in self._hidden and not self._rules.runs_withheld_tools:
            return Observation(f"Error: there is no tool {call.name}.", ok=False)
        injected = self._fail(self.task, self._made, call) if self._fail is not None else ""
        self._made.append(call)
        if injected:
            self.injected.append((self.turn, call))
            return Observation(injected, ok=False)
        return self._simulator.call(call)

    def _shown(self, call: Call, observation: Observation) -> str:
        """What the policy reads: the text that is scored, and a hint after it where the call failed."""
        if self._explain is None or not has_failed(observation):
            return observation.text
        failed = FailedCall(call, observation.text, self.visible_tools, call in self._failed)
        self._failed.append(call)
        try:
            hint = self._explain(failed)
        except Exception as error:  # the domain author's bug must not lose the rollout; the trajectory shows it
            hint = f"(There is no hint: {told(error)})"[:MAX_HINT]
        return with_hint(observation.text, hint) if hint else observation.text

    def _attempt(self, code: int, observations: tuple[str, ...]) -> Answer:
        self._attempts += 1
        if self._attempts > self._rules.max_attempts:
            return self._close(False, code, observations, self._rules.limit_ends_episode)
        messages = tuple(Message("tool", text) for text in observations)
        return Answer(code, messages, observations)

    def _close(
        self,
        answered: bool,
        code: int | None = None,
        observations: tuple[str, ...] = (),
        over: bool = False,
        said: str = "",
    ) -> Answer:
        """Scores the turn as it stands and goes to the next one."""
        state = self._simulator.state()
        closing = Closing(self.task, self._trace, self.turn, state, self._outputs, self._called, answered, said)
        passed = self._rules.turn_passed(closing)
        code = (TURN_PASSED if passed else TURN_FAILED) if code is None else code
        self.passed[self.turn] = passed
        gold = self.task.turns[self.turn].gold
        self.turn += 1
        warning = WARNING if self._rules.warns_of_calls and self._called and not gold else ""
        self._attempts = 0
        self._called = False
        self._failed = []
        if over or self.turn == len(self.task.turns):
            return Answer(code, (), observations, True, (passed,))
        turn = self.task.turns[self.turn]
        self._hidden -= set(turn.released_tools)
        released = tuple(self._tools[name] for name in turn.released_tools if name in self._tools)
        messages = (*(Message("tool", text) for text in observations), Message("user", warning + turn.user, released))
        return Answer(code, messages, observations, False, (passed,))


# ------------------------------------------------------------------------------- many at a time
def start_episodes(domain: Domain, tasks: Sequence[Task], rules: Rules = RODS) -> EpisodeBatch:
    """Episodes in this process. A task whose world breaks at the start fails with all its episodes.

    Of a mixture each domain starts those of its own tasks, under its own rules.
    """
    owners = [domain.of(task) for task in tasks]
    own = {id(owner): owner for owner in owners} or {id(domain): domain}
    places = {key: [place for place, owner in enumerate(owners) if id(owner) == key] for key in own}
    parts = [(places[key], _start(owner, [tasks[place] for place in places[key]], rules)) for key, owner in own.items()]
    return parts[0][1] if len(parts) == 1 else _joined(parts, len(tasks))


def openings_of(start: StartEpisodes, tasks: Sequence[Task], together: int) -> Iterator[Opening | Failure]:
    """How each task begins, `together` at a time: users that are slow are asked for their first words at once."""
    for first in range(0, len(tasks), together):
        yield from start(tasks[first : first + together]).openings


def _start(domain: Domain, tasks: Sequence[Task], rules: Rules) -> EpisodeBatch:
    if domain.start is not None:
        return _guarded(partial(domain.start, tasks, rules), len(tasks))
    episodes: list[Episode | Failure] = []
    for _, group in groupby(tasks, key=id):
        task, *others = group
        try:
            trace = gold_trace(domain, task)
            episodes += [Episode(domain, task, trace, rules) for _ in (task, *others)]
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a constructor may even exit
            episodes += [Failure(told(error))] * (1 + len(others))

    def act(actions: Mapping[int, Action]) -> dict[int, Answer | Failure]:
        return {place: _act(episodes[place], action) for place, action in actions.items()}

    return EpisodeBatch(tuple(one if isinstance(one, Failure) else one.opening for one in episodes), act)


def _guarded(start: Callable[[], EpisodeBatch], count: int) -> EpisodeBatch:
    """The batch of a world of somebody's own: what it raises, and what it leaves out, fails the episodes concerned.

    So does an episode without checks: no share of them can be passed.
    """
    try:
        batch = start()
        if len(batch.openings) != count:
            raise ValueError(f"the world opened {len(batch.openings)} episodes for {count} tasks")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        failure = Failure(told(error))
        return EpisodeBatch((failure,) * count, lambda actions: dict.fromkeys(actions, failure))

    def act(actions: Mapping[int, Action]) -> dict[int, Answer | Failure]:
        try:
            found = batch.act({place: readable(action) for place, action in actions.items()})
            return {place: found.get(place, Failure("the world gave no answer")) for place in actions}
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return dict.fromkeys(actions, Failure(told(error)))

    empty = Failure("the world opened an episode without checks")
    openings = [empty if isinstance(one, Opening) and one.num_checks < 1 else one for one in batch.openings]
    return batch._replace(openings=tuple(openings), act=act)


def _joined(parts: Sequence[tuple[Sequence[int], EpisodeBatch]], count: int) -> EpisodeBatch:
    """One batch of several, each with the places that its episodes have in it; what answers together still does."""
    batch_of = {
        place: (number, inner) for number, (places, _) in enumerate(parts) for inner, place in enumerate(places)
    }

    def act(actions: Mapping[int, Action]) -> dict[int, Answer | Failure]:
        answers: dict[int, Answer | Failure] = {}
        for number, (places, batch) in enumerate(parts):
            asked = {batch_of[place][1]: one for place, one in actions.items() if batch_of[place][0] == number}
            answers |= {places[inner]: answer for inner, answer in batch.act(asked).items()} if asked else {}
        return answers

    lanes = [
        [places[inner] for inner in lane] for places, batch in parts for lane in (batch.lanes or (range(len(places)),))
    ]
    openings = tuple(parts[number][1].openings[inner] for number, inner in map(batch_of.__getitem__, range(count)))
    return EpisodeBatch(openings, act, tuple(lanes))


def _act(episode: Episode | Failure, action: Action) -> Answer | Failure:
    if isinstance(episode, Failure):
        return episode
    try:
        return episode.act(action)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Failure(told(error))
