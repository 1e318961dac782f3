"""Who plays in an evaluation: a script, or a model behind a server.  The policy of a run plays in played.py.

A player takes (task, rollout) pairs and yields their records as they are finished.  The episode itself is in
dialogue.py, and what happens on the wire in chat.py.
"""

import threading
from collections.abc import Callable, Iterator, Sequence

from rods_jax.chat import Generate
from rods_jax.dialogue import Act, Record, Stop, converse, play
from rods_jax.environments.protocol import Domain, Rules
from rods_jax.threads import in_threads
from rods_jax.types import Task

Jobs = Sequence[tuple[Task, int]]
PlayJobs = Callable[[Jobs], Iterator[Record]]


def scripted_player(domain: Domain, act_of: Callable[[Task], Act], rules: Rules) -> PlayJobs:
    """The gold player and the null player."""
    return lambda jobs: (play(domain, task, rollout, act_of(task), rules) for task, rollout in jobs)


# ----------------------------------------------------------------------------------------- server
def served(domain: Domain, generate: Generate, concurrency: int, rules: Rules) -> PlayJobs:
    """A model behind an OpenAI-compatible server: `concurrency` episodes under way at a time."""

    def play_all(jobs: Jobs) -> Iterator[Record]:
        interrupted = threading.Event()  # ends the episodes under way at their next message
        stop = Stop(failure="interrupted")

        def one(job: tuple[Task, int]) -> Record:
            task, rollout = job
            act = converse(generate)
            return play(domain, task, rollout, lambda new: stop if interrupted.is_set() else act(new), rules)

        try:
            for _, record in in_threads(one, jobs, concurrency):
                yield record
        finally:
            interrupted.set()

    return play_all
