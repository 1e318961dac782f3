"""Work for threads that nobody has to wait for, and what only one thread may do at a time."""

import ast
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any


def in_threads(function: Callable[[Any], Any], items: Sequence[Any], threads: int) -> Iterator[tuple[int, Any]]:
    """(place, function(item)) of all items, as they are finished; at most so many threads.

    An exception of `function` is raised here.  A caller that stops iterating, also by Ctrl-C, waits for no thread: the
    threads are daemons, which the interpreter's end does not join.  No further item is begun.
    """
    waiting = deque(enumerate(items))
    finished: queue.SimpleQueue = queue.SimpleQueue()

    def work() -> None:
        while True:
            try:
                place, item = waiting.popleft()
            except IndexError:
                return
            try:
                finished.put((place, function(item), None))
            except BaseException as error:
                finished.put((place, None, error))

    for _ in range(min(threads, len(items))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in items:
            place, result, error = finished.get()
            if error is not None:
                raise error
            yield place, result
    finally:
        waiting.clear()


_PARSING = threading.Lock()


def parse_python(source: str | bytes, mode: str = "exec") -> Any:
    """`ast.parse`, by one thread at a time; raises what it raises.

    CPython 3.11 keeps the depth of the tree in one place for all threads: two at once end in a SystemError.
    """
    with _PARSING:
        return ast.parse(source, "<string>", mode)
