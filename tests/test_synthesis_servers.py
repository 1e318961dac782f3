"""The language models' server is away, silent or spent: no seed is lost, and training never waits."""

import json
import threading
import time

from beside_toy import SEEDS, model, run
from chat_server import chat_server
from trainer_and_workers import at_first_go, author_with, serve, trainer, wait_until, workers

from rods_jax.chat import CONNECTION, MISCONFIGURED, Endpoint, Reply, http_generate
from rods_jax.synthesis.courier.worker import working


def test_an_endpoint_that_cannot_be_reached_costs_nothing_but_time(tmp_path):
    """It is said once, training goes on, and the seeds are settled as ever when the server comes."""
    with chat_server(serve) as (closed, _):
        pass
    serving, values = threading.Event(), []
    (tmp_path / "synthesis").mkdir()
    with chat_server(serve) as (url, _), trainer(tmp_path / "synthesis") as ours:
        unreachable, reachable = (
            http_generate(Endpoint(url=where, model="m", max_retries=1, first_wait=0.001)) for where in (closed, url)
        )
        author = author_with(lambda requests: (reachable if serving.is_set() else unreachable)(requests))
        with workers(tmp_path / "synthesis", author, 2) as told:
            end = run(tmp_path, ours.dispatch, until=16, record=lambda step, row: values.append(row))
            assert end.step == 16 and end.outcomes == 0 and sum(row.get("seeds", 0) for row in values) == 4
            wait_until(lambda: told)
            time.sleep(0.2)
            (sentence,) = told
            assert "planner: connection" in sentence and "training goes on with the pool it has" in sentence
            serving.set()
            results = ours.receive(4)
    by_id = {seed.id: seed for seed in SEEDS}
    assert results == {(name, step): at_first_go(by_id[name], step) for name, step in results}


def test_a_question_that_is_never_answered_holds_up_no_other_seed(tmp_path):
    def generate(requests):
        data = json.loads(requests[0].messages[1]["content"])
        return [Reply("", error=CONNECTION)] if data.get("category") == "long_context" else model(requests)

    poisoned, *others = SEEDS[3], *SEEDS[:3]
    with trainer(tmp_path) as ours:
        ours.send(poisoned, step=99)
        ours.send(*others, step=1)
        with workers(tmp_path, author_with(generate)) as told:
            assert {name for name, _ in ours.receive(3)} == {seed.id for seed in others}
    assert len(told) == 1 and "connection" in told[0]


def test_a_key_that_is_refused_costs_no_seed(tmp_path):
    asked = []

    def generate(requests):
        asked.append(requests)
        return [Reply("", error=MISCONFIGURED, detail="HTTP 401")] if len(asked) < 9 else model(requests)

    with trainer(tmp_path) as ours:
        ours.send(SEEDS[0], step=1)
        with workers(tmp_path, author_with(generate)) as told:
            assert ours.receive(1) == {(SEEDS[0].id, 1): at_first_go(SEEDS[0], 1)}
    assert len(told) == 1 and "misconfigured: HTTP 401: seeds wait" in told[0]


def test_a_spent_budget_ends_the_worker_and_keeps_the_seeds(tmp_path):
    with chat_server(serve) as (url, bodies), trainer(tmp_path) as ours:
        ours.send(*SEEDS[:3])
        limited = http_generate(Endpoint(url=url, model="m", max_total_tokens=2000))
        with working(tmp_path, author_with(limited), workers=2, tell=(told := []).append, poll=0.005) as threads:
            for thread in threads:
                thread.join(60)
                assert not thread.is_alive()
        assert len(told) == 1 and "budget_exhausted" in told[0] and "seeds wait" in told[0]
        with workers(tmp_path, author_with(http_generate(Endpoint(url=url, model="m")))):
            results = ours.receive(3)
        assert len(bodies) == sum(len(result.exchanges) for result in results.values())  # none was asked again
    assert results == {(seed.id, 1): at_first_go(seed, 1) for seed in SEEDS[:3]}


def test_training_never_waits_for_a_model_that_never_answers(tmp_path):
    never, values = threading.Event(), []

    def generate(requests):
        never.wait(120)
        return model(requests)

    (tmp_path / "synthesis").mkdir()
    with trainer(tmp_path / "synthesis") as ours, workers(tmp_path / "synthesis", author_with(generate), 2):
        end = run(tmp_path, ours.dispatch, until=40, record=lambda step, row: values.append(row))
        never.set()
    assert end.step == 40 and sum(row.get("seeds", 0) for row in values) == 10
    assert end.outcomes == 0
    assert sorted(row["seconds_synthesis"] for row in values[1:])[20] < 0.05
