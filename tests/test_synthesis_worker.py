"""Synthesis beside the trainer: what is written is what the author writes at once, whoever dies in between."""

import shutil
import threading
from dataclasses import replace

import pytest
from beside_toy import CONFIG, SEEDS, TASKS, backends, model
from replay_toy import task_named
from synthesis_toy import TASK, TOY
from trainer_and_workers import ROOT, Counting, at_first_go, author_with, begun_run, records, trainer, workers

from rods_jax import journal
from rods_jax.chat import Endpoint, http_generate
from rods_jax.config import ConfigError, SynthesisConfig
from rods_jax.run.authors import author_of, open_author
from rods_jax.synthesis.ask import ROLES, load_prompts
from rods_jax.synthesis.author import Author, Order, Synthesis
from rods_jax.synthesis.courier.dispatch import at_once
from rods_jax.synthesis.courier.lines import OUTCOMES, WORK, outcome_record, storable
from rods_jax.synthesis.critique import known_contents
from rods_jax.synthesis.llm import llm_roles
from rods_jax.task_files import content_hash
from rods_jax.types import Turn


# ------------------------------------------------------------------------------ the same outcomes
def test_workers_write_what_the_author_would_write_at_once(tmp_path):
    with trainer(tmp_path) as ours, workers(tmp_path, workers=2) as told:
        for step in (1, 2):
            ours.send(*SEEDS[:4], step=step)
        results = ours.receive(8)
    assert results == {(seed.id, step): at_first_go(seed, step) for seed in SEEDS[:4] for step in (1, 2)}
    assert any(result.rejections for result in results.values())  # the judge is moody
    assert told == ours.told == []


def test_several_workers_share_the_seeds_and_ask_nothing_twice(tmp_path):
    counting = Counting()
    author = author_with(counting)
    with trainer(tmp_path) as ours, workers(tmp_path, author, 3), workers(tmp_path, author, 3):
        ours.send(*SEEDS)
        results = ours.receive(len(SEEDS))
    assert counting.asked == sum(len(result.exchanges) for result in results.values()) > 50
    keys = [record["key"] for record in records(tmp_path / OUTCOMES)]
    assert sorted(keys) == sorted(f"1/{seed.id}" for seed in SEEDS)


def test_a_seed_comes_again_at_another_step_and_not_at_the_same(tmp_path):
    with trainer(tmp_path) as ours, workers(tmp_path):
        ours.send(SEEDS[0], step=1)
        ours.send(SEEDS[0], step=1)  # as a resumed run does
        ours.send(SEEDS[0], step=9)
        assert set(ours.receive(2)) == {(SEEDS[0].id, 1), (SEEDS[0].id, 9)}
    with trainer(tmp_path, taken=2) as again:
        again.send(SEEDS[0], step=1)
        again.send(SEEDS[0], step=9)
        again.send()
        assert not again.received and len(records(tmp_path / "seeds.jsonl")) == 2


def test_the_newest_seed_goes_first(tmp_path):
    with trainer(tmp_path) as ours:
        for step in (3, 1, 2):
            ours.send(SEEDS[0], step=step)
        with workers(tmp_path):
            ours.receive(3)
    assert [step for _, step in ((d.seed, d.step) for d in ours.received)] == [3, 2, 1]


def test_at_once_no_content_comes_twice():
    def author(order, *, rng, step, known_hashes):
        return Synthesis(None if content_hash(TASK) in known_hashes else TASK)

    dispatches = at_once(author, 0)(tuple(map(Order, SEEDS[:2])), 1, frozenset())
    assert [d.result.candidate for d in dispatches] == [TASK, None]


# ------------------------------------------------------------------------------- going on
def refused_twice():
    """A seed and step whose first two attempts the judge refuses."""
    for step in range(1, 200):
        result = at_first_go(SEEDS[0], step)
        if len(result.rejections) == 2 and result.candidate is not None:
            return step, result
    raise AssertionError("the judge is too kind")


def test_a_worker_goes_on_wherever_another_died_and_asks_nothing_again(tmp_path):
    step, expected = refused_twice()
    with trainer(tmp_path / "whole") as ours, workers(tmp_path / "whole"):
        ours.send(SEEDS[0], step=step)
        ours.receive(1)
    (whole,) = (tmp_path / "whole" / WORK).iterdir()
    lines = whole.read_bytes().splitlines(keepends=True)
    steps = [("question" in record) for record in records(whole)]
    assert steps.count(False) == 2 and steps.count(True) == len(expected.exchanges)
    for kept in sorted({*range(0, len(lines), 9), steps.index(False) + 2, len(lines) - 1, len(lines)}):
        folder = tmp_path / str(kept)
        torn = lines[kept][: len(lines[kept]) // 2] if kept < len(lines) else b""
        counting = Counting()
        with trainer(folder) as ours:
            ours.send(SEEDS[0], step=step)
            (folder / WORK).mkdir()
            (folder / WORK / whole.name).write_bytes(b"".join(lines[:kept]) + torn)
            with workers(folder, author_with(counting)):
                assert ours.receive(1) == {(SEEDS[0].id, step): expected}
        assert counting.asked == steps.count(True) - sum(steps[: max(0, kept - 1)])


def test_content_that_another_worker_wrote_meanwhile_is_refused_and_the_next_attempt_made(tmp_path):
    step = next(step for step in range(1, 99) if not at_first_go(SEEDS[0], step).rejections)
    first = at_first_go(SEEDS[0], step).candidate
    asked = threading.Event()
    go_on = threading.Event()
    counting = Counting()

    def slow(requests):
        asked.set()
        go_on.wait(60)
        return counting(requests)

    with trainer(tmp_path) as ours, workers(tmp_path, author_with(slow)):
        ours.send(SEEDS[0], SEEDS[1], step=step)
        asked.wait(60)  # the worker holds a seed; the other outcome gets the variant that it is about to write
        with journal.writing(tmp_path / OUTCOMES) as append:
            append(outcome_record(f"{step}/{SEEDS[1].id}", Synthesis(first)))
        go_on.set()
        results = ours.receive(2)
    result = results[SEEDS[0].id, step]
    assert [rejection.error for rejection in result.rejections][:1] == ["unseen"]
    assert result.candidate is not None and content_hash(result.candidate) != content_hash(first)
    (begun,) = [path for path in (tmp_path / WORK).iterdir() if len(records(path))]
    questions = sum("question" in record for record in records(begun))
    assert counting.asked == questions == len(result.exchanges)


def test_an_author_that_repeats_what_is_known_ends_after_its_attempts(tmp_path):
    written = []

    def same(order, **_):
        written.append(order)
        return Synthesis(replace(order.seed, id="copy", ancestry=(order.seed.id,)))

    known = frozenset({content_hash(SEEDS[0])})
    with trainer(tmp_path) as ours, workers(tmp_path, Author(same, {}, 3, known)):
        ours.send(SEEDS[0], step=1)
        result = ours.receive(1)[SEEDS[0].id, 1]
    assert result.candidate is None and [one.error for one in result.rejections] == ["unseen"] * 3 and len(written) == 3


def test_what_json_cannot_hold_is_refused_by_a_gate():
    assert storable(TOY, TASK) is None
    for state in ({"Till": {"balance": (1, 2)}}, {"Till": {1: 2}}):
        assert storable(TOY, replace(TASK, world=replace(TASK.world, state=state))).startswith(
            "it holds a tuple or a key"
        )
    assert "JSON" in storable(TOY, replace(TASK, world=replace(TASK.world, state={"Till": {"balance": float("nan")}})))
    assert "serializable" in storable(
        TOY, replace(TASK, world=replace(TASK.world, state={"Till": {"balance": object()}}))
    )
    for value, why in ((10**400, "an integer has more than 400 digits"), ("\ud83d", "half a surrogate pair")):
        odd = replace(TASK, world=replace(TASK.world, state={"Till": {"balance": value}}))
        assert why in storable(TOY, odd)  # a journal would hold it, and no task file


# ------------------------------------------------------------------------------- bad configurations
def test_a_role_without_a_backend_a_missing_prompt_and_key_are_refused_before_anything_runs(tmp_path, monkeypatch):
    def refused(**changes):
        config = replace(CONFIG.synthesis, **changes)
        with pytest.raises(ConfigError) as error:
            author_of(config, TOY, TASKS)
        return str(error.value)

    some = {role: model for role in ROLES if role not in ("judge", "query")}
    assert refused(backends=lambda: some) == "synthesis: no backend for the roles query, judge"
    shutil.copytree(ROOT / "rods_jax/synthesis/prompts", tmp_path / "prompts")
    (tmp_path / "prompts/judge.md").unlink()
    roles = lambda backends: llm_roles(backends, load_prompts(tmp_path / "prompts"))
    assert "no prompt for the role judge" in refused(roles=roles)
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    endpoint = Endpoint(url="http://localhost:1/v1", model="m", api_key_env="NO_SUCH_KEY")
    assert "NO_SUCH_KEY" in refused(backends=lambda: dict.fromkeys(ROLES, http_generate(endpoint)))
    with pytest.raises(ConfigError, match="synthesis.attempts must be above 0"):
        SynthesisConfig(backends=backends, roles=llm_roles, attempts=0)


def test_workers_do_not_wait_for_seeds_that_the_trainer_settles_itself(tmp_path):
    config = replace(CONFIG, synthesis=replace(CONFIG.synthesis, at_once=True, workers=1))
    for alone, why in ((config, "synthesis.at_once"), (replace(CONFIG, synthesis=None), "no synthesis=")):
        directory = begun_run(tmp_path / why, alone)
        with pytest.raises(ConfigError, match=f"the config has {why}.*: its author works in the trainer"):
            open_author(alone, directory)


def test_no_candidate_may_repeat_a_held_out_task_or_one_of_the_pool():
    of = lambda name: replace(task_named(name, ()), turns=(Turn(name),))
    known = known_contents([of("held out")])
    assert known([of("a")]) == {content_hash(of("held out")), content_hash(of("a"))}
    assert known([]) == {content_hash(of("held out"))}  # what has left the pool may come again
