"""Who answers requests when it is no server: a recording, a script. A server is chat.http_generate.

The rule-based author needs no requests at all (pipeline.RULE_BASED).
"""

import hashlib
import json
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rods_jax.chat import REFUSED, Generate, Reply, Request
from rods_jax.types import Call, Json


def recording(generate: Generate, path: Path) -> Generate:
    """The same answers, each written to a new file of JSON lines. FileExistsError: it holds another recording."""
    path.open("x").close()
    lock = threading.Lock()

    def answer(requests: Sequence[Request]) -> list[Reply]:
        replies = generate(requests)
        lines = [
            json.dumps({"request": vars(request), "reply": asdict(reply)}, default=dict) + "\n"
            for request, reply in zip(requests, replies, strict=True)
        ]
        with lock, path.open("a", encoding="utf-8") as file:
            file.writelines(lines)
        return replies

    return answer


def recorded(path: Path) -> Generate:
    """The answers of a `recording`, errors among them, as they are `remembered`.

    A request beyond the recording is answered with the error "refused".  A torn last line is passed over.
    ValueError: another line is no recorded answer.
    """
    replies: list[tuple[str, Reply]] = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            continue
        try:
            entry = json.loads(line)
            replies.append((question_key(Request(**entry["request"])), read_reply(entry["reply"])))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: no recorded answer ({type(error).__name__})") from None
    answer = remembered(replies)
    return lambda requests: [answer(request) or _refused(f"not in {path.name}") for request in requests]


def remembered(replies: Iterable[tuple[str, Reply]]) -> Callable[[Request], Reply | None]:
    """The n-th time that a question comes, its n-th reply; None: it has no more.

    replies: each with its `question_key`, in the order in which they were given.
    """
    left: dict[str, deque[Reply]] = defaultdict(deque)
    for key, reply in replies:
        left[key].append(reply)
    lock = threading.Lock()

    def answer(request: Request) -> Reply | None:
        with lock:
            waiting = left[question_key(request)]
            return waiting.popleft() if waiting else None

    return answer


def scripted(replies: Iterable[str | Reply]) -> Generate:
    """These answers in order, whatever the requests; then the error "refused"."""
    script = iter(replies)

    def reading(requests: Sequence[Request]) -> list[Reply]:
        lines = [next(script, _refused("the script has ended")) for _ in requests]
        return [Reply(line) if isinstance(line, str) else line for line in lines]

    return reading


def _refused(detail: str) -> Reply:
    return Reply("", error=REFUSED, detail=detail)


def read_reply(record: Mapping[str, Json]) -> Reply:
    """Inverse of `asdict`."""
    return Reply(**{**record, "calls": tuple(Call(**call) for call in record["calls"])})


def question_key(request: Request) -> str:
    """sha256 of everything that is asked."""
    return hashlib.sha256(json.dumps(vars(request), sort_keys=True, default=dict).encode()).hexdigest()
