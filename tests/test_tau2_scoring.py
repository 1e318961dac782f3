"""Scores by hand: the official rules with their faults, and each fault mended."""

import pytest
from tau2_toy import CRITERIA, dialogue, entry, write

from rods_jax.environments.tau2 import data
from rods_jax.environments.tau2.domains import DOMAINS
from rods_jax.environments.tau2.messages import AGENT, USER, GoldCall, Message, ToolCall, task_from_json
from rods_jax.environments.tau2.scoring import (
    OFFICIAL,
    STRICT,
    TRANSFER,
    ScoringError,
    ScoringRules,
    checks,
    grade,
    is_said,
    is_success,
    matches,
)
from rods_jax.evaluation import pass_all, pass_at

CREATE = AGENT, "create_task", {"user_id": "ada", "title": "Call Bob"}
SAY = "It is 1,250.50 dollars: CALL BOB."


@pytest.fixture
def mock(tmp_path):
    return DOMAINS["mock"](data.find([write(tmp_path)]))


def task(**criteria):
    return task_from_json(entry(evaluation_criteria=CRITERIA | criteria))


def score(mock, *moves, rules=OFFICIAL, ending="user_stop", of=None, judge=None):
    return grade(
        mock, of or task(communicate_info=["1250.50"]), dialogue(mock.environment(), *moves), ending, rules, judge
    )


# ------------------------------------------------------------------------------------ components
def test_the_gold_dialogue_scores_one(mock):
    for rules in (OFFICIAL, STRICT):
        found = score(mock, CREATE, SAY, rules=rules)
        assert found.components == {"DB": 1.0, "ENV_ASSERTION": 1.0, "ACTION": 1.0, "COMMUNICATE": 1.0}
        assert found.success and found.reward == 1.0 and checks(found) == (True,) * 4


def test_nothing_done_fails_every_part(mock):
    found = score(mock, "Goodbye.")
    assert found.reward == 0.0 and set(found.components.values()) == {0.0} and checks(found) == (False,) * 4
    assert (found.databases, found.assertions, found.actions) == ((False, True), (False,), (False,))


def test_a_task_that_lists_no_component_is_won_and_one_without_a_list_has_two(mock):
    assert (score(mock, "Goodbye.", of=task(reward_basis=[])).reward, task(reward_basis=[]).criteria.basis) == (1.0, ())
    assert task(reward_basis=None).criteria.basis == ("DB", "COMMUNICATE")


def test_components_that_a_task_does_not_list_are_diagnostics(mock):
    found = score(mock, SAY, of=task(communicate_info=["1250.50"], reward_basis=["COMMUNICATE"]))
    assert found.reward == 1.0 and found.components == {"COMMUNICATE": 1.0} and found.databases == (False, True)


@pytest.mark.parametrize(
    "ending", ["max_steps", "too_many_errors", "agent_error", "user_error", "infrastructure_error"]
)
def test_other_endings_score_nothing(mock, ending):
    found = score(mock, CREATE, SAY, ending=ending)
    assert found.reward == 0.0 and not found.components and checks(found) == ()
    assert score(mock, CREATE, SAY, ending="agent_stop").reward == 1.0


def test_without_criteria_or_databases_to_compare(mock):
    assert score(mock, of=task_from_json(entry(evaluation_criteria=None))).reward == 1.0
    nothing = task(actions=None, env_assertions=None, communicate_info=None, reward_basis=["DB", "COMMUNICATE"])
    assert score(mock, CREATE, of=nothing).components == {"COMMUNICATE": 1.0}
    empty = task(actions=[], env_assertions=None, communicate_info=None, reward_basis=["DB"])
    assert score(mock, CREATE, of=empty).components == {"DB": 0.0}


def test_gold_calls_that_fail_are_left_out_of_the_gold_database(mock):
    bad = {"action_id": "b", "name": "create_task", "arguments": {"user_id": "bob", "title": "x"}}
    of = task(actions=[bad, *CRITERIA["actions"]], communicate_info=None, reward_basis=["DB"])
    assert score(mock, CREATE, of=of).reward == 1.0


# ------------------------------------------------------------------------ faults and their mending
def gold(arguments, compared=None, side=AGENT):
    return GoldCall("a", side, "f", arguments, compared)


@pytest.mark.parametrize(
    "wanted, arguments, official, strict",
    [
        (gold({"x": 1, "y": 2}), {"x": 1, "y": 2}, True, True),
        (gold({"x": 1, "y": 2}), {"x": 1.0, "y": 2}, True, True),
        (gold({"x": 1, "y": 2}), {}, True, False),
        (gold({"x": 1, "y": 2}), {"x": 1}, True, False),
        (gold({"x": 1}), {"x": 1, "y": 2}, False, False),
        (gold({"x": 1}), {"x": 1, "y": None}, False, True),  # a default that was written out
        (gold({"x": 1}), {"x": 2}, False, False),
        (gold({"x": 1}, compared=()), {"x": 2, "z": 3}, True, True),
        (gold({"x": 1, "y": 2}, compared=("x",)), {"x": 1, "y": 9}, True, True),
        (gold({"x": 1, "y": 2}, compared=("x",)), {"y": 2}, False, False),
        (gold({"x": 1}, side=USER), {"x": 1}, True, False),
    ],
)
def test_which_calls_match_a_gold_call(wanted, arguments, official, strict):
    call = ToolCall("c", "f", arguments)
    assert (matches(wanted, call, OFFICIAL), matches(wanted, call, STRICT)) == (official, strict)
    assert not matches(wanted, call._replace(name="g"), OFFICIAL)


def test_officially_it_does_not_matter_who_made_a_call(mock):
    """The user has no such tool: its call only fails."""
    of = task(communicate_info=None, env_assertions=None, reward_basis=["ACTION"])
    move = (USER, *CREATE[1:])
    assert score(mock, move, of=of).reward == 1.0
    assert score(mock, move, of=of, rules=ScoringRules(own_success_counts=True)).reward == 0.0


def test_a_gold_call_that_failed_is_not_made(mock):
    """A policy that reinforcement learning pays for calls that fail learns to make them."""
    of = task(communicate_info=None, env_assertions=None, reward_basis=["ACTION"])
    gold = of.criteria.actions[0]._replace(compared=("user_id",))
    of = of._replace(criteria=of.criteria._replace(actions=(gold,)))
    failing = (AGENT, "create_task", {"user_id": "ada"})  # without its title
    assert score(mock, failing, of=of).reward == 1.0
    assert score(mock, failing, of=of, rules=STRICT).reward == 0.0
    assert score(mock, failing, CREATE, of=of, rules=STRICT).reward == 1.0
    none = gold._replace(arguments={"user_id": "nobody", "title": "x"})  # a gold call that fails by itself
    of = of._replace(criteria=of.criteria._replace(actions=(none,)))
    assert score(mock, (AGENT, "create_task", {"user_id": "nobody"}), of=of, rules=STRICT).reward == 1.0


@pytest.mark.parametrize(
    "wanted, said, official, strict",
    [
        ("42.10", "It costs $42.10.", True, True),
        ("42.10", "It costs 42.1 dollars", False, True),
        ("1250.50", "in all 1,250.50", True, True),
        ("1,250.50", "in all 1,250.50", False, True),  # officially the message alone loses its commas
        ("9", "order 1942", True, False),
        ("42.10", "9842.1011", True, False),
        ("Call Bob", "please CALL BOB.", True, True),
        ("Bob", "Bobby", True, False),
        ("7", "nothing", False, False),
        ("4", "there are 4,5 or 6 of them", True, True),  # commas of thousands are followed by three digits
        ("45", "there are 4,5 or 6 of them", True, False),
    ],
)
def test_what_counts_as_said(wanted, said, official, strict):
    assert (is_said(wanted, said, OFFICIAL), is_said(wanted, said, STRICT)) == (official, strict)


def test_only_one_message_of_the_agent_can_tell_something(mock):
    of = task(communicate_info=["Call Bob"], reward_basis=["COMMUNICATE"])
    assert score(mock, "Call", "Bob", of=of).reward == 0.0
    assert grade(mock, of, [Message(USER, "Call Bob")], "user_stop").reward == 0.0
    assert grade(mock, of, [Message(AGENT, "Call Bob")], "user_stop").reward == 1.0


def test_an_assertion_that_raises(mock):
    unknown = {
        "env_type": "assistant",
        "func_name": "assert_task_status",
        "arguments": {"task_id": "t", "expected_status": "x"},
    }
    of = task(env_assertions=[unknown], reward_basis=["ENV_ASSERTION"])
    with pytest.raises(ScoringError, match="^tau2 task call cannot be scored: ValueError: Task t not found$"):
        score(mock, "Hm.", of=of)
    assert score(mock, "Hm.", of=of, rules=ScoringRules(raising_assertion_fails=True)).reward == 0.0


def test_a_record_that_does_not_replay_cannot_be_scored(mock):
    messages = [m._replace(text="ALTERED") if m.id else m for m in dialogue(mock.environment(), CREATE)]
    with pytest.raises(ScoringError, match="ReplayError: the call create_task gave"):
        grade(mock, task(), messages, "user_stop")


def test_a_transfer_before_all_else(mock):
    transfer = AGENT, TRANSFER, {"summary": "Over to you."}
    action = {"action_id": "t", "name": TRANSFER, "arguments": {"summary": "x"}, "compare_args": []}
    of = task(actions=[action], env_assertions=None, communicate_info=None, reward_basis=["DB", "ACTION"])
    look = AGENT, "get_users", {}
    assert score(mock, transfer, of=of).reward == 1.0 and score(mock, transfer, of=of).hasty_transfer
    assert score(mock, transfer, of=of, rules=STRICT).reward == 0.0
    assert score(mock, (AGENT, "nope", {}), transfer, of=of, rules=STRICT).reward == 0.0
    assert score(mock, look, transfer, of=of, rules=STRICT).reward == 1.0
    assert score(mock, (USER, "check_notifications", {}), transfer, of=of, rules=STRICT).reward == 1.0


def test_data_for_one_side(mock):
    """Officially the user then has the agent's database, and no notification in it."""
    patch = {"tasks": {"task_2": {"task_id": "task_2", "title": "x", "status": "pending"}}}
    read = {"env_type": "user", "func_name": "assert_notification_status"}
    read["arguments"] = {"notification_id": "n1", "expected_status": "unread"}
    criteria = {"actions": None, "env_assertions": [read], "reward_basis": ["DB", "ENV_ASSERTION"]}
    of = task_from_json(
        entry(initial_state={"initialization_data": {"agent_data": patch}}, evaluation_criteria=criteria)
    )
    with pytest.raises(ScoringError, match="'MockDB' object has no attribute 'notifications'"):
        grade(mock, of, [], "user_stop", OFFICIAL)
    assert grade(mock, of, [], "user_stop", STRICT).reward == 1.0


# ----------------------------------------------------------------------------------------- judges
def test_statements_need_a_judge_and_one_verdict_each(mock):
    of = task(nl_assertions=["It was kind.", "It was short."], reward_basis=["NL_ASSERTION"])
    with pytest.raises(ScoringError, match="has 2 statements that only a judge can decide"):
        score(mock, "Hi.", of=of)
    with pytest.raises(ScoringError, match="the judge gave 0 verdicts on 2 statements"):
        score(mock, "Hi.", of=of, judge=lambda told, messages: [])
    found = score(mock, "Hi.", of=of, judge=lambda told, messages: [True, "long" in messages[0].text])
    assert found.reward == 0.0 and found.statements == checks(found) == (True, False)
    assert score(mock, "Hi.", of=task(nl_assertions=None, reward_basis=["NL_ASSERTION"])).reward == 1.0


@pytest.mark.parametrize(
    "reward, success", [(1.0, True), (1 - 1e-7, True), (1 + 1e-7, True), (0.99999, False), (1.1, False)]
)
def test_success_has_a_tolerance(reward, success):
    assert is_success(reward) is success


def test_pass_hat_k_by_hand():
    """c = 2 of n = 4 passed: all of 2 in 1/6 of the draws, one of 2 in 5/6."""
    assert pass_all(4, 2, 2) == pytest.approx(1 / 6) and pass_at(4, 2, 2) == pytest.approx(5 / 6)
