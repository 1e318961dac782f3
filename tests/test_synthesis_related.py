"""Difficulty, diversity, committees and templates: each by hand on the library and its till."""

import math
import random
from dataclasses import replace
from functools import partial

import pytest
from synthesis_toy import TASK, TOY

from rods_jax.dialogue import Said, play
from rods_jax.environments.gold import check_gold
from rods_jax.synthesis.author import Order
from rods_jax.synthesis.committee import committee, vote
from rods_jax.synthesis.difficulty import chains, climb
from rods_jax.synthesis.diversity import Diversity, diversity
from rods_jax.synthesis.errors import JUDGE, Rejected
from rods_jax.synthesis.pipeline import RULE_BASED, five_stages
from rods_jax.synthesis.profile import extract_profile
from rods_jax.synthesis.templates import Template, tasks_of
from rods_jax.types import Action, Call, Turn


# --------------------------------------------------------------------------------------- difficulty
def score_of_forgetful(tasks, remembers=2):
    """The mean progress of a player that makes the first calls of a task alone."""

    def player(task):
        left = iter([call for turn in task.turns for call in turn.gold][:remembers])
        script = []
        for turn in task.turns:
            script += [Said("", Action(calls=(call,))) for _, call in zip(turn.gold, left)]
            script.append(Said("Done.", Action(answer="Done.")))
        moves = iter(script)
        return lambda messages: next(moves)

    passed = [record.rods for task in tasks for record in [play(TOY, task, 0, player(task))]]
    return sum(sum(one) / len(one) for one in passed) / len(passed)


def test_the_dial_turns_until_the_baseline_fails():
    rungs = climb(partial(chains, TOY, count=6, seed=0), score_of_forgetful, top=4, below=0.6)
    assert [rung.level for rung in rungs] == [1, 2] and rungs[0].score >= 0.6 > rungs[1].score
    for rung in rungs:
        assert {extract_profile(TOY, task).depth for task in rung.tasks} == {rung.level}
    ids = [task.id for rung in rungs for task in rung.tasks]
    assert len(set(ids)) == len(ids)


def test_a_baseline_that_never_fails_gets_to_the_top():
    rungs = climb(lambda level: [TASK] * level, lambda tasks: 1.0, top=4)
    assert [len(rung.tasks) for rung in rungs] == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="top=0"):
        climb(lambda level: [], lambda tasks: 1.0, top=0)


# ---------------------------------------------------------------------------------------- diversity
def test_diversity_by_hand():
    other = replace(TASK, turns=TASK.turns[:1])
    found = diversity([TASK, TASK, TASK, other])
    # Patterns 3/4 and 1/4.  Calls: add 4, lend 4, fine 3, deposit 3.
    patterns = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    tools = math.exp(-(2 * 4 / 14 * math.log(4 / 14) + 2 * 3 / 14 * math.log(3 / 14)))
    assert found == Diversity(4, 2, pytest.approx(patterns), 4, pytest.approx(tools), 3)
    assert diversity([]) == Diversity(0, 0, 0.0, 0, 0.0, 0)


def test_equally_frequent_patterns_count_in_full():
    tasks = [replace(TASK, turns=TASK.turns[:n]) for n in (1, 2, 3)]
    assert diversity(tasks).effective_patterns == pytest.approx(3)


# ---------------------------------------------------------------------------------------- committee
def accept(*subject):
    return None


def refuse(*subject):
    return f"too {subject[-1]}"


def absent(*subject):
    raise TimeoutError("no answer")


def unreadable(*subject):
    raise Rejected(JUDGE, "no verdict")


def test_votes_are_counted_by_kind():
    votes = vote([accept, refuse, absent, unreadable, absent], "easy")
    assert (votes.accepted, votes.reasons) == (1, ("too easy",))
    assert votes.abstained == {"TimeoutError": 2, "judge": 1}


@pytest.mark.parametrize("quorum, accepted", [(1, True), (2, True), (3, False)])
def test_a_quorum_decides_and_the_rest_is_said(quorum, accepted):
    reason = committee([accept, accept, refuse, absent], quorum=quorum)("hard")
    told = "2 of 4 accept, 3 are needed; 1 abstained (TimeoutError 1); too hard"
    assert reason == (None if accepted else told)


def test_verdicts_of_another_type_are_read_and_given_back():
    decide = committee(
        [lambda task: (True, ""), lambda task: (False, task)],
        quorum=2,
        read=lambda verdict: None if verdict[0] else verdict[1],
        say=lambda reason: (reason is None, reason or ""),
    )
    assert decide("") == (False, "1 of 2 accept, 2 are needed; ")  # a refusal without words is one
    assert decide("dull") == (False, "1 of 2 accept, 2 are needed; dull")


@pytest.mark.parametrize("quorum", [0, 2])
def test_a_quorum_that_cannot_be_is_refused(quorum):
    with pytest.raises(ValueError, match="the quorum of 1 reviewers"):
        committee([accept], quorum=quorum)


def test_a_committee_judges_in_the_five_stages():
    def made(*judges):
        roles = RULE_BASED._replace(judge=committee(judges, quorum=2))
        write = five_stages(TOY, lambda backends: roles)
        return write(Order(TASK), step=0, rng=random.Random(0), known_hashes=())

    assert made(accept, accept, refuse).candidate is not None
    failed = made(accept, refuse, absent)
    assert failed.candidate is None and {one.error for one in failed.rejections} <= {JUDGE, "same_profile"}
    assert any("1 of 3 accept" in one.detail for one in failed.rejections)


# ---------------------------------------------------------------------------------------- templates
def a_book(ask, rng):
    return {"title": rng.choice(["Faust", "Candide"]), "reader": rng.choice(["anna", "boris"])}


def lend_cheapest(ask, fields):
    """Of the three books, the one with the lowest fine; the agent has no tool that lists them."""
    numbers = [number for number in range(100, 600) if fine_of(ask, number) is not None]
    cheapest = min(numbers, key=lambda number: fine_of(ask, number))
    return [Call("lend_book", {"book_id": cheapest, "borrower": fields["reader"]})]


def fine_of(ask, number):
    try:
        return ask("compute_fine", book_id=number)["amount"]
    except Exception:
        return None


CHEAPEST = Template("cheapest", "Lend the book with the lowest fine to {reader}.", a_book, lend_cheapest, ("Library",))


def test_gold_is_computed_over_the_live_world():
    made = tasks_of(TOY, CHEAPEST, count=3, rng=random.Random(0))
    assert len(made.tasks) == 3 and not made.refused
    check_gold(TOY, made.tasks)
    for task in made.tasks:
        books = [book["book_id"] for book in task.world.state["Library"]["books"]]
        ((call,),) = (turn.gold for turn in task.turns)
        assert call.arguments["book_id"] == min(books, key=lambda number: 13 * number % 977)
        assert call.arguments["borrower"] in task.turns[0].user


def test_a_procedure_may_ask_tools_that_the_agent_lacks():
    def balance(ask, rng):
        return {"sum": ask("deposit_cash", amount=0)["balance"], "again": ask("deposit_cash", amount=0)["balance"]}

    def shelve(ask, fields):
        assert fields["sum"] == fields["again"]  # a question leaves the world as it was
        return [Call("add_book", {"title": f"Accounts of {fields['sum']}"})]

    template = Template("accounts", "Shelve a book named Accounts of {sum}.", balance, shelve, ("Library",), ("Till",))
    (task,) = tasks_of(TOY, template, count=1, rng=random.Random(0)).tasks
    assert task.world.classes == ("Library",) and set(task.world.state) == {"Library"}
    assert "deposit_cash" not in {tool.name for tool in TOY.tools_of(task.world.classes)}


def test_what_leads_to_no_task_is_counted():
    lent = replace(CHEAPEST, gold=lambda ask, fields: [Call("lend_book", {"book_id": 1, "borrower": "anna"})])
    assert tasks_of(TOY, lent, count=1, rng=random.Random(0)).refused == {"executable": 20}
    empty = replace(CHEAPEST, gold=lambda ask, fields: [])
    assert tasks_of(TOY, empty, count=1, rng=random.Random(0)).refused == {"silence_fails": 20}
    asks = replace(CHEAPEST, gold=lambda ask, fields: ask("compute_fine", book_id=1))
    assert tasks_of(TOY, asks, count=1, rng=random.Random(0)).refused == {"Refused": 20}


def test_a_template_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="template cheapest: toy has no class Shop"):
        tasks_of(TOY, replace(CHEAPEST, also=("Shop",)), count=1, rng=random.Random(0))
    with pytest.raises(ValueError, match="its query names 'owner', which its fields lack"):
        tasks_of(TOY, replace(CHEAPEST, query="For {owner}."), count=1, rng=random.Random(0))


def test_tasks_that_ask_for_no_calls_have_no_pattern_to_count():
    assert diversity([replace(TASK, turns=(Turn("Hello."),))]).tools == 0
