"""The world of my_env: a to-do list, until you write your own.

Public methods are the tools, and public attributes are the state that is scored.  A tool that cannot do what it was asked
raises before it changes anything.
"""

import random
from collections.abc import Sequence
from typing import Any, TypedDict

from rods_jax.environments import toolkit
from rods_jax.environments.protocol import Domain
from rods_jax.rewards import progress_reward
from rods_jax.synthesis.pipeline import author_tasks
from rods_jax.types import Json, Task, ToolSpec, Trajectory

TITLES = ("bicycle", "curtain", "garden", "kitchen", "laundry", "letter", "passport", "piano", "supper", "window")


class EntryId(TypedDict):
    entry_id: int


class MyEnv:
    """A to-do list."""

    def __init__(self, entries: Sequence[dict[str, Any]] = ()):
        self.entries = list(entries)  # {"entry_id": int, "title": str, "done": bool}

    def find_entry(self, title: str) -> EntryId:
        """Finds an entry by its title.

        Args:
            title: What is to be done.
        """
        return {"entry_id": self._entry("title", title)["entry_id"]}

    def rename_entry(self, entry_id: int, new_title: str) -> EntryId:
        """Gives an entry another title.

        Args:
            entry_id: The entry.
            new_title: What is to be done instead.
        """
        self._entry("entry_id", entry_id)["title"] = new_title
        return {"entry_id": entry_id}

    def finish_entry(self, entry_id: int) -> EntryId:
        """Marks an entry as done.

        Args:
            entry_id: The entry.
        """
        entry = self._entry("entry_id", entry_id)
        if entry["done"]:
            raise ValueError(f"entry {entry_id} is done")
        entry["done"] = True
        return {"entry_id": entry_id}

    def _entry(self, key: str, value: Any) -> dict[str, Any]:
        for entry in self.entries:
            if entry[key] == value:
                return entry
        raise ValueError(f"no {key.replace('_', ' ')} {value}")


# ------------------------------------------------------------------- what an author of tasks must know
def sample_state(rng: random.Random, classes: Sequence[str]) -> dict[str, Json]:
    """A list of three to five entries, some of them done."""
    count = rng.randint(3, 5)
    ids, titles = rng.sample(range(10, 50), count), rng.sample(TITLES, count)
    entries = [{"entry_id": n, "title": title, "done": rng.random() < 0.3} for n, title in zip(ids, titles)]
    return {"MyEnv": {"entries": entries}}


def sample_argument(rng: random.Random, tool: ToolSpec, parameter: str) -> Json:
    """A value that anyone may choose; None where it must name something that is there."""
    return rng.choice(TITLES) if parameter == "new_title" else None


# A user's words for each tool; {entry_id} reads "entry 41", or "that entry" where the call before found it.
PHRASES = {
    "find_entry": ("find the {title}", "where is the {title}?"),
    "rename_entry": ("call {entry_id} {new_title} from now on", "{entry_id} should be {new_title}"),
    "finish_entry": ("{entry_id} is done", "tick off {entry_id}"),
}


def domain() -> Domain:
    """The class as a world of tools."""
    return toolkit.domain(
        "my_env",
        {"MyEnv": MyEnv},
        sample_state=sample_state,
        sample_argument=sample_argument,
        phrases=PHRASES,
        nouns={"entry_id": "entry"},
    )


def authored(count: int, seed: int) -> tuple[Task, ...]:
    """Tasks of two or three turns that the rule-based author writes of the class, each with gold calls that ran."""
    return author_tasks(
        domain(), count=count, rng=random.Random(seed), categories=("base",), turns=(2, 3), chain_length=(1, 2)
    )


# ------------------------------------------------------------------------------ what a rollout is worth
def reward(trajectory: Trajectory) -> float:
    """The share of the turns that are served, in [0, 1]: what the loop raises."""
    return progress_reward(trajectory)
