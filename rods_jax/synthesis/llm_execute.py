"""Stage II by a language model: arguments call by call, each executed, then each turn worded (RODS section 5).

The first error ends the attempt: what went wrong is for the next plan, and the patcher, to learn from.
"""

import copy
from collections.abc import Mapping, Sequence

from rods_jax import strict_json
from rods_jax.environments.protocol import Simulator
from rods_jax.synthesis.arguments import is_modest
from rods_jax.synthesis.ask import Ask, excerpt
from rods_jax.synthesis.attempt import Attempt
from rods_jax.synthesis.errors import (
    DECOMPOSE_FAILED,
    DUPLICATE_FUNC,
    FUNC_SAMPLE_FAILED,
    PARAM_GEN_FAILED,
    QUERY_GEN_FAILED,
    QUERY_VERIFY_FAILED,
    QUERY_VERIFY_NO_TAG,
    VM_EXEC_FAILED,
    Rejected,
)
from rods_jax.synthesis.execute import Argument, ExecutedCall, Execution, Reference
from rods_jax.synthesis.plan import Plan
from rods_jax.synthesis.structure import check_arguments, check_words, producers, told_values
from rods_jax.synthesis.told import check_query
from rods_jax.synthesis.values import can_flow, fields, has_type, is_atom, is_distinctive, parse_output
from rods_jax.types import Call, Json, ToolSpec, Turn

MAX_STATE_CHARACTERS = 8_000
MAX_OUTPUT_CHARACTERS = 2_000
MAX_WORDINGS = 3  # of each function


def execute_by_model(ask: Ask, attempt: Attempt, plan: Plan) -> Execution:
    """Runs the plan on one simulator.

    Rejected: the first 8 types of errors.py, with the function to blame, or "structure_lost".
    """
    domain, classes = attempt.domain, attempt.profile.classes
    simulator = attempt.simulator()
    turns: list[tuple[ExecutedCall, ...]] = []
    queries: list[str] = []
    for planned in plan.turns:
        turn: list[ExecutedCall] = []
        for call in planned:
            tool = domain.tools.get(call.tool)
            if tool is None or tool.class_name not in classes:
                raise Rejected(DECOMPOSE_FAILED, f"{call.tool} is no tool of {', '.join(classes)}", (call.tool,))
            turn.append(_run(ask, attempt, plan, simulator, tool, turns, turn, queries))
        queries.append(_word_turn(ask, attempt, plan, turns, turn, queries))
        turns.append(tuple(turn))
    return Execution(attempt.world, tuple(turns), tuple(queries))


def _run(
    ask: Ask,
    attempt: Attempt,
    plan: Plan,
    simulator: Simulator,
    tool: ToolSpec,
    turns: Sequence[tuple[ExecutedCall, ...]],
    turn: Sequence[ExecutedCall],
    queries: Sequence[str],
) -> ExecutedCall:
    done = [call for calls in turns for call in calls] + list(turn)
    data = {
        "narrative": plan.narrative,
        "plan": [[call.tool for call in calls] for calls in plan.turns],
        "turn": len(turns) + 1,
        "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
        "state": excerpt(simulator.state(), MAX_STATE_CHARACTERS),
        "calls": [call_data(call) for call in done],
        "take_from": list(producers(attempt, len(done))),
    }

    def read(parts: Mapping[str, str]) -> dict[str, Json]:
        arguments = read_arguments(parts["arguments"], tool)
        check_arguments(attempt, done, turn, Call(tool.name, arguments), queries)
        return arguments

    arguments = ask(attempt, "arguments", data, read, failed=PARAM_GEN_FAILED, functions=(tool.name,))
    found = {name: Argument(value, _origin(attempt, done, tool, name, value)) for name, value in arguments.items()}
    executed = ExecutedCall(tool.name, found, None)
    if executed.call in [call.call for call in turn]:
        raise Rejected(DUPLICATE_FUNC, f"{tool.name} twice in turn {len(turns)}", (tool.name,))
    before = copy.deepcopy(simulator.state())
    observation = simulator.call(executed.call)
    output = parse_output(observation.text)
    if not observation.ok or isinstance(output, Mapping) and "error" in output:
        raise Rejected(VM_EXEC_FAILED, f"{tool.name}{arguments}: {observation.text[:200]}", (tool.name,))
    news = output not in (None, "", "None", {}, []) and all(output != call.output for call in done)
    if not news and simulator.state() == before:
        raise Rejected(FUNC_SAMPLE_FAILED, f"{tool.name}: neither changes nor shows anything", (tool.name,))
    return ExecutedCall(tool.name, found, output)


def read_arguments(text: str, tool: ToolSpec) -> dict[str, Json]:
    """Arguments that fit a schema, in its order. ValueError: malformed, unknown, lacking, mistyped or large."""
    arguments = strict_json.loads(text)
    if not isinstance(arguments, dict):
        raise ValueError("the arguments must be one JSON object")
    properties = tool.parameters.get("properties", {})
    unknown = [name for name in arguments if name not in properties]
    lacking = [name for name in tool.parameters.get("required", ()) if name not in arguments]
    if unknown or lacking:
        raise ValueError(f"unknown arguments {unknown}, required ones that are lacking {lacking}")
    for name, value in arguments.items():
        if not has_type(value, properties[name]) or not is_modest(value):
            raise ValueError(f"{name} has the wrong type, or is longer than 200 characters or 5 items")
    return {name: arguments[name] for name in properties if name in arguments}


def _origin(
    attempt: Attempt, done: Sequence[ExecutedCall], tool: ToolSpec, parameter: str, value: Json
) -> Reference | None:
    """The first output that holds the value under a key that fits, or at all where that is no coincidence."""
    for producer, call in enumerate(done):
        same_class = attempt.domain.tools[call.tool].class_name == tool.class_name
        for key, returned in fields(call.output):
            same = returned == value and isinstance(returned, bool) == isinstance(value, bool)
            telling = is_atom(value) and is_distinctive(value)
            if same and (telling or can_flow(key, parameter, same_class=same_class)):
                return Reference(producer, key)
    return None


def _word_turn(
    ask: Ask,
    attempt: Attempt,
    plan: Plan,
    turns: Sequence[tuple[ExecutedCall, ...]],
    turn: Sequence[ExecutedCall],
    earlier: Sequence[str],
) -> str:
    """A request for the calls of one turn, written by one role and verified by another."""
    calls = [call_data(call) for call in turn]
    said = told_values(attempt, [call for calls in turns for call in calls], turn)
    before = [Turn(query, tuple(call.call for call in calls)) for query, calls in zip(earlier, turns, strict=True)]
    data = {
        "narrative": plan.narrative,
        "earlier_queries": list(earlier),
        "calls": calls,
        "wordings": wordings(attempt, [turn]),
        "must_name": list(said.named),
        "must_not_name": list(said.unnamed),
    }

    def read(parts: Mapping[str, str]) -> str:
        gold = tuple(call.call for call in turn)
        query = check_query(attempt.domain, parts["query"], gold)
        check_words(attempt, [*before, Turn(query, gold)])
        return query

    query = ask(attempt, "query", data, read, failed=QUERY_GEN_FAILED)
    data = {"earlier_queries": list(earlier), "query": query, "calls": calls}
    accepted, reasoning = ask(attempt, "verifier", data, _read_verification, failed=QUERY_VERIFY_NO_TAG)
    if not accepted:
        raise Rejected(QUERY_VERIFY_FAILED, f"turn {len(earlier)}: {reasoning[:300]}")
    return query


def _read_verification(parts: Mapping[str, str]) -> tuple[bool, str]:
    return read_verdict(parts["verdict"]), parts["reasoning"]


def read_verdict(text: str) -> bool:
    """Whether a verdict accepts. ValueError: it is neither of the two words."""
    if text not in ("accept", "reject"):
        raise ValueError(f"the verdict must be accept or reject, not {text[:40]!r}")
    return text == "accept"


def call_data(call: ExecutedCall) -> dict[str, Json]:
    """A call as the roles see it."""
    return {
        "function": call.tool,
        "arguments": {name: argument.value for name, argument in call.arguments.items()},
        "output": excerpt(call.output, MAX_OUTPUT_CHARACTERS),
    }


def wordings(attempt: Attempt, turns: Sequence[Sequence[ExecutedCall]]) -> dict[str, list[str]]:
    """How the domain's own phrases ask for the functions of these turns."""
    names = dict.fromkeys(call.tool for turn in turns for call in turn)
    return {name: list(attempt.domain.phrases.get(name, ())[:MAX_WORDINGS]) for name in names}
