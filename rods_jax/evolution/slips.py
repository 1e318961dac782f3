"""An imperfect writer for the help desk: it slips at set rates, and what is wrong with its tasks is known.

Each kind of slip becomes rare where the plan's text holds an instruction against it.  The writer reads the text as a model would: by
its words, in `HEEDS`.
"""

import functools
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from rods_jax.environments.checker import Assertion, Checker, Goal, checker_of
from rods_jax.environments.conversation import AGENT
from rods_jax.environments.helpdesk.faults import FAULTS, Composition, compositions, gold, is_held_out
from rods_jax.environments.helpdesk.home import works
from rods_jax.environments.helpdesk.phrases import complaint
from rods_jax.environments.helpdesk.world import account_of, knows_account
from rods_jax.evolution.draft import Draft
from rods_jax.evolution.ground import Act, Ground
from rods_jax.evolution.pairs import PlanPair, Slice
from rods_jax.synthesis.patch import Patch
from rods_jax.types import Call, Task, World

# Slips of the writer.  The gate finds the first four by itself; the others are for verifiers and trials.
WRONG_GOAL, UNSOLVABLE, NO_OP, DUPLICATE = "wrong_goal", "unsolvable", "no_op", "duplicate"
MISSING_FACT, WRONG_AIM, LEAKY, MISFIT = "missing_fact", "wrong_aim", "leaky", "misfit"
TASTE = "taste"  # not a slip: what a harsh verifier dislikes
MISREPORTS, NEGLECTS = "misreports", "neglects"  # of the trial's user, of its assistant

COMPLAINTS: Mapping[str, str] = {  # what a verifier says
    MISSING_FACT: "the user cannot tell a fact that the calls need",
    WRONG_AIM: "the goal asks for what the user does not want",
    LEAKY: "the user's words give the solution away",
    MISFIT: "the user's words do not fit the state of the world",
    TASTE: "the task is too short",
    MISREPORTS: "the user reported something else than its tool had shown",
    NEGLECTS: "the assistant left something unmended that it could have seen",
}
HEEDS: Mapping[str, re.Pattern[str]] = {  # how an instruction is understood
    kind: re.compile(pattern, re.IGNORECASE)
    for kind, pattern in (
        (WRONG_GOAL, r"refuses the gold"),
        (UNSOLVABLE, r"gold call .*fails"),
        (NO_OP, r"nothing was done"),
        (DUPLICATE, r"same content"),
        (MISSING_FACT, r"cannot tell a fact|facts? .*needs?"),
        (WRONG_AIM, r"does not want|serves the user fails"),
        (LEAKY, r"gives? the solution away"),
        (MISFIT, r"words do not fit"),
        (TASTE, r"too short"),
        (MISREPORTS, r"reported something else"),
        (NEGLECTS, r"left something unmended"),
    )
}
CHOICE = 40  # compositions that it chooses among
LEAK = "It must be the {}."


class Rates(NamedTuple):
    """How imperfect the roles are: probabilities."""

    slips: Mapping[str, float] = {  # of a draft
        WRONG_GOAL: 0.09, UNSOLVABLE: 0.09, NO_OP: 0.09, DUPLICATE: 0.08,
        MISSING_FACT: 0.09, WRONG_AIM: 0.09, LEAKY: 0.11, MISFIT: 0.11,
    }  # fmt: skip
    heeded: float = 0.06  # a slip's rate is multiplied by it where the plan holds an instruction
    overlooked: float = 0.6  # a defect that the rubric does not name
    seen: float = 0.95  # a defect that it names
    taste: float = 0.2  # a refusal for taste, where the rubric does not forbid it
    neglects: float = 0.12  # of the trial's assistant, at a look or at a fault
    misreports: float = 0.04  # of its user, at a look


def heeds(lines: Sequence[str], kind: str) -> bool:
    """Whether the lines speak of it."""
    return any(HEEDS[kind].search(line) for line in lines)


# ------------------------------------------------------------------------------------------- writer
def write(rates: Rates, pair: PlanPair, base: World, rng: random.Random) -> Draft:
    """A composition of the slice, with at most one slip.  Told that tasks are too short, it writes longer ones."""
    longer = 2 if heeds(pair.synthesis, TASTE) else 0
    kind = _slip(rates, pair, longer, rng)
    if kind == DUPLICATE:  # what it always thinks of first
        rng = random.Random(0)
    composition = _composition(pair.slice, longer, rng)
    draft = _sound(pair, composition, base, rng)
    return _slipped(kind, draft, composition, base.options["account"], rng)


def _slip(rates: Rates, pair: PlanPair, longer: int, rng: random.Random) -> str:
    """Which slip it makes, or none; longer tasks have more of them."""
    draw = rng.random()
    for kind, rate in rates.slips.items():
        draw -= rate * (rates.heeded if heeds(pair.synthesis, kind) else 1.0) * (1 + 0.3 * longer)
        if draw < 0:
            return kind
    return ""


def _composition(part: Slice, longer: int, rng: random.Random) -> Composition:
    """One whose gold uses many of the slice's tools and has about as many calls as it says."""

    def fit(names: frozenset[str], calls: int) -> int:
        return 2 * len(names & {*part.tools}) - min(abs(calls - depth - longer) for depth in part.depth)

    fits = {one: fit(*used) for one, used in _known().items()}
    best = sorted(fits.values())[-CHOICE]
    return rng.choice([one for one in fits if fits[one] >= best])


@functools.cache
def _known() -> Mapping[Composition, tuple[frozenset[str], int]]:
    """Those that it writes about, with their tools and how many calls they take.

    What is handed over stands alone, and who calls the internet slow has one.
    """
    fitting = [
        one
        for one in compositions(4)
        if not is_held_out(one)
        and (not one.refusal or len(one.faults) == 1)
        and not (one.family == "slow" and {"suspended", "ended"} & {*one.faults})
    ]
    acts = {one: gold(one, 0) for one in fitting}
    return {one: (frozenset(call.name for _, call in own), len(own)) for one, own in acts.items()}


def _sound(pair: PlanPair, composition: Composition, base: World, rng: random.Random) -> Draft:
    account = base.options["account"]
    own = ("accounts", str(account))
    faults = [FAULTS[name] for name in composition.faults]
    patches = (
        *(Patch("Desk", (*own, name), value) for fault in faults for name, value in fault.account.items()),
        *(Patch("Home", (name,), value) for fault in faults for name, value in fault.home.items()),
    )
    acts = tuple(Act(who, call) for who, call in gold(composition, account))
    others = tuple(("Desk", "accounts", number) for number in base.state["Desk"]["accounts"] if number != str(account))
    if composition.refusal:
        looked = acts[0].call.name
        checker = Checker(
            (Goal(("Desk", *own, "handed"), composition.refusal),),
            (Assertion("called", {"tool": looked}),),
            ("technician",),
            refusal=True,
        )
    else:
        kept = (*others, ("Desk", *own, "handed"), ("Desk", *own, "credit"))
        checker = Checker(_goals(composition, own), (Assertion("internet", {"speed": "fast"}),), (), kept)
    words = complaint(composition.family, account, rng)
    style = pair.slice.style
    words = words if style == "plain" else f"{words} {OPENINGS[style]}"
    return Draft(composition.family, words, {"account": account}, patches, acts, checker, style, pair.slice.clauses)


OPENINGS = {"hurried": "Please be quick.", "anxious": "I am worried.", "chatty": "I was just about to call my sister."}
_MENDED = {
    "status": "active", "owes": 0, "router": "known", "firmware": "new", "port": "up", "speed": "full", "cap": "off",
    "password": "set", "power": "on", "cable": "in", "wifi": "on", "light": "green", "channel": "free",
    "airplane": "off", "network": "home", "vpn": "off", "dns": "auto", "downloads": "off",
}  # fmt: skip


def _goals(composition: Composition, own: tuple[str, ...]) -> tuple[Goal, ...]:
    """Every field that a fault changes is sound again."""
    faults = [FAULTS[name] for name in composition.faults]
    return (
        *(Goal(("Desk", *own, name), _MENDED[name]) for fault in faults for name in fault.account),
        *(Goal(("Home", name), _MENDED[name]) for fault in faults for name in fault.home),
    )


def _slipped(kind: str, draft: Draft, composition: Composition, account: int, rng: random.Random) -> Draft:
    """The draft with this slip in it."""
    checker = draft.checker
    match kind:
        case "wrong_goal":
            first = checker.goal[0]
            return replace(draft, checker=replace(checker, goal=(Goal(first.path, "mended"), *checker.goal[1:])))
        case "unsolvable":
            return replace(draft, gold=(Act(AGENT, Call("get_account", {"account": 0})), *draft.gold))
        case "no_op":
            sound = Goal(("Desk", "accounts", str(account), "tickets"), [])
            return replace(draft, checker=Checker((sound,)))
        case "missing_fact":
            return replace(draft, words=re.sub(r" My account is \d+\.", "", draft.words), facts={})
        case "wrong_aim":
            credit = Goal(("Desk", "accounts", str(account), "credit"), 5)
            given = Act(AGENT, Call("add_credit", {"account": account, "amount": 5}))
            kept = tuple(path for path in checker.kept if path[-1] != "credit")
            aimed = replace(checker, goal=(*checker.goal, credit), kept=kept)
            return replace(draft, gold=(given, *draft.gold), checker=aimed)
        case "leaky":
            field = draft.patches[0].path[-1]
            return replace(draft, words=f"{draft.words} {LEAK.format(field)}")
        case "misfit":
            family = "no_internet" if composition.family == "slow" else "slow"
            return replace(draft, words=complaint(family, account, rng))
        case _:
            return draft


# -------------------------------------------------------------------------------------------- truth
def defects(ground: Ground, task: Task) -> frozenset[str]:
    """What is wrong with a task that passed the gate: the simulation's own truth.

    Its verifiers see a part of it, by chance; the loop and its reflection are never told.
    """
    words, account = task.turns[0].user, account_of(task)
    found = set()
    if str(account) not in words and not knows_account(task):
        found.add(MISSING_FACT)
    checker = checker_of(task)
    if checker is not None and any(goal.path[-1] in ("credit", "tickets") for goal in checker.goal):
        found.add(WRONG_AIM)
    if any(LEAK.format(field) in words for field in _MENDED | {"area": ""}):
        found.add(LEAKY)
    up, _ = works(dict(ground.live(task.world).state()["Home"]))
    if up != bool(re.search(r"slow|crawls", words)):
        found.add(MISFIT)
    return frozenset(found)
