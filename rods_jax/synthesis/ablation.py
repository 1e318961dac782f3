"""Which calls depend on which, by experiment: leave one gold call out, run the rest, see whose responses change.

This finds effects on the state (a drawer must be open before it can be filled) and is blind to values that the gold
answer already spells out, so it complements the flow of values in profile.py; docs/why/variants.md compares them.
"""

from collections.abc import Callable

from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.profile import Links
from rods_jax.task_files import content_hash
from rods_jax.types import Task


def ablation_links(domain: Domain, task: Task) -> Links:
    """(left-out call, later call whose response changes), gold calls counted over the task."""
    complete = _responses(domain, task)
    return frozenset(
        (producer, consumer)
        for producer in range(len(complete))
        for consumer, text in enumerate(_responses(domain, task, left_out=producer))
        if consumer > producer and text != complete[consumer]
    )


def remembered_ablation(domain: Domain) -> Callable[[Task], Links]:
    """`ablation_links` of this domain that runs tasks of equal content (`content_hash`) once."""
    known: dict[str, Links] = {}

    def links(task: Task) -> Links:
        key = content_hash(task)
        if key not in known:
            known[key] = ablation_links(domain.of(task), task)
        return known[key]

    return links


def _responses(domain: Domain, task: Task, left_out: int | None = None) -> list[str | None]:
    simulator = domain.simulator(task.world)
    calls = (call for turn in task.turns for call in turn.gold)
    return [None if index == left_out else simulator.call(call).text for index, call in enumerate(calls)]
