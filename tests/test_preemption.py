"""Signals: the first asks, the second and the deadline end the process, whatever it is doing."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rods_jax.preemption import SAVED, SIGNALS, stop_requests

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
