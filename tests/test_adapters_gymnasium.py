"""Gymnasium environments in and out, against the real package."""

import math
import warnings

import pytest
from rollout_toy import CODEC, SCRIPTED, TASKS, compiled, gather, script

from rods_jax.adapters import gymnasium_env
from rods_jax.codecs import qwen
from rods_jax.dialogue import Said, Stop, play
from rods_jax.environments.episode import start_episodes
from rods_jax.environments.mixture import mixture
from rods_jax.environments.protocol import Failure
from rods_jax.environments.scoring import RODS
from rods_jax.environments.workplace import WORKPLACE
from rods_jax.types import Action, Call, Message

gymnasium = pytest.importorskip("gymnasium")


class Guess(gymnasium.Env):
    """A number is guessed, in words; a step costs a tenth of the reward."""

    action_space = gymnasium.spaces.Text(3, charset="0123456789")
    observation_space = gymnasium.spaces.Text(40)

    def __init__(self, fails=False, pays=1.0):
        self.fails, self.pays, self.closed = fails, pays, False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.secret, self.tries = int(self.np_random.integers(10)), 0
        return "guess", {}

    def step(self, action):
        if self.fails:
            raise OSError("the wire is cut")
        self.tries += 1
        right = int(action) == self.secret
        reward = self.pays * (1.1 - 0.1 * self.tries) if right else 0.0
        return ("right" if right else "wrong"), reward, right, self.tries == 5, {}

    def close(self):
        self.closed = True


def secret_of(seed: int) -> int:
    env = Guess()
    env.reset(seed=seed)
    return env.secret


def said(text):
    return Action(answer=text)


def started(make, **how):
    domain = gymnasium_env.domain("guess", make, **how)
    task = gymnasium_env.task("g1", domain, "Guess a digit.", seed=3)
    batch = start_episodes(domain, [task, task])
    return domain, task, batch


# -------------------------------------------------------------------------------------------- in
def test_a_text_environment_is_played_and_its_reward_becomes_checks():
    envs = []
    domain, task, batch = started(lambda task: envs.append(Guess()) or envs[-1])
    assert batch.openings[0] == batch.openings[1] and batch.openings[0].user == "Guess a digit.\n\nguess"
    secret = secret_of(3)
    wrong = batch.act({0: said(str((secret + 1) % 10))})[0]
    assert [(one.role, one.content) for one in wrong.messages] == [("user", "wrong")] and not wrong.done
    right = batch.act({0: said(str(secret))})[0]
    assert right.done and sum(right.passed) == 9 and len(right.passed) == 10
    assert [env.closed for env in envs] == [True, False]
    del batch  # a forgotten episode is closed as well
    assert [env.closed for env in envs] == [True, True]


def test_what_is_no_action_is_told_until_the_rules_end_it():
    domain, task, batch = started(lambda task: Guess())
    for _ in range(RODS.max_attempts):
        answer = batch.act({0: said("seven")})[0]
        assert not answer.done and answer.observations[0].startswith("Error: 'seven' is no action")
    assert batch.act({0: Action(error="no message")})[0].done
    assert batch.act({1: Action(calls=(Call("x"),))})[1].observations == (
        "Error: there are no tools: answer with the action.",
    )


def test_whatever_a_text_makes_of_its_reader_is_told():
    def read(text):
        return {"seven": "7"}[text] if text.isalpha() else str(math.factorial(int(text)) * 1.0)

    domain, task, batch = started(lambda task: Guess(), read=read)
    for text in ("eight", "170" * 9, "1000", "..."):  # KeyError, OverflowError twice, ValueError
        (answer,) = batch.act({0: said(text)}).values()
        assert not answer.done and answer.observations[0].startswith("Error: ")


def test_a_discrete_environment_is_one_tool():
    env = gymnasium.make("FrozenLake-v1", is_slippery=False)
    domain = gymnasium_env.domain(
        "lake",
        lambda task: gymnasium.make("FrozenLake-v1", is_slippery=False),
        actions={"left": 0, "down": 1, "right": 2, "up": 3},
        describe=lambda place: f"You are on field {int(place)}.",
    )
    task = gymnasium_env.task("l1", domain, "Reach field 15.", seed=0)
    path = ["down", "down", "right", "right", "down", "right"]
    calls = tuple(Call("act", {"action": step}) for step in path)
    record = play(domain, task, 0, lambda messages: Said("", Action(calls=calls)))
    assert record.rods == (True,) * 10 and record.moves[0].observations[-1] == "You are on field 15."
    steps = iter([Action(answer="west"), Action(calls=(Call("act", {"action": "west"}),)), Action(calls=calls[:1] * 2)])
    record = play(domain, task, 0, lambda messages: Said("", one) if (one := next(steps, None)) else Stop("enough"))
    assert record.truncated == "enough" and [move.observations[0][:5] for move in record.moves[:2]] == [
        "Error",
        "Error",
    ]
    env.close()
    assert domain.tools["act"].parameters["properties"]["action"]["enum"] == ["left", "down", "right", "up"]
    assert mixture("both", [WORKPLACE, domain]).strata["lake/episode"]


def test_a_rollout_trains_on_it_as_on_any_world():
    domain, task, _ = started(lambda task: Guess())
    secret = secret_of(3)
    texts = [str((secret + 1) % 10), str(secret)]
    first, second = (CODEC.encode_action((), text) for text in texts)
    between = CODEC.encode_messages((Message("user", "wrong"),))
    rollouts = script(first + between + second)
    found = gather(rollouts, compiled(SCRIPTED, slots=2), (task,), domain)
    batch, trajectories = found.batch, found.trajectories
    assert found.failed == 0 and batch.passed_NG.tolist() == [[9, 9]] and batch.checks_N.tolist() == [10]
    assert [step.text for step in trajectories[0].steps] == texts and batch.rewards_NG.max() == pytest.approx(0.9)


def test_what_breaks_is_a_failure_and_so_is_a_reward_that_is_no_share():
    _, _, batch = started(lambda task: Guess(fails=True))
    assert batch.act({0: said("3")})[0] == Failure("OSError: the wire is cut")
    _, _, batch = started(lambda task: 1 / 0)
    assert batch.openings[0] == Failure("ZeroDivisionError: division by zero") == batch.act({1: said("3")})[1]
    _, _, batch = started(lambda task: Guess(pays=20))
    failure = batch.act({0: said(str(secret_of(3)))})[0]
    assert "must lie in [0, 1] to become checks: got 20" in failure.reason
    _, _, batch = started(lambda task: Guess(pays=20), score=lambda total: total / 20, num_checks=2)
    assert batch.act({0: said(str(secret_of(3)))})[0].passed == (True, True)


# ------------------------------------------------------------------------------------------- out
def test_a_domain_is_an_environment_that_the_packages_own_checker_accepts():
    from gymnasium.utils.env_checker import check_env

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice about spaces and specs
        check_env(gymnasium_env.environment(WORKPLACE, TASKS), skip_render_check=True)


def test_gold_earns_the_whole_reward():
    env = gymnasium_env.environment(WORKPLACE, TASKS)
    for task in TASKS:
        text, info = env.reset(options={"task": task.id})
        assert text == task.turns[0].user and info["task"] == task.id and info["tools"]
        rewards, over = [], False
        for turn in task.turns:
            for message in [qwen.write(turn.gold)] * bool(turn.gold) + ["Done."]:
                text, reward, over, truncated, info = env.step(message)
                rewards.append(reward)
        assert (
            over and not truncated and sum(rewards) == pytest.approx(1) and info["passed"] == [True] * len(task.turns)
        )


def test_resets_repeat_and_what_breaks_truncates():
    env = gymnasium_env.environment(WORKPLACE, TASKS)
    assert env.reset(seed=5) == env.reset(seed=5)
    with pytest.raises(ValueError, match="there is no task x"):
        env.reset(options={"task": "x"})
    domain, task, _ = started(lambda task: Guess(fails=True))
    env = gymnasium_env.environment(domain, [task])
    env.reset()
    *_, terminated, truncated, info = env.step("3")
    assert truncated and not terminated and info["failure"] == "OSError: the wire is cut"
    broken, task, _ = started(lambda task: 1 / 0)
    with pytest.raises(RuntimeError, match="task g1 cannot begin: ZeroDivisionError"):
        gymnasium_env.environment(broken, [task]).reset()
