"""The loop: pairs of plans are made, tried in rounds and rewritten; the best versions are frozen and scaled.

AReaL-SEA (arXiv 2601.22607): (P_s, P_e)[n, k+1] = Reflect((P_s, P_e)[n, k], failures[n, k]).  Each pair has a standing:
its best version, and how that one did.  A version that does worse is taken back, and what it added is not tried again.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import NamedTuple

from rods_jax.evolution.attempt import Outcome, Rules, acceptance, agreement, attempt, evidence_of, without_duplicates
from rods_jax.evolution.ground import Ground
from rods_jax.evolution.ledger import BudgetSpent, Ledger
from rods_jax.evolution.pairs import Pair, require_apart, require_pair
from rods_jax.evolution.roles import MakeRoles
from rods_jax.synthesis.errors import Rejected
from rods_jax.threads import in_threads
from rods_jax.types import Task

PLANS = 3  # tries that a planner has for each pair
ERRORS = 3.0  # standard errors by which a pair's acceptance may fall after the pilot, until it pauses
WINDOW = 4  # rounds after the pilot that count for that


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How much is done, and when it is enough."""

    seed: int = 0
    pairs: int = 16
    attempts: int = 8  # of each pair in a round
    rounds: int = 6  # at most; 1: nothing evolves
    patience: int = 2  # rounds without a better one, until the pilot ends
    min_gain: float = 0.01  # of the score, that counts as better
    tolerance: float = 1.0  # standard errors by which a version may score lower and is not taken back
    max_overlap: float = 0.5  # of two slices
    tasks: int = 100  # to be accepted after the pilot
    trials: int = 1  # dialogues of a task that may fail through no fault of it
    verifies: bool = True  # False: no verifier takes part
    workers: int = 1  # attempts at a time


class Refusal(NamedTuple):
    """Why a pair was not made."""

    pair: str
    error: str
    detail: str


class Standing(NamedTuple):
    """The best version of a pair."""

    pair: Pair
    outcomes: tuple[Outcome, ...] = ()  # of this version
    latest: int = 0  # the number of the pair's latest version
    worse: tuple[str, ...] = ()  # lines of versions that did worse
    rolled_back: int = 0  # so many versions


class Tried(NamedTuple):
    """What came of a round, and whether the budget ended in it."""

    outcomes: tuple[Outcome, ...]
    spent: BudgetSpent | None


class Round(NamedTuple):
    """What was tried in a round of the pilot."""

    pairs: tuple[Pair, ...]
    outcomes: tuple[Outcome, ...]


class Evolved(NamedTuple):
    """All that came out."""

    standings: tuple[Standing, ...]
    rounds: tuple[Round, ...]
    scaled: tuple[Outcome, ...]  # after the pilot
    refusals: tuple[Refusal, ...]  # of pairs
    paused: tuple[str, ...]  # pairs that did worse after the pilot than in it
    ended: str  # why it ended before it had all its tasks; empty: it has them

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Those that were accepted after the pilot."""
        return tuple(accepted(self.scaled))


def evolve(
    ground: Ground,
    make_roles: MakeRoles,
    pace: Pace,
    ledger: Ledger,
    *,
    known: frozenset[str] = frozenset(),
    tell: Callable[[str], None] = lambda sentence: None,
    done: Callable[[Outcome], None] = lambda outcome: None,
) -> Evolved:
    """Writes `pace.tasks` tasks, or as many as the budget allows.

    known: content hashes that no task may have.  tell: gets sentences for people.  done: gets each outcome as it is there.
    """
    rounds, scaled, paused = list[Round](), list[Outcome](), tuple[str, ...]()
    standings, refusals = tuple[Standing, ...](), tuple[Refusal, ...]()

    def tried(name: str, pairs: Sequence[Pair], rules: Rules) -> Tried:
        jobs = [(pair, f"{pace.seed}/{name}/{pair.name}/{n}") for pair in pairs for n in range(pace.attempts)]
        found, spent = _attempts(ground, make_roles, ledger, jobs, rules, pace.workers, done)
        return Tried(tuple(without_duplicates(found, accepted(scaled), known)), spent)

    try:
        # Plan: one pair after another, each apart from the earlier ones.
        pairs, refusals = plan_pairs(ground, make_roles, pace, ledger)
        standings = tuple(map(Standing, pairs))
        # Pilot: try every pair, keep what did not do worse, and reflect on what failed.
        while pairs and len(rounds) < pace.rounds:
            number = len(rounds)
            outcomes, spent = tried(f"round-{number}", pairs, Rules(pace.verifies, True, pace.trials))
            rounds.append(Round((*pairs,), outcomes))
            standings = tuple(
                stands(one, pair, [o for o in outcomes if o.pair == pair.name], pace.tolerance)
                for one, pair in zip(standings, pairs)
            )
            tell(said_of(number, outcomes, standings))
            if spent:
                raise spent
            if len(rounds) == pace.rounds or is_settled(rounds, pace):
                break
            standings, pairs = reflected(make_roles, standings, ledger, number)
        # Scale: the best versions alone; a pair that does worse than in the pilot pauses.
        pairs = [one.pair for one in standings]
        block = 0
        while pairs and len(accepted(scaled)) < pace.tasks:
            outcomes, spent = tried(f"scale-{block}", pairs, Rules(pace.verifies, False, pace.trials))
            scaled += outcomes
            if spent:
                raise spent
            if not accepted(outcomes):
                break
            paused += tuple(
                name
                for one in standings
                if (name := one.pair.name) not in paused and _fell(one, scaled, WINDOW * pace.attempts)
            )
            pairs = [one.pair for one in standings if one.pair.name not in paused]
            block += 1
        ended = (
            "" if len(accepted(scaled)) >= pace.tasks else "every pair has paused" if standings else "no pair was made"
        )
    except BudgetSpent as spent:
        ended = f"the budget ended: {spent}"
    return Evolved(standings, (*rounds,), (*scaled,), refusals, paused, ended)


def _why(standings: Sequence[Standing], pairs: Sequence[Pair]) -> str:
    if not standings:
        return "no pair was made"
    return "a whole round brought no task" if pairs else "every pair has paused"


# --------------------------------------------------------------------------------------------- plan
def plan_pairs(
    ground: Ground, make_roles: MakeRoles, pace: Pace, ledger: Ledger
) -> tuple[list[Pair], tuple[Refusal, ...]]:
    """The pairs, and why others were not made; a planner is told why, and tries again."""
    pairs, refusals = list[Pair](), list[Refusal]()
    for number in range(pace.pairs):
        name = f"p{number:02}"
        told: list[str] = []
        for again in range(PLANS):
            unit = f"{pace.seed}/plan/{name}/{again}"

            def make(backends) -> Planned:
                try:
                    pair = make_roles(backends).plan(name, pairs, told, random.Random(unit))
                    return Planned(require_apart(require_pair(ground, pair), pairs, pace.max_overlap))
                except Rejected as rejected:
                    return Planned(None, rejected.error, rejected.detail)

            planned = ledger.do(unit, Planned, make)
            if planned.pair is not None:
                pairs.append(planned.pair)
                break
            told.append(planned.detail)
            refusals.append(Refusal(name, planned.error, planned.detail))
    return pairs, tuple(refusals)


@dataclass(frozen=True)
class Planned:
    """A pair, or why there is none."""

    pair: Pair | None
    error: str = ""
    detail: str = ""


# -------------------------------------------------------------------------------------------- pilot
def _attempts(
    ground: Ground,
    make_roles: MakeRoles,
    ledger: Ledger,
    jobs: Sequence[tuple[Pair, str]],
    rules: Rules,
    workers: int,
    done: Callable[[Outcome], None],
) -> tuple[list[Outcome], BudgetSpent | None]:
    """The finished attempts in their order, and whether the budget ended before the others."""

    def settle(job: tuple[Pair, str]) -> Outcome | BudgetSpent:
        pair, unit = job
        try:
            return ledger.do(unit, Outcome, lambda backends: attempt(ground, make_roles(backends), pair, unit, rules))
        except BudgetSpent as spent:
            return spent

    found: dict[int, Outcome] = {}
    left: BudgetSpent | None = None
    for place, one in in_threads(settle, jobs, workers):
        if isinstance(one, BudgetSpent):
            left = one
        else:
            found[place] = one
            done(one)
    return [found[place] for place in sorted(found)], left


def stands(standing: Standing, pair: Pair, outcomes: Sequence[Outcome], tolerance: float) -> Standing:
    """The standing after a version was tried: it becomes the best, unless it did worse."""
    if pair.version == standing.pair.version:
        return standing._replace(outcomes=(*standing.outcomes, *outcomes))
    if not is_worse(outcomes, standing.outcomes, tolerance):
        return standing._replace(pair=pair, outcomes=(*outcomes,))
    added = set(lines_of(pair)) - set(lines_of(standing.pair))
    return standing._replace(worse=(*standing.worse, *sorted(added)), rolled_back=standing.rolled_back + 1)


def reflected(
    make_roles: MakeRoles, standings: Sequence[Standing], ledger: Ledger, number: int
) -> tuple[tuple[Standing, ...], list[Pair]]:
    """(standings, the pairs of the next round): a version with another text is a new one."""
    after, pairs = [], []
    for one in standings:

        def make(backends) -> Planned:
            try:
                return Planned(make_roles(backends).reflect(one.pair, evidence_of(one.outcomes), one.worse))
            except Rejected as rejected:  # the pair stays as it is
                return Planned(None, rejected.error, rejected.detail)

        new = ledger.do(f"reflect-{number}/{one.pair.name}", Planned, make).pair or one.pair
        changed = lines_of(new) != lines_of(one.pair)
        after.append(one._replace(latest=one.latest + changed))
        pairs.append(replace(new, version=one.latest + 1) if changed else one.pair)
    return tuple(after), pairs


def lines_of(pair: Pair) -> tuple[str, ...]:
    return (*pair.synthesis, *pair.trial, *pair.rubric)


def score(outcomes: Sequence[Outcome]) -> float:
    """The mean of acceptance and agreement, in [0, 1]; acceptance alone where no trial tells."""
    agreed = agreement(outcomes)
    return acceptance(outcomes) if agreed is None else (acceptance(outcomes) + agreed) / 2


def is_worse(new: Sequence[Outcome], old: Sequence[Outcome], tolerance: float) -> bool:
    """Whether the score fell by more than so many standard errors."""
    return is_lower(score(new), len(new), score(old), len(old), tolerance)


def is_lower(new: float, num_new: int, old: float, num_old: int, errors: float) -> bool:
    """Whether a share fell by more than so many standard errors of the difference of two equal shares."""
    if not num_new or not num_old:
        return False
    mean = (new * num_new + old * num_old) / (num_new + num_old)
    return old - new > errors * sqrt(mean * (1 - mean) * (1 / num_new + 1 / num_old))


def is_settled(rounds: Sequence[Round], pace: Pace) -> bool:
    """Whether the latest rounds brought nothing better than the rounds before them."""
    scores = [score(one.outcomes) for one in rounds]
    earlier, latest = scores[: -pace.patience], scores[-pace.patience :]
    return bool(earlier) and max(latest) < max(earlier) + pace.min_gain


def said_of(number: int, outcomes: Sequence[Outcome], standings: Sequence[Standing]) -> str:
    agreed = agreement(outcomes)
    shares = f"{acceptance(outcomes):.0%} accepted, {'-' if agreed is None else f'{agreed:.0%}'} agreed"
    return f"round {number}: {shares}, {sum(one.rolled_back for one in standings)} versions taken back so far"


# -------------------------------------------------------------------------------------------- scale
def accepted(outcomes: Sequence[Outcome]) -> list[Task]:
    return [one.task for one in outcomes if one.task is not None and not one.error]


def _fell(standing: Standing, scaled: Sequence[Outcome], window: int) -> bool:
    """Whether a pair's latest attempts were accepted more rarely than those of the pilot."""
    own = [one for one in scaled if one.pair == standing.pair.name][-window:]
    return is_lower(acceptance(own), len(own), acceptance(standing.outcomes), len(standing.outcomes), ERRORS)
