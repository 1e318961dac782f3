"""Values as they stand in tool outputs and in user text; shared by all stages.

No text is evaluated: an output that is not JSON is one plain string.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from rods_jax.types import SCALARS, Json, ToolSpec

Pair = tuple[str, str]  # (key of an output, parameter that takes its value)


def parse_output(text: str) -> Json:
    """The JSON value that a tool returned, or its text where that is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def fields(value: Json, key: str = "") -> Iterator[tuple[str, Json]]:
    """Every (key, value) inside, outermost first; list items carry the key of their list."""
    if key:
        yield key, value
    if isinstance(value, SCALARS):
        return
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from fields(item, str(name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from fields(item, key)


def schema_fields(schema: Mapping[str, Json], key: str = "") -> Iterator[str]:
    """The keys that an output of this JSON schema can hold."""
    if key:
        yield key
    for name, item in schema.get("properties", {}).items():
        yield from schema_fields(item, name)
    if isinstance(schema.get("items"), Mapping):
        yield from schema_fields(schema["items"])
    for option in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from schema_fields(option)


def alternatives(schema: Mapping[str, Json]) -> Sequence[Mapping[str, Json]]:
    """The schemas of which a value has one, as `anyOf`, `oneOf` or several types say; of other schemas none."""
    if isinstance(kinds := schema.get("type"), list):
        return [{**schema, "type": kind} for kind in kinds]
    return schema.get("anyOf") or schema.get("oneOf") or ()


def is_atom(value: Json) -> bool:
    """A string or a number that identifies something; booleans and empty strings do not."""
    return isinstance(value, int | float | str) and not isinstance(value, bool) and value != ""


def atoms(value: Json) -> Iterator[Json]:
    """The strings and numbers inside a value."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from atoms(item)
    elif is_atom(value):
        yield value


def is_distinctive(value: Json) -> bool:
    """Whether meeting the same value twice is hardly a coincidence."""
    return len(str(value)) >= 3


def words(name: str) -> str:
    """`snake_case` or `camelCase` as plain lower-case words."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[_\s]+", " ", name).strip().lower()


def can_flow(key: str, parameter: str, pairs: Collection[Pair] = (), same_class: bool = True) -> bool:
    """Whether a value under `key` may fill `parameter`: equal names, observed pairs, `id` into `ticket_id`.

    A bare suffix such as `id` counts within one class only: a post's `id` is no `ticket_id`.
    """
    if key == parameter or (key, parameter) in pairs:
        return True
    return same_class and (parameter.endswith("_" + key) or key.endswith("_" + parameter))


def output_links(producer: ToolSpec, output: Json, consumer: ToolSpec, pairs: Collection[Pair]) -> dict[Pair, Json]:
    """(key, parameter) -> value: what `producer` returned once under a key, and `consumer` may take."""
    by_key: dict[str, list[Json]] = {}
    for key, value in fields(output):
        if value not in by_key.setdefault(key, []):
            by_key[key].append(value)
    same_class = producer.class_name == consumer.class_name
    links = {}
    for parameter, schema in consumer.parameters.get("properties", {}).items():
        for key, values in by_key.items():
            typed = [value for value in values if has_type(value, schema)]
            fitting = [value for value in typed if next(atoms(value), None) is not None]
            if len(fitting) == 1 and can_flow(key, parameter, pairs, same_class):
                links[key, parameter] = fitting[0]
    return links


def has_type(value: Json, schema: Mapping[str, Json]) -> bool:
    """Whether a value has the schema's type; an integer is a number, a boolean is neither."""
    if "enum" in schema:
        return value in schema["enum"]
    if options := alternatives(schema):
        return any(has_type(value, option) for option in options)
    match schema.get("type"):
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "array":
            return isinstance(value, list) and all(has_type(item, schema.get("items", {})) for item in value)
        case "object":
            return isinstance(value, Mapping)
        case "null":
            return value is None
    return True


# A letter or digit of a script that writes spaces between words. Thai, Lao, Burmese, Chinese, Japanese and Korean words
# touch what stands beside them.
_LETTER = r"[^\W\u0e00-\u0eff\u1000-\u109f\u3005-\u30ff\u3400-\u9fff\uac00-\ud7af]"


def tokens(text: str) -> list[str]:
    """Words and numbers in lower case; in scripts without spaces each letter."""
    return re.findall(rf"{_LETTER}+|\w", text.lower())


def holds(text: str, word: str, flags: int = 0) -> bool:
    """Whether a text holds a word that no letter or digit prolongs."""
    return re.search(rf"(?<!{_LETTER}){re.escape(word)}(?!{_LETTER})", text, flags) is not None


def mentions(text: str, value: Json) -> bool:
    """Whether user text names every string and number of a value; 5.0 is also written 5."""
    return all(_mentions_atom(text, atom) for atom in atoms(value))


def _mentions_atom(text: str, atom: Json) -> bool:
    if isinstance(atom, str):
        return holds(text, atom, re.IGNORECASE)
    written = re.escape(str(int(atom) if isinstance(atom, float) and atom.is_integer() else atom))
    number = rf"(?<!{_LETTER})(?<![.-]){written}(?:\.0+)?(?!{_LETTER}|\.\d)"
    return re.search(number, text.replace(",", " ")) is not None
