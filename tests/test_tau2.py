"""The core of tau2-bench: databases that copy what they change, exact texts, the live rule of a call, set-up and replay."""

import copy
import hashlib
import json

import pytest
from tau2_toy import dialogue, entry, write

from rods_jax.environments.tau2 import data, gym_text
from rods_jax.environments.tau2.calculator import calculate
from rods_jax.environments.tau2.database import Base, Database, canonical
from rods_jax.environments.tau2.domains import DOMAINS
from rods_jax.environments.tau2.environment import Environment, ReplayError
from rods_jax.environments.tau2.messages import AGENT, TOOL, USER, Assertion, InitCall, Message, Start, ToolCall
from rods_jax.environments.tau2.mock import MockTools
from rods_jax.environments.tau2.shapes import (
    ShapeError,
    boolean,
    choice,
    integer,
    items,
    maybe,
    number,
    record,
    table,
    tagged,
    text,
)
from rods_jax.environments.tau2.values import Record, result_text
from rods_jax.types import Action, Call

CARD = record("Card", {"id": text, "amount": number, "note": (maybe(text), None)})
SHAPE = record("ShopDB", {"cards": table(CARD), "bills": items(CARD), "till": CARD}, closed=True)
CONTENT = {
    "till": {"id": "t", "amount": 0},
    "bills": [{"amount": 3, "id": "b0"}],
    "cards": {"z": {"id": "z", "amount": "5", "colour": "red"}, "a": {"id": "é", "amount": 1.5}},
}
CREATE = AGENT, "create_task", {"user_id": "ada", "title": "Call Bob"}


@pytest.fixture
def base():
    return Base("ShopDB", SHAPE, CONTENT)


@pytest.fixture
def mock(tmp_path):
    return DOMAINS["mock"](data.find([write(tmp_path)]))


# ------------------------------------------------------------------------------------ databases
def test_records_take_defaults_types_and_order_of_their_shape(base):
    assert list(base.tables["cards"]["z"].items()) == [("id", "z"), ("amount", 5.0), ("note", None)]
    assert result_text(base.tables["cards"]["z"]) == '{"id": "z", "amount": 5.0, "note": null}'


def test_the_canonical_text_sorts_keys_and_escapes(base):
    text = (
        '{"bills": [{"amount": 3.0, "id": "b0", "note": null}], '
        '"cards": {"a": {"amount": 1.5, "id": "\\u00e9", "note": null}, "z": {"amount": 5.0, "id": "z", "note": null}}, '
        '"till": {"amount": 0.0, "id": "t", "note": null}}'
    )
    db = Database(base)
    assert db.text() == text == canonical(db.dump())
    assert db.official_hash() == hashlib.sha256(text.encode()).hexdigest()


def test_a_write_copies_one_record_and_leaves_the_base_and_others_alone(base):
    before, one, other = Database(base).text(), Database(base), Database(base)
    one.write("cards", "z")["amount"] = 6.0
    one.write("till")["note"] = "open"
    one.put("cards", "n", CARD({"id": "n", "amount": 1}))
    assert one.append("bills", CARD({"id": "b1", "amount": 4})) == 1
    assert other.text() == Database(base).text() == before
    assert set(one.changes()) == {("cards", "z"), ("till", None), ("cards", "n"), ("bills", 1)}
    assert [*one.keys("cards")] == ["z", "a", "n"] and [*one.keys("bills")] == [0, 1] and one.count("bills") == 2
    assert one.text() == canonical(one.dump()) and json.loads(one.text())["bills"][1]["amount"] == 4.0
    assert one.read("cards", "a") is base.tables["cards"]["a"]


def test_databases_are_the_same_iff_their_texts_are(base):
    one, other = Database(base), Database(base)
    one.write("cards", "z")["amount"] = 6.0
    assert not one.same(other) and one.changes() != other.changes()
    one.write("cards", "z")["amount"] = 5.0
    assert one.same(other) and one.official_hash() == other.official_hash()
    one.write("cards", "z")["amount"] = 5  # another type is another text
    assert not one.same(other)
    assert Database(Base("ShopDB", SHAPE, CONTENT)).same(other)


def test_a_fork_goes_its_own_way(base):
    one = Database(base)
    one.write("cards", "z")["amount"] = 6.0
    other = copy.deepcopy(one)
    assert other.same(one)
    other.write("cards", "z")["amount"] = 7.0
    assert one.read("cards", "z")["amount"] == 6.0 and other.base is one.base


def test_a_patch_merges_objects_and_replaces_all_else(base):
    db = Database(base).patched({"cards": {"z": {"note": "x"}, "q": {"id": "q", "amount": 1}}, "bills": []})
    assert db.read("cards", "z") == {"id": "z", "amount": 5.0, "note": "x"}
    assert db.count("bills") == 0 and db.has("cards", "q") and not Database(base).has("cards", "q")
    with pytest.raises(ShapeError, match="^1 validation error for ShopDB\ncards\n"):
        Database(base).patched({"cards": {"z": 3}})
    with pytest.raises(ShapeError, match="Extra inputs"):
        Database(base).patched({"shelves": {}})


@pytest.mark.parametrize("key", ["nobody", None, 3, ("a",), ["a"], {}])
def test_what_is_not_there_is_not_there(base, key):
    assert not Database(base).has("cards", key) and not Database(base).has("till", "x")
    assert not Database(base).has("bills", 7) and not Database(base).has("bills", -1)


def test_a_missing_table_is_told_as_officially(base):
    with pytest.raises(AttributeError, match="^'ShopDB' object has no attribute 'inbox'$"):
        Database(base).read("inbox", "x")


@pytest.mark.parametrize(
    "shape, value",
    [
        (text, 1),
        (integer, 1.5),
        (integer, "x"),
        (number, None),
        (boolean, 2),
        (boolean, "maybe"),
        (boolean, None),
        (boolean, []),
        (choice("a"), "b"),
        (items(text), "ab"),
        (table(text), []),
        (tagged("kind", {"a": text}), {"kind": "b"}),
        (CARD, []),
        (CARD, {"id": "x"}),
    ],
)
def test_what_does_not_fit_is_refused(shape, value):
    with pytest.raises(ShapeError):
        shape(value)


def test_booleans_are_also_words_and_0_and_1():
    """As a model of the user writes them, and the official models take them."""
    assert [boolean(value) for value in (True, 1, 1.0, "True", "on", "YES", "1", "t")] == [True] * 8
    assert [boolean(value) for value in (False, 0, 0.0, "false", "OFF", "n", "0", "No")] == [False] * 8


# ---------------------------------------------------------------------------------------- texts
@pytest.mark.parametrize(
    "value, told",
    [
        ("as it is", "as it is"),
        (None, "null"),
        (True, '"True"'),
        (2.0, '"2.0"'),
        (
            {"gb": 2.0, "ok": False, "plan": Record(gb=2.0, ok=False)},
            '{"gb": "2.0", "ok": "False", "plan": {"gb": 2.0, "ok": false}}',
        ),
        ([Record(n=1), [2, None], "é"], '[{"n": 1}, ["2", null], "\\u00e9"]'),
    ],
)
def test_numbers_outside_of_records_are_quoted(value, told):
    assert result_text(value) == told


@pytest.mark.parametrize(
    "expression, value",
    [
        ("10/4", "2.5"),
        ("2 + 2", "4.0"),
        ("   5", "5.0"),
        ("--2", "2.0"),
        ("2**3", "8.0"),
        ("7//2", "3.0"),
        ("100*1.15-3", "112.0"),
    ],
)
def test_arithmetic(expression, value):
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression, complaint",
    [
        ("abs(1)", "Invalid characters in expression"),
        ("", r"invalid syntax \(<string>, line 0\)"),
        ("1/0", "division by zero"),
        ("9**9**9", "Power of more than"),
        ("1" * 2000, "longer than"),
        ("()", "no arithmetic"),
        ("1(2)", "no arithmetic"),
    ],
)
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_what_is_no_arithmetic(expression, complaint):
    with pytest.raises((ValueError, ArithmeticError, SyntaxError), match=complaint):
        calculate(expression)


# ---------------------------------------------------------------------------------------- calls
@pytest.mark.parametrize(
    "side, name, arguments, told",
    [
        (AGENT, "nope", {}, "Error: Tool 'nope' not found."),
        (AGENT, "assert_task_status", {"task_id": "task_1"}, "Error: Tool 'assert_task_status' not found."),
        (AGENT, "check_notifications", {}, "Error: Tool 'check_notifications' not found."),
        (USER, "create_task", {}, "Error: Tool 'create_task' not found."),
        (AGENT, "create_task", {"user_id": "bob", "title": "x"}, "Error: User bob not found"),
        (AGENT, "create_task", {"user_id": ["ada"], "title": "x"}, "Error: User ['ada'] not found"),
        (
            AGENT,
            "create_task",
            {"user_id": "ada"},
            "Error: MockTools.create_task() missing 1 required positional argument: 'title'",
        ),
        (
            USER,
            "check_notifications",
            {"x": 1},
            "Error: MockUserTools.check_notifications() got an unexpected keyword argument 'x'",
        ),
        (USER, "dismiss_notification", {"notification_id": "n2"}, "Error: Notification n2 not found"),
    ],
)
def test_a_call_that_fails_is_told_and_changes_nothing(mock, side, name, arguments, told):
    environment = mock.environment()
    seen = environment.call(side, name, arguments)
    assert (seen.text, seen.ok) == (told, False)
    assert environment.same(mock.environment()) == (True, True)


def test_a_result_that_cannot_be_printed_is_an_error(mock):
    deep = []
    for _ in range(5000):
        deep = [deep]
    for status in (deep, 10**5000):
        environment = mock.environment()
        assert not environment.call(AGENT, "update_task_status", {"task_id": "task_1", "status": status}).ok


def test_calls_change_the_database_of_their_side(mock):
    environment = mock.environment()
    made = environment.call(*CREATE)
    assert (
        made.ok and made.text == '{"task_id": "task_2", "title": "Call Bob", "description": null, "status": "pending"}'
    )
    assert environment.same(mock.environment()) == (False, True)
    assert environment.call(USER, "dismiss_notification", {"notification_id": "n1"}).text == "Notification n1 dismissed"
    assert environment.same(mock.environment()) == (False, False)


def test_a_user_without_tools_has_none(mock):
    environment = Environment(mock.environment().agent)
    assert environment.call(USER, "get_users", {}).text == "Error: User tools not available"
    assert environment.hashes()[1] is None and environment.same(Environment(mock.environment().agent)) == (True, True)


def test_alone_the_agent_has_both_sides_tools_and_nobody_speaks(mock):
    environment = mock.environment(solo=True)
    assert environment.call(AGENT, "check_notifications", {}).ok and environment.call(*CREATE).ok
    assert not environment.call(USER, "check_notifications", {}).ok
    with pytest.raises(ReplayError, match="solo"):
        environment.set_up(Start(), [Message(USER, "Hello")])


def test_arguments_belong_to_the_caller(mock):
    class Keeper(MockTools):
        def keep(self, things):
            things.append(1)
            return False

    things = []
    assert (
        Environment(Keeper(mock.environment().agent.db)).run(AGENT, "keep", {"things": things}) is False and not things
    )


def test_the_hook_follows_what_succeeded_alone(mock):
    seen = []
    environment = Environment(mock.environment().agent, sync=lambda environment: seen.append(1))
    environment.call(*CREATE)
    environment.call(AGENT, "nope", {})
    assert len(seen) == 1


# --------------------------------------------------------------------------------- set-up, replay
def test_set_up_puts_data_first_then_calls_then_the_dialogue(mock):
    data_first = {"tasks": {"task_2": {"task_id": "task_2", "title": "x", "status": "pending"}}}
    history = dialogue(mock.environment(), CREATE)
    start = Start(data_first, None, (InitCall(USER, "add_notification", {"notification_id": "n2", "message": "m"}),))
    environment = mock.environment()
    with pytest.raises(AttributeError, match="'MockDB' object has no attribute 'notifications'"):
        environment.set_up(start)  # officially both sides then have the agent's database
    environment = mock.environment()
    with pytest.raises(ReplayError, match="create_task gave .*task_3"):
        environment.set_up(start, history, apart=True)
    environment = mock.environment()
    environment.set_up(start, history, apart=True, strict=False)
    assert environment.check(
        Assertion(AGENT, "assert_task_status", {"task_id": "task_3", "expected_status": "pending"})
    )
    assert environment.user.db.has("notifications", "n2")


def test_replays_make_calls_that_change_something_and_compare_their_results(mock):
    look, unknown = (AGENT, "get_users", {}), (AGENT, "fly", {})
    messages = dialogue(
        mock.environment(), look, unknown, CREATE, (USER, "dismiss_notification", {"notification_id": "n1"})
    )
    wrong = [m._replace(text="ALTERED") if m.id in ("c0", "c1") else m for m in messages]  # of what is not made again
    for recorded in (messages, wrong):
        environment = mock.environment()
        environment.set_up(Start(), recorded)
        assert environment.same(mock.environment()) == (False, False)
    spaced = [m._replace(text=m.text.replace(": ", ":")) if m.id == "c2" else m for m in messages]
    mock.environment().set_up(Start(), spaced)  # the same JSON
    with pytest.raises(ReplayError, match="the call create_task gave"):
        mock.environment().set_up(Start(), [m._replace(text="ALTERED") if m.id == "c2" else m for m in messages])


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m[1:],
        lambda m: m[:-2],
        lambda m: [m[0], m[2], m[1], m[3]],
        lambda m: [m[0], m[1]._replace(id="x"), *m[2:]],
    ],
)
def test_results_stand_right_behind_their_calls(mock, change):
    calls = tuple(ToolCall(name, "get_users", {}) for name in ("a", "b"))
    messages = [
        Message(AGENT, None, calls),
        Message(TOOL, "", None, "a"),
        Message(TOOL, "", None, "b"),
        Message(AGENT, "Done."),
    ]
    mock.environment().set_up(Start(), messages)
    with pytest.raises(ReplayError):
        mock.environment().set_up(Start(), [m for m in change(messages) if m.role == TOOL or m.calls])


def test_an_assertion_must_give_a_boolean(mock):
    with pytest.raises(TypeError, match="no boolean"):
        mock.environment().check(Assertion(AGENT, "get_users", {}))


def test_two_episodes_side_by_side_end_as_alone(mock):
    alone = [mock.environment() for _ in range(2)]
    turns = [CREATE, (USER, "dismiss_notification", {"notification_id": "n1"})]
    for environment in alone:
        for turn in turns:
            environment.call(*turn)
    one, other = mock.environment(), mock.environment()
    for turn in turns:
        one.call(*turn)
        other.call(*turn)
    assert one.hashes() == other.hashes() == alone[0].hashes() == alone[1].hashes()
    fork = one.fork()
    fork.call(*CREATE)
    assert one.hashes() == other.hashes() != fork.hashes()


def test_entries_of_files_are_read_with_their_defaults():
    from rods_jax.environments.tau2.messages import task_from_json

    task = task_from_json(entry(ticket="T", surprise=1))
    assert task.criteria.actions[0].side == AGENT and task.criteria.assertions[0].expected is True
    assert task.criteria.statements is None and task.user_tools is None and task.ticket == "T"
    assert task_from_json(entry(evaluation_criteria={})).criteria.basis == ("DB", "COMMUNICATE")


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ('{"name": "f", "arguments": {"a": 1}}', Action((Call("f", {"a": 1}),))),
        ("f(1, a=-2, b=null, c=(1, 'x'), d={'k': None}, e=...)", Action((Call("f", {"a": -2, "b": "null", "c": [1, "x"], "d": {"k": None}, "e": "Ellipsis"}),))),
        ("f(a=1); g(b=2)", Action((Call("f", {"a": 1}),))),
        *((text, Action(answer=text)) for text in ("f(a=g(1))", "f(a=1) please", '{"name": "f"}', "f(a=__import__('os').getcwd())", f"f(a={'(' * 900}{')' * 900})", "f(a=1e999)")),
        (" ", Action(error="the message is empty")),
    ],
)  # fmt: skip
def test_a_text_of_the_gym_environment_is_parsed_and_never_run(text, action):
    assert gym_text.parse(text) == action


def test_the_first_line_counts_all_that_is_wrong():
    card = record("Card", {"number": integer, "open": boolean})
    shop = record("Shop", {"name": text, "cards": items(card), "by": table(integer)}, closed=True)
    wrong = {"name": 1, "cards": [{"number": "x"}, {"number": 1, "open": True}], "by": {"a": "b", "c": None}, "z": 0}
    with pytest.raises(ShapeError, match="^6 validation errors for Shop\nname\n"):  # 1, 2 of a card, 2, and z
        shop(wrong)
