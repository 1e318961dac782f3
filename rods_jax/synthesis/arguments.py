"""Where a literal argument comes from: schema, domain, live state, earlier outputs, known examples, defaults.

Beyond a value's JSON type nothing is checked here: the simulator judges it, by running the call.
"""

import random
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.values import alternatives, can_flow, fields, has_type, parse_output
from rods_jax.types import Json, ToolSpec

MAX_STRING = 200  # characters of an argument, RODS section 5 stage IV
MAX_ITEMS = 5  # of a list argument

NUMBERS = (1, 2, 3, 4, 5, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 75, 100, 150, 200, 500)
TEXTS = (
    "The weekly summary is ready",
    "Please look at the latest numbers",
    "Meeting moved to Thursday",
    "Thanks for the quick reply",
    "The delivery arrived this morning",
    "Draft for the spring review",
    "Looking forward to the trip",
    "All checks are done",
)


class Sources(NamedTuple):
    """Values that may suit one parameter at one point of a dialogue, best source first."""

    choices: list[Json]  # an enumeration: nothing else will do
    examples: list[Json]
    matching: list[Json]  # in live state and earlier outputs, under a key that fits
    related: list[Json]  # there under any key, where nothing matches


def sources(tool: ToolSpec, parameter: str, visible: Sequence[Json], examples: Mapping[str, Sequence[Json]]) -> Sources:
    """Searches `visible`: the live state of the tool's class, and earlier outputs."""
    schema = tool.parameters["properties"][parameter]
    known = _usable(examples.get(parameter, ()), schema)
    matching = _usable([value for where in visible for value in _matching(where, parameter)], schema)
    related = []
    if not known and not matching:
        related = _usable([value for where in visible for value in _all_values(where)], schema)
    return Sources(described_choices(schema), known, matching, related)


def candidate(domain: Domain, tool: ToolSpec, parameter: str, rng: random.Random, found: Sources) -> Json:
    """One random value for a parameter, or None where no source has one."""
    schema = tool.parameters["properties"][parameter]
    if found.choices:
        return _pick(rng, found.choices, schema)
    if domain.sample_argument is not None and not (found.examples and rng.random() < 0.5):
        value = domain.sample_argument(rng, tool, parameter)
        if value is not None and is_modest(value):
            return value
    options = [values for values in (found.examples, found.matching, found.related) if values]
    if options and (domain.sample_argument is not None or rng.random() < 0.8):
        return rng.choice(rng.choice(options))
    return schema["default"] if schema.get("default") is not None else _free(rng, schema)


def described_choices(schema: Mapping[str, Json]) -> list[Json]:
    """The values of an enumeration: the schema's own, or those that its description lists after "[Enum]:"."""
    if "const" in schema:
        return [schema["const"]]
    if "enum" in schema:
        return list(schema["enum"])
    described = re.search(r"\[Enum\]:\s*(\[[^\]]*\]|[^.\[\]]+)", schema.get("description", ""))
    if described is None:
        return []
    listed = parse_output(described[1])
    if isinstance(listed, list):
        return listed
    text = described[1].strip(" []")
    quoted = re.findall(r"'[^']*'|\"[^\"]*\"", text)  # as Python writes a list
    choices = quoted if text.startswith(("'", '"')) and quoted else text.split(",")
    return [choice.strip(" \"'") for choice in choices if choice.strip(" \"'")]


def _pick(rng: random.Random, choices: Sequence[Json], schema: Mapping[str, Json]) -> Json:
    if schema.get("type") == "array":
        return rng.sample(list(choices), rng.randint(1, min(len(choices), MAX_ITEMS)))
    return rng.choice(list(choices))


def _matching(value: Json, parameter: str) -> Iterator[Json]:
    """Values under a key that fits the parameter, and keys of a container whose name is its plural."""
    stem = re.sub(r"_?(id|name|number)s?$", "", parameter) or parameter
    for key, item in fields(value):
        if can_flow(key, parameter):
            yield item
        if isinstance(item, Mapping) and key.rstrip("s").endswith(stem.rstrip("s")):
            yield from item


def _all_values(value: Json) -> Iterator[Json]:
    """Every value, and every key of a record; the name of a field is no value."""
    for key, item in fields(value):
        yield item
        if isinstance(item, Mapping):
            yield key


def _usable(values: Collection[Json], schema: Mapping[str, Json]) -> list[Json]:
    """Those of the schema's type and of modest size, integer keys of JSON objects turned back to integers."""
    usable: list[Json] = []
    for value in values:
        if schema.get("type") == "integer" and isinstance(value, str) and value.isdecimal() and is_modest(value):
            value = int(value)
        fits = value not in (None, "", [], {}) and has_type(value, schema) and is_modest(value)
        if fits and value not in usable:
            usable.append(value)
    return usable


def is_modest(value: Json) -> bool:
    """Strings of at most 200 characters and lists of at most 5 items, at every depth."""
    if isinstance(value, str):
        return len(value) <= MAX_STRING
    if isinstance(value, list | tuple):
        return len(value) <= MAX_ITEMS and all(map(is_modest, value))
    return not isinstance(value, Mapping) or all(map(is_modest, value.values()))


def _free(rng: random.Random, schema: Mapping[str, Json]) -> Json:
    if choices := described_choices(schema):
        return _pick(rng, choices, schema)
    if options := [one for one in alternatives(schema) if one.get("type") != "null"]:
        return _free(rng, rng.choice(options))
    match schema.get("type"):
        case "string":
            return rng.choice(TEXTS)
        case "integer":
            return rng.choice(NUMBERS)
        case "number":
            return float(rng.choice(NUMBERS))
        case "boolean":
            return rng.random() < 0.5
        case "array":
            items = [_free(rng, schema.get("items", {"type": "string"})) for _ in range(rng.randint(2, 4))]
            if None in items:
                return None
            return list(dict.fromkeys(items)) if all(isinstance(item, str) for item in items) else items
    return None
