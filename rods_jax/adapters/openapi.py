"""The operations of an OpenAPI document as a world of tools: user turns, gold calls and rules as ever.

    document = json.loads(Path("desk.json").read_text())
    DESK = openapi.domain("desk", document, openapi.http("http://127.0.0.1:8000"), begin="reset", state="read_state")

InfTool (arXiv 2512.23611) begins with API specifications, and lets a model play the service.  Here the service itself
answers, so that gold can be checked.  An operation becomes a tool whose parameters are those of its path, its query and
its JSON body together.  What a tool cannot express is refused by name, when the domain is made.

Left out on purpose: OpenAPI 2 and YAML (a parser makes a mapping of it first); forms, files and cookies; following
`links` and `callbacks`; checking answers against their schemas.
"""

import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

from rods_jax import strict_json, wire
from rods_jax.adapters.episodes import own_state
from rods_jax.environments.protocol import Domain
from rods_jax.environments.schemas import foreign
from rods_jax.environments.toolkit import MAX_RESPONSE_CHARACTERS
from rods_jax.files import require_object
from rods_jax.types import Call, Json, Observation, ToolSpec, World

MAX_TARGET = 8_000  # characters of path and query: what servers should take at least (RFC 9110, section 4.1)
MAX_REFERENCES = 10_000  # of a path, once all are filled in
METHODS = ("get", "put", "post", "delete", "patch")
STYLES = {"path": "simple", "query": "form"}  # how lists are written: those that hold where none is named
EPISODE = "rods-episode"  # header that tells a service which requests are of one episode

Send = Callable[[str, str, Json], tuple[int, str]]  # (method, path and query, body or None) -> (status, text)


class Operation(NamedTuple):
    """A tool, and where its arguments go."""

    spec: ToolSpec
    method: str
    path: str
    places: Mapping[str, str]  # parameter -> "path", "query", "joined" there, "body", or "whole": it is all of the body


class ServiceError(RuntimeError):
    """The service broke, not the policy."""


def domain(
    name: str, document: Mapping[str, Json], connect: Callable[[World], Send], *, begin: str = "", state: str = ""
) -> Domain:
    """A Domain of the document's operations; its one class has the domain's name.

    connect: opens the service for one episode, `http` or a function of one's own.  begin: an operation that sets up an
    episode; what a task's `world.state` holds under the class are its arguments, or its body as a whole.  state: one without parameters that returns
    an object, which is compared with the gold's.  Neither is shown to the policy.  ValueError: as for `operations`, or
    the document lacks one of these two.
    """
    found = operations(document, name)
    hidden = {tool for tool in (begin, state) if tool}
    if missing := sorted(hidden - found.keys()):
        raise ValueError(f"the OpenAPI document of {name} has no operation {missing[0]}")
    tools = {tool: one.spec for tool, one in found.items() if tool not in hidden}
    return Domain(name, tools, partial(_Simulator, name, found, frozenset(tools), connect, begin, state))


def http(url: str, *, headers: Mapping[str, str] = {}, timeout: float = 30.0) -> Callable[[World], Send]:
    """A service behind a URL, for `domain`; the header "rods-episode" tells its episodes apart.

    headers: with every request, a key for example.  timeout: seconds for each.
    """
    return partial(_connect, url.rstrip("/"), dict(headers), timeout)


def _connect(url: str, headers: Mapping[str, str], timeout: float, world: World) -> Send:
    own = {**headers, EPISODE: uuid.uuid4().hex}

    def send(method: str, target: str, body: Json) -> tuple[int, str]:
        content = b"" if body is None else json.dumps(body).encode()
        kind = {} if body is None else {"content-type": "application/json"}
        answer = wire.request(method, url + target, content, own | kind, timeout=timeout)
        return answer.status, answer.body.decode("utf-8", "replace")

    return send


# -------------------------------------------------------------------------------------- an episode
class _Simulator:
    """One episode's service as a world of tools."""

    def __init__(
        self,
        name: str,
        known: Mapping[str, Operation],
        offered: frozenset[str],
        connect: Callable[[World], Send],
        begin: str,
        state: str,
        world: World,
    ):
        self._name, self._known, self._offered, self._state = name, known, offered, state
        self._send = connect(world)
        if begin:
            own = own_state(world, name)
            self._succeed(begin, {"body": own} if "whole" in known[begin].places.values() else own)

    def call(self, call: Call) -> Observation:
        """The service's answer; a status other than 200 to 299 is a failed call. Raises what `connect` raises."""
        if call.name not in self._offered:
            return Observation(f"Error: unknown tool {call.name}", ok=False)
        answer = self._ask(call.name, call.arguments)
        return Observation(answer.text[:MAX_RESPONSE_CHARACTERS], answer.ok)

    def state(self) -> Mapping[str, Mapping[str, Json]]:
        if not self._state:
            return {}
        text, where = self._succeed(self._state, {}), f"the answer of the operation {self._state}"
        return {self._name: require_object(strict_json.loads(text, where), where)}

    def _succeed(self, tool: str, arguments: Mapping[str, Json]) -> str:
        answer = self._ask(tool, arguments)
        if not answer.ok:
            raise ServiceError(f"the operation {tool} failed: {answer.text[:200]}")
        return answer.text

    def _ask(self, tool: str, arguments: Mapping[str, Json]) -> Observation:
        operation = self._known[tool]
        try:
            request = request_of(operation, arguments)
        except ValueError as error:
            return Observation(f"Error: {error}", ok=False)
        status, text = self._send(*request)
        return Observation(text) if 200 <= status < 300 else Observation(f"Error {status}: {text}", ok=False)


def request_of(operation: Operation, arguments: Mapping[str, Json]) -> tuple[str, str, Json]:
    """(method, path and query, body or None) of a call.

    ValueError: an argument is unknown, missing, too long, or no path part.
    """
    places, needed = operation.places, operation.spec.parameters["required"]
    if unknown := [name for name in arguments if name not in places]:
        raise ValueError(f"unknown argument {unknown[0]}")
    if missing := [name for name in needed if name not in arguments]:
        raise ValueError(f"missing argument {missing[0]}")
    kinds = ("path", "query", "joined", "body")
    given = {place: {n: v for n, v in arguments.items() if places[n] == place} for place in kinds}
    path = operation.path
    for name, value in given["path"].items():
        part = ",".join(quote(_text(item), safe="", errors="replace") for item in _items(value))
        if part in ("", ".", ".."):  # another path than the operation's
            raise ValueError(f"argument {name} cannot be {part!r}")
        path = path.replace(f"{{{name}}}", part)
    pairs = [(key, [item]) for name, value in given["query"].items() for key, item in _pairs(name, value)]
    pairs += [(name, items) for name, value in given["joined"].items() if (items := _items(value))]
    query = "&".join(f"{_quoted(key)}={','.join(map(_quoted, items))}" for key, items in pairs)
    whole = next((value for name, value in arguments.items() if places[name] == "whole"), None)
    body = given["body"] if "body" in places.values() else whole
    target = path + ("?" + query if query else "")
    if len(target) > MAX_TARGET:
        raise ValueError(f"the arguments are too long for an address of {MAX_TARGET} characters")
    return operation.method.upper(), target, body


def _pairs(name: str, value: Json) -> list[tuple[str, Json]]:
    """What a query says of a parameter: each item of a list by its name, each field of an object by the field's own."""
    if isinstance(value, Mapping):
        return [(key, one) for key, one in value.items() if one is not None]
    return [(name, item) for item in _items(value)]


def _items(value: Json) -> list[Json]:
    if isinstance(value, list | tuple):
        return list(value)
    return [] if value is None else [value]  # null is no text: what is null is not sent


def _quoted(value: Json) -> str:
    return quote_plus(_text(value), errors="replace")


def _text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# ------------------------------------------------------------------------------------ the document
def operations(document: Mapping[str, Json], class_name: str) -> dict[str, Operation]:
    """The operations by tool name: the operationId, or method and path, as an identifier.

    ValueError, in a sentence that names the operation: no OpenAPI 3, no operation, two of one name, a parameter without
    a schema or in another style than the usual ones, two parameters of one name, a required header, cookie or body that
    is no JSON, a $ref to nowhere, or more of them than MAX_REFERENCES.
    """
    version = document.get("openapi") if isinstance(document, Mapping) else None
    if not (isinstance(version, str) and version.startswith("3.")):
        raise ValueError(f"the document of {class_name} is no OpenAPI 3: its field openapi is {version!r}")
    found: dict[str, Operation] = {}
    where = "paths"
    try:
        for path, item in document.get("paths", {}).items():
            item = _resolved(item, document, iter(range(MAX_REFERENCES)))
            for method in (one for one in METHODS if one in item):
                where = f"{method.upper()} {path}"
                operation = _operation(class_name, path, method, item[method], item.get("parameters", ()))
                if operation.spec.name in found:
                    raise ValueError(f"{where} is the second operation {operation.spec.name}")
                found[operation.spec.name] = operation
    except (AttributeError, TypeError) as error:
        raise ValueError(f"{where} is not what OpenAPI allows there: {error}") from error
    if not found:
        raise ValueError(f"the document of {class_name} has no operation")
    return found


def _operation(class_name: str, path: str, method: str, item: Mapping[str, Json], shared: Sequence[Any]) -> Operation:
    where = f"{method.upper()} {path}"
    name = re.sub(r"\W+", "_", item.get("operationId") or f"{method} {path}").strip("_")
    properties: dict[str, Json] = {}
    places: dict[str, str] = {}
    required: list[str] = []
    # What the path's item says of a parameter holds unless the operation says otherwise.
    parameters = {(one.get("name"), one.get("in")): one for one in (*shared, *item.get("parameters", ()))}
    for parameter, place, schema, needed in (*_given(where, parameters.values()), *_body(where, item)):
        if parameter in places:
            raise ValueError(f"{where} has two parameters {parameter}")
        properties[parameter], places[parameter] = schema, place
        required += [parameter] if needed else []
    if lost := [one for one in re.findall(r"\{([^{}]+)\}", path) if places.get(one) != "path"]:
        raise ValueError(f"{where} does not say what {lost[0]} in its path is")
    said = ". ".join(part.strip().rstrip(".") for key in ("summary", "description") if (part := item.get(key)))
    schema = foreign({"type": "object", "properties": properties, "required": required})
    return Operation(ToolSpec(name, said or where, schema, class_name, foreign(_response(item))), method, path, places)


def _given(where: str, parameters: Iterable[Mapping[str, Json]]) -> Iterator[tuple[str, str, Json, bool]]:
    """(name, place, schema, is it required) of the parameters of path and query; what is optional elsewhere is left out."""
    for parameter in parameters:
        name, place, needed = str(parameter.get("name")), parameter.get("in"), bool(parameter.get("required"))
        if place not in ("path", "query"):
            if needed:
                raise ValueError(f"{where} needs the {place} {name}, which no tool can give")
            continue
        if not isinstance(parameter.get("schema"), Mapping):
            raise ValueError(f"{where} does not say what type {name} has")
        if (style := parameter.get("style") or STYLES[place]) != STYLES[place]:
            raise ValueError(f"{where} wants {name} in the style {style}, in which nothing is sent here")
        described = {"description": parameter["description"]} if parameter.get("description") else {}
        sent = "joined" if place == "query" and parameter.get("explode") is False else place
        yield name, sent, dict(parameter["schema"]) | described, needed or place == "path"


def _body(where: str, item: Mapping[str, Json]) -> Iterator[tuple[str, str, Json, bool]]:
    """The same of the body: the properties of a JSON object, or all of it as one parameter, `body`."""
    body = item.get("requestBody", {})
    schema = _json_schema(body)
    needed = bool(body.get("required"))
    if schema is None:
        if needed:
            raise ValueError(f"{where} needs a body that is no JSON, which no tool can give")
    elif schema.get("properties"):
        for name, own in schema["properties"].items():
            yield name, "body", own, needed and name in schema.get("required", ())
    else:
        yield "body", "whole", schema, needed


def _response(item: Mapping[str, Json]) -> Mapping[str, Json]:
    """The schema of the first answer that is a success."""
    successes = (answer for status, answer in item.get("responses", {}).items() if str(status).startswith("2"))
    return next((schema for one in successes if (schema := _json_schema(one))), {})


def _json_schema(content: Mapping[str, Json]) -> Mapping[str, Json] | None:
    kinds = content.get("content", {})
    kind = next((one for one in kinds if re.match(r"application/([\w.]+\+)?json\b", one)), None)
    return None if kind is None else kinds[kind].get("schema", {})


def _resolved(value: Any, document: Mapping[str, Json], left: Iterator[int], within: tuple[str, ...] = ()) -> Any:
    """The value with its local $refs filled in and its allOf merged; a schema inside itself may be anything there.

    left: has an item for each $ref that may still be filled in: schemas that hold each other grow without measure.
    """
    if isinstance(value, list):
        return [_resolved(one, document, left, within) for one in value]
    if not isinstance(value, Mapping):
        return value
    if isinstance(reference := value.get("$ref"), str):
        if reference in within:
            return {}
        if next(left, None) is None:
            raise ValueError(f"the $ref {reference} is one of more than {MAX_REFERENCES} of a path, all filled in")
        named = _resolved(_looked_up(reference, document), document, left, (*within, reference))
        beside = {key: one for key, one in value.items() if key != "$ref"}
        if not beside or not isinstance(named, Mapping) or document["openapi"].startswith("3.0"):
            return named  # in 3.0 what stands beside it means nothing
        return _merged([named, _resolved(beside, document, left, within)])
    own = {key: _resolved(one, document, left, within) for key, one in value.items() if key != "allOf"}
    return _merged([*_resolved(value["allOf"], document, left, within), own]) if "allOf" in value else own


def _merged(parts: list[Mapping[str, Json]]) -> dict[str, Json]:
    """The schema of what fits all of the parts; of other keys than these two the last one counts."""
    schema: dict[str, Json] = {}
    for part in parts:
        properties = schema.get("properties", {}) | part.get("properties", {})
        required = [*schema.get("required", ()), *part.get("required", ())]
        schema |= part
        schema |= ({"properties": properties} if properties else {}) | ({"required": required} if required else {})
    return schema


def _looked_up(reference: str, document: Mapping[str, Json]) -> Any:
    if not reference.startswith("#/"):
        raise ValueError(f"the $ref {reference} leads out of the document: put what it names into it")
    found: Any = document
    for key in reference[2:].split("/"):
        key = key.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or key not in found:
            raise ValueError(f"the $ref {reference} leads nowhere")
        found = found[key]
    return found
