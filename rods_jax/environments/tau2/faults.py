"""Tasks from faults that combine: what breaks, who can mend it, and which checks say that all is well again.

    mms = Family("mms", choices=((airplane,), (no_sim, locked_sim)), complaint=1, opening=(...), solved=(...), unsolved=(...))
    made = compose((mms,), ("None", "Easy"))      # every combination, from one fault to many
    task = task_json(made[0], texts)              # in the format of tasks.json
    flaw(task_from_json(task), fresh)             # "" where gold solves it and no part of gold does
    rng.choice(alike(task["id"], (mms,), ("None", "Easy")))         # a variant of equal structure

A fault knows nothing of the others, so that a task of n faults has equals without a language model: the other
combinations of n faults of its family (`alike`).
Source: tau2-bench, arXiv 2506.07982, its compositional generator.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from rods_jax.environments.tau2.environment import Environment
from rods_jax.environments.tau2.messages import AGENT, TauTask
from rods_jax.types import Json


class Deed(NamedTuple):
    """A call of one side."""

    side: str  # AGENT or USER
    name: str
    arguments: Mapping[str, Json] = {}


class Check(NamedTuple):
    """An assertion that must hold at the end."""

    side: str
    name: str
    arguments: Mapping[str, Json] = {}
    message: str | None = None


class Fault(NamedTuple):
    name: str
    causes: tuple[Deed, ...]
    fixes: tuple[Deed, ...] | None  # None: nobody can mend it, and the agent must hand over
    checks: tuple[Check, ...] = ()  # beside those of the family


class Family(NamedTuple):
    """Faults behind one complaint."""

    name: str
    choices: tuple[tuple[Fault, ...], ...]  # of each, one fault or none
    complaint: int  # from this choice on, at least one fault must be taken: the others do not explain the complaint
    opening: tuple[Deed, ...]  # before all causes
    solved: tuple[Check, ...]
    unsolved: tuple[Check, ...]  # what holds where a fault cannot be mended
    about: str = ""  # whom the tasks are about, where ids must say so


class Composition(NamedTuple):
    """A task to be: faults of one family, sorted by name, and how its user talks."""

    family: Family
    faults: tuple[Fault, ...]
    persona: str


# A task's description, user_scenario and ticket.
Texts = Callable[[Composition], Mapping[str, Json]]


# ------------------------------------------------------------------------------------- enumeration
def compose(families: Iterable[Family], personas: Sequence[str]) -> list[Composition]:
    """All compositions, by family and then by number of faults; personas take turns within a family."""
    return [
        Composition(family, faults, personas[index % len(personas)])
        for family in families
        for index, faults in enumerate(_combinations(family))
    ]


def _combinations(family: Family) -> list[tuple[Fault, ...]]:
    picks = itertools.product(*((*choice, None) for choice in family.choices))
    complaints = [pick for pick in picks if any(pick[family.complaint :])]
    combinations = [sorted(filter(None, pick), key=lambda fault: fault.name) for pick in complaints]
    return sorted(map(tuple, combinations), key=len)


def name_of(made: Composition) -> str:
    """The task's id."""
    about = f"[{made.family.about}]" if made.family.about else ""
    return f"{kin_of(made)}[PERSONA:{made.persona}]{about}"


def kin_of(made: Composition) -> str:
    """The id up to the persona: tasks of one kin have one solution, and must not stand on both sides of a split."""
    return f"[{made.family.name}]{'|'.join(fault.name for fault in made.faults)}"


def solvable(made: Composition) -> bool:
    return all(fault.fixes is not None for fault in made.faults)


def sample_bins(made: Iterable[Composition], rng: random.Random, size: int) -> list[Composition]:
    """Up to `size` of each family, number of faults and persona; of two faults or more."""
    bins: dict[tuple[str, int, str], list[Composition]] = {}
    for one in made:
        if len(one.faults) > 1:
            bins.setdefault((one.family.name, len(one.faults), one.persona), []).append(one)
    return [one for held in bins.values() for one in rng.sample(held, min(size, len(held)))]


# ------------------------------------------------------------------------------- equal structure
def alike(id: str, families: Iterable[Family], personas: Sequence[str], taken: Iterable[str] = ()) -> list[Composition]:
    """All other compositions of a task's family and number of faults, solvable iff it is, with every persona.

    families: also those about others than the task's own, for more variants.
    taken: ids; their kin is left out, so that a variant of a training task is never a test task in other words.
    ValueError: no composition has this id.
    """
    kin = _kin(id)
    made = compose((one for one in families if kin.startswith(f"[{one.name}]")), personas[:1])
    seed = next((one for one in made if kin_of(one) == kin), None)
    if seed is None:
        raise ValueError(f"no composition of these faults has the id {id!r}")
    left_out = {kin, *map(_kin, taken)}
    return [
        one._replace(persona=persona)
        for one in made
        if _structure(one) == _structure(seed) and kin_of(one) not in left_out
        for persona in personas
    ]


def _kin(id: str) -> str:
    return id.partition("[PERSONA:")[0]


def _structure(made: Composition) -> tuple[str, int, bool]:
    return made.family.name, len(made.faults), solvable(made)


# ------------------------------------------------------------------------------------------- tasks
def task_json(made: Composition, texts: Texts) -> dict[str, Json]:
    """A task in the format of tasks.json.

    Gold is the fixes in the order of the faults; where one cannot be mended, it is to hand over, with any words.
    """
    family, faults = made.family, made.faults
    mended = solvable(made)
    causes = [*family.opening, *(cause for fault in faults for cause in fault.causes)]
    fixes = [fix for fault in faults for fix in fault.fixes or ()]
    more = [check for fault in faults for check in fault.checks]
    return {
        "id": name_of(made),
        **texts(made),
        "initial_state": {
            "initialization_data": None,
            "initialization_actions": [_method(cause) for cause in causes],
            "message_history": None,
        },
        "evaluation_criteria": {
            "actions": [_gold(fix, f"{fix.name}_{index}") for index, fix in enumerate(fixes)]
            if mended
            else [_HAND_OVER],
            "env_assertions": [
                {**_method(check), "assert_value": True, "message": check.message}
                for check in ([*family.solved, *more] if mended else family.unsolved)
            ],
            "communicate_info": None,
            "nl_assertions": None,
            "reward_basis": ["ENV_ASSERTION"] if mended else ["ENV_ASSERTION", "ACTION"],
        },
    }


def _method(called: Deed | Check) -> dict[str, Json]:
    return {"env_type": called.side, "func_name": called.name, "arguments": dict(called.arguments)}


def _gold(deed: Deed, id: str) -> dict[str, Json]:
    return {
        "action_id": id,
        "requestor": deed.side,
        "name": deed.name,
        "arguments": dict(deed.arguments),
        "info": None,
        "compare_args": None,
    }


_TRANSFER = Deed(AGENT, "transfer_to_human_agents", {"summary": "I cannot fix the issue."})
_HAND_OVER = {**_gold(_TRANSFER, _TRANSFER.name), "compare_args": []}


# -------------------------------------------------------------------------------------------- gate
def flaw(task: TauTask, fresh: Callable[[], Environment]) -> str:
    """Why a task is no good, or "".

    A task of faults that can be mended must need all of gold: no strict part of it from the start may satisfy the checks.
    One that cannot be mended must satisfy them from start to end.
    fresh: an environment as it is before the set-up.
    """
    criteria = task.criteria
    if criteria is None or not criteria.actions or not criteria.assertions:
        return "it has no gold calls or no assertions"
    episode = fresh()
    try:
        episode.set_up(task.start)
        hopeless = "ACTION" in criteria.basis
        for done, gold in enumerate(criteria.actions):
            if all(episode.check(one) for one in criteria.assertions) != hopeless:
                return f"after {done} gold calls the checks {'fail' if hopeless else 'hold already'}"
            told = episode.call(gold.side, gold.name, gold.arguments)
            if not told.ok:
                return f"the gold call {gold.name} fails: {told.text}"
        if not all(episode.check(one) for one in criteria.assertions):
            return "the checks fail after all gold calls"
    except Exception as error:  # a method of the set-up or of a check that is not there, or that refuses
        return f"{type(error).__name__}: {error}"
    return ""
