"""Played episodes for other packages: chat messages to fine-tune on, and ATIF, the Agent Trajectory Interchange Format.

Both are made of a `Record`, as an evaluation's journal holds it, and of its task; a run's trajectories become records
where its codec reads their texts.  A line of the file is one episode.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from rods_jax import __version__, journal
from rods_jax.codecs.documents import function_schema, tool_line
from rods_jax.dialogue import Move, Record
from rods_jax.environments.conversation import heard_by_agent
from rods_jax.environments.protocol import Domain
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
    """{"messages", "tools"} as OpenAI's endpoints and trainers for them take them, beside the task's id and the checks.

    What a message of the policy says beside its calls is left out.  A call that was not run has an empty result.  Tools
    that are released later stand before the words of the user who releases them.  Of a conversation there is what the
    agent read: not what the user called and saw.
    """
    messages: list[dict[str, Json]] = [{"role": role, "content": text} for role, text in record.opening[:-1]]
    names = _call_names()
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
        messages += [{"role": "user", "content": text} for text in _others(record, results[len(ids) :])]
    if record.ended and messages[-1]["role"] == "user":
        messages.pop()  # the words that ended it
    tools = [*map(function_schema, _opening_tools(task, domain))]
    return {"messages": messages, "tools": tools, "task_id": task.id, "passed": [*record.rods]}


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
    yield record.opening[-1][1] if record.opening else _user(task, 0, domain)
    for move in record.moves:
        for later in range(turn + 1, min(move.turn + 1, len(task.turns))):
            yield _user(task, later, domain)
        turn = move.turn
        yield move


def _user(task: Task, turn: int, domain: Domain) -> str:
    released = task.turns[turn].released_tools if turn else ()
    return "\n".join([*(tool_line(domain.tools[name]) for name in released), task.turns[turn].user])


def _opening_tools(task: Task, domain: Domain) -> list[ToolSpec]:
    if domain.start is not None:
        return [*domain.tools.values()]
    hidden = task.withheld_tools - set(task.turns[0].released_tools)
    return [tool for tool in domain.tools_of(task.world.classes) if tool.name not in hidden]


def _results(move: Move) -> list[str]:
    return [*move.observations, *[""] * (len(move.calls) - len(move.observations))]


def _others(record: Record, texts: Sequence[str]) -> Sequence[str]:
    """What came back beside the results of calls; of a conversation, the words of the user and what was told of errors."""
    if not record.ended:
        return texts
    return [text for one in texts if (text := one if one.startswith("Error: ") else heard_by_agent(one)) is not None]


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
    by_id = {task.id: task for task in tasks}
    lines = []
    for record in records:
        if record.task_id not in by_id:
            raise ValueError(f"an episode is of the task {record.task_id}, which is none of the {len(by_id)} given")
        task = by_id[record.task_id]
        line = json.dumps(form(record, task, domain.of(task)), ensure_ascii=False, allow_nan=False)
        lines.append(line.encode("utf-8", "replace").decode() + "\n")  # a model may write half a surrogate pair
    write_atomically(path, "".join(lines))
    return len(lines)
