"""The journal of an evolution: killed at random, ended by its budget, of another version; nothing is lost or doubled."""

import json
import random
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from evolution_toy import GROUND, NAME, PACE, at_first_go, continued, make_roles
from forks import forks
from rich.console import Console

from configs.evolve_helpdesk import CONFIG
from rods_jax import journal
from rods_jax.adapters.trajectories import read_evaluation
from rods_jax.chat import BUDGET_EXHAUSTED, FILTERED, REFUSED, TOO_LONG, Reply, Request
from rods_jax.config import ConfigError
from rods_jax.evolution.evolve import Evolved, Pace, evolve
from rods_jax.evolution.folder import evolve_in
from rods_jax.evolution.ledger import Halted, Ledger, Spent, opened, unwritten
from rods_jax.evolution.llm import llm_roles
from rods_jax.evolution.roles import Verdict
from rods_jax.files import FolderError
from rods_jax.journal import JournalError
from rods_jax.task_files import read_tasks

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def start():
    with forks("evolution_toy") as start:
        yield start


@pytest.fixture(scope="module")
def whole() -> Evolved:
    return at_first_go()


def units(path: Path) -> tuple[list[str], int]:
    """(the units that are finished, in order; how many replies are written)."""
    records = [entry.record for entry in journal.read(path)[0]]
    return [one["unit"] for one in records if "result" in one], sum("question" in one for one in records)


def survive(directory: Path, start, whole: Evolved, *, kills: int, seed: int) -> None:
    """Kills the process so often, each time in the middle of its work; then lets it finish."""
    rng, path = random.Random(seed), directory / NAME
    for _ in range(kills):
        before, process = num_lines(path), start("work", str(directory))
        more = rng.randint(1, 6)
        while process.alive() and num_lines(path) < before + more:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))  # anywhere in a unit, or in the writing of a line
        process.kill()
    assert not (directory / "report.json").exists()  # it was never done
    found, _ = continued(directory)
    done, replies = units(path)
    assert len(set(done)) == len(done)
    # What comes out is what an undisturbed call writes, and no question was asked for nothing but those cut off.
    assert found == whole
    assert read_tasks(directory / "tasks.jsonl") == whole.tasks
    asked = len((directory / "asked").read_text().splitlines())
    assert replies <= asked <= replies + kills


def num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_nothing_is_lost_or_doubled_through_a_few_kills(tmp_path, start, whole):
    survive(tmp_path, start, whole, kills=3, seed=0)


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_through_100_kills(tmp_path, start, whole):
    for number in range(10):  # a call is soon done, so that ten are killed ten times each
        directory = tmp_path / str(number)
        directory.mkdir()
        survive(directory, start, whole, kills=10, seed=number)


def test_a_budget_that_ends_in_a_round_ends_with_what_there_is_and_more_of_it_goes_on(tmp_path, whole):
    found, ledger = continued(tmp_path, max_tokens=150)
    assert found.ended == "the budget ended: 154 tokens are spent" and ledger.tokens() == 154
    outcomes = found.rounds[-1].outcomes
    assert 0 < len(outcomes) < PACE.pairs * PACE.attempts  # those that needed no question were finished as well
    assert [one for one in whole.rounds[len(found.rounds) - 1].outcomes if one in outcomes] == [*outcomes]
    assert json.loads((tmp_path / "report.json").read_text())["cost"]["total"] == {
        "questions": 14,
        "tokens": 154,
        "cost": 154e-6,
    }
    again, ledger = continued(tmp_path, max_tokens=10**6)
    assert again == whole and again.ended == ""
    assert len((tmp_path / "asked").read_text().splitlines()) == ledger.spent["verifier"].questions


def test_more_tasks_may_be_asked_for_later_and_fewer_take_none_away(tmp_path):
    first, _ = continued(tmp_path)
    more, _ = continued(tmp_path, replace(PACE, tasks=12))
    assert len(first.tasks) < 12 <= len(more.tasks) and more.tasks[: len(first.tasks)] == first.tasks
    fewer, _ = continued(tmp_path, replace(PACE, tasks=3))
    assert fewer.tasks == more.tasks == tuple(read_tasks(tmp_path / "tasks.jsonl"))
    records = read_evaluation(tmp_path / "trials.jsonl")
    assert [one.task_id for one in records] == [task.id for task in more.tasks] and all(
        all(one.rods) for one in records
    )


def test_a_role_may_ask_its_first_question_while_another_thread_counts_tokens():
    ledger = unwritten({"writer": lambda requests: [Reply("x", prompt_tokens=1)]})
    asking = threading.Thread(target=lambda: ledger.do("u", str, lambda backends: ask(backends["writer"])))

    def ask(writer):
        return writer([Request(())])[0].text

    class Counted(Spent):
        @property
        def prompt_tokens(self):
            asking.start()
            asking.join(0.1)
            return 5

    ledger.spent = {"planner": Counted()}
    assert ledger.tokens() == 5
    asking.join()
    assert ledger.spent["writer"] == Spent(1, 1, 0)


def test_a_budget_holds_where_a_server_counts_nothing(tmp_path):
    asked = []

    def uncounted(requests):
        asked.extend(requests)
        return [Reply("x" * 400)]

    def make(backends):
        for number in range(1_000):
            backends["writer"]([Request(({"role": "user", "content": f"{number}"},))])

    for budget, times in (
        (300, 3),
        (300, 3),
        (500, 5),
    ):  # 100 tokens and some of the question each; written, not asked again
        with (
            opened(tmp_path / NAME, {}, {"writer": uncounted}, budget) as ledger,
            pytest.raises(Halted, match="budget"),
        ):
            ledger.do("u", type(None), make)
        assert len(asked) == ledger.spent["writer"].questions <= times
        assert budget <= ledger.tokens() < budget + 150


@pytest.mark.parametrize("error", [REFUSED, TOO_LONG, FILTERED])
def test_what_a_server_refused_is_asked_again_where_nothing_came_of_it(tmp_path, error):
    answers = [Reply("", error=error), Reply("fine")]

    def ask(backends):
        (reply,) = backends["planner"]([Request(({"role": "user", "content": "plan"},))])
        if reply.error:
            raise Halted(f"nobody answered: {reply.error}")
        return reply.text

    def call(make=ask):
        with opened(tmp_path / NAME, {}, {"planner": lambda requests: [answers.pop(0)]}) as ledger:
            return ledger.do("u", str, make)

    with pytest.raises(Halted, match=error):
        call()
    assert call() == "fine" and answers == []  # the second call asked, and its result is written
    answers = [Reply("", error=error)]
    settled = lambda backends: backends["planner"]([Request(({"role": "user", "content": "x"},))])[0].error
    with opened(tmp_path / "other.jsonl", {}, {"planner": lambda requests: [answers.pop(0)]}) as ledger:
        assert ledger.do("v", str, settled) == error  # what came of it is written, and so is the reply
    with opened(tmp_path / "other.jsonl", {}, {"planner": lambda requests: []}) as ledger:
        assert ledger.do("v", str, settled) == error and ledger.spent["planner"].questions == 1


def test_what_a_refusal_cost_is_counted_where_its_unit_is_settled_later(tmp_path):
    reply = Reply("", error=FILTERED, prompt_tokens=500, completion_tokens=20)

    def refused(backends):
        raise Halted(backends["writer"]([Request(({"role": "user", "content": "write"},))])[0].error)

    with opened(tmp_path / NAME, {}, {"writer": lambda requests: [reply]}) as ledger:
        with pytest.raises(Halted):
            ledger.do("u", str, refused)
        assert ledger.do("u", str, lambda backends: "nobody wrote it") == "nobody wrote it"
        first = ledger.spent
    with opened(tmp_path / NAME, {}, {"writer": lambda requests: [reply]}) as ledger:
        assert ledger.spent == first == {"writer": Spent(1, 500, 20)}


def test_a_folder_of_others_is_left_as_it_is(tmp_path):
    (tmp_path / "tasks.jsonl").write_text("mine")
    with pytest.raises(FolderError, match="holds 'tasks.jsonl' and is left as it is"):
        evolve_in(CONFIG, tmp_path, Console(quiet=True))
    assert [path.name for path in tmp_path.iterdir()] == ["tasks.jsonl"]


def test_a_budget_of_the_server_that_ends_in_a_dialogue_is_no_failure_of_the_dialogue():
    def spent(requests):
        return [Reply("", error=BUDGET_EXHAUSTED, detail="9 tokens spent")]

    def roles(backends):
        def user(pair, task):
            return lambda heard: backends["user"]([Request(({"role": "user", "content": "x"},))])

        return make_roles(backends | {"verifier": lambda requests: []})._replace(user=user)

    found = evolve(GROUND, roles, PACE, unwritten({"user": spent}))
    assert found.ended == "the budget ended: 9 tokens spent"
    assert all(one.trial is None and one.error != "pipeline_exception" for one in found.rounds[0].outcomes)


def test_replies_are_asked_for_once_and_results_are_read_back(tmp_path):
    asked = []

    def generate(requests):
        asked.append(requests)
        return [Reply("hello", prompt_tokens=3)]

    def make(backends) -> Verdict:
        return Verdict(True, backends["a"]([Request(({"role": "user", "content": "q"},))])[0].text)

    def die(backends) -> Verdict:
        make(backends)
        raise KeyboardInterrupt

    with opened(tmp_path / NAME, {}, {"a": generate}) as ledger, pytest.raises(KeyboardInterrupt):
        ledger.do("u", Verdict, die)
    for _ in range(2):
        with opened(tmp_path / NAME, {}, {"a": generate}) as ledger:
            assert ledger.do("u", Verdict, make) == Verdict(True, "hello")
            assert len(asked) == 1 and ledger.tokens() == 3
    with opened(tmp_path / NAME, {}, {"a": generate}, max_tokens=3) as ledger, pytest.raises(Halted):
        ledger.do("other", Verdict, make)


def test_a_journal_of_another_version_or_other_settings_is_refused(tmp_path):
    path = tmp_path / NAME
    with journal.writing(path) as append:
        append({"evolution": 0, "about": {}})
    with pytest.raises(JournalError, match="is of another version than 1: name another folder"):
        continued(tmp_path)
    path.unlink()
    continued(tmp_path)
    with pytest.raises(JournalError, match="was begun with another seed: name another folder"):
        continued(tmp_path, replace(PACE, seed=1))
    path.write_text(path.read_text().replace('"version": 1', '"version": 9', 1))
    with pytest.raises(JournalError, match="line 1: it was changed"):
        continued(tmp_path)
    ledger = Ledger([{"unit": "u", "result": {"accepted": 1}}], print, {}, None)
    with pytest.raises(
        JournalError, match="the journal's u is of another version: field accepted must be true or false"
    ):
        ledger.do("u", Verdict, lambda backends: Verdict(True))


def test_the_command_writes_continues_and_refuses(tmp_path):
    small = ("--pace.rounds", "1", "--pace.attempts", "2", "--pace.tasks", "2", "--pace.pairs")

    def command(pairs: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "scripts.evolve", "--config", "configs/evolve_helpdesk.py"]
        command += ["--out", str(tmp_path), *small, pairs]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        return done.returncode, done.stdout

    status, said = command("4")
    assert status == 0 and "4 pairs, 4 versions, 0 taken back." in said
    assert len(read_tasks(tmp_path / "tasks.jsonl")) >= 2
    assert (tmp_path / "plans" / "p03.txt").read_text().startswith("[slice]")
    before = units(tmp_path / NAME)
    evolve_in(
        replace(CONFIG, pace=replace(CONFIG.pace, rounds=1, attempts=2, tasks=2, pairs=4)),
        tmp_path,
        Console(quiet=True),
    )
    assert units(tmp_path / NAME) == before
    with pytest.raises(JournalError, match="was begun with another pairs, attempts, rounds: name another folder"):
        evolve_in(CONFIG, tmp_path, Console(quiet=True))


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"pace": Pace(pairs=3)}, "pace.pairs must be from 4 to 64: got 3"),
        ({"pace": Pace(rounds=0)}, "pace.rounds must be above 0: got 0"),
        ({"pace": Pace(max_overlap=2.0)}, "pace.max_overlap must be between 0 and 1: got 2.0"),
        ({"max_tokens": 0}, "max_tokens must be above 0: got 0"),
        ({"ground": GROUND}, "ground must be a function: got "),
        ({"roles": "llm_roles"}, "roles must be a function: got 'llm_roles'"),
        ({"backends": {}}, "backends must be a function: got {}"),
        ({"pace": {"tasks": 10}}, "pace must be Pace: got "),
        ({"pace": Pace(pairs=4.0)}, "pace.pairs must be int: got 4.0"),
        ({"max_tokens": "5e7"}, "max_tokens must be int or None: got '5e7'"),
    ],
)
def test_an_impossible_configuration_is_refused(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        replace(CONFIG, **changes)


def test_a_role_without_a_backend_is_named_before_anything_starts(tmp_path):
    with pytest.raises(
        ConfigError, match="roles: no backend for the roles planner, writer, verifier, judge, reflector"
    ):
        evolve_in(replace(CONFIG, roles=llm_roles), tmp_path / "out", Console(quiet=True))
    assert not (tmp_path / "out").exists()
