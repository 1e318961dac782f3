"""Worker processes: the same answers as in one process, and a lost process is a record."""

import functools
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from workers_toy import broken_domain, make_domain, slow_users, workplace

from rods_jax.environments.episode import start_episodes
from rods_jax.environments.protocol import Answer, Failure
from rods_jax.environments.scoring import RODS
from rods_jax.environments.workers import WorkerError, Workers
from rods_jax.types import Action, Call, Task, Turn, World

SECONDS, MEGABYTES = 5, 400
DONE = Action(answer="Done.")


def act(name, **arguments):
    return Action(calls=(Call(name, arguments),))


def task(number, *gold):
    turns = (Turn("add", gold), Turn("and wait"), Turn("add 1", (Call("add", {"n": 1}),)))
    return Task(f"t{number}", "s", "base", World(("Machine",), {"Machine": {"total": number}}), turns)


TASKS = [task(number, Call("add", {"n": number})) for number in range(4)]
BATCH = [one for one in TASKS for _ in range(5)]  # 20 episodes: stretches of 6, 7 and 7 cut groups apart
DEEP = functools.reduce(lambda inner, _: [inner], range(5_000), [])  # no pickle bears it
RULES = RODS._replace(max_attempts=2)


@pytest.fixture(scope="module")
def workers():
    ballast = bytearray(b"1" * (MEGABYTES << 20))  # the memory of the parent is not the worker's
    with Workers(make_domain, RULES, num_workers=3, seconds=SECONDS, megabytes=MEGABYTES) as workers:
        del ballast
        yield workers


def scripts():
    """An episode of its own kind at every place: right, wrong, unreadable, endless, and of different lengths."""
    kinds = [
        lambda n: [act("add", n=n), DONE, DONE, act("add", n=1), DONE],
        lambda n: [act("add", n=n + 1), DONE, act("add", n=1), act("fly"), DONE],
        lambda n: [Action(error="unreadable")] * 9,
        lambda n: [act("leave"), act("add", n=DEEP), *[act("add", n="x")] * 7],
        lambda n: [DONE, DONE, DONE],
    ]
    return {place: kinds[place % 5](place // 5) for place in range(len(BATCH))}


def play(start):
    """The visible tools, and all feedback of every episode until it is done."""
    batch, waiting, heard = start(BATCH), scripts(), {place: [] for place in range(len(BATCH))}
    while waiting:
        for place, feedback in batch.act({place: script.pop(0) for place, script in waiting.items()}).items():
            heard[place].append(feedback)
            if isinstance(feedback, Failure) or feedback.done:
                del waiting[place]
    return batch.openings, heard


@pytest.fixture(scope="module")
def expected():
    return play(partial(start_episodes, make_domain(), rules=RULES))


def test_workers_answer_as_one_process_does(workers, expected):
    assert play(workers.start) == expected
    assert play(workers.start) == expected  # a second batch, in the same processes
    passed = {tuple(one.passed for one in heard if one.passed is not None) for heard in expected[1].values()}
    assert len(passed) >= 3  # the episodes differ


def test_a_batch_smaller_than_the_pool_and_one_with_a_broken_task(workers):
    broken = task(9, Call("fly"))
    batch = workers.start([TASKS[1], broken])
    assert [tool.name for tool in batch.openings[0].tools] == ["add", "die", "leave", "hang", "leak"]
    answers = batch.act({0: act("add", n=1), 1: DONE})
    assert answers[0].observations == ('{"total": 2}',)
    assert answers[1] == batch.openings[1] and answers[1].reason.startswith("GoldError: t9 turn 0")
    with pytest.raises(ValueError, match="dropped when a later batch"):
        workers.start([TASKS[0]])
        batch.act({0: DONE})


def test_a_lost_worker_is_a_record_and_is_replaced(workers, expected):
    before = [worker.process.pid for worker in workers._workers]
    batch = workers.start(BATCH)
    answers = batch.act({0: act("die"), 1: DONE, 6: act("hang"), 19: DONE})
    assert answers[0] == answers[1] == Failure("the worker process died with exit code 7")
    assert answers[6] == Failure(f"the worker process gave no answer within {SECONDS} s")
    assert isinstance(answers[19], Answer)
    # What is lost stays lost in this batch, and nobody else's episodes are.
    assert batch.act({5: DONE, 7: DONE, 13: DONE})[13] == expected[1][14][0]._replace(code=0, passed=(False,))
    assert batch.act({5: DONE, 7: DONE}) == {5: answers[0], 7: answers[6]}
    assert play(workers.start) == expected
    after = [worker.process.pid for worker in workers._workers]
    assert [a == b for a, b in zip(before, after)] == [False, False, True]


def test_a_worker_that_grows_or_is_killed_is_replaced(workers, expected):
    before = [worker.process.pid for worker in workers._workers]
    batch = workers.start(BATCH)
    answers = batch.act({0: act("leak", megabytes=300), 19: DONE})
    assert "MB of memory" in answers[0].reason and isinstance(answers[19], Answer)
    os.kill(before[2], signal.SIGKILL)
    assert batch.act({19: DONE})[19] == Failure("the worker process died with exit code -9")
    os.kill(before[1], signal.SIGKILL)  # between two batches: nobody notices
    workers._workers[1].process.join()
    assert play(workers.start) == expected
    after = [worker.process.pid for worker in workers._workers]
    assert not set(before) & set(after)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in before)


def test_a_signal_to_all_processes_of_a_run_is_the_parents_to_handle(workers, expected):
    """A scheduler that announces preemption may signal every process; the step under way is played to its end."""
    batch = workers.start(BATCH)
    for worker in workers._workers:
        os.kill(worker.process.pid, signal.SIGTERM)
        os.kill(worker.process.pid, signal.SIGINT)
    answers = batch.act({0: DONE, 6: DONE, 19: DONE})
    assert all(isinstance(one, Answer) for one in answers.values())
    assert play(workers.start) == expected


def test_users_that_wait_are_asked_at_once_in_a_worker_too():
    with Workers(slow_users, num_workers=1) as workers:
        batch = workers.start([TASKS[0]] * 2)
        answers = batch.act(dict.fromkeys(range(2), DONE))
    assert [answers[place].passed for place in range(2)] == [(True,)] * 2


def test_workers_that_nobody_closed_end_with_the_process():
    program = "import workers_toy as toy\nfrom rods_jax.environments.workers import Workers\nleft = Workers(toy.make_domain, num_workers=1)\nprint(left._workers[0].process.pid)"
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parent.parent}"}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0 and not os.path.exists(f"/proc/{int(ended.stdout)}"), ended.stderr


def test_a_worker_that_stands_still_and_reads_nothing_holds_nobody(workers, expected):
    """Its pipe takes some 200,000 bytes; what is beyond would wait for ever."""
    workers.start(BATCH)
    os.kill(workers._workers[0].process.pid, signal.SIGSTOP)
    long = replace(TASKS[0], turns=(Turn("add" * 1_000_000),))
    batch = workers.start([long, *TASKS[1:3]])
    assert batch.openings[0] == Failure("the worker process died with exit code -9")
    assert not any(isinstance(one, Failure) for one in batch.openings[1:])
    assert play(workers.start) == expected


def test_memory_far_beyond_the_limit_is_refused_inside(workers):
    observed = workers.start(BATCH).act({0: act("leak", megabytes=100_000)})[0]
    assert observed.code == -2 and "Error" in observed.observations[0]


def test_a_domain_that_cannot_start_is_an_error_at_once():
    with pytest.raises(WorkerError, match="cannot start: ValueError: there is no machine"):
        Workers(broken_domain, num_workers=1)


@pytest.mark.slow
def test_a_training_run_is_the_same_with_workers(tmp_path):
    from test_train import CONFIG
    from test_train import play as trained

    rollout = {workers: replace(CONFIG.rollout, environment_workers=workers) for workers in (0, 2)}
    records = [trained(tmp_path / str(n), domain=workplace, rollout=one) for n, one in rollout.items()]
    assert records[0] == records[1] and len(records[0]) > 5
