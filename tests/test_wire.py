"""One deadline over a whole exchange, against sockets that drip at every place; addresses, proxies, Ctrl-C."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import httpx2
import pytest
from drip_server import dripping, sockets

from rods_jax import wire
from rods_jax.threads import in_threads

HANG = 60.0  # seconds after which a test gives up: far beyond any deadline here
SHORT = 0.3

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
GZIP = HEAD + b"content-encoding: gzip\r\n\r\n"
NAME = b"\x1f\x8b\x08\x08\0\0\0\0\0\xff"  # a gzip header whose file name never ends
DRIPS = {
    "nothing": (b"", b""),
    "status line": (b"HTTP/1.1 2", b"0"),
    "header": (HEAD + b"x: ", b"a"),
    "headers": (HEAD, b"x: a\r\n"),
    "interim responses": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "a flood of interim responses": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 500),
    "body": (HEAD + b"\r\n", b" "),
    "body of a stated length": (HEAD + b"content-length: 100000\r\n\r\n", b" "),
    "chunks": (CHUNKED, b"1\r\n \r\n"),
    "chunk length": (CHUNKED, b"0"),
    "chunk extension": (CHUNKED + b"1;", b"a"),
    "trailer": (CHUNKED + b"0\r\nx: ", b"a"),
    "gzip that unpacks to nothing": (GZIP + NAME, b"n"),
    "empty gzip blocks": (GZIP + b"\x1f\x8b\x08\0\0\0\0\0\0\xff", b"\0\0\0\xff\xff"),
}


def bounded(call):
    """What the call raised; it must come back at all."""
    ended, raised = threading.Event(), []

    def run():
        try:
            call()
        except BaseException as error:
            raised.append(error)
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    assert ended.wait(HANG), "the exchange hangs"
    return raised[0] if raised else None


def exchanges():
    return [thread for thread in threading.enumerate() if thread.name == "exchange"]


@pytest.mark.parametrize("place", DRIPS)
def test_no_place_of_an_answer_can_be_dripped_beyond_the_deadline(place):
    with sockets(dripping(*DRIPS[place])) as (port, _):
        error = bounded(lambda: wire.post(f"http://127.0.0.1:{port}/", b"{}", {}, timeout=SHORT))
        assert isinstance(error, TimeoutError) and str(error) == "no whole reply in 0.3 s"
        for thread in exchanges():  # nor holds it a thread: the connection is shut down
            thread.join(HANG)
        assert not exchanges()


def test_a_server_that_does_not_read_the_request_cannot_hold_it():
    with sockets(lambda connection, gone: gone.wait(HANG), greet=True) as (port, _):
        error = bounded(lambda: wire.post(f"http://127.0.0.1:{port}/", bytes(64 * 2**20), {}, timeout=SHORT))
        assert isinstance(error, TimeoutError)
        for thread in exchanges():
            thread.join(HANG)
        assert not exchanges()


@pytest.mark.parametrize("unit", [b"", b"\x16", b"\x16\x03\x03\x00\x05\x00"])
def test_no_tls_handshake_can_be_dripped(unit):
    with sockets(dripping(b"", unit), greet=True) as (port, _):
        error = bounded(lambda: wire.post(f"https://127.0.0.1:{port}/", b"{}", {}, timeout=SHORT))
        assert isinstance(error, (TimeoutError, ConnectionError))  # rubbish may end it before the deadline
        for thread in exchanges():
            thread.join(HANG)
        assert not exchanges()


@pytest.mark.parametrize("url", ["http://example.invalid/v1", "https://example.invalid/v1"])
def test_no_proxy_can_be_dripped(url, monkeypatch):
    with sockets(dripping(b"HTTP/1.1 200 OK\r\nx: ", b"a")) as (port, seen):
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{port}")
        error = bounded(lambda: wire.post(url, b"{}", {}, timeout=SHORT))
        assert isinstance(error, TimeoutError)
        assert seen[0].startswith(
            b"CONNECT example.invalid:443" if "https" in url else b"POST http://example.invalid/v1"
        )


def test_a_look_up_of_a_name_that_hangs_holds_nobody(monkeypatch):
    released = threading.Event()

    def slow(*args, **kwargs):
        released.wait(HANG)
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    try:
        error = bounded(lambda: wire.post("http://example.invalid/", b"{}", {}, timeout=SHORT))
        assert isinstance(error, TimeoutError)
    finally:
        released.set()
        for thread in exchanges():
            thread.join(HANG)


def test_a_connection_that_comes_after_the_deadline_is_closed():
    line = wire._Line()
    line.cut()
    with sockets(lambda connection, gone: None) as (port, _), pytest.raises(Exception, match="after the deadline"):
        line.connect_tcp("127.0.0.1", port)


def answering(raw):
    return lambda connection, gone: connection.sendall(raw)


def test_an_answer_is_unpacked_piece_by_piece_and_bounded():
    packed = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = packed.compress(b'{"a": 1}') + packed.flush()
    head = HEAD + b"content-encoding: gzip\r\nRetry-After: 3\r\ncontent-length: %d\r\n\r\n"
    with sockets(answering(head % len(body) + body)) as (port, seen):
        answer = wire.post(f"http://127.0.0.1:{port}/a?b", b"{}", {"x-one": "two"}, timeout=HANG)
    assert (answer.status, answer.body, answer.headers["retry-after"]) == (200, b'{"a": 1}', "3")
    assert seen[0].startswith(b"POST /a?b HTTP/1.1\r\n") and b"x-one: two" in seen[0].lower()
    packed = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packed.compress(b" " * 2**20) for _ in range(64)) + packed.flush()
    with sockets(answering(head % len(bomb) + bomb)) as (port, _), pytest.raises(ValueError, match="too long"):
        wire.post(f"http://127.0.0.1:{port}/", b"{}", {}, timeout=HANG)
    with sockets(answering(GZIP + b"not gzip")) as (port, _), pytest.raises(httpx2.DecodingError):
        wire.post(f"http://127.0.0.1:{port}/", b"{}", {}, timeout=HANG)


@pytest.mark.parametrize(
    "location",
    [b"http://xn--" + b"a" * 300 + b"/", b"http://xn--a..b/", b"http://[::1", b"file:///etc/passwd", b"http://\xff\x01b:99999999/"],
)  # fmt: skip
def test_a_redirect_is_an_answer_whatever_it_names(location):
    raw = b"HTTP/1.1 307 x\r\ncontent-length: 0\r\nlocation: " + location + b"\r\n\r\n"
    with sockets(answering(raw)) as (port, seen):
        try:
            assert wire.post(f"http://127.0.0.1:{port}/", b"{}", {}, timeout=HANG).status == 307
        except ConnectionError:  # no HTTP at all
            assert b"\x01" in location
    assert len(seen) == 1


# ------------------------------------------------------------------------------------- addresses
@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.9.9.9", "127.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]
)  # fmt: skip
def test_this_host_is_asked_directly_whatever_the_environment_says(host, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy", "https_proxy"):
        for address in ("http://proxy:1", "socks5://proxy:1", "::::"):
            monkeypatch.setenv(name, address)
            assert (
                wire.proxy_of(httpx2.URL(f"http://{host}/v1")) is wire.proxy_of(httpx2.URL(f"https://{host}/")) is None
            )


def test_another_host_is_asked_through_the_proxy_that_the_environment_names(monkeypatch):
    url = httpx2.URL("https://example.org/v1")
    assert wire.proxy_of(url) is None
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    assert str(wire.proxy_of(url).url) == "http://proxy.example:3128"
    assert wire.proxy_of(httpx2.URL("http://example.org/v1")) is None
    monkeypatch.setenv("NO_PROXY", "example.org")
    assert wire.proxy_of(url) is None
    monkeypatch.setenv("NO_PROXY", "other.org")
    for odd in ("socks5://127.0.0.1:9", "ftp://x", "::::", "http://127.0.0.1:99999", "http://"):
        monkeypatch.setenv("HTTPS_PROXY", odd)
        with pytest.raises(wire.UnusableProxy, match="the environment's proxy for https:// "):
            wire.proxy_of(url)


def test_tls_goes_through_a_proxy_to_the_server_itself(monkeypatch):
    """The proxy gets CONNECT and then the beginning of a handshake, never the request."""
    heard = []

    def tunnel(connection, gone):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        heard.append(connection.recv(65_536))

    with sockets(tunnel) as (port, seen):
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:word@127.0.0.1:{port}")
        with pytest.raises(ConnectionError):
            wire.post("https://example.invalid/v1", b"secret", {"authorization": "secret"}, timeout=HANG)
    assert seen[0].startswith(b"CONNECT example.invalid:443 ") and b"secret" not in seen[0] + heard[0]
    assert heard[0][0] == 0x16  # a TLS handshake
    assert isinstance(wire._tls_of(httpx2.URL("https://a")), ssl.SSLContext)


# ----------------------------------------------------------------------------------------- threads
def test_results_come_as_they_are_finished_and_exceptions_too():
    gate = threading.Event()

    def work(item):
        if item == 0:
            assert gate.wait(HANG)
        if item == 3:
            raise KeyError("three")
        return item * 10

    seen = []
    with pytest.raises(KeyError, match="three"):
        for place, result in in_threads(work, [0, 1, 2, 3], 2):
            seen.append((place, result))
            if place == 2:
                gate.set()
    assert set(seen) >= {(1, 10), (2, 20)} and dict(in_threads(work, [1, 2], 8)) == {0: 10, 1: 20}


def test_who_leaves_early_waits_for_nobody_and_begins_nothing_more():
    begun, gate = [], threading.Event()

    def work(item):
        begun.append(item)
        if item:
            gate.wait(HANG)

    results = in_threads(work, range(100), 2)
    assert next(results) == (0, None)
    results.close()
    gate.set()
    time.sleep(0.05)
    assert len(begun) <= 3


HELD = """
import sys
from rods_jax.chat import Endpoint, Request, http_generate
from rods_jax.preemption import interrupts
generate = http_generate(Endpoint(url=sys.argv[1], model="m", timeout=3600, max_retries=9))
try:
    with interrupts():
        generate([Request(({"role": "user", "content": "x"},))] * int(sys.argv[2]))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("requests", [1, 3])
@pytest.mark.parametrize(("times", "pause"), [(1, 0), (2, 0), (4, 0.002), (4, 0.02)])  # while it leaves, too
def test_ctrl_c_ends_requests_that_a_server_holds(requests, times, pause):
    arrived = threading.Semaphore(0)

    def hold(connection, gone):
        arrived.release()
        dripping(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n")(connection, gone)

    with sockets(hold) as (port, _):
        command = [sys.executable, "-c", HELD, f"http://127.0.0.1:{port}/v1", str(requests)]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(requests):
            assert arrived.acquire(timeout=HANG)
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(pause)
        _, said = process.communicate(timeout=HANG)
    assert process.returncode == 130 and "Traceback" not in said
