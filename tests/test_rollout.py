"""Rollouts: a scripted policy shows the token path, broken worlds the records."""

import random
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from rollout_toy import CODEC, GOLD, SCRIPTED, SIZES, STOP, TASKS, G, N, actions_of, compiled, gather, script

from rods_jax.config import Habits
from rods_jax.demonstrations import demonstrate
from rods_jax.environments.episode import Episode, start_episodes
from rods_jax.environments.scoring import RODS, gold_trace
from rods_jax.environments.unreliable import with_failures
from rods_jax.environments.workplace import WORKPLACE
from rods_jax.rewards import CALL_FAILED, CALLED, format_reward
from rods_jax.run.stages import trim
from rods_jax.types import Action, Call, Message, Observation


@pytest.fixture(scope="module")
def recite():
    return compiled(SCRIPTED)


def gold_script(tasks=TASKS):
    return script(*(GOLD[task.id].suffix for task in tasks))


def suffix_of(task, actions, domain=WORKPLACE):
    """The suffix of an episode in which the policy takes these actions."""
    episode = Episode(domain, task, gold_trace(domain, task))
    tokens = []
    for action in actions:
        tokens += CODEC.encode_action(action.calls, action.answer)
        feedback = episode.act(action)
        tokens += [] if feedback.done else CODEC.encode_messages(feedback.messages)
    return tokens


def test_a_policy_that_recites_the_gold_calls_is_rewarded_in_full(recite):
    batch, trajectories, *_ = gather(gold_script(), recite)
    assert max(len(demo.suffix) for demo in GOLD.values()) < SIZES.max_suffix_tokens
    for n, task in enumerate(TASKS):
        demo = GOLD[task.id]
        length = batch.prompt_lengths_N[n]
        assert (
            batch.prompt_tokens_NP[n, :length].tolist() == demo.prompt and not batch.prompt_tokens_NP[n, length:].any()
        )
        for g in range(G):
            length = batch.suffix_lengths_NG[n, g]
            assert batch.suffix_tokens_NGS[n, g, :length].tolist() == demo.suffix
            assert batch.action_mask_NGS[n, g, :length].tolist() == demo.acted
            assert not batch.suffix_tokens_NGS[n, g, length:].any() and not batch.action_mask_NGS[n, g, length:].any()
            one = trajectories[n * G + g]
            assert (one.task_id, one.rollout, one.truncated, one.failure) == (task.id, g, None, None)
            assert all(one.passed) and {step.code for step in one.steps} == {-1, 1}
    np.testing.assert_array_equal(batch.rewards_NG, 1.0)
    np.testing.assert_array_equal(batch.behavior_log_probs_NGS, 0.0)  # a script has no doubt
    np.testing.assert_array_equal(batch.checks_N, [len(task.turns) for task in TASKS])
    np.testing.assert_array_equal(batch.passed_NG, batch.checks_N[:, None].repeat(G, 1))
    assert batch.valid_NG.all()
    # Some observation was longer than a chunk, so it entered the cache in several.
    acted = batch.action_mask_NGS[0, 0]
    assert any(
        not acted[s : s + SIZES.observation_chunk + 1].any()
        for s in range(batch.suffix_lengths_NG[0, 0] - SIZES.observation_chunk)
    )


def test_injected_failures_stand_in_the_trajectory(recite):
    domain = with_failures(lambda: WORKPLACE, rate=1.0, kinds=("Error: later.",))
    repeating = [suffix_of(task, [Action(calls=task.turns[0].gold[:1])] * 2, domain) for task in TASKS]
    _, trajectories, *_ = gather(script(*repeating), recite, domain=domain)
    asking = [n for n, task in enumerate(TASKS) if task.turns[0].gold]
    assert asking
    for one in (trajectories[n * G + g] for n in asking for g in range(G)):
        failed, passed, *_ = one.steps
        assert (failed.code, failed.observations) == (CALL_FAILED, ("Error: later.",))
        assert failed.text == passed.text and passed.code == CALLED and one.failure is None


def test_dtypes_and_shapes(recite):
    batch, *_ = gather(gold_script(), recite)
    shapes = {"P": SIZES.max_prompt_tokens, "S": SIZES.max_suffix_tokens, "N": N, "G": G}
    for name, array in batch._asdict().items():
        assert array.shape == tuple(shapes[axis] for axis in name.rpartition("_")[2]), name
        kind = bool if name.startswith(("action", "valid", "eligible")) else np.float32
        real = name.startswith(("behavior", "rewards", "earlier"))
        assert array.dtype == (kind if kind is bool or real else np.int32), name


def test_the_steps_are_what_the_tokens_say(recite):
    """Early stops, repeats and guesses: the batch, decoded action by action, is the trajectory's text."""
    habits = Habits(stop_early=0.5, skip=0.2, repeat=0.2, guess=0.5)
    demos = [demonstrate(WORKPLACE, task, CODEC, habits, random.Random(3)) for task in TASKS]
    assert {passed for demo in demos for passed in demo.passed} == {True, False}
    batch, trajectories, *_ = gather(script(*(demo.suffix for demo in demos)), recite, reward=format_reward)
    for n, demo in enumerate(demos):
        one = trajectories[n * G]
        assert one.passed == demo.passed
        assert batch.passed_NG[n, 0] == sum(demo.passed)
        assert batch.rewards_NG[n, 0] == np.float32(format_reward(one))
        assert actions_of(batch, n, 0) == [step.text for step in one.steps]
        assert [step.turn for step in one.steps] == sorted(step.turn for step in one.steps)


# ------------------------------------------------------------------------------------------ limits
def test_an_action_without_a_stop_is_a_parse_error_and_is_closed_for_the_policy(recite):
    endless = [9] * (SIZES.max_suffix_tokens + 1)
    batch, trajectories, *_ = gather(script(endless, *(GOLD[t.id].suffix for t in TASKS[1:])), recite)
    one = trajectories[0]
    assert one.truncated == f"the episode is longer than {SIZES.max_suffix_tokens} tokens"
    assert one.failure is None and batch.valid_NG.all()
    assert {step.code for step in one.steps} == {-3}
    told = one.steps[0].observations
    assert told == (f"Error: the message is longer than {SIZES.max_action_tokens} tokens.",)
    tokens, acted = batch.suffix_tokens_NGS[0, 0], batch.action_mask_NGS[0, 0]
    between = CODEC.encode_action((), "")  # the stop that the policy did not say: read, not learned
    assert (
        acted[: SIZES.max_action_tokens].all()
        and not acted[SIZES.max_action_tokens : SIZES.max_action_tokens + len(between)].any()
    )
    assert tokens[SIZES.max_action_tokens] == STOP
    assert batch.suffix_lengths_NG[0, 0] <= SIZES.max_suffix_tokens
    assert batch.rewards_NG[0, 0] == 0 and (batch.rewards_NG[1:] == 1).all()


def test_a_last_message_that_the_episodes_limit_cuts_off_is_cut_off_by_that():
    """One turn and two messages of 48 tokens, of which 96 hold only the first whole: the world closes the turn with it."""
    task = replace(TASKS[0], turns=TASKS[0].turns[:1])
    play = compiled(SCRIPTED, slots=1, max_suffix_tokens=96, max_action_tokens=48)
    start = partial(start_episodes, WORKPLACE, rules=RODS._replace(max_attempts=1))
    batch, (one, *_), *_ = rollouts = gather(script([9] * 97), play, tasks=[task], start=start)
    told = [step.observations[0] for step in one.steps]
    assert told == [f"Error: the {what} tokens." for what in ("message is longer than 48", "episode is longer than 96")]
    assert one.truncated == "the episode is longer than 96 tokens" and rollouts.truncated == G
    assert batch.suffix_lengths_NG[0, 0] == 96 and batch.rewards_NG[0, 0] == 0


def test_six_attempts_close_a_turn_and_the_episode_goes_on(recite):
    task = TASKS[0]
    turns = len(task.turns)
    calls = [Action(calls=(Call("fly"),))] * 6 * turns
    says = script(suffix_of(task, calls), *(GOLD[t.id].suffix for t in TASKS[1:]))
    batch, trajectories, *_ = gather(says, recite)
    one = trajectories[0]
    assert one.gold_calls == sum(len(turn.gold) for turn in task.turns) > 0
    assert (batch.rewards_NG[1:] == 1).all()
    assert [step.turn for step in one.steps] == [turn for turn in range(turns) for _ in range(6)]
    assert {step.code for step in one.steps} == {-2} and one.truncated is None and batch.rewards_NG[0, 0] == 0


def first_turn_of_length(task, length):
    """Actions that pass the first turn, padded until the next question ends at `length` tokens."""
    golds = [Action(calls=(call,)) for call in task.turns[0].gold]
    for digits in range(40):
        actions = [Action(calls=(Call("7" * digits),))] * 3 + golds
        missing = length - len(suffix_of(task, [*actions, Action(answer="7")]))
        if 0 <= missing < SIZES.max_action_tokens - 2:
            return [*actions, Action(answer="7" * (missing + 1))]
    raise AssertionError("the padding is too short")


@pytest.mark.parametrize("room", [0, 1])
def test_an_episode_ends_where_no_token_could_be_said_any_more(recite, room):
    task = TASKS[0]
    actions = first_turn_of_length(task, SIZES.max_suffix_tokens - room)
    so_far = suffix_of(task, actions)
    assert len(so_far) == SIZES.max_suffix_tokens - room
    batch, trajectories, *_ = gather(script(so_far, *(GOLD[t.id].suffix for t in TASKS[1:])), recite)
    one = trajectories[0]
    assert one.truncated == f"the episode is longer than {SIZES.max_suffix_tokens} tokens"
    assert len(one.steps) == len(actions) + room  # one token of room is one more token said
    asked = len(CODEC.encode_messages([Message("user", task.turns[1].user)]))
    assert batch.suffix_lengths_NG[0, 0] == (SIZES.max_suffix_tokens if room else SIZES.max_suffix_tokens - asked)
    assert one.passed == (True,) + (False,) * (len(task.turns) - 1)
    assert batch.passed_NG[0, 0] == 1 and batch.valid_NG.all()
    assert batch.rewards_NG[0, 0] == np.float32(1 / len(task.turns)) and (batch.rewards_NG[1:] == 1).all()


def test_a_prompt_that_is_too_long_is_a_record(recite):
    length = len(GOLD[TASKS[1].id].prompt)
    others = [n for n, task in enumerate(TASKS) if len(GOLD[task.id].prompt) < length]
    assert others
    batch, trajectories, *_ = gather(gold_script(), recite, sizes=replace(SIZES, max_prompt_tokens=length - 1))
    assert f"the prompt has {length} tokens, more than the limit of {length - 1}" in trajectories[G].failure
    assert not batch.valid_NG[1].any() and batch.suffix_lengths_NG[1].sum() == 0 and trajectories[G].steps == ()
    for n in others:
        assert batch.valid_NG[n].all() and (batch.rewards_NG[n] == 1).all()


def test_trim_cuts_padding_only(recite):
    batch, *_ = gather(gold_script(), recite)
    longest = int(batch.suffix_lengths_NG.max())
    short = trim(batch, (longest - 1, longest, SIZES.max_suffix_tokens), longest)
    assert all(x.base is None for x in (short.suffix_tokens_NGS, short.behavior_log_probs_NGS))  # no hold on the whole
    for name in ("suffix_tokens_NGS", "action_mask_NGS", "behavior_log_probs_NGS"):
        assert getattr(short, name).shape == (N, G, longest)
        np.testing.assert_array_equal(getattr(short, name), getattr(batch, name)[:, :, :longest])
    assert trim(batch, (8, SIZES.max_suffix_tokens), longest).suffix_tokens_NGS.shape == (N, G, SIZES.max_suffix_tokens)
    np.testing.assert_array_equal(short.prompt_tokens_NP, batch.prompt_tokens_NP)


# ----------------------------------------------------------------------------------- broken worlds
class Broken(RuntimeError):
    """What an environment's own defect raises."""


class Fragile:
    """A simulator that breaks at the wanted place, once the gold calls have been traced."""

    def __init__(self, inner, where):
        self.inner, self.where, self.calls = inner, where, 0

    def call(self, call):
        self.calls += 1
        if self.where == "call" and self.calls == 2:
            raise Broken("the disk is full")
        text = self.inner.call(call)
        return Observation("\ud800") if self.where == "text" else text

    def state(self):
        if self.where == "state":
            raise Broken("the disk is full")
        return self.inner.state()


def breaking(where):
    """WORKPLACE, but the task whose options say "broken" breaks at `where`."""
    built = []

    def simulator(world):
        inner = WORKPLACE.simulator(world)
        if "broken" not in world.options:
            return inner
        built.append(where)
        if where == "trace" or where == "construction" and len(built) == 3:
            raise Broken("the disk is full")  # construction: of the second rollout, after the trace and the first
        return inner if len(built) == 1 else Fragile(inner, where)

    return WORKPLACE._replace(simulator=simulator)


@pytest.fixture(scope="module")
def sound(recite):
    return gather(gold_script(), recite)


@pytest.mark.parametrize(
    "where, complaint",
    [
        ("trace", "Broken: the disk is full"),
        ("gold", "GoldError: "),
        ("classes", "ValueError: the domain has no class Nowhere"),
        ("construction", "Broken: the disk is full"),
        ("call", "Broken: the disk is full"),
        ("state", "Broken: the disk is full"),
        ("text", "TypeError: "),  # an observation that no tokenizer can read
    ],
)
def test_a_broken_world_is_a_masked_record_and_touches_no_other_task(recite, sound, where, complaint):
    worst = 1
    bad = replace(
        TASKS[worst], world=replace(TASKS[worst].world, options={**TASKS[worst].world.options, "broken": True})
    )
    if where == "gold":
        bad = replace(bad, turns=(replace(bad.turns[0], gold=(Call("fly"),)), *bad.turns[1:]))
    if where == "classes":
        bad = replace(bad, world=replace(bad.world, classes=("Nowhere",)))
    tasks = [*TASKS[:worst], bad, *TASKS[worst + 1 :]]
    batch, trajectories, *_ = gather(gold_script(), recite, tasks=tasks, domain=breaking(where))
    for one in trajectories[worst * G : worst * G + G]:
        assert one.failure.startswith(complaint) and one.task_id == bad.id
        assert one.passed and not all(one.passed)
    np.testing.assert_array_equal(batch.valid_NG, np.arange(N)[:, None].repeat(G, 1) != worst)
    others = [n for n in range(N) if n != worst]
    for before, after in zip(sound.batch, batch):
        np.testing.assert_array_equal(before[others], after[others])
    for n in others:
        assert trajectories[n * G : n * G + G] == sound.trajectories[n * G : n * G + G]
