"""Tools of an MCP server as a world, against the official SDK's own server in a process of its own."""

import gc
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rods_jax.adapters import mcp_tools
from rods_jax.adapters.mcp_tools import SessionError
from rods_jax.dialogue import gold_player, play
from rods_jax.environments.episode import start_episodes
from rods_jax.environments.gold import check_gold
from rods_jax.environments.protocol import Failure
from rods_jax.types import Action, Call, Task, Turn, World

pytest.importorskip("mcp.client.client")  # the SDK of version 2

FILE = Path(__file__).parent / "mcp_server.py"
STDIO = [sys.executable, str(FILE)]
TASK = Task(
    "m1",
    "m1",
    "base",
    World(("counter",), {"counter": {"count": 5}}),
    (Turn("Add two.", (Call("add", {"number": 2}),)), Turn("And three.", (Call("add", {"number": 3}),))),
)
PROCESS = Action(calls=(Call("process"),))


def counter(server=STDIO, deadline=20.0):
    return mcp_tools.domain("counter", server, begin="reset", state="read_state", deadline=deadline)


@pytest.fixture(scope="module")
def domain():
    return counter()


@pytest.fixture(scope="module")
def hasty(domain):
    """The same tools, with little patience once a session is open."""
    return domain._replace(simulator=lambda world: impatient(domain.simulator(world)))


def impatient(simulator):
    simulator._session._deadline = 1.0
    return simulator


@pytest.fixture
def http():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([*STDIO, str(port)])
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/mcp", process
    finally:
        process.kill()
        process.wait()


def calls(name, **arguments):
    return Action(calls=(Call(name, arguments),))


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def gone(process: int) -> bool:
    """Within ten seconds."""
    return any(not is_alive(process) or time.sleep(0.1) for _ in range(100))


# ------------------------------------------------------------------------------------- as a world
def test_tools_are_listed_with_their_schemas(domain):
    assert set(domain.tools) == {"add", "process", "letters", "hang", "die", "garbage"}
    add = domain.tools["add"]
    assert add.description.startswith("Adds a number") and add.class_name == "counter"
    assert add.parameters["properties"]["number"]["type"] == "integer" and add.parameters["required"] == ["number"]
    with pytest.raises(SessionError, match="has no tool rest"):
        mcp_tools.domain("counter", STDIO, begin="rest")


def test_each_episode_has_a_process_that_ends_with_it(domain):
    batch = start_episodes(domain, [TASK, TASK])
    first, second = (int(batch.act({place: PROCESS})[place].observations[0]) for place in (0, 1))
    assert first != second and is_alive(first) and is_alive(second)
    assert batch.act({0: calls("add", number=1)})[0].observations == ("the count is 6",)
    assert batch.act({1: calls("add", number=1)})[1].observations == ("the count is 6",)
    del batch
    gc.collect()
    assert gone(first) and gone(second)


def test_what_the_policy_does_wrong_is_an_observation(domain):
    batch = start_episodes(domain, [TASK])
    assert batch.act({0: calls("letters", number=10**6)})[0].observations == ("x" * 4_000,)
    for wrong, words in [
        (calls("add", number=-1), "only what is positive"),
        (calls("add", number="two"), "number"),
        (calls("reset", count=9), "unknown tool reset"),
        (calls("nothing"), "unknown tool nothing"),
    ]:
        answer = batch.act({0: wrong})[0]
        assert words in answer.observations[0] and not answer.done


# ------------------------------------------------------------------------------------- over HTTP
def test_gold_is_checked_and_played_under_the_usual_rules(http):
    domain = counter(http[0])
    check_gold(domain, [TASK])
    record = play(domain, TASK, 0, gold_player(TASK))
    assert record.rods == (True, True) and record.state and not record.failure
    assert record.moves[2].observations == ("the count is 10",)


def test_sessions_over_http_are_apart_and_a_server_that_dies_is_a_failure(http):
    url, process = http
    domain = counter(url, deadline=5.0)
    batch = start_episodes(domain, [TASK, TASK])
    for place in (0, 1):
        assert batch.act({place: calls("add", number=1)})[place].observations == ("the count is 6",)
    process.kill()
    process.wait()
    began = time.monotonic()
    answer = batch.act({0: calls("add", number=1)})[0]
    assert isinstance(answer, Failure) and time.monotonic() - began < 20
    assert isinstance(start_episodes(domain, [TASK]).openings[0], Failure)


# -------------------------------------------------------------------------------- hostile servers
@pytest.mark.parametrize("tool, words", [("die", "die"), ("hang", "unanswered"), ("garbage", "garbage")])
def test_a_server_that_breaks_is_a_failure_in_time_and_the_others_go_on(hasty, tool, words):
    batch = start_episodes(hasty, [TASK, TASK])
    process = int(batch.act({0: PROCESS})[0].observations[0])
    began = time.monotonic()
    broken = batch.act({0: calls(tool)})[0]
    assert isinstance(broken, Failure) and words in broken.reason and time.monotonic() - began < 15
    assert isinstance(batch.act({0: calls("add", number=1)})[0], Failure)  # at once: the session is lost
    assert batch.act({1: calls("add", number=1)})[1].observations == ("the count is 6",)
    assert gone(process)


@pytest.mark.parametrize(
    "program, words",
    [
        ("", "cannot be asked|no session"),  # exits at once
        ("import time; time.sleep(1000)", "opened no session within 1 s"),
        ("print('hello\\n' * 100, flush=True); import time; time.sleep(1000)", "opened no session within 1 s"),
        ('print(\'{"jsonrpc": "2.0", "id": 0, "result": {}}\', flush=True); input(); input()', "no session|cannot"),
    ],
)
def test_what_is_no_server_is_refused_in_time(program, words):
    with pytest.raises(SessionError, match=words):
        mcp_tools.domain("no", [sys.executable, "-c", program], deadline=1.0)
    with pytest.raises(SessionError, match="cannot be asked"):
        mcp_tools.domain("no", ["/no/such/program"], deadline=5.0)


ENDLESS = """
import json, sys
for number, line in enumerate(sys.stdin):
    asked = json.loads(line)
    found = {"tools": [{"name": f"f{number}", "inputSchema": {"type": "object"}}], "nextCursor": f"{number}"}
    if asked["method"] == "initialize":
        version = asked["params"]["protocolVersion"]
        found = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}}
    if "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": found}), flush=True)
"""


def test_a_list_of_tools_without_an_end_is_refused_in_time():
    began = time.monotonic()
    with pytest.raises(SessionError, match="the MCP server listed tools for more than 5 s, [0-9]+ so far"):
        mcp_tools.domain("no", [sys.executable, "-c", ENDLESS], deadline=5.0)
    assert time.monotonic() - began < 60


def test_a_process_that_ends_leaves_no_server_behind():
    code = (
        "import sys; from rods_jax.adapters.mcp_tools import Session\n"
        f"session = Session({STDIO!r}, 20.0); print(session.call('process', {{}}).text)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and gone(int(done.stdout)), done.stderr
