"""Real processes in a moment: one interpreter imports a module once, and forks for every function that is called.

with forks("kill_toy") as start:
    process = start("work", str(directory), 3)   # kill_toy.work(directory, 3) in a process of its own
    process.kill()
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    pid: int

    def alive(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL; returns when it is gone, with all its locks."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.join()

    def join(self, seconds: float = 600) -> None:
        deadline = time.monotonic() + seconds
        while self.alive():
            assert time.monotonic() < deadline, "the process has not ended"
            time.sleep(0.002)


def host_devices(count: int) -> str:
    """The suite's XLA_FLAGS for a process with another number of devices: of equal flags the last one counts."""
    return f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"


@contextlib.contextmanager
def forks(module: str) -> Iterator[Callable[..., Process]]:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, __file__, module]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as server:
        turn = threading.Lock()

        def start(function: str, *arguments) -> Process:
            with turn:
                server.stdin.write(json.dumps([function, *arguments]) + "\n")
                server.stdin.flush()
                return Process(int(server.stdout.readline()))

        try:
            yield start
        finally:
            server.stdin.close()


def _serve(name: str) -> None:
    module = importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    for line in sys.stdin:
        function, *arguments = json.loads(line)
        pid = os.fork()
        if pid:
            print(pid, flush=True)
            continue
        try:
            threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            os.dup2(2, 1)  # the server's answers are its own
            getattr(module, function)(*arguments)
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)


def _end_with(server: int) -> None:
    """A test that is killed leaves no process behind."""
    while os.getppid() == server:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    _serve(sys.argv[1])
