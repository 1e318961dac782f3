"""Episodes, reasons and the journal on tasks one can check by hand; scores against brute force."""

import gc
import itertools
import json
import random
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rods_jax import processes
from rods_jax.dialogue import MAX_DIFFERENCES, Difference, Move, Record, Said, Stop, gold_player, null_player, play
from rods_jax.environments import toolkit
from rods_jax.environments.protocol import STRATA
from rods_jax.environments.scoring import OFFICIAL, RODS
from rods_jax.environments.workplace.domain import WORKPLACE
from rods_jax.evaluation import ALL, MACRO, UNDISPUTED, bootstrap, open_journal, pass_all, pass_at, score
from rods_jax.journal import Entry, JournalError
from rods_jax.rewards import CALL_FAILED, CALLED, PARSE_ERROR, TURN_FAILED, TURN_PASSED
from rods_jax.run.evaluating import journal_of
from rods_jax.strict_json import MAX_NESTING
from rods_jax.synthesis.pipeline import author_tasks
from rods_jax.types import Action, Call, Task, Turn, World

ANSWER = Action(answer="Done.")
NAN = float("nan")


class House:
    """A house."""

    def __init__(self, doors: dict[str, bool], log: list[str]):
        self.doors = doors
        self.log = log

    def open(self, door: str) -> dict:
        """Opens a door."""
        self.doors[door] = True
        self.log.append(door)
        return {"opened": door}

    def count(self) -> int:
        """Counts the doors."""
        return len(self.doors)


HOUSE = toolkit.domain("house", {"House": House})


def opened(door):
    return Call("open", {"door": door})


def house(*gold, category="base", released=(), id="t"):
    turns = tuple(Turn(f"turn {i}", tuple(calls)) for i, calls in enumerate(gold))
    turns = (*turns[:-1], replace(turns[-1], released_tools=released))
    state = {"House": {"doors": {"front": False, "back": False}, "log": []}}
    return Task(id, "s", category, World(("House",), state), turns)


def says(*actions):
    """A player with a script: an Action, or a Stop."""
    script = iter(actions)

    def act(messages):
        action = next(script)
        return action if isinstance(action, Stop) else Said(action.answer, action, tokens=2)

    return act


def calls(*some):
    return Action(calls=some)


def played(task, *actions, rules=RODS):
    return play(HOUSE, task, 0, says(*actions), rules)


# ------------------------------------------------------------------------------------ one episode
def test_an_episode_by_hand():
    task = house([opened("front")], [], [Call("count")])
    record = played(task, calls(opened("front")), ANSWER, ANSWER, calls(Call("count")), ANSWER)
    assert record == Record(
        "t",
        0,
        rods=(True, True, True),
        official=(True, True, True),
        state=True,
        reasons=((), (), ()),
        moves=(
            Move(0, "", (opened("front"),), CALLED, ('{"opened": "front"}',)),
            Move(0, "Done.", (), TURN_PASSED, ()),
            Move(1, "Done.", (), TURN_PASSED, ()),
            Move(2, "", (Call("count"),), CALLED, ("2",)),
            Move(2, "Done.", (), TURN_PASSED, ()),
        ),
        tokens=10,
    )


def test_a_wrong_call_is_named_by_output_and_state():
    record = played(house([opened("front")]), calls(opened("back")), ANSWER)
    assert record.rods == record.official == (False,) and not record.state
    assert record.reasons[0] == (
        Difference("output", '{"opened": "front"}', "in no output so far"),
        Difference("state.House.doors.front", "True", "False"),
        Difference("state.House.doors.back", "False", "True"),
        Difference("state.House.log[0]", "front", "back"),
    )
    assert record.moves[-1].code == TURN_FAILED


def test_a_new_key_is_absent_on_the_other_side_and_many_differences_are_summed_up():
    record = played(house([opened("front")]), calls(opened("front"), opened("attic")), ANSWER)
    assert record.reasons[0] == (
        Difference("state.House.doors.attic", "absent", "True"),
        Difference("state.House.log", "['front']", "['front', 'attic']"),
    )
    record = played(house([opened("front")]), calls(*(opened(str(i)) for i in range(20))), ANSWER)
    assert len(record.reasons[0]) == MAX_DIFFERENCES + 1
    # output, the front door, 20 other doors, the log
    assert record.reasons[0][-1] == Difference("more", f"{23 - MAX_DIFFERENCES} more differences", "")


def test_the_other_ways_to_fail_a_turn():
    def reason(task, *actions, turn=0):
        return [(d.where, d.expected, d.found) for d in played(task, *actions).reasons[turn]]

    assert reason(house([opened("front"), Call("count")]), ANSWER) == [("calls", "open, count", "none")]
    assert reason(house([]), calls(opened("front"))) == [("answer", "a plain answer and no call", "a call")]
    assert reason(house([]), *[Action(error="x")] * 6) == [
        ("answer", "a plain answer and no call", "no answer within the attempts")
    ]
    cut = house([opened("front")], [Call("count")]), calls(opened("front")), Stop(truncated="too long")
    assert reason(*cut) == reason(*cut, turn=1) == [("turn", "closed", "the episode ended before")]
    assert played(*cut).truncated == "too long"
    assert played(*cut).rods == played(*cut).official == (False, False)


def test_the_two_verdicts_differ_on_calls_that_nobody_asked_for():
    task = house([], [opened("front")])
    quiet = played(task, calls(Call("count")), calls(opened("front")), ANSWER)
    assert (quiet.rods, quiet.official) == ((False, True), (True, True))
    loud = played(task, calls(opened("back")), calls(opened("front")), ANSWER)
    assert (loud.rods, loud.official) == (
        (False, True),
        (True, False),
    )  # RODS does not run it, the leaderboard does
    loud = played(task, calls(opened("back")), ANSWER, calls(opened("front")), ANSWER, rules=OFFICIAL)
    assert (loud.rods, loud.official) == ((False, False), (True, False))
    assert loud.moves[0].code == CALLED and quiet.moves[0].code == TURN_FAILED


def test_a_withheld_tool_runs_for_the_leaderboard_only():
    task = house([], [opened("front")], released=("open",))
    actions = calls(opened("front")), calls(opened("front")), ANSWER
    assert played(task, *actions).moves[1].code == CALLED
    official = played(task, actions[0], ANSWER, ANSWER, rules=OFFICIAL)
    assert official.moves[0].observations == ('{"opened": "front"}',)
    assert official.official == (True, False)  # no call in the second turn


def test_whatever_breaks_is_a_failure_of_that_episode():
    def broken(messages):
        raise OSError("no route")

    record = play(HOUSE, house([opened("front")]), 3, broken)
    assert (record.failure, record.rollout, record.moves) == ("OSError: no route", 3, ())
    record = play(HOUSE, house([Call("close")]), 0, null_player(house([])))
    assert "GoldError" in record.failure and record.rods == (False,)
    assert played(house([]), Stop(failure="timeout")).failure == "timeout"


TASKS = author_tasks(WORKPLACE, count=24, rng=random.Random(5))


@pytest.mark.parametrize("rules", [RODS, OFFICIAL])
def test_gold_passes_everything_and_null_the_turns_that_ask_for_nothing(rules):
    for task in TASKS:
        gold = play(WORKPLACE, task, 0, gold_player(task), rules)
        assert all(gold.rods) and all(gold.official) and not gold.failure
        null = play(WORKPLACE, task, 0, null_player(task), rules)
        assert null.rods == null.official == tuple(not turn.gold for turn in task.turns)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(TASKS), st.randoms(use_true_random=False), st.sampled_from([RODS, OFFICIAL]))
def test_reasons_verdicts_and_json_agree_on_any_behaviour(task, rng, rules):
    every = [call for other in TASKS for turn in other.turns for call in turn.gold]
    gold = gold_player(task)

    def act(messages):
        match rng.randrange(8):
            case 0:
                return Said("", Action(calls=(rng.choice(every),)))
            case 1:
                return Said("?", Action(error="unreadable"))
            case 2:
                return Stop(truncated="full")
        said = gold(messages)
        return Said("", ANSWER) if isinstance(said, Stop) else said

    record = play(WORKPLACE, task, 0, act, rules)
    assert not record.failure
    assert [not reasons for reasons in record.reasons] == list(record.rods)
    assert all(rods <= official for rods, official in zip(record.rods, record.official)) or rules == RODS
    assert len(record.rods) == len(record.official) == len(task.turns)
    codes = [move.code for move in record.moves]
    assert set(codes) <= {PARSE_ERROR, CALL_FAILED, CALLED, TURN_FAILED, TURN_PASSED}
    json.dumps(asdict(record), allow_nan=False)


# ----------------------------------------------------------------------------------------- scores
@pytest.mark.parametrize("n, c", [(4, 2), (5, 0), (5, 5), (6, 1)])
def test_pass_at_and_pass_all_against_every_draw(n, c):
    passed = [True] * c + [False] * (n - c)
    for k in range(1, n + 1):
        draws = list(itertools.combinations(passed, k))
        assert pass_at(n, c, k) == pytest.approx(np.mean([any(draw) for draw in draws]))
        assert pass_all(n, c, k) == pytest.approx(np.mean([all(draw) for draw in draws]))


def test_the_bootstrap_has_the_right_width_and_lets_missing_values_go():
    values = np.array([[0.0, 2.0, NAN, NAN], [1.0, 2.0, NAN, 5.0]] * 50)
    means, draws = bootstrap(values, np.random.default_rng(0))
    np.testing.assert_allclose(means, [0.5, 2, NAN, 5])
    assert draws[:, 0].std() == pytest.approx(0.5 / 10, rel=0.1)  # standard deviation / sqrt(100 tasks)
    assert (draws[:, 1] == 2).all() and np.isnan(draws[:, 2]).all() and (draws[:, 3] == 5).all()
    again = bootstrap(values, np.random.default_rng(0))[1]
    np.testing.assert_array_equal(draws, again)


def test_the_final_state_alone_forgives_how_it_was_reached():
    task = house([Call("count")], [opened("front")])
    record = played(task, ANSWER, calls(opened("front")), ANSWER)  # the first turn's count was never asked for
    assert record.rods == record.official == (False, True) and record.state
    assert not played(task, calls(Call("count")), ANSWER, ANSWER).state
    assert not played(task, Stop(truncated="here")).state


def record(task, rollout, rods, official=None, failure=""):
    moves = (Move(0, "", (), CALLED, ()),) * (rollout + 1)
    rods, official = tuple(map(bool, rods)), tuple(map(bool, official or rods))
    return Record(task, rollout, rods, official, all(rods), ((),) * len(rods), moves, tokens=7, failure=failure)


def test_scores_by_hand():
    tasks = [house([], [], id=id, category=c) for id, c in (("a", "base"), ("b", "base"), ("c", "long_context"))]
    records = [
        record("a", 0, [1, 1]),
        record("a", 1, [1, 0]),
        record("b", 0, [0, 0]),
        record("b", 1, [0, 0], failure="timeout: 1 s"),
        record("c", 0, [0, 1], [1, 1]),
        record("c", 1, [1, 1]),
    ]
    scores = score(tasks, records, seed=0)
    rows = scores["rows"]
    assert list(rows) == [ALL, "base", "long_context", MACRO]
    mean = {
        (row, key): value and value["mean"] for row, some in rows.items() for key, value in some.items() if key in names
    }
    assert [mean["base", name] for name in names] == pytest.approx([0.25, 0.25, 0.25, 0.375, 0.25, 1, 0.25, 0])
    assert [mean["long_context", name] for name in names] == pytest.approx([1, 0.5, 0.5, 0.75, 1, 1, 1, 1])
    assert mean[ALL, "official"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert mean[MACRO, "official"] == pytest.approx((0.25 + 1) / 2)
    assert mean[ALL, "pass^2"] == pytest.approx((0 + 1) / 2)  # b has one valid rollout only
    assert [rows[name]["failed"] for name in rows] == [1, 1, 0, 1]
    assert [rows[name]["episodes"] for name in rows] == [6, 4, 2, 6]
    assert rows["base"]["official"] == {"mean": 0.25, "low": 0.0, "high": 0.5}
    assert scores["failures"] == {"timeout: 1 s": 1}
    assert scores["codes"]["called"] == 3 * 1 + 2 * 2  # those of the failed episode are not in it
    assert scores["tokens"] == 5 * 7
    assert [(one["task"], one["rollout"], one["moves"]) for one in scores["longest"][:3]] == [
        ("a", 1, 2), ("c", 1, 2), ("a", 0, 1)
    ]  # fmt: skip
    assert score(tasks, records[::-1], seed=0)["rows"] == rows
    json.dumps(scores, allow_nan=False)


def test_disputed_tasks_are_reported_apart():
    tasks = [house([], id="a"), house([], id="b"), house([], id="c")]
    records = [record("a", 0, [1]), record("b", 0, [0]), record("c", 0, [1])]
    rows = score(tasks, records, seed=0, disputed={"b", "not played"})["rows"]
    assert rows[UNDISPUTED]["tasks"] == 2 and rows[UNDISPUTED]["rods"]["mean"] == 1
    assert rows[MACRO]["rods"]["mean"] == pytest.approx(2 / 3)  # categories are whole
    assert UNDISPUTED not in score(tasks, records, seed=0, disputed={"not played"})["rows"]


names = ["official", "rods", "state", "progress", "pass@1", "pass@2", "pass^1", "pass^2"]


def test_a_category_without_a_valid_episode_has_no_score():
    tasks = [house([], id="a"), house([], id="b", category="long_context")]
    rows = score(tasks, [record("a", 0, [1]), record("b", 0, [0], failure="x")], seed=0)["rows"]
    assert rows["long_context"]["official"] is None and rows[MACRO]["official"] is None
    assert rows[ALL]["official"]["mean"] == 1
    assert all(category in STRATA for category in list(rows)[1:-1])


# ----------------------------------------------------------------------------------- the journal
RECORDS = [play(WORKPLACE, task, 1, player(task)) for task in TASKS[:4] for player in (gold_player, null_player)]
SETTINGS = {"player": "gold", "seed": 0}


def write(path, records, header=SETTINGS):
    with open_journal(path, header) as (_, append):
        for one in records:
            append(one)


def read(path, header=SETTINGS):
    with open_journal(path, header) as (records, _):
        return records


def test_the_journal_gives_back_what_was_written_the_last_record_of_each_episode(tmp_path):
    path = tmp_path / "journal.jsonl"
    write(path, RECORDS[:3])
    write(path, RECORDS[3:])
    assert list(read(path).values()) == RECORDS[1::2]
    assert len(path.read_bytes().splitlines()) == 1 + len(RECORDS)


def test_an_evaluation_that_goes_on_keeps_its_records_and_not_their_lines_beside_them(tmp_path):
    write(tmp_path / "journal.jsonl", RECORDS)
    with open_journal(tmp_path / "journal.jsonl", SETTINGS) as (records, _):
        gc.collect()
        assert len(records) == 4
        assert not [one for one in gc.get_objects() if isinstance(one, Entry) and "moves" in one.record]


def test_the_other_processes_hear_of_a_journal_in_parts(tmp_path, monkeypatch):
    """16,000 episodes of 32,768 tokens are more than a message of 2 GiB."""
    records = [replace(RECORDS[0], rollout=n) for n in range(600)]
    write(tmp_path / "journal.jsonl", records)
    heard = []
    monkeypatch.setattr(processes, "on_first", lambda function: heard.append(function()) or heard[-1])
    with journal_of(tmp_path, SETTINGS) as (kept, _):
        assert list(kept.values()) == records
    assert [len(part) for part in heard if isinstance(part, list)] == [256, 256, 88]


def test_the_deepest_call_and_the_oddest_text_are_read_back(tmp_path):
    deep = json.loads('{"a":' * (MAX_NESTING - 1) + "{}" + "}" * (MAX_NESTING - 1))
    odd = "\x1b\u2028\x00\ufeff\u202e\ud800"
    move = Move(0, odd, (Call(odd, deep),), CALLED, (odd,), odd)
    records = [replace(RECORDS[0], moves=(move,), failure=odd)]
    write(tmp_path / "journal.jsonl", records)
    assert list(read(tmp_path / "journal.jsonl").values()) == records


def test_a_journal_cut_at_any_byte_goes_on_from_its_whole_lines(tmp_path):
    path = tmp_path / "journal.jsonl"
    records = RECORDS[1::2]
    write(path, records)
    whole = path.read_bytes()
    for cut in random.Random(0).sample(range(len(whole)), 40):
        path.write_bytes(whole[:cut])
        kept = list(read(path).values())
        assert kept == records[: max(0, whole[:cut].count(b"\n") - 1)]
        write(path, records[len(kept) :])
        assert path.read_bytes() == whole


def test_a_journal_is_refused_when_it_is_damaged_or_another_ones(tmp_path):
    path = tmp_path / "journal.jsonl"
    write(path, RECORDS)
    with pytest.raises(JournalError, match="was begun with another seed: give another folder"):
        read(path, SETTINGS | {"seed": 1})
    with open_journal(path, SETTINGS), pytest.raises(JournalError, match="is being written by another process"):
        read(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], lines[3][:50] + b"\n", *lines[4:]]))
    with pytest.raises(JournalError, match="line 4"):
        read(path)
    path.write_bytes(lines[0] + b'{"task_id": "t"}\n')
    with pytest.raises(JournalError, match="is damaged"):
        read(path)
