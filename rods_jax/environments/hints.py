"""Says what was wrong with a call that failed: the augmented environment of EnvTuning, around any domain.

    HOUSE = explained(toolkit.domain("house", {"Door": Door}))        # a domain that can explain
    StageConfig(..., explain_failures=True, warn_of_calls=True)       # the two switches, stage by stage

A hint follows the text of a failure and changes nothing else: state, success, codes and scores are those of the raw
text.  It names the cause, the rule, and the tool that yields what is missing; never the value that solves the task.
A tool that is not offered in this turn is never named.  Source: Environment Tuning, arXiv 2510.10197.

Left out on purpose: hints that a language model writes, and hints that fade within a stage.
"""

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from rods_jax.environments.protocol import Domain, FailedCall
from rods_jax.environments.schemas import is_a, is_whole
from rods_jax.types import Json, Observation, ToolSpec

MAX_HINT = 300  # characters
MAX_VALUES = 12  # of an enumeration that are listed
WARNING = (
    "(Before you go on: in the turn before, no tool call was asked for, because a tool or a detail was missing. "
    "You called a tool all the same, so that turn counts as failed. Say what is missing instead.) "
)
_SECRET = re.compile(r"password|token|secret|key|cvv|card", re.IGNORECASE)
_LOCKED = re.compile(r"log(ged)? ?in|authenticat|token", re.IGNORECASE)
_ABSENT = re.compile(r"not found|unknown|invalid|no such|does not exist|not registered", re.IGNORECASE)
_LOGIN = re.compile(r"login|log_in|authenticate", re.IGNORECASE)
_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")  # a value has the first that it is


class Told(NamedTuple):
    """What an author knows of one failure; {name} stands for the argument of that name."""

    pattern: str  # searched in the text of the failure
    hint: str
    tools: tuple[str, ...] = ()  # that the hint names: all must be offered, or it is not given


Rule = Callable[[FailedCall, ToolSpec], str]  # -> the hint, or nothing


def explained(domain: Domain, told: Mapping[str, Sequence[Told]] | None = None) -> Domain:
    """The domain with an `explain` that knows its schemas, and what `told` says of each tool's failures."""
    told = told or {}

    def author(failed: FailedCall, tool: ToolSpec) -> str:
        offered = {one.name for one in failed.offered}
        for known in told.get(tool.name, ()):
            if re.search(known.pattern, failed.text) and offered.issuperset(known.tools):
                return known.hint.format_map(_shown_arguments(failed))
        return ""

    rules: tuple[Rule, ...] = (_arguments, _types, _enumeration, author, _locked, _absent, _repeated)

    def explain(failed: FailedCall) -> str:
        tool = next((one for one in failed.offered if one.name == failed.call.name), None)
        if tool is None:
            return _unknown(failed)[:MAX_HINT]
        return next((hint for rule in rules if (hint := rule(failed, tool))), "")[:MAX_HINT]

    return domain._replace(explain=explain)


def has_failed(observation: Observation) -> bool:
    """An exception, or a result that reports an error, as BFCL's tools do."""
    return not observation.ok or bool(isinstance(found := _parsed(observation.text), dict) and found.get("error"))


def with_hint(text: str, hint: str) -> str:
    """The original text first; a result that is an object stays one."""
    found = _parsed(text)
    return json.dumps(found | {"hint": hint}, ensure_ascii=False) if isinstance(found, dict) else f"{text}\n{hint}"


# ------------------------------------------------------------------------------ rules, in their order
def _unknown(failed: FailedCall) -> str:
    names = [tool.name for tool in failed.offered]
    near = difflib.get_close_matches(failed.call.name, names, n=3)
    if not near:
        return "No such tool is offered now. Use one of the tools that were described, or say what is missing."
    return f"No such tool is offered now. Offered tools with a name like it: {', '.join(near)}."


def _arguments(failed: FailedCall, tool: ToolSpec) -> str:
    known = tool.parameters.get("properties", {})
    missing = [name for name in tool.parameters.get("required", ()) if name not in failed.call.arguments]
    unexpected = [name for name in failed.call.arguments if name not in known]
    if not (missing or unexpected):
        return ""
    parts = [f"needs {name} ({_type(known.get(name, {}))})" for name in missing]
    parts += [f"has no parameter {name}" for name in unexpected]
    return f"{tool.name} {' and '.join(parts)}; its parameters are {', '.join(known) or 'none'}."


def _types(failed: FailedCall, tool: ToolSpec) -> str:
    for name, schema, value in _given(failed, tool):
        kind = _type(schema)
        if kind in _TYPES and not is_a(value, kind) and not (kind == "integer" and is_whole(value)):
            found = next((one for one in _TYPES if is_a(value, one)), "no JSON value")
            return f"{tool.name} takes {name} as {kind}, and got {found}."
    return ""


def _enumeration(failed: FailedCall, tool: ToolSpec) -> str:
    for name, schema, value in _given(failed, tool):
        allowed = schema.get("enum")
        if allowed and value not in allowed:
            listed = ", ".join(map(str, allowed[:MAX_VALUES]))
            more = f" and {len(allowed) - MAX_VALUES} more" if len(allowed) > MAX_VALUES else ""
            return f"{tool.name} takes {name} as one of: {listed}{more}."
    return ""


def _locked(failed: FailedCall, tool: ToolSpec) -> str:
    if not _LOCKED.search(failed.text):
        return ""
    logins = [one.name for one in failed.offered if one.class_name == tool.class_name and _LOGIN.search(one.name)]
    logins = [name for name in logins if name != tool.name and not re.search("status|get_", name)]
    return f"{tool.name} works after a successful {' or '.join(logins)}." if logins else ""


def _absent(failed: FailedCall, tool: ToolSpec) -> str:
    """Names tools of the same class that return what the failed argument asks for."""
    if not _ABSENT.search(failed.text):
        return ""
    for name, _, value in _given(failed, tool):
        others = (one for one in failed.offered if one.class_name == tool.class_name and one.name != tool.name)
        sources = [one.name for one in others if _yields(one, name)]
        if sources and str(value) in failed.text:
            return f"{tool.name} finds nothing under this {name}; {' and '.join(sources[:2])} return valid ones."
    return ""


def _repeated(failed: FailedCall, tool: ToolSpec) -> str:
    if not failed.repeated:
        return ""
    return "The same call failed before in this turn, and it will fail again unless something else is changed first."


# -------------------------------------------------------------------------------------------- parts
def _given(failed: FailedCall, tool: ToolSpec) -> list[tuple[str, Mapping[str, Json], Json]]:
    known = tool.parameters.get("properties", {})
    return [(name, known[name], value) for name, value in failed.call.arguments.items() if name in known]


def _yields(tool: ToolSpec, name: str) -> bool:
    returned = tool.response.get("properties", {})
    return name in returned or f"{name}s" in returned or f"{name}_list" in returned


def _shown_arguments(failed: FailedCall) -> Mapping[str, str]:
    class Shown(dict):
        def __missing__(self, name: str) -> str:
            return name

    values = {n: n if _SECRET.search(n) else repr(v)[:60] for n, v in failed.call.arguments.items()}
    return Shown(values)


def _type(schema: Mapping[str, Json]) -> str:
    return str(schema.get("type", "any"))


def _parsed(text: str) -> Json:
    if not text.startswith("{"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
