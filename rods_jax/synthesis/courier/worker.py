"""Has an author settle seeds beside the trainer: threads of its process, or of any other that sees its folder.

Every seed that was begun has a journal in work/.  It holds each reply of a language model, written before it is used,
and each attempt that failed.  The worker that holds the journal's lock works on the seed.  If it dies, another worker
continues the attempt and repeats no question.  A server that cannot be reached costs a seed no attempt: the seed waits.
`rods synthesize` starts workers on other hosts, by itself or as Ray tasks.
"""

import contextlib
import hashlib
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from rods_jax import journal
from rods_jax.chat import (
    BUDGET_EXHAUSTED,
    CONNECTION,
    MISCONFIGURED,
    RATE_LIMITED,
    SERVER_ERROR,
    Reply,
    Request,
)
from rods_jax.journal import InUse, JournalError, Place
from rods_jax.synthesis.attempt import UNSEEN, Rejection
from rods_jax.synthesis.author import Author, Synthesis
from rods_jax.synthesis.backends import question_key, read_reply, remembered
from rods_jax.synthesis.courier.lines import (
    OUTCOMES,
    SEEDS,
    WORK,
    Sent,
    attempts_record,
    outcome_record,
    read_attempts,
    read_sent,
)
from rods_jax.task_files import content_hash

# Errors that do not concern the question; it is asked again later.
UNANSWERED = (CONNECTION, RATE_LIMITED, SERVER_ERROR, MISCONFIGURED, BUDGET_EXHAUSTED)


@contextlib.contextmanager
def working(
    directory: Path,
    author: Author,
    *,
    workers: int,
    tell: Callable[[str], None],
    poll: float = 0.5,
    pause: float = 30.0,
) -> Iterator[list[threading.Thread]]:
    """Threads that settle the seeds of `directory`, each one at a time, until the block ends.

    tell: gets sentences for people, each once.  poll: seconds between looks for new seeds.  pause: seconds before a
    server that did not answer is asked again.  A thread ends by itself when the budget is spent or a journal was
    edited.  The end of the block waits for no thread: the next worker continues what was under way.
    """
    (directory / WORK).mkdir(parents=True, exist_ok=True)
    desk, stop = _Desk(directory, author.known, tell), threading.Event()
    arguments = desk, author, stop, poll, pause
    threads = [threading.Thread(target=_work, args=arguments, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        stop.set()


class _Stopped(BaseException):
    """The block has ended.  A BaseException, so that no stage's `except Exception` takes it for a failure."""


class _Unanswered(BaseException):
    """A server did not answer the question; one of UNANSWERED says why."""


class _Desk:
    """What the threads of a process share: the journals as far as they were read, and what `tell` was told."""

    def __init__(self, directory: Path, known: frozenset[str], tell: Callable[[str], None]):
        self._directory, self._tell, self._lock = directory, tell, threading.Lock()
        self._seeds_place = self._outcomes_place = Place()
        self._waiting: dict[str, Sent] = {}
        self._settled: set[str] = set()
        self._unanswered: Counter[str] = Counter()
        self._told: set[str] = set()
        self.known = set(known)

    def waiting(self) -> list[Sent]:
        """The newest seeds first, because the boundary moves; seeds that a server left unanswered come last."""
        with self._lock:
            self._look()
            return sorted(self._waiting.values(), key=lambda seed: (self._unanswered[seed.key], -seed.step))

    def begin(self, seed: Sent) -> contextlib.AbstractContextManager[Callable[..., None]]:
        """The seed's journal, locked, to append to.  InUse: another worker holds it."""
        return journal.writing(self.journal_of(seed), wait=False)

    def journal_of(self, seed: Sent) -> Path:
        digest = hashlib.sha256(seed.key.encode()).hexdigest()[:16]
        return self._directory / WORK / f"{seed.step:06}-{digest}.jsonl"

    def waits(self, seed: Sent) -> bool:
        """Whether the seed is not settled yet."""
        with self._lock:
            self._look()
            return seed.key in self._waiting

    def settle(self, seed: Sent, result: Synthesis) -> bool:
        """Writes the outcome, once.  False: another seed wrote the same variant meanwhile, so this one is refused."""
        path = self._directory / OUTCOMES
        with self._lock, journal.writing(path, self._outcomes_place) as append:
            self._look()
            if seed.key in self._settled:  # by a worker that could not see this one's lock; the first outcome counts
                return True
            if result.candidate is not None and content_hash(result.candidate) in self.known:
                return False
            append(outcome_record(seed.key, result))
            self._look()
        return True

    def leave(self, seed: Sent, error: Exception) -> None:
        """Removes a seed that this process cannot settle; other processes may."""
        with self._lock:
            self._waiting.pop(seed.key, None)
        self.tell_once(seed.key, f"the seed {seed.key} is passed over: {type(error).__name__}: {error}")

    def unanswered(self, seed: Sent, role: str, error: str, detail: str) -> None:
        """Puts the seed behind those that were left unanswered less often."""
        with self._lock:
            self._unanswered[seed.key] += 1
        self.tell_once(error, f"{role}: {error}: {detail}: seeds wait, and training goes on with the pool it has")

    def tell_once(self, kind: str, sentence: str) -> None:
        with self._lock:
            new = kind not in self._told
            self._told.add(kind)
        if new:
            self._tell(sentence)

    def _look(self) -> None:
        """Reads new lines of both journals.  Outcomes come first: the tasks of settled seeds are then not decoded."""
        entries, self._outcomes_place = journal.read(self._directory / OUTCOMES, self._outcomes_place)
        for _, record in entries:
            self._settled.add(record["key"])
            self._waiting.pop(record["key"], None)
            if record["content"] is not None:
                self.known.add(record["content"])
        path = self._directory / SEEDS
        entries, self._seeds_place = journal.read(path, self._seeds_place)
        for entry in entries:
            if entry.record["key"] not in self._settled:
                seed = read_sent(path, entry)
                self._waiting[seed.key] = seed


# --------------------------------------------------------------------------------- a thread's life
def _work(desk: _Desk, author: Author, stop: threading.Event, poll: float, pause: float) -> None:
    while not stop.is_set():
        try:
            if not any(_begin(desk, author, seed, stop) for seed in desk.waiting()):
                stop.wait(poll)
        except _Unanswered as unanswered:
            if unanswered.args[0] == BUDGET_EXHAUSTED:
                return
            stop.wait(pause)
        except _Stopped:
            return
        except OSError as error:
            desk.tell_once("files", f"synthesis waits: {error}")
            stop.wait(pause)
        except JournalError as error:
            desk.tell_once("journal", f"{error}; synthesis has ended")
            return


def _begin(desk: _Desk, author: Author, seed: Sent, stop: threading.Event) -> bool:
    """Settles the seed and returns True, unless another worker is at it or has settled it."""
    try:
        with desk.begin(seed) as append:
            if not desk.waits(seed):
                return False
            _settle(desk, author, seed, append, stop)
            return True
    except InUse:
        return False
    except OSError:
        raise
    except Exception as error:  # the seed's own journal was edited, or a bug: the other seeds go on
        desk.leave(seed, error)
        return False


def _settle(desk: _Desk, author: Author, seed: Sent, append: Callable[..., None], stop: threading.Event) -> None:
    """Continues where the seed's journal ends, until its outcome is written."""
    # Read the journal: failed attempts, then the replies of the attempt under way.
    before = Synthesis(None)
    replies: list[tuple[str, Reply]] = []
    for _, record in journal.read(desk.journal_of(seed))[0]:
        if "question" in record:
            replies.append((record["question"], read_reply(record["reply"])))
        else:
            before, replies = _then(before, Synthesis(None, *read_attempts(record))), []

    def ask(role: str, request: Request) -> Reply:
        """The server's reply, written to the journal before it is used."""
        if stop.is_set():
            raise _Stopped
        (reply,) = author.backends[role]([request])
        if reply.error in UNANSWERED:
            desk.unanswered(seed, role, reply.error, reply.detail)
            raise _Unanswered(reply.error)
        append({"question": question_key(request), "reply": asdict(reply)})
        replies.append((question_key(request), reply))
        return reply

    def answer(kept: Callable[[Request], Reply | None], role: str, requests: Sequence[Request]) -> list[Reply]:
        return [kept(request) or ask(role, request) for request in requests]

    # One attempt a round, so that each failure is written when it ends.
    while True:
        kept = remembered(replies)
        try:
            result = author.write(
                seed.order,
                step=seed.step,
                rng=random.Random(seed.random),
                known_hashes=desk.known,
                backends={role: partial(answer, kept, role) for role in author.backends},
                history=before.rejections,
                attempts=min(len(before.rejections) + 1, author.attempts),  # one more than have failed
            )
        except OSError as error:  # the author's own, unless the journal refuses: for that, seeds wait
            append()
            raise RuntimeError(f"{type(error).__name__}: {error}") from error
        if result.candidate is not None and not result.candidate.ancestry:  # the pool would refuse it in every run
            raise ValueError(f"the variant {result.candidate.id} names no ancestry")
        new = replace(result, rejections=result.rejections[len(before.rejections) :])
        after = _then(before, new)
        if new.rejections:
            append(attempts_record(new))
            before, replies = after, []
        given_up = not new.rejections or len(after.rejections) >= author.attempts
        if (after.candidate is not None or given_up) and desk.settle(seed, after):
            return
        # Another seed wrote the same: the attempt has failed, also by an author that repeats.
        if after.candidate is not None:
            late = Rejection(len(before.rejections), UNSEEN, "another seed wrote the same meanwhile")
            failed = Synthesis(None, (late,), () if new.rejections else new.exchanges)
            append(attempts_record(failed))
            before, replies = _then(before, failed), []
            if len(before.rejections) >= author.attempts and desk.settle(seed, before):
                return


def _then(before: Synthesis, new: Synthesis) -> Synthesis:
    return Synthesis(new.candidate, before.rejections + new.rejections, before.exchanges + new.exchanges)
