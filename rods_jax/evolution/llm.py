"""The roles by language models; each may have a backend of its own.

    roles=llm_roles, backends=lambda: dict.fromkeys(BACKENDS, http_generate(Endpoint(url="http://localhost:8000/v1", model="...")))

A model's text is only ever read, as tags and JSON, by synthesis/ask.py.  A reply that cannot be used is asked for again,
three times in all; then the attempt is a counted rejection, as it is where a server does not answer.
"""

import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from importlib import resources
from typing import NamedTuple

from rods_jax import strict_json
from rods_jax.chat import Generate
from rods_jax.dialogue import Record, converse
from rods_jax.environments.checker import BUILT_IN
from rods_jax.environments.conversation import AGENT, USER
from rods_jax.evolution.draft import UNREADABLE, Draft, gold_of, read_draft
from rods_jax.evolution.gate import run
from rods_jax.evolution.ground import Act, Ground
from rods_jax.evolution.llm_trial import told, user
from rods_jax.evolution.pairs import MAX_DEPTH, MAX_LINE, MAX_LINES, PlanPair, Slice
from rods_jax.evolution.roles import TASK, TRAJECTORY, Complaints, Roles, Verdict, counted
from rods_jax.records import RecordError, decode, encode
from rods_jax.synthesis.ask import Ask, Prompt, asker, excerpt, load_prompts
from rods_jax.synthesis.attempt import Exchange
from rods_jax.synthesis.errors import Rejected
from rods_jax.synthesis.llm_execute import MAX_OUTPUT_CHARACTERS, MAX_STATE_CHARACTERS, read_verdict
from rods_jax.types import Json, Task, ToolSpec, World

ASKED = ("planner", "writer", "verifier", "judge", "reflector")  # by a prompt file each
BACKENDS = (*ASKED, "assistant", "user")
MAX_LOOKS, MAX_CALLS = 3, 8  # rounds of looking at the live tools; calls of a round


class _Asking(NamedTuple):
    """Tokens are counted by the ledger, so nothing is logged here."""

    number: int = 0
    log: Callable[[Exchange], None] = lambda exchange: None


def llm_roles(ground: Ground, backends: Mapping[str, Generate], prompts: Mapping[str, Prompt] | None = None) -> Roles:
    """Every role by a language model; the keys of `backends` are BACKENDS.

    ValueError: a role has no backend, or a prompt file lacks or is broken.
    """
    if missing := [role for role in BACKENDS if role not in backends]:
        raise ValueError(f"no backend for the roles {', '.join(missing)}")
    ask = partial(asker(backends, prompts or _prompts()), _Asking())
    return Roles(
        plan=partial(_plan, ask, ground),
        write=partial(_write, ask, ground),
        verify=partial(_verify, ask, ground),
        assistant=lambda pair, task: converse(told(backends["assistant"], pair.trial)),
        user=lambda pair, task: user(backends["user"], ground, pair),
        judge=partial(_judge, ask, ground),
        reflect=partial(_reflect, ask),
    )


@cache
def _prompts() -> Mapping[str, Prompt]:
    return load_prompts(resources.files("rods_jax.evolution") / "prompts", ASKED)


# ------------------------------------------------------------------------------------------ planner
def _plan(
    ask: Ask, ground: Ground, name: str, earlier: Sequence[PlanPair], refusals: Sequence[str], rng: random.Random
) -> PlanPair:
    def read(parts: Mapping[str, str]) -> PlanPair:
        numbers = [*map(_number, lines_in(parts["clauses"]))] if ground.clauses else []  # there may be no policy
        if not all(0 < number <= len(ground.clauses) for number in numbers):
            raise ValueError(f"clauses are numbers from 1 to {len(ground.clauses)}")
        depth = tuple(map(_number, lines_in(parts["depth"])))
        clauses = tuple(ground.clauses[number - 1] for number in numbers)
        part = Slice(lines_in(parts["tools"]), clauses, parts["style"], depth)
        return _with_plans(PlanPair(name, part, (), (), ()), parts)

    data = {
        "pair": name,
        "tools": _tools(ground),
        "clauses": [f"{number}. {clause}" for number, clause in enumerate(ground.clauses, 1)],
        "styles": [*ground.styles],
        "categories": [*ground.domain.strata],
        "max_calls": MAX_DEPTH,
        "earlier": [encode(pair.slice) for pair in earlier],
        "refusals": [*refusals],
    }
    return ask("planner", data, read, failed=UNREADABLE)


# ------------------------------------------------------------------------------------------- writer
def _write(ask: Ask, ground: Ground, pair: PlanPair, base: World, rng: random.Random) -> Draft:
    """Lets the writer look at live tools of the unbroken world, a copy of its own, then takes its draft."""
    live = ground.live(base)
    looks: list[Json] = []
    for left in range(MAX_LOOKS, -1, -1):

        def read(parts: Mapping[str, str]) -> Draft | tuple[Act, ...]:
            if not parts["task"]:
                return read_calls(parts["calls"], left)
            return read_draft(parts["task"])

        data = {
            "plan": [*pair.synthesis],
            "slice": encode(pair.slice),
            "clauses": [*ground.clauses],
            "categories": [*ground.domain.strata],
            "tools": _tools(ground, with_schemas=True),
            "predicates": {
                name: str(inspect.signature(one)) for name, one in {**BUILT_IN, **ground.predicates}.items()
            },
            "state": excerpt(live.state(), 2 * MAX_STATE_CHARACTERS),
            "options": dict(base.options),
            "looks": [*looks],
            "looks_left": left,
        }
        found = ask("writer", data, read, failed=UNREADABLE)
        if isinstance(found, Draft):
            return found
        for act in found:
            output = excerpt(live.call(act.who, act.call).text, MAX_OUTPUT_CHARACTERS)
            looks.append({"call": encode(act), "output": output})
    raise Rejected(UNREADABLE, "the writer looked, and wrote nothing")


def read_calls(text: str, looks_left: int) -> tuple[Act, ...]:
    """The calls of a round of looking. ValueError: there are none, too many, or none is left."""
    if not looks_left:
        raise ValueError("no look is left: write the task")
    try:
        calls = decode(tuple[Act, ...], strict_json.loads(text or "[]", "calls"), "calls")
    except RecordError as error:
        raise ValueError(str(error)) from None
    if not 0 < len(calls) <= MAX_CALLS:
        raise ValueError(f"write the task, or 1 to {MAX_CALLS} calls")
    if any(act.who not in (AGENT, USER) for act in calls):
        raise ValueError(f"who calls is {AGENT} or {USER}")
    return calls


# ---------------------------------------------------------------------------------------- verifiers
def _verify(ask: Ask, ground: Ground, pair: PlanPair, task: Task) -> Verdict:
    def read(parts: Mapping[str, str]) -> Verdict:
        return _verdict(read_verdict(parts["verdict"]), parts["reason"])

    about = {"rubric": [*pair.rubric], "policy": ground.policy, "slice": encode(pair.slice)}
    return ask("verifier", about | {"task": task_data(ground, task)}, read, failed=UNREADABLE)


def _judge(ask: Ask, ground: Ground, pair: PlanPair, task: Task, record: Record) -> Verdict:
    def read(parts: Mapping[str, str]) -> Verdict:
        accepted, fault = read_verdict(parts["verdict"]), parts["fault"]
        if fault not in (("",) if accepted else (TASK, TRAJECTORY)):
            raise ValueError("the fault is empty where you accept, else task or trajectory")
        return replace(_verdict(accepted, parts["reason"]), fault=fault)

    dialogue = [
        {"said": move.text, "calls": [encode(call) for call in move.calls], "came_back": [*move.observations]}
        for move in record.moves
    ]
    about = {"rubric": [*pair.rubric], "policy": ground.policy, "task": task_data(ground, task)}
    return ask("judge", about | {"dialogue": dialogue, "ended": record.ended}, read, failed=UNREADABLE)


def _verdict(accepted: bool, reason: str) -> Verdict:
    if accepted == bool(reason):
        raise ValueError("a reason belongs to a rejection, and only to it")
    return Verdict(accepted, reason[:MAX_LINE])


def task_data(ground: Ground, task: Task) -> dict[str, Json]:
    """A task as verifiers see it."""
    gold, options = gold_of(task), task.world.options
    played = run(ground, task, gold)
    return {
        "category": task.category,
        "words": task.turns[0].user,
        "facts": options["facts"],
        "style": options["style"],
        "state": excerpt(played.states[0], 2 * MAX_STATE_CHARACTERS),
        "gold": [
            {"who": act.who, "call": encode(act.call), "output": excerpt(output, MAX_OUTPUT_CHARACTERS)}
            for act, output in zip(gold, played.outputs)
        ],
        "checker": options["checker"],
    }


# --------------------------------------------------------------------------------------- reflection
def _reflect(ask: Ask, pair: PlanPair, complaints: Complaints, worse: Sequence[str]) -> PlanPair:
    def read(parts: Mapping[str, str]) -> PlanPair:
        return _with_plans(pair, parts)

    data = {
        "slice": encode(pair.slice),
        "synthesis": [*pair.synthesis],
        "trial": [*pair.trial],
        "rubric": [*pair.rubric],
        "task_faults": counted(complaints.task),
        "trajectory_faults": counted(complaints.trajectory),
        "too_harsh": counted(complaints.harsh),
        "too_lax": counted(complaints.lax),
        "worse": [*worse],
    }
    return ask("reflector", data, read, failed=UNREADABLE)


# -------------------------------------------------------------------------------------------- texts
def _with_plans(pair: PlanPair, parts: Mapping[str, str]) -> PlanPair:
    synthesis, trial, rubric = (lines_in(parts[name]) for name in ("synthesis", "trial", "rubric"))
    return replace(pair, synthesis=synthesis, trial=trial, rubric=rubric)


def lines_in(text: str) -> tuple[str, ...]:
    """The lines of a part, without marks of a list. ValueError: there are none, or too many or too long ones."""
    lines = tuple(line.strip().removeprefix("- ").strip() for line in text.splitlines() if line.strip())
    if not 0 < len(lines) <= MAX_LINES or any(len(line) > MAX_LINE for line in lines):
        raise ValueError(f"each part has 1 to {MAX_LINES} lines of at most {MAX_LINE} characters")
    return lines


def _number(line: str) -> int:
    if not line.isascii() or not line.isdecimal() or len(line) > 4:
        raise ValueError(f"{line[:40]!r} is no number")
    return int(line)


def _tools(ground: Ground, with_schemas: bool = False) -> list[Json]:
    def data(who: str, tool: ToolSpec) -> dict[str, Json]:
        told_of = {"who": who, "name": tool.name, "description": tool.description}
        return told_of | ({"parameters": dict(tool.parameters)} if with_schemas else {})

    return [data(who, tool) for who in (AGENT, USER) for tool in ground.tools_of(who)]
