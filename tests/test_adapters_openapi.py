"""An OpenAPI document as a world of tools, against a real service on loopback."""

import contextlib
import copy
import json
import random
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from rods_jax.adapters import openapi
from rods_jax.dialogue import gold_player, play
from rods_jax.environments.episode import start_episodes
from rods_jax.environments.gold import check_gold
from rods_jax.environments.protocol import Failure
from rods_jax.strict_json import JsonError
from rods_jax.types import Call, Task, Turn, World

TICKET = {
    "type": "object",
    "properties": {"number": {"type": "integer"}, "title": {"type": "string"}, "after": {"$ref": "#/components/schemas/Ticket"}},
    "required": ["number"],
}  # fmt: skip
NEW = {
    "allOf": [
        {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]},
        {"properties": {"labels": {"type": "array", "items": {"type": "string"}}}},
    ]
}


def answered(schema):
    return {"200": {"description": "fine", "content": {"application/json; charset=utf-8": {"schema": schema}}}}


def sent(schema, required=True):
    return {"required": required, "content": {"application/json": {"schema": schema}}}


DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "A desk", "version": "1"},
    "paths": {
        "/tickets": {
            "get": {
                "operationId": "list-tickets",
                "summary": "Lists tickets.",
                "parameters": [
                    {"name": "label", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
                    {"name": "x-trace", "in": "header", "schema": {"type": "string"}},
                ],
                "responses": answered({"type": "object", "properties": {"tickets": {"type": "array"}}}),
            },
            "post": {
                "operationId": "openTicket",
                "summary": "Opens a ticket",
                "description": "Its number is returned.",
                "requestBody": {"$ref": "#/components/requestBodies/New"},
                "responses": answered({"$ref": "#/components/schemas/Ticket"}),
            },
        },
        "/tickets/{number}": {
            "parameters": [{"name": "number", "in": "path", "required": True, "schema": {"type": "integer"}, "description": "Which."}],
            "delete": {"responses": {"204": {"description": "gone"}}},
        },
        "/state": {
            "get": {"operationId": "read_state", "responses": answered({"type": "object"})},
            "put": {"operationId": "reset", "requestBody": sent({"type": "object"}), "responses": {}},
        },
    },
    "components": {"schemas": {"Ticket": TICKET}, "requestBodies": {"New": sent(NEW)}},
}  # fmt: skip


class Desk(BaseHTTPRequestHandler):
    """Keeps the tickets of each episode apart."""

    protocol_version = "HTTP/1.1"
    episodes: dict = {}

    def answer(self):
        size = int(self.headers.get("content-length", 0))
        body = json.loads(self.rfile.read(size)) if size else None
        tickets = self.episodes.setdefault(self.headers["rods-episode"], {})
        url = urlsplit(self.path)
        status, value = self.act(tickets, self.command, unquote(url.path), parse_qs(url.query), body)
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def act(self, tickets, method, path, query, body):
        wanted = set(query.get("label", ()))
        match method, path.split("/")[1:]:
            case "GET", ["state"]:
                return 200, tickets
            case "PUT", ["state"]:
                if body is None:
                    return 400, "no state"
                tickets.update(body)
                return 200, {}
            case "GET", ["tickets"]:
                return 200, {"tickets": [n for n, one in tickets.items() if wanted <= set(one.get("labels", ()))]}
            case "POST", ["tickets"]:
                tickets[str(len(tickets) + 1)] = body
                return 200, {"number": len(tickets)}
            case "DELETE", ["tickets", number] if number in tickets:
                del tickets[number]
                return 200, {}
        return 404, "no such ticket"

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def service():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Desk)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def desk():
    with service() as url:
        yield openapi.domain("desk", DOCUMENT, openapi.http(url, timeout=20.0), begin="reset", state="read_state")


TASK = Task(
    "d1",
    "d1",
    "base",
    World(("desk",), {"desk": {"1": {"title": "Lamp", "labels": ["urgent"]}}}),
    (
        Turn("Note a broken door, urgent.", (Call("openTicket", {"title": "Door", "labels": ["urgent"]}),)),
        Turn("What is urgent?", (Call("list_tickets", {"label": ["urgent"]}),)),
        Turn("Drop the lamp.", (Call("delete_tickets_number", {"number": 1}),)),
    ),
)


def test_the_document_becomes_tools(desk):
    assert list(desk.tools) == ["list_tickets", "openTicket", "delete_tickets_number"]
    opened = desk.tools["openTicket"]
    assert opened.description == "Opens a ticket. Its number is returned" and opened.class_name == "desk"
    assert opened.parameters == {
        "type": "object",
        "properties": {"title": {"type": "string"}, "labels": {"type": "array", "items": {"type": "string"}}},
        "required": ["title"],
    }
    assert opened.response["properties"]["after"] == {}  # a ticket inside a ticket may be anything
    assert list(desk.tools["list_tickets"].parameters["properties"]) == ["label"]  # no header
    dropped = desk.tools["delete_tickets_number"].parameters
    assert dropped["properties"] == {"number": {"type": "integer", "description": "Which."}}
    assert dropped["required"] == ["number"]


def test_a_schema_may_be_true_and_a_description_null():
    own = {"type": "object", "properties": {"a": True, "b": {"type": "string", "description": None}}}
    found = openapi.operations(changed([*TICKETS, "post", "requestBody"], sent(own)), "desk")
    assert found["openTicket"].spec.parameters["properties"] == {"a": {}, "b": {"type": "string"}}


def test_gold_passes_and_half_of_it_does_not(desk):
    check_gold(desk, [TASK])
    record = play(desk, TASK, 0, gold_player(TASK))
    assert all(record.rods) and record.state
    half = Task(**{**vars(TASK), "turns": (*TASK.turns[:2], Turn("Drop the lamp."))})
    assert play(desk, TASK, 0, gold_player(half)).rods == (True, True, False)


@pytest.mark.parametrize(
    "call, text",
    [
        (Call("openTicket", {}), "Error: missing argument title"),
        (Call("openTicket", {"title": "x", "colour": 1}), "Error: unknown argument colour"),
        (Call("delete_tickets_number", {"number": ".."}), "Error: argument number cannot be '..'"),
        (Call("delete_tickets_number", {"number": "1/../../state"}), 'Error 404: "no such ticket"'),
        (Call("delete_tickets_number", {"number": "\ud800"}), 'Error 404: "no such ticket"'),
        (Call("read_state"), "Error: unknown tool read_state"),
        (
            Call("delete_tickets_number", {"number": "\U0001f600" * 1_000}),
            "Error: the arguments are too long for an address of 8000 characters",
        ),
    ],
)
def test_what_a_policy_writes_is_an_observation(desk, call, text):
    simulator = desk.simulator(TASK.world)
    observation = simulator.call(call)
    assert (observation.ok, observation.text) == (False, text)
    assert simulator.state() == {"desk": TASK.world.state["desk"]}


def test_a_redirect_is_followed_by_nobody_and_fails_the_call():
    moved = openapi.domain("desk", DOCUMENT, lambda world: lambda *_: (307, ""))
    seen = moved.simulator(TASK.world).call(Call("openTicket", {"title": "x"}))
    assert (seen.text, seen.ok) == ("Error 307: ", False)


def test_a_service_that_is_gone_fails_the_rollout():
    with service() as url:
        gone = openapi.domain("desk", DOCUMENT, openapi.http(url, timeout=20.0), begin="reset", state="read_state")
    (opening,) = start_episodes(gone, [TASK]).openings
    assert isinstance(opening, Failure) and "ConnectionError" in opening.reason


@pytest.mark.parametrize("answer, why", [("[1]", "it must be an object: got"), ('{"a"', "column 5: not JSON")])
def test_a_state_that_is_no_object_fails_the_rollout(answer, why):
    odd = openapi.domain("desk", DOCUMENT, lambda world: lambda *_: (200, answer), state="read_state")
    with pytest.raises(JsonError, match=f"the answer of the operation read_state.*{why}"):
        odd.simulator(World(("desk",))).state()


def test_a_function_can_be_the_service():
    def connect(world):
        return lambda method, target, body: (200, json.dumps({"asked": f"{method} {target}", "body": body}))

    local = openapi.domain("desk", DOCUMENT, connect)
    simulator = local.simulator(World(("desk",)))
    told = json.loads(simulator.call(Call("list_tickets", {"label": ["a b", "c"]})).text)
    assert told == {"asked": "GET /tickets?label=a+b&label=c", "body": None}
    told = json.loads(simulator.call(Call("reset", {"body": {"1": {}}})).text)
    assert told == {"asked": "PUT /state", "body": {"1": {}}}
    broken = openapi.domain("desk", DOCUMENT, lambda world: lambda *_: (500, "down"), begin="reset")
    (opening,) = start_episodes(broken, [TASK]).openings
    assert "the operation reset failed: Error 500: down" in opening.reason


def test_a_state_of_another_class_is_refused_by_name():
    local = openapi.domain("desk", DOCUMENT, lambda world: lambda *_: (200, "{}"), begin="reset")
    bare = replace(TASK, world=World(("desk",), {"1": {"title": "Lamp"}}))
    (opening,) = start_episodes(local, [bare]).openings
    assert opening.reason == "ValueError: the domain has no class 1: its class is desk"


def changed(path, value):
    """The document with the value at a path of keys, or without it where the value is None."""
    document = copy.deepcopy(DOCUMENT)
    *inside, last = path
    place = document
    for key in inside:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return document


TICKETS = ("paths", "/tickets")


@pytest.mark.parametrize(
    "document, complaint",
    [
        ([], "the document of desk is no OpenAPI 3: its field openapi is None"),
        ({"swagger": "2.0"}, "the document of desk is no OpenAPI 3: its field openapi is None"),
        (changed(["openapi"], "2.0"), "the document of desk is no OpenAPI 3: its field openapi is '2.0'"),
        (changed(["paths"], {}), "the document of desk has no operation"),
        (changed(["paths"], []), "paths is not what OpenAPI allows there"),
        (changed([*TICKETS, "get", "parameters"], [3]), "GET /tickets is not what OpenAPI allows there"),
        (changed([*TICKETS, "get", "operationId"], "openTicket"), "POST /tickets is the second operation openTicket"),
        (changed(["components", "requestBodies"], None), "the $ref #/components/requestBodies/New leads nowhere"),
        (
            changed([*TICKETS, "post", "requestBody"], {"$ref": "other.json#/New"}),
            "the $ref other.json#/New leads out of the document",
        ),
        (
            changed([*TICKETS, "post", "requestBody"], {"required": True, "content": {"text/csv": {}}}),
            "POST /tickets needs a body that is no JSON, which no tool can give",
        ),
        (
            changed([*TICKETS, "get", "parameters", 1, "required"], True),
            "GET /tickets needs the header x-trace, which no tool can give",
        ),
        (changed([*TICKETS, "get", "parameters", 0, "schema"], None), "GET /tickets does not say what type label has"),
        (
            changed(["paths", "/tickets/{number}", "parameters"], None),
            "DELETE /tickets/{number} does not say what number in its path is",
        ),
        (
            {"openapi": "3.0.3", "paths": {"/x/{ticket-id}": {"get": {}}}},
            "GET /x/{ticket-id} does not say what ticket-id in its path is",
        ),
        (
            changed([*TICKETS, "get", "parameters", 0, "style"], "deepObject"),
            "GET /tickets wants label in the style deepObject, in which nothing is sent here",
        ),
        (
            changed([*TICKETS, "post", "parameters"], [{"name": "title", "in": "query", "schema": {}}]),
            "POST /tickets has two parameters title",
        ),
    ],
)
def test_what_cannot_become_a_tool_is_said_in_a_sentence(document, complaint):
    with pytest.raises(ValueError) as error:
        openapi.operations(document, "desk")
    assert str(error.value).startswith(complaint) and "\n" not in str(error.value)


def parameter(name, place="query", **how):
    return {"name": name, "in": place, "required": place == "path", "schema": {}} | how


@pytest.mark.parametrize(
    "how, value, target",
    [
        ({}, ["a b", "c,d"], "/x?l=a+b&l=c%2Cd"),  # by default each item is a pair of its own
        ({"explode": False}, ["a b", "c,d"], "/x?l=a+b,c%2Cd"),
        ({"style": "form", "explode": False}, [], "/x"),
        ({"explode": False}, 3, "/x?l=3"),
        ({}, {"R": 100, "G": [1], "B": None}, "/x?R=100&G=%5B1%5D"),
        ({}, None, "/x"),  # a query has no null: FastAPI would read the word
        ({"explode": False}, None, "/x"),
    ],
)
def test_lists_and_objects_are_sent_as_the_document_says(how, value, target):
    paths = {"/x": {"get": {"operationId": "x", "parameters": [parameter("l", **how)]}}}
    found = openapi.operations({"openapi": "3.0.3", "paths": paths}, "desk")
    assert openapi.request_of(found["x"], {"l": value}) == ("GET", target, None)


def test_a_list_in_a_path_has_commas():
    paths = {"/x/{l}": {"get": {"operationId": "x", "parameters": [parameter("l", "path")]}}}
    found = openapi.operations({"openapi": "3.0.3", "paths": paths}, "desk")
    assert openapi.request_of(found["x"], {"l": [1, "a,b"]}) == ("GET", "/x/1,a%2Cb", None)
    for nothing in ([], None):
        with pytest.raises(ValueError, match="argument l cannot be ''"):
            openapi.request_of(found["x"], {"l": nothing})


def test_what_stands_beside_a_reference_counts_from_3_1_on():
    """FastAPI writes a description and a default so; of OpenAPI 3.0 all of it is to be ignored."""
    schema = {"$ref": "#/components/schemas/C", "description": "Of the paint.", "default": "red"}
    paths = {"/x": {"get": {"operationId": "x", "parameters": [parameter("c", schema=schema)]}}}
    document = {"paths": paths, "components": {"schemas": {"C": {"type": "string", "description": "A colour."}}}}
    told = [
        openapi.operations(document | {"openapi": version}, "desk")["x"].spec.parameters["properties"]["c"]
        for version in ("3.0.3", "3.1.0")
    ]
    assert told == [
        {"type": "string", "description": "A colour."},
        {"type": "string", "description": "Of the paint.", "default": "red"},
    ]


def test_an_operation_for_the_harness_must_be_there():
    with pytest.raises(ValueError, match="the OpenAPI document of desk has no operation renew"):
        openapi.domain("desk", DOCUMENT, openapi.http("http://127.0.0.1:1"), begin="renew")


def test_schemas_that_hold_each_other_ever_again_are_refused_at_once():
    """Of n such schemas each holds all others: filled in they are n! copies."""
    everyone = {f"p{n}": {"$ref": f"#/components/schemas/S{n}"} for n in range(12)}
    named = {f"S{n}": {"properties": everyone} for n in range(12)}
    paths = {"/a": {"post": {"requestBody": sent({"$ref": "#/components/schemas/S0"})}}}
    with pytest.raises(ValueError, match="^the \\$ref #/components/schemas/S[0-9]+ is one of more than 10000 of"):
        openapi.operations({"openapi": "3.0.0", "paths": paths, "components": {"schemas": named}}, "x")


def test_a_broken_document_never_raises_anything_else():
    def broken(value, rng):
        if isinstance(value, dict):
            kept = {key: broken(one, rng) for key, one in value.items() if rng.random() > 0.03}
            return rng.choice([None, 7, "x", [], {}]) if rng.random() < 0.03 else kept
        return value

    refused = 0
    for seed in range(300):
        try:
            openapi.operations(
                {
                    "openapi": "3.0.0",
                    "paths": broken(DOCUMENT["paths"], random.Random(seed)),
                    "components": DOCUMENT["components"],
                },
                "desk",
            )
        except ValueError:
            refused += 1
    assert 50 < refused < 300
