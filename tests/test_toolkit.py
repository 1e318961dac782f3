"""The toolkit adapter: schemas from signatures, calls that always return, state that is never shared."""

import pickle
from typing import Any, Literal, NotRequired, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils import get_json_schema

from rods_jax.environments import toolkit
from rods_jax.types import Call, World


class Point(TypedDict):
    x: int
    label: NotRequired[str]


class Counter:
    """Counts."""

    def __init__(self, count: int = 0, log: list[str] | None = None, long_context: bool = False):
        self.count = count
        self.log = log if log is not None else []
        self._padding = " ..." if long_context else ""

    def add(self, amount: int, times: int = 1) -> dict[str, int]:
        """Adds to the count,
        several times if asked.

        Args:
            amount: How much to add; a note: it may be
                negative.
            times: How often.

        Returns:
            The new count.
        """
        if amount == 0:
            raise ValueError("nothing to add")
        self.count += amount * times
        return {"count": self.count}

    def scale(self, factor: float, rounding: Literal["up", "down"], exact: bool) -> str:
        """Scales.

        Args:
            factor: By how much.
            rounding: Which way.
            exact: Whether to be exact.
        """
        return f"scaled{self._padding}"

    def record(self, lines: list[str], places: list[Point], weights: dict[str, float]) -> int:
        """Records.

        Args:
            lines: What to record.
            places: Where.
            weights: How heavy.
        """
        self.log = lines
        return len(lines)

    def where(self, near: Point | None = None, level: Literal[1, 2] = 1, extra: Any = None) -> Point:
        """Tells where."""
        return {"x": level}

    def fail(self, how: Literal["type", "silent", "unprintable", "recursion"]) -> dict:
        """Fails.

        Args:
            how: In which way.
        """
        match how:
            case "type":
                raise TypeError("boom")
            case "silent":
                raise RuntimeError
            case "unprintable":
                return {"x": object()}
            case _:
                return self.fail(how)

    def shout(self, size: int) -> str:
        """Returns much text.

        Args:
            size: How much.
        """
        return "a" * size

    def echo(self, text: str) -> str:
        """Returns the text.

        Args:
            text: What to return.
        """
        return text

    def _hidden(self) -> str:
        return "secret"


class Loud(Counter):
    def add(self, amount: int) -> int:
        """Adds loudly.

        Args:
            amount: How much.
        """
        return self.count

    def extra(self) -> int:
        """Something more."""
        return 1


SPECS = {tool.name: tool for tool in toolkit.tool_specs(Counter)}
START = toolkit.simulator({"Counter": Counter})


def start(state=None, long_context=False):
    return START(World(("Counter",), {"Counter": state or {}}, {"long_context": long_context}))


# ----------------------------------------------------------------------------------- schemas
def test_schema_of_a_method_by_hand():
    tool = SPECS["add"]
    assert tool.description == "Adds to the count, several times if asked."
    assert tool.class_name == "Counter"
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "amount": {"type": "integer", "description": "How much to add; a note: it may be negative."},
            "times": {"type": "integer", "description": "How often.", "default": 1},
        },
        "required": ["amount"],
    }
    assert tool.response == {"type": "object", "additionalProperties": {"type": "integer"}}


def test_schema_of_every_kind_of_hint():
    point = {
        "type": "object",
        "properties": {"x": {"type": "integer"}, "label": {"type": "string"}},
        "required": ["x"],
    }
    assert SPECS["where"].response == point
    assert SPECS["where"].parameters["properties"] == {
        "near": {"anyOf": [point, {"type": "null"}], "default": None},
        "level": {"type": "integer", "enum": [1, 2], "default": 1},
        "extra": {"default": None},
    }
    record = SPECS["record"].parameters["properties"]
    assert record["lines"]["items"] == {"type": "string"}
    assert record["places"]["items"] == point
    assert record["weights"]["additionalProperties"] == {"type": "number"}
    scale = SPECS["scale"].parameters["properties"]
    assert scale["factor"]["type"] == "number" and scale["exact"]["type"] == "boolean"
    assert scale["rounding"]["enum"] == ["up", "down"]


@pytest.mark.parametrize("name", ["add", "scale", "fail", "shout", "echo"])
def test_schemas_agree_with_transformers(name):
    theirs = get_json_schema(getattr(Counter(), name))["function"]
    ours = SPECS[name].parameters["properties"]
    assert ours.keys() == theirs["parameters"]["properties"].keys()
    assert SPECS[name].parameters["required"] == theirs["parameters"]["required"]
    for parameter, schema in theirs["parameters"]["properties"].items():
        assert {key: value for key, value in ours[parameter].items() if key != "default"} == schema


def test_tools_are_the_public_methods_in_order_of_definition_overrides_included():
    assert list(SPECS) == ["add", "scale", "record", "where", "fail", "shout", "echo"]
    loud = toolkit.tool_specs(Loud)
    assert [tool.name for tool in loud] == [*SPECS, "extra"]
    assert loud[0].description == "Adds loudly." and loud[0].class_name == "Loud"


def _class_with(method):
    return type("Odd", (), {"method": method})


def _no_docstring(self, x: int): ...
def _no_hint(self, x):
    """Doc."""


def _variadic(self, *x: int):
    """Doc."""


def _untranslatable(self, x: complex):
    """Doc."""


def _integer_keys(self) -> dict[int, str]:
    """Doc."""


@pytest.mark.parametrize(
    "method, complaint",
    [
        (_no_docstring, "no docstring"),
        (_no_hint, "'x' has no type hint"),
        (_variadic, "'x' cannot be passed by name"),
        (_untranslatable, "complex"),
        (_integer_keys, "no JSON schema"),
    ],
)
def test_a_method_that_cannot_be_described_is_refused_by_name(method, complaint):
    with pytest.raises(TypeError, match=rf"Odd\.method.*{complaint}"):
        toolkit.tool_specs(_class_with(method))


# ------------------------------------------------------------------------------------- calls
def test_results_are_json_for_dicts_text_as_is_and_str_otherwise():
    simulator = start({"count": 4})
    assert simulator.call(Call("add", {"amount": 2, "times": 3})).text == '{"count": 10}'
    assert simulator.call(Call("scale", {"factor": 2, "rounding": "up", "exact": True})).text == "scaled"
    assert simulator.call(Call("record", {"lines": ["a"], "places": [], "weights": {}})).text == "1"
    assert simulator.state() == {"Counter": {"count": 10, "log": ["a"]}}


@pytest.mark.parametrize(
    "name, arguments, text",
    [
        ("nothing", {}, "unknown tool nothing"),
        ("_hidden", {}, "unknown tool _hidden"),
        ("__init__", {}, "unknown tool __init__"),
        (["add"], {}, "unhashable type"),
        ("add", None, "arguments must be object"),
        ("add", [1], "arguments must be object"),
        ("add", {1: 2}, "arguments must be object"),
        ("add", {}, "missing argument amount"),
        ("add", {"amount": 1, "self": 2}, "unknown argument self"),
        ("add", {"amount": "1"}, "amount must be integer"),
        ("add", {"amount": True}, "amount must be integer"),
        ("add", {"amount": 1.5}, "amount must be integer"),
        ("add", {"amount": float("inf")}, "amount must be integer"),
        ("add", {"amount": None}, "amount must be integer"),
        ("add", {"amount": 0}, "nothing to add"),
        ("scale", {"factor": False, "rounding": "up", "exact": True}, "factor must be number"),
        ("scale", {"factor": float("nan"), "rounding": "up", "exact": True}, "factor must be number"),
        ("scale", {"factor": 1.5, "rounding": "left", "exact": True}, "rounding must be one of up, down"),
        ("scale", {"factor": 1.5, "rounding": "up", "exact": 1}, "exact must be boolean"),
        ("record", {"lines": "a", "places": [], "weights": {}}, "lines must be array"),
        ("record", {"lines": ["a", 1], "places": [], "weights": {}}, "lines must be string"),
        ("record", {"lines": [], "places": [{"label": "a"}], "weights": {}}, "missing argument x"),
        ("record", {"lines": [], "places": [{"x": 1, "y": 2}], "weights": {}}, "unknown argument y"),
        ("record", {"lines": [], "places": [], "weights": {"a": "b"}}, "weights must be number"),
        ("where", {"near": 3}, "near has the wrong type"),
        ("where", {"level": True}, "level must be one of 1, 2"),
        ("fail", {"how": "type"}, "boom"),
        ("fail", {"how": "silent"}, "RuntimeError"),
        ("fail", {"how": "unprintable"}, "Object of type object is not JSON serializable"),
        ("fail", {"how": "recursion"}, "maximum recursion depth"),
    ],
)
def test_whatever_goes_wrong_is_an_observation(name, arguments, text):
    simulator = start()
    observation = simulator.call(Call(name, arguments))
    assert not observation.ok
    assert observation.text.startswith(f"Error: {text}")
    assert simulator.state() == {"Counter": {"count": 0, "log": []}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(sorted(SPECS)), st.lists(JSON, max_size=4), st.dictionaries(st.text(), JSON))
def test_hostile_arguments_never_raise_and_a_failed_call_changes_nothing(name, values, extra):
    simulator = start()
    arguments = dict(zip(SPECS[name].parameters["properties"], values)) | extra
    observation = simulator.call(Call(name, arguments))
    observation.text.encode("utf-8")
    if not observation.ok:
        assert observation.text.startswith("Error: ")
        assert simulator.state() == {"Counter": {"count": 0, "log": []}}


def test_a_whole_number_is_an_integer_as_json_schema_has_it():
    simulator = start()
    assert simulator.call(Call("add", {"amount": 2.0, "times": 3})).text == '{"count": 6}'
    assert type(simulator.state()["Counter"]["count"]) is int
    assert simulator.call(Call("where", {"level": 2.0})).text == '{"x": 2}'


def test_text_is_bounded_and_encodable():
    simulator = start()
    limit = toolkit.MAX_RESPONSE_CHARACTERS
    assert simulator.call(Call("shout", {"size": limit})).text == "a" * limit
    cut = simulator.call(Call("shout", {"size": limit + 1})).text
    assert len(cut) == limit and cut.endswith("a...")
    assert simulator.call(Call("echo", {"text": "a\ud800"})).text == "a?"
    assert len(simulator.call(Call("x" * 10**6, {})).text) == limit


# ------------------------------------------------------------------------------------- state
def test_nothing_is_shared_with_the_initial_state_the_call_or_another_simulator():
    state, lines = {"log": ["old"]}, ["new"]
    first, second = start(state), start(state)
    first.state()["Counter"]["log"].append("changed")
    assert state == {"log": ["old"]} and second.state()["Counter"]["log"] == ["old"]
    first.call(Call("record", {"lines": lines, "places": [], "weights": {}}))
    first.state()["Counter"]["log"].append("changed")
    assert lines == ["new"]


def test_a_simulator_survives_pickling_and_then_leads_its_own_life():
    simulator = start({"count": 3}, long_context=True)
    twin = pickle.loads(pickle.dumps(simulator))
    simulator.call(Call("add", {"amount": 1}))
    assert twin.state()["Counter"]["count"] == 3
    assert twin.call(Call("add", {"amount": 1})).text == '{"count": 4}'
    assert pickle.loads(pickle.dumps(START))(World(("Counter",))).state()["Counter"]["count"] == 0


def test_long_context_reaches_only_a_constructor_that_asks_for_it():
    call = Call("scale", {"factor": 1, "rounding": "up", "exact": False})
    assert start().call(call).text == "scaled"
    assert start(long_context=True).call(call).text == "scaled ..."
    assert start(long_context=True).state() == start().state()

    class Plain:
        def tell(self) -> str:
            """Tells."""
            return "told"

    plain = toolkit.simulator({"Plain": Plain})(World(("Plain",), {}, {"long_context": True}))
    assert plain.call(Call("tell")).text == "told"


def test_only_the_tools_of_the_chosen_classes_answer():
    class Other:
        def ping(self) -> str:
            """Pings."""
            return "pong"

    both = toolkit.simulator({"Counter": Counter, "Other": Other})
    assert both(World(("Other",))).call(Call("ping")).ok
    assert not both(World(("Counter",))).call(Call("ping")).ok


def test_a_state_that_does_not_fit_the_constructor_is_refused():
    with pytest.raises(TypeError, match="unknown"):
        start({"unknown": 1})


# ------------------------------------------------------------------------------------ domain
def test_domain_names_its_classes_and_refuses_a_shared_tool_name():
    built = toolkit.domain("tally", {"Tally": Counter}, phrases={"echo": ["say {text}"]})
    assert {tool.class_name for tool in built.tools.values()} == {"Tally"}
    assert built.tools_of(["Tally"]) == tuple(built.tools.values())
    assert built.simulator(World(("Tally",))).call(Call("echo", {"text": "hi"})).text == "hi"
    with pytest.raises(ValueError, match="A and B both define add"):
        toolkit.domain("twice", {"A": Counter, "B": Counter})


@pytest.mark.parametrize(
    "phrases, complaint",
    [
        ({"nothing": ["do {x}"]}, "unknown tool 'nothing'"),
        ({"add": ["add some"]}, "add: the fields of 'add some'"),
        ({"add": ["add {amount} to {total}"]}, "are not its parameters"),
    ],
)
def test_domain_refuses_a_wording_that_does_not_fit_its_tool(phrases, complaint):
    with pytest.raises(ValueError, match=complaint):
        toolkit.domain("tally", {"Counter": Counter}, phrases=phrases)


@pytest.mark.parametrize("classes", [[Counter], {"Counter": Counter()}, Counter])
def test_domain_wants_names_and_classes(classes):
    with pytest.raises(TypeError, match=r"classes must map names to classes, as .* does: got"):
        toolkit.domain("tally", classes)
