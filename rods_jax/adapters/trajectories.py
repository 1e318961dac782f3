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
from rods_jax.environments.conversation import AGENT, USER, view
from rods_jax.environments.episode import start_episodes
from rods_jax.environments.protocol import Domain, Failure, Opening, Reading
from rods_jax.environments.users import seen_by
from rods_jax.evaluation import CODES
from rods_jax.files import require_object, write_atomically
from rods_jax.metrics import read_metrics
from rods_jax.records import RecordError, decode
from rods_jax.rewards import PARSE_ERROR
from rods_jax.strict_json import JsonError
from rods_jax.types import Action, Json, Line, Task, ToolSpec

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
    texts = {name: line.get(name) or "" for name in ("truncated", "failure", "ended", "blame")}
    try:
        said = tuple(decode(Line, one) for one in line.get("lines", ()))
    except RecordError as error:
        raise JsonError(f"{where}: no line of a conversation: {error}") from error
    reasons = ((),) * len(passed)
    return Record(line["task_id"], line["rollout"], passed, passed, all(passed), reasons, moves, 0, lines=said, **texts)


def _move(step: Mapping[str, Json], parse: Callable[[str], Action]) -> Move:
    text, code = step["text"], step["code"]
    calls = () if code == PARSE_ERROR else parse(text).calls  # what was cut short looks whole to the parser
    return Move(step["turn"], text, calls, code, tuple(step["observations"]), num_lines=step.get("num_lines", 0))


# ------------------------------------------------------------------------------------------ chat
def chat(record: Record, task: Task, domain: Domain) -> dict[str, Json]:
    """The agent's side: {"messages", "tools"} as OpenAI's endpoints and trainers take them, beside the verdicts.

    What a message of the policy says beside its calls is left out.  A call that was not run has an empty result.  Tools
    that are released later stand before the words of the user who releases them.  In a conversation the policy text is
    the system message, the greeting has no weight, and of the user's side the words alone are heard.
    """
    names, opening = _call_names(), _opening(task, domain)
    messages = _opened(record, opening, domain)
    for said, heard in _conversation(record, task, domain):
        if said is None:
            messages += [{"role": "user", "content": text} for text in heard]
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
        results = [*heard, *[""] * (len(ids) - len(heard))]
        messages += [{"role": "tool", "tool_call_id": name, "content": text} for name, text in zip(ids, results)]
        messages += [{"role": "user", "content": text} for text in results[len(ids) :]]
    tools = [*map(function_schema, opening.tools)]
    return {"messages": messages, "tools": tools} | _labels(record, task, domain)


def user_chat(record: Record, task: Task, domain: Domain) -> dict[str, Json]:
    """The user's side: its words and calls are the assistant's messages, its tools the tools, its instructions the system's.

    ValueError: the domain does not say what its users are told.
    """
    reading = _reading(record, domain)
    told = {"role": "system", "content": reading.instructions(task)}
    messages = [told, *seen_by(view(USER, record.lines))]
    tools = [*map(function_schema, reading.user_tools(task))]
    return {"messages": messages, "tools": tools} | _labels(record, task, domain)


def _reading(record: Record, domain: Domain) -> Reading:
    if domain.reading is None:
        raise ValueError(f"nothing is known of the users of {domain.name}: its domain has no `reading`")
    if not record.lines and not record.failure:
        raise ValueError(f"the episode {record.rollout} of {record.task_id} was recorded without lines: play it again")
    return domain.reading


def _labels(record: Record, task: Task, domain: Domain) -> dict[str, Json]:
    """Whose dialogue it is, the verdicts by both rules, and how often the user erred, where anybody can tell."""
    labels: dict[str, Json] = {"task_id": record.task_id, "rollout": record.rollout}
    labels |= {"passed": [*record.rods], "reward": float(all(record.official))}
    if domain.reading is not None:
        labels["user_errors"] = domain.reading.user_errors(task, record.lines, record.ended)
    return labels


# ------------------------------------------------------------------------------------------ ATIF
def atif(record: Record, task: Task, domain: Domain, *, session: str, model: str = "") -> dict[str, Json]:
    """One ATIF document.  session: names the run or the evaluation.  What has no field of its own stands in `extra`."""
    steps: list[dict[str, Json]] = []
    names, opening = _call_names(), _opening(task, domain)
    first = [one.text for one in _before(record) if one.who == USER and one.is_words] or [opening.user]
    steps += [{"step_id": place, "source": "user", "message": text} for place, text in enumerate(first, start=1)]
    for said, heard in _conversation(record, task, domain):
        some = [{"source": "user", "message": text} for text in heard] if said is None else [_agent_step(said, names)]
        steps += [{"step_id": place} | one for place, one in enumerate(some, start=len(steps) + 1)]
    agent: dict[str, Json] = {"name": "rods_jax", "version": __version__}
    tools = [*map(function_schema, opening.tools)]
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
def _before(record: Record) -> tuple[Line, ...]:
    """The lines of a conversation that preceded the agent's first message; of another world, none."""
    return record.lines[: len(record.lines) - sum(move.num_lines for move in record.moves)]


def _opened(record: Record, opening: Opening, domain: Domain) -> list[dict[str, Json]]:
    """What stands before the agent's first message; what is given in its name has no weight."""
    if domain.reading is not None:
        _reading(record, domain)
    given: list[Mapping[str, Json]] = [{"role": "system", "content": opening.policy}]
    if record.lines or domain.reading is not None:
        given += seen_by(view(AGENT, _before(record)), AGENT)
    else:
        given += [{"role": "assistant", "content": opening.greeting}, {"role": "user", "content": opening.user}]
    found = [{**one} | ({"weight": 0} if one["role"] == "assistant" else {}) for one in given]
    return [one for one in found if one["content"] or "tool_calls" in one]


def _conversation(record: Record, task: Task, domain: Domain) -> Iterator[tuple[Move | None, Sequence[str]]]:
    """(a message of the policy, what it hears next), or (None, words of a scripted user), after the first words."""
    turn, place = 0, len(_before(record))
    for move in record.moves:
        for later in range(turn + 1, min(move.turn + 1, len(task.turns))):
            yield None, [_user(task, later, domain)]
        own = record.lines[place : place + move.num_lines]
        turn, place = move.turn, place + move.num_lines
        yield move, [one.text for one in own if _is_heard(one)] if own else move.observations


def _is_heard(line: Line) -> bool:
    """Whether a line comes back to the agent: results of its calls, and the user's words."""
    return line.result if line.who == AGENT else line.is_words


def _opening(task: Task, domain: Domain) -> Opening:
    """How an episode begins for the policy: by task and reading, or as its world says when it starts."""
    if domain.start is None or domain.reading is not None:  # who talks first is then in the record's lines
        policy = "" if domain.reading is None else domain.reading.policy(task)
        return Opening(_opening_tools(task, domain), _user(task, 0, domain), len(task.turns), policy)
    (opening,) = start_episodes(domain, [task]).openings
    if isinstance(opening, Failure):
        raise ValueError(f"task {task.id} cannot be written: its world does not start: {opening.reason}")
    return opening


def _user(task: Task, turn: int, domain: Domain) -> str:
    released = task.turns[turn].released_tools if turn else ()
    return "\n".join([*(tool_line(domain.tools[name]) for name in released), task.turns[turn].user])


def _opening_tools(task: Task, domain: Domain) -> tuple[ToolSpec, ...]:
    if domain.start is not None:
        return tuple(domain.tools.values())
    hidden = task.withheld_tools - set(task.turns[0].released_tools)
    return tuple(tool for tool in domain.tools_of(task.world.classes) if tool.name not in hidden)


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
