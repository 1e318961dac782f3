"""The desk of a library of things: who has what, who waits for it, and who owes what.

Public methods are the tools, and public attributes are the state that is scored.  A tool that cannot do what it was asked
raises before it changes anything.
"""

import random
from collections.abc import Sequence
from typing import Any, TypedDict

from rods_jax.environments import toolkit
from rods_jax.environments.protocol import Domain
from rods_jax.rewards import CALL_FAILED, progress_reward
from rods_jax.synthesis.pipeline import author_tasks
from rods_jax.types import Json, Task, ToolSpec, Trajectory

PEOPLE = ("ada", "ben", "cleo", "dora", "emil", "finn", "gwen", "hugo", "iris", "jonas")
TITLES = ("camera", "canoe", "drill", "guitar", "kite", "ladder", "loom", "piano", "saw", "tent", "trowel", "violin")


class ItemId(TypedDict):
    item_id: int


class Person(TypedDict):
    person: str


class Fee(TypedDict):
    fee: int


class Desk:
    """A desk that lends things."""

    def __init__(self, items: Sequence[dict[str, Any]] = (), fees: Sequence[dict[str, Any]] = ()):
        # {"item_id": int, "title": str, "person": who has it or "", "weeks": int, "holds": [str]}
        self.items = list(items)
        self.fees = list(fees)  # {"person": str, "fee": int}

    def find_item(self, title: str) -> ItemId:
        """Finds an item by its title.

        Args:
            title: What it is called.
        """
        return {"item_id": _one(self.items, "title", title)["item_id"]}

    def find_borrower(self, item_id: int) -> Person:
        """Finds the person who has an item.

        Args:
            item_id: The item.
        """
        return {"person": self._lent(item_id)["person"]}

    def lend_item(self, item_id: int, person: str) -> ItemId:
        """Lends an item for two weeks, to the first who waits for it where somebody waits.

        Args:
            item_id: The item.
            person: Who takes it.
        """
        item = _one(self.items, "item_id", item_id)
        if item["person"]:
            raise ValueError(f"{item['person']} has item {item_id}")
        if item["holds"] and item["holds"][0] != person:
            raise ValueError(f"{item['holds'][0]} waits for item {item_id}")
        item.update(person=person, weeks=2, holds=item["holds"][1:])
        return {"item_id": item_id}

    def renew_item(self, item_id: int) -> ItemId:
        """Lends an item for two more weeks, unless somebody waits for it.

        Args:
            item_id: The item.
        """
        item = self._lent(item_id)
        if item["holds"]:
            raise ValueError(f"{item['holds'][0]} waits for item {item_id}")
        item["weeks"] += 2
        return {"item_id": item_id}

    def return_item(self, item_id: int) -> Person:
        """Takes an item back.

        Args:
            item_id: The item.
        """
        item = self._lent(item_id)
        person = item["person"]
        item.update(person="", weeks=0)
        return {"person": person}

    def hold_item(self, item_id: int, person: str) -> ItemId:
        """Puts a person on the list of those who wait for an item that is lent.

        Args:
            item_id: The item.
            person: Who waits.
        """
        item = self._lent(item_id)
        if person in (item["person"], *item["holds"]):
            raise ValueError(f"{person} has item {item_id} or waits for it already")
        item["holds"].append(person)
        return {"item_id": item_id}

    def charge_fee(self, person: str, fee: int) -> Fee:
        """Adds a fee to what a person owes.

        Args:
            person: Who owes it.
            fee: How much.
        """
        owed = next((one for one in self.fees if one["person"] == person), None)
        if owed is None:
            self.fees.append(owed := {"person": person, "fee": 0})
        owed["fee"] += fee
        return {"fee": owed["fee"]}

    def settle_fees(self, person: str) -> Fee:
        """Takes all that a person owes.

        Args:
            person: Who pays.
        """
        owed = _one(self.fees, "person", person)
        self.fees.remove(owed)
        return {"fee": owed["fee"]}

    def _lent(self, item_id: int) -> dict[str, Any]:
        item = _one(self.items, "item_id", item_id)
        if not item["person"]:
            raise ValueError(f"nobody has item {item_id}")
        return item


def _one(records: list[dict[str, Any]], key: str, value: Any) -> dict[str, Any]:
    """The record whose `key` is `value`; ValueError if there is none."""
    for record in records:
        if record[key] == value:
            return record
    raise ValueError(f"no {key.replace('_', ' ')} {value}")


# ------------------------------------------------------------------- what an author of tasks must know
def sample_state(rng: random.Random, classes: Sequence[str]) -> dict[str, Json]:
    """A desk of three to five items, half of them lent, and two people who owe something."""
    count = rng.randint(3, 5)
    items = []
    for item_id, title in zip(rng.sample(range(10, 50), count), rng.sample(TITLES, count)):
        person, waiting = rng.sample(PEOPLE, 2)
        lent = rng.random() < 0.6
        holds = [waiting] if lent and rng.random() < 0.25 else []
        items.append(
            {
                "item_id": item_id,
                "title": title,
                "person": person if lent else "",
                "weeks": 2 if lent else 0,
                "holds": holds,
            }
        )
    fees = [{"person": person, "fee": rng.randint(1, 9)} for person in rng.sample(PEOPLE, 2)]
    return {"Desk": {"items": items, "fees": fees}}


def sample_argument(rng: random.Random, tool: ToolSpec, parameter: str) -> Json:
    """A value that anyone may choose; None where it must name something that is there."""
    if parameter == "fee":
        return rng.randint(1, 9)
    if parameter == "person" and tool.name != "settle_fees":
        return rng.choice(PEOPLE)
    return None


# A user's words for each tool; {item_id} reads "item 41", or "that item" where the call before found it.
PHRASES = {
    "find_item": ("is there a {title} here?", "look for the {title}", "find the {title}"),
    "find_borrower": ("who has {item_id} now?", "find out who has {item_id}"),
    "lend_item": ("lend {item_id} to {person}", "{person} takes {item_id}", "give {item_id} to {person}"),
    "renew_item": ("renew {item_id}", "{item_id} is needed for two more weeks"),
    "return_item": ("{item_id} is back", "take {item_id} back"),
    "hold_item": ("{person} waits for {item_id}", "put {person} on the list for {item_id}"),
    "charge_fee": ("charge {person} {fee}", "add {fee} to what {person} owes"),
    "settle_fees": ("{person} pays now", "take what {person} owes"),
}


def domain() -> Domain:
    """The class as a world of tools."""
    return toolkit.domain(
        "lending_desk",
        {"Desk": Desk},
        sample_state=sample_state,
        sample_argument=sample_argument,
        phrases=PHRASES,
        nouns={"item_id": "item"},
    )


def authored(count: int, seed: int) -> tuple[Task, ...]:
    """Tasks of two or three turns that the rule-based author writes of the class, each with gold calls that ran."""
    return author_tasks(
        domain(), count=count, rng=random.Random(seed), categories=("base",), turns=(2, 3), chain_length=(1, 2)
    )


# ------------------------------------------------------------------------------ what a rollout is worth
def reward(trajectory: Trajectory) -> float:
    """The share of the turns that are served, less 0.05 for each call that the desk refuses; at least 0."""
    refused = sum(step.code == CALL_FAILED for step in trajectory.steps)
    return max(0.0, progress_reward(trajectory) - 0.05 * refused)
