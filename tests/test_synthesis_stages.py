"""Profile, plan, execute, rewrite, augment: each against a domain whose answers are known by hand."""

import random
from dataclasses import replace

import pytest
from synthesis_toy import FINE, PHRASED, STATE, TASK, TOY

from rods_jax.synthesis.arguments import candidate, described_choices, sources
from rods_jax.synthesis.augment import augment
from rods_jax.synthesis.errors import Rejected
from rods_jax.synthesis.execute import Argument, ExecutedCall, Execution, Reference, execute
from rods_jax.synthesis.plan import Plan, PlannedCall, sample_plan
from rods_jax.synthesis.profile import Edge, Profile, extract_profile, profile_match
from rods_jax.synthesis.rewrite import noun, rewrite, word_turn
from rods_jax.synthesis.values import can_flow, has_type, mentions, schema_fields, words
from rods_jax.types import Call, ToolSpec, Turn, World


def run(plan, seed=0, domain=TOY, state=STATE):
    rng, classes = random.Random(seed), ("Library", "Till")
    return execute(domain, plan, rng, world=World(tuple(classes), state))


# ------------------------------------------------------------------------------------- values
@pytest.mark.parametrize(
    ("text", "value", "named"),
    [
        ("close ticket 41", 41, True),
        ("close ticket 410", 41, False),
        ("pay 4.15 now", 4, False),
        ("pay 5 now", 5.0, True),
        ("pay 5.", 5, True),
        ("at -5 degrees", 5, False),
        ("mail ANNA", "anna", True),
        ("mail annabel", "anna", False),
        ("buy AAPL and MSFT", ["AAPL", "MSFT"], True),
        ("buy AAPL", ["AAPL", "MSFT"], False),
        pytest.param("我要去北京出差", "北京", True, id="a script without spaces"),
        pytest.param("订3个房间,共410元", 3, True, id="a number within it"),
        pytest.param("订3个房间,共410元", 41, False, id="a part of a number within it"),
        pytest.param("서울에서 만나요", "서울", True, id="a particle follows"),
        pytest.param("pay 5 now", 10**350, False, id="more than a float holds"),
        pytest.param(f"pay 1{'0' * 350} now", 10**350, True, id="as much, and named"),
    ],
)
def test_text_names_whole_values_only(text, value, named):
    assert mentions(text, value) is named


def test_flow_by_name():
    assert can_flow("ticket_id", "ticket_id", same_class=False)
    assert can_flow("id", "ticket_id") and not can_flow("id", "ticket_id", same_class=False)
    assert not can_flow("zipcode", "city") and can_flow("zipcode", "city", [("zipcode", "city")])


def test_types_are_those_of_json():
    assert has_type(3, {"type": "number"}) and not has_type(True, {"type": "integer"})
    assert not has_type(3.0, {"type": "integer"}) and not has_type("d", {"type": "string", "enum": ["a"]})
    assert has_type(["x"], {"type": "array", "items": {"type": "string"}})
    assert not has_type([1], {"type": "array", "items": {"type": "string"}})


@pytest.mark.parametrize(
    "choice",
    [{"type": ["integer", "null"]}, {"oneOf": [{"type": "integer"}, {"type": "null"}]}],
    ids=["several types", "oneOf"],
)
def test_a_servers_choice_of_types_is_one_in_every_form(choice):
    assert has_type(3, choice) and has_type(None, choice) and not has_type("3", choice)
    assert not has_type(["x"], {"type": "array", "items": choice})
    nested = {"oneOf": [{"type": "array", "items": {"properties": {"n": choice}}}, {"properties": {"m": {}}}]}
    assert [*schema_fields(nested)] == ["n", "m"]


def test_identifiers_become_words():
    assert words("startEngine") == "start engine" and words("new_file_name") == "new file name"


# ------------------------------------------------------------------------------------ profile
def test_profile_of_a_task_known_by_hand():
    profile = extract_profile(TOY, TASK)
    assert profile.call_classes == (("Library", "Library"), ("Library",), ("Till",))
    assert profile.edges == (
        Edge(0, 1, "book_id", "book_id"),
        Edge(0, 2, "book_id", "book_id"),
        Edge(2, 3, "amount", "amount"),
    )
    assert (profile.calls_per_turn, profile.depth, profile.withheld_turn) == ((2, 1, 1), 3, None)


def test_a_value_that_the_user_spells_out_is_no_edge():
    spelled = replace(TASK.turns[1], user="What is the fine for book 700?")
    profile = extract_profile(TOY, replace(TASK, turns=(TASK.turns[0], spelled, TASK.turns[2])))
    assert profile.links == {(0, 1), (2, 3)} and profile.depth == 2


def test_withheld_turn_is_the_empty_one_before_its_recovery():
    deposit = Call("deposit_cash", {"amount": 50})
    turns = (*TASK.turns[:2], Turn("Put money into the till."), Turn("I mean 50.", (deposit,)))
    profile = extract_profile(TOY, replace(TASK, category="missing_parameter", turns=turns))
    assert profile.withheld_turn == 2 and profile.calls_per_turn == (2, 1, 0, 1)
    assert Profile("base", (), ((), ())).withheld_turn is None


def test_profile_match_tells_which_part_differs():
    profile = extract_profile(TOY, TASK)
    assert set(profile_match(profile, profile).values()) == {1}
    fewer = replace(profile, edges=profile.edges[:2])
    assert profile_match(profile, fewer) == {
        "category": True,
        "num_turns": True,
        "calls_per_turn": True,
        "classes": True,
        "depth": False,
        "edges": pytest.approx(2 / 3),
    }


# --------------------------------------------------------------------------------------- plan
def test_plan_has_the_profile_and_only_possible_links():
    profile = extract_profile(TOY, TASK)
    for seed in range(20):
        plan = sample_plan(TOY, profile, random.Random(seed))
        names = [call.tool for turn in plan.turns for call in turn]
        # Only a new book has an id to pass on twice, and only a fine has an amount.
        assert names[0] == "add_book" and names[2:] == ["compute_fine", "deposit_cash"]
        assert names[1] in ("lend_book", "compute_fine")
        assert plan == sample_plan(TOY, profile, random.Random(seed))


def test_weights_and_blocks_steer_the_plan():
    profile = Profile("base", ("Library",), (("Library",),))
    weights = {"add_book": 0.1}
    draws = [sample_plan(TOY, profile, random.Random(seed), weights).turns[0][0].tool for seed in range(300)]
    assert 1 <= draws.count("add_book") <= 40  # a share of 0.1 / 2.1 is 14
    blocked = sample_plan(TOY, profile, random.Random(0), {"compute_fine": 0}, blocked=("add_book",))
    assert blocked.turns == ((PlannedCall("lend_book"),),)


@pytest.mark.parametrize(
    "profile",
    [
        Profile("base", ("Till",), (("Till",), ("Till",)), (Edge(0, 1, "", ""),)),  # a balance is no amount
        Profile("base", ("Till",), (("Till",), ())),  # an empty turn that nothing recovers
        Profile("missing_function", ("Till",), (("Till",),)),  # nothing withheld
        Profile("base", ("Absent",), (("Absent",),)),
    ],
)
def test_a_profile_without_a_plan_is_rejected(profile):
    with pytest.raises(Rejected) as rejected:
        sample_plan(TOY, profile, random.Random(0))
    assert rejected.value.error == "no_pattern"


# ------------------------------------------------------------------------------------ execute
CHAIN = Plan(
    ((PlannedCall("add_book"), PlannedCall("compute_fine")), (PlannedCall("deposit_cash"),)),
    frozenset({(0, 1), (1, 2)}),
)


def test_links_carry_the_producers_output():
    add, fine, deposit = (call for turn in run(CHAIN).turns for call in turn)
    assert add.arguments["title"].origin is None
    assert fine.arguments == {"book_id": Argument(700, Reference(0, "book_id"))}
    assert deposit.arguments == {"amount": Argument(FINE, Reference(1, "amount"))}
    assert run(CHAIN) == run(CHAIN)


def test_a_spare_replaces_a_tool_that_cannot_run():
    plan = Plan(((PlannedCall("lend_book", ("add_book",)),),))
    assert run(plan).turns[0][0].tool == "add_book"  # there is no book to lend


def test_failures_are_typed_and_name_the_tool():
    with pytest.raises(Rejected) as rejected:
        run(Plan(((PlannedCall("lend_book"),),)))
    assert (rejected.value.error, rejected.value.functions) == ("vm_exec_failed", ("lend_book",))
    with pytest.raises(Rejected) as rejected:
        run(Plan(((PlannedCall("deposit_cash"), PlannedCall("add_book")),), frozenset({(0, 1)})))
    assert rejected.value.error == "func_sample_failed"


@pytest.mark.parametrize(
    "listed, choices",
    [
        ('["on", "off"]', ["on", "off"]),
        ("['on', 'off, soon']", ["on", "off, soon"]),  # as Python writes it
        ("[on, off]", ["on", "off"]),
        ("on, off. As it was", ["on", "off"]),
        ("'on', 'off'", ["on", "off"]),
        ('"on"', ["on"]),
        ("5", ["5"]),
    ],
)
def test_a_description_lists_its_choices(listed, choices):
    assert described_choices({"type": "string", "description": f"How. [Enum]: {listed}"}) == choices


@pytest.mark.parametrize("schema, values", [
    ({"type": "string", "const": "fast"}, ["fast"]),  # how MCP servers write a Literal of one value
    ({"type": "array", "items": {"type": "string", "const": "fast"}}, [["fast"]]),
    ({"type": "array", "items": {"type": "integer", "enum": [7]}}, [[7] * count for count in (2, 3, 4)]),
    ({"type": "array", "items": {"type": "object"}}, [None]),  # no source has an object
    ({"anyOf": [{"type": "null"}, {"type": "string", "const": "fast"}]}, ["fast"]),  # a hint of `str | None`
    ({"oneOf": [{"type": "null"}, {"type": "string", "const": "fast"}]}, ["fast"]),
    ({"type": ["null", "integer"], "description": "[Enum]: [7]"}, [7]),
    ({"type": ["boolean", "null"]}, [True, False]),
])  # fmt: skip
def test_what_is_enumerated_or_has_no_source_is_never_invented(schema, values):
    tool = ToolSpec("pick", "Picks.", {"type": "object", "properties": {"one": schema}}, "Picker")
    for seed in range(9):
        found = sources(tool, "one", (), {})
        assert candidate(TOY._replace(sample_argument=None), tool, "one", random.Random(seed), found) in values


@pytest.mark.parametrize("text", ["\u00b2", "7" * 5000], ids=["a power", "more than int() takes"])
def test_a_text_of_digits_that_is_no_integer_is_passed_over(text):
    tool = ToolSpec("pick", "Picks.", {"type": "object", "properties": {"one": {"type": "integer"}}}, "Picker")
    assert sources(tool, "one", ({"note": text, "room": "12"},), {}).related == [12]


def test_that_book_is_the_latest_and_earlier_ones_are_counted():
    add, fine = PlannedCall("add_book"), PlannedCall("compute_fine")
    earlier = run(Plan(((add,), (add, fine)), frozenset({(0, 2)})))
    looked_up = earlier.turns[1][1]
    assert looked_up.arguments["book_id"] == Argument(700, Reference(0, "book_id", rank=1))
    assert word_turn(TOY, [looked_up], random.Random(0)).endswith("using the first book.")
    latest = run(Plan(((add,), (add, fine)), frozenset({(1, 2)})))
    assert latest.turns[1][1].arguments["book_id"] == Argument(701, Reference(1, "book_id"))


def test_no_reference_past_another_book_that_was_named():
    state = {"Library": {"books": [{"book_id": 5, "title": "Emma", "borrower": ""}], "next_book_id": 700}}
    add, lend, fine = PlannedCall("add_book"), PlannedCall("lend_book"), PlannedCall("compute_fine")
    plan = Plan(((add,), (lend,), (fine,)), frozenset({(0, 2)}))
    for seed in range(10):
        try:
            lent = run(plan, seed, state=state).turns[1][0].arguments["book_id"].value
        except Rejected:
            continue
        assert lent == 700  # had book 5 been named, "that book" would be book 5


# ------------------------------------------------------------------------------------ rewrite
def executed(tool, **arguments):
    return ExecutedCall(tool, arguments, {})


@pytest.mark.parametrize("parameter, called", [
    ("ticket_id", "ticket"), ("userId", "user"), ("order_ids", "order"), ("id", "id"), ("grid", "grid"), ("paid", "paid"),
])  # fmt: skip
def test_a_parameter_is_called_after_what_it_identifies(parameter, called):
    assert noun(TOY, parameter) == called


def test_phrases_take_nouns_values_and_references():
    add = executed("add_book", title=Argument("Hamlet"))
    lend = executed("lend_book", book_id=Argument(700, Reference(0, "book_id")), borrower=Argument("anna"))
    text = word_turn(PHRASED, [add, lend], random.Random(0))
    assert text.startswith("put Hamlet on the shelf") and text.endswith("give that book to anna.")
    literal = executed("lend_book", book_id=Argument(41), borrower=Argument("anna"))
    assert word_turn(PHRASED, [literal], random.Random(0)) == "give book 41 to anna."
    assert word_turn(PHRASED, [literal], random.Random(0), (0, "book_id")) == "give a certain book to anna."


@pytest.mark.parametrize(
    ("key", "rank", "ending"),
    [
        ("book_id", 0, "using that book and"),
        ("id", 0, "using that book and"),
        ("serial", 0, "using that serial as book id and"),
        ("book_id", 2, "using the second book and"),
    ],
)
def test_a_reference_is_named_after_the_output_where_that_tells_more(key, rank, ending):
    lend = executed("lend_book", book_id=Argument(700, Reference(0, key, rank)), borrower=Argument("anna"))
    assert ending in word_turn(TOY, [lend], random.Random(0))


def test_without_phrases_the_description_speaks():
    lend = executed("lend_book", book_id=Argument(41), borrower=Argument("anna"))
    text = word_turn(TOY, [lend], random.Random(1))
    assert 'lend a book to somebody, using book id 41 and borrower "anna".' in text
    assert "_" not in text


def test_where_a_tool_describes_nothing_its_name_speaks():
    """MCP servers may list tools without a description: a request that asks for nothing could not be served."""
    plain = {name: replace(tool, description="") for name, tool in TOY.tools.items()}
    lend = executed("lend_book", book_id=Argument(41), borrower=Argument("anna"))
    text = word_turn(TOY._replace(tools=plain), [lend], random.Random(1))
    assert 'lend book, using book id 41 and borrower "anna".' in text


def test_one_query_per_turn():
    assert len(rewrite(TOY, run(CHAIN), random.Random(0))) == 2


# ------------------------------------------------------------------------------------ augment
def test_missing_function_withholds_a_tool_that_no_earlier_turn_used():
    execution = run(CHAIN)
    turns = augment(TOY, execution, ("one", "two"), "function", 1, random.Random(0))
    assert [turn.user for turn in turns[:2]] == ["one", "two"]
    assert turns[1].gold == () and turns[2].released_tools == ("deposit_cash",)
    assert turns[2].gold == (Call("deposit_cash", {"amount": FINE}),)
    again = Execution(World(("Library",), STATE), (execution.turns[0], execution.turns[0]))
    with pytest.raises(Rejected, match="no tool of turn 1"):
        augment(TOY, again, ("one", "two"), "function", 1, random.Random(0))


def test_missing_parameter_moves_one_value_to_the_next_message():
    execution = run(CHAIN)
    title = execution.turns[0][0].arguments["title"].value
    queries = rewrite(TOY, execution, random.Random(0))
    turns = augment(TOY, execution, queries, "parameter", 0, random.Random(0))
    assert not mentions(turns[0].user, title) and "a certain title" in turns[0].user and turns[0].gold == ()
    assert mentions(turns[1].user, title) and turns[1].gold == tuple(call.call for call in execution.turns[0])
    assert len(turns) == 3


def test_a_value_that_the_history_tells_is_not_missing():
    execution = run(CHAIN)
    with pytest.raises(Rejected, match="no argument of turn 1"):  # its only argument is a reference
        augment(TOY, execution, ("one", "two"), "parameter", 1, random.Random(0))
    title = execution.turns[0][0].arguments["title"].value
    said = Execution(World(("Library",), STATE), ((executed("lend_book"),), execution.turns[0]))
    with pytest.raises(Rejected, match="no argument of turn 1"):
        augment(TOY, said, (f"Talk about {title}.", "two"), "parameter", 1, random.Random(0))


def test_a_rewrite_with_too_few_queries_is_rejected():
    with pytest.raises(Rejected) as rejected:
        augment(TOY, run(CHAIN), ("one",), "", None, random.Random(0))
    assert rejected.value.error == "conversation_construct_failed"
