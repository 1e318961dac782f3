"""Lengths: a gold dialogue's tokens are those of the episode that is played, and what does not fit is named or refused."""

import random
import threading
from dataclasses import replace
from itertools import groupby

import pytest
from replay_toy import task_named
from training_toy import CONFIG, WORKPLACE

from rods_jax.boundary import mean_band, split_band
from rods_jax.codecs.documents import tool_name
from rods_jax.codecs.qwen import qwen_codec
from rods_jax.codecs.tokenizer import train_tokenizer
from rods_jax.config import ConfigError, Habits, StageConfig
from rods_jax.demonstrations import ANSWER, corpus, demonstrate
from rods_jax.environments.conversation import Conversation, Spoken, conversations
from rods_jax.environments.episode import Episode
from rods_jax.environments.helpdesk.domain import HELPDESK
from rods_jax.environments.helpdesk.faults import compositions
from rods_jax.environments.helpdesk.tasks import make_task
from rods_jax.environments.hints import WARNING
from rods_jax.environments.protocol import TaskSplits
from rods_jax.environments.scoring import gold_trace
from rods_jax.lengths import Length, check_lengths, exceeded, length_of, measure, played_tasks, scores_apart
from rods_jax.rewards import progress_reward
from rods_jax.synthesis.pipeline import author_tasks
from rods_jax.types import Action, Message

TASKS = author_tasks(WORKPLACE, count=24, rng=random.Random(5), turns=(2, 3), calls_per_turn=(1, 3))


@pytest.fixture(scope="module")
def codec():
    return qwen_codec(train_tokenizer(corpus(WORKPLACE, TASKS), vocab_size=512), document=tool_name)


def test_a_length_is_that_of_the_gold_dialogue_as_it_is_played(codec):
    released = 0
    for task in TASKS:
        episode = Episode(WORKPLACE, task, gold_trace(WORKPLACE, task))
        prompt, suffix = codec.encode_prompt(episode.visible_tools, task.turns[0].user), []
        for turn in task.turns:
            for action in (Action(calls=turn.gold), Action(answer=ANSWER))[not turn.gold :]:
                feedback = episode.act(action)
                suffix += codec.encode_action(action.calls, action.answer)
                suffix += codec.encode_messages(feedback.messages) if feedback.messages else []
            released += bool(turn.released_tools)
        assert all(episode.passed)
        longest = max(len(codec.encode_action((call,), "")) for turn in task.turns for call in turn.gold)
        assert length_of(WORKPLACE, codec, task) == Length(len(prompt), len(suffix), longest)
    assert released  # tools that come later, with their documents, are counted where they come


def config_of(**rollout):
    limits = {"max_prompt_tokens": 10**4, "max_suffix_tokens": 10**4, "max_action_tokens": 200, "max_unfit_share": 0.1}
    return replace(CONFIG, rollout=replace(CONFIG.rollout, **limits | rollout))


def check(config, codec, splits=TaskSplits(seeds=TASKS[:20], held_out=TASKS[20:])):
    said = []
    return check_lengths(config, splits, WORKPLACE, codec, said.append), said


def test_tasks_that_do_not_fit_are_named_counted_and_said_by_category(codec):
    lengths = measure(WORKPLACE, codec, TASKS)
    longest, second = sorted((lengths[task.id].suffix for task in TASKS[:20]), reverse=True)[:2]
    assert longest > second
    record, (sentence, *others) = check(config_of(max_suffix_tokens=longest - 1), codec)
    (name,) = record["stages.online"]["unfit"]
    category = next(task.category for task in TASKS if task.id == name)
    assert "stages.online: 1 of 20 tasks do not fit (1 of " in sentence and f"{category})" in sentence
    assert f"more than a gold dialogue of {longest - 1} tokens (max_suffix_tokens; the longest {longest})" in sentence
    assert record["stages.online"]["longest"]["suffix"] == longest == record["stages.online"]["unfit"][name]["suffix"]
    assert record["stages.online"]["tasks"] == 20 and record["held_out"]["tasks"] == 4
    values = {"stage": "online", "task_ids": [name, "another"], "task_mean": [0.0, 0.75]}
    assert scores_apart(values, record) == {"unfit_tasks": 1, "fitting_reward_mean": 0.75}
    assert scores_apart(values | {"task_ids": ["another", "third"]}, record) == {}


def test_synthesis_from_what_does_not_fit_is_warned_of_where_the_mean_chooses(codec):
    tight = config_of(max_suffix_tokens=9, max_action_tokens=9, max_unfit_share=None)
    split, mean = (replace(tight, update=replace(tight.update, signal=s)) for s in (split_band, mean_band))
    static = replace(mean, stages=(replace(mean.stages[0], synthesis=False),))
    advice = "synthesis makes ever more of it"
    stage, held_out = check(mean, codec)[1]
    assert mean.stages[0].synthesis and advice in stage and advice not in held_out
    for config in (split, static):
        assert advice not in "".join(check(config, codec)[1])


def test_tasks_that_a_warning_makes_too_long_are_counted(codec):
    stage = replace(CONFIG.stages[-1], warn_of_calls=True)
    warning = len(codec.encode_messages([Message("user", WARNING)]))
    lengths = measure(WORKPLACE, codec, TASKS[:20])
    can_be = [lengths[task.id].suffix for task in TASKS[:20] if any(not turn.gold for turn in task.turns[:-1])]
    longest = max(can_be)
    assert can_be and longest > warning
    for room, number in ((longest, sum(longest - warning < one <= longest for one in can_be)), (longest + warning, 0)):
        config = replace(config_of(max_suffix_tokens=max(room, 1), max_unfit_share=None), stages=(stage,))
        said = [sentence for sentence in check(config, codec)[1] if "after the warning of warn_of_calls" in sentence]
        assert len(said) == bool(number) and all(f"{number} tasks that fit would not" in one for one in said)


def test_nothing_is_said_where_everything_fits(codec):
    record, said = check(config_of(), codec)
    assert said == [] and not any(room["unfit"] for room in record.values())


@pytest.mark.parametrize(
    "limits, words",
    [
        ({"max_suffix_tokens": 1000, "max_action_tokens": 5}, r"20 of 20 .* a message of 5 tokens .* allows, 10%"),
        (
            {"max_prompt_tokens": 4, "max_unfit_share": None},
            r"20 need more than a prompt of 4 tokens .*not one prompt fits",
        ),
    ],
)
def test_a_run_that_cannot_hold_its_tasks_is_refused(codec, limits, words):
    with pytest.raises(ConfigError, match=words):
        check(config_of(**limits), codec)


def test_without_a_stated_share_what_does_not_fit_is_said_and_the_run_goes_on(codec):
    record, said = check(config_of(max_action_tokens=5, max_unfit_share=None), codec)
    assert len(said) == 2 and all("a message of 5 tokens" in sentence for sentence in said)
    assert len(record["stages.online"]["unfit"]) == 20


def test_a_later_stage_is_counted_by_its_own_tasks(codec):
    tasks = [replace(task, category="base") for task in TASKS[:10]] + list(TASKS[10:20])
    splits = TaskSplits(seeds=tuple(tasks), held_out=TASKS[20:])
    stage = StageConfig(name="second", reward=progress_reward, epochs=1, synthesis=False, categories=("base",))
    config = replace(config_of(), stages=(*CONFIG.stages, stage))
    record, _ = check(config, codec, splits)
    assert record["stages.second"]["tasks"] == sum(task.category == "base" for task in tasks)


def test_a_task_whose_world_breaks_has_no_length_and_stops_nothing(codec):
    broken = replace(TASKS[0], id="broken", world=replace(TASKS[0].world, classes=("NoSuchClass",)))
    assert set(measure(WORKPLACE, codec, [broken, TASKS[1]])) == {TASKS[1].id}


def test_a_conversations_length_is_that_of_its_demonstrators_dialogue(codec):
    tasks = [make_task(one, random.Random(n)) for n, one in enumerate(compositions(2)[:3])]
    for task, length in zip(tasks, measure(HELPDESK, codec, tasks).values(), strict=True):
        played = demonstrate(HELPDESK, task, codec, Habits(), random.Random(0))
        spoken = [len(list(tokens)) for acted, tokens in groupby(played.acted) if acted]
        assert length == Length(len(played.prompt), len(played.suffix), max(spoken))


def test_where_nothing_is_known_of_solutions_the_prompts_alone_are_measured(codec):
    unknown = HELPDESK._replace(demonstrator=None)
    task = make_task(compositions(1)[0], random.Random(0))
    assert length_of(unknown, codec, task) == Length(length_of(HELPDESK, codec, task).prompt, 0, 0)
    splits = TaskSplits(seeds=(task,), held_out=(task,))
    for domain, dialogues in ((unknown, 0), (HELPDESK, 1)):
        record = check_lengths(config_of(), splits, domain, codec, lambda sentence: None)
        assert record["held_out"] | {"measured": 1, "dialogues": dialogues} == record["held_out"]


def test_what_needs_exactly_the_limit_fits():
    assert exceeded(Length(3, 4, 5), Length(3, 4, 5)) == ()
    assert exceeded(Length(4, 4, 5), Length(3, 4, 4)) == ("prompt", "action")


def test_each_stage_is_played_within_its_own_limits():
    stage = replace(CONFIG.stages[0], name="long", max_suffix_tokens=2 * CONFIG.rollout.max_suffix_tokens)
    splits = TaskSplits(seeds=(task_named("a", ()),), held_out=(task_named("b", ()),))
    limits = [one.limits.suffix for one in played_tasks(replace(CONFIG, stages=(*CONFIG.stages, stage)), splits)]
    assert limits[-2:] == [2 * CONFIG.rollout.max_suffix_tokens, CONFIG.rollout.max_suffix_tokens]


def test_so_many_unfit_tasks_as_are_allowed_are_said_and_not_refused(codec):
    longest = max(length.suffix for length in measure(WORKPLACE, codec, TASKS[:20]).values())
    said = check(config_of(max_suffix_tokens=longest - 1, max_unfit_share=0.05), codec)[1]
    assert any("1 of 20 tasks do not fit" in one for one in said)


def test_users_are_asked_for_their_first_words_together(codec):
    """At every start, and so after every preemption: 500 users of a second each would take eight minutes."""
    together = threading.Barrier(4)

    def make(task):
        if task is TASKS[4]:
            raise ValueError("this world is broken")
        return Conversation(
            (), lambda heard: Spoken(f"Hi, {together.wait(20)}."), lambda *call: None, 1, lambda ended: ()
        )

    found = measure(WORKPLACE._replace(start=conversations(make, waits=True)), codec, TASKS[:5])
    assert not together.broken and set(found) == {task.id for task in TASKS[:4]}
    assert all(length.prompt > 0 and length.suffix == length.action == 0 for length in found.values())
