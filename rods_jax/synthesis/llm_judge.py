"""Stage IV and the environment feedback by a language model (RODS Appendices F and G, C.2 and C.4 to C.6)."""

import json
from collections.abc import Mapping
from dataclasses import replace

from rods_jax import strict_json
from rods_jax.synthesis.ask import Ask, excerpt
from rods_jax.synthesis.attempt import Attempt, Rejection
from rods_jax.synthesis.errors import JUDGE, Rejected
from rods_jax.synthesis.llm_execute import MAX_OUTPUT_CHARACTERS, MAX_STATE_CHARACTERS, read_verdict
from rods_jax.synthesis.patch import Patch, split_path
from rods_jax.synthesis.structure import check_words
from rods_jax.synthesis.told import check_query
from rods_jax.synthesis.values import parse_output
from rods_jax.types import Json, Task


def judge(ask: Ask, attempt: Attempt, task: Task) -> str | None:
    """Why the task is refused, or None. Rejected("judge"): no verdict could be read, which is no acceptance."""
    data = {
        "category": task.category,
        "state": excerpt(attempt.simulator().state(), MAX_STATE_CHARACTERS),
        "turns": _transcript(attempt, task),
    }
    return ask(attempt, "judge", data, _read_judgement, failed=JUDGE)


def _read_judgement(parts: Mapping[str, str]) -> str | None:
    accepted, reason = read_verdict(parts["verdict"]), parts["reason"]
    if accepted == bool(reason):
        raise ValueError("a reason belongs to a rejection, and only to it")
    return reason[:1_000] or None


def refine(ask: Ask, attempt: Attempt, task: Task, reason: str) -> Task:
    """The task with one query reworded.

    Rejected: "judge" where the calls are at fault or no reply was usable, "structure_lost" where values flow otherwise.
    """
    turns = _transcript(attempt, task)

    def read_fault(parts: Mapping[str, str]) -> tuple[str, int]:
        fault, turn = parts["fault"], parts["turn"]
        if fault not in ("query", "calls"):
            raise ValueError(f"the fault must be query or calls, not {fault[:40]!r}")
        if turn not in map(str, range(1, len(turns) + 1)):
            raise ValueError(f"the turn must be a number from 1 to {len(turns)}")
        return fault, int(turn) - 1

    fault, index = ask(attempt, "classifier", {"reason": reason, "turns": turns}, read_fault, failed=JUDGE)
    if fault == "calls":
        raise Rejected(JUDGE, reason)
    old = task.turns[index]

    def read_query(parts: Mapping[str, str]) -> str:
        query = check_query(attempt.domain, parts["query"], old.gold)
        if query == old.user:
            raise ValueError("the query is the same as before")
        check_words(attempt, reworded(query).turns)
        return query

    def reworded(query: str) -> Task:
        return replace(task, turns=(*task.turns[:index], replace(old, user=query), *task.turns[index + 1 :]))

    data = {"reason": reason, "turn": index + 1, "turns": turns}
    return reworded(ask(attempt, "refiner", data, read_query, failed=JUDGE))


def _transcript(attempt: Attempt, task: Task) -> list[dict[str, Json]]:
    simulator = attempt.simulator()
    return [
        {
            "user": turn.user,
            "released": list(turn.released_tools),
            "calls": [
                {
                    "function": call.name,
                    "arguments": dict(call.arguments),
                    "output": excerpt(parse_output(simulator.call(call).text), MAX_OUTPUT_CHARACTERS),
                }
                for call in turn.gold
            ],
        }
        for turn in task.turns
    ]


def patch(ask: Ask, attempt: Attempt, rejection: Rejection) -> tuple[Patch, ...]:
    """Changes of the initial state that would let the failed call succeed; patch.py decides which are safe."""
    tools = [attempt.domain.tools[name] for name in rejection.functions if name in attempt.domain.tools]
    data = {
        "error": rejection.error,
        "detail": rejection.detail,
        "functions": [
            {
                "class": tool.class_name,
                "name": tool.name,
                "description": tool.description,
                "schema": tool.parameters,
            }
            for tool in tools
        ],
        "state": excerpt(attempt.simulator().state(), 2 * MAX_STATE_CHARACTERS),
        "patches": [earlier.patch for earlier in attempt.history if earlier.patch],
    }
    return ask(attempt, "patcher", data, _read_patches, failed=rejection.error)


def _read_patches(parts: Mapping[str, str]) -> tuple[Patch, ...]:
    patches = strict_json.loads(parts["patches"])
    if not isinstance(patches, list) or not all(isinstance(item, dict) for item in patches):
        raise ValueError("the patches must be a JSON list of objects")
    for item in patches:
        if set(item) != {"class", "path", "value"} or not all(isinstance(item[k], str) for k in ("class", "path")):
            raise ValueError(f"no patch: {json.dumps(item)[:200]}")
    return tuple(Patch(item["class"], split_path(item["path"]), item["value"]) for item in patches)
