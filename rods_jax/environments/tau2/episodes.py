"""tau2-bench's tasks as episodes of a run: conversations whose checks are the parts of the score.

    domain = tau2("airline", files, user)
    tasks = [episode_task("airline", entry) for entry in entries(files, "airline", "train")]

A task travels whole in its `World`, so that tasks made of faults are played like those of a file.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from rods_jax.environments.conversation import AGENT, USER, Conversation, Ended, Line, Reason, User, conversations
from rods_jax.environments.protocol import Domain, GoldDialogue, Opening, Simulator, Stratum
from rods_jax.environments.tau2 import messages
from rods_jax.environments.tau2.data import Files, splits, tasks
from rods_jax.environments.tau2.domains import DOMAINS
from rods_jax.environments.tau2.messages import TOOL, Message, TauTask, ToolCall, task_from_json
from rods_jax.environments.tau2.prompts import GREETING, agent_prompt, scenario
from rods_jax.environments.tau2.scoring import STRICT, Judge, ScoringRules, checks, grade
from rods_jax.types import MEASURED, Action, Call, Json, Observation, Task, Turn, World
from rods_jax.types import Message as Heard

ANSWERED = "Done."  # the shortest words
_SIDES = {AGENT: messages.AGENT, USER: messages.USER}  # of a conversation, in tau2-bench's words


def tau2(name: str, files: Files, user: User, rules: ScoringRules = STRICT, judge: Judge | None = None) -> Domain:
    """A domain of tau2-bench for a run; its users are slow where they are models. TauDataError: files are missing."""
    domain = DOMAINS[name](files)
    tools = {tool.name: tool for tool in domain.agent_tools()}
    start = conversations(partial(make, files, user, rules, judge), waits=True)
    return Domain(name, tools, _no_simulator, strata={name: Stratum()}, start=start, gold=partial(gold_dialogue, files))


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


def make(files: Files, user: User, rules: ScoringRules, judge: Judge | None, task: Task) -> Conversation:
    """The world of one rollout."""
    (name,) = task.world.classes
    domain, own = DOMAINS[name](files), task_from_json(task.world.state[name])
    environment = domain.environment()
    environment.set_up(own.start, own.start.history, apart=rules.data_stay_apart)

    def call(who: str, call: Call) -> Observation:
        return environment.call(_SIDES[who], call.name, call.arguments)

    def decide(ended: Ended) -> tuple[bool, ...]:
        score = grade(domain, own, recorded(own, ended.lines), str(ended.reason), rules, judge)
        found = checks(score)
        return found if score.success == all(found) and len(found) == num else (score.success,) * num

    num = num_checks(own)
    return Conversation(
        tools=domain.agent_tools(),
        user=user,
        call=call,
        num_checks=num,
        decide=decide,
        sync=environment.sync,
        blame=blamed,
        policy=agent_prompt(domain),
        greeting=GREETING,
        history=lines_of(own.start.history),
    )


def gold_dialogue(files: Files, task: Task) -> GoldDialogue:
    """The gold calls and what they return, with the fewest words: no user is asked, and a real one says more.

    For a call of the user, the agent says its name; at the end it says what the user needs to hear.
    """
    (name,) = task.world.classes
    domain, own = DOMAINS[name](files), task_from_json(task.world.state[name])
    criteria, environment = own.criteria or messages.Criteria(), domain.environment()
    environment.set_up(own.start, own.start.history)
    history = "\n".join(message.text or "" for message in own.start.history)
    opening = Opening(
        domain.agent_tools(), history or task.turns[0].user, num_checks(own), agent_prompt(domain), GREETING
    )
    moves: list[tuple[Action, tuple[Heard, ...]]] = []
    for gold in criteria.actions or ():
        told = environment.call(gold.side, gold.name, gold.arguments).text
        if gold.side == messages.AGENT:
            moves.append((Action((Call(gold.name, gold.arguments),)), (Heard("tool", told),)))
        else:
            moves.append((Action(answer=gold.name), (Heard("user", ANSWERED),)))
    words = " ".join(criteria.communicate or ()) or ANSWERED
    return GoldDialogue(opening, (*moves, (Action(answer=words), ())))


def blamed(ended: Ended) -> str:
    """USER where its model ended a conversation by an error; else nobody: what a model says cannot be judged by rules."""
    return USER if ended.reason in (Reason.USER_ERROR, Reason.CONTEXT_WINDOW) else ""


def num_checks(task: TauTask) -> int:
    """As many as `scoring.checks` gives, and at least one: the reward."""
    criteria = task.criteria or messages.Criteria(basis=())
    replayed = criteria.actions is not None or criteria.assertions is not None
    numbers = {
        "DB": int(replayed),
        "ENV_ASSERTION": len(criteria.assertions or ()),
        "ACTION": len(criteria.actions or ()),
        "COMMUNICATE": len(criteria.communicate or ()),
        "NL_ASSERTION": len(criteria.statements or ()),
    }
    return max(1, sum(number for name, number in numbers.items() if name in criteria.basis))


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
