"""Stage I: a new sequence of tool names with the seed's profile (RODS section 5).

Stage II fills in the arguments as it executes; only a language model writes the narrative.
"""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.errors import NO_PATTERN, Rejected
from rods_jax.synthesis.profile import Links, Profile
from rods_jax.synthesis.values import Pair, can_flow, schema_fields
from rods_jax.types import ToolSpec

MAX_SPARES = 12  # tools tried in place of a planned one that cannot be executed
MAX_NODES = 2_000  # of the backtracking search


@dataclass(frozen=True)
class PlannedCall:
    """A tool to call, and spare tools of its class that fit the plan as well, in order of preference."""

    tool: str
    spares: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What to call in each turn that holds calls; which call's output must flow into which call."""

    turns: tuple[tuple[PlannedCall, ...], ...]
    links: Links = frozenset()
    pairs: tuple[Pair, ...] = ()  # (key, parameter) flows that names do not tell but the seed shows
    narrative: str = ""  # who wants what, and why; templates need none


def broken_flow(domain: Domain, tools: Sequence[str], links: Links, pairs: Collection[Pair]) -> str | None:
    """Why values cannot flow between these tools as the links say, by the names of what they return and take.

    Nothing is said of a tool whose outputs no schema describes.
    """
    into: dict[int, list[frozenset[str]]] = {}
    for producer, consumer in sorted(links):
        source, target = domain.tools[tools[producer]], domain.tools[tools[consumer]]
        if not any(True for _ in schema_fields(source.response)):
            continue
        flow = flowing(source, target, pairs)
        into.setdefault(consumer, []).append(flow)
        if not flow:
            return f"call {consumer} ({target.name}) takes nothing that call {producer} ({source.name}) returns"
        if len(frozenset().union(*into[consumer])) < len(into[consumer]):
            return f"call {consumer} ({target.name}) has no parameter left for what call {producer} returns"
    return None


def sample_plan(
    domain: Domain,
    profile: Profile,
    rng: random.Random,
    tool_weights: Mapping[str, float] | None = None,
    blocked: Collection[str] = (),
) -> Plan:
    """Draws tools by weight (1 where none is given), such that every link is possible by name.

    A tool comes twice in a turn only where the links need it: two look-ups, then a comparison.

    Raises Rejected("no_pattern"): the profile is not one of a category's, or no tools of the domain fit it.
    """
    missing = bool(domain.strata[profile.category].withholds)
    if profile.calls_per_turn.count(0) != missing or missing and profile.withheld_turn is None:
        raise Rejected(NO_PATTERN, f"calls per turn {profile.calls_per_turn} in category {profile.category}")
    turns = [classes for classes in profile.call_classes if classes]
    pairs = tuple(dict.fromkeys((edge.key, edge.parameter) for edge in profile.edges if edge.key))
    search = _Search(domain, turns, sorted(profile.links), pairs)
    orders = [search.order(class_name, rng, tool_weights or {}, blocked) for class_name in search.classes]
    chosen = search.first(orders)
    if chosen is None:
        search.repeats = True
        chosen = search.first(orders)
    if chosen is None:
        raise Rejected(NO_PATTERN, f"no tools fit classes {turns} with links {sorted(profile.links)}")
    calls = iter(search.with_spares(chosen, orders))
    return Plan(tuple(tuple(next(calls) for _ in turn) for turn in turns), profile.links, pairs)


class _Search:
    """Backtracking over positions; `fits` looks at one position given what is chosen elsewhere."""

    def __init__(self, domain: Domain, turns: Sequence[Sequence[str]], links, pairs: Collection[Pair]):
        self.domain = domain
        self.classes = [class_name for turn in turns for class_name in turn]
        self.turn_of = [index for index, turn in enumerate(turns) for _ in turn]
        self.links = links
        self.pairs = pairs
        self.repeats = False  # may a turn call a tool twice?
        self.flow_cache: dict[tuple[str, str], frozenset[str]] = {}

    def order(self, class_name: str, rng: random.Random, weights: Mapping[str, float], blocked) -> list[str]:
        """The tools of a class in weighted random order (Efraimidis and Spirakis 2006)."""
        keyed = []
        for tool in self.domain.tools_of((class_name,)):
            weight = weights.get(tool.name, 1.0)
            key = rng.random()  # drawn for every tool: a block must not shift the others' draws
            if weight > 0 and tool.name not in blocked:
                keyed.append((-(key ** (1 / weight)), tool.name))
        return [name for _, name in sorted(keyed)]

    def first(self, orders: Sequence[Sequence[str]]) -> list[str] | None:
        """Depth first, without recursion: plans of BFCL may hold dozens of calls."""
        chosen: list[str] = []
        branches: list[Iterator[str]] = [iter(orders[0])] if orders else []
        for _ in range(MAX_NODES):
            if len(chosen) == len(orders):
                return chosen
            tool = next((tool for tool in branches[-1] if self.fits(tool, len(chosen), chosen)), None)
            if tool is None:
                branches.pop()
                if not branches:
                    return None
                chosen.pop()
                continue
            chosen.append(tool)
            if len(chosen) < len(orders):
                branches.append(iter(orders[len(chosen)]))
        return None

    def fits(self, tool: str, position: int, chosen: Sequence[str]) -> bool:
        """Whether `tool` may stand at `position`: no repeat, and links possible with the tools chosen."""
        taken: list[frozenset[str]] = []
        for other, name in enumerate(chosen):
            same_turn = other != position and self.turn_of[other] == self.turn_of[position]
            if same_turn and name == tool and not self.repeats:
                return False
        for producer, consumer in self.links:
            if consumer == position and producer < len(chosen):
                taken.append(self.flow(chosen[producer], tool))
            elif producer == position and consumer < len(chosen):
                if not self.flow(tool, chosen[consumer]):
                    return False
            elif producer == position and not self.flows_into_class(tool, self.classes[consumer]):
                return False
        return all(taken) and len(frozenset().union(*taken)) >= len(taken)

    def flow(self, producer: str, consumer: str) -> frozenset[str]:
        """Parameters of `consumer` that an output of `producer` may fill."""
        if (producer, consumer) not in self.flow_cache:
            tools = self.domain.tools
            self.flow_cache[producer, consumer] = flowing(tools[producer], tools[consumer], self.pairs)
        return self.flow_cache[producer, consumer]

    def flows_into_class(self, producer: str, class_name: str) -> bool:
        return any(self.flow(producer, tool.name) for tool in self.domain.tools_of((class_name,)))

    def with_spares(self, chosen: Sequence[str], orders: Sequence[Sequence[str]]) -> list[PlannedCall]:
        planned = []
        for position, name in enumerate(chosen):
            spares = [tool for tool in orders[position] if tool != name and self.fits(tool, position, chosen)]
            planned.append(PlannedCall(name, tuple(spares[:MAX_SPARES])))
        return planned


def flowing(producer: ToolSpec, consumer: ToolSpec, pairs: Collection[Pair] = ()) -> frozenset[str]:
    """Parameters of `consumer` that take something which `producer` returns, as their names and `pairs` tell."""
    same_class = producer.class_name == consumer.class_name
    own = producer.parameters.get("properties", {})
    # What a tool merely echoes is no news: the user, or an earlier call, has named it.
    keys = {key for key in schema_fields(producer.response) if not any(can_flow(key, name) for name in own)}
    return frozenset(
        parameter
        for parameter in consumer.parameters.get("properties", {})
        if any(can_flow(key, parameter, pairs, same_class) for key in keys)
    )
