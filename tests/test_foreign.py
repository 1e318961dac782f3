"""Tools and states that raise anything: an observation, a failed turn or the author's error, and never a crash."""

import argparse
import collections
import dataclasses
import functools
import math
import threading

import numpy as np
import pytest

from rods_jax.dialogue import Said, gold_player, play
from rods_jax.environments import toolkit
from rods_jax.environments.episode import start_episodes
from rods_jax.environments.isolation import shared_by
from rods_jax.environments.protocol import Failure
from rods_jax.environments.scoring import RODS, GoldError, gold_trace
from rods_jax.types import Action, Call, Task, Turn, World


def _domain(cls, *gold):
    domain = toolkit.domain("d", {cls.__name__: cls})
    return domain, Task("t", "s", "base", World((cls.__name__,), {}), (Turn("u", gold),))


# ------------------------------------------------------------------------- tools that raise anything
class Silent(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class Hostile:
    def __eq__(self, other):
        raise SystemExit(3)

    def __repr__(self):
        raise Silent

    __str__ = __repr__
    __hash__ = None

    def __deepcopy__(self, memo):
        raise GeneratorExit


class Machine:
    """A machine."""

    def __init__(self):
        self.part = None

    def parse(self, line: str) -> str:
        """Parses a command line."""
        parser = argparse.ArgumentParser()
        parser.add_argument("--n", type=int)
        return str(parser.parse_args(line.split()))

    def end(self, how: str) -> str:
        """Raises."""
        raise {"exit": SystemExit, "generator": GeneratorExit, "silent": Silent, "bare": BaseException}[how]

    def give(self) -> str:
        """Gives what has no text."""
        return Hostile()

    def give_in(self) -> dict:
        """Gives it in a dict."""
        return {"x": Hostile()}

    def loop(self) -> dict:
        """Gives what holds itself."""
        result = collections.OrderedDict()
        result["x"] = result
        return result

    def build(self) -> str:
        """Takes a hostile part in."""
        self.part = Hostile()
        return "built"

    def nest(self, levels: int) -> str:
        """Nests the part."""
        for _ in range(levels):
            self.part = [self.part]
        return "nested"

    def stop(self) -> str:
        """Presses Ctrl-C."""
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "call, text",
    [
        (Call("parse", {"line": "--n two"}), "SystemExit: 2"),
        (Call("parse", {"line": "--help"}), "SystemExit: 0"),
        (Call("end", {"how": "exit"}), "SystemExit"),
        (Call("end", {"how": "generator"}), "GeneratorExit"),
        (Call("end", {"how": "silent"}), "Silent"),
        (Call("end", {"how": "bare"}), "BaseException"),
        (Call("give"), "Silent"),
        (Call("give_in"), "Object of type Hostile is not JSON serializable"),
        (Call("loop"), "Circular reference"),
    ],
)
def test_whatever_a_tool_raises_is_an_observation(call, text, capsys):
    domain, one = _domain(Machine, Call("nest", {"levels": 1}))
    assert domain.simulator(World(("Machine",))).call(call).text.startswith(f"Error: {text}")
    batch = start_episodes(domain, [one])
    assert batch.act({0: Action(calls=(call,))})[0].code == -2
    record = play(domain, one, 0, _says(Action(calls=(call,)), Action(answer="")))
    assert (record.rods, record.failure) == ((False,), "")


def _says(*actions):
    script = iter(actions)
    return lambda messages: Said("", next(script))


@pytest.mark.parametrize(
    "calls", [(Call("build"),), (Call("nest", {"levels": 5_000}),), (Call("build"), Call("nest", {"levels": 1}))]
)
def test_a_state_that_a_policy_made_and_nobody_can_compare_or_show_fails_its_turn(calls):
    domain, one = _domain(Machine, Call("nest", {"levels": 2}))
    batch = start_episodes(domain, [one])
    batch.act({0: Action(calls=calls)})
    assert batch.act({0: Action(answer="")})[0].passed == (False,)
    record = play(domain, one, 0, _says(Action(calls=calls), Action(answer="")))
    assert (record.rods, record.official, record.state, record.failure) == ((False,), (False,), False, "")
    assert record.reasons[0] and all(isinstance(reason.found, str) for reason in record.reasons[0])


def test_arguments_that_nest_too_deep_are_unreadable_however_they_came():
    deep = []
    for _ in range(5_000):
        deep = [deep]
    action = Action(calls=(Call("nest", {"levels": deep}),))
    domain, one = _domain(Machine, Call("nest", {"levels": 2}))
    feedback = start_episodes(domain, [one]).act({0: action})[0]
    assert (feedback.code, feedback.observations) == (-3, ("Error: values are nested more than 64 levels deep.",))
    record = play(domain, one, 0, _says(action, Action(answer="")))
    assert (record.moves[0].code, record.moves[0].calls, record.failure) == (-3, (), "")


def test_ctrl_c_passes():
    domain, one = _domain(Machine, Call("nest", {"levels": 1}))
    action = Action(calls=(Call("stop"),))
    for run in (
        lambda: domain.simulator(World(("Machine",))).call(Call("stop")),
        lambda: start_episodes(domain, [one]).act({0: action}),
        lambda: play(domain, one, 0, _says(action)),
    ):
        with pytest.raises(KeyboardInterrupt):
            run()


class Exits:
    """Cannot be made."""

    def __init__(self):
        raise SystemExit(4)

    def f(self) -> str:
        """F."""


def test_a_world_that_exits_when_it_starts_is_a_failure():
    domain, one = _domain(Exits, Call("f"))
    assert start_episodes(domain, [one]).openings == (Failure("SystemExit: 4"),)
    assert play(domain, one, 0, _says()).failure == "SystemExit: 4"


# --------------------------------------------------------------------- states that gold cannot match
def _sets(value):
    class X:
        """X."""

        def f(self) -> str:
            """F."""
            self.part = value()
            return "set"

    return X


class Plain:
    pass


@dataclasses.dataclass
class Reading:
    value: float


def _cycle():
    loop = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    "value, complaint",
    [
        (Plain, "X.part does not equal its own copy: give its objects __eq__"),
        (lambda: [Plain()], "X.part does not equal"),
        (lambda: np.zeros(2), "X.part does not equal"),
        (_cycle, "X.part does not equal"),
        (lambda: {"a": (1, [math.nan])}, "X.part holds NaN"),
        (lambda: Reading(math.nan), "X.part"),
        (threading.Lock, r"X.part cannot be copied \(TypeError"),
        (Hostile, r"X.part cannot be copied \(GeneratorExit"),
    ],
)
def test_a_state_that_gold_could_never_match_is_the_authors_error(value, complaint):
    domain, one = _domain(_sets(value), Call("f"))
    with pytest.raises(GoldError, match=f"t turn 0: {complaint}"):
        gold_trace(domain, one)
    record = play(domain, one, 0, gold_player(one))
    assert record.failure.startswith("GoldError: t turn 0: X.part")


def test_a_hint_that_cannot_be_made_does_not_lose_the_rollout():
    domain, one = _domain(Machine, Call("nest", {"levels": 1}))
    domain = domain._replace(explain=lambda failed: failed.call.arguments["reason"])
    batch = start_episodes(domain, [one], RODS._replace(explains_failures=True))
    feedback = batch.act({0: Action(calls=(Call("end", {"how": "exit"}),))})[0]
    assert feedback.observations == ("Error: SystemExit\n(There is no hint: KeyError: 'reason')",)


# ----------------------------------------------------------------------- attributes without an end
class Proxy:
    """Answers every name with another proxy that can be called, as xmlrpc.client.ServerProxy does."""

    asked: list[str] = []

    def __getattr__(self, name):
        self.asked.append(name)
        assert len(self.asked) < 100, "there is no end of it"
        return Proxy()

    def __call__(self):
        """Nothing."""


def test_an_attribute_that_makes_up_its_own_is_not_followed_without_end():
    def look(self, seen=[]):
        return seen

    members = {"server": Proxy(), "look": functools.lru_cache(look)}
    assert shared_by(type("Client", (), members)).functions == (look,)  # behind its decorator
