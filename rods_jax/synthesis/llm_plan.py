"""Stage I by a language model: a story first, then the functions of every turn (RODS section 5, Appendix C.1).

The model does not choose the layout: the classes of every turn's calls, and the calls between which values flow, are
the seed's.
Left out on purpose: high-level functions. The map to the functions that they stand for was never published.
"""

from collections.abc import Mapping
from itertools import groupby

from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.ask import Ask, Unfit, excerpt
from rods_jax.synthesis.attempt import Attempt
from rods_jax.synthesis.errors import (
    ADVICE,
    FUNC_SAMPLE_FAILED,
    LAYOUT_TOO_LONG,
    NO_PATTERN,
    NO_PROMPTS,
    PIPELINE_EXCEPTION,
    STRUCTURE_LOST,
    Rejected,
)
from rods_jax.synthesis.plan import Plan, PlannedCall, broken_flow
from rods_jax.synthesis.profile import Profile
from rods_jax.synthesis.values import schema_fields
from rods_jax.types import Json

MAX_TURNS = 8  # of the seed, the recovery turn of a missing category among them
MAX_NARRATIVE_CHARACTERS = 1_000
MAX_STATE_CHARACTERS = 8_000

TurnLayout = tuple[tuple[str, ...], ...]  # the class of every call, in each turn that holds calls


def turn_layout(domain: Domain, profile: Profile) -> TurnLayout:
    """The seed's, whole.  Rejected: "layout_too_long", or "no_pattern" where its empty turns are not its category's."""
    if len(profile.call_classes) > MAX_TURNS:
        raise Rejected(LAYOUT_TOO_LONG, f"{len(profile.call_classes)} turns, more than {MAX_TURNS}")
    turns, withholds = tuple(filter(None, profile.call_classes)), bool(domain.strata[profile.category].withholds)
    empty = len(profile.call_classes) - len(turns)
    if not turns or empty != withholds or withholds and profile.withheld_turn is None:
        raise Rejected(NO_PATTERN, f"calls per turn {profile.calls_per_turn} in category {profile.category}")
    return turns


def plan(ask: Ask, attempt: Attempt) -> Plan:
    """A story and a new sequence of functions; blocked ones, and plans that failed before, are refused.

    Raises Rejected: "no_pattern" after 3 unusable replies; "structure_lost" if values cannot flow between the last
    reply's functions as in the seed; "no_prompts" for a class without tools; "func_sample_failed" if every tool of a
    class is blocked.
    """
    turns = turn_layout(attempt.domain, attempt.profile)
    tools = [tool for tool in attempt.domain.tools_of(attempt.profile.classes) if tool.name not in attempt.blocked]
    # A function comes twice in a turn only where the seed's turn calls one twice.
    seed_turns = [[call.name for call in turn.gold] for turn in attempt.seed.turns] if attempt.seed else []
    repeats = [len(names) > len(set(names)) for names in filter(None, seed_turns)] or [False] * len(turns)
    for turn, repeated in zip(turns, repeats, strict=True):
        for class_name in dict.fromkeys(turn):
            if not attempt.domain.tools_of((class_name,)):
                raise Rejected(NO_PROMPTS, f"class {class_name} has no tools")
            needed = 1 if repeated else turn.count(class_name)
            if sum(tool.class_name == class_name for tool in tools) < needed:
                raise Rejected(FUNC_SAMPLE_FAILED, f"class {class_name} has too few functions left")
    class_of = {tool.name: tool.class_name for tool in tools}
    profile, withheld = attempt.profile, attempt.profile.withheld_turn
    pairs = tuple(dict.fromkeys((edge.key, edge.parameter) for edge in profile.edges if edge.key))
    failed_plans = [rejection.plan for rejection in attempt.history]
    data = {
        "category": profile.category,
        "withheld": None if withheld is None else withheld + 1,
        "layout": [[{"class": class_name, "functions": count} for class_name, count in _runs(turn)] for turn in turns],
        "repeats": repeats,
        "flow": [
            {"from": edge.producer, "to": edge.consumer, "returned": edge.key, "taken_as": edge.parameter}
            for edge in sorted(profile.edges)
        ],
        "classes": list(profile.classes),
        "functions": [
            {
                "class": tool.class_name,
                "name": tool.name,
                "description": tool.description,
                "parameters": list(tool.parameters.get("properties", ())),
                "required": list(tool.parameters.get("required", ())),
                "returns": list(dict.fromkeys(schema_fields(tool.response))),
            }
            for tool in tools
        ],
        "state": excerpt(attempt.simulator().state(), MAX_STATE_CHARACTERS),
        "seed_queries": [turn.user for turn in attempt.seed.turns] if attempt.seed else [],
        "seed_calls": seed_turns,
        "failures": [
            {
                "attempt": rejection.attempt + 1,
                "error": rejection.error,
                "detail": rejection.detail,
                "plan": rejection.plan,
                "advice": ADVICE.get(rejection.error, ADVICE[PIPELINE_EXCEPTION]),
            }
            for rejection in attempt.history
        ],
        "blocked": attempt.blocked,
        "patches": [rejection.patch for rejection in attempt.history if rejection.patch],
    }

    def read(parts: Mapping[str, str]) -> Plan:
        if not 0 < len(parts["narrative"]) <= MAX_NARRATIVE_CHARACTERS:
            raise ValueError(f"the narrative must have 1 to {MAX_NARRATIVE_CHARACTERS} characters")
        chosen = tuple(
            _read_turn(parts[f"turn_{number}"], turn, class_of, repeats[number - 1])
            for number, turn in enumerate(turns, 1)
        )
        if attempt.domain.strata[profile.category].withholds == "function":
            assert withheld is not None  # as `turn_layout` has checked
            if not set(chosen[withheld]).difference(*chosen[:withheld]):
                raise ValueError(f"turn {withheld + 1} must use a function that no earlier turn uses")
        if chosen in failed_plans:
            raise ValueError("this plan has failed before; make a completely different one")
        names = [name for turn in chosen for name in turn]
        problem = broken_flow(attempt.domain, names, profile.links, pairs)
        if problem is not None:
            raise Unfit(STRUCTURE_LOST, f"{problem}; values must flow between the calls as flow says")
        planned = tuple(tuple(map(PlannedCall, names)) for names in chosen)
        return Plan(planned, profile.links, pairs, parts["narrative"])

    return ask(attempt, "planner", data, read, failed=NO_PATTERN, count=len(turns))


def _runs(turn: tuple[str, ...]) -> list[tuple[str, int]]:
    """(class, number of calls in a row) through a turn."""
    return [(class_name, len(list(calls))) for class_name, calls in groupby(turn)]


def _read_turn(text: str, turn: tuple[str, ...], class_of: Mapping[str, Json], repeats: bool) -> tuple[str, ...]:
    """The function names of "Class: f1, f2", or of "A: f1; B: f2" where a turn calls several classes."""
    chosen: list[str] = []
    parts, runs = text.split(";"), _runs(turn)
    wanted = "; ".join(f"{class_name}: and {count} function names" for class_name, count in runs)
    for part, (class_name, count) in zip(parts, runs, strict=False):
        named, colon, names = part.partition(":")
        own = [name.strip() for name in names.split(",")]
        if not colon or named.strip() != class_name or len(own) != count or len(parts) != len(runs):
            raise ValueError(f"a turn must hold {wanted}, not {text[:200]!r}")
        for name in own:
            if class_of.get(name) != class_name:
                raise ValueError(f"{name[:100]!r} is no function of {class_name}, or blocked")
        chosen += own
    if not repeats and len(set(chosen)) < len(chosen):
        raise ValueError(f"a function comes twice in {text[:200]!r}")
    return tuple(chosen)
