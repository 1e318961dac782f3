"""Asks a run to stop between two steps when the cluster, or a person, wants the machine back.

SIGTERM (preemption, `kill`) and SIGINT (Ctrl-C) set an event that the loop checks after every step.  A maintenance
notice of Google's cloud becomes a SIGTERM.  A second signal, or a step that outlasts the deadline, ends the process at
once, even while it waits for the device.  The last checkpoint remains, and the resumed run is the same to the bit.
Saving, and agreement between the processes of one run, are the caller's.
"""

import contextlib
import http.client
import os
import select
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping


class Stopped(Exception):
    """The run was saved before its end; `status` is what the process exits with."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


SAVED = 75  # exit status: stopped by a signal after saving, to be resumed (EX_TEMPFAIL of sysexits.h)
HALTED = 3  # exit status: stopped after saving, because a number was not finite
SIGNALS = (signal.SIGTERM, signal.SIGINT)
LAST_WORDS = "what was saved stands; the same command goes on, or begins again (a run that has begun: with --resume)"
# Answers NONE, or TERMINATE_ON_HOST_MAINTENANCE some minutes before the host goes down; TPUs cannot migrate.
METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/maintenance-event"


@contextlib.contextmanager
def stop_requests(seconds: float = 25.0) -> Iterator[threading.Event]:
    """An event that the first signal sets.  `seconds` later, or at the second signal, the process ends.

    Its exit status is then 128 + the signal's number, and the standard error says so.  Main thread only.  Of nested
    blocks the inner one alone gets the signals.
    seconds=0: for a command, or a part of one, that has nothing to save: the first signal ends it.
    The interpreter runs handlers between two of its instructions, which may be a long step apart. So the handlers do
    nothing: the system writes each signal's number to a pipe, which a thread reads.
    """
    requested = threading.Event()
    restore = _watch(dict.fromkeys(SIGNALS, _nothing), requested, seconds)
    try:
        yield requested
    finally:
        restore()


@contextlib.contextmanager
def interrupts(seconds: float = 3.0) -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt in the block, once, and the process is to end: `seconds` later it does by itself.

    A second Ctrl-C in the block ends it at once. The exit status is 130 either way, even if the process waits for
    something. After the block a further Ctrl-C is ignored: it would strike the process on its way out. Main thread only.
    """
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        signal.signal(signal.SIGINT, _nothing)  # only the watcher reacts to a second one
        raise KeyboardInterrupt

    restore = _watch({signal.SIGINT: interrupt}, threading.Event(), seconds)
    try:
        yield
    finally:
        if interrupted:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the watcher stays, for the deadline
        else:
            restore()


def _nothing(*_: object) -> None:
    """A handler that leaves the reaction to the watcher."""


def _watch(
    handlers: Mapping[int, Callable[..., None]], requested: threading.Event, seconds: float
) -> Callable[[], None]:
    """Sets these handlers, and a thread that ends the process at the second signal or the deadline; returns the undoing.

    A handler that somebody set since is left as it is.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    watcher = threading.Thread(target=_end, args=(reader, requested, seconds), daemon=True)
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher.start()

    def restore() -> None:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            if signal.getsignal(number) is handlers[number]:
                signal.signal(number, handler)
        os.close(writer)  # the watcher reads the end of the pipe
        watcher.join()
        os.close(reader)

    return restore


@contextlib.contextmanager
def maintenance_notices(url: str = METADATA, every: float = 5.0) -> Iterator[None]:
    """Asks the metadata server every so many seconds; at a notice the process gets a SIGTERM, as from any scheduler.

    Where there is no such server, nothing happens.
    """
    ended = threading.Event()
    asker = threading.Thread(target=_ask, args=(url, every, ended), daemon=True)
    asker.start()
    try:
        yield
    finally:
        ended.set()
        asker.join(every)  # at most so long: a server that drips must not delay the end of a run


def _ask(url: str, every: float, ended: threading.Event) -> None:
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while not ended.wait(every):
        with contextlib.suppress(OSError, http.client.HTTPException), direct.open(request, timeout=every) as reply:
            if reply.read(100).startswith(b"TERMINATE") and not ended.is_set():
                os.kill(os.getpid(), signal.SIGTERM)
                return


def _end(reader: int, requested: threading.Event, seconds: float) -> None:
    first = _next(reader, None)
    if first is None:
        return
    requested.set()
    try:
        last = _next(reader, seconds)
    except TimeoutError:
        last = first
    if last is not None:
        with contextlib.suppress(OSError):
            os.write(2, f"ended by {signal.Signals(last).name}: {LAST_WORDS}\n".encode())
        os._exit(128 + last)


def _next(reader: int, seconds: float | None) -> int | None:
    """The number of the next signal that asks to stop; None: the pipe was closed."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([reader], [], [], left)[0]:
            raise TimeoutError
        byte = os.read(reader, 1)
        if not byte:
            return None
        if byte[0] in SIGNALS:  # other handlers of the process write theirs too
            return byte[0]
