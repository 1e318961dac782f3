"""Tasks of tools that are decided beforehand: the end of a walk through the graph of tools, and steps of a text."""

import random

import pytest
from synthesis_toy import PHRASED, TOY

from rods_jax.environments.gold import check_gold
from rods_jax.environments.protocol import STRATA
from rods_jax.environments.workplace import WORKPLACE
from rods_jax.synthesis.outline import Outline, outline
from rods_jax.synthesis.profile import extract_profile
from rods_jax.synthesis.targets import tasks_for, walk
from rods_jax.synthesis.workflows import matches, steps_of, tasks_from


def called(task):
    return [call.name for turn in task.turns for call in turn.gold]


# ------------------------------------------------------------------------------------------ targets
def test_every_task_ends_in_the_tool_and_each_call_needs_the_one_before():
    tasks = tasks_for(WORKPLACE, "pay_order", count=12, rng=random.Random(0), depth=3)
    check_gold(WORKPLACE, tasks)
    depths = set()
    for task in tasks:
        profile = extract_profile(WORKPLACE, task)
        assert called(task)[-1] == "pay_order" and profile.depth == len(called(task))
        depths.add(profile.depth)
    assert len({task.id for task in tasks}) == 12 and {1, 2} <= depths <= {1, 2, 3}


def test_the_same_seed_makes_the_same_tasks():
    first, again = (tasks_for(TOY, "lend_book", count=3, rng=random.Random(5)) for _ in range(2))
    assert first == again


def test_a_walk_goes_back_to_what_returns_the_value():
    walks = {walk(TOY, "deposit_cash", random.Random(seed), 2) for seed in range(40)}
    assert walks == {
        Outline((("deposit_cash",),)),
        Outline((("compute_fine", "deposit_cash"),), frozenset({(0, 1)})),
        Outline((("compute_fine",), ("deposit_cash",)), frozenset({(0, 1)})),
    }


@pytest.mark.parametrize(
    "domain, tool, depth, error, complaint",
    [
        (TOY, "burn_book", 3, ValueError, "toy has no tool burn_book"),
        (TOY, "add_book", 0, ValueError, "the depth of a chain is at least 1: got 0"),
        (TOY._replace(sample_state=None), "add_book", 1, ValueError, "domain toy has no sample_state"),
        (
            TOY._replace(strata={"m": STRATA["missing_function"]}),
            "add_book",
            1,
            ValueError,
            "all strata of toy withhold something",
        ),
        (TOY._replace(sample_state=lambda *_: {}), "lend_book", 1, RuntimeError, "50 tries led to no task"),
    ],
)
def test_what_cannot_be_a_target_is_said(domain, tool, depth, error, complaint):
    with pytest.raises(error) as caught:
        tasks_for(domain, tool, count=1, rng=random.Random(0), depth=depth)
    assert str(caught.value).startswith(complaint)


# --------------------------------------------------------------------------------------- workflows
TEXT = """How a book goes out:

 1. Add the book to the shelf
    of the library.
 2) Lend it to a reader.
Then, at the desk:
- Work out the fine for the book
* Put the amount of cash into the till

That is all. 3 readers a day."""


def test_steps_are_the_items_of_lists():
    assert steps_of(TEXT) == (
        "Add the book to the shelf of the library.",
        "Lend it to a reader.",
        "Work out the fine for the book",
        "Put the amount of cash into the till",
    )
    assert steps_of("Step 1: go\nstep 2. stay\n(3) end") == ("go", "stay", "end")
    assert steps_of("No list.\n  Only prose 1. here") == ()


def test_a_step_becomes_the_tool_that_it_resembles():
    found = matches(PHRASED, TEXT)
    assert [one.tool for one in found] == ["add_book", "lend_book", "compute_fine", "deposit_cash"]
    assert all(0.25 <= one.similarity <= 1 for one in found)
    (unknown,) = matches(PHRASED, "- Bake bread")
    assert (unknown.tool, unknown.similarity) == ("", 0.0)


def test_a_text_becomes_tasks_whose_values_flow():
    tasks = tasks_from(PHRASED, TEXT, count=3, rng=random.Random(0))
    check_gold(PHRASED, tasks)
    for task in tasks:
        assert called(task) == ["add_book", "lend_book", "compute_fine", "deposit_cash"]
        assert extract_profile(PHRASED, task).links == {(0, 1), (0, 2), (2, 3)}
    assert [task.id for task in tasks] == ["toy_workflow_0", "toy_workflow_1", "toy_workflow_2"]


def test_a_call_takes_from_the_latest_that_returns_it():
    assert outline(TOY, [["add_book", "add_book"], ["lend_book"]]).links == {(1, 2)}


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("Add the book, then lend it.", "the text has no numbered or bulleted list"),
        ("1. Add the book\n2. Bake bread", "no tool of toy resembles the step 'Bake bread'"),
    ],
)
def test_a_text_that_is_no_workflow_is_refused(text, complaint):
    with pytest.raises(ValueError) as error:
        tasks_from(TOY, text, count=1, rng=random.Random(0))
    assert str(error.value).startswith(complaint)


@pytest.mark.parametrize("turns", [[], [[]], [["add_book"], []]])
def test_an_outline_needs_tools(turns):
    with pytest.raises(ValueError, match="each with a tool"):
        outline(TOY, turns)
    with pytest.raises(ValueError, match="toy has no tool fly"):
        outline(TOY, [["fly"]])
