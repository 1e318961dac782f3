"""Tasks from files in BFCL's own format: questions, and the gold calls that answer them, a JSON object a line.

    tasks = read_bfcl_tasks("my_questions.json", "possible_answer/my_questions.json")
    write_tasks("tasks/mine.jsonl", tasks)               # from then on in the format of task_files.py

`scripts/import_tasks.py` does both.

A question has id, question (a list of messages for every turn), initial_config and involved_classes; also
missed_function, if functions are withheld.  An answer has the same id and ground_truth, a list of calls as text for
every turn.
Text is parsed, never run.  Left out on purpose: single-turn categories, whose answers are checked in another way.
"""

from collections.abc import Mapping
from pathlib import Path

from rods_jax import strict_json
from rods_jax.environments.bfcl import bfcl_domain, task_of
from rods_jax.environments.gold import check_gold
from rods_jax.environments.protocol import STRATA
from rods_jax.environments.scoring import GoldError
from rods_jax.task_files import TaskFileError, task_from_json, task_to_json
from rods_jax.types import Json, Task, ToolSpec

_MARKS = {"miss_func": "missing_function", "miss_param": "missing_parameter", "long_context": "long_context"}
_QUESTION = {"id": str, "question": list, "initial_config": dict, "involved_classes": list}
_ANSWER = {"id": str, "ground_truth": list}


def read_bfcl_tasks(questions: str | Path, answers: str | Path, category: str | None = None) -> tuple[Task, ...]:
    """All tasks, in the order of the questions; answers may come in another.

    category: of all of them; None: as their ids say (miss_func, miss_param, long_context, else base).
    Gold is played, and what fails is refused.  TaskFileError names file, line and field.  ImportError and ValueError
    as `bfcl.release_root`.
    """
    if category is not None and category not in STRATA:
        raise TaskFileError(f"the category must be one of {', '.join(STRATA)}: got {category}")
    domain = bfcl_domain()
    tools = domain.tools
    truths = dict(_records(Path(answers), _ANSWER))
    tasks = []
    for name, (line, entry) in _records(Path(questions), _QUESTION).items():
        where = f"{questions}, line {line}"
        if name not in truths:
            raise TaskFileError(f"{where}: field id {name!r} has no answer in {answers}")
        answer_line, answer = truths[name]
        reason = _fault(entry, tools)
        if reason:
            raise TaskFileError(f"{where}: {reason}")
        if len(entry["question"]) != len(answer["ground_truth"]):
            counts = (
                f"{len(entry['question'])} turns, and line {answer_line} of {answers} {len(answer['ground_truth'])}"
            )
            raise TaskFileError(f"{where}: field question has {counts}")
        try:
            kind = category or next((kind for mark, kind in _MARKS.items() if mark in name), "base")
            task = task_from_json(task_to_json(task_of(kind, entry, answer["ground_truth"])))
        except (ValueError, TypeError, LookupError, AttributeError, SyntaxError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise TaskFileError(f"{where} (answer on line {answer_line} of {answers}): {reason}") from error
        foreign = [
            c.name for turn in task.turns for c in turn.gold if tools[c.name].class_name not in task.world.classes
        ]
        if foreign:
            raise TaskFileError(f"{answers}, line {answer_line}: {foreign[0]} is of no class of involved_classes")
        try:
            check_gold(domain, [task])
        except GoldError as error:
            raise TaskFileError(f"{answers}, line {answer_line}: {error}") from error
        tasks.append(task)
    return tuple(tasks)


def _fault(entry: Mapping[str, Json], tools: Mapping[str, ToolSpec]) -> str:
    """Why a question would be read as something else than it says, or nothing."""
    classes, turns = entry["involved_classes"], entry["question"]
    known = sorted({tool.class_name for tool in tools.values()})
    unknown = [name for name in classes if name not in known]
    if unknown or not classes:
        return f"field involved_classes must name some of {known}: got {unknown}"
    if foreign := [name for name in entry["initial_config"] if name not in known]:
        return f"field initial_config names {foreign[0]}, which is none of {known}"
    for number, messages in enumerate(turns):
        where = f"field question[{number}]"
        if not isinstance(messages, list) or len(messages) > 1:  # none: a turn in which functions are released
            return f"{where} must be a list of one user message, or of none"
        for message in messages:
            if not isinstance(message, dict) or message.get("role") != "user" or "content" not in message:
                return f"{where}[0] must be an object with role user and content"
    released = entry.get("missed_function", {})
    if not isinstance(released, dict):
        return "field missed_function must be an object: turn -> names of functions"
    for turn, names in released.items():
        if turn not in map(str, range(len(turns))):
            return f"field missed_function has turn {turn!r}, and the turns are 0 to {len(turns) - 1}"
        if not isinstance(names, list) or any(not isinstance(name, str) or name not in tools for name in names):
            return f"field missed_function.{turn} must be a list of functions of BFCL: got {names!r}"
    return ""


def _records(path: Path, fields: Mapping[str, type]) -> dict[str, tuple[int, Mapping[str, Json]]]:
    """id -> (line, record) of a file. TaskFileError: a line is no JSON, lacks a field, or repeats an id."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskFileError(f"{path} cannot be read: {error}") from error
    found: dict[str, tuple[int, Mapping[str, Json]]] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = strict_json.loads(line)
        except strict_json.JsonError as error:
            raise TaskFileError(f"{where}: {error}") from error
        if not isinstance(record, dict):
            raise TaskFileError(f"{where}: a record must be an object")
        for name, kind in fields.items():
            if not isinstance(record.get(name), kind):
                raise TaskFileError(
                    f"{where}: field {name} must be {'an object' if kind is dict else f'a {kind.__name__}'}"
                )
        if record["id"] in found:
            raise TaskFileError(f"{where}: field id {record['id']!r} is already on line {found[record['id']][0]}")
        found[record["id"]] = number, record
    return found
