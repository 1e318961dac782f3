"""Telecom's desk and phone, on a small made-up provider, with numbers worked out by hand."""

import json

import pytest
from telecom_toy import DESK, FILE_LINE, MINE, OWNER, PLAN, by_agent, by_user, fresh, owned

from rods_jax.environments.tau2 import phone, telecom
from rods_jax.environments.tau2.messages import AGENT, USER, Assertion
from rods_jax.environments.tau2.phone_records import DEVICE, SURROUNDINGS
from rods_jax.environments.tau2.shapes import ShapeError


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
