"""The classes that people write: kinds of methods, state that would be shared, and tools that raise anything."""

import abc
import asyncio
import copy
import dataclasses
import functools
import math
import pickle
import threading

import pytest

from rods_jax.dialogue import gold_player, play
from rods_jax.environments import toolkit
from rods_jax.types import Call, Task, Turn, World


def start(cls, state=None):
    return toolkit.simulator({cls.__name__: cls})(World((cls.__name__,), {cls.__name__: state or {}}))


def class_with(**members):
    return type("X", (), members)


# --------------------------------------------------------------------------- what becomes a tool
class Units:
    """Units."""

    def __init__(self):
        self.squared = 0

    @staticmethod
    def to_feet(metres: float) -> float:
        """Converts.

        Args:
            metres: How many.
        """
        return metres * 2

    @classmethod
    def kind(cls, long: bool = False) -> str:
        """Names the class."""
        return cls.__name__

    @functools.lru_cache
    def square(self, x: int) -> int:
        """Squares."""
        self.squared += 1
        return x * x

    @functools.cached_property
    def derived(self) -> int:
        return 1

    @property
    def half(self) -> int:
        return 2

    def read(self) -> int:
        """Reads what is derived."""
        return self.derived + self.half

    also_read = read


def test_static_class_and_cached_methods_and_aliases_are_tools():
    tools = {tool.name: tool for tool in toolkit.tool_specs(Units)}
    assert list(tools) == ["to_feet", "kind", "square", "read", "also_read"]
    assert tools["to_feet"].parameters["properties"]["metres"]["description"] == "How many."
    assert list(tools["kind"].parameters["properties"]) == ["long"]
    units = start(Units)
    calls = [Call("to_feet", {"metres": 2}), Call("kind"), Call("square", {"x": 3}), Call("square", {"x": 3})]
    assert [units.call(call).text for call in [*calls, Call("read"), Call("also_read")]] == [
        *("4.0", "Units", "9", "9"),  # metres are a float, whatever the model writes
        *("3", "3"),
    ]
    assert units.state() == {"Units": {"squared": 1}}  # what a property derives, read or not, is no state


async def _coroutine(self) -> str:
    """Doc."""


def _generator(self) -> list:
    """Doc."""
    yield 1


async def _stream(self) -> list:
    """Doc."""
    yield 1


def _no_self() -> str:
    """Doc."""


def _unread(self, x: int) -> str:
    """Doc.

    :param: How far.
    """


@pytest.mark.parametrize(
    "member, complaint",
    [
        (_coroutine, "coroutine or a generator"),
        (_generator, "coroutine or a generator"),
        (_stream, "coroutine or a generator"),
        (functools.lru_cache(_coroutine), "coroutine or a generator"),
        (staticmethod(_coroutine), "coroutine or a generator"),
        (math.sqrt, "builtin_function_or_method: write a method that calls it"),
        (functools.partial(print, "x"), "partial: write"),
        (functools.partialmethod(_no_self), "partialmethod: write"),
        (functools.singledispatchmethod(_unread), "singledispatchmethod: write"),
        (lambda self: "x", "has no docstring"),
        (_no_self, "takes no self"),
        (_unread, "its docstring cannot be read"),
    ],
)
def test_a_member_that_cannot_be_a_tool_is_refused_by_name(member, complaint):
    with pytest.raises(TypeError, match=rf"^X\.f\b.*{complaint}"):
        toolkit.tool_specs(class_with(f=member))


def test_an_abstract_class_is_refused_by_name():
    class Half(abc.ABC):
        @abc.abstractmethod
        def f(self) -> str:
            """F."""

    with pytest.raises(TypeError, match="Half is abstract: define f"):
        toolkit.tool_specs(Half)


def test_a_container_is_no_environment_since_its_contents_are_no_attributes():
    with pytest.raises(TypeError, match="Bag is a dict, whose contents are no attributes"):
        toolkit.tool_specs(type("Bag", (dict,), {}))


def _runs(function):
    @functools.wraps(function)
    def run(self, *arguments):
        return asyncio.run(function(self, *arguments))

    return run


def _forgets(function):
    @functools.wraps(function)
    def start(self, *arguments):
        return function(self, *arguments)

    return start


class Late:
    """Late."""

    run = _runs(_coroutine)
    forget = _forgets(_coroutine)
    stream = _forgets(_stream)
    rows = _forgets(_generator)

    def iterate(self) -> list:
        """Iterates."""
        return map(str, [1])

    def anonymous(self) -> list:
        """Returns what has no text."""
        return [Units()]


def test_what_nothing_ran_and_what_shows_an_address_is_never_a_success():
    late = start(Late)
    assert late.call(Call("run")).ok
    for name in ("forget", "stream", "rows", "iterate"):
        observation = late.call(Call(name))
        assert not observation.ok and "which nothing runs" in observation.text and "0x" not in observation.text
    assert late.call(Call("anonymous")).text == "Error: the tool returned a list, which has no text of its own"


@pytest.mark.parametrize("result", [{*"abcd"}, [{*"abcd"}], ({"k": 1}, [{*"abcd"}])])
def test_a_sets_order_differs_from_process_to_process_and_is_never_read(result):
    assert "['a', 'b', 'c', 'd']" in toolkit._text(result) and "{'a'" not in toolkit._text(result)


# --------------------------------------------------------------- what instances would have in common
UNSET = object()


class Cart:
    """A cart."""

    total: int = 0
    shelf: list = []
    LIMIT = 3
    _ids = iter(range(1, 9))
    _lock = threading.Lock()

    def __init__(self, items: list = [], *, table: dict = {}, label: str = UNSET):
        self.items, self.table, self.unset = items, table, label is UNSET
        type(self).total += 1

    def add(self, item: str, tags: list[str] = []) -> dict:
        """Adds."""
        tags.append(item)
        self.items.append(item)
        self.table[item] = self._count()
        return {"tags": tags, "seen": self._seen(item)}

    def add_twice(self, item: str) -> dict:
        """Adds twice."""
        return {"first": self.add(item), "second": self.add(item)}

    @classmethod
    def put(cls, item: str) -> int:
        """Puts on the shelf that belongs to the class."""
        Cart.shelf.append(item)
        cls.total += 1
        return next(cls._ids)

    def _count(self) -> int:
        return len(self.items)

    def _seen(self, item, seen=[]):
        seen.append(item)
        return len(seen)


class Trolley(Cart):
    def __init__(self):
        super().__init__()


@pytest.mark.parametrize("cls", [Cart, Trolley])
def test_no_rollout_sees_the_defaults_and_class_attributes_of_another(cls):
    document = toolkit.tool_specs(cls)
    before = pickle.dumps((vars(Cart)["shelf"], Cart.total, Cart.add.__defaults__, Cart.__init__.__defaults__[0]))
    first = None
    for _ in range(3):
        cart = start(cls)
        texts = [cart.call(Call("add", {"item": "a"})).text for _ in range(2)]
        texts += [cart.call(Call("add_twice", {"item": "b"})).text, cart.call(Call("put", {"item": "c"})).text]
        texts += [cart.call(Call("put", {"item": "d"})).text]
        first = first or (texts, copy.deepcopy(cart.state()))
        assert (texts, cart.state()) == first
    assert first[0][:2] == ['{"tags": ["a"], "seen": 1}'] * 2
    assert first[0][3:] == ["1", "2"]
    assert first[1][cls.__name__] == {
        "items": ["a", "a", "b", "b"],
        "table": {"a": 2, "b": 4},
        "unset": True,
        "shelf": ["c", "d"],
        "total": 3,
    }
    assert toolkit.tool_specs(cls) == document
    now = pickle.dumps((vars(Cart)["shelf"], Cart.total, Cart.add.__defaults__, Cart.__init__.__defaults__[0]))
    assert now == before


class Slow:
    """A box whose looking takes as long as the test wants."""

    items: list[str] = []

    def add(self, item: str):
        """Adds an item."""
        self.items.append(item)

    def look(self):
        """Looks inside."""
        INSIDE.set()
        assert LEAVE.wait(60)
        return len(self.items)


INSIDE, LEAVE = threading.Event(), threading.Event()


def test_a_state_is_the_rollouts_own_while_another_thread_runs_a_tool():
    changed, untouched, slow = (start(Slow) for _ in range(3))
    changed.call(Call("add", {"item": "a"}))
    slow.call(Call("add", {"item": "a"}))  # what the class holds meanwhile
    thread = threading.Thread(target=slow.call, args=(Call("look"),))
    thread.start()
    try:
        assert INSIDE.wait(60)
        assert changed.state() == {"Slow": {"items": ["a"]}} and untouched.state() == {"Slow": {}}
    finally:
        LEAVE.set()
        thread.join()


def test_a_copy_of_a_simulator_leads_its_own_life_in_the_class_too():
    cart = start(Cart)
    cart.call(Call("put", {"item": "a"}))
    twins = copy.deepcopy(cart), pickle.loads(pickle.dumps(start(Units)))
    cart.call(Call("put", {"item": "b"}))
    assert twins[0].state()["Cart"]["shelf"] == ["a"] and cart.state()["Cart"]["shelf"] == ["a", "b"]
    assert twins[0].call(Call("put", {"item": "c"})).ok and twins[0].state()["Cart"]["shelf"] == ["a", "c"]
    assert twins[1].call(Call("square", {"x": 2})).text == "4"


def test_constants_of_a_class_are_no_state():
    assert start(Units).state() == {"Units": {"squared": 0}}
    assert set(start(Cart).state()["Cart"]) == {
        "items",
        "table",
        "unset",
        "total",
    }  # the constructor counts itself


@dataclasses.dataclass(slots=True)
class Slotted:
    """Slots."""

    n: int = 0
    _hidden: int = 0

    def add(self, k: int = 1) -> int:
        """Adds."""
        self.n += k
        return self.n


class Below(Slotted):
    __slots__ = "late"

    def later(self) -> str:
        """Sets a slot."""
        self.late = 1
        return "set"


def test_slots_are_state_once_they_are_set():
    domain = toolkit.domain("d", {"Slotted": Slotted})
    task = Task("t", "s", "base", World(("Slotted",), {}), (Turn("u", (Call("add", {"k": 2}),)),))
    assert play(domain, task, 0, gold_player(task)).rods == (True,)
    below = start(Below, {"n": 3})
    assert below.state() == {"Below": {"n": 3}}
    assert below.call(Call("later")).ok and below.state() == {"Below": {"n": 3, "late": 1}}


class Stocked:
    """A shop."""

    def __init__(self, stock: dict[str, int]):
        self.stock = stock

    def sell(self, item: str) -> int:
        """Sells one."""
        self.stock[item] -= 1
        return self.stock[item]


def test_options_of_a_world_are_each_rollouts_own():
    domain = toolkit.domain("shop", {"Stocked": Stocked})
    world = World(("Stocked",), {}, {"stock": {"pen": 1}})
    first, second = domain.simulator(world), domain.simulator(world)
    assert first.call(Call("sell", {"item": "pen"})).text == "0"
    assert second.state() == {"Stocked": {"stock": {"pen": 1}}} and world.options == {"stock": {"pen": 1}}


class Library:
    book: dict[str, int] = {}


class Writer(Library):
    """Writes."""

    def put(self, key: str) -> str:
        """Puts."""
        self.book[key] = 1
        return "ok"


class Reader(Library):
    """Reads."""

    def get(self, key: str) -> str:
        """Gets."""
        return str(self.book.get(key))


def test_what_classes_have_from_a_base_in_common_they_have_in_common_in_a_world_and_in_no_other():
    domain = toolkit.domain("library", {"Writer": Writer, "Reader": Reader})
    one, other = (domain.simulator(World(("Writer", "Reader"))) for _ in range(2))
    assert one.call(Call("put", {"key": "a"})).ok and one.call(Call("get", {"key": "a"})).text == "1"
    assert other.call(Call("get", {"key": "a"})).text == "None" and Library.book == {}
