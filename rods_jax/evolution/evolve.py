"""The loop: pairs of plans are made, tried in rounds and rewritten; the best versions are frozen and scaled.

AReaL-SEA (arXiv 2601.22607): (P_s, P_e)[n, k+1] = Reflect((P_s, P_e)[n, k], failures[n, k]).  Each pair has a lineage:
its best version, and how that one did.  A version that does worse is taken back, and what it added is not tried again.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import NamedTuple

from rods_jax.chat import FILTERED, TOO_LONG, Generate
from rods_jax.evolution.attempt import (
    Checking,
    Tried,
    acceptance,
    agreement,
    attempt,
    complaints_of,
    without_duplicates,
)
from rods_jax.evolution.ground import Ground
from rods_jax.evolution.ledger import Halted, Ledger
from rods_jax.evolution.lineage import Lineage, Round, after_trying, has_fallen, is_settled, lines_of
from rods_jax.evolution.pairs import PlanPair, require_apart, require_pair
from rods_jax.evolution.roles import MakeRoles, Roles
from rods_jax.synthesis.errors import PIPELINE_EXCEPTION, Rejected, Unanswered
from rods_jax.threads import in_threads
from rods_jax.types import Task

PLANS = 3  # tries that a planner has for each pair
WITHHELD = (FILTERED, TOO_LONG)  # errors of a server that concern the question: they are counted, and the loop goes on
ERRORS = 3.0  # standard errors by which a pair's acceptance may fall after the pilot, until it pauses
WINDOW = 4  # rounds after the pilot that count for that


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How much is done, and when it is enough."""

    seed: int = 0  # of all chance
    pairs: int = 16  # of plans, each for a slice of the domain; from 4 to 64
    attempts: int = 8  # of each pair in a round
    rounds: int = 6  # at most; 1: nothing evolves
    patience: int = 2  # rounds without a better one, until the pilot ends
    min_gain: float = 0.01  # of the score, that counts as better
    tolerance: float = 1.5  # standard errors by which a version may score lower and is not taken back
    max_overlap: float = 0.5  # of two slices
    tasks: int = 100  # to be accepted after the pilot
    trials: int = 1  # dialogues of a task that may fail through no fault of it
    verifies: bool = True  # False: no verifier takes part
    workers: int = 1  # attempts at a time


class RefusedPair(NamedTuple):
    """Why a pair was not made."""

    pair: str
    error: str
    detail: str


class Evolved(NamedTuple):
    """All that came out."""

    lineages: tuple[Lineage, ...]
    rounds: tuple[Round, ...]
    scaled: tuple[Tried, ...]  # after the pilot
    refused_pairs: tuple[RefusedPair, ...]  # of pairs
    refused_reflections: tuple[RefusedPair, ...]  # after which a pair went on as it was
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
    tell: Callable[[str], None] = lambda sentence: None,
    done: Callable[[Tried], None] = lambda outcome: None,
) -> Evolved:
    """Writes `pace.tasks` tasks, or as many as the budget allows.

    tell: gets sentences for people.  done: gets each outcome as it is there.
    """
    attempts = partial(_attempts, ground, make_roles, pace, ledger, done)
    # Plan: one pair after another, each apart from the earlier ones.
    pairs, refusals, ended = plan_pairs(ground, make_roles, pace, ledger)
    lineages, rounds = tuple(map(Lineage, pairs)), tuple[Round, ...]()
    unreflected = tuple[RefusedPair, ...]()
    # Pilot: try every pair, keep what did not do worse, and reflect on what failed.
    while not ended:
        outcomes, ended = attempts(f"round-{len(rounds)}", pairs, audits=True)
        rounds += (Round((*pairs,), outcomes),)
        lineages = tuple(
            after_trying(one, pair, [o for o in outcomes if o.pair == pair.name], pace.tolerance)
            for one, pair in zip(lineages, pairs)
        )
        tell(said_of(rounds, lineages))
        if ended or len(rounds) == pace.rounds or is_settled(rounds, pace.patience, pace.min_gain):
            break
        lineages, pairs, refused, ended = reflected(make_roles, pace, lineages, ledger, len(rounds))
        unreflected += refused
    # Scale: the best versions alone; a pair that does worse than in the pilot pauses.
    scaled, paused, pairs = tuple[Tried, ...](), tuple[str, ...](), [one.pair for one in lineages]
    for block in count():
        # What an earlier call began is gone through, so that one with fewer tasks takes none away.
        begun = ledger.begun(f"{pace.seed}/scale-{block}/")
        if ended or len(accepted(scaled)) >= pace.tasks and not begun:
            break
        outcomes, ended = attempts(f"scale-{block}", pairs, accepted(scaled), audits=False)
        scaled += outcomes
        fallen = [one.pair.name for one in lineages if has_fallen(one, scaled, WINDOW * pace.attempts, ERRORS)]
        paused += tuple(name for name in fallen if name not in paused)
        pairs = [pair for pair in pairs if pair.name not in paused]
        if not ended and not (pairs and accepted(outcomes)):
            ended = "a whole round brought no task" if pairs else "every pair has paused"
    ended = "" if len(accepted(scaled)) >= pace.tasks else ended
    return Evolved(lineages, rounds, scaled, refusals, unreflected, paused, ended)


def accepted(outcomes: Sequence[Tried]) -> list[Task]:
    """The tasks of attempts that brought one."""
    return [one.task for one in outcomes if one.task is not None and not one.error]


def said_of(rounds: Sequence[Round], lineages: Sequence[Lineage]) -> str:
    outcomes = rounds[-1].outcomes
    agreed = agreement(outcomes)
    shares = f"{acceptance(outcomes):.0%} accepted, {'-' if agreed is None else f'{agreed:.0%}'} agreed"
    return f"round {len(rounds) - 1}: {shares}, {sum(one.rolled_back for one in lineages)} versions taken back so far"


# --------------------------------------------------------------------------------------------- plan
@dataclass(frozen=True)
class Planned:
    """A pair, or why there is none."""

    pair: PlanPair | None
    error: str = ""
    detail: str = ""


def plan_pairs(
    ground: Ground, make_roles: MakeRoles, pace: Pace, ledger: Ledger
) -> tuple[list[PlanPair], tuple[RefusedPair, ...], str]:
    """(the pairs, why others were not made, why planning ended early); a planner is told why, and tries again."""
    pairs, refusals = list[PlanPair](), list[RefusedPair]()
    for number in range(pace.pairs):
        name, told = f"p{number:02}", list[str]()
        for again in range(PLANS):
            unit = f"{pace.seed}/plan/{name}/{again}"

            def plan(roles: Roles) -> PlanPair:
                pair = roles.plan(name, pairs, told, random.Random(unit))
                return require_apart(require_pair(ground, pair), pairs, pace.max_overlap)

            try:
                planned = ledger.do(unit, Planned, lambda backends: _planned(plan, make_roles(backends)))
            except Halted as stopped:
                return pairs, tuple(refusals), str(stopped)
            if planned.pair is not None:
                pairs.append(planned.pair)
                break
            if planned.error not in WITHHELD:
                told.append(planned.detail)
            refusals.append(RefusedPair(name, planned.error, planned.detail))
    return pairs, tuple(refusals), "" if pairs else "no pair was made"


def reflected(
    make_roles: MakeRoles, pace: Pace, lineages: Sequence[Lineage], ledger: Ledger, number: int
) -> tuple[tuple[Lineage, ...], list[PlanPair], tuple[RefusedPair, ...], str]:
    """(lineages, the pairs of the next round, why some have no reflection, why it ended).

    A version with another text is a new one.
    """
    after, pairs, refusals = list[Lineage](), list[PlanPair](), list[RefusedPair]()
    for one in lineages:

        def reflect(roles: Roles) -> PlanPair:
            return roles.reflect(one.pair, complaints_of(one.outcomes), one.worse)

        unit = f"{pace.seed}/reflect-{number}/{one.pair.name}"
        try:
            planned = ledger.do(unit, Planned, lambda backends: _planned(reflect, make_roles(backends)))
        except Halted as stopped:
            return tuple(lineages), pairs, tuple(refusals), str(stopped)
        if planned.pair is None:
            refusals.append(RefusedPair(one.pair.name, planned.error, planned.detail))
        new = planned.pair or one.pair  # without a reflection it stays as it is
        changed = lines_of(new) != lines_of(one.pair)
        after.append(one._replace(latest=one.latest + changed))
        pairs.append(replace(new, version=one.latest + 1) if changed else one.pair)
    return tuple(after), pairs, tuple(refusals), ""


def _planned(make: Callable[[Roles], PlanPair], roles: Roles) -> Planned:
    """Halted: no server answers, so that it is asked again later."""
    try:
        return Planned(make(roles))
    except Rejected as rejected:
        if isinstance(rejected, Unanswered) and rejected.reason in WITHHELD:
            return Planned(None, rejected.reason, rejected.detail)
        if rejected.error == PIPELINE_EXCEPTION:
            raise Halted(f"nobody answered: {rejected.detail}") from None
        return Planned(None, rejected.error, rejected.detail)


# ----------------------------------------------------------------------------------------- attempts
class _Unanswered(Exception):
    """An attempt that ended for want of an answer, with its outcome."""


def _attempts(
    ground: Ground,
    make_roles: MakeRoles,
    pace: Pace,
    ledger: Ledger,
    done: Callable[[Tried], None],
    name: str,
    pairs: Sequence[PlanPair],
    before: Sequence[Task] = (),
    *,
    audits: bool,
) -> tuple[tuple[Tried, ...], str]:
    """(the outcomes of a round in their order, why it ended before all of them).

    An attempt without an answer is a failure as any other, but where no attempt of the round had one: then nothing is
    recorded, and a later call tries again.
    """
    checking = Checking(pace.verifies, audits, pace.trials)
    jobs = [(pair, f"{pace.seed}/{name}/{pair.name}/{n}") for pair in pairs for n in range(pace.attempts)]

    def settle(job: tuple[PlanPair, str]) -> Tried | Exception:
        pair, unit = job

        def make(backends: Mapping[str, Generate]) -> Tried:
            outcome = attempt(ground, make_roles(backends), pair, unit, checking)
            if outcome.error == PIPELINE_EXCEPTION:
                raise _Unanswered(outcome)
            return outcome

        try:
            return ledger.do(unit, Tried, make)
        except (Halted, _Unanswered) as error:
            return error

    found, unanswered, ended = dict[int, Tried](), dict[int, Tried](), ""
    for place, one in in_threads(settle, jobs, pace.workers):
        match one:
            case Tried():
                found[place] = one
                done(one)
            case _Unanswered(args=(outcome,)):
                unanswered[place] = outcome
            case _:
                ended = str(one)
    if unanswered and not found and not ended:
        ended = f"nothing could be tried in a whole round: {next(iter(unanswered.values())).detail}"
    if not ended:
        for place, outcome in unanswered.items():
            found[place] = ledger.do(jobs[place][1], Tried, lambda backends: outcome)
            done(outcome)
    return tuple(without_duplicates([found[place] for place in sorted(found)], before)), ended
