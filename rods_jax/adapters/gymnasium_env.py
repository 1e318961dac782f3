"""Gymnasium environments in and out.

In, an episode's rewards are summed, and the sum is k of n checks, decided when the episode ends.  Out, a step's reward
is the share of the checks that it passed, so that an episode's sum is the progress reward.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rods_jax.adapters import require
from rods_jax.adapters.episodes import Act, batches, checks_of
from rods_jax.codecs import qwen
from rods_jax.codecs.documents import function_schema
from rods_jax.environments import toolkit
from rods_jax.environments.episode import readable, start_episodes
from rods_jax.environments.protocol import Answer, Domain, EpisodeBatch, Failure, Opening, Rules, Stratum
from rods_jax.environments.scoring import RODS
from rods_jax.rewards import CALL_FAILED, CALLED, PARSE_ERROR
from rods_jax.types import Action, Message, Task, ToolSpec, Turn, World

MAX_TEXT = 1_000_000  # characters of a text space; nothing is cut


# -------------------------------------------------------------------------------------------- in
def domain(
    name: str,
    make: Callable[[Task], Any],
    *,
    actions: Mapping[str, Any] | None = None,
    tool: str = "act",
    read: Callable[[str], Any] = str,
    describe: Callable[[Any], str] = str,
    score: Callable[[float], float] = float,
    num_checks: int = 10,
) -> Domain:
    """A Domain that plays the gymnasium.Env that `make` gives for a task.

    actions: by the names that the policy may give to the one tool; without them its answer is the action, as `read`
    makes it.  score: the sum of rewards as a number in [0, 1].  An action that the environment's space lacks is told
    to the policy, which may try again as often as the rules allow.
    """
    tools = {} if actions is None else {tool: _tool(tool, name, tuple(actions))}

    def begin(task: Task, rules: Rules) -> tuple[Opening, Act]:
        env = make(task)
        game = _Game(env, rules, actions, tool, read, describe, lambda total: checks_of(score(total), num_checks))
        observed, _ = env.reset(seed=task.world.options.get("seed"))
        user = "\n\n".join(text for text in (task.turns[0].user, describe(observed)) if text)
        return Opening(tuple(tools.values()), user, num_checks), game.act

    return Domain(name, tools, toolkit.simulator({}), strata={"episode": Stratum()}, start=batches(begin))


def task(name: str, domain: Domain, user: str, seed: int) -> Task:
    """A task of such a domain: what stands before the first observation, and the seed of the reset."""
    classes = tuple({tool.class_name for tool in domain.tools.values()})
    return Task(name, name, "episode", World(classes, options={"seed": seed}), (Turn(user),))


def _tool(tool: str, owner: str, names: tuple[str, ...]) -> ToolSpec:
    action = {"type": "string", "enum": [*names], "description": "What to do."}
    schema = {"type": "object", "properties": {"action": action}, "required": ["action"]}
    return ToolSpec(tool, "Acts in the world and returns what is seen then.", schema, owner)


class _Game:
    """One environment under way; it is closed when the episode is over or forgotten."""

    def __init__(self, env, rules: Rules, actions, tool, read, describe, checks):
        self._env, self._rules, self._actions, self._tool = env, rules, actions, tool
        self._read, self._describe, self._checks = read, describe, checks
        self._close = weakref.finalize(self, env.close)
        self._total, self._refused = 0.0, 0

    def act(self, action: Action) -> Answer:
        action = readable(action)
        if action.error is not None:
            return self._refuse(PARSE_ERROR, action.error)
        if self._actions is None:
            return self._text(action)
        if not action.calls:
            return self._refuse(PARSE_ERROR, f"call the tool {self._tool}")
        return self._calls(action)

    def _text(self, action: Action) -> Answer:
        if action.calls:
            return self._refuse(CALL_FAILED, "there are no tools: answer with the action")
        try:
            value = self._valid(self._read(action.answer))
        except Exception as error:  # whatever the text makes of `read`: it is the policy's
            return self._refuse(PARSE_ERROR, str(error) or type(error).__name__)
        seen, done = self._step(value)
        return self._answer(CALLED, (seen,), "user", done)

    def _calls(self, action: Action) -> Answer:
        seen: list[str] = []
        done = False
        for call in action.calls:
            name = call.arguments.get("action")
            if call.name != self._tool or not isinstance(name, str) or name not in self._actions:
                wrong = f"call {self._tool} with one of {', '.join(self._actions)}"
                return self._refuse(CALL_FAILED, wrong, *seen)
            text, done = self._step(self._valid(self._actions[name]))
            seen.append(text)
            if done:
                break
        return self._answer(CALLED, tuple(seen), "tool", done)

    def _valid(self, value: Any) -> Any:
        if not self._env.action_space.contains(value):
            raise ValueError(f"{value!r} is no action of {self._env.action_space}")
        return value

    def _step(self, value: Any) -> tuple[str, bool]:
        observed, reward, terminated, truncated, _ = self._env.step(value)
        self._total += float(reward)
        self._refused = 0
        return self._describe(observed), bool(terminated or truncated)

    def _refuse(self, code: int, reason: str, *seen: str) -> Answer:
        self._refused += 1
        role = "tool" if self._actions is not None else "user"
        return self._answer(code, (*seen, f"Error: {reason}."), role, self._refused > self._rules.max_attempts)

    def _answer(self, code: int, seen: tuple[str, ...], role: str, done: bool) -> Answer:
        if not done:
            return Answer(code, tuple(Message(role, text) for text in seen), seen)
        self._close()
        return Answer(code, (), seen, True, self._checks(self._total))


# ------------------------------------------------------------------------------------------- out
def environment(
    domain: Domain, tasks: Sequence[Task], parse: Callable[[str], Action] = qwen.parse, rules: Rules = RODS
) -> Any:
    """A gymnasium.Env of a domain's tasks: text in, text out.

    parse: how an assistant's text becomes calls or an answer; a codec has one.  A reset draws a task with the
    environment's generator, or takes options={"task": id}.  `info` has the task, the policy text that holds in it, the
    tools that are visible now in OpenAI's form, and the checks so far.  A world that breaks ends the episode as truncated, with info["failure"].
    """
    require("gymnasium", "gymnasium")
    import gymnasium

    class AnyText(gymnasium.spaces.Text):
        """Text of any characters."""

        def contains(self, x: Any) -> bool:
            return isinstance(x, str)

    class TaskEnv(gymnasium.Env):
        """Conversations with a world; `environment` documents it."""

        metadata: dict[str, Any] = {"render_modes": []}
        observation_space = AnyText(MAX_TEXT, min_length=0)
        action_space = AnyText(64)

        def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[str, dict]:
            super().reset(seed=seed)
            asked = (options or {}).get("task")
            known = {one.id: one for one in tasks}
            if asked is not None and asked not in known:
                raise ValueError(f"there is no task {asked}")
            task = known[asked] if asked is not None else tasks[int(self.np_random.integers(len(tasks)))]
            self._episode: EpisodeBatch = start_episodes(domain, [task], rules)
            (opening,) = self._episode.openings
            if isinstance(opening, Failure):
                raise RuntimeError(f"task {task.id} cannot begin: {opening.reason}")
            self._checks = opening.num_checks
            self._info: dict[str, Any] = {
                "task": task.id,
                "policy": opening.policy,
                "tools": [*map(function_schema, opening.tools)],
                "passed": [],
            }
            return opening.user, dict(self._info)

        def step(self, action: str) -> tuple[str, float, bool, bool, dict]:
            answer = self._episode.act({0: parse(action)})[0]
            if isinstance(answer, Failure):
                return "", 0.0, False, True, self._info | {"failure": answer.reason}
            released = [function_schema(tool) for message in answer.messages for tool in message.tools]
            self._info = self._info | {
                "tools": self._info["tools"] + released,
                "passed": self._info["passed"] + [*answer.passed],
            }
            texts = [message.content for message in answer.messages] or answer.observations
            return "\n".join(texts), sum(answer.passed) / self._checks, answer.done, False, dict(self._info)

    return TaskEnv()
