"""Type hints as JSON schemas, and JSON as the objects that hints name; a hint without a schema is refused by name."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Required,
    TypedDict,
)

import pytest

pydantic = pytest.importorskip("pydantic")

from rods_jax.adapters.mcp_tools import spec_of  # noqa: E402
from rods_jax.codecs.documents import tool_line, tool_signature  # noqa: E402
from rods_jax.environments import toolkit  # noqa: E402
from rods_jax.environments.schemas import foreign, kind_of  # noqa: E402
from rods_jax.synthesis.arguments import sources  # noqa: E402
from rods_jax.synthesis.values import schema_fields  # noqa: E402
from rods_jax.types import Call, World  # noqa: E402


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.StrEnum):
    BIG = "big"


class Corner(enum.Enum):
    LEFT = (0, 0)
    RIGHT = (1, 0)


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    colour: Colour = Colour.RED
    tags: list[str] = dataclasses.field(default_factory=list)


class Place(NamedTuple):
    x: int
    name: str


class Item(TypedDict):
    name: str
    note: NotRequired[str]
    size: NotRequired[Annotated[Size, "how big"]]


class Partial(TypedDict, total=False):
    name: Required[str]
    note: str


class Wider(Item):
    price: float


class Inner(pydantic.BaseModel):
    title: str


class Model(pydantic.BaseModel):
    a: int
    inner: Inner
    several: list[Inner] = []


Id = NewType("Id", int)
STRING, INTEGER = {"type": "string"}, {"type": "integer"}
COLOUR = {"type": "string", "enum": ["red", "blue"]}


@pytest.mark.parametrize(
    "hint, schema, value, read",
    [
        (Colour, COLOUR, "blue", Colour.BLUE),
        (Size, {"type": "string", "enum": ["big"]}, "big", Size.BIG),
        (Corner, {"type": "string", "enum": ["LEFT", "RIGHT"]}, "RIGHT", Corner.RIGHT),
        (Level, {"type": "integer", "enum": [1]}, 1.0, Level.LOW),
        (Literal[Colour.RED, "none"], {"type": "string", "enum": ["red", "none"]}, "red", Colour.RED),
        (Optional[Colour], {"anyOf": [COLOUR, {"type": "null"}]}, None, None),
        (list[Colour], {"type": "array", "items": COLOUR}, ["red"], [Colour.RED]),
        (list, {"type": "array"}, [1, "a"], [1, "a"]),
        (dict, {"type": "object"}, {"a": [1]}, {"a": [1]}),
        (Sequence[str], {"type": "array", "items": STRING}, ["a"], ["a"]),
        (Mapping[str, int], {"type": "object", "additionalProperties": INTEGER}, {"a": 1.0}, {"a": 1}),
        (
            dict[Colour, int],
            {"type": "object", "additionalProperties": INTEGER, "propertyNames": {"enum": ["red", "blue"]}},
            {"red": 1},
            {Colour.RED: 1},
        ),
        (tuple[int, ...], {"type": "array", "items": INTEGER}, [1, 2], (1, 2)),
        (tuple[int, int], {"type": "array", "items": INTEGER, "minItems": 2, "maxItems": 2}, [1, 2], (1, 2)),
        (
            tuple[int, str],
            {"type": "array", "prefixItems": [INTEGER, STRING], "minItems": 2, "maxItems": 2},
            [1, "a"],
            (1, "a"),
        ),
        (set[int], {"type": "array", "items": INTEGER, "uniqueItems": True}, [1, 2], {1, 2}),
        (Id, INTEGER, 4, 4),
        (Annotated[int, "how many"], INTEGER, 4, 4),
        (int | float, {"anyOf": [INTEGER, {"type": "number"}]}, 1.0, 1.0),
        (float | int, {"anyOf": [{"type": "number"}, INTEGER]}, 1, 1),
        (float, {"type": "number"}, 20, 20.0),
        (float, {"type": "number"}, 10**400, 10**400),
        (object, {}, [None], [None]),
        (
            Place,
            {"type": "array", "prefixItems": [INTEGER, STRING], "minItems": 2, "maxItems": 2},
            [1, "a"],
            Place(1, "a"),
        ),
        (
            Point,
            {
                "type": "object",
                "properties": {"x": INTEGER, "colour": COLOUR, "tags": {"type": "array", "items": STRING}},
                "required": ["x"],
            },
            {"x": 1, "colour": "blue"},
            Point(1, Colour.BLUE),
        ),
        (
            Item,
            {
                "type": "object",
                "properties": {"name": STRING, "note": STRING, "size": {"type": "string", "enum": ["big"]}},
                "required": ["name"],
            },
            {"name": "a", "size": "big"},
            {"name": "a", "size": Size.BIG},
        ),
        (
            Partial,
            {"type": "object", "properties": {"name": STRING, "note": STRING}, "required": ["name"]},
            {"name": "a"},
            {"name": "a"},
        ),
        (
            Model,
            {
                "type": "object",
                "properties": {
                    "a": INTEGER,
                    "inner": (inner := {"type": "object", "properties": {"title": STRING}, "required": ["title"]}),
                    "several": {"type": "array", "items": inner, "default": []},
                },
                "required": ["a", "inner"],
            },
            {"a": 1, "inner": {"title": "t"}},
            Model(a=1, inner=Inner(title="t")),
        ),
    ],
    ids=str,
)
def test_a_hint_has_a_schema_and_its_json_becomes_the_object(hint, schema, value, read):
    kind = kind_of(hint, "X.f")
    assert kind.schema == schema
    found = kind.read(value, "x")
    assert found == read and type(found) is type(read)


def test_fields_that_a_class_inherits_keep_their_own_qualifiers():
    assert kind_of(Wider, "X.f").schema["required"] == ["name", "price"]


@pytest.mark.parametrize(
    "hint, value, complaint",
    [
        (Colour, "green", "x must be one of red, blue"),
        (Corner, [0, 0], "x must be one of LEFT, RIGHT"),
        (Level, True, "x must be one of 1"),
        (tuple[int, int], [1], "x must hold 2 items"),
        (tuple[int, int], [1, "a"], "x must be integer"),
        (Point, {"colour": "red"}, "missing argument x"),
        (Point, {"x": 1, "y": 2}, "unknown argument y"),
        (Mapping[str, int], {"a": "b"}, "x must be integer"),
        (dict[Literal["a"], int], {"b": 1}, "x must be one of a"),
        (Model, {"a": "one", "inner": {"title": "t"}}, "x.a: Input should be a valid integer"),
        (Model, {"a": 1, "inner": {}}, "x.inner.title: Field required"),
        (int, 1e999, "x must be integer"),
        (float, float("nan"), "x must be number"),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_is_refused_in_few_words(hint, value, complaint):
    with pytest.raises(ValueError, match=rf"^{complaint}") as refused:
        kind_of(hint, "X.f").read(value, "x")
    assert "\n" not in str(refused.value)


class Node(TypedDict):
    name: str
    children: list[Node]


@dataclasses.dataclass
class Branch:
    parent: Branch | None = None


class Tree(pydantic.BaseModel):
    children: list[Tree] = []


@dataclasses.dataclass
class Seeded:
    seed: dataclasses.InitVar[int]
    value: int = 0


class Empty(enum.Enum):
    pass


@pytest.mark.parametrize(
    "hint, complaint",
    [
        (Node, "Node refers to itself"),
        (Branch, "Branch refers to itself"),
        (Tree, "Tree refers to itself"),
        ("NoSuchClass", "name 'NoSuchClass' is not defined"),
        ("list[", "cannot be resolved"),
        (complex, "complex has no JSON schema"),
        (datetime.date, "date has no JSON schema"),
        (bytes, "bytes has no JSON schema"),
        (Callable[[int], str], "no JSON schema"),
        (Iterator[int], "no JSON schema"),
        (dict[int, str], "no JSON schema"),
        (Literal[b"x"], "no JSON schema"),
        (Empty, "Empty has no JSON schema"),
        (Seeded, "Seeded is not made of its fields alone"),
        (collections.namedtuple("Bare", "x"), "Bare has no JSON schema"),
        (list[Node], "refers to itself"),
    ],
    ids=str,
)
def test_a_hint_without_a_schema_is_a_type_error_that_names_class_method_and_parameter(hint, complaint):
    class X:
        def f(self, x) -> str:
            """F."""

    X.f.__annotations__["x"] = hint
    with pytest.raises(TypeError, match=rf"^X\.f: parameter 'x'.*{complaint}"):
        toolkit.tool_specs(X)


class Shop:
    """Shop."""

    class Kind(enum.Enum):
        NEW = "new"

    def __init__(self, colour: Colour = Colour.RED, corners: tuple[int, ...] = ()):
        self.colour, self.corners = colour, corners

    def sell(self, item: Item, point: Point, kind: Kind, model: Model | None = None) -> Point:
        """Sells."""
        assert kind is Shop.Kind.NEW and (model is None or model.inner.title == "t")
        return dataclasses.replace(point, colour=self.colour, tags=[item["name"]])

    def odd_defaults(
        self,
        anything: Any,
        several: list[Any],
        count: int = None,
        colour: Colour = Colour.BLUE,
        point: Point = Point(3),
        limit: float = float("inf"),
        day: str = datetime.date(2020, 1, 1),
        unset: str = object(),
        names: Sequence[str] = ("a", "b"),
    ) -> Any:
        """Shows."""
        return count


def test_a_tool_gets_objects_and_answers_in_json():
    simulator = toolkit.simulator({"Shop": Shop})(World(("Shop",), {"Shop": {"colour": "blue", "corners": [1]}}))
    assert simulator.state() == {"Shop": {"colour": Colour.BLUE, "corners": (1,)}}
    arguments = {
        "item": {"name": "鐘"},
        "point": {"x": 1},
        "kind": "new",
        "model": {"a": 1, "inner": {"title": "t"}},
    }
    assert simulator.call(Call("sell", arguments)).text == '{"x": 1, "colour": "blue", "tags": ["鐘"]}'
    with pytest.raises(ValueError, match="colour must be one of red, blue"):
        toolkit.simulator({"Shop": Shop})(World(("Shop",), {"Shop": {"colour": "green"}}))


def test_defaults_are_shown_where_json_has_them_and_every_tool_can_be_printed():
    tool = {tool.name: tool for tool in toolkit.tool_specs(Shop)}["odd_defaults"]
    properties = tool.parameters["properties"]
    shown = {name: schema["default"] for name, schema in properties.items() if "default" in schema}
    point = {"x": 3, "colour": "red", "tags": []}
    assert shown == {"count": None, "colour": "blue", "point": point, "names": ["a", "b"]}
    assert properties["count"] == {"anyOf": [INTEGER, {"type": "null"}], "default": None}
    text = tool_signature(tool)
    assert "anything: any, several: array[any], count: integer | null = null" in text
    assert "limit: number = ..., day: string = ..." in text
    assert '"default": "blue"' in tool_line(tool)
    simulator = toolkit.simulator({"Shop": Shop})(World(("Shop",)))
    assert simulator.call(Call("odd_defaults", {"anything": 1, "several": [], "count": None})).ok


def test_a_default_that_its_own_hint_forbids_is_refused():
    class X:
        def f(self, x: int = "a") -> str:
            """F."""

    with pytest.raises(TypeError, match="X.f: parameter 'x' has the default 'a', which its type hint does not"):
        toolkit.tool_specs(X)


# ------------------------------------------------------------------------------- schemas of others
ODD = {
    "type": "object",
    "title": None,
    "properties": {
        "any": True,
        "never": False,
        "list": {"type": "array", "items": True},
        "pair": {"type": "array", "items": [{"type": "string", "description": None}, True]},
        "one": {"anyOf": [{"type": "integer", "enum": None}, {"const": None}], "default": None},
    },
    "additionalProperties": False,
}


def test_somebody_elses_schema_becomes_one_as_ours():
    assert foreign(ODD) == {
        "type": "object",
        "properties": {
            "any": {},
            "never": {"not": {}},
            "list": {"type": "array", "items": {}},
            "pair": {"type": "array", "prefixItems": [{"type": "string"}, {}]},
            "one": {"anyOf": [{"type": "integer"}, {"const": None}], "default": None},
        },
        "additionalProperties": False,
    }


def test_values_are_found_for_the_tools_of_a_server_with_such_schemas():
    listed = SimpleNamespace(name="note", description=None, input_schema=ODD, output_schema={"properties": {"n": True}})
    tool = spec_of(listed, "Desk")
    seen = [{"any": "x", "list": ["x", 1], "pair": ["x", 2], "one": 3}]
    found = {name: sources(tool, name, seen, {}).matching for name in ("any", "list", "pair", "one")}
    assert found == {"any": ["x"], "list": [["x", 1]], "pair": [["x", 2]], "one": [3]}
    assert [*schema_fields(tool.response)] == ["n"]


def test_keys_of_a_models_mapping_are_described_without_references():
    class Shelf(pydantic.BaseModel):
        books: dict[Colour, int]

    keys = {"enum": ["red", "blue"], "type": "string"}
    books = {"additionalProperties": INTEGER, "propertyNames": keys, "type": "object"}
    assert kind_of(Shelf, "x").schema == {"properties": {"books": books}, "required": ["books"], "type": "object"}
