"""A small evolution on the help desk whose verifier is asked through a backend that counts its questions."""

import random
from functools import partial
from pathlib import Path

from rods_jax.chat import Reply, Request
from rods_jax.environments.checker import Assertion, Checker, Goal
from rods_jax.environments.conversation import AGENT, USER
from rods_jax.evolution.draft import Draft, task_of
from rods_jax.evolution.evolve import Evolved, Pace, evolve
from rods_jax.evolution.folder import write
from rods_jax.evolution.ground import Act
from rods_jax.evolution.helpdesk import ground
from rods_jax.evolution.imperfect import make_imperfect
from rods_jax.evolution.ledger import Ledger, opened, unwritten
from rods_jax.evolution.pairs import PlanPair, Slice
from rods_jax.evolution.report import report_of
from rods_jax.evolution.slips import Rates
from rods_jax.synthesis.patch import Patch
from rods_jax.types import Call

GROUND = ground()
MAKE = partial(make_imperfect, GROUND)
PACE = Pace(pairs=4, attempts=3, rounds=3, patience=3, tasks=6)
RATES = Rates(slips={kind: rate / 3 for kind, rate in Rates().slips.items()})  # so that little is soon enough
NAME = "evolution.jsonl"


def make_roles(backends):
    """The imperfect roles, whose verifier also asks a model, and whose verdict stays its own."""
    roles = make_imperfect(GROUND, backends, RATES)

    def verify(pair, task):
        backends["verifier"]([Request(({"role": "user", "content": task.id},))])
        return roles.verify(pair, task)

    return roles._replace(verify=verify)


def counting(asked: Path | None):
    """A backend that notes every question in a file, of 10 + 1 tokens each."""

    def generate(requests):
        if asked is not None:
            with asked.open("a") as file:
                file.writelines("asked\n" for _ in requests)
        return [Reply("accept", prompt_tokens=10, completion_tokens=1) for _ in requests]

    return {"verifier": generate}


def at_first_go(pace: Pace = PACE) -> Evolved:
    return evolve(GROUND, make_roles, pace, unwritten(counting(None)))


def continued(directory: Path, pace: Pace = PACE, max_tokens: int | None = None) -> tuple[Evolved, Ledger]:
    """In the folder's journal; the files are written when it is done."""
    about = {"seed": pace.seed}
    with opened(directory / NAME, about, counting(directory / "asked"), max_tokens) as ledger:
        found = evolve(GROUND, make_roles, pace, ledger)
    write(directory, found, report_of(GROUND, found, ledger.spent, prompt_price=1.0, completion_price=1.0))
    return found, ledger


def work(directory: str) -> None:
    """In a process of its own, which may be killed at any moment."""
    continued(Path(directory))


# ------------------------------------------------------------------------------------------ drafts
BASE = GROUND.base(random.Random(0))
ACCOUNT = BASE.options["account"]
OTHER = next(int(number) for number in BASE.state["Desk"]["accounts"] if int(number) != ACCOUNT)
OWN = ("Desk", "accounts", str(ACCOUNT))


def agent(name, **arguments) -> Act:
    return Act(AGENT, Call(name, {"account": ACCOUNT} | arguments))


def user(name) -> Act:
    return Act(USER, Call(name))


# Low speed and a blocked channel: one call of either side mends each, in any order.
SLOW = Draft(
    "slow",
    f"My internet is slow. My account is {ACCOUNT}.",
    {"account": ACCOUNT},
    (Patch("Desk", (*OWN[1:], "speed"), "low"), Patch("Home", ("channel",), "busy")),
    (agent("set_speed", speed="full"), user("change_channel")),
    Checker(
        (Goal((*OWN, "speed"), "full"), Goal(("Home", "channel"), "free")),
        (Assertion("internet", {"speed": "fast"}),),
        (),
        (("Desk", "accounts", str(OTHER)), (*OWN, "credit")),
    ),
)
# A broken line that nobody can mend: it is looked at, handed over, and said so.
REFUSAL = Draft(
    "no_internet",
    f"My internet is down. My account is {ACCOUNT}.",
    {"account": ACCOUNT},
    (Patch("Desk", (*OWN[1:], "port"), "broken"),),
    (agent("test_line"), agent("hand_over", reason="line")),
    Checker(
        (Goal((*OWN, "handed"), "line"),), (Assertion("called", {"tool": "test_line"}),), ("technician",), refusal=True
    ),
)


def made(draft: Draft):
    return task_of(GROUND, BASE, draft)


SLICE = Slice(("set_speed", "change_channel"), (GROUND.clauses[1],), "plain", (1, 2))
PAIR = PlanPair("p00", SLICE, ("Write.",), ("Play.",), ("Judge.",))
