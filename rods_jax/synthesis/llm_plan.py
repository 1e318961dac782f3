"""Stage I by a language model: a story first, then the functions of every turn (RODS section 5, Appendix C.1).

The layout, which is the seed's in the planner's limits, is not the model's to choose: it must be met exactly.
Left out on purpose: high-level functions. The map to the functions that they stand for was never published.
"""

from collections.abc import Mapping
from dataclasses import replace

from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.ask import Ask, excerpt
from rods_jax.synthesis.attempt import Attempt
from rods_jax.synthesis.critique import Gate
from rods_jax.synthesis.errors import (
    ADVICE,
    FUNC_SAMPLE_FAILED,
    NO_PATTERN,
    NO_PROMPTS,
    PIPELINE_EXCEPTION,
    Rejected,
)
from rods_jax.synthesis.plan import Plan, PlannedCall, sample_plan
from rods_jax.synthesis.profile import Profile
from rods_jax.types import Json, Task

MIN_TURNS, MAX_TURNS = 2, 5  # the recovery turn of a missing category is one of them
MAX_FUNCTIONS = 3  # a turn
MAX_NARRATIVE_CHARACTERS = 1_000
MAX_STATE_CHARACTERS = 8_000

Layout = tuple[tuple[str, int], ...]  # (class, number of functions) of each turn that holds calls


def layout(profile: Profile) -> Layout:
    """The seed's: 2 to 5 turns, 1 to 3 functions of one class a turn. Rejected("no_pattern"): it has no call."""
    turns = [(classes[0], min(len(classes), MAX_FUNCTIONS)) for classes in profile.call_classes if classes]
    if not turns or (_withholds(profile) and profile.withheld_turn is None):
        raise Rejected(NO_PATTERN, f"calls per turn {profile.calls_per_turn} in category {profile.category}")
    turns *= MIN_TURNS if len(turns) < MIN_TURNS else 1
    return tuple(turns[: MAX_TURNS - _withholds(profile)])


def withheld_turn(profile: Profile) -> int | None:
    """The turn of the layout whose tool or value is withheld."""
    return min(profile.withheld_turn, len(layout(profile)) - 1) if _withholds(profile) else None


def _withholds(profile: Profile) -> bool:
    return profile.category.startswith("missing")


def has_layout(profile: Profile) -> Gate:
    """Gate: category, and in each turn the class and the number of calls, are those of the profile's layout."""
    expected = [(name,) * count for name, count in layout(profile)]

    def same_layout(domain: Domain, task: Task) -> str | None:
        turns = [tuple(domain.tools[call.name].class_name for call in turn.gold) for turn in task.turns]
        empty = turns.count(())
        if (
            task.category != profile.category
            or empty != _withholds(profile)
            or list(filter(None, turns)) != expected
        ):
            return f"turns {turns} in category {task.category} instead of {expected} in {profile.category}"
        return None

    return same_layout


def plan(ask: Ask, attempt: Attempt) -> Plan:
    """A story and a new sequence of functions; blocked ones, and plans that failed before, are refused.

    Raises Rejected: "no_pattern" after 3 unusable replies, "no_prompts" for a class without tools,
    "func_sample_failed" where the block list leaves a turn too few functions.
    """
    turns = layout(attempt.profile)
    tools = [tool for tool in attempt.domain.tools_of(attempt.profile.classes) if tool.name not in attempt.blocked]
    for class_name, count in turns:
        if not attempt.domain.tools_of((class_name,)):
            raise Rejected(NO_PROMPTS, f"class {class_name} has no tools")
        if sum(tool.class_name == class_name for tool in tools) < count:
            raise Rejected(FUNC_SAMPLE_FAILED, f"class {class_name} has too few functions left")
    class_of = {tool.name: tool.class_name for tool in tools}
    withheld = withheld_turn(attempt.profile)
    failed_plans = [rejection.plan for rejection in attempt.history]
    data = {
        "category": attempt.profile.category,
        "withheld": None if withheld is None else withheld + 1,
        "layout": [{"class": class_name, "functions": count} for class_name, count in turns],
        "flow": sorted(attempt.profile.links),
        "classes": list(attempt.profile.classes),
        "functions": [
            {
                "class": tool.class_name,
                "name": tool.name,
                "description": tool.description,
                "required": list(tool.parameters.get("required", ())),
            }
            for tool in tools
        ],
        "state": excerpt(attempt.simulator().state(), MAX_STATE_CHARACTERS),
        "seed_queries": [turn.user for turn in attempt.seed.turns] if attempt.seed else [],
        "seed_calls": [[call.name for call in turn.gold] for turn in attempt.seed.turns] if attempt.seed else [],
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
            _read_turn(parts[f"turn_{number}"], class_name, count, class_of)
            for number, (class_name, count) in enumerate(turns, 1)
        )
        if attempt.profile.category == "missing_function" and not set(chosen[withheld]).difference(
            *chosen[:withheld]
        ):
            raise ValueError(f"turn {withheld + 1} must use a function that no earlier turn uses")
        if chosen in failed_plans:
            raise ValueError("this plan has failed before; make a completely different one")
        return Plan(tuple(tuple(map(PlannedCall, names)) for names in chosen), narrative=parts["narrative"])

    return ask(attempt, "planner", data, read, failed=NO_PATTERN, count=len(turns))


def draw_plan(attempt: Attempt) -> Plan:
    """Functions in the same layout, drawn by the rules, and no story (ablation: no narrative planning).

    Rejected("no_pattern"): none fit.
    """
    call_classes = [(class_name,) * count for class_name, count in layout(attempt.profile)]
    if _withholds(attempt.profile):
        call_classes.insert(withheld_turn(attempt.profile), ())
    kept = tuple(call_classes) == attempt.profile.call_classes
    edges = attempt.profile.edges if kept else ()  # where the layout cuts calls, the edges count others
    profile = replace(attempt.profile, call_classes=tuple(call_classes), edges=edges)
    return sample_plan(attempt.domain, profile, attempt.rng, attempt.tool_weights, attempt.blocked)


def _read_turn(text: str, class_name: str, count: int, class_of: Mapping[str, Json]) -> tuple[str, ...]:
    """The function names of "Class: f1, f2"."""
    named, colon, names = text.partition(":")
    chosen = tuple(name.strip() for name in names.split(","))
    if not colon or named.strip() != class_name or len(chosen) != count:
        raise ValueError(f"a turn must hold {class_name}: and {count} function names, not {text[:200]!r}")
    for name in chosen:
        if class_of.get(name) != class_name:
            raise ValueError(f"{name[:100]!r} is no function of {class_name}, or blocked")
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"a function comes twice in {text[:200]!r}")
    return chosen
