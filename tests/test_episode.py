"""The interaction loop of RODS 1.4, by hand on one small class and at large on the bundled domain."""

import copy
import random

import pytest

from rods_jax.environments import toolkit
from rods_jax.environments.episode import Episode
from rods_jax.environments.protocol import STRATA, Answer
from rods_jax.environments.scoring import OFFICIAL, RODS, gold_trace
from rods_jax.environments.workplace import WORKPLACE
from rods_jax.synthesis.pipeline import author_tasks
from rods_jax.types import Action, Call, Message, Task, Turn, World


class Shelf:
    """A shelf of books."""

    def __init__(self, books: list[str] | None = None):
        self.books = books or []

    def add(self, book: str) -> dict[str, int]:
        """Adds a book.

        Args:
            book: Its title.
        """
        if book in self.books:
            raise ValueError(f"{book} is there")
        self.books.append(book)
        return {"books": len(self.books)}

    def count(self) -> dict[str, int]:
        """Counts the books."""
        return {"books": len(self.books)}

    def empty(self) -> dict[str, int]:
        """Takes all books away."""
        self.books.clear()
        return {"books": 0}


SHELF = toolkit.domain("shelf", {"Shelf": Shelf})
ADD_A, ADD_B, COUNT, EMPTY = (
    Call("add", {"book": "a"}),
    Call("add", {"book": "b"}),
    Call("count"),
    Call("empty"),
)
DONE, UNREADABLE = Action(answer="Done."), Action(error="the message is empty")


def act(*calls):
    return Action(calls=calls)


def task(*turns):
    return Task("t", "s", "base", World(("Shelf",), {"Shelf": {"books": ["x"]}}), turns)


def start(a_task, rules=RODS):
    return Episode(SHELF, a_task, gold_trace(SHELF, a_task), rules)


def codes(episode, actions):
    return [episode.act(action).code for action in actions]


TWO = task(Turn("add a", (ADD_A,)), Turn("add b and count", (ADD_B, COUNT)))


# --------------------------------------------------------------------------------- what comes back
def test_a_gold_episode_word_for_word():
    episode = start(TWO)
    assert [tool.name for tool in episode.visible_tools] == ["add", "count", "empty"]
    assert episode.act(act(ADD_A)) == Answer(-1, (Message("tool", '{"books": 2}'),), ('{"books": 2}',), False)
    assert episode.act(DONE) == Answer(1, (Message("user", "add b and count"),), (), False, (True,))
    assert (episode.turn, episode.passed) == (1, [True, False])
    both = ('{"books": 3}', '{"books": 3}')
    assert episode.act(act(ADD_B, COUNT)) == Answer(-1, tuple(Message("tool", text) for text in both), both, False)
    assert episode.act(DONE) == Answer(1, (), (), True, (True,))
    assert (episode.turn, episode.passed) == (2, [True, True])


@pytest.mark.parametrize(
    "actions, expected, passed",
    [
        ([DONE, DONE], [0, 0], [False, False]),
        ([act(ADD_A), DONE], [-1, 1], [True, False]),  # the second turn is never reached
        ([UNREADABLE, act(ADD_A), DONE], [-3, -1, 1], [True, False]),
        (
            [act(Call("add", {"book": "x"})), act(ADD_A), DONE],
            [-2, -1, 1],
            [True, False],
        ),  # an error costs nothing
        (
            [act(Call("fly")), act(Call("add", {"title": "a"})), act(Call("add", {"book": 1}))],
            [-2] * 3,
            [False] * 2,
        ),
        (
            [act(COUNT, Call("fly"), ADD_A), DONE],
            [-2, 1],
            [True, False],
        ),  # one failure names the action, all are run
        (
            [act(ADD_A, ADD_B), DONE, act(COUNT, COUNT), DONE],
            [-1, 0, -1, 1],
            [False, True],
        ),  # state, then caught up
        ([act(ADD_A), DONE, DONE], [-1, 1, 0], [True, False]),
        ([act(ADD_A, ADD_B, COUNT), DONE, DONE], [-1, 0, 0], [False, False]),  # all done early, then silence
        ([act(EMPTY, ADD_A), DONE, act(ADD_B), DONE], [-1, 0, -1, 0], [False, False]),
    ],
)
def test_codes_and_turns(actions, expected, passed):
    episode = start(TWO)
    assert codes(episode, actions) == expected
    assert episode.passed == passed


def test_a_parse_error_is_told_and_nothing_else_happens():
    episode = start(TWO)
    told = "Error: the message is empty."
    assert episode.act(UNREADABLE) == Answer(-3, (Message("tool", told),), (told,), False)
    assert episode.turn == 0
    assert episode.act(DONE).code == 0  # its text is no output and no call


# ------------------------------------------------------------------------------------ attempt limit
@pytest.mark.parametrize("first, code, passed", [(ADD_A, -1, True), (COUNT, -1, False), (Call("fly"), -2, False)])
def test_the_sixth_attempt_closes_the_turn_which_is_then_scored_normally(first, code, passed):
    episode = start(TWO)
    rest = [UNREADABLE, act(COUNT), act(Call("fly")), UNREADABLE]
    assert not any(episode.act(action).done for action in [act(first), *rest]) and episode.turn == 0
    feedback = episode.act(act(COUNT))
    books = f'{{"books": {2 if first == ADD_A else 1}}}'
    assert feedback == Answer(
        -1, (Message("tool", books), Message("user", "add b and count")), (books,), False, (passed,)
    )
    assert (episode.turn, episode.passed) == (1, [passed, False])
    # The count begins anew: five attempts leave the turn open, the sixth ends the episode without a message.
    assert all(episode.act(UNREADABLE).messages for _ in range(5)) and episode.turn == 1
    assert episode.act(UNREADABLE) == Answer(-3, (), ("Error: the message is empty.",), True, (False,))


def test_the_call_of_the_sixth_attempt_still_counts():
    episode = start(TWO)
    assert codes(episode, [UNREADABLE] * 5 + [act(ADD_A)]) == [-3] * 5 + [-1]
    assert episode.passed == [True, False]


def test_an_answer_resets_the_attempts_and_the_limit_is_an_argument():
    episode = start(TWO)
    codes(episode, [UNREADABLE] * 5 + [DONE] + [UNREADABLE] * 5)
    assert episode.turn == 1
    short = start(TWO, RODS._replace(max_attempts=1))
    codes(short, [UNREADABLE])
    assert short.turn == 0
    codes(short, [UNREADABLE])
    assert short.turn == 1


# ------------------------------------------------------------------------------- turns without gold
WAITING = task(Turn("add something"), Turn("I mean a", (ADD_A,)))


def test_a_plain_answer_passes_a_turn_without_gold():
    episode = start(WAITING)
    assert codes(episode, [UNREADABLE, DONE, act(ADD_A), DONE]) == [-3, 1, -1, 1]
    assert episode.passed == [True, True]


@pytest.mark.parametrize("call", [ADD_A, COUNT, Call("fly"), EMPTY])
def test_a_call_fails_a_turn_without_gold_and_is_not_executed(call):
    episode = start(WAITING)
    assert episode.act(act(call, call)) == Answer(0, (Message("user", "I mean a"),), (), False, (False,))
    assert codes(episode, [act(ADD_A), DONE]) == [-1, 1]  # the shelf was left alone
    assert episode.passed == [False, True]


def test_what_was_not_executed_is_no_output_either():
    episode = start(task(Turn("hm"), Turn("count", (COUNT,))))
    codes(episode, [act(COUNT)])
    assert codes(episode, [act(Call("fly")), DONE]) == [-2, 0]


def test_a_turn_without_gold_that_is_forced_to_close_fails():
    episode = start(WAITING)
    assert codes(episode, [UNREADABLE] * 6) == [-3] * 6
    assert (episode.turn, episode.passed) == (1, [False, False])


# --------------------------------------------------------------------------- the leaderboard's rules
def test_calls_in_a_turn_without_gold_run_under_the_official_rules():
    episode = start(WAITING, OFFICIAL)
    assert episode.act(act(COUNT)).observations == ('{"books": 1}',)
    assert codes(episode, [DONE, act(Call("fly")), DONE]) == [1, -2, 0]
    again = start(WAITING, OFFICIAL)  # what was done too early is still there when any call is made
    assert codes(again, [act(ADD_A), DONE, act(Call("fly")), DONE]) == [-1, 1, -2, 1]


def test_calls_beside_an_unreadable_one_are_made_and_the_policy_is_told():
    half = Action((ADD_A,), error="the tool call cannot be read: it ends early")
    told = ('{"books": 2}', "Error: the tool call cannot be read: it ends early.")
    one = task(Turn("u", (ADD_A,)))
    episode = Episode(SHELF, one, gold_trace(SHELF, one))
    assert episode.act(half) == Answer(-2, tuple(Message("tool", text) for text in told), told, False)
    assert episode.act(DONE).passed
    # The leaderboard passes over what it cannot read.
    official = Episode(SHELF, one, gold_trace(SHELF, one), OFFICIAL)
    assert official.act(half).observations == told[:1]


def test_an_unreadable_message_ends_the_turn_under_the_official_rules():
    episode = start(TWO, OFFICIAL)
    told = "Error: the message is empty."
    assert episode.act(act(ADD_A)).code == -1
    assert episode.act(UNREADABLE) == Answer(
        -3, (Message("tool", told), Message("user", "add b and count")), (told,), False, (True,)
    )
    assert episode.act(UNREADABLE) == Answer(-3, (), (told,), True, (False,))


def test_the_twenty_first_step_ends_the_episode_under_the_official_rules():
    episode = start(TWO, OFFICIAL)
    feedback = [episode.act(act(COUNT)) for _ in range(20)] + [episode.act(act(ADD_A))]
    assert [one.done for one in feedback] == [False] * 20 + [True]
    assert episode.passed == [True, False]  # scored as it stands, and the second is never reached


def test_a_withheld_tool_runs_under_the_official_rules():
    episode = start(HELD, OFFICIAL)
    assert "add" not in {tool.name for tool in episode.visible_tools}
    assert episode.act(act(ADD_A)) == Answer(-1, (Message("tool", '{"books": 2}'),), ('{"books": 2}',), False)


# ---------------------------------------------------------------------------------------- snapshots
@pytest.mark.parametrize("rules", [RODS, OFFICIAL])
def test_a_snapshot_goes_on_as_the_episode_would_have(rules):
    actions = [act(COUNT), UNREADABLE, act(ADD_A), DONE, act(ADD_B), act(COUNT), DONE]
    whole = start(TWO, rules)
    expected = []
    for action in actions:
        expected.append(whole.act(action))
        if expected[-1].done:
            break
    for cut in range(len(expected)):
        episode = start(TWO, rules)
        assert [episode.act(action) for action in actions[:cut]] == expected[:cut]
        saved = episode.snapshot()
        for other in (episode, saved.snapshot(), saved):
            assert [other.act(action) for action in actions[cut : len(expected)]] == expected[cut:]
            assert other.passed == whole.passed


# ---------------------------------------------------------------------------------- withheld tools
HELD = task(Turn("add a"), Turn("now you can", (ADD_A,), released_tools=("add",)), Turn("count", (COUNT,)))


def test_a_withheld_tool_is_invisible_and_uncallable_until_its_turn():
    a_task = task(Turn("count", (COUNT,)), Turn("now you can", (ADD_A,), released_tools=("add", "empty")))
    episode = start(a_task)
    assert [tool.name for tool in episode.visible_tools] == ["count"]
    feedback = episode.act(act(ADD_A, COUNT))
    assert feedback.code == -2 and feedback.observations == ("Error: there is no tool add.", '{"books": 1}')
    feedback = episode.act(DONE)
    assert feedback.code == 1  # the hidden call changed nothing
    assert feedback.messages == (Message("user", "now you can", (SHELF.tools["add"], SHELF.tools["empty"])),)
    assert {tool.name for tool in episode.visible_tools} == {"add", "count", "empty"}
    assert codes(episode, [act(ADD_A), DONE]) == [-1, 1]


def test_a_tool_is_released_however_the_turn_before_was_closed():
    for actions in ([DONE], [act(ADD_A)], [UNREADABLE] * 6):
        episode = start(HELD)
        assert [tool.name for tool in episode.visible_tools] == ["count", "empty"]
        messages = [episode.act(action).messages for action in actions][-1]
        assert messages[-1] == Message("user", "now you can", (SHELF.tools["add"],))
        assert codes(episode, [act(ADD_A), DONE, act(COUNT), DONE]) == [-1, 1, -1, 1]


def test_a_tool_released_with_the_first_message_was_never_withheld():
    episode = start(task(Turn("add a", (ADD_A,), released_tools=("add",))))
    assert "add" in {tool.name for tool in episode.visible_tools}
    assert codes(episode, [act(ADD_A), DONE]) == [-1, 1]


# ------------------------------------------------------------------------------ the bundled domain
@pytest.fixture(scope="module")
def tasks():
    return author_tasks(WORKPLACE, count=100, rng=random.Random(0))


def play(a_task, trace, turns):
    """Each turn's actions, then an answer; returns turns passed and the codes."""
    episode = Episode(WORKPLACE, a_task, trace)
    feedback = [episode.act(action) for actions in turns for action in [*actions, DONE]]
    assert [f.done for f in feedback] == [False] * (len(feedback) - 1) + [True]
    return episode.passed, [f.code for f in feedback]


def test_gold_passes_every_turn_and_silence_completes_no_task(tasks):
    assert {a_task.category for a_task in tasks} == set(STRATA)
    for a_task in tasks:
        trace = gold_trace(WORKPLACE, a_task)
        untouched = copy.deepcopy((a_task, trace))
        golds = [turn.gold for turn in a_task.turns]
        all_at_once = [[act(*gold)] if gold else [] for gold in golds]
        one_by_one = [[act(call) for call in gold] for gold in golds]
        for turns in (all_at_once, one_by_one):
            passed, seen = play(a_task, trace, turns)
            assert all(passed) and set(seen) == {-1, 1}
        passed, seen = play(a_task, trace, [[]] * len(golds))
        assert passed == [not gold for gold in golds] and not all(passed)
        assert (a_task, trace) == untouched  # shared by the group, hence read-only


def test_episodes_of_one_task_share_nothing(tasks):
    a_task = tasks[0]
    trace = gold_trace(WORKPLACE, a_task)
    first = Episode(WORKPLACE, a_task, trace)
    second = Episode(WORKPLACE, a_task, trace)
    first.act(act(*a_task.turns[0].gold))
    assert second.act(DONE).code == 0
    assert first.act(DONE).code == 1


def test_withheld_tools_of_the_bundled_tasks_arrive_in_time(tasks):
    held = [a_task for a_task in tasks if a_task.withheld_tools]
    assert held
    for a_task in held:
        episode = Episode(WORKPLACE, a_task, gold_trace(WORKPLACE, a_task))
        for turn in a_task.turns:
            names = {tool.name for tool in episode.visible_tools}
            assert {call.name for call in turn.gold} | set(turn.released_tools) <= names
            episode.act(DONE)
        assert names == {tool.name for tool in WORKPLACE.tools_of(a_task.world.classes)}


def test_a_snapshot_shares_nothing_with_what_its_episode_does_next():
    episode = start(TWO)
    episode.act(act(ADD_A))
    saved = episode.snapshot()
    for action in (act(COUNT), DONE, act(ADD_B, COUNT)):
        episode.act(action)
    assert saved.passed == [False, False] and saved._outputs == ['{"books": 2}'] and saved._made == [ADD_A]
    assert saved.state == {"Shelf": {"books": ["x", "a"]}}


def test_a_call_that_failed_in_an_earlier_turn_is_not_repeated():
    told = []
    domain = SHELF._replace(explain=lambda failed: told.append(failed[-1]) or "")
    one, again = task(Turn("add a", (ADD_A,)), Turn("add b", (ADD_B,))), act(Call("add", {"book": "x"}))
    episode = Episode(domain, one, gold_trace(domain, one), RODS._replace(explains_failures=True))
    for action in (again, again, DONE, again):
        episode.act(action)
    assert told == [False, True, False]
