"""tau2-bench's tasks as episodes of a run: conversations whose checks are the parts of the score.

    domain = tau2("airline", files, user)
    tasks = [episode_task("airline", entry) for entry in entries(files, "airline", "train")]

A task travels whole in its `World`, so that tasks made of faults are played like those of a file.
"""

import functools
from collections.abc import Mapping, Sequence
from functools import partial

from rods_jax.environments.conversation import AGENT, USER, Conversation, Ended, Line, Reason, User, conversations
from rods_jax.environments.protocol import Domain, GoldDialogue, Opening, Reading, Simulator, Stratum
from rods_jax.environments.tau2 import messages
from rods_jax.environments.tau2.data import Files, splits, tasks
from rods_jax.environments.tau2.domains import DOMAINS, TauDomain
from rods_jax.environments.tau2.messages import TOOL, Message, TaskError, TauTask, ToolCall, task_from_json
from rods_jax.environments.tau2.prompts import GREETING, agent_prompt, scenario, user_prompt
from rods_jax.environments.tau2.scoring import COMPONENTS, STRICT, Judge, ScoringRules, checks, grade
from rods_jax.environments.tau2.slips import DECISIVE, slips
from rods_jax.environments.tau2.toolkit import marks
from rods_jax.types import MEASURED, Action, Call, Json, Observation, Task, ToolSpec, Turn, World
from rods_jax.types import Message as Heard

ANSWERED = "Done."  # the shortest words
_SIDES = {AGENT: messages.AGENT, USER: messages.USER}  # of a conversation, in tau2-bench's words


def tau2(name: str, files: Files, user: User, rules: ScoringRules = STRICT, judge: Judge | None = None) -> Domain:
    """A domain of tau2-bench for a run; its users are slow where they are models. TauDataError: files are missing."""
    domain = DOMAINS[name](files)
    tools = {tool.name: tool for tool in domain.agent_tools()}
    start = conversations(partial(make, files, user, rules, judge), waits=True)
    reading = Reading(
        policy=partial(policy, files),
        instructions=partial(told, domain),
        user_tools=partial(user_tools, domain),
        checks=check_names,
        slips=partial(slips, files),
        tau2_entry=_entry,
    )
    return Domain(
        name,
        tools,
        _no_simulator,
        strata={name: Stratum()},
        start=start,
        reading=reading,
        gold=partial(gold_dialogue, files),
    )


def told(domain: TauDomain, task: Task) -> str:
    """What the user's model is told."""
    return user_prompt(domain.files, task_from_json(_entry(task)), bool(user_tools(domain, task)))


def user_tools(domain: TauDomain, task: Task) -> tuple[ToolSpec, ...]:
    """Those that a task's user is offered: the domain's, or those of them that the task names."""
    named = task_from_json(_entry(task)).user_tools
    return tuple(tool for tool in domain.user_tools() if named is None or tool.name in named)


def _entry(task: Task) -> Mapping[str, Json]:
    """The task as its file has it."""
    (name,) = task.world.classes
    return task.world.state[name]


def entries(files: Files, name: str, split: str) -> list[Json]:
    """The tasks of a split as its file has them."""
    folder = name.removesuffix("-workflow")
    held = {entry["id"]: entry for entry in files.json(folder, "tasks.json")}
    return [held[task.id] for task in tasks(files, folder, split)]


def episode_task(name: str, entry: Mapping[str, Json], measured: bool = False) -> Task:
    """A task of tau2-bench as one of a run. TaskError: it is not in the format.

    measured: it is of a test split, and a run that would train on it is refused (checks.py).
    """
    task = task_from_json(entry)
    world = World((name,), {name: entry}, {MEASURED: True} if measured else {})
    return Task(task.id, f"{name}/{task.id}", name, world, (Turn(_wish(task), _gold(task)),))


def _wish(task: TauTask) -> str:
    """What its user wants, in the words of the file.  The policy reads what the user says instead."""
    told = task.instructions if isinstance(task.instructions, str) else task.instructions.get("reason_for_call")
    return told or scenario(task)


def _gold(task: TauTask) -> tuple[Call, ...]:
    """The agent's own part of the solution."""
    actions = task.criteria.actions if task.criteria else None
    return tuple(Call(one.name, one.arguments) for one in actions or () if one.side == messages.AGENT)


def split_tasks(files: Files, name: str, split: str) -> tuple[Task, ...]:
    """The tasks of a split; those of the test split say so in every other split too."""
    known = splits(files, name.removesuffix("-workflow"))
    test = frozenset(known.get("test", ()))
    return tuple(episode_task(name, entry, entry["id"] in test) for entry in entries(files, name, split))


def own_task(task: Task) -> tuple[str, TauTask]:
    """(domain, the task as tau2-bench has it)."""
    (name,) = task.world.classes
    return name, task_from_json(_entry(task))


def policy(files: Files, task: Task) -> str:
    """What the agent of a task must follow."""
    (name,) = task.world.classes
    return _agent(files, name)[1]


@functools.cache
def _agent(files: Files, name: str) -> tuple[tuple[ToolSpec, ...], str]:
    """(tools, policy) of a domain's agent: the same in each of its episodes, and slow to put together."""
    domain = DOMAINS[name](files)
    return domain.agent_tools(), agent_prompt(domain)


def make(files: Files, user: User, rules: ScoringRules, judge: Judge | None, task: Task) -> Conversation:
    """The world of one rollout. TaskError: the task names a tool that its side does not have."""
    name, own = own_task(task)
    domain = DOMAINS[name](files)
    _require_tools(domain, own)
    environment = domain.environment()
    environment.set_up(own.start, own.start.history, apart=rules.data_stay_apart, mended=rules.tools_are_mended)

    def call(who: str, call: Call) -> Observation:
        return environment.call(_SIDES[who], call.name, call.arguments)

    def decide(ended: Ended) -> tuple[bool, ...]:
        score = grade(domain, own, recorded(own, ended.lines), str(ended.reason), rules, judge)
        found = checks(score)
        return found if score.success == all(found) and len(found) == num else (score.success,) * num

    def blame(ended: Ended) -> str:
        broken = any(one.kind in DECISIVE for one in slips(files, task, ended.lines, ended.reason))
        return USER if broken or ended.reason == Reason.CONTEXT_WINDOW else AGENT

    tools, prompt = _agent(files, name)
    num = len(_asked_for(own))
    return Conversation(
        tools=tools,
        user=user,
        call=call,
        num_checks=num,
        decide=decide,
        blame=blame,
        sync=environment.sync,
        policy=prompt,
        greeting=GREETING,
        history=lines_of(own.start.history),
    )


def gold_dialogue(files: Files, task: Task) -> GoldDialogue:
    """The gold calls and what they return, with the fewest words: no user is asked, and a real one says more.

    For a call of the user, the agent says its name; at the end it says what the user needs to hear.
    """
    name, own = own_task(task)
    domain, (tools, prompt) = DOMAINS[name](files), _agent(files, name)
    criteria, environment = own.criteria or messages.Criteria(), domain.environment()
    environment.set_up(own.start, own.start.history)
    history = "\n".join(message.text or "" for message in own.start.history)
    opening = Opening(tools, history or task.turns[0].user, len(_asked_for(own)), prompt, GREETING)
    moves: list[tuple[Action, tuple[Heard, ...]]] = []
    for gold in criteria.actions or ():
        told = environment.call(gold.side, gold.name, gold.arguments).text
        if gold.side == messages.AGENT:
            moves.append((Action((Call(gold.name, gold.arguments),)), (Heard("tool", told),)))
        else:
            moves.append((Action(answer=gold.name), (Heard("user", ANSWERED),)))
    words = " ".join(criteria.communicate or ()) or ANSWERED
    return GoldDialogue(opening, (*moves, (Action(answer=words), ())))


def _require_tools(domain: TauDomain, own: TauTask) -> None:
    tools = {messages.AGENT: marks(domain.agent), messages.USER: {} if domain.user is None else marks(domain.user)}
    wanted = [(gold.side, gold.name) for gold in (own.criteria and own.criteria.actions) or ()]
    wanted += [(messages.USER, name) for name in own.user_tools or ()]
    for side, name in wanted:
        if name not in tools[side]:
            raise TaskError(
                f"tau2 task {own.id!r} names the tool {name}, which the {side} of {domain.name} does not have"
            )


def check_names(task: Task) -> tuple[str, ...]:
    """What each of `scoring.checks` asks for, and at least one: the reward."""
    return tuple(f"{part} {one}".rstrip() for part, one in _asked_for(own_task(task)[1]))


def _asked_for(own: TauTask) -> list[tuple[str, str]]:
    """(part of the score, what it asks for)"""
    criteria = own.criteria or messages.Criteria(basis=())
    replayed = criteria.actions is not None or criteria.assertions is not None
    wanted: dict[str, list[str]] = {
        "DB": ["as the gold calls leave them"] if replayed else [],
        "ENV_ASSERTION": [_printed(one.name, one.arguments) for one in criteria.assertions or ()],
        "ACTION": [f"{one.side}: {_printed(one.name, one.arguments)}" for one in criteria.actions or ()],
        "COMMUNICATE": [*(criteria.communicate or ())],
        "NL_ASSERTION": [*(criteria.statements or ())],
    }
    return [(part, one) for part in COMPONENTS if part in criteria.basis for one in wanted[part]] or [("reward", "")]


def _printed(name: str, arguments: Mapping[str, Json]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


# ---------------------------------------------------------------------------- lines and messages
def recorded(task: TauTask, lines: Sequence[Line]) -> list[Message]:
    """A dialogue as tau2-bench records it; what the task's history says stays as it is there."""
    history = list(task.start.history)
    waiting: list[ToolCall] = []
    for number, line in enumerate(lines[len(history) :]):
        side = _SIDES[line.who]
        if line.result and waiting:
            history.append(Message(TOOL, line.text, None, waiting.pop(0).id, side, not line.ok))
        elif not line.result:
            waiting = [ToolCall(f"{number}.{i}", c.name, c.arguments, side) for i, c in enumerate(line.calls)]
            history.append(Message(side, line.text or None, tuple(waiting) or None))
    return history


def lines_of(history: Sequence[Message]) -> tuple[Line, ...]:
    """A task's history as a conversation continues it."""
    sides = {side: who for who, side in _SIDES.items()}
    return tuple(
        Line(
            sides[message.requestor if message.role == TOOL else message.role],
            message.text or "",
            tuple(Call(one.name, one.arguments) for one in message.calls or ()),
            message.role == TOOL,
            not message.error,
        )
        for message in history
    )


def _no_simulator(world: World) -> Simulator:
    raise TypeError("a conversation starts by itself")
