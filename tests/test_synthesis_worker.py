"""Synthesis beside the trainer: what is written is what the author writes at once, whoever dies in between."""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from beside_toy import AUTHOR, CONFIG, SEEDS, TASKS, backends, model, moody, position_of, run
from chat_server import chat_server, completion, send
from forks import forks
from rich.console import Console
from synthesis_model import Model
from synthesis_toy import TASK, TOY

from rods_jax import checkpoint, journal, replay
from rods_jax.chat import CONNECTION, Endpoint, Reply, http_generate
from rods_jax.config import Config, ConfigError, SynthesisConfig, load_config, resolved
from rods_jax.journal import InUse, JournalError
from rods_jax.metrics import read_metrics
from rods_jax.synthesis.ask import ROLES, load_prompts
from rods_jax.synthesis.critique import content_hash
from rods_jax.synthesis.dispatch import OUTCOMES, UNREADABLE, WORK, at_once, beside, outcome_record, random_of
from rods_jax.synthesis.llm import llm_roles
from rods_jax.synthesis.pipeline import Synthesis, synthesize
from rods_jax.synthesis.worker import storable, working
from rods_jax.task_files import task_to_json, write_tasks
from scripts import train
from scripts.synthesize import author_of, work

ROOT = Path(__file__).parent.parent
LOADED = load_config(ROOT / "tests/beside_toy.py")  # as the command names its functions


def records(path: Path) -> list:
    return [entry.record for entry in journal.read(path)[0]]


def wait_until(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def at_first_go(seed, step, author=AUTHOR) -> Synthesis:
    """What the author writes of a seed when nothing comes in between."""
    rng = random.Random(random_of(CONFIG.seed, step, seed))
    roles = author.roles(author.backends)
    return synthesize(TOY, seed, rng=rng, step=step, known_hashes=author.known, roles=roles)


class Trainer:
    """The trainer's side, in this process: sends and receives when a test says so."""

    def __init__(self, directory: Path, dispatch, told: list[str]):
        self.directory, self.dispatch, self.told = directory, dispatch, told
        self.received = []

    def send(self, *seeds, step: int = 1) -> None:
        self.received += self.dispatch(seeds, step, frozenset())

    def receive(self, count: int) -> dict:
        """By (seed, step), once there are so many."""

        def arrived():
            self.send()
            return len(self.received) >= count

        wait_until(arrived)
        found = {(d.seed.id, d.step): d.result for d in self.received}
        assert len(found) == len(self.received) == count
        return found


@contextlib.contextmanager
def trainer(directory: Path, taken: int = 0):
    told: list[str] = []
    with beside(directory, CONFIG.seed, taken=taken, tell=told.append) as dispatch:
        yield Trainer(directory, dispatch, told)


@contextlib.contextmanager
def workers(directory: Path, author=AUTHOR, workers: int = 1, pause: float = 0.02):
    """What they tell; they have ended when the block has."""
    told: list[str] = []
    with working(directory, author, workers=workers, tell=told.append, poll=0.005, pause=pause) as threads:
        yield told
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


class Counting:
    """The model, and how often it was asked; `limit`: after so many answers it breaks down for good."""

    def __init__(self):
        self.asked = 0
        self.lock = threading.Lock()

    def __call__(self, requests):
        with self.lock:
            self.asked += len(requests)
        return model(requests)


def author_with(generate, **changes):
    return AUTHOR._replace(backends=dict.fromkeys(ROLES, generate), **changes)


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
    def author(seed, *, rng, step, known_hashes):
        return Synthesis(None if content_hash(TASK) in known_hashes else TASK)

    dispatches = at_once(author, 0)(SEEDS[:2], 1, frozenset())
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
    assert (
        counting.asked == questions == len(result.exchanges) + 1
    )  # a judge had seen the first before it was known


def test_what_json_cannot_hold_is_refused_by_a_gate():
    assert storable(TOY, TASK) is None
    for state in ({"Till": {"balance": (1, 2)}}, {"Till": {1: 2}}):
        assert storable(TOY, replace(TASK, initial_state=state)).startswith("it holds a tuple or a key")
    assert "JSON" in storable(TOY, replace(TASK, initial_state={"Till": {"balance": float("nan")}}))
    assert "serializable" in storable(TOY, replace(TASK, initial_state={"Till": {"balance": object()}}))


# ----------------------------------------------------------------------------- servers that fail
def serve(handler, body):
    (text,) = [reply.text for reply in Model(judge=moody)([RequestOf(body)])]
    send(handler, completion(text, usage=(100, 20)))


class RequestOf:
    def __init__(self, body):
        self.messages = body["messages"]


def test_an_endpoint_that_cannot_be_reached_costs_nothing_but_time(tmp_path):
    """It is said once, training goes on, and the seeds are settled as ever when the server comes."""
    with chat_server(serve) as (closed, _):
        pass
    serving, values = threading.Event(), []
    (tmp_path / "synthesis").mkdir()
    with chat_server(serve) as (url, _), trainer(tmp_path / "synthesis") as ours:
        unreachable, reachable = (
            http_generate(Endpoint(url=where, model="m", max_retries=1, first_wait=0.001))
            for where in (closed, url)
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


# --------------------------------------------------------------------------------- bad journals
def settled(directory: Path, count: int = 3) -> None:
    with trainer(directory) as ours, workers(directory):
        ours.send(*SEEDS[:count])
        ours.receive(count)


def edit(path: Path, line: int) -> None:
    lines = path.read_text().split("\n")
    lines[line - 1] = lines[line - 1].replace('"step"', '"stop"').replace('"error"', '"eror"')
    path.write_text("\n".join(lines))


@pytest.mark.parametrize("name", ["seeds.jsonl", OUTCOMES])
def test_an_edited_journal_is_refused_with_its_line(tmp_path, name):
    settled(tmp_path)
    edit(tmp_path / name, 3)
    with pytest.raises(JournalError, match=f"{name}, line 3: it was changed"), trainer(tmp_path):
        pass
    with working(tmp_path, AUTHOR, workers=2, tell=(told := []).append, poll=0.005) as threads:
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    assert len(told) == 1 and f"{name}, line 3: it was changed" in told[0]


def test_outcomes_that_are_edited_under_way_stop_no_training(tmp_path):
    with trainer(tmp_path) as ours:
        ours.send(*SEEDS[:2])
        with journal.writing(tmp_path / OUTCOMES) as append:
            append(outcome_record(f"1/{SEEDS[0].id}", Synthesis(None)))
        ours.receive(1)
        with (tmp_path / OUTCOMES).open("a") as file:
            file.write('["0123456789abcdef", {"key": "1/x"}]\n')
        ours.send()
        ours.send()
    assert len(ours.told) == 1 and "line 3: it was changed" in ours.told[0]
    assert "training goes on with the pool it has" in ours.told[0]


def test_an_outcome_that_nobody_waits_for_ends_the_taking_and_the_next_start(tmp_path):
    """A line too many would shift what a checkpoint counts."""
    with trainer(tmp_path) as ours:
        ours.send(*SEEDS[:3])
        with journal.writing(tmp_path / OUTCOMES) as append:
            append(*(outcome_record(f"1/{seed.id}", Synthesis(None)) for seed in SEEDS[:2]))
            ours.receive(2)
            append(outcome_record(f"1/{SEEDS[0].id}", Synthesis(None)))
            ours.send()
            append(outcome_record(f"1/{SEEDS[2].id}", Synthesis(None)))
            ours.send()
    assert len(ours.received) == 2 and len(ours.told) == 1
    assert f"outcomes.jsonl, line 4: 1/{SEEDS[0].id} does not wait for an outcome" in ours.told[0]
    with pytest.raises(JournalError, match="line 4"), trainer(tmp_path, 2):
        pass


def test_a_torn_last_line_of_any_journal_costs_nothing(tmp_path):
    with trainer(tmp_path) as ours, workers(tmp_path):
        ours.send(*SEEDS[:3])
        expected = ours.receive(3)
    for path in (tmp_path / "seeds.jsonl", tmp_path / OUTCOMES):
        path.write_bytes(path.read_bytes()[:-7])
    with trainer(tmp_path) as ours, workers(tmp_path):
        ours.send(*SEEDS[:3])
        assert ours.receive(3) == expected


def test_an_edited_journal_of_one_seed_costs_that_seed_alone(tmp_path):
    with trainer(tmp_path) as ours:
        ours.send(*SEEDS[:2])
        with chat_server(serve) as (url, _):
            budget = Endpoint(url=url, model="m", max_total_tokens=600)
            with working(tmp_path, author_with(http_generate(budget)), workers=1, tell=print) as (thread,):
                thread.join(60)
        (begun,) = (tmp_path / WORK).iterdir()
        begun.write_text(begun.read_text().replace("tokens", "tokers", 1))
        with workers(tmp_path) as told:
            ours.receive(1)
    assert len(told) == 1 and f"{begun.name}, line 2: it was changed" in told[0] and "is passed over" in told[0]


def test_a_variant_of_another_version_is_counted_and_said_once(tmp_path):
    with trainer(tmp_path) as ours:
        ours.send(*SEEDS[:3])
        with journal.writing(tmp_path / OUTCOMES) as append:
            for seed in SEEDS[:2]:
                record = outcome_record(f"1/{seed.id}", Synthesis(at_first_go(seed, 1).candidate or TASK))
                append(record | {"candidate": record["candidate"] | {"version": 2}})
        with workers(tmp_path):
            results = ours.receive(3)
    assert [results[seed.id, 1].candidate for seed in SEEDS[:2]] == [None, None]
    assert [r.error for seed in SEEDS[:2] for r in results[seed.id, 1].rejections] == [UNREADABLE] * 2
    assert results[SEEDS[2].id, 1] == at_first_go(SEEDS[2], 1)
    (sentence,) = ours.told
    assert "outcomes.jsonl, line 2: field version must be 1: got 2" in sentence


def test_a_seed_of_another_version_ends_the_worker(tmp_path):
    record = {"key": "1/x", "step": 1, "random": "0", "task": task_to_json(TASK) | {"version": 2}}
    with journal.writing(tmp_path / "seeds.jsonl") as append:
        append(record)
    with working(tmp_path, AUTHOR, workers=1, tell=(told := []).append, poll=0.005) as (thread,):
        thread.join(60)
    assert not thread.is_alive()
    (sentence,) = told
    assert "seeds.jsonl, line 2: field version must be 1: got 2" in sentence


def test_a_checkpoint_that_the_journal_does_not_know_is_refused(tmp_path):
    settled(tmp_path, 2)
    with pytest.raises(JournalError, match="holds 2 outcomes; the checkpoint has had 3"), trainer(tmp_path, 3):
        pass


def test_a_folder_has_one_trainer(tmp_path):
    with trainer(tmp_path), pytest.raises(InUse, match="seeds.jsonl is being written"), trainer(tmp_path):
        pass


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


# ------------------------------------------------------------------------------------ processes
@pytest.fixture(scope="module")
def start(tmp_path_factory):
    asked = tmp_path_factory.mktemp("asked") / "asked"
    os.environ["ASKED"] = str(asked)
    try:
        with forks("beside_toy") as start:
            yield start
    finally:
        del os.environ["ASKED"]


def survive(directory: Path, start, *, kills: int, seed: int) -> dict[str, int]:
    """Kills trainers and workers at random, lets the last ones finish, and checks every seed and variant."""
    rng = random.Random(seed)
    asked = Path(os.environ["ASKED"])
    asked.unlink(missing_ok=True)
    asked.touch()
    synthesis = directory / "synthesis"
    synthesis.mkdir(parents=True)
    begin = {
        "trainer": lambda: start("trainer", str(directory), 10**6, 1),
        "worker 1": lambda: start("worker", str(directory)),
        "worker 2": lambda: start("worker", str(directory)),
    }
    running = {name: begin[name]() for name in begin}
    for _ in range(kills):
        time.sleep(rng.uniform(0.02, 0.3))
        name = rng.choice(list(begin))
        running[name].kill()
        running[name] = begin[name]()
    running["trainer"].kill()
    if position_of(directory).step < 8:  # a slow machine: let it do something
        running["trainer"] = begin["trainer"]()
        wait_until(lambda: position_of(directory).step >= 8)
        running["trainer"].kill()
    keys = [record["key"] for record in records(synthesis / "seeds.jsonl")]
    wait_until(lambda: len(records(synthesis / OUTCOMES)) >= len(keys), 600)
    for process in running.values():
        process.kill()
    last = start("trainer", str(directory), position_of(directory).step + 9, 0)
    last.join()

    seeds = records(synthesis / "seeds.jsonl")
    outcomes = records(synthesis / OUTCOMES)
    end = position_of(directory)
    questions = len(asked.read_text().splitlines())
    # No seed is doubled, none is lost, and each has one outcome.
    sent = [record["key"] for record in seeds]
    had = [record["key"] for record in outcomes]
    assert len(set(sent)) == len(sent) and len(set(had)) == len(had) and set(keys) <= set(had) <= set(sent)
    # Every outcome is what the author writes when nobody dies.
    tasks = {seed.id: seed for seed in SEEDS} | {
        record["candidate"]["id"]: record["candidate"] for record in outcomes if record["candidate"]
    }
    by_key = {record["key"]: record for record in outcomes}
    for record in seeds[:: max(1, len(seeds) // 40)]:
        if record["key"] in by_key and record["task"]["id"] in {seed.id for seed in SEEDS}:
            expected = at_first_go(tasks[record["task"]["id"]], record["step"])
            assert by_key[record["key"]] == json.loads(json.dumps(outcome_record(record["key"], expected)))
    # Every variant is in the pool once: what the trainer took, and nothing else.
    assert len(keys) <= end.outcomes <= len(outcomes)
    variants = [record["candidate"]["id"] for record in outcomes[: end.outcomes] if record["candidate"]]
    pooled = [item.task.id for item in end.replay.items if item.task.ancestry]
    staged = [entry.task.id for entry in end.replay.staged]
    assert Counter(variants) == Counter(pooled + staged) and max(Counter(variants).values()) == 1
    assert end.replay.injected == len(pooled) and sum(end.replay.retired_counts) == 0
    # A kill costs each of the victim's threads at most the answer that was on its way.
    used = sum(len(record["exchanges"]) for record in outcomes)
    unfinished = sum("question" in record for path in (synthesis / WORK).iterdir() for record in records(path))
    assert used <= unfinished <= questions <= unfinished + 2 * (kills + 5)
    return {"kills": kills, "seeds": len(sent), "variants": len(variants), "questions": questions, "used": used}


def test_nothing_is_lost_or_doubled_through_a_few_kills(tmp_path, start):
    print(survive(tmp_path, start, kills=8, seed=0))


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_through_100_kills(tmp_path, start):
    print(survive(tmp_path, start, kills=100, seed=1))


def begun_run(directory: Path, config: Config = LOADED) -> Path:
    """A run directory as training begins it."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(resolved(replace(config, run_dir="elsewhere"))))
    (directory / "tasks").mkdir()
    for part, some in TASKS._asdict().items():
        write_tasks(directory / "tasks" / f"{part}.jsonl", some)
    return directory


def test_the_command_writes_beside_a_trainer_until_it_is_interrupted(tmp_path):
    directory = begun_run(tmp_path / "run")
    command = [sys.executable, "-m", "scripts.synthesize", "--run", str(directory)]
    command += ["--config", "tests/beside_toy.py", "--workers", "2"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "JAX_PLATFORMS": "cpu"}
    with (
        trainer(directory / "synthesis") as ours,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process,
    ):
        ours.send(*SEEDS[:2])
        results = ours.receive(2)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT
        assert "2 workers wait for the seeds of" in process.stdout.read()
    assert results == {(seed.id, 1): at_first_go(seed, 1) for seed in SEEDS[:2]}


def test_the_command_refuses_what_is_not_its_run(tmp_path):
    with pytest.raises(ConfigError, match="nowhere holds no run"):
        work(LOADED, tmp_path / "nowhere", 1, None)
    directory = begun_run(tmp_path / "run")
    with pytest.raises(ConfigError, match="was started with another seed"):
        work(replace(LOADED, seed=1), directory, 1, None)
    (directory / "config.json").write_text(json.dumps(resolved(replace(LOADED, synthesis=None))))
    with pytest.raises(ConfigError, match="the config has no synthesis"):
        work(replace(LOADED, synthesis=None), directory, 1, None)


@pytest.mark.slow
def test_a_killed_training_run_goes_on_with_every_variant_once(tmp_path):
    """scripts.train itself, killed three times, with workers in its own process."""
    run_dir = tmp_path / "run"
    saved = lambda: [int(path.name) for path in (run_dir / "checkpoints").glob("*") if path.name.isdecimal()]
    rng = random.Random(0)
    with forks("beside_train") as start:
        for turn, step in enumerate((3, 9, 15)):
            process = start("trainer", str(run_dir), turn > 0)
            wait_until(lambda: max(saved(), default=0) >= step or not process.alive(), 900)
            assert process.alive()
            time.sleep(rng.random() / 2)
            process.kill()
        start("trainer", str(run_dir), True).join(900)
    outcomes = records(run_dir / "synthesis" / OUTCOMES)
    keys = [record["key"] for record in outcomes]
    assert len(set(keys)) == len(keys) > 5
    with checkpoint.open_checkpoints(run_dir / "checkpoints", keep=2) as checkpoints:
        host = checkpoints.restore(checkpoints.latest_step()).host
    pool = replay.from_json(host["replay"])
    variants = [record["candidate"]["id"] for record in outcomes[: host["outcomes"]] if record["candidate"]]
    pooled = [item.task.id for item in pool.items if item.task.ancestry]
    assert pool.injected == len(pooled) > 0 and not sum(pool.retired_counts)
    assert Counter(variants) == Counter(pooled + [entry.task.id for entry in pool.staged])
    shown = read_metrics(run_dir / "candidates.jsonl")
    assert [record["candidate"]["id"] for record in shown if record["candidate"]] == variants
    assert json.loads((run_dir / "fidelity.json").read_text())["acceptance"]["accepted"] == len(variants)


@pytest.mark.slow
def test_a_run_with_a_role_that_nobody_plays_ends_before_its_cold_start(tmp_path):
    import beside_train

    config = replace(beside_train.CONFIG, run_dir=str(tmp_path / "run"))
    config = replace(config, synthesis=replace(config.synthesis, backends=dict))
    with pytest.raises(ConfigError, match="synthesis: no backend for the roles planner"):
        train.run(config, resume=False, console=Console(file=io.StringIO()))
    assert not (tmp_path / "run/cold_start.json").exists()
