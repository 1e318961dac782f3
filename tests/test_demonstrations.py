"""Demonstrations: gold without habits, and each habit changes what it names and nothing else."""

import random
import re

import pytest

from rods_jax.codecs.documents import tool_name
from rods_jax.codecs.qwen import qwen_codec
from rods_jax.codecs.tokenizer import train_tokenizer
from rods_jax.config import Habits
from rods_jax.demonstrations import ANSWER, QUESTION, corpus, demonstrate
from rods_jax.environments import toolkit
from rods_jax.environments.episode import Episode
from rods_jax.environments.scoring import gold_trace
from rods_jax.environments.workplace import WORKPLACE
from rods_jax.synthesis.pipeline import author_tasks
from rods_jax.types import Action, Call, Task, Turn, World

TASKS = author_tasks(WORKPLACE, count=100, rng=random.Random(0))
TOKENIZER = train_tokenizer(corpus(WORKPLACE, TASKS), vocab_size=2_000)
CODEC = qwen_codec(TOKENIZER, tool_name)


def actions_of(demo):
    """What the demonstrator said, action by action, read back from the tokens it is remembered by."""
    actions, said = [], []
    for token, acted in zip(demo.suffix, demo.acted, strict=True):
        said += [token] if acted else []
        if acted and token == CODEC.stop_token:
            actions.append(CODEC.parse(CODEC.decode(said)))
            said = []
    assert not said
    return actions


def by_turn(task, demo, domain=WORKPLACE):
    """Actions of each turn. Also proves that the tokens are the episode's: said, observed, said, ..."""
    episode = Episode(domain, task, gold_trace(domain, task))
    assert demo.prompt == CODEC.encode_prompt(episode.visible_tools, task.turns[0].user)
    turns, suffix, acted = [[] for _ in task.turns], [], []
    for action in actions_of(demo):
        assert action.error is None
        turns[episode.turn].append(action)
        said = CODEC.encode_action(action.calls, action.answer)
        feedback = episode.act(action)
        observed = [] if feedback.done else CODEC.encode_messages(feedback.messages)
        suffix += said + observed
        acted += [True] * len(said) + [False] * len(observed)
    assert episode.turn == len(task.turns)  # played to the end
    assert (demo.suffix, demo.acted) == (suffix, acted)
    assert demo.passed == tuple(episode.passed)
    return turns


def demonstrations(tasks=TASKS, seed=0, **habits):
    rng = random.Random(seed)
    return [(task, demonstrate(WORKPLACE, task, CODEC, Habits(**habits), rng)) for task in tasks]


def say(*calls, answer=ANSWER):
    return [*(Action(calls=(call,)) for call in calls), Action(answer=answer)]


def gold_actions(turn):
    return say(*turn.gold, answer=ANSWER if turn.gold else QUESTION)


def turns_of(demos):
    return [(task, number, actions) for task, demo in demos for number, actions in enumerate(by_turn(task, demo))]


def test_without_habits_the_gold_calls_are_played_one_by_one_and_every_turn_passes():
    assert Habits() == (0.0,) * len(Habits())
    demos = demonstrations()
    assert all(all(demo.passed) for _, demo in demos)
    for task, number, actions in turns_of(demos):
        assert actions == gold_actions(task.turns[number])


def test_stop_early_answers_after_the_first_of_several_calls():
    for task, number, actions in turns_of(demonstrations(stop_early=1.0)):
        turn = task.turns[number]
        assert actions == (say(turn.gold[0]) if len(turn.gold) > 1 else gold_actions(turn))


def test_skip_answers_without_a_call():
    demos = demonstrations(skip=1.0)
    for task, number, actions in turns_of(demos):
        assert actions == say(answer=ANSWER if task.turns[number].gold else QUESTION)
    for task, demo in demos:
        assert demo.passed == tuple(not turn.gold for turn in task.turns)


def test_repeat_makes_each_call_twice():
    for task, number, actions in turns_of(demonstrations(repeat=1.0)):
        turn = task.turns[number]
        twice = [call for call in turn.gold for _ in range(2)]
        assert actions == say(*twice, answer=actions[-1].answer) and actions[-1] == gold_actions(turn)[-1]


def test_wrong_sibling_calls_another_tool_of_the_class_that_takes_these_arguments():
    renamed = set()
    for task, number, actions in turns_of(demonstrations(wrong_sibling=1.0)):
        turn = task.turns[number]
        hidden = {name for later in task.turns[number + 1 :] for name in later.released_tools}
        assert len(actions) == len(turn.gold) + 1
        for call, action in zip(turn.gold, actions):
            (made,) = action.calls
            own, other = WORKPLACE.tools[call.name], WORKPLACE.tools[made.name]
            assert made.arguments == call.arguments and other.class_name == own.class_name
            assert made.name not in hidden
            if made.name != call.name:
                assert set(other.parameters["required"]) == set(call.arguments)
                renamed.add(made.name)
            else:  # it had none
                assert not any(
                    set(tool.parameters["required"]) == set(call.arguments) == set(own.parameters["required"])
                    for tool in WORKPLACE.tools.values()
                    if tool.class_name == own.class_name and tool.name not in {call.name, *hidden}
                )
    assert len(renamed) > 10


def test_guess_calls_what_a_later_turn_asks_for_instead_of_asking():
    guessed = 0
    for task, number, actions in turns_of(demonstrations(guess=1.0)):
        turn = task.turns[number]
        if turn.gold:
            assert actions == gold_actions(turn)
        else:
            later = next(later.gold[0] for later in task.turns[number + 1 :] if later.gold)
            assert actions == [Action(calls=(later,))]  # which closes the turn, without an answer
            guessed += 1
    assert guessed == sum(not turn.gold for task in TASKS for turn in task.turns) > 0
    for task, demo in demonstrations(guess=1.0):
        assert demo.passed == tuple(bool(turn.gold) for turn in task.turns)


@pytest.mark.parametrize("habit", Habits._fields)
def test_a_habit_strikes_as_often_as_it_says(habit):
    """0.3 of its opportunities, within 4 standard deviations."""
    tasks = TASKS[:40]
    gold, always = turns_of(demonstrations(tasks)), turns_of(demonstrations(tasks, **{habit: 1.0}))
    sometimes = [turn for seed in range(4) for turn in turns_of(demonstrations(tasks, seed, **{habit: 0.3}))]
    if habit in ("repeat", "wrong_sibling"):  # once a call: turns of one call have one opportunity
        kept = {(task.id, number) for task, number, _ in gold if len(task.turns[number].gold) == 1}
    else:  # once a turn
        kept = {(task.id, number) for task, number, _ in gold}
    normal = {(task.id, number): actions for task, number, actions in gold}
    open_to = {(task.id, number) for task, number, actions in always if actions != normal[task.id, number]} & kept
    struck = [actions != normal[task.id, number] for task, number, actions in sometimes if (task.id, number) in open_to]
    others = [actions == normal[t.id, number] for t, number, actions in sometimes if (t.id, number) not in open_to]
    n = len(struck)
    assert n > 60 and abs(sum(struck) - 0.3 * n) < 4 * (n * 0.3 * 0.7) ** 0.5
    assert habit in ("repeat", "wrong_sibling") or all(others)


def test_a_demonstration_depends_on_the_rng_alone():
    habits = dict(stop_early=0.3, skip=0.2, repeat=0.2, wrong_sibling=0.3, guess=0.5)
    assert demonstrations(seed=1, **habits) == demonstrations(seed=1, **habits)
    assert demonstrations(seed=1, **habits) != demonstrations(seed=2, **habits)
    turns_of(demonstrations(seed=1, **habits))  # all habits together still make whole episodes


class Bell:
    """A bell."""

    def __init__(self, rung: int = 0):
        self.rung = rung

    def ring(self) -> dict[str, int]:
        """Rings."""
        self.rung += 1
        return {"rung": self.rung}


def test_a_turn_that_the_attempt_limit_closes_needs_no_answer():
    bells = toolkit.domain("bells", {"Bell": Bell})
    task = Task(
        "b", "b", "base", World(("Bell",), {}), (Turn("six", (Call("ring"),) * 6), Turn("once", (Call("ring"),)))
    )
    demo = demonstrate(bells, task, CODEC, Habits(), random.Random(0))
    six, once = by_turn(task, demo, bells)
    assert [len(six), len(once)] == [6, 2] and demo.passed == (True, True)
    twice = demonstrate(bells, task, CODEC, Habits(repeat=1.0), random.Random(0))
    assert [len(actions) for actions in by_turn(task, twice, bells)] == [6, 3]


def test_more_calls_than_a_turn_has_messages_share_them():
    bells = toolkit.domain("bells", {"Bell": Bell})
    turns = Turn("often", (Call("ring"),) * 8), Turn("once", (Call("ring"),))
    task = Task("b", "b", "base", World(("Bell",), {}), turns)
    demo = demonstrate(bells, task, CODEC, Habits(), random.Random(0))
    often, once = by_turn(task, demo, bells)
    assert [len(often), len(once)] == [5, 2] and demo.passed == (True, True)  # four times two calls, and the answer


def test_the_corpus_holds_every_word_of_gold_demonstrations():
    vocabulary = TOKENIZER.get_vocab()
    for _, demo in demonstrations():
        text = TOKENIZER.decode(demo.prompt + demo.suffix, skip_special_tokens=True)
        words = {word.replace(" ", "Ġ") for word in re.findall(" ?[A-Za-z_]+", text)}
        assert words <= set(vocabulary)
    texts = corpus(WORKPLACE, TASKS)
    assert ANSWER in texts and QUESTION in texts and texts == corpus(WORKPLACE, TASKS)
