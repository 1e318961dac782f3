"""Tasks of the help desk, seeds and variants alike, and the gate that each of them passes."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace

from rods_jax.environments.conversation import AGENT, USER
from rods_jax.environments.helpdesk.desk import new_account
from rods_jax.environments.helpdesk.faults import FAULTS, Composition, compositions, gold, is_held_out, shape
from rods_jax.environments.helpdesk.home import FEED
from rods_jax.environments.helpdesk.phrases import complaint
from rods_jax.environments.helpdesk.world import account_of, composition_of, outcomes
from rods_jax.environments.protocol import TaskSplits
from rods_jax.types import Call, Task, Turn, World

NAMES = ("alice", "bob", "carol", "david", "emma", "frank", "grace", "henry")
REFUSALS = 5  # one task in so many must be handed over
CUSTOMERS = 3  # in a task's database; one of them talks


def make_task(composition: Composition, rng: random.Random) -> Task:
    """A customer with these faults, among others without any."""
    account, *others = rng.sample(range(10, 100), CUSTOMERS)
    names = rng.sample(NAMES, CUSTOMERS)
    record, home = new_account(names[0]), {"feed": dict(FEED)}
    for name in composition.faults:
        record |= FAULTS[name].account
        home |= FAULTS[name].home
    records = {str(account): record} | {str(one): new_account(name) for one, name in zip(others, names[1:])}
    world = World(
        ("Desk", "Home"),
        {"Desk": {"accounts": dict(sorted(records.items()))}, "Home": home},
        {"account": account, "faults": [*composition.faults]},
    )
    calls = tuple(call for who, call in gold(composition, account) if who == AGENT)
    words = complaint(composition.family, account, rng)
    return Task(f"{composition.name}#{account}", composition.name, composition.family, world, (Turn(words, calls),))


def of_customer(task: Task) -> Task:
    """The task as the customer has it, whose own calls are its gold."""
    calls = tuple(call for who, call in gold(composition_of(task), account_of(task)) if who == USER)
    return replace(task, turns=(replace(task.turns[0], gold=calls),))


def fault_of(task: Task) -> str:
    """Why a task is none, or nothing: gold passes; nothing done, each strict prefix and a hand-over at once do not."""
    composition, account = composition_of(task), account_of(task)
    *before, last = map(all, outcomes(task, gold(composition, account)))
    if not last:
        return "its gold does not pass"
    if any(before):
        return f"the first {before.index(True)} calls of its gold pass"
    reason = composition.refusal or "line"
    if all(outcomes(task, ((AGENT, Call("hand_over", {"account": account, "reason": reason})),))[-1]):
        return "a hand-over at once passes"
    return ""


def build(
    rng: random.Random, *, max_faults: int, seeds: int, held_out: int, validation: int, practice: int
) -> TaskSplits:
    """Tasks of at most `max_faults` faults, in which every stretch has its share of families and of numbers of faults.

    Held-out and validation tasks have compositions of their own.  One task in five is a refusal.
    """
    measured = [one for one in compositions(max_faults) if is_held_out(one)]
    trained = [one for one in compositions(max_faults) if not is_held_out(one)]
    drawn = [*_drawn(measured, held_out + validation, rng), *_drawn(trained, seeds + practice, rng)]
    made = (make_task(one, rng) for one in drawn)
    named = (replace(task, id=f"{task.id}-{number}") for number, task in enumerate(made))
    parts = [tuple(itertools.islice(named, count)) for count in (held_out, validation, seeds, practice)]
    return TaskSplits(held_out=parts[0], validation=parts[1], seeds=parts[2], practice=parts[3])


def vary(task: Task, rng: random.Random) -> Task:
    """Another customer whose case has the same shape: other faults where there are some, never a held-out composition."""
    own = composition_of(task)
    alike = [one for one in compositions() if shape(one) == shape(own) and not is_held_out(one)]
    return make_task(rng.choice([one for one in alike if one != own] or alike or [own]), rng)


def _spread(some: Sequence[Composition], rng: random.Random) -> list[Composition]:
    """In an order in which every stretch has its share of each family and number of faults."""
    groups: dict[tuple[str, int], list[Composition]] = {}
    for one in rng.sample(some, len(some)):
        groups.setdefault((one.family, len(one.faults)), []).append(one)
    ranked = [(rank / len(group), one) for group in groups.values() for rank, one in enumerate(group)]
    return [one for _, one in sorted(ranked, key=lambda pair: pair[0])]


def _drawn(some: Sequence[Composition], count: int, rng: random.Random) -> list[Composition]:
    """So many compositions, each again when all have been drawn."""
    mended, refused = (
        itertools.cycle(_spread([one for one in some if bool(one.refusal) == refusal], rng))
        for refusal in (False, True)
    )
    return [next(refused if number % REFUSALS == REFUSALS - 1 else mended) for number in range(count)]
