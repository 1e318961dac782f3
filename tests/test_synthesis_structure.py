"""A language model keeps the structure that it promises: depth and flow of the seed, or a counted rejection."""

from dataclasses import replace

import pytest
from synthesis_model import LOOSE, Model, seed_of, tags, write
from synthesis_toy import TASK, TOY

from rods_jax.environments import bfcl
from rods_jax.synthesis.errors import LAYOUT_TOO_LONG, STRUCTURE_LOST, Rejected
from rods_jax.synthesis.llm_plan import MAX_TURNS, turn_layout
from rods_jax.synthesis.profile import Profile, extract_profile
from rods_jax.types import Turn


def structure(task):
    profile = extract_profile(TOY, task)
    return profile.call_classes, profile.links


def test_what_a_capable_model_writes_has_the_seeds_depth_and_flow():
    for rng in range(6):
        candidate = write(Model(rng), rng=rng).candidate
        if candidate is not None:
            assert structure(candidate) == structure(TASK)


def other_books(data):
    """Arguments that take nothing of what earlier calls returned: the book that stood there from the beginning."""
    return Model().arguments(data | {"take_from": []})


def no_flow(data):
    plan = {
        "turn_1": "Library: lend_book, add_book",
        "turn_2": "Library: add_book",
        "turn_3": "Till: deposit_cash",
    }
    return tags(reasoning="", narrative="Ada.", **plan)


def names_all(data):
    """Words that name every value, those that an earlier call must supply too."""
    model = Model()
    queries = {f"query_{n}": f"Ada. {model.say(calls, ())}." for n, calls in enumerate(data["turns"], 1)}
    return tags(reasoning="", **queries)


@pytest.mark.parametrize(
    "role, answer, stage",
    [
        ("arguments", other_books, "must be a value that"),
        ("planner", no_flow, "values must flow between the calls"),
        ("rewriter", names_all, "must not be named by the user"),
    ],
)
def test_a_model_that_loses_the_flow_is_asked_again_and_then_counted(role, answer, stage):
    model = Model(**{role: answer})
    (rejection,) = write(model, attempts=1).rejections
    assert rejection.error == STRUCTURE_LOST and stage in rejection.detail
    assert model.roles().count(role) >= 3  # told what is wrong, twice, before the attempt is given up


def test_a_model_that_mends_its_flow_when_told_is_accepted():
    told = []

    def planner(data):
        told.append(data)
        return no_flow(data) if len(told) == 1 else Model().planner(data)

    candidate = write(Model(planner=planner), attempts=1).candidate
    assert candidate is not None and len(told) == 2 and structure(candidate) == structure(TASK)


def test_a_seed_of_eight_turns_is_kept_whole_and_a_longer_one_is_refused_without_a_question():
    calls = [call for turn in LOOSE.turns for call in turn.gold]
    eight = replace(LOOSE, turns=tuple(Turn(f"{n}", (calls[n % len(calls)],)) for n in range(MAX_TURNS)))
    assert len(turn_layout(TOY, extract_profile(TOY, eight))) == MAX_TURNS
    longer = replace(eight, turns=(*eight.turns, eight.turns[0]))
    model = Model()
    result = write(model, longer, attempts=2)
    assert {rejection.error for rejection in result.rejections} == {LAYOUT_TOO_LONG} and model.asked == []


def test_an_empty_turn_that_the_category_does_not_explain_is_refused():
    with pytest.raises(Rejected, match="no_pattern"):
        turn_layout(TOY, Profile("base", ("Library",), (("Library",), ())))
    assert turn_layout(TOY, extract_profile(TOY, seed_of("missing_parameter"))) == turn_layout(
        TOY, extract_profile(TOY, TASK)
    )


def test_bfcls_training_tasks_are_kept_whole():
    """All: none has more turns than a planner is asked for."""
    train, _ = bfcl.split(bfcl.load_tasks())
    domain = bfcl.bfcl_domain(train)
    for task in train:
        turns = turn_layout(domain, extract_profile(domain, task))
        assert [len(turn) for turn in turns] == [len(turn.gold) for turn in task.turns if turn.gold]
    assert len(train) == 400 and max(len(task.turns) for task in train) == MAX_TURNS
