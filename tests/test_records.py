"""Records as JSON and back: equal, strict, and wrong fields named by their path."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

from rods_jax.records import Form, RecordError, decode, encode
from rods_jax.types import Json


class Point(NamedTuple):
    x: int
    y: float = 0.5


@dataclass(frozen=True)
class Leaf:
    name: str
    fresh: bool = True
    note: str | None = None
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Tree:
    leaves: tuple[Leaf, ...]
    last: Point | None
    rows: tuple[tuple[int, ...], ...] = ()
    raw: Any = None


TREE = Tree((Leaf("a"), Leaf("b", False, "x", {"deep": [1, {"two": None}]})), Point(1, 2), ((1, 2), ()), [1.5])


def test_a_record_is_plain_json_and_comes_back_equal():
    written = encode(TREE)
    assert written == {
        "leaves": [
            {"name": "a", "fresh": True, "note": None, "extra": {}},
            {"name": "b", "fresh": False, "note": "x", "extra": {"deep": [1, {"two": None}]}},
        ],
        "last": [1, 2],
        "rows": [[1, 2], []],
        "raw": [1.5],
    }
    assert decode(Tree, json.loads(json.dumps(written))) == TREE
    assert decode(tuple[Point, ...], [[1], [2, 3]]) == (Point(1), Point(2, 3))


def test_what_has_a_default_may_be_missing_as_in_older_files():
    assert decode(Tree, {"leaves": [{"name": "a"}], "last": [3]}) == Tree((Leaf("a"),), Point(3))


def test_a_type_with_a_form_is_written_in_it_wherever_it_stands():
    forms = {Leaf: Form(lambda leaf: f"leaf {leaf.name}", lambda text: Leaf(text.removeprefix("leaf ")))}
    tree = Tree((Leaf("a"),), None)
    assert encode(tree, forms)["leaves"] == ["leaf a"]
    assert decode(Tree, encode(tree, forms), forms=forms) == tree


@pytest.mark.parametrize("change, words", [
    ({"leaves": 3}, "field pool.leaves must be a list: got 3"),
    ({"leaves": [{"name": "a"}, {"name": 1}]}, "field pool.leaves[1].name must be a string: got 1"),
    ({"leaves": [{"nam": "a"}]}, "unknown field pool.leaves[0].nam"),
    ({"leaves": [{}]}, "missing field pool.leaves[0].name"),
    ({"leaves": [{"name": "a", "fresh": 1}]}, "field pool.leaves[0].fresh must be true or false: got 1"),
    ({"leaves": [{"name": "a", "extra": []}]}, r"field pool.leaves[0].extra must be an object: got []"),
    ({"last": [True]}, "field pool.last.x must be an integer: got True"),
    ({"last": [1, "2"]}, "field pool.last.y must be a number: got '2'"),
    ({"last": [1, 2, 3]}, "field pool.last must be a Point's list: got [1, 2, 3]"),
    ({"last": []}, "missing field pool.last.x"),
    ({"rows": [[1], [None]]}, "field pool.rows[1][0] must be an integer: got None"),
])  # fmt: skip
def test_a_wrong_field_is_named_by_its_path(change, words):
    with pytest.raises(RecordError) as refused:
        decode(Tree, encode(TREE) | change, "pool")
    assert str(refused.value) == words


def test_a_record_that_is_none_at_all_has_no_path():
    with pytest.raises(RecordError, match=r"^it must be an object: got \[\]$"):
        decode(Tree, [])
