"""The bundled domain: every function by hand, the values it is filled with, and how it is asked for."""

import json
import pickle
import random
import re
import string

import pytest

from rods_jax.environments.workplace import WORKPLACE, tool_weights, vocabulary
from rods_jax.types import Call

CLASSES = ("Files", "Messages", "Tickets", "Orders", "Calendar", "Accounts")

STATES = {
    "Files": {
        "files": [
            {"file_name": "budget", "lines": ["audit"], "shared_with": []},
            {"file_name": "report", "lines": [], "shared_with": ["bob"]},
        ]
    },
    "Messages": {
        "messages": [
            {"message_id": 10, "person": "bob", "topic": "audit", "priority": "low", "state": "new"},
            {"message_id": 11, "person": "bob", "topic": "launch", "priority": "low", "state": "read"},
        ],
        "next_message_id": 50,
    },
    "Tickets": {
        "tickets": [
            {
                "ticket_id": 20, "title": "printer", "priority": "low", "status": "open", "owner": "",
                "comments": [],
            }
        ],
        "next_ticket_id": 60,
    },
    "Orders": {
        "stock": [{"item": "pens", "price": 2, "stock": 5}, {"item": "bags", "price": 3, "stock": 1}],
        "orders": [{"order_id": 30, "item": "bags", "quantity": 2, "amount": 6, "status": "paid"}],
        "next_order_id": 70,
    },
    "Calendar": {
        "events": [{"event_id": 40, "title": "launch", "day": "monday", "room": "north", "guests": []}],
        "next_event_id": 80,
    },
    "Accounts": {
        "accounts": [
            {"account_id": 15, "person": "alice", "balance": 40, "status": "active"},
            {"account_id": 16, "person": "bob", "balance": 0, "status": "frozen"},
        ],
        "next_account_id": 85,
    },
}  # fmt: skip

# class -> calls in order; a dict is the result of a call that succeeds, a string the error of one that fails
SCRIPTS = {
    "Files": [
        ("list_files", {}, {"file_names": ["budget", "report"]}),
        ("list_files", {"kind": "shared"}, {"file_names": ["report"]}),
        ("create_file", {"new_name": "report"}, "file report exists"),
        ("create_file", {"new_name": "survey"}, {"file_name": "survey"}),
        ("write_file", {"topic": "hiring"}, "no file is open"),
        ("close_file", {}, "no file is open"),
        ("open_file", {"file_name": "manual"}, "no file name manual"),
        ("open_file", {"file_name": "budget"}, {"lines": 1}),
        ("open_file", {"file_name": "report"}, "file budget is open"),
        ("write_file", {"topic": "hiring"}, {"lines": 2}),
        ("rename_file", {"file_name": "budget", "new_name": "survey"}, "file survey exists"),
        ("rename_file", {"file_name": "budget", "new_name": "payroll"}, {"file_name": "payroll"}),
        ("delete_file", {"file_name": "payroll"}, "file payroll is open"),
        ("close_file", {}, {"file_name": "payroll"}),
        ("share_file", {"file_name": "payroll", "person": "kate"}, {"shares": 1}),
        ("share_file", {"file_name": "payroll", "person": "kate"}, "kate has file payroll"),
        ("delete_file", {"file_name": "payroll"}, "file payroll is shared"),
        ("delete_file", {"file_name": "survey"}, {"files": 2}),
    ],
    "Messages": [
        ("sign_out", {}, "nobody is signed in"),
        ("send_message", {"person": "leo", "topic": "audit"}, "nobody is signed in"),
        ("reply_message", {"message_id": 10, "topic": "audit"}, "nobody is signed in"),
        ("forward_message", {"message_id": 10, "person": "leo"}, "nobody is signed in"),
        ("sign_in", {"person": "alice"}, {"person": "alice"}),
        ("sign_in", {"person": "leo"}, "alice is signed in"),
        ("send_message", {"person": "leo", "topic": "audit", "priority": "high"}, {"message_id": 50}),
        ("find_message", {"person": "leo"}, {"message_id": 50}),
        ("find_message", {"person": "bob"}, {"message_id": 11}),
        ("find_message", {"person": "kate"}, "no person kate"),
        ("delete_message", {"message_id": 10}, "message 10 is new"),
        ("read_message", {"message_id": 10}, {"person": "bob", "topic": "audit"}),
        ("read_message", {"message_id": 12}, "no message id 12"),
        ("reply_message", {"message_id": 10, "topic": "review"}, {"person": "bob"}),
        ("forward_message", {"message_id": 10, "person": "kate"}, {"topic": "audit"}),
        ("read_message", {"message_id": 52}, {"person": "kate", "topic": "audit"}),
        ("delete_message", {"message_id": 10}, {"messages": 4}),
        ("sign_out", {}, {"person": "alice"}),
    ],
    "Tickets": [
        ("create_ticket", {"title": "network", "priority": "high"}, {"ticket_id": 60}),
        ("create_ticket", {"title": "printer"}, {"ticket_id": 61}),
        ("find_ticket", {"title": "printer"}, {"ticket_id": 61}),
        ("find_ticket", {"title": "safety"}, "no title safety"),
        ("find_owner", {"ticket_id": 20}, "ticket 20 has no owner"),
        ("close_ticket", {"ticket_id": 20}, "ticket 20 has no owner"),
        ("assign_ticket", {"ticket_id": 20, "person": "emma"}, {"person": "emma"}),
        ("assign_ticket", {"ticket_id": 20, "person": "emma"}, "emma has ticket 20"),
        ("find_owner", {"ticket_id": 20}, {"person": "emma"}),
        ("comment_ticket", {"ticket_id": 20, "topic": "audit"}, {"comments": 1}),
        ("reopen_ticket", {"ticket_id": 20}, "ticket 20 is open"),
        ("close_ticket", {"ticket_id": 20}, {"status": "closed"}),
        ("close_ticket", {"ticket_id": 20}, "ticket 20 is closed"),
        ("comment_ticket", {"ticket_id": 20, "topic": "audit"}, "ticket 20 is closed"),
        ("list_tickets", {}, {"ticket_ids": [60, 61]}),
        ("list_tickets", {"kind": "closed"}, {"ticket_ids": [20]}),
        ("reopen_ticket", {"ticket_id": 20}, {"status": "open"}),
    ],
    "Orders": [
        ("cheapest_item", {}, {"item": "pens"}),
        ("place_order", {"item": "pens", "quantity": 6}, "stock of pens is 5"),
        ("place_order", {"item": "pens", "quantity": 0}, "quantity must be positive"),
        ("place_order", {"item": "pens", "quantity": 5}, {"order_id": 70, "amount": 10}),
        ("cheapest_item", {}, {"item": "bags"}),
        ("place_order", {"item": "bags", "quantity": 1}, {"order_id": 71, "amount": 3}),
        ("cheapest_item", {}, "stock is empty"),
        ("restock_item", {"item": "lamps", "quantity": 1}, "no item lamps"),
        ("restock_item", {"item": "pens", "quantity": -1}, "quantity must be positive"),
        ("ship_order", {"order_id": 71}, "order 71 is placed"),
        ("pay_order", {"order_id": 71}, {"status": "paid"}),
        ("pay_order", {"order_id": 71}, "order 71 is paid"),
        ("cancel_order", {"order_id": 71}, "order 71 is paid"),
        ("cancel_order", {"order_id": 70}, {"status": "canceled"}),
        ("restock_item", {"item": "pens", "quantity": 2}, {"stock": 7}),
        ("return_order", {"order_id": 30}, "order 30 is paid"),
        ("ship_order", {"order_id": 30}, {"status": "shipped"}),
        ("track_order", {"order_id": 30}, {"status": "shipped"}),
        ("track_order", {"order_id": 31}, "no order id 31"),
        ("return_order", {"order_id": 30}, {"amount": 6}),
        ("restock_item", {"item": "bags", "quantity": 1}, {"stock": 3}),
    ],
    "Calendar": [
        ("create_event", {"title": "review", "day": "monday"}, {"event_id": 80}),
        ("book_room", {"event_id": 80, "room": "up"}, "room must be one of north, south, east, west"),
        ("find_event", {"title": "review"}, {"event_id": 80}),
        ("find_event", {"title": "hiring"}, "no title hiring"),
        ("find_day", {"room": "north"}, {"day": "tuesday"}),
        ("book_room", {"event_id": 80, "room": "north"}, "room north is taken on monday"),
        ("move_event", {"event_id": 80, "day": "tuesday"}, {"day": "tuesday"}),
        ("move_event", {"event_id": 80, "day": "tuesday"}, "event 80 is on tuesday"),
        ("book_room", {"event_id": 80, "room": "north"}, {"room": "north"}),
        ("move_event", {"event_id": 80, "day": "monday"}, "room north is taken on monday"),
        ("invite_guest", {"event_id": 80, "person": "jack"}, {"guests": 1}),
        ("invite_guest", {"event_id": 80, "person": "jack"}, "jack is invited"),
        ("list_events", {"day": "tuesday"}, {"event_ids": [80]}),
        *(
            call
            for i, day in enumerate(vocabulary.DAYS[2:])
            for call in (
                ("create_event", {"title": "audit", "day": day}, {"event_id": 81 + i}),
                ("book_room", {"event_id": 81 + i, "room": "north"}, {"room": "north"}),
            )
        ),
        ("find_day", {"room": "north"}, "room north is never free"),
        ("cancel_event", {"event_id": 80}, {"events": 4}),
        ("cancel_event", {"event_id": 80}, "no event id 80"),
    ],
    "Accounts": [
        ("open_account", {"person": "bob"}, "bob has an account"),
        ("open_account", {"person": "irene"}, {"account_id": 85}),
        ("find_account", {"person": "irene"}, {"account_id": 85}),
        ("find_account", {"person": "leo"}, "no person leo"),
        ("check_balance", {"account_id": 15}, {"amount": 40}),
        ("check_balance", {"account_id": 99}, "no account id 99"),
        ("deposit_money", {"account_id": 16, "amount": 5}, {"balance": 5}),
        ("deposit_money", {"account_id": 16, "amount": 0}, "amount must be positive"),
        ("withdraw_money", {"account_id": 16, "amount": 5}, "account 16 is frozen"),
        ("withdraw_money", {"account_id": 15, "amount": 41}, "balance is 40"),
        ("withdraw_money", {"account_id": 15, "amount": 10}, {"balance": 30}),
        ("transfer_money", {"account_id": 15, "person": "irene", "amount": 30}, {"balance": 0}),
        ("transfer_money", {"account_id": 15, "person": "leo", "amount": 1}, "balance is 0"),
        ("transfer_money", {"account_id": 85, "person": "irene", "amount": 1}, "irene owns account 85"),
        ("transfer_money", {"account_id": 85, "person": "leo", "amount": 1}, "no person leo"),
        ("check_balance", {"account_id": 85}, {"amount": 30}),
        ("release_account", {"account_id": 85}, "account 85 is active"),
        ("freeze_account", {"account_id": 85}, {"status": "frozen"}),
        ("freeze_account", {"account_id": 85}, "account 85 is frozen"),
        ("release_account", {"account_id": 85}, {"status": "active"}),
    ],
}
# whenever the arguments fit the schema
ALWAYS_SUCCEED = {"create_event", "create_ticket", "list_tickets", "list_files", "list_events"}


def start(class_name, long_context=False):
    return WORKPLACE.simulator([class_name], STATES, long_context)


def fields(wording):
    return {field for _, field, _, _ in string.Formatter().parse(wording) if field is not None}


# --------------------------------------------------------------------------------- functions
@pytest.mark.parametrize("class_name", CLASSES)
def test_every_call_by_hand(class_name):
    simulator = start(class_name)
    for name, arguments, expected in SCRIPTS[class_name]:
        before = json.dumps(simulator.state())
        observation = simulator.call(Call(name, arguments))
        if isinstance(expected, str):
            assert (observation.text, observation.ok) == (f"Error: {expected}", False)
            assert json.dumps(simulator.state()) == before, f"{name} failed and left a trace"
        else:
            assert observation.ok, observation.text
            assert json.loads(observation.text) == expected


def test_the_scripts_show_each_of_the_48_functions_succeeding_and_failing():
    assert len(WORKPLACE.tools) == 48
    outcomes = [(name, isinstance(result, dict)) for s in SCRIPTS.values() for name, _, result in s]
    assert {name for name, ok in outcomes if ok} == set(WORKPLACE.tools)
    assert {name for name, ok in outcomes if not ok} == set(WORKPLACE.tools) - ALWAYS_SUCCEED


@pytest.mark.parametrize("class_name", CLASSES)
def test_responses_are_small_and_as_declared(class_name):
    for name, arguments, expected in SCRIPTS[class_name]:
        if isinstance(expected, dict):
            declared = WORKPLACE.tools[name].response
            assert list(expected) == declared["required"] and len(expected) <= 3
            assert list(declared["properties"]) == ["history", *expected]
            # "that message" would be ambiguous if a result gave another value to an argument's name;
            # a renamed file is still that file
            if name != "rename_file":
                assert all(expected[key] == arguments[key] for key in expected.keys() & arguments.keys())


def test_ids_flow_from_one_result_into_a_later_call():
    made = {key for tool in WORKPLACE.tools.values() for key in tool.response["required"]}
    used = {key for tool in WORKPLACE.tools.values() for key in tool.parameters["properties"]}
    assert {key for key in used if key.endswith("_id")} <= made
    assert {"file_name", "person", "topic", "item", "day", "amount", "room"} <= made & used
    simulator = start("Tickets")
    ticket = json.loads(simulator.call(Call("create_ticket", {"title": "safety"})).text)
    assert simulator.call(Call("assign_ticket", {**ticket, "person": "leo"})).ok
    assert simulator.call(Call("close_ticket", ticket)).text == '{"status": "closed"}'


@pytest.mark.parametrize("class_name", CLASSES)
def test_two_simulators_agree_and_share_nothing(class_name):
    initial = json.dumps(STATES)
    first, second = start(class_name), start(class_name)
    calls = [Call(name, arguments) for name, arguments, _ in SCRIPTS[class_name]]
    half = len(calls) // 2
    texts = [first.call(call).text for call in calls]
    assert second.state() == start(class_name).state() != first.state()
    early = [second.call(call).text for call in calls[:half]]
    moved = pickle.loads(pickle.dumps(second))
    assert early + [moved.call(call).text for call in calls[half:]] == texts
    assert moved.state() == first.state() and json.dumps(STATES) == initial


@pytest.mark.parametrize("class_name", CLASSES)
def test_a_state_is_a_constructor_argument_again(class_name):
    simulator = start(class_name)
    for name, arguments, _ in SCRIPTS[class_name]:
        simulator.call(Call(name, arguments))
    again = WORKPLACE.simulator([class_name], json.loads(json.dumps(simulator.state())), True)
    assert again.state() == simulator.state()


@pytest.mark.parametrize("class_name", CLASSES)
def test_long_context_makes_outputs_several_times_longer_and_changes_nothing_else(class_name):
    plain, bulky = start(class_name), start(class_name, long_context=True)
    for name, arguments, expected in SCRIPTS[class_name]:
        short, long = (simulator.call(Call(name, arguments)) for simulator in (plain, bulky))
        assert long.ok == short.ok and plain.state() == bulky.state()
        if not short.ok:
            assert long.text == short.text
            continue
        result = json.loads(long.text)
        extra = len(result.pop("history").split())
        assert result == expected
        assert 3 * len(re.findall(r"\w+", short.text)) <= extra <= 40


def test_default_states_are_empty_and_usable():
    simulator = WORKPLACE.simulator(CLASSES, {}, False)
    assert simulator.call(Call("create_ticket", {"title": "audit"})).text == '{"ticket_id": 1}'
    assert simulator.state()["Orders"] == {"stock": [], "orders": [], "next_order_id": 1}


# ------------------------------------------------------------------------------ random values
def test_sampled_states_are_reproducible_varied_json_and_mostly_workable():
    states = [WORKPLACE.sample_state(random.Random(seed), CLASSES) for seed in range(30)]
    assert states == [WORKPLACE.sample_state(random.Random(seed), CLASSES) for seed in range(30)]
    assert len({json.dumps(state) for state in states}) == 30
    for state in states:
        assert json.loads(json.dumps(state)) == state and tuple(state) == CLASSES
        assert WORKPLACE.simulator(CLASSES, state, False).state() == state
        for class_name, key in (("Messages", "message"), ("Tickets", "ticket"), ("Orders", "order")):
            ids = [record[f"{key}_id"] for record in state[class_name][f"{key}s"]]
            assert len(set(ids)) == len(ids) >= 3
            assert max(ids) < 50 <= state[class_name][f"next_{key}_id"]
        booked = [(e["room"], e["day"]) for e in state["Calendar"]["events"] if e["room"]]
        assert len(set(booked)) == len(booked)


def test_in_sampled_states_every_function_succeeds_sometimes_with_sampled_arguments():
    rng, succeeded = random.Random(0), set()
    for _ in range(40):
        state = WORKPLACE.sample_state(rng, CLASSES)
        known = {}
        for records in (v for s in state.values() for v in s.values() if isinstance(v, list)):
            for record in records:
                for key, value in record.items():
                    known.setdefault(key, []).append(value)
        for tool in WORKPLACE.tools.values():
            arguments = {}
            for parameter in tool.parameters["required"]:
                value = WORKPLACE.sample_argument(rng, tool, parameter)
                arguments[parameter] = rng.choice(known[parameter]) if value is None else value
            if WORKPLACE.simulator(CLASSES, state, False).call(Call(tool.name, arguments)).ok:
                succeeded.add(tool.name)
    assert succeeded == set(WORKPLACE.tools)


def test_free_arguments_fit_their_schema_and_references_are_left_to_the_caller():
    rng = random.Random(1)
    draws = {
        (name, parameter): WORKPLACE.sample_argument(rng, tool, parameter)
        for name, tool in WORKPLACE.tools.items()
        for parameter in tool.parameters["properties"]
    }
    lookups = {
        ("find_account", "person"), ("find_event", "title"), ("find_message", "person"),
        ("find_ticket", "title"), ("transfer_money", "person"),
    }  # fmt: skip
    references = {key for key in draws if key[1].endswith("_id") or key[1] == "file_name"}
    assert {key for key, value in draws.items() if value is None} == references | lookups
    assert draws["create_ticket", "priority"] in ("low", "normal", "high")
    assert 1 <= draws["place_order", "quantity"] <= 9 and 1 <= draws["deposit_money", "amount"] <= 99


# ----------------------------------------------------------------------------------- wordings
def test_every_function_has_three_plain_wordings_and_each_optional_argument_two():
    assert list(WORKPLACE.phrases) == list(WORKPLACE.tools)
    for name, wordings in WORKPLACE.phrases.items():
        parameters = WORKPLACE.tools[name].parameters
        required = set(parameters["required"])
        assert len(set(wordings)) == len(wordings)
        assert sum(fields(wording) == required for wording in wordings) >= 3
        for optional in set(parameters["properties"]) - required:
            assert sum(fields(wording) == required | {optional} for wording in wordings) >= 2
        for wording in wordings:
            text = wording.format(**{field: "one two" for field in fields(wording)})
            assert 6 <= len(text.split()) <= 17, text
            assert "_" not in text and wording == wording.lower()


def test_no_wording_asks_for_two_functions():
    wordings = [wording for several in WORKPLACE.phrases.values() for wording in several]
    assert len(set(wordings)) == len(wordings)


def test_nouns_are_those_of_what_must_be_named():
    parameters = {p for tool in WORKPLACE.tools.values() for p in tool.parameters["properties"]}
    assert set(WORKPLACE.nouns) == {p for p in parameters if p.endswith("_id")} | {"file_name", "room"}


def words_of(text):
    return set(re.findall(r"[a-z]+", text.lower()))


def test_the_vocabulary_is_small_and_closed():
    free = (vocabulary.PEOPLE, vocabulary.WORDS, vocabulary.ITEMS, vocabulary.DAYS, vocabulary.ROOMS)
    texts = [*WORKPLACE.tools, *WORKPLACE.nouns.values(), *(word for words in free for word in words)]
    for tool in WORKPLACE.tools.values():
        for parameter, schema in tool.parameters["properties"].items():
            texts += [parameter, *map(str, schema.get("enum", ()))]
        texts += [*tool.response["properties"], *WORKPLACE.phrases[tool.name]]
    for class_name in CLASSES:
        simulator = start(class_name, long_context=True)
        texts += [simulator.call(Call(name, arguments)).text for name, arguments, _ in SCRIPTS[class_name]]
    words = words_of(" ".join(texts).replace("_", " "))
    assert len(words) <= 450
    # Nothing that a sampled state holds is outside, but for what no tool ever shows.
    for seed in range(50):
        for value in strings(WORKPLACE.sample_state(random.Random(seed), CLASSES)):
            assert words_of(value) <= words | {"sent"}


def strings(value):
    """Every string value in nested JSON."""
    if isinstance(value, (dict, list)):
        items = value.values() if isinstance(value, dict) else value
        return [text for item in items for text in strings(item)]
    return [value] if isinstance(value, str) else []


# -------------------------------------------------------------------------------------- dials
def test_dials_weigh_thin_tools_and_refuse_what_cannot_be():
    weights = tool_weights(["pay_order", "find_day"], 0.2)
    assert list(weights) == list(WORKPLACE.tools)
    assert {name for name, weight in weights.items() if weight == 0.2} == {"pay_order", "find_day"}
    assert sum(weights.values()) == pytest.approx(46.4)
    with pytest.raises(ValueError, match="thin_tools: unknown tool 'fly'"):
        tool_weights(["fly"], 0.2)
    with pytest.raises(ValueError, match="thin_weight"):
        tool_weights(["pay_order"], 1.5)


def test_the_domain_is_picklable():
    again = pickle.loads(pickle.dumps(WORKPLACE))
    assert again.tools == WORKPLACE.tools
    assert again.simulator(["Files"], STATES, False).state() == start("Files").state()
