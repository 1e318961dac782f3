"""The help desk as a ground for authors: its two sides, and what its worlds are called by."""

import random
from collections.abc import Mapping
from functools import partial

from rods_jax.environments.conversation import AGENT, USER, Conversation, User, conversations
from rods_jax.environments.helpdesk.desk import new_account
from rods_jax.environments.helpdesk.domain import HELPDESK
from rods_jax.environments.helpdesk.errors import blamed
from rods_jax.environments.helpdesk.faults import FAMILIES, FAULTS, is_held_out
from rods_jax.environments.helpdesk.home import FEED
from rods_jax.environments.helpdesk.tasks import CUSTOMERS, NAMES
from rods_jax.environments.helpdesk.world import (
    PREDICATES,
    TOOLKIT,
    caller,
    composition_of,
    conversation,
    syncer,
)
from rods_jax.environments.protocol import Domain, Stratum
from rods_jax.evolution.ground import Ground, Live
from rods_jax.types import Call, Json, Observation, Task, World

CLAUSES = (
    "Look at the account and the line before you change anything.",
    "Mend all that is wrong, and nothing else.",
    "Let the user test when all is mended.",
    "Hand over what nobody can mend, and say that a technician will call.",
    "Activate a suspended account only after its bill is paid.",
    "Change nothing in another customer's account.",
)
STYLES = ("plain", "hurried", "anxious", "chatty")


def ground() -> Ground:
    """The help desk; compositions that are held out are for evaluations only."""
    return Ground(
        domain=TOOLKIT._replace(strata={family: Stratum() for family in FAMILIES}),
        owners={"Desk": AGENT, "Home": USER},
        base=_base,
        live=_live,
        played_with=_played_with,
        clauses=CLAUSES,
        styles=STYLES,
        predicates=PREDICATES,
        label=_label,
        is_measured=lambda task: is_held_out(composition_of(task)),
    )


def _base(rng: random.Random) -> World:
    """Customers whose internet works; one of them talks."""
    account, *others = rng.sample(range(10, 100), CUSTOMERS)
    names = rng.sample(NAMES, CUSTOMERS)
    records = {str(number): new_account(name) for number, name in zip((account, *others), names)}
    state = {"Desk": {"accounts": dict(sorted(records.items()))}, "Home": {"feed": dict(FEED)}}
    return World(("Desk", "Home"), state, {"account": account})


def _live(world: World) -> Live:
    simulator = TOOLKIT.simulator(world)
    run, sync = caller(simulator), syncer(simulator, world.options["account"])
    sync()

    def call(who: str, one: Call) -> Observation:
        found = run(who, one)
        sync()
        return found

    return Live(call, simulator.state)


def _label(world: World) -> Mapping[str, Json]:
    """The faults that a world's state shows, in the order of the table."""
    state = TOOLKIT.simulator(world).state()
    record, home = state["Desk"]["accounts"][str(world.options["account"])], state["Home"]
    return {
        "faults": [
            name
            for name, fault in FAULTS.items()
            if all(record[field] == value for field, value in fault.account.items())
            and all(home[field] == value for field, value in fault.home.items())
        ]
    }


def _played_with(user: User) -> Domain:
    return HELPDESK._replace(start=conversations(partial(_conversation, user)))


def _conversation(user: User, task: Task) -> Conversation:
    return conversation(task, user, blamed)
