"""BFCL calls stay short, small, deterministic and to themselves, whatever the model writes."""

import contextlib
import copy
import decimal
import json
import os
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("bfcl_eval", reason="needs pip install --no-deps bfcl-eval==2026.3.23")
mpmath = pytest.importorskip("mpmath", reason="needs pip install 'mpmath>=1.3,<1.4'")

from rods_jax.codecs import llama, python_list, qwen  # noqa: E402
from rods_jax.environments import bfcl  # noqa: E402
from rods_jax.environments.bfcl_safety import MAX_RESPONSE_CHARACTERS  # noqa: E402
from rods_jax.environments.episode import Episode  # noqa: E402
from rods_jax.environments.scoring import gold_trace  # noqa: E402
from rods_jax.rewards import CALL_FAILED, PARSE_ERROR  # noqa: E402
from rods_jax.types import Action, Call, Task, Turn, World  # noqa: E402

FILES = {"a.txt": {"type": "file", "content": "x"}, "sub": {"type": "directory", "contents": {}}}
STATE = {"GorillaFileSystem": {"root": {"home": {"type": "directory", "contents": FILES}}}}


def simulator(*classes, state=STATE, long_context=False):
    return bfcl.BfclSimulator(World(classes, state, {"long_context": long_context}))


def call(sim, name, **arguments):
    return sim.call(Call(name, arguments))


# ------------------------------------------------------------------------------- hostile input
HOSTILE = [
    "__import__('os').system('touch {path}')",
    "open(file='{path}', mode='w')",
    "[ls(), __import__('subprocess').getoutput('touch {path}')]",
    "ls(a=exit(7))",
    "globals()",
    "__import__('os').getpid() or ls",
    "ls(a=__import__('os').getpid()+0)",
    "__init__",
    "_load_scenario",
    "_current_dir",
    "__class__",
    "GorillaFileSystem.ls",
    "kill",
    "exit",
    "",
]


def test_hostile_messages_are_errors_in_every_codec(tmp_path):
    """As a message, as a call in the Python format, and spliced as a name into each JSON format."""
    path = tmp_path / "made"
    task = Task("t", "s", "base", World(("GorillaFileSystem", "MathAPI"), STATE), (Turn("go", (Call("pwd"),)),))
    domain = bfcl.bfcl_domain()
    trace = gold_trace(domain, task)
    for text in [*HOSTILE[:-1], *(f"ls(a=open(file='{path}', mode='{mode}'))" for mode in "rw")]:
        text = text.format(path=path)
        name = json.dumps(text)
        messages = [
            python_list.parse(f"[{text}]"),
            llama.parse(f'{{"name": {name}, "parameters": {{}}}}'),
            qwen.parse(f'<tool_call>{{"name": {name}, "arguments": {{}}}}</tool_call>'),
        ]
        for action in messages:
            episode = Episode(domain, task, trace)
            feedback = episode.act(action)
            assert feedback.code in (PARSE_ERROR, CALL_FAILED), text
            assert feedback.observations and all(told.startswith("Error") for told in feedback.observations)
            assert episode.act(Action(answer="Done.")).passed == (
                False,
            )  # the current directory was not printed either
    assert not list(tmp_path.iterdir())


def test_hostile_names_are_errors_and_touch_nothing(tmp_path):
    sim = simulator("GorillaFileSystem")
    before = copy.deepcopy(sim.state())
    for text in HOSTILE:
        observation = call(sim, text.format(path=tmp_path / "made"))
        assert not observation.ok and observation.text.startswith("Error during execution"), text
    for name in (None, 3, ["ls"], {}):
        assert not sim.call(Call(name, {})).ok
    assert sim.state() == before
    assert not list(tmp_path.iterdir())


def test_hostile_arguments_stay_values(tmp_path):
    sim = simulator("GorillaFileSystem")
    for text in HOSTILE:
        text = text.format(path=tmp_path / "made")
        assert call(sim, "echo", content=text).text == json.dumps({"terminal_output": text})
    assert not call(sim, "ls", self=1).ok and not call(sim, "ls", __class__=1).ok
    assert not sim.call(Call("ls", None)).ok and not sim.call(Call("ls", [1])).ok
    assert not list(tmp_path.iterdir())


def test_wrong_arguments_and_other_classes_are_errors():
    sim = simulator("GorillaFileSystem")
    assert not call(sim, "cd").ok
    assert not call(sim, "cd", folder=3).ok
    assert not call(sim, "cd", folder="x", deep=True).ok
    assert not call(sim, "add", a=1, b=2).ok  # MathAPI is not involved
    assert call(sim, "cd", folder="nowhere").ok  # a returned error is no exception (RODS 1.2)


def test_nested_values_are_errors_not_crashes():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert not call(simulator("TwitterAPI"), "post_tweet", content="x", tags=deep).ok


@contextlib.contextmanager
def at_most(calls: int):
    """Fails as soon as the block has made more calls of functions: what has no end fails too, on a machine of any speed."""
    made = 0

    def count(frame, event, _):
        nonlocal made
        made += event in ("call", "c_call")
        assert made <= calls, f"more than {calls} calls"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(before)
    assert made <= calls, (
        f"more than {calls} calls"
    )  # once more: what was called may have answered the first with an error


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "1", "a.txt", "sub", "."]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), long_context=st.booleans())
def test_any_json_is_answered(data, long_context):
    sim = simulator(*bfcl.CLASSES, long_context=long_context)
    for _ in range(10):
        tool = data.draw(st.sampled_from(list(bfcl.bfcl_domain().tools.values())))
        arguments = {key: data.draw(JSON) for key in tool.parameters["properties"]}
        start = time.thread_time()
        text = sim.call(Call(tool.name, arguments)).text
        sim.state()
        assert len(text) <= MAX_RESPONSE_CHARACTERS and time.thread_time() - start < 1


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("logarithm", {"value": 10, "base": 2, "precision": 200_000}),
        ("logarithm", {"value": 10, "base": 2, "precision": "200000"}),
        ("logarithm", {"value": 10, "base": 2, "precision": 2e5}),
        ("logarithm", {"value": "1e" + "9" * 3000, "base": 2, "precision": 1000}),
        ("logarithm", {"value": 2, "base": "1e-" + "9" * 3000, "precision": 1000}),
        ("square_root", {"number": 2, "precision": 10_000_000}),
        ("square_root", {"number": 2, "precision": 200_000}),
        ("power", {"base": 10, "exponent": 2_000_000}),
        ("power", {"base": 10, "exponent": 20_000_000}),
        ("power", {"base": -(10**4000), "exponent": 10**6}),
        ("round_number", {"number": 5, "decimal_places": -(10**8)}),
    ],
)
def test_costly_arithmetic_is_refused_at_once(name, arguments):
    start = time.thread_time()
    assert not call(simulator("MathAPI"), name, **arguments).ok
    assert time.thread_time() - start < 1


def test_arithmetic_up_to_the_limits_still_answers():
    sim = simulator("MathAPI")
    assert call(sim, "power", base=2, exponent=14_000).text == json.dumps({"result": 2**14_000})
    assert call(sim, "power", base=1, exponent=10**18).text == '{"result": 1}'
    assert call(sim, "logarithm", value=8, base=2, precision=1000).ok
    assert call(sim, "square_root", number=4, precision=1000).ok
    assert call(sim, "logarithm", value=8, base=2, precision="many").ok  # the tool reports that itself
    assert call(sim, "logarithm", value="1e" + "9" * 98, base="2", precision=1000).ok
    assert call(sim, "round_number", number=1234, decimal_places=-2).text == '{"result": 1200}'


def test_trees_folded_into_themselves_are_bounded():
    sim = simulator("GorillaFileSystem")
    call(sim, "mkdir", dir_name="d")
    assert call(sim, "cp", source="d", destination="d").ok  # d now holds itself
    assert not call(sim, "find").ok
    assert sim.state() != sim.state()  # a state without end equals nothing, not even itself

    sim = simulator("GorillaFileSystem")
    call(sim, "mkdir", dir_name="d")
    for _ in range(40):  # every round doubles what lies below d: 2**40 entries
        call(sim, "mkdir", dir_name="f")
        for source, destination in (("d", "e"), ("d", "f"), ("e", "f")):
            call(sim, "cp", source=source, destination=destination)
        call(sim, "rm", file_name="d")
        call(sim, "rm", file_name="e")
        call(sim, "mv", source="f", destination="d")
    with at_most(calls=500_000):
        assert not call(sim, "find").ok and not call(sim, "du").ok
        sim.state()


def test_long_names_are_bounded():
    """Twelve levels, each holding the one below twice under a name of 7,000 characters: 4,096 such paths."""
    sim = simulator("GorillaFileSystem")
    call(sim, "mkdir", dir_name="d")
    for level in range(12):
        call(sim, "mkdir", dir_name="f")
        for name in ("a" * 7_000, "b" * 7_000):
            call(sim, "cp", source="d", destination=name)
            call(sim, "mv", source=name, destination="f")
        call(sim, "rm", file_name="d")
        call(sim, "mv", source="f", destination="d")
    with at_most(calls=2_000):
        assert not call(sim, "find").ok and not call(sim, "du").ok
        assert sim.state() != sim.state()


def test_whatever_is_written_into_a_file_has_a_state():
    for content in (5, None, ["x", {"y": [1]}], {"a": 1}):
        sim = simulator("GorillaFileSystem")
        assert call(sim, "echo", content=content, file_name="a.txt").ok
        tree = sim.state()["GorillaFileSystem"]["root"]["home"]["contents"]
        assert tree["a.txt"] == {"type": "file", "content": content}
        assert sim.state() == sim.state()


def test_responses_are_bounded():
    sim = simulator("GorillaFileSystem")
    assert len(call(sim, "echo", content="x" * 1_000_000).text) == MAX_RESPONSE_CHARACTERS


# ------------------------------------------------------------------------- process-wide settings
def test_number_contexts_are_restored_and_not_inherited():
    sim = simulator("MathAPI")
    before = mpmath.mp.prec, decimal.getcontext().prec
    with decimal.localcontext() as context:
        context.traps[decimal.Inexact] = True  # the host's own settings must not reach a rollout
        root = call(sim, "square_root", number=2, precision=7)
    call(sim, "logarithm", value=10, base=2, precision=50)
    call(sim, "logarithm", value=10, base="x", precision=70)
    assert root.text == "{'result': Decimal('1.414214')}"
    assert (mpmath.mp.prec, decimal.getcontext().prec) == before


def test_threads_do_not_disturb_each_other():
    """Different precisions at once (mpmath), and one weather table for all vehicles (long context)."""

    def logarithms(precision):
        sim = simulator("MathAPI")
        return [call(sim, "logarithm", value=i, base=3, precision=precision).text for i in range(2, 150)]

    def weather(seed):
        state = {"VehicleControlAPI": {"random_seed": seed}}
        sim = simulator("VehicleControlAPI", state=state, long_context=True)
        return [call(sim, "get_outside_temperature_from_google").text for _ in range(150)]

    jobs = [(logarithms, 5), (logarithms, 40), (weather, 1), (weather, 2)]
    expected = [function(argument) for function, argument in jobs]
    found = [None] * len(jobs)

    def work(slot):
        found[slot] = jobs[slot][0](jobs[slot][1])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(slot,)) for slot in range(len(jobs))]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    finally:
        sys.setswitchinterval(interval)
    assert found == expected


def test_error_texts_do_not_depend_on_the_hash_seed():
    script = """
from rods_jax.environments.bfcl import BfclSimulator
from rods_jax.types import Call, World
ticket = {"id": 1, "status": "Open"}
travel = {"access_token": "t", "credit_card_list": {"1": {"balance": 1}}}
state = {"TicketAPI": {"ticket_queue": [ticket]}, "TravelAPI": travel}
sim = BfclSimulator(World(("TicketAPI", "TravelAPI"), state))
print(sim.call(Call("edit_ticket", {"ticket_id": 1, "updates": {"b": 1, "a": 2, "d": 3, "c": 4}})).text)
flight = dict(travel_date="2026-11-10", travel_from="SFO", travel_to="LAX", travel_class="no")
print(sim.call(Call("book_flight", {"access_token": "t", "card_id": "1", **flight})).text)
"""
    for seed in ("1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        output = subprocess.check_output([sys.executable, "-c", script], text=True, env=environment)
        edit, book = map(json.loads, output.splitlines())
        assert edit["error"] == "Invalid fields for update: a, b, c, d"
        assert book["error"] == "Invalid travel class. Must be one of {'business', 'economy', 'first'}"
