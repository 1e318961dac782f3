"""Episodes in worker processes; a rollout cannot tell them from episodes in its own.

    with Workers(make_domain, num_workers=8) as workers:
        collect(..., start=workers.start)

A batch is cut into one stretch of neighbours for each worker.  A task travels once to each worker that plays it.  Its
gold trace is computed there once, so that no ground truth is copied per rollout.  A worker that dies, gives no answer
in time or grows too large is ended, and replaced before the next batch; its episodes become `Failure`s.  Episodes share
nothing, so their answers do not depend on the number of workers.

Left out on purpose: other machines, rescuing the episodes of a lost worker, and two batches at once.
"""

import atexit
import contextlib
import multiprocessing
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from rods_jax.environments.episode import readable, start_episodes
from rods_jax.environments.foreign import told
from rods_jax.environments.protocol import Answer, Domain, EpisodeBatch, Failure, Rules
from rods_jax.environments.scoring import RODS
from rods_jax.types import Action, Task

START_SECONDS = 300.0  # imports and the domain's own start, with all workers starting at once


class WorkerError(RuntimeError):
    """A worker process cannot start: the set-up is wrong, not an episode."""


class _Start(NamedTuple):
    tasks: Sequence[Task]
    rules: Rules


class _Act(NamedTuple):
    actions: Mapping[int, Action]


class _Reply(NamedTuple):
    value: Any
    peak_bytes: int  # resident memory of the worker, at most so far


class _Worker(NamedTuple):
    process: BaseProcess
    connection: Connection


class Workers:
    """A pool of processes that own episodes, in a `with` statement.  Each worker is a lane: threads may ask several."""

    def __init__(
        self,
        make_domain: Callable[[], Domain],
        rules: Rules = RODS,  # unless a batch has its own
        *,
        num_workers: int,
        seconds: float = 60.0,
        megabytes: int = 2048,
    ):
        """Starts the processes. WorkerError if the domain cannot be made there.

        make_domain: picklable; called in each process.  seconds: in which a worker must answer for all of its
        episodes.  megabytes: resident memory that a worker may use; allocations far beyond fail inside it.
        """
        self._arguments = make_domain, megabytes << 20
        self._rules = rules
        self._seconds = seconds
        self._workers: list[_Worker | None] = [None] * num_workers
        self._batch = 0
        atexit.register(self.close)  # else the interpreter's end would ask the processes by SIGTERM, and wait for them
        for failure in self._fill().values():
            self.close()
            raise WorkerError(f"a worker process cannot start: {failure.reason}")

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends every process."""
        atexit.unregister(self.close)
        for slot in range(len(self._workers)):
            self._end(slot)

    def start(self, tasks: Sequence[Task], rules: Rules | None = None) -> EpisodeBatch:
        """A `StartEpisodes`; the episodes of an earlier batch are dropped."""
        lost = self._fill()  # by slot: why none of its episodes in this batch can go on
        self._batch += 1
        batch, count = self._batch, len(self._workers)
        edges = [len(tasks) * slot // count for slot in range(count + 1)]
        stretches = {slot: range(*edge) for slot, edge in enumerate(zip(edges, edges[1:])) if edge[0] < edge[1]}

        def ask(requests: Mapping[int, _Start | _Act]) -> dict[int, Any]:
            answers = self._ask({slot: one for slot, one in requests.items() if slot not in lost})
            lost.update({slot: one for slot, one in answers.items() if isinstance(one, Failure)})
            return answers

        def act(actions: Mapping[int, Action]) -> dict[int, Answer | Failure]:
            if batch != self._batch:
                raise ValueError("these episodes were dropped when a later batch started")
            mine = {slot: [place for place in stretch if place in actions] for slot, stretch in stretches.items()}
            answers = ask(
                {
                    slot: _Act({place - stretches[slot].start: readable(actions[place]) for place in places})
                    for slot, places in mine.items()
                    if places
                }
            )
            return {
                place: lost.get(slot) or answers[slot][place - stretches[slot].start]
                for slot, places in mine.items()
                for place in places
            }

        answers = ask({slot: _Start(tasks[s.start : s.stop], rules or self._rules) for slot, s in stretches.items()})
        openings = [lost.get(slot) or answers[slot][place - s.start] for slot, s in stretches.items() for place in s]
        return EpisodeBatch(tuple(openings), act, tuple(stretches.values()))

    # -------------------------------------------------------------------------------- processes
    def _fill(self) -> dict[int, Failure]:
        """Starts a process in every slot without a living one; returns, by slot, why one could not start."""
        context = multiprocessing.get_context("spawn")  # a fork would inherit JAX's threads and locks
        started = []
        for slot, worker in enumerate(self._workers):
            if worker is not None and worker.process.is_alive():
                continue
            self._end(slot)
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, *self._arguments), daemon=True)
            process.start()
            theirs.close()
            self._workers[slot] = _Worker(process, ours)
            started.append(slot)
        answers = self._receive(started, START_SECONDS)
        return {slot: answer for slot, answer in answers.items() if answer is not None}

    def _end(self, slot: int) -> int | None:
        """Ends a process, if there is one; returns its exit code."""
        worker = self._workers[slot]
        if worker is None:
            return None
        self._workers[slot] = None
        worker.process.kill()
        worker.process.join()
        worker.connection.close()
        return worker.process.exitcode

    def _ask(self, requests: Mapping[int, _Start | _Act]) -> dict[int, Any]:
        """By slot: the answer, or the Failure of all episodes there."""
        for slot, request in requests.items():
            worker = self._living(slot)
            with _patience(worker.process, self._seconds), contextlib.suppress(OSError):  # `_receive` reports it
                worker.connection.send(request)
        return self._receive(requests, self._seconds)

    def _receive(self, slots: Iterable[int], seconds: float) -> dict[int, Any]:
        deadline = time.monotonic() + seconds
        waiting = {slot: self._living(slot).connection for slot in slots}
        answers: dict[int, Any] = {}
        while waiting:
            ready = wait(waiting.values(), max(0.0, deadline - time.monotonic()))
            for slot in [slot for slot, connection in waiting.items() if connection in ready]:
                connection = waiting.pop(slot)
                try:
                    with _patience(self._living(slot).process, seconds):
                        answer = connection.recv()
                    answers[slot] = self._checked(slot, answer)
                except (EOFError, OSError):
                    answers[slot] = Failure(f"the worker process died with exit code {self._died(slot)}")
            if not ready:
                for slot in waiting:
                    self._end(slot)
                    answers[slot] = Failure(f"the worker process gave no answer within {seconds:g} s")
                waiting = {}
        return answers

    def _checked(self, slot: int, answer: _Reply | Failure) -> Any:
        if isinstance(answer, Failure):
            self._end(slot)
            return answer
        if answer.peak_bytes > self._arguments[-1]:
            self._end(slot)
            return Failure(f"the worker process has used {answer.peak_bytes >> 20} MB of memory")
        return answer.value

    def _died(self, slot: int) -> int | None:
        self._living(slot).process.join(1.0)  # its pipe closes a moment before it has ended
        return self._end(slot)

    def _living(self, slot: int) -> _Worker:
        """The worker of a slot that `_fill` has filled."""
        worker = self._workers[slot]
        assert worker is not None
        return worker


@contextlib.contextmanager
def _patience(process: BaseProcess, seconds: float) -> Iterator[None]:
    """Kills the process if the block takes longer: one that stands still would hold whoever uses its pipe."""
    late = threading.Timer(seconds, process.kill)
    late.start()
    try:
        yield
    finally:
        late.cancel()


# ------------------------------------------------------------------------------- in the process
def _work(connection: Connection, make_domain: Callable[[], Domain], max_bytes: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    # So is what a scheduler sends to all processes. SIG_IGN would pass to the programs that a world starts and ends by it.
    signal.signal(signal.SIGTERM, lambda *_: None)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY:  # a runaway call must not take the machine
        resource.setrlimit(resource.RLIMIT_DATA, (4 * max_bytes, hard))
    try:
        domain = make_domain()
    except BaseException as error:
        connection.send(Failure(told(error)))
        return
    episodes = EpisodeBatch((), lambda actions: {})
    value: Any = None
    while True:
        try:
            connection.send(_Reply(value, _peak_bytes()))
            request = connection.recv()
        except (EOFError, OSError):  # the parent is gone
            return
        if isinstance(request, _Start):
            episodes = start_episodes(domain, request.tasks, request.rules)
            value = episodes.openings
        else:
            value = _act(episodes, request.actions)


def _act(episodes: EpisodeBatch, actions: Mapping[int, Action]) -> dict[int, Answer | Failure]:
    """The lanes of the world's own batch at once, each in a thread, as in the run's own process."""
    if not episodes.lanes:
        return dict(episodes.act(actions))
    lanes = [{place: actions[place] for place in lane if place in actions} for lane in episodes.lanes]
    asked = [some for some in lanes if some]
    with ThreadPoolExecutor(len(asked)) as threads:
        return {place: one for answers in threads.map(episodes.act, asked) for place, one in answers.items()}


def _peak_bytes() -> int:
    """The largest resident memory of this process so far."""
    try:  # Linux lets ru_maxrss start at the parent's size; this does not
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
