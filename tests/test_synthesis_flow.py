"""A variant keeps its seed's structure: who breaks it is asked again, and who insists is a counted rejection."""

import json
from dataclasses import replace

import pytest
from synthesis_model import LOOSE, Model, roles_of, seed_of, tags, write
from synthesis_toy import TASK, TOY

from rods_jax.environments.protocol import STRATA
from rods_jax.synthesis.ask import PARSES
from rods_jax.synthesis.errors import STRUCTURE_LOST
from rods_jax.synthesis.pipeline import RULE_BASED
from rods_jax.synthesis.plan import broken_flow
from rods_jax.synthesis.profile import extract_profile, profile_match
from rods_jax.types import Call, Turn


def same_structure(seed, task) -> bool:
    return set(profile_match(extract_profile(TOY, task), extract_profile(TOY, seed)).values()) == {1}


class Breaker(Model):
    """Breaks the structure in one role, and repairs it when told so, unless it is stubborn."""

    def __init__(self, role, stubborn):
        super().__init__()
        self.role, self.stubborn, self.broken = role, stubborn, 0

    def answer(self, messages):
        good = super().answer(messages)
        role, data = self.asked[-1]
        bad = getattr(self, f"break_{role}", lambda data: None)(data) if role == self.role else None
        if bad is None or len(messages) > 2 and not self.stubborn:
            return good
        self.broken += 1
        return bad

    def break_planner(self, data):
        turns = {
            "turn_1": "Library: add_book, lend_book",
            "turn_2": "Library: add_book",
            "turn_3": "Till: deposit_cash",
        }
        return tags(reasoning="", narrative="Ada.", **turns)

    def break_arguments(self, data):
        """A book of the state, where the new one is meant."""
        if data["take_from"] and data["function"]["name"] == "lend_book":
            book = data["state"]["Library"]["books"][0]["book_id"]
            return tags(reasoning="", arguments=json.dumps({"book_id": book, "borrower": "anna"}))

    def break_query(self, data):
        if data["must_not_name"]:
            return tags(reasoning="", query=self.say(data["calls"], []) + ".")

    def break_rewriter(self, data):
        told = {f"query_{n}": f"Ada: {self.say(calls, [])}." for n, calls in enumerate(data["turns"], 1)}
        return tags(reasoning="", **told)

    def judge(self, data):
        if self.role != "refiner" or "Dear all!" in data["turns"][0]["user"]:
            return super().judge(data)
        return tags(reasoning="", verdict="reject", reason="Turn 1 is odd.")

    def break_refiner(self, data):
        calls = data["turns"][data["turn"] - 1]["calls"]
        return tags(reasoning="", query=self.say(calls, []) + ".")


@pytest.mark.parametrize("role", ["planner", "arguments", "query", "rewriter", "refiner"])
def test_who_breaks_the_structure_is_asked_again(role):
    result = write(model := Breaker(role, stubborn=False))
    assert model.broken and not result.rejections and same_structure(TASK, result.candidate)
    unusable = [exchange for exchange in result.exchanges if exchange.error]
    assert {exchange.role for exchange in unusable} == {role} and len(unusable) == model.broken


@pytest.mark.parametrize("role", ["planner", "arguments", "query", "rewriter", "refiner"])
def test_who_insists_is_a_counted_rejection(role):
    result = write(model := Breaker(role, stubborn=True), attempts=1)
    (rejection,) = result.rejections
    assert result.candidate is None and model.broken == PARSES
    assert rejection.error == STRUCTURE_LOST and f"{role}: 3 unusable replies" in rejection.detail


@pytest.mark.parametrize("role, words", [
    ("planner", "call 2 (add_book) takes nothing that call 0 (add_book) returns"),
    ("arguments", "an argument of lend_book must be a value that add_book (call 0) was the first to return"),
    ("query", "what lend_book (call 1) takes from add_book (call 0) must not be named"),
])  # fmt: skip
def test_the_repair_says_what_is_wrong(role, words):
    (rejection,) = write(Breaker(role, stubborn=True), attempts=1).rejections
    assert words in rejection.detail


def test_a_value_that_flows_in_no_link_must_be_named():
    """The seed names the book that it adds, lends and computes a fine for; a variant that hides it is another task."""
    gold = (Call("add_book", {"title": "Hamlet"}), Call("compute_fine", {"book_id": 700}))
    named = replace(TASK, turns=(Turn("Add 'Hamlet' as 700. What is the fine for 700?", gold), *LOOSE.turns[2:]))
    assert not extract_profile(TOY, named).links

    def planner(data):
        return tags(reasoning="", narrative="A.", turn_1="Library: add_book, compute_fine", turn_2="Till: deposit_cash")

    def arguments(data):
        made = [call["output"]["book_id"] for call in data["calls"] if call["function"] == "add_book"]
        values = {"title": "Faust 123", "book_id": made[0] if made else 0, "amount": 4321}
        return tags(
            reasoning="", arguments=json.dumps({n: values[n] for n in data["function"]["parameters"]["required"]})
        )

    silent = {"query": lambda data: tags(reasoning="", query=model.say(data["calls"], data["must_name"]) + ".")}
    model = Model(planner=planner, arguments=arguments, **silent)
    (rejection,) = write(model, named, attempts=1).rejections
    assert (
        rejection.error == STRUCTURE_LOST and "the user must name 700 by the turn of compute_fine" in rejection.detail
    )
    result = write(Model(planner=planner, arguments=arguments), named, attempts=1)
    assert result.candidate is not None and same_structure(named, result.candidate)


def test_what_users_named_does_not_flow():
    """An id that an earlier request has spelled out is no look-up any more."""

    class Spoiler(Breaker):
        def break_query(self, data):
            if not data["earlier_queries"]:
                return None
            return tags(reasoning="", query=f"{self.say(data['calls'], data['must_not_name'])}, and 700 is new.")

    (rejection,) = write(Spoiler("query", stubborn=True), attempts=1).rejections
    assert rejection.error == STRUCTURE_LOST


@pytest.mark.parametrize("category", STRATA)
def test_long_wide_and_mixed_seeds_are_kept_whole(category):
    """Eight turns with the recovery, four calls in one of them, two classes in another; functions may repeat there."""
    add, fine = (
        [Call("add_book", {"title": name}) for name in ("A1", "B2")],
        Call("compute_fine", {"book_id": 200}),
    )
    lend, deposit = Call("lend_book", {"book_id": 200, "borrower": "anna"}), Call("deposit_cash", {"amount": 21})
    turns = [
        Turn("Lend 200 to anna, add A1, then B2, and tell me the fine for 200.", (lend, *add, fine)),
        Turn("Put 21 into the till, and what is the fine for 200?", (deposit, fine)),
        *[
            Turn(f"Put {amount} into the till.", (Call("deposit_cash", {"amount": amount}),))
            for amount in range(22, 27)
        ],
    ]
    if not category.startswith("missing"):
        turns.append(Turn("Put 31 into the till.", (Call("deposit_cash", {"amount": 31}),)))
    seed = seed_of(category, replace(LOOSE, turns=tuple(turns)))
    gap = category == "missing_function"
    if gap:  # from its second turn, which must bring something new
        seed = replace(seed, turns=(*seed.turns[:2], Turn("Now.", (deposit, fine), ("deposit_cash",)), *seed.turns[3:]))
    assert len(seed.turns) == 8

    def planner(data):
        assert data["repeats"] == [True] + [False] * (len(data["layout"]) - 1)
        assert data["layout"][1] == [{"class": "Till", "functions": 1}, {"class": "Library", "functions": 1}]
        rest = {f"turn_{n}": "Till: deposit_cash" for n in range(3, len(data["layout"]) + 1)}
        first = "Library: add_book, lend_book, add_book, compute_fine"
        return tags(
            reasoning="", narrative="A.", turn_1=first, turn_2="Till: deposit_cash; Library: compute_fine", **rest
        )

    for rng in range(5):
        result = write(Model(rng, planner=planner), seed, rng=rng, attempts=1)
        if result.candidate is not None:
            break
    assert result.candidate is not None and same_structure(seed, result.candidate), result.rejections
    assert len(result.candidate.turns) == 8


@pytest.mark.parametrize("turn", ["Till: deposit_cash", "Library: compute_fine; Till: deposit_cash",
                                  "Till: deposit_cash, compute_fine", "Till: deposit_cash; Library: compute_fine; "])  # fmt: skip
def test_a_turn_of_two_classes_is_planned_in_its_order(turn):
    deposit, fine = Call("deposit_cash", {"amount": 21}), Call("compute_fine", {"book_id": 200})
    seed = replace(LOOSE, turns=(Turn("Put 21 into the till, and what is the fine for 200?", (deposit, fine)),))
    for text, error in ((turn, "no_pattern"), ("Till: deposit_cash; Library: compute_fine", None)):
        model = Model(planner=lambda data, text=text: tags(reasoning="", narrative="A.", turn_1=text))
        result = write(model, seed, attempts=1)
        assert [rejection.error for rejection in result.rejections] == ([error] if error else [])


def test_tools_that_cannot_pass_values_on_are_no_plan():
    links, pairs = {(0, 1), (0, 2)}, ()
    assert broken_flow(TOY, ["add_book", "lend_book", "compute_fine"], links, pairs) is None
    assert "call 2 (deposit_cash)" in broken_flow(TOY, ["add_book", "lend_book", "deposit_cash"], links, pairs)
    # Two outputs and one parameter that could take either.
    two = broken_flow(TOY, ["add_book", "add_book", "compute_fine"], {(0, 2), (1, 2)}, pairs)
    assert "no parameter left for what call 1 returns" in two
    # What a tool returns that no schema describes is not known to be impossible.
    silent = TOY._replace(tools=TOY.tools | {"add_book": replace(TOY.tools["add_book"], response={})})
    assert broken_flow(silent, ["add_book", "deposit_cash"], {(0, 1)}, pairs) is None


def test_a_models_plan_binds_the_rules_that_run_it():
    """Mixed roles: the plan carries its links, so that the rules fill them too."""
    roles = roles_of(Model())._replace(execute=RULE_BASED.execute)
    result = write(None, roles=roles)
    assert result.candidate is None or same_structure(TASK, result.candidate)
    assert "same_profile" not in [rejection.error for rejection in result.rejections]
