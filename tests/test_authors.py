"""An author is any function of an order: at once, beside the trainer, and with what the policy said of the seed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from beside_toy import CONFIG, SEEDS, TASKS, position_of, rollout_of, run
from synthesis_toy import TOY
from trainer_and_workers import records, trainer, wait_until, workers

from rods_jax import journal, processes
from rods_jax.chat import CONNECTION, Reply, Request
from rods_jax.config import SynthesisConfig
from rods_jax.run.authors import author_of
from rods_jax.run.stages import heard_by_all
from rods_jax.synthesis.attempt import Rejection
from rods_jax.synthesis.author import Author, Order, Synthesis, orders_of
from rods_jax.synthesis.courier.dispatch import at_once
from rods_jax.synthesis.courier.lines import OUTCOMES, WORK, trajectories_from_json, trajectories_to_json
from rods_jax.types import Step, Trajectory


def quoting(order, *, step, history=(), **_):
    """Writes nothing, and says what the policy said instead."""
    said = " | ".join(one.steps[-1].text for one in order.trajectories)
    return Synthesis(None, (*history, Rejection(len(history), "quoted", f"{order.seed.id}, step {step}: {said}")))


def asking(order, *, backends, history=(), **_):
    """Asks a critic of its own what to make of the first rollout."""
    said = order.trajectories[0].steps[-1].text
    (reply,) = backends["critic"]([Request(({"role": "user", "content": said},))])
    return Synthesis(None, (*history, Rejection(len(history), "criticised", reply.text)))


def silent(order, **_):
    return Synthesis(None)


def author(write, critic=None, attempts=1) -> Author:
    return Author(write, {"critic": critic}, attempts, frozenset())


ORDERS = orders_of(SEEDS[:3], [rollout_of(seed, 5, number) for seed in SEEDS for number in range(2)])


def received(directory: Path, one: Author, orders=ORDERS) -> dict:
    with trainer(directory) as ours, workers(directory, one) as told:
        ours.received += ours.dispatch(orders, 5, frozenset())
        results = ours.receive(len(orders))
    assert told == ours.told == []
    return results


# --------------------------------------------------------------------------------- one author, two ways
def test_what_rollouts_said_reaches_an_author_at_once_and_beside(tmp_path):
    settled = at_once(quoting, CONFIG.seed)(ORDERS, 5, frozenset())
    details = [rejection.detail for d in settled for rejection in d.result.rejections]
    assert details == [f"{seed.id}, step 5: {seed.id} 5 0 | {seed.id} 5 1" for seed in SEEDS[:3]]
    assert received(tmp_path, author(quoting)) == {(d.seed.id, 5): d.result for d in settled}


def test_trajectories_come_back_as_they_were():
    steps = Step(0, "<tool_call>\ud800 ü", 3, ("1", "{}")), Step(1, "", 0)
    whole = Trajectory("t", 1, (True, False), steps, "turns", None), Trajectory("t", 2, (), (), None, "it broke")
    assert trajectories_from_json(json.loads(json.dumps(trajectories_to_json(whole)))) == whole


def test_an_order_of_an_older_journal_has_no_trajectories(tmp_path):
    with trainer(tmp_path / "new") as ours:
        ours.dispatch(ORDERS, 5, frozenset())
    old = [{k: v for k, v in one.items() if k != "trajectories"} for one in records(tmp_path / "new/seeds.jsonl")]
    (tmp_path / "old").mkdir()
    with journal.writing(tmp_path / "old/seeds.jsonl") as append:
        append(*old)
    with workers(tmp_path / "old", author(quoting)):
        wait_until(lambda: len(records(tmp_path / "old" / OUTCOMES)) == 3)
    details = [record["rejections"][0]["detail"] for record in records(tmp_path / "old" / OUTCOMES)]
    assert sorted(details) == sorted(f"{seed.id}, step 5: " for seed in SEEDS[:3])
    with trainer(tmp_path / "old") as ours:  # a resumed run's outcomes are those of the order's seed and step
        assert {(d.seed.id, d.step) for d in ours.dispatch((), 6, frozenset())} == {(s.id, 5) for s in SEEDS[:3]}


def test_an_author_that_gives_up_without_a_word_has_settled_the_seed(tmp_path):
    assert received(tmp_path, author(silent, attempts=3)) == {(seed.id, 5): Synthesis(None) for seed in SEEDS[:3]}


def test_an_author_that_raises_has_its_seed_passed_over_whatever_it_raises(tmp_path):
    """A file that it lacks is no trouble of the journals, for which every seed would wait."""

    def write(order, **others):
        if order.seed.id == SEEDS[2].id:  # the newest, which comes first
            raise FileNotFoundError(2, "No such file or directory", "words.txt")
        return Synthesis(None)

    with trainer(tmp_path) as ours, workers(tmp_path, author(write)) as told:
        ours.send(*SEEDS[:2], step=1)
        ours.send(SEEDS[2], step=2)
        assert {name for name, _ in ours.receive(2)} == {seed.id for seed in SEEDS[:2]}
    (sentence,) = told
    assert sentence.startswith(f"the seed 2/{SEEDS[2].id} is passed over: ") and "words.txt" in sentence


def test_a_variant_without_ancestry_is_no_outcome(tmp_path):
    """The pool refuses it: a line that carries it would end the training, and every resumed run again."""
    orphan = lambda order, **others: Synthesis(replace(order.seed, id="orphan"))
    with trainer(tmp_path) as ours, workers(tmp_path, author(orphan)) as told:
        ours.send(SEEDS[0])
        wait_until(lambda: told or records(tmp_path / OUTCOMES))
    assert records(tmp_path / OUTCOMES) == [] and "the variant orphan names no ancestry" in told[0]


def test_a_variant_of_a_stratum_that_the_domain_lacks_is_no_outcome(tmp_path):
    """The step that would play it would end the training, and every resumed run again."""
    odd = lambda order, **others: Synthesis(replace(order.seed, id="odd", category="odd", ancestry=(order.seed.id,)))
    own = author_of(SynthesisConfig(backends=dict, author=lambda domain: odd), TOY, TASKS)
    with trainer(tmp_path) as ours, workers(tmp_path, own) as told:
        ours.send(SEEDS[0])
        wait_until(lambda: told or records(tmp_path / OUTCOMES))
    assert records(tmp_path / OUTCOMES) == [] and "the variant odd is of odd, which toy lacks" in told[0]
    with pytest.raises(ValueError, match="the variant odd is of odd, which toy lacks"):
        at_once(own.write, 0)(ORDERS[:1], 5, frozenset())


def test_what_an_author_asked_is_asked_once_whoever_dies(tmp_path):
    """The same question in both attempts: each keeps its own answer."""
    asked = []

    def critic(requests):
        asked.append(requests[0].messages[0]["content"])
        return [Reply(f"answer {len(asked)}")]

    with trainer(tmp_path) as ours:
        ours.received += ours.dispatch(ORDERS[:1], 5, frozenset())
        away = lambda requests: critic(requests) if not asked else [Reply("", error=CONNECTION)]
        with workers(tmp_path, author(asking, away, attempts=2)) as told:
            wait_until(lambda: told)
        (begun,) = (tmp_path / WORK).iterdir()
        assert ["question" in record for record in records(begun)] == [True, False]
        with workers(tmp_path, author(asking, critic, attempts=2)):
            (result,) = ours.receive(1).values()
    assert asked == [f"{SEEDS[0].id} 5 0"] * 2
    assert [rejection.detail for rejection in result.rejections] == ["answer 1", "answer 2"]


# ----------------------------------------------------------------------------------- from the loop
def test_the_loop_hands_each_seed_the_rollouts_of_its_own_step(tmp_path):
    seen = []

    def write(order, *, step, **rest):
        seen.append((order.seed.id, step, [one.steps[-1].text for one in order.trajectories]))
        return quoting(order, step=step, **rest)

    run(tmp_path, at_once(write, CONFIG.seed), until=16)
    assert len(seen) == 4 and len({name for name, *_ in seen}) > 1
    assert all(said == [f"{name} {step} {number}" for number in range(2)] for name, step, said in seen)


def test_a_resumed_run_sends_the_same_bytes(tmp_path):
    def trained(directory: Path, *until: int) -> bytes:
        (directory / "synthesis").mkdir(parents=True)
        for step in until:
            taken = position_of(directory).outcomes
            with trainer(directory / "synthesis", taken) as ours, workers(directory / "synthesis", author(quoting)):
                run(directory, ours.dispatch, until=step)
        return (directory / "synthesis" / "seeds.jsonl").read_bytes()

    assert trained(tmp_path / "whole", 12) == trained(tmp_path / "parts", 3, 7, 12)


@pytest.mark.parametrize("mine", [0, 1])
def test_each_process_brings_the_trajectories_of_its_share(monkeypatch, mine):
    """The first process writes with those of all."""
    shares = [[order if index % 2 == process else Order(order.seed) for index, order in enumerate(ORDERS)]
              for process in range(2)]  # fmt: skip
    parts = [[trajectories_to_json(order.trajectories) for order in share] for share in shares]
    monkeypatch.setattr(processes, "gather", lambda value: [value if n == mine else parts[n] for n in range(2)])
    whole = at_once(quoting, CONFIG.seed)(ORDERS, 5, frozenset())
    assert heard_by_all(at_once(quoting, CONFIG.seed), shares[mine], 5, frozenset()) == whole
