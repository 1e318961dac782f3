"""Gold plays its own tasks before a run does anything: each author's error, named once."""

import io
import itertools
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from rods_jax.dialogue import gold_player, null_player, play
from rods_jax.environments import toolkit
from rods_jax.environments.episode import start_episodes
from rods_jax.environments.gold import check_gold
from rods_jax.environments.protocol import TaskSplits
from rods_jax.environments.scoring import GoldError
from rods_jax.environments.workplace import WORKPLACE
from rods_jax.run import evaluating
from rods_jax.run.directory import build
from rods_jax.synthesis.pipeline import author_tasks
from rods_jax.types import Action, Call, Task, Turn, World

_TICKS = itertools.count()


class Clock:
    """A clock."""

    def __init__(self, ticks: int = 0):
        self.ticks = ticks
        self.stamp = 0

    def tick(self) -> int:
        """Ticks."""
        self.ticks += 1
        return self.ticks

    def read(self) -> int:
        """Reads what the module counts."""
        return next(_TICKS)

    def stamp_it(self) -> str:
        """Keeps what the module counts."""
        self.stamp = next(_TICKS)
        return "stamped"

    def fail(self) -> str:
        """Fails."""
        raise ValueError("broken")


CLOCK = toolkit.domain("clock", {"Clock": Clock})


def task(name, *turns):
    return Task(name, "s", "base", World(("Clock",), {}), tuple(turns))


@pytest.mark.parametrize("world", [World(("Clok",), {}), World(("Clock",), {"Clok": {"ticks": 3}})])
def test_a_class_that_the_domain_lacks_is_named(world):
    other = replace(task("t", Turn("Tick.", (Call("tick"),))), world=world)
    with pytest.raises(GoldError, match="fails: t: ValueError: the domain has no class Clok: its classes are Clock$"):
        check_gold(CLOCK, [other])


def test_a_released_tool_that_the_classes_lack_is_named():
    other = task("t", Turn("Tick."), Turn("Now.", (Call("tick"),), released_tools=("tik",)))
    with pytest.raises(GoldError, match="fails: t turn 1: it releases tik, which is no tool of its classes$"):
        check_gold(CLOCK, [other])


TICK, READ, STAMP = Turn("t", (Call("tick"),)), Turn("r", (Call("read"),)), Turn("s", (Call("stamp_it"),))


def test_gold_that_passes_says_nothing():
    check_gold(CLOCK, [task("a", TICK, Turn("Anything?"), replace(TICK, gold=TICK.gold * 2))])
    check_gold(WORKPLACE, author_tasks(WORKPLACE, count=10, rng=random.Random(0)))


@pytest.mark.parametrize(
    "turns, complaint",
    [
        ((TICK, READ), r"a turn 1: a call first gave \d+ and then \d+"),
        ((TICK, TICK, STAMP), r"a turn 2: Clock.stamp was first \d+ and then \d+"),
        ((TICK, Turn("f", (Call("fail"),))), "a turn 1: gold call .*fail.* failed: Error: broken"),
        ((TICK, Turn("n", (Call("nothing"),))), "a turn 1: gold call .* failed: Error: unknown tool nothing"),
        (
            (TICK, Turn("later", released_tools=("tick",))),
            "a turn 0: a call first gave 1 and then Error: there is no",
        ),
    ],
)
def test_gold_that_fails_names_task_turn_and_reason(turns, complaint):
    with pytest.raises(GoldError, match=f"^the gold of 1 of 2 tasks fails: {complaint}"):
        check_gold(CLOCK, [task("b", TICK), task("a", *turns)])


@pytest.mark.parametrize("turn", [READ, STAMP])
def test_an_episode_that_gold_itself_would_not_repeat_is_a_failure_of_the_world(turn):
    record = play(CLOCK, task("a", TICK, turn), 0, gold_player(task("a", TICK, turn)))
    assert record.failure.startswith("GoldError: a turn 1: ")
    lazy = play(CLOCK, task("a", TICK), 0, null_player(task("a", TICK)))
    assert (lazy.rods, lazy.failure) == ((False,), "")


def test_many_errors_are_one_message():
    broken = [task(f"t{number}", READ) for number in range(5)]
    with pytest.raises(GoldError) as error:
        check_gold(CLOCK, broken)
    assert str(error.value).startswith("the gold of 5 of 5 tasks fails: t0 turn 0:")
    assert str(error.value).endswith("; and 2 more") and "t2 turn" in str(error.value) and "t3" not in str(error.value)


def test_a_new_run_is_refused_before_anything_is_written(tmp_path):
    splits = TaskSplits(seeds=(task("a", TICK),), held_out=(task("b", READ),))
    config = SimpleNamespace(build_tasks=lambda domain, seed: splits, seed=0)
    with pytest.raises(GoldError, match="the gold of 1 of 2 tasks fails: b turn 0"):
        build(config, CLOCK, Console(file=io.StringIO()))
    assert not list(tmp_path.iterdir())


def test_an_evaluation_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    split = evaluating.Split("clock", CLOCK, (task("a", TICK, READ),))
    monkeypatch.setattr(evaluating, "split_of", lambda settings: split)
    with pytest.raises(GoldError, match="a turn 1: a call first gave"):
        evaluating.evaluate(evaluating.Evaluation(player="gold", out=tmp_path / "out"), Console(file=io.StringIO()))
    assert not list(tmp_path.iterdir())


def blocks_of(page):
    """The names that a page of the documentation makes."""
    names: dict = {"__name__": "example"}
    for block in (Path(__file__).parent.parent / "docs" / page).read_text("utf-8").split("```python\n")[1:]:
        exec(block.split("```")[0], names)
    return names


def test_the_example_of_the_documentation_passes_its_own_gold():
    names = blocks_of("start/environment.md")
    lamp = names["LAMPS"].simulator(names["TASK"].world)
    assert lamp.call(names["PAINT"]).text == '{"colour": "red"}'
    assert lamp.call(names["PAINT"]).text == "Error: the lamp is red"
    assert lamp.state() == {"Lamp": {"colour": names["Colour"].RED, "history": ["as asked"]}}
    dimmers = names["dimmers"]()
    check_gold(dimmers, names["tasks"](dimmers, 0).seeds)


def test_the_worlds_of_the_documentation_decide_their_own_checks():
    names = blocks_of("guide/worlds.md")
    question, both = names["QUESTION"], names["BOTH"]
    episodes = start_episodes(names["QUESTIONS"], [question])
    assert episodes.act({0: Action(answer="It is Paris.")})[0].passed == (True,)
    assert sorted(task.category for task in names["TASKS"].seeds) == ["lamps/base"] * 3 + ["questions/question"]
    assert {task.category for task in names["TASKS"].seeds} <= set(both.strata)
    assert start_episodes(names["POLITE"], [names["TASK"]]).act({0: Action(answer="No.")})[0].passed == (False,)
