"""Played episodes for other packages: chat messages to fine-tune on, and ATIF, the Agent Trajectory Interchange Format.

All are made of a `Record`, as an evaluation's journal holds it, and of its task; a run's trajectories become records
where its codec reads their texts.  A line of the file is one episode.  chat_rows.py has the rows of chat messages, and
says which are learned from.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from rods_jax import __version__, journal
from rods_jax.codecs.documents import function_schema, tool_line
from rods_jax.dialogue import Move, Record
from rods_jax.environments.conversation import AGENT, USER, Line, read_printed, view, without_thought
from rods_jax.environments.protocol import Domain, Sides
from rods_jax.environments.users import seen_by
from rods_jax.evaluation import CODES
from rods_jax.files import require_object, write_atomically
from rods_jax.metrics import read_metrics
from rods_jax.records import RecordError, decode
from rods_jax.rewards import PARSE_ERROR
from rods_jax.strict_json import JsonError
from rods_jax.types import Action, Json, Task, ToolSpec

ATIF = "ATIF-v1.7"


# ------------------------------------------------------------------------------------------ in
def read_run(path: str | Path, parse: Callable[[str], Action]) -> list[Record]:
    """The trajectories.jsonl of a run. JsonError names file and line. parse: of its codec."""
    lines = enumerate(read_metrics(path), start=1)
    return [_record(line, f"{path}, line {number}", parse) for number, line in lines]


def read_evaluation(path: str | Path) -> list[Record]:
    """The journal.jsonl of an evaluation; the last record of a task and rollout counts.

    JsonError, JournalError name file and line.
    """
    records = {}
    for number, line in journal.read_log(Path(path))[1:]:  # the first line holds its settings
        try:
            record = decode(Record, line)
        except RecordError as error:
            raise JsonError(f"{path}, line {number}: no record of an episode: {error}") from error
        records[record.task_id, record.rollout] = record
    return list(records.values())


def _record(line: Mapping[str, Json], where: str, parse: Callable[[str], Action]) -> Record:
    line = require_object(line, where, task_id=str, rollout=int, passed=list, steps=list)
    try:
        moves = tuple(_move(step, parse) for step in line["steps"])
    except (KeyError, TypeError) as error:
        raise JsonError(f"{where}: no step of a trajectory: {error}") from error
    passed = tuple(line["passed"])
    truncated, failure = line.get("truncated") or "", line.get("failure") or ""
    reasons = ((),) * len(passed)
    return Record(line["task_id"], line["rollout"], passed, passed, all(passed), reasons, moves, 0, truncated, failure)


def _move(step: Mapping[str, Json], parse: Callable[[str], Action]) -> Move:
    text, code = step["text"], step["code"]
    calls = () if code == PARSE_ERROR else parse(text).calls  # what was cut short looks whole to the parser
    return Move(step["turn"], text, calls, code, tuple(step["observations"]))


# ------------------------------------------------------------------------------------------ chat
def chat(record: Record, task: Task, domain: Domain) -> dict[str, Json]:
    """The agent's side: {"messages", "tools"} as OpenAI's endpoints and trainers take them, beside the verdicts.

    What a message of the policy says beside its calls is left out.  A call that was not run has an empty result.  Tools
    that are released later stand before the words of the user who releases them.  In a conversation the policy text is
    the system message, the greeting has no weight, and of the user's side the words alone are heard.
    """
    messages: list[dict[str, Json]] = []
    names, sides = _call_names(), domain.sides
    if sides is not None:
        before = (
            {"role": "system", "content": sides.policy(task)},
            {"role": "assistant", "content": sides.greeting, "weight": 0},
        )
        messages += [one for one in before if one["content"]]
    for said in _conversation(record, task, domain):
        if isinstance(said, str):
            messages.append({"role": "user", "content": said})
            continue
        ids = [next(names) for _ in said.calls]
        called = [
            {
                "id": name,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
            }
            for name, call in zip(ids, said.calls)
        ]
        words: dict[str, Json] = {"content": "", "tool_calls": called} if called else {"content": said.text}
        thought = {"reasoning_content": said.reasoning} if said.reasoning else {}
        messages.append({"role": "assistant"} | words | thought)
        results = _results(said)
        messages += [{"role": "tool", "tool_call_id": name, "content": text} for name, text in zip(ids, results)]
        others = results[len(ids) :] if sides is None else _heard(results[len(ids) :])
        messages += [{"role": "user", "content": text} for text in others]
    tools = [*map(function_schema, _opening_tools(task, domain))]
    return {"messages": messages, "tools": tools} | _labels(record, task, domain)


def user_chat(record: Record, task: Task, domain: Domain) -> dict[str, Json]:
    """The user's side: its words and calls are the assistant's messages, its tools the tools, its instructions the system's.

    ValueError: the domain does not say what its users are told.
    """
    sides = domain.sides
    if sides is None:
        raise ValueError(f"nothing is known of the users of {domain.name}: its domain has no `sides`")
    told = {"role": "system", "content": sides.instructions(task)}
    messages = [told, *seen_by(view(USER, transcript(record, task, sides)))]
    tools = [*map(function_schema, sides.user_tools())]
    return {"messages": messages, "tools": tools} | _labels(record, task, domain)


def transcript(record: Record, task: Task, sides: Sides) -> list[Line]:
    """The lines of a recorded conversation; messages that the agent's side could not be read of are left out."""
    lines = [Line(AGENT, sides.greeting)] if sides.greeting else []
    lines.append(Line(USER, record.opening or task.turns[0].user))
    for move in record.moves:
        if move.code == PARSE_ERROR:
            continue
        lines.append(Line(AGENT, "" if move.calls else without_thought(move.text).strip(), move.calls))
        for place, text in enumerate(move.observations):
            lines.append(Line(AGENT, text, result=True) if place < len(move.calls) else _user_line(text))
    return lines


def _heard(observations: Sequence[str]) -> list[str]:
    """What the agent hears of the lines of the user's side, and what it is told of a message that cannot be read."""
    return [line.text for line in map(_user_line, observations) if line.is_words or line.who == AGENT]


def _user_line(text: str) -> Line:
    try:
        return read_printed(text)
    except ValueError:  # of the world, to the agent: why its message cannot be read
        return Line(AGENT, text, result=True)


def _labels(record: Record, task: Task, domain: Domain) -> dict[str, Json]:
    """Whose dialogue it is, the verdicts by both rules, and how often the user erred, where anybody can tell."""
    labels: dict[str, Json] = {"task_id": record.task_id, "rollout": record.rollout}
    labels |= {"passed": [*record.rods], "reward": float(all(record.official))}
    if domain.sides is not None and domain.sides.user_errors is not None:
        labels["user_errors"] = domain.sides.user_errors(task, transcript(record, task, domain.sides))
    return labels


# ------------------------------------------------------------------------------------------ ATIF
def atif(record: Record, task: Task, domain: Domain, *, session: str, model: str = "") -> dict[str, Json]:
    """One ATIF document.  session: names the run or the evaluation.  What has no field of its own stands in `extra`."""
    steps: list[dict[str, Json]] = []
    names = _call_names()
    for said in _conversation(record, task, domain):
        own = {"source": "user", "message": said} if isinstance(said, str) else _agent_step(said, names)
        steps.append({"step_id": len(steps) + 1} | own)
    agent: dict[str, Json] = {"name": "rods_jax", "version": __version__}
    tools = [*map(function_schema, _opening_tools(task, domain))]
    passed = {"passed": [*record.rods], "progress": sum(record.rods) / len(record.rods)}
    return {
        "schema_version": ATIF,
        "session_id": session,
        "trajectory_id": f"{session}/{record.task_id}/{record.rollout}",
        "agent": agent | ({"model_name": model} if model else {}) | ({"tool_definitions": tools} if tools else {}),
        "steps": steps,
        "final_metrics": {"total_steps": len(steps), "extra": passed}
        | ({"total_completion_tokens": record.tokens} if record.tokens else {}),
        "extra": {
            "task_id": record.task_id,
            "rollout": record.rollout,
            "category": task.category,
            "truncated": record.truncated,
            "failure": record.failure,
        },
    }


def _agent_step(move: Move, names: Iterator[str]) -> dict[str, Json]:
    ids = [next(names) for _ in move.calls]
    step: dict[str, Json] = {"source": "agent", "message": "" if ids else move.text, "llm_call_count": 1}
    if move.reasoning:
        step["reasoning_content"] = move.reasoning
    if ids:
        step["tool_calls"] = [
            {"tool_call_id": name, "function_name": call.name, "arguments": dict(call.arguments)}
            for name, call in zip(ids, move.calls)
        ]
    if move.observations:
        of_calls = [{"source_call_id": name, "content": text} for name, text in zip(ids, move.observations)]
        others = [{"content": text} for text in move.observations[len(ids) :]]
        step["observation"] = {"results": of_calls + others}
    return step | {"extra": {"text": move.text, "event": CODES[move.code]}}


# ------------------------------------------------------------------------------------- conversation
def _conversation(record: Record, task: Task, domain: Domain) -> Iterator[str | Move]:
    """What the user and the policy said in turn.  A world of another kind says in observations what its user said."""
    turn = 0
    yield record.opening or _user(task, 0, domain)
    for move in record.moves:
        for later in range(turn + 1, min(move.turn + 1, len(task.turns))):
            yield _user(task, later, domain)
        turn = move.turn
        yield move


def _user(task: Task, turn: int, domain: Domain) -> str:
    released = task.turns[turn].released_tools if turn else ()
    return "\n".join([*(tool_line(domain.tools[name]) for name in released), task.turns[turn].user])


def _opening_tools(task: Task, domain: Domain) -> list[ToolSpec]:
    if domain.sides is not None:
        return [*domain.tools.values()]
    hidden = task.withheld_tools - set(task.turns[0].released_tools)
    return [tool for tool in domain.tools_of(task.world.classes) if tool.name not in hidden]


def _results(move: Move) -> list[str]:
    return [*move.observations, *[""] * (len(move.calls) - len(move.observations))]


def _call_names() -> Iterator[str]:
    return (f"call{number:05d}" for number in count())


# ----------------------------------------------------------------------------------------- files
def export(
    path: str | Path,
    records: Iterable[Record],
    tasks: Sequence[Task],
    domain: Domain,
    form: Callable[[Record, Task, Domain], Any],
) -> int:
    """Writes a line for each record and returns their number. ValueError: one is of a task that is not given."""
    return write(path, formed(records, tasks, domain, form))


def formed(
    records: Iterable[Record], tasks: Sequence[Task], domain: Domain, form: Callable[[Record, Task, Domain], Any]
) -> list[Any]:
    """The records in a form. ValueError: one is of a task that is not given."""
    by_id = {task.id: task for task in tasks}
    found = []
    for record in records:
        if record.task_id not in by_id:
            raise ValueError(f"an episode is of the task {record.task_id}, which is none of the {len(by_id)} given")
        task = by_id[record.task_id]
        found.append(form(record, task, domain.of(task)))
    return found


def write(path: str | Path, rows: Iterable[Json]) -> int:
    """Writes a line for each and returns their number."""
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
    text = "".join(f"{line}\n" for line in lines)
    write_atomically(path, text.encode("utf-8", "replace").decode())  # a model may write half a surrogate pair
    return len(lines)
