"""Telecom's desk, phone and faults on a small made-up provider, with numbers worked out by hand."""

import copy
import json
import math
import random

import pytest

from rods_jax.environments.tau2 import phone, telecom
from rods_jax.environments.tau2.faults import (
    Check,
    Composition,
    Deed,
    Family,
    Fault,
    alike,
    compose,
    flaw,
    kin_of,
    name_of,
    sample_bins,
    solvable,
    task_json,
)
from rods_jax.environments.tau2.messages import AGENT, USER, Assertion, task_from_json
from rods_jax.environments.tau2.phone_records import DEVICE, SURROUNDINGS
from rods_jax.environments.tau2.shapes import ShapeError
from rods_jax.environments.tau2.telecom_faults import (
    FILE_LINE,
    PERSONAS,
    base,
    families,
    released,
    subject,
    subjects,
    texts_of,
)

NUMBER = "555-000-0002"
MINE = {"customer_id": "C1", "line_id": FILE_LINE}
PLAN = {"plan_id": "P1", "name": "Ten", "data_limit_gb": 10, "price_per_month": 30, "data_refueling_price_per_gb": 3}
LINE = {"line_id": FILE_LINE, "phone_number": NUMBER, "status": "Active", "plan_id": "P1", "data_used_gb": 4}
PERIOD = {
    "period_start": "2025-03-01",
    "period_end": "2025-03-31",
    "issue_date": "2025-03-01",
    "due_date": "2025-03-15",
}
BILL = {"bill_id": "B1", "customer_id": "C1", "total_due": 0, **PERIOD}
CUSTOMER = {
    "customer_id": "C1",
    "full_name": "Ada Quill",
    "date_of_birth": "1990-01-02",
    "email": "ada@example.com",
    "phone_number": NUMBER,
    "address": {"street": "1 Way", "city": "Hill", "state": "ZZ", "zip_code": "00001"},
    "line_ids": [FILE_LINE, "L2"],
    "bill_ids": ["B1"],
    "created_at": "2025-01-15T10:30:00",
}
OTHER = {
    **CUSTOMER,
    "customer_id": "C2",
    "full_name": "Bo Reed",
    "phone_number": "0",
    "line_ids": ["L3"],
    "bill_ids": [],
}
DESK = {
    "plans": [PLAN],
    "lines": [
        LINE,
        {**LINE, "line_id": "L2", "phone_number": "555-000-0001", "data_refueling_gb": 1.5},
        {**LINE, "line_id": "L3", "phone_number": "555-000-0003", "status": "Suspended"},
    ],
    "bills": [BILL],
    "customers": [CUSTOMER, OTHER],
}
APPS = {"messaging": {"app_name": "messaging", "permissions": {"sms": True, "storage": True, "phone": True}}}
OWNER = {"device": {"app_statuses": APPS}}
BASES = telecom.bases(DESK, OWNER)


def fresh(solo=False):
    return telecom.environment(*BASES, solo=solo)


def owned():
    """An episode whose phone is the line's."""
    episode = fresh()
    episode.run(USER, "set_user_info", {"name": "Ada Quill", "phone_number": NUMBER})
    episode.sync()
    return episode


def by_user(episode, name, **arguments):
    return episode.call(USER, name, arguments).text


def by_agent(episode, name, **arguments):
    return episode.call(AGENT, name, arguments).text


# ------------------------------------------------------------------------------------------- phone
@pytest.mark.parametrize(
    "technology, signal, slow_vpn, saver, mbps, word",
    [
        ("2G", "poor", False, False, 0.05, "Very Poor"),  # 0.25 x 0.2
        ("3G", "fair", False, False, 1.5, "Poor"),  # 3 x 0.5
        ("4G", "good", False, False, 44.0, "Good"),  # 55 x 0.8
        ("4G", "good", False, True, 8.8, "Fair"),  # and x 0.2
        ("4G", "good", True, True, 0.88, "Very Poor"),  # and x 0.1
        ("5G", "excellent", True, False, 27.5, "Good"),  # 275 x 0.1
        ("5G", "excellent", False, False, 275.0, "Excellent"),
        ("none", "excellent", False, False, None, "No Connection"),
        ("5G", "none", False, False, None, "No Connection"),
    ],
)
def test_speed_is_the_mean_of_a_range_times_what_slows_it(technology, signal, slow_vpn, saver, mbps, word):
    device = DEVICE(
        {
            "network_technology_connected": technology,
            "network_signal_strength": signal,
            "data_saver_mode": saver,
            "vpn_connected": True,
            "vpn_details": {"server_performance": "poor" if slow_vpn else "fair"},
        }
    )
    assert phone.speed(device, SURROUNDINGS({})) == (mbps and pytest.approx(mbps), word)


@pytest.mark.parametrize("device, around, technology", [
    ({}, {}, "5G"),
    ({}, {"signal_strength": {"4G": "fair", "5G": "none"}}, "4G"),
    ({"network_mode_preference": "3g_only"}, {}, "3G"),
    ({"sim_card_missing": True}, {}, "none"),
    ({"sim_card_status": "locked_puk"}, {}, "none"),
    ({"airplane_mode": True}, {}, "none"),
    ({"active_apn_settings": {"apn_name": "broken"}}, {}, "none"),
    ({}, {"line_active": False}, "none"),
])  # fmt: skip
def test_a_search_finds_what_is_preferred_or_nothing(device, around, technology):
    device = DEVICE(device)
    phone.search_network(device, SURROUNDINGS(around))
    assert device["network_technology_connected"] == technology
    assert device["network_connection_status"] == ("no_service" if technology == "none" else "connected")


def test_data_flow_abroad_only_where_both_sides_allow_it():
    connected = DEVICE({"roaming_enabled": True})
    allowed = {"is_abroad": True, "roaming_allowed": True}
    assert phone.data_works(connected, SURROUNDINGS(allowed))
    assert not phone.data_works(DEVICE({}), SURROUNDINGS(allowed))
    assert not phone.data_works(connected, SURROUNDINGS({"is_abroad": True}))
    assert not phone.data_works(connected, SURROUNDINGS({**allowed, "mobile_data_usage_exceeded": True}))


def test_the_status_bar_after_each_change():
    episode = owned()
    assert by_user(episode, "toggle_data_saver_mode").endswith(
        "\nStatus Bar: 📶³ Good | 5G | 📱 Data Enabled | 🔽 Data Saver | 🔋 80%"
    )
    assert by_user(episode, "toggle_data").endswith("\nStatus Bar: 📶⁴ Excellent | 5G | 📵 Data Disabled | 🔋 80%")
    assert by_user(episode, "connect_vpn").endswith("📵 Data Disabled | 🔒 VPN Connected | 🔋 80%")
    assert by_user(episode, "toggle_airplane_mode") == "Airplane Mode is now ON.\nStatus Bar: ✈️ Airplane Mode | 🔋 80%"
    assert by_user(episode, "check_vpn_status") == "VPN is turned OFF."


def test_pictures_need_the_app_the_server_and_no_detour():
    episode = owned()
    can = "Your messaging app can send MMS messages."
    assert by_user(episode, "can_send_mms") == can
    for breaks, arguments, mends, fix in (
        ("remove_app_permission", {"app_name": "messaging", "permission": "SMS"}, "grant_app_permission",
         {"app_name": "messaging", "permission": "Sms"}),
        ("set_wifi_calling", {"enabled": True, "mms_over_wifi": True}, "toggle_wifi_calling", {}),
        ("set_network_mode_preference", {"mode": "2g_only"}, "set_network_mode_preference", {"mode": "3g_only"}),
    ):  # fmt: skip
        episode.run(USER, breaks, arguments)
        assert by_user(episode, "can_send_mms") != can, breaks
        by_user(episode, mends, **fix)
        assert by_user(episode, "can_send_mms") == can, mends
    episode.run(USER, "break_apn_mms_setting", {})
    by_user(episode, "reset_apn_settings")
    assert by_user(episode, "can_send_mms") != can  # the reset waits for a restart
    assert by_user(episode, "reboot_device").startswith("Resetting APN settings...\nRestarting")
    assert by_user(episode, "can_send_mms") == can


def test_what_is_no_access_point_is_stored_and_fails_from_then_on():
    """As officially: half of a call that fails stays done."""
    episode = owned()
    told = episode.call(USER, "set_apn_settings", {"apn_settings": "fast"})
    assert (told.text, told.ok) == ("Error: 'str' object has no attribute 'apn_name'", False)
    assert by_user(episode, "toggle_roaming") == "Error: 'str' object has no attribute 'apn_name'"
    assert episode.user.device["roaming_enabled"] is True
    assert by_user(episode, "check_apn_settings") == "Error: 'str' object has no attribute 'model_copy'"
    refused = by_user(owned(), "set_apn_settings", apn_settings={"speed": 9})
    assert refused.partition("\n")[0] == "Error: 1 validation error for APNSettings"


def test_a_broken_vpn_is_slow_in_its_own_episode_only():
    broken, other = owned(), owned()
    broken.run(USER, "break_vpn", {})
    by_user(broken, "disconnect_vpn")
    for episode, level in ((broken, "poor"), (other, "excellent")):
        by_user(episode, "connect_vpn")
        assert f"'{level}'" in by_user(episode, "check_vpn_status")
    again = broken.fork()
    by_user(again, "disconnect_vpn")
    by_user(again, "connect_vpn")
    assert "'poor'" in by_user(again, "check_vpn_status")


# -------------------------------------------------------------------------------------------- desk
def test_refuelling_costs_the_rate_of_the_plan():
    episode = owned()
    told = json.loads(by_agent(episode, "refuel_data", **MINE, gb_amount=2.5))
    message = f"Successfully added 2.5 GB of data for line {FILE_LINE} for $7.50"
    assert told == {"message": message, "new_data_refueling_gb": "2.5", "charge": "7.5"}
    bill = json.loads(by_agent(episode, "get_details_by_id", id="B1"))
    item = {
        "description": "Data refueling: 2.5 GB at $3.0/GB",
        "amount": 7.5,
        "date": "2025-02-25",
        "item_type": "Charge",
    }
    assert (bill["total_due"], bill["line_items"]) == (7.5, [item])
    assert by_agent(episode, "refuel_data", **MINE, gb_amount=0) == "Error: Refuel amount must be positive"


def test_a_charge_without_a_draft_bill_makes_one_with_a_known_id():
    episode = fresh()
    by_agent(episode, "refuel_data", customer_id="C2", line_id="L3", gb_amount=1)
    assert [bill["bill_id"] for bill in json.loads(by_agent(episode, "get_bills_for_customer", customer_id="C2"))] == [
        "B00000001"
    ]


@pytest.mark.parametrize("name, arguments, text", [
    ("get_customer_by_phone", {"phone_number": "9"}, "Customer with phone number 9 not found"),
    ("get_customer_by_id", {"customer_id": "C9"}, "Customer with ID C9 not found"),
    ("get_details_by_id", {"id": "D9"}, "Device with ID D9 not found"),
    ("get_details_by_id", {"id": "x"}, "Unknown ID format or type: x"),
    ("enable_roaming", {"customer_id": "C1", "line_id": "L3"}, "Line L3 not found for customer C1"),
    ("resume_line", MINE, "Line must be suspended to resume"),
    ("suspend_line", {"customer_id": "C2", "line_id": "L3", "reason": "lost"}, "Line must be active to suspend"),
    ("suspend_line", MINE, "TelecomTools.suspend_line() missing 1 required positional argument: 'reason'"),
    ("send_payment_request", {"customer_id": "C2", "bill_id": "B1"}, "Bill B1 not found for customer C2"),
    ("toggle_data", {}, "Tool 'toggle_data' not found."),
    ("set_data_usage", {**MINE, "data_used_gb": 1}, "Tool 'set_data_usage' not found."),
])  # fmt: skip
def test_what_the_desk_refuses(name, arguments, text):
    episode = owned()
    told = episode.call(AGENT, name, arguments)
    assert (told.text, told.ok) == (f"Error: {text}", False)
    assert episode.same(owned()) == (True, True)


def test_a_record_that_does_not_fit_is_named():
    with pytest.raises(ShapeError, match="colour"):
        telecom.bases({**DESK, "plans": [{**PLAN, "colour": "red"}]}, OWNER)


# -------------------------------------------------------------------------- what each does to the other
def test_the_phone_sees_its_line_at_the_next_search():
    episode = owned()
    by_agent(episode, "suspend_line", **MINE, reason="lost")
    assert "Good | 5G" in by_user(episode, "check_status_bar")
    assert "No Signal" in by_user(episode, "reboot_device")
    by_agent(episode, "resume_line", **MINE)
    assert "No Signal" in by_user(episode, "check_status_bar")
    assert "Excellent | 5G" in by_user(episode, "reboot_device")


def test_data_are_used_up_at_the_limit_and_what_was_refuelled():
    episode = owned()
    for used, refuelled, flows in ((9.99, 0, True), (10.0, 0, False), (10.0, 0.5, True), (10.5, 0, False)):
        episode.run(AGENT, "set_data_usage", {**MINE, "data_used_gb": used})
        episode.sync()
        if refuelled:
            by_agent(episode, "refuel_data", **MINE, gb_amount=refuelled)
        assert episode.check(Assertion(USER, "assert_mobile_data_status", {"expected_status": True})) is flows


def test_a_bill_is_asked_for_paid_and_forgotten():
    episode = owned()
    assert by_user(episode, "make_payment") == "You do not have a payment request."
    by_agent(episode, "refuel_data", **MINE, gb_amount=1)
    by_agent(episode, "send_payment_request", customer_id="C1", bill_id="B1")
    again = by_agent(episode, "send_payment_request", customer_id="C1", bill_id="B1")
    assert again == "Error: A bill is already awaiting payment for this customer"
    assert by_user(episode, "check_payment_request") == "You have a payment request for bill B1 of 3.0 USD."
    assert by_user(episode, "make_payment") == "Payment of 3.0 USD has been made for bill B1."
    assert by_user(episode, "check_payment_request") == "No payment request has been made."
    assert episode.check(Assertion(AGENT, "assert_no_overdue_bill", {"overdue_bill_id": "B1"}))


def test_a_phone_without_a_line_is_an_error_of_every_call():
    episode = fresh()
    episode.run(USER, "set_user_info", {"name": "Ada", "phone_number": "9"})
    assert by_user(episode, "check_status_bar") == "Error: Line with phone number 9 not found"


def test_an_agent_alone_has_both_sides():
    episode = fresh(solo=True)
    assert by_agent(episode, "toggle_data").startswith("Mobile Data is now OFF.")
    assert by_agent(episode, "get_customer_by_id", customer_id="C1").startswith('{"customer_id": "C1"')
    assert not episode.call(USER, "toggle_data", {}).ok


# ------------------------------------------------------------------------------------------ faults
A, B, C, D = (Fault(name, (Deed(USER, f"break_{name}"),), (Deed(USER, f"mend_{name}"),)) for name in "abcd")
HOPELESS = Fault("z", (Deed(USER, "break_z"),), None)
TOY = Family("toy", ((D,), (B, HOPELESS), (A, C)), 1, (), (Check(USER, "well"),), (Check(USER, "ill"),))


def test_compositions_are_sorted_and_personas_take_turns():
    made = compose((TOY,), ("None", "Easy"))
    # 2 x 3 x 3 picks; "d" alone and nothing at all do not explain the complaint
    assert [name_of(one) for one in made] == [
        f"[toy]{names}[PERSONA:{persona}]"
        for names, persona in zip(
            "b z a c b|d d|z a|d c|d a|b b|c a|z c|z a|b|d b|c|d a|d|z c|d|z".split(), ["None", "Easy"] * 8
        )
    ]


def test_variants_have_equal_structure():
    def kin(id, taken=()):
        return [kin_of(one) for one in alike(id, (TOY,), ("None",), taken)]

    assert kin("[toy]b|d[PERSONA:None]") == ["[toy]a|d", "[toy]c|d", "[toy]a|b", "[toy]b|c"]
    assert kin("[toy]d|z[PERSONA:Hard]", taken=["[toy]a|z[PERSONA:Easy]"]) == ["[toy]c|z"]
    assert {one.persona for one in alike("[toy]z[PERSONA:None]", (TOY,), PERSONAS)} == set()
    assert [one.persona for one in alike("[toy]a[PERSONA:None]", (TOY,), PERSONAS)] == 2 * list(PERSONAS)
    with pytest.raises(ValueError, match=r"\[toy\]d"):
        kin("[toy]d[PERSONA:None]")


def test_bins_hold_so_many_and_no_single_faults():
    made = compose((TOY,), ("None",))
    drawn = sample_bins(made, random.Random(0), 3)
    assert [len(one.faults) for one in drawn] == [2, 2, 2, 3, 3, 3]
    assert len(set(map(name_of, drawn))) == 6


def told(family, abroad):
    """A task of a copy of tasks.json as far as its words go."""
    causes = [{"func_name": "set_user_location"}] * abroad
    place = "abroad" if abroad else "at home"
    return [
        {
            "id": f"[{family}]x[PERSONA:{persona}]",
            "description": {"purpose": family},
            "user_scenario": {
                "persona": None if persona == "None" else persona,
                "instructions": {"known_info": f"You are Ada Quill, {NUMBER}, {place}.", "unknown_info": None},
            },
            "ticket": f"Ada Quill, {NUMBER}: {family}",
            "initial_state": {"initialization_actions": causes},
        }
        for persona in PERSONAS
    ]


FAMILIES = families(subject(BASES[0].tables, FILE_LINE))
WORDS = [task for family in FAMILIES for abroad in (False, True) for task in told(family.name, abroad)]


def test_the_sizes_of_telecom():
    made = compose(FAMILIES, PERSONAS)
    sizes = [math.prod(len(choice) + 1 for choice in family.choices) for family in FAMILIES]
    assert sizes == [384, 48, 3072]
    assert len(made) == (384 - 2) + (48 - 1) + (3072 - 96) == 3405
    assert len(released(made)) == 2285 and len(base(made)) == 114
    assert sum(not solvable(one) for one in released(made)) == 32


def test_sampled_tasks_of_every_line_need_all_of_their_gold():
    assert [(one.line_id, one.limit_gb) for one in subjects(BASES[0].tables)] == [(FILE_LINE, 10.0), ("L2", 11.5)]
    desk = BASES[0].tables
    texts = texts_of(WORDS, desk)
    for who in subjects(desk):
        for made in random.Random(0).sample(compose(families(who), PERSONAS), 80):
            task = task_json(made, texts)
            assert flaw(task_from_json(task), fresh) == "", task["id"]
            assert who.phone_number in task["ticket"]
            assert task["id"].endswith("[L2]") == (who.line_id == "L2")


def test_a_task_that_needs_less_or_more_than_its_gold_is_refused():
    made = next(
        one for one in compose(FAMILIES, PERSONAS) if kin_of(one) == "[mms_issue]bad_wifi_calling|data_mode_off"
    )
    whole = task_json(made, texts_of(WORDS, BASES[0].tables))
    assert whole["evaluation_criteria"]["reward_basis"] == ["ENV_ASSERTION"]

    def reason(change):
        task = copy.deepcopy(whole)
        change(task["evaluation_criteria"], task["initial_state"]["initialization_actions"])
        return flaw(task_from_json(task), fresh)

    assert reason(lambda criteria, causes: None) == ""
    assert reason(lambda criteria, causes: criteria["actions"].pop()) == "the checks fail after all gold calls"
    assert reason(lambda criteria, causes: causes.clear()) == "after 0 gold calls the checks hold already"
    again = {**whole["evaluation_criteria"]["actions"][0], "name": "check_status_bar"}
    assert (
        reason(lambda criteria, causes: criteria["actions"].append(again))
        == "after 2 gold calls the checks hold already"
    )
    wrong = {**again, "name": "grant_app_permission"}
    assert reason(lambda criteria, causes: criteria["actions"].insert(0, wrong)).startswith(
        "the gold call grant_app_permission fails: Error: TelecomUserTools.grant_app_permission() missing 2"
    )
    assert reason(lambda criteria, causes: causes.append({"env_type": "user", "func_name": "explode"})).startswith(
        "AttributeError: "
    )
    assert reason(lambda criteria, causes: criteria.update(actions=[])) == "it has no gold calls or no assertions"


def test_what_nobody_can_mend_is_to_be_handed_over():
    made = Composition(
        FAMILIES[1], (Fault("lock_sim_card_pin", (Deed(USER, "lock_sim_card", {"mode": "pin"}),), None),), "None"
    )
    task = task_json(made, texts_of(WORDS, BASES[0].tables))
    criteria = task["evaluation_criteria"]
    assert [(gold["name"], gold["compare_args"]) for gold in criteria["actions"]] == [("transfer_to_human_agents", [])]
    assert criteria["reward_basis"] == ["ENV_ASSERTION", "ACTION"]
    assert flaw(task_from_json(task), fresh) == ""


def test_words_that_the_copy_lacks_are_named():
    texts = texts_of(told("service_issue", False), BASES[0].tables)
    with pytest.raises(ValueError, match="nothing of mms_issue at home, persona Easy"):
        texts(Composition(FAMILIES[2], (), "Easy"))
    with pytest.raises(ValueError, match="'L3' cannot be a subject; L1002, L2 can"):
        subject(BASES[0].tables, "L3")
