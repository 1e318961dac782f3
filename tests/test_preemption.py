"""Signals: the first asks, the second and the deadline end the process, whatever it is doing."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from drip_server import dripping, sockets

from rods_jax.preemption import SAVED, SIGNALS, maintenance_notices, stop_requests

ROOT = Path(__file__).parent.parent
LOOP = """
import sys, time
from rods_jax.preemption import SAVED, stop_requests
with stop_requests(seconds={seconds}) as requested:
    print("ready", flush=True)
    {body}
sys.exit(SAVED)
"""
POLITE = "while not requested.wait(0.01): pass"
DEAF = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"  # one long call


@contextlib.contextmanager
def process(body, seconds=60):
    code = LOOP.format(body=body, seconds=seconds)
    running = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    with running:
        try:
            assert running.stdout.readline() == "ready\n"
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks(number):
    with process(POLITE) as running:
        running.send_signal(number)
        assert running.wait(60) == SAVED == 75


def test_the_second_signal_ends_a_process_that_cannot_hear():
    with process(DEAF) as running:
        running.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert running.poll() is None
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 128 + signal.SIGINT


def test_the_deadline_ends_it_too():
    with process(DEAF, seconds=0.5) as running:
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 128 + signal.SIGTERM


INTERRUPTED = """
import sys, time
from rods_jax.preemption import interrupts
try:
    with interrupts(seconds={seconds}):
        try:
            print("ready", flush=True)
            {body}
        finally:
            {end}
except KeyboardInterrupt:
    sys.exit(7)
"""


@contextlib.contextmanager
def interruptible(body, end="pass", seconds=60.0):
    code = INTERRUPTED.format(body=body, end=end, seconds=seconds)
    running = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    with running:
        try:
            assert running.stdout.readline() == "ready\n"
            yield running
        finally:
            running.kill()


def test_ctrl_c_raises_and_the_second_ends_what_the_first_began():
    with interruptible("time.sleep(600)") as running:
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 7
    with interruptible("time.sleep(600)", end="print('ending', flush=True); time.sleep(600)") as running:
        running.send_signal(signal.SIGINT)
        assert running.stdout.readline() == "ending\n"
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 128 + signal.SIGINT


def test_ctrl_c_ends_a_process_that_does_not_end_by_itself_after_its_deadline():
    with interruptible("time.sleep(600)", end="time.sleep(600)", seconds=0.3) as running:
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 128 + signal.SIGINT


def test_a_metadata_server_that_drips_holds_no_end_of_a_run():
    left, began = threading.Event(), threading.Event()

    def drip(connection, gone):
        began.set()
        dripping(b"HTTP/1.0 200 OK\r\nx: ", b"a")(connection, gone)

    def run(url):
        with maintenance_notices(url, every=0.05):
            began.wait(60)
        left.set()

    with sockets(drip) as (port, _):
        threading.Thread(target=run, args=(f"http://127.0.0.1:{port}/",), daemon=True).start()
        assert left.wait(60)


def test_afterwards_signals_are_what_they_were():
    before = [signal.getsignal(number) for number in SIGNALS]
    with stop_requests(seconds=0.1) as requested:
        os.kill(os.getpid(), signal.SIGTERM)
        assert requested.wait(10)
    time.sleep(0.3)  # no deadline outlives its block
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with stop_requests() as requested, pytest.raises(KeyError):
        raise KeyError
    assert not requested.is_set()


@contextlib.contextmanager
def metadata_server(answers):
    """Gives each answer once, then the last one for ever; yields (url, what was asked)."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, text = answers[min(len(asked), len(answers) - 1)]
            asked.append(self.headers["Metadata-Flavor"])
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/maintenance-event", asked
        server.shutdown()
        thread.join()


def test_a_maintenance_notice_asks_like_a_signal():
    none, notice = (200, b"NONE"), (200, b"TERMINATE_ON_HOST_MAINTENANCE")
    with metadata_server([none, (503, b"TERMINATE"), none, notice]) as (url, asked):
        with stop_requests() as requested, maintenance_notices(url, every=0.05):
            assert requested.wait(60)
            assert asked == ["Google"] * 4
            time.sleep(0.2)  # one notice is one signal: a second would end the process
    assert len(asked) == 4


def test_without_a_notice_or_a_server_nothing_is_asked_of_the_run():
    with metadata_server([(200, b"NONE"), (200, b"MIGRATE_ON_HOST_MAINTENANCE")]) as (url, asked):
        with stop_requests() as requested, maintenance_notices(url, every=0.01):
            while len(asked) < 5:
                time.sleep(0.01)
            assert not requested.is_set()
    with stop_requests() as requested, maintenance_notices(url, every=0.01):  # nobody listens there now
        assert not requested.wait(0.2)
