"""The complexity profile of a task: what a variant must share with its seed (RODS section 5).

Its edges are the flow of values, because a planner can promise those: which tools' outputs fit which arguments is known
before anything runs.  What a call's effect on the state changes later is measured after the fact (ablation.py).
Two profiles are compared part by part; no distance has weights to tune.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.values import atoms, can_flow, fields, is_atom, is_distinctive, mentions, parse_output
from rods_jax.types import Call, Json, Task

Links = frozenset[tuple[int, int]]  # (producer, consumer), calls counted over the task


class Edge(NamedTuple):
    """Call `consumer` takes as `parameter` what call `producer` returned as `key`; counted over the task."""

    producer: int
    consumer: int
    key: str
    parameter: str


@dataclass(frozen=True)
class Profile:
    """Structural difficulty of a task, free of its story, entities and values."""

    category: str
    classes: tuple[str, ...]
    call_classes: tuple[tuple[str, ...], ...]  # per turn, the class of every gold call
    edges: tuple[Edge, ...] = ()

    @property
    def calls_per_turn(self) -> tuple[int, ...]:
        return tuple(len(turn) for turn in self.call_classes)

    @property
    def withheld_turn(self) -> int | None:
        """The turn that cannot be served yet: empty, and followed by the turn that recovers its calls."""
        counts = self.calls_per_turn
        return next((turn for turn, count in enumerate(counts[:-1]) if not count and counts[turn + 1]), None)

    @property
    def links(self) -> Links:
        return frozenset((edge.producer, edge.consumer) for edge in self.edges)

    @property
    def depth(self) -> int:
        return longest_chain(sum(self.calls_per_turn), self.links)


def longest_chain(num_calls: int, links: Links) -> int:
    """Calls on the longest chain of links; 0 where there is no call. Every producer comes before its consumer."""
    length = [1] * num_calls
    for producer, consumer in sorted(links, key=lambda link: link[1]):
        length[consumer] = max(length[consumer], length[producer] + 1)
    return max(length, default=0)


Produced = tuple[Call, dict[str, list[Json]]]  # a call that ran, and the atoms of its output by key


def extract_profile(domain: Domain, task: Task) -> Profile:
    """Runs the gold calls and reads off the profile.

    An edge is literal flow: an argument that no user message so far has named and that an earlier output
    holds; its producer is the first such output. KeyError: a gold call of a tool that the domain lacks.
    """
    simulator = domain.simulator(task.world)
    edges: list[Edge] = []
    produced: list[Produced] = []
    text = ""
    for turn in task.turns:
        text += "\n" + turn.user
        for call in turn.gold:
            for parameter, argument in call.arguments.items():
                if any(True for _ in atoms(argument)) and not mentions(text, argument):
                    edge = first_edge(domain, produced, call, parameter, argument)
                    edges += [edge] if edge else []
            produced.append((call, atoms_by_key(parse_output(simulator.call(call).text))))
    call_classes = (tuple(domain.tools[call.name].class_name for call in turn.gold) for turn in task.turns)
    return Profile(task.category, tuple(task.world.classes), tuple(call_classes), tuple(edges))


def atoms_by_key(output: Json) -> dict[str, list[Json]]:
    """The strings and numbers of an output, by the key that they stand under."""
    by_key: dict[str, list[Json]] = {}
    for key, value in fields(output):
        if is_atom(value):
            by_key.setdefault(key, []).append(value)
    return by_key


def first_edge(domain: Domain, produced: Sequence[Produced], call: Call, parameter: str, argument: Json) -> Edge | None:
    """From the first call that returned the argument, under a key that fits or where that is no coincidence."""
    tool = domain.tools[call.name]
    wanted = list(atoms(argument))
    for producer, (source, by_key) in enumerate(produced):
        same_class = domain.tools[source.name].class_name == tool.class_name
        for key, values in by_key.items():
            named = can_flow(key, parameter, same_class=same_class)
            if all(atom in values and (named or is_distinctive(atom)) for atom in wanted):
                return Edge(producer, len(produced), key, parameter)
    return None


def profile_match(a: Profile, b: Profile) -> Mapping[str, bool | float]:
    """Part by part: booleans, and for edges |a & b| / |a | b|; all 1 where the profiles are equal."""
    union = a.links | b.links
    return {
        "category": a.category == b.category,
        "num_turns": len(a.call_classes) == len(b.call_classes),
        "calls_per_turn": a.calls_per_turn == b.calls_per_turn,
        "classes": a.call_classes == b.call_classes,
        "depth": a.depth == b.depth,
        "edges": len(a.links & b.links) / len(union) if union else 1.0,
    }
