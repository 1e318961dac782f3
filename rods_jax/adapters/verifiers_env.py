"""Environments of verifiers (its v1: tasksets, harnesses, traces) in and out.

In, the policy plays a taskset's tasks in this process: their prompt, the tools of their toolsets, and their own rewards
over a trace of what was said, whose sum is k of n checks.  Out, a domain is a taskset, and the harness that plays it:
it holds the episode, asks the model under evaluation or training for every message, and rewards the share of checks.

Left out on purpose: what needs verifiers' runtime (containers, setup and finalize hooks, rewards that read files), its
state channel, its hooks that stop or change messages, and environments of several agents.  They are refused by name.
"""

import asyncio
import inspect
import json
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from rods_jax.adapters import require
from rods_jax.adapters.episodes import Act, batches, checks_of
from rods_jax.adapters.mcp_tools import Session, spec_of
from rods_jax.codecs.grammar import answer, read_message, served_call, unreadable
from rods_jax.dialogue import Act as Player
from rods_jax.dialogue import Said, Stop, hear, play
from rods_jax.environments import toolkit
from rods_jax.environments.episode import readable
from rods_jax.environments.protocol import Answer, Domain, Opening, Rules, Stratum
from rods_jax.environments.scoring import RODS
from rods_jax.rewards import CALL_FAILED, CALLED, PARSE_ERROR, TURN_FAILED, TURN_PASSED
from rods_jax.types import Action, Call, Message, Observation, Task, ToolSpec, Turn, World


# -------------------------------------------------------------------------------------------- in
def domain(
    name: str,
    taskset: Any,
    *,
    judge: Callable[[Any], Sequence[bool]] | None = None,
    num_checks: int = 10,
    deadline: float = 30.0,
) -> tuple[Domain, tuple[Task, ...]]:
    """A Domain of a verifiers.v1.Taskset, and its tasks.

    judge: the checks of a scored trace, as many as `num_checks`; None: the share of them that its reward is.
    deadline: seconds for each call of a tool.
    ValueError: a task needs what this module leaves out, or the taskset has no end.
    """
    vf = require("verifiers.v1", "verifiers")
    if not taskset.bounded:
        raise ValueError(f"{type(taskset).__name__} has no end: bound it with take(n)")
    judged = judge or (lambda trace: checks_of(trace.reward, num_checks))
    foreign = list(taskset)
    for one in foreign:
        _require_playable(vf, one)

    def opened(one: Any) -> _Tools:
        toolsets = [*type(taskset).toolsets(taskset.config), *type(one).toolsets(one.config)]
        return _Tools(toolsets, one.data, name, deadline)

    def begin(task: Task, rules: Rules) -> tuple[Opening, Act]:
        one = foreign[task.world.options["index"]]
        talk = _Talk(vf, one, opened(one), judged, rules, deadline)
        return Opening(tuple(talk.tools.specs.values()), task.turns[0].user, num_checks), talk.act

    tools = opened(foreign[0]).specs if foreign else {}
    tasks = tuple(_task(name, number, one, (name,) if tools else ()) for number, one in enumerate(foreign))
    return Domain(name, tools, toolkit.simulator({}), strata={"task": Stratum()}, start=batches(begin)), tasks


def _task(name: str, number: int, one: Any, classes: tuple[str, ...]) -> Task:
    own = f"{name}_{one.data.id or number}"
    return Task(own, own, "task", World(classes, options={"index": number}), (Turn(_opening(one)),))


def _opening(one: Any) -> str:
    """The words of the system and of the user, which a codec shows as one message."""
    parts = [] if one.data.system_prompt is None else [one.data.system_prompt]
    return "\n\n".join([*parts, one.data.prompt_text])


def _require_playable(vf: Any, one: Any) -> None:
    kind, prompt = type(one), one.data.prompt
    messages = [] if isinstance(prompt, str) else prompt or []
    roles = {"user"} if isinstance(prompt, str) else {message.role for message in messages}
    parts = [part for message in messages if isinstance(message.content, list) for part in message.content]
    signals = [*one.hooks("metric"), *one.hooks("reward"), *(judge.score for judge in one.plugged_judges())]
    runtimes = [inspect.signature(signal).parameters.get("runtime") for signal in signals]
    needs = {
        "a container": kind.NEEDS_CONTAINER,
        "a setup hook": kind.setup is not vf.Task.setup,
        "a finalize hook": kind.finalize is not vf.Task.finalize,
        "hooks that stop or change messages": [*one.hooks("stop"), *_decorated(one, "intercept")],
        "a runtime to be scored in": any(
            one is not None and one.default is inspect.Parameter.empty for one in runtimes
        ),
        "a prompt of the user's and the system's words": not roles
        or roles - {"user", "system"}
        or [part for part in parts if part.type != "text"],
    }
    if missing := [what for what, needed in needs.items() if needed]:
        raise ValueError(f"the task {kind.__name__} {one.data.idx} needs {missing[0]}, which is not played here")


def _decorated(one: Any, mark: str) -> list[Any]:
    return require("verifiers.v1.utils.decorators", "verifiers").discover_decorated(one, mark)


class _Tools:
    """The tools of toolsets, which run in this process, for one rollout."""

    def __init__(self, toolsets: Iterable[Any], data: Any, class_name: str, deadline: float):
        self.specs: dict[str, ToolSpec] = {}
        self._sessions: dict[str, tuple[Session, str]] = {}  # and the tool's name there
        for toolset in toolsets:
            prefix = f"{toolset.server_name}_" if toolset.server_name else ""
            session = Session(partial(_served, toolset, data), deadline)
            for tool in session.tools():
                self.specs[prefix + tool.name] = spec_of(tool, class_name, prefix)
                self._sessions[prefix + tool.name] = session, tool.name

    def call(self, call: Call) -> Observation:
        if call.name not in self._sessions:
            return Observation(f"Error: unknown tool {call.name}", ok=False)
        session, name = self._sessions[call.name]
        return session.call(name, call.arguments)


async def _served(toolset: Any, data: Any) -> Any:
    states = require("verifiers.v1.state", "verifiers")
    if states.state_cls(type(toolset)) is not states.State:
        raise ValueError(f"{type(toolset).__name__} keeps state in a rollout of verifiers, which there is none of here")
    server = require("mcp.server.mcpserver", "verifiers").MCPServer(toolset.server_name or type(toolset).__name__)
    await toolset.setup()
    await toolset.setup_task(data)
    toolset.register(server)
    return server


class _Talk:
    """One rollout of a task of verifiers: what was said, as the trace that its rewards read."""

    def __init__(self, vf: Any, one: Any, tools: _Tools, judge: Callable, rules: Rules, deadline: float):
        self.tools = tools
        self._vf, self._one, self._judge, self._rules, self._deadline = vf, one, judge, rules, deadline
        states = require("verifiers.v1.state", "verifiers")
        task = vf.TraceTask(type=type(one).__name__, data=one.data, key=one.key, hash=one.hash)
        agent = vf.AgentInfo(config=vf.AgentConfig(model="policy", runtime=vf.SubprocessConfig()))
        self._trace = vf.Trace(task=task, state=states.state_cls(type(one))(), agent=agent)
        prompt, system = one.data.prompt, one.data.system_prompt
        words = [vf.UserMessage(content=prompt)] if isinstance(prompt, str) else [*prompt]
        self._messages = words if system is None else [vf.SystemMessage(content=system), *words]
        self._attempts = 0

    def act(self, action: Action) -> Answer:
        action = readable(action)
        if not action.calls and action.error is None:
            self._say(action.answer, ())
            return self._over(None, ())
        names = self._say("", action.calls) if action.calls else self._say(action.error or "", ())
        observations = [self.tools.call(call) for call in action.calls]
        texts = [one.text for one in observations] + ([] if action.error is None else [f"Error: {action.error}."])
        for name, text in zip(names, texts):
            self._messages.append(self._vf.ToolMessage(tool_call_id=name, content=text))
        self._messages += [self._vf.UserMessage(content=text) for text in texts[len(names) :]]
        failed = CALL_FAILED if action.calls else PARSE_ERROR
        code = CALLED if action.error is None and all(one.ok for one in observations) else failed
        self._attempts += 1
        if self._attempts > self._rules.max_attempts:
            return self._over(code, tuple(texts))
        return Answer(code, tuple(Message("tool", text) for text in texts), tuple(texts))

    def _turn(self) -> Any:
        """Of the trace: what it lacks of the messages so far."""
        tools = [
            self._vf.Tool(name=tool.name, description=tool.description, parameters=dict(tool.parameters))
            for tool in self.tools.specs.values()
        ]
        return require("verifiers.v1.graph", "verifiers").prepare_turn(self._trace, list(self._messages), tools)

    def _say(self, text: str, calls: Sequence[Call]) -> list[str]:
        """Adds what the policy said to the trace, as a model's reply would be; returns the names of its calls."""
        count = len(self._messages)
        called = [
            self._vf.ToolCall(id=f"call_{count}_{number}", name=call.name, arguments=json.dumps(dict(call.arguments)))
            for number, call in enumerate(calls)
        ]
        said = self._vf.AssistantMessage(content=text or None, tool_calls=called or None)
        reason = "tool_calls" if called else "stop"
        reply = self._vf.Response(
            id=f"{count}", created=int(time.time()), model="policy", message=said, finish_reason=reason
        )
        self._turn().commit(reply)
        self._messages.append(said)
        return [call.id for call in called]

    def _over(self, code: int | None, texts: tuple[str, ...]) -> Answer:
        self._turn().commit_prompt()  # results that no message followed
        self._trace.stop("agent_completed")
        self._trace.ok = True
        asyncio.run(asyncio.wait_for(self._one.score(self._trace), self._deadline))
        passed = tuple(map(bool, self._judge(self._trace)))
        code = (TURN_PASSED if all(passed) else TURN_FAILED) if code is None else code
        return Answer(code, (), texts, True, passed)


# ------------------------------------------------------------------------------------------- out
def exported(domain: Domain, tasks: Sequence[Task], rules: Rules = RODS) -> tuple[type, type]:
    """(taskset, harness): two classes for a module of the user's own, whose __all__ names them, and whose name is the
    id of both in verifiers.  The harness plays in this process, so that any runtime does, and asks the rollout's model
    for every message.  The reward `progress` is the share of checks that passed.  A world that breaks is an error of
    the harness, and an episode that the rollout's limits cut short keeps the checks that were decided.
    """
    require("verifiers.v1", "verifiers")
    import openai
    import verifiers.v1 as vf

    by_id = {task.id: task for task in tasks}

    class DomainTask(vf.Task[vf.TaskData, vf.State, vf.TaskConfig]):
        """A task of the domain; its world lives in the harness."""

        @vf.reward
        async def progress(self, trace: Any) -> float:
            passed = trace.info["passed"]
            return sum(passed) / len(passed)

    class DomainTaskset(vf.Taskset[DomainTask, vf.TasksetConfig]):
        """The tasks of the domain."""

        def load(self) -> Iterable[Any]:
            for task in tasks:
                yield DomainTask(
                    vf.TaskData(id=task.id, name=task.category, prompt=task.turns[0].user), self.config.task
                )

    class DomainHarness(vf.Harness[vf.HarnessConfig]):
        """Holds the episode between the model and the world."""

        NEEDS_CONTAINER = False
        EXECUTES_CODE = False

        async def launch(self, ctx, trace, runtime, endpoint, secret, mcp_urls, data) -> Any:
            with openai.OpenAI(base_url=endpoint, api_key=secret, max_retries=0) as client:
                act = _conversing(client, ctx.model)
                record = await asyncio.to_thread(play, domain, by_id[data.id], 0, act, rules)
            trace.info["passed"] = [*record.rods]
            if record.failure and trace.stop_condition is None:
                raise vf.HarnessError(record.failure)
            return vf.ProgramResult(exit_code=0, stdout="", stderr="")

    return DomainTaskset, DomainHarness


def _conversing(client: Any, model: str) -> Player:
    """A player that asks the rollout's model.  Its messages go back as they came, names of calls and thoughts included,
    so that each request continues the one before it, and a trace is one branch for as long as the tools are the same."""
    openai = require("openai", "verifiers")
    conversation: list[Any] = []
    tools: list[Any] = []
    unanswered: list[str] = []  # the latest calls

    def act(messages: Sequence[Message]) -> Said | Stop:
        hear(messages, conversation, tools, unanswered)
        try:
            offered = {"tools": tools} if tools else {}
            reply = client.chat.completions.create(model=model, messages=conversation, **offered)
        except openai.APIError as error:
            return Stop(failure=f"the model cannot be asked: {error}")
        choice = reply.choices[0]
        conversation.append(choice.message.model_dump(exclude_none=True))
        unanswered.extend(call.id for call in choice.message.tool_calls or ())
        return Said(choice.message.content or "", _action(choice), reply.usage.completion_tokens if reply.usage else 0)

    return act


def _action(choice: Any) -> Action:
    """By the grammar of a run's policy, but that the server has read the calls."""
    if choice.finish_reason == "length":
        return Action(error="the message was cut off")
    calls: list[Call] = []
    for call in choice.message.tool_calls or ():
        try:
            calls.append(served_call(call.function.name, call.function.arguments))
        except ValueError as error:
            return unreadable(str(error), tuple(calls))
    return Action(calls=tuple(calls)) if calls else read_message(answer, choice.message.content or "")
