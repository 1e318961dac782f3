"""The bundled domain: every function by hand, the values it is filled with, and how it is asked for."""

import json
import pickle
import random
import re
import string

import pytest
from workplace_scripts import ALWAYS_SUCCEED, CLASSES, SCRIPTS, STATES

from rods_jax.environments.workplace import WORKPLACE, tool_weights, vocabulary
from rods_jax.types import Call, World


def start(class_name, long_context=False):
    return WORKPLACE.simulator(World((class_name,), STATES, {"long_context": long_context}))


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
    again = WORKPLACE.simulator(World((class_name,), json.loads(json.dumps(simulator.state())), {"long_context": True}))
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
    simulator = WORKPLACE.simulator(World(CLASSES))
    assert simulator.call(Call("create_ticket", {"title": "audit"})).text == '{"ticket_id": 1}'
    assert simulator.state()["Orders"] == {"stock": [], "orders": [], "next_order_id": 1}


# ------------------------------------------------------------------------------ random values
def test_sampled_states_are_reproducible_varied_json_and_mostly_workable():
    states = [WORKPLACE.sample_state(random.Random(seed), CLASSES) for seed in range(30)]
    assert states == [WORKPLACE.sample_state(random.Random(seed), CLASSES) for seed in range(30)]
    assert len({json.dumps(state) for state in states}) == 30
    for state in states:
        assert json.loads(json.dumps(state)) == state and tuple(state) == CLASSES
        assert WORKPLACE.simulator(World(CLASSES, state)).state() == state
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
            if WORKPLACE.simulator(World(CLASSES, state)).call(Call(tool.name, arguments)).ok:
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
            text = wording.format(**dict.fromkeys(fields(wording), "one two"))
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
    assert again.simulator(World(("Files",), STATES)).state() == start("Files").state()
