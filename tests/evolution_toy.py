"""A small evolution on the help desk whose verifier is asked through a backend that counts its questions."""

from pathlib import Path

from rods_jax.chat import Reply, Request
from rods_jax.evolution.evolve import Evolved, Pace, evolve
from rods_jax.evolution.folder import write
from rods_jax.evolution.helpdesk import ground
from rods_jax.evolution.imperfect import Rates, make_imperfect
from rods_jax.evolution.ledger import Ledger, opened, unwritten
from rods_jax.evolution.report import report_of

GROUND = ground()
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
