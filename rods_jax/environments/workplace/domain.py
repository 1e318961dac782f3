"""WORKPLACE: the six classes as a Domain, the values that they are filled with, and how thinly the seeds cover them.

The synthesis stages write the tasks, seeds and variants alike, from what is here.
"""

import random
from collections.abc import Collection, Mapping, Sequence

from rods_jax.environments import toolkit
from rods_jax.environments.workplace.accounts import Accounts
from rods_jax.environments.workplace.calendar import Calendar
from rods_jax.environments.workplace.files import Files
from rods_jax.environments.workplace.messages import Messages
from rods_jax.environments.workplace.orders import Orders
from rods_jax.environments.workplace.phrases import NOUNS, PHRASES
from rods_jax.environments.workplace.tickets import Tickets
from rods_jax.environments.workplace.vocabulary import DAYS, ITEMS, PEOPLE, PRIORITIES, ROOMS, WORDS
from rods_jax.types import Json, ToolSpec

_FREE_VALUES: Mapping[str, Sequence[Json]] = {
    "amount": range(1, 100),
    "item": ITEMS,
    "new_name": WORDS,
    "person": PEOPLE,
    "quantity": range(1, 10),
    "title": WORDS,
    "topic": WORDS,
}
# These look something up, so only what is there will do.
_LOOKUPS = frozenset(
    {
        ("find_account", "person"),
        ("find_event", "title"),
        ("find_message", "person"),
        ("find_ticket", "title"),
        ("transfer_money", "person"),
    }
)


# --------------------------------------------------------------------------------- arguments
def sample_argument(rng: random.Random, tool: ToolSpec, parameter: str) -> Json:
    """A value that anyone may choose; None where it must name something in the state or an output."""
    choices = tool.parameters["properties"][parameter].get("enum") or _FREE_VALUES.get(parameter)
    if choices is None or (tool.name, parameter) in _LOOKUPS:
        return None
    return rng.choice(choices)


# ------------------------------------------------------------------------------ initial states
def sample_state(rng: random.Random, classes: Sequence[str]) -> dict[str, Json]:
    """A random initial state of each class: three to five records, so that most tools can act.

    Ids of records lie in 10..49 and new ids start in 50..89: two digits, and none can be guessed.
    """
    return {class_name: _SAMPLERS[class_name](rng) for class_name in classes}


def _ids(rng: random.Random) -> list[int]:
    return rng.sample(range(10, 50), rng.randint(3, 5))


def _next_id(rng: random.Random) -> int:
    return rng.randrange(50, 90)


def _sample_files(rng: random.Random) -> dict[str, Json]:
    names = rng.sample(WORDS, rng.randint(3, 5))
    return {
        "files": [
            {
                "file_name": name,
                "lines": rng.sample(WORDS, rng.randint(0, 2)),
                "shared_with": rng.sample(PEOPLE, rng.choice((0, 0, 1))),
            }
            for name in names
        ],
        "open_name": rng.choice(("", "", names[0])),
    }


def _sample_messages(rng: random.Random) -> dict[str, Json]:
    ids = _ids(rng)
    return {
        "messages": [
            {
                "message_id": message_id,
                "person": person,
                "topic": rng.choice(WORDS),
                "priority": rng.choice(PRIORITIES),
                "state": rng.choice(("new", "read", "sent")),
            }
            for message_id, person in zip(ids, rng.sample(PEOPLE, len(ids)))
        ],
        "signed_in": rng.choice(("", rng.choice(PEOPLE), rng.choice(PEOPLE))),
        "next_message_id": _next_id(rng),
    }


def _sample_tickets(rng: random.Random) -> dict[str, Json]:
    ids = _ids(rng)
    return {
        "tickets": [
            {
                "ticket_id": ticket_id,
                "title": title,
                "priority": rng.choice(PRIORITIES),
                "status": rng.choice(("open", "open", "closed")),
                "owner": rng.choice(("", rng.choice(PEOPLE), rng.choice(PEOPLE))),
                "comments": [],
            }
            for ticket_id, title in zip(ids, rng.sample(WORDS, len(ids)))
        ],
        "next_ticket_id": _next_id(rng),
    }


def _sample_orders(rng: random.Random) -> dict[str, Json]:
    # Distinct prices leave one cheapest item.
    stock: list[dict[str, Json]] = [
        {"item": item, "price": price, "stock": rng.choice((0, rng.randint(1, 30), rng.randint(1, 30)))}
        for item, price in zip(ITEMS, rng.sample(range(2, 2 + len(ITEMS)), len(ITEMS)))
    ]
    orders = []
    for order_id in _ids(rng):
        shelf, quantity = rng.choice(stock), rng.randint(1, 9)
        orders.append(
            {
                "order_id": order_id,
                "item": shelf["item"],
                "quantity": quantity,
                "amount": quantity * shelf["price"],
                "status": rng.choice(("placed", "paid", "shipped")),
            }
        )
    return {"stock": stock, "orders": orders, "next_order_id": _next_id(rng)}


def _sample_calendar(rng: random.Random) -> dict[str, Json]:
    ids = _ids(rng)
    places = rng.sample([(room, day) for room in ROOMS for day in DAYS], len(ids))
    return {
        "events": [
            {
                "event_id": event_id,
                "title": title,
                "day": day,
                "room": rng.choice(("", room)),
                "guests": rng.sample(PEOPLE, rng.randint(0, 2)),
            }
            for event_id, title, (room, day) in zip(ids, rng.sample(WORDS, len(ids)), places)
        ],
        "next_event_id": _next_id(rng),
    }


def _sample_accounts(rng: random.Random) -> dict[str, Json]:
    ids = _ids(rng)
    return {
        "accounts": [
            {
                "account_id": account_id,
                "person": person,
                "balance": rng.randint(1, 99),
                "status": rng.choice(("active", "active", "frozen")),
            }
            for account_id, person in zip(ids, rng.sample(PEOPLE, len(ids)))
        ],
        "next_account_id": _next_id(rng),
    }


_SAMPLERS = {
    "Files": _sample_files,
    "Messages": _sample_messages,
    "Tickets": _sample_tickets,
    "Orders": _sample_orders,
    "Calendar": _sample_calendar,
    "Accounts": _sample_accounts,
}

WORKPLACE = toolkit.domain(
    "workplace",
    {cls.__name__: cls for cls in (Files, Messages, Tickets, Orders, Calendar, Accounts)},
    sample_state=sample_state,
    sample_argument=sample_argument,
    phrases=PHRASES,
    nouns=NOUNS,
)


def tool_weights(thin_tools: Collection[str], weight: float) -> dict[str, float]:
    """How often a seed uses each tool: `weight` for thin ones (0: never), 1 for the others."""
    unknown = sorted(set(thin_tools) - set(WORKPLACE.tools))
    if unknown:
        raise ValueError(f"thin_tools: unknown tool {unknown[0]!r}")
    if not 0 <= weight <= 1:
        raise ValueError(f"thin_weight must lie in [0, 1], got {weight}")
    return {name: weight if name in thin_tools else 1.0 for name in WORKPLACE.tools}
