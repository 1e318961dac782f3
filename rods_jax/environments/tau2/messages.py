"""A dialogue as tau2-bench records it, and tasks: frozen records of what the files hold.

Unknown fields are ignored, as officially.  What does not fit raises TaskError with the task and the field.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rods_jax.types import Json

AGENT, USER, TOOL = "assistant", "user", "tool"  # roles; the first two also name the sides
SIDES = AGENT, USER


class TaskError(ValueError):
    """A task, or a message of its history, that is not in the format; one sentence."""


class ToolCall(NamedTuple):
    id: str
    name: str
    arguments: Mapping[str, Json]
    requestor: str = AGENT  # who made it: AGENT or USER


class Message(NamedTuple):
    """What one side said or called, or one result."""

    role: str  # AGENT, USER or TOOL
    text: str | None = None
    calls: tuple[ToolCall, ...] | None = None  # an empty tuple is a message of calls as well
    id: str = ""  # of the call that a result answers
    requestor: str = AGENT  # of that call
    error: bool = False


class InitCall(NamedTuple):
    """A method that set-up calls."""

    side: str
    name: str
    arguments: Mapping[str, Json]


class Assertion(NamedTuple):
    """A method that says whether the end is as wanted."""

    side: str
    name: str
    arguments: Mapping[str, Json]
    expected: bool = True


class GoldCall(NamedTuple):
    """A call of the reference solution."""

    id: str
    side: str
    name: str
    arguments: Mapping[str, Json]
    compared: tuple[str, ...] | None = None  # arguments that must agree; None: all that the policy's call has


class Start(NamedTuple):
    """What an episode begins with."""

    agent_data: Mapping[str, Json] | None = None  # merged into the database
    user_data: Mapping[str, Json] | None = None
    calls: tuple[InitCall, ...] = ()
    history: tuple[Message, ...] = ()


class Criteria(NamedTuple):
    """How an episode is scored; None and an empty tuple differ (scoring.py)."""

    actions: tuple[GoldCall, ...] | None = None
    assertions: tuple[Assertion, ...] | None = None
    communicate: tuple[str, ...] | None = None
    statements: tuple[str, ...] | None = None  # that a judge would decide
    basis: tuple[str, ...] = ("DB", "COMMUNICATE")


class TauTask(NamedTuple):
    id: str
    instructions: str | Mapping[str, Json]  # of the user
    persona: str | None = None
    ticket: str | None = None
    start: Start = Start()
    criteria: Criteria | None = None
    user_tools: tuple[str, ...] | None = None  # that the user has; None: all of the domain


# ------------------------------------------------------------------------------------------ reading
def task_from_json(entry: Json) -> TauTask:
    """A task of tasks.json. TaskError: a field is missing or of another kind."""
    reader = _Reader(entry.get("id") if isinstance(entry, Mapping) else entry)
    scenario = reader.object(reader.object(entry, "task"), "user_scenario")
    start, criteria = entry.get("initial_state") or {}, entry.get("evaluation_criteria")
    data = reader.object(start, "initial_state").get("initialization_data") or {}
    instructions = scenario.get("instructions")
    if not isinstance(instructions, str | Mapping):
        raise reader.error("user_scenario.instructions", "text or an object", instructions)
    names = entry.get("user_tools")
    return TauTask(
        reader.text(entry, "id"),
        instructions,
        scenario.get("persona"),
        entry.get("ticket"),
        Start(
            data.get("agent_data"),
            data.get("user_data"),
            tuple(InitCall(*reader.method(one)) for one in start.get("initialization_actions") or ()),
            tuple(message_from_json(one) for one in start.get("message_history") or ()),
        ),
        None if criteria is None else _criteria(reader, criteria),
        None if names is None else tuple(names),
    )


def _criteria(reader: "_Reader", entry: Json) -> Criteria:
    fields = reader.object(entry, "evaluation_criteria")
    lists = {
        name: reader.list(fields, name) for name in ("actions", "env_assertions", "communicate_info", "nl_assertions")
    }
    actions, assertions, communicate, statements = lists.values()
    basis = reader.list(fields, "reward_basis")
    return Criteria(
        None if actions is None else tuple(reader.gold(one) for one in actions),
        None
        if assertions is None
        else tuple(Assertion(*reader.method(one), one.get("assert_value", True)) for one in assertions),
        None if communicate is None else tuple(communicate),
        None if statements is None else tuple(statements),
        Criteria().basis if basis is None else tuple(basis),
    )


class _Reader:
    """Fields of one task, or its TaskError."""

    def __init__(self, task: Any):
        self.task = task

    def error(self, field: str, wanted: str, value: Any) -> TaskError:
        return TaskError(f"tau2 task {self.task!r}: field {field} must be {wanted}: got {value!r}")

    def object(self, entry: Json, field: str) -> Mapping[str, Json]:
        """The entry itself where it is the object that `field` names, else that field of it."""
        value = entry.get(field, entry) if isinstance(entry, Mapping) else entry
        if not isinstance(value, Mapping):
            raise self.error(field, "an object", value)
        return value

    def text(self, entry: Mapping[str, Json], field: str) -> str:
        if not isinstance(entry.get(field), str):
            raise self.error(field, "text", entry.get(field))
        return entry[field]

    def list(self, entry: Mapping[str, Json], field: str) -> Sequence[Json] | None:
        value = entry.get(field)
        if value is not None and not isinstance(value, list):
            raise self.error(field, "a list", value)
        return value

    def side(self, entry: Mapping[str, Json], field: str) -> str:
        value = entry.get(field, AGENT)
        if value not in SIDES:
            raise self.error(field, f"one of {', '.join(SIDES)}", value)
        return value

    def method(self, entry: Json) -> tuple[str, str, Mapping[str, Json]]:
        return self.side(entry, "env_type"), self.text(entry, "func_name"), entry.get("arguments") or {}

    def gold(self, entry: Json) -> GoldCall:
        compared = self.list(entry, "compare_args")
        return GoldCall(
            str(entry.get("action_id")),
            self.side(entry, "requestor"),
            self.text(entry, "name"),
            entry.get("arguments") or {},
            None if compared is None else tuple(compared),
        )


def message_from_json(entry: Json) -> Message:
    """A message of a history or of a recorded simulation."""
    role = entry.get("role") if isinstance(entry, Mapping) else None
    if role not in (AGENT, USER, TOOL):
        raise TaskError(f"a message must be an object with a role: got {entry!r}")
    calls = entry.get("tool_calls")
    return Message(
        role,
        entry.get("content"),
        None
        if calls is None
        else tuple(
            ToolCall(one.get("id", ""), one["name"], one.get("arguments") or {}, one.get("requestor", AGENT))
            for one in calls
        ),
        entry.get("id", ""),
        entry.get("requestor", AGENT),
        bool(entry.get("error", False)),
    )
