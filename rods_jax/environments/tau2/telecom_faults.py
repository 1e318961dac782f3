"""What is wrong in telecom's tasks: 21 faults in three families, on any line of the provider.

    who = subject(desk, "L1002")                    # of the records of db.toml
    made = compose(families(who), PERSONAS)         # 3,405; released(made) are the 2,285 of tasks.json, in its order
    texts = texts_of(tasks, who)                    # the words of the user's copy of tasks.json
    again = [task_json(one, texts) for one in released(made)]

The words are the copy's own, since the project ships none of the data.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from rods_jax.environments.tau2.faults import Check, Composition, Deed, Family, Fault, Texts, sample_bins
from rods_jax.environments.tau2.messages import AGENT, USER
from rods_jax.types import Json

PERSONAS = ("None", "Easy", "Hard")
_NO_REFUEL = "data_usage_exceeded_no_refuel"
_BILL = "B1234321"
_REFUEL_GB, _OVER_GB = 2.0, 0.1
_BASE_SEED, _BASE_SIZE = 42, 3


class Subject(NamedTuple):
    """Whose phone it is."""

    name: str
    phone_number: str
    customer_id: str
    line_id: str
    limit_gb: float  # of the plan, with what was refuelled
    refuelled_gb: float


# --------------------------------------------------------------------------------------- subjects
def subjects(desk: Mapping[str, Json]) -> tuple[Subject, ...]:
    """Everyone whose line can have all faults: it is active, and its customer has a draft bill, none overdue, none asked for."""
    plans = {plan["plan_id"]: plan for plan in desk["plans"]}
    lines = {line["line_id"]: line for line in desk["lines"] if line["status"] == "Active"}
    status = {bill["bill_id"]: bill["status"] for bill in desk["bills"]}
    found = []
    for customer in desk["customers"]:
        held = {status[id] for id in customer["bill_ids"]}
        if "Draft" not in held or held & {"Overdue", "Awaiting Payment"}:
            continue
        for line in (lines[id] for id in customer["line_ids"] if id in lines):
            refuelled = line["data_refueling_gb"]
            limit = plans[line["plan_id"]]["data_limit_gb"] + refuelled
            ids = customer["customer_id"], line["line_id"]
            found.append(Subject(customer["full_name"], line["phone_number"], *ids, limit, refuelled))
    return tuple(found)


def subject(desk: Mapping[str, Json], line_id: str) -> Subject:
    """ValueError: the line cannot have all faults."""
    found = {one.line_id: one for one in subjects(desk)}
    if line_id not in found:
        raise ValueError(f"line {line_id!r} cannot be a subject; {', '.join(found) or 'no line'} can")
    return found[line_id]


# --------------------------------------------------------------------------------------- families
def families(who: Subject) -> tuple[Family, Family, Family]:
    """Mobile data, service, picture messages: in the order of the file."""
    line: Mapping[str, Json] = {"customer_id": who.customer_id, "line_id": who.line_id}

    def by_user(name: str, /, **arguments: Json) -> Deed:
        return Deed(USER, name, arguments)

    def by_agent(name: str, /, **arguments: Json) -> Deed:
        return Deed(AGENT, name, {**line, **arguments})

    # What is wrong with the line: first three, of which a task has one.
    search, abroad = by_user("simulate_network_search"), by_user("set_user_location", abroad=True)
    allow, forbid = by_agent("enable_roaming"), by_agent("disable_roaming")
    on, off, toggle = by_user("turn_roaming_on"), by_user("turn_roaming_off"), by_user("toggle_roaming")
    roaming = (
        Fault("user_abroad_roaming_enabled_off", (abroad, off, allow), (toggle,)),
        Fault("user_abroad_roaming_disabled_on", (abroad, on, forbid, search), (allow,)),
        Fault("user_abroad_roaming_disabled_off", (abroad, off, forbid, search), (allow, toggle)),
    )
    refuel = by_agent("refuel_data", gb_amount=_REFUEL_GB)
    used, used_more = (
        by_agent("set_data_usage", data_used_gb=round(gb + _OVER_GB, 1))
        for gb in (who.limit_gb, who.limit_gb + _REFUEL_GB)
    )
    refuelled = Check(AGENT, "assert_data_refueling_amount", {**line, "expected_amount": who.refuelled_gb + _REFUEL_GB})
    usage = (
        Fault("data_usage_exceeded", (used,), (refuel,), (refuelled,)),
        Fault(_NO_REFUEL, (refuel, used_more), None),
    )

    def suspended(contract_ended: bool) -> tuple[Deed, Deed]:
        return by_agent("suspend_line_for_overdue_bill", new_bill_id=_BILL, contract_ended=contract_ended), search

    reboot = by_user("reboot_device")
    request = Deed(AGENT, "send_payment_request", {"customer_id": who.customer_id, "bill_id": _BILL})
    paid = request, by_user("make_payment"), by_agent("resume_line"), reboot
    suspension = (
        Fault("overdue_bill_suspension", suspended(False), paid),
        Fault("contract_end_suspension", suspended(True), None),
    )

    # What is wrong with the phone.
    reset = by_user("reset_apn_settings"), reboot
    airplane = (Fault("airplane_mode_on", (by_user("turn_airplane_mode_on"),), (by_user("toggle_airplane_mode"),)),)
    no_sim = (Fault("unseat_sim_card", (by_user("unseat_sim_card"),), (by_user("reseat_sim_card"),)),)
    locked_sim = (Fault("lock_sim_card_pin", (by_user("lock_sim_card", mode="pin"),), None),)
    bad_apn = (Fault("break_apn_settings", (by_user("break_apn_settings"),), reset),)
    bad_mmsc = (Fault("break_apn_mms_setting", (by_user("break_apn_mms_setting"),), reset),)
    no_data = (Fault("data_mode_off", (by_user("turn_data_off"),), (by_user("toggle_data"),)),)
    saver = (Fault("data_saver_mode_on", (by_user("turn_data_saver_mode_on"),), (by_user("toggle_data_saver_mode"),)),)
    slow, fast = (by_user("set_network_mode_preference", mode=mode) for mode in ("2g_only", "4g_5g_preferred"))
    old_network = (Fault("bad_network_preference", (slow,), (fast,)),)
    slow_vpn = (Fault("bad_vpn", (by_user("break_vpn"),), (by_user("disconnect_vpn"),)),)
    over_wifi = by_user("set_wifi_calling", enabled=True, mms_over_wifi=True)
    wifi_calling = (Fault("bad_wifi_calling", (over_wifi,), (by_user("toggle_wifi_calling"),)),)

    def refused(name: str, *permissions: str) -> Fault:
        apps = [{"app_name": "messaging", "permission": permission} for permission in permissions]
        return Fault(
            f"break_app_{name}",
            tuple(by_user("remove_app_permission", **app) for app in apps),
            tuple(by_user("grant_app_permission", **app) for app in apps),
        )

    permissions = (
        refused("sms_permission", "sms"),
        refused("storage_permission", "storage"),
        refused("both_permissions", "sms", "storage"),
    )

    # What each complaint may come from, and what ends it.
    opening = (by_user("set_user_info", name=who.name, phone_number=who.phone_number),)
    return (
        Family(
            "mobile_data_issue",
            (airplane, roaming, no_data, saver, old_network, slow_vpn, usage),
            1,
            opening,
            (
                Check(USER, "assert_mobile_data_status", {"expected_status": True}),
                Check(USER, "assert_internet_speed", {"expected_speed": 200, "expected_desc": "excellent"}),
            ),
            (
                Check(USER, "assert_mobile_data_status", {"expected_status": False}),
                Check(USER, "assert_internet_speed", {"expected_speed": 0}),
            ),
        ),
        Family(
            "service_issue",
            (airplane, no_sim, locked_sim, bad_apn, suspension),
            0,
            opening,
            (
                Check(
                    USER, "assert_service_status", {"expected_status": "connected"}, "Service status is not as expected"
                ),
                Check(AGENT, "assert_no_overdue_bill", {"overdue_bill_id": _BILL}, "Overdue bill is not as expected"),
            ),
            (Check(USER, "assert_service_status", {"expected_status": "no_service"}),),
        ),
        Family(
            "mms_issue",
            (airplane, no_sim, no_data, usage, roaming, old_network, wifi_calling, bad_mmsc, permissions),
            5,
            opening,
            (Check(USER, "assert_can_send_mms", {"expected_status": True}),),
            (Check(USER, "assert_can_send_mms", {"expected_status": False}),),
        ),
    )


# ------------------------------------------------------------------------------------- the splits
def released(made: Iterable[Composition]) -> list[Composition]:
    """Those that the file has: all but those whose data nobody refuels."""
    return [one for one in made if all(fault.name != _NO_REFUEL for fault in one.faults)]


def base(made: Iterable[Composition]) -> list[Composition]:
    """Those of the split that is scored, in the order in which they are drawn."""
    return released(sample_bins(made, random.Random(_BASE_SEED), _BASE_SIZE))


# ------------------------------------------------------------------------------------------ words
def texts_of(tasks: Sequence[Mapping[str, Json]], who: Subject, teller: Subject | None = None) -> Texts:
    """The words of a copy of tasks.json, for compositions of equal family and place of the user.

    who: whom the made tasks are about.  teller: whom the copy's are about, where it is someone else.
    ValueError, at the first composition whose words the copy lacks.
    """
    teller = teller or who
    words: dict[tuple[str, bool], Mapping[str, Json]] = {}
    personas: dict[str, Json] = {}
    for task in tasks:
        family, _, persona = task["id"].removeprefix("[").partition("]")
        causes = task["initial_state"]["initialization_actions"]
        words.setdefault((family, any(one["func_name"] == "set_user_location" for one in causes)), task)
        personas.setdefault(persona.rpartition("[PERSONA:")[2].removesuffix("]"), task["user_scenario"]["persona"])

    def told(value: Json) -> Json:
        """With the name and number of the one whom it is about."""
        if isinstance(value, str):
            return value.replace(teller.name, who.name).replace(teller.phone_number, who.phone_number)
        return {key: told(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value

    def texts(made: Composition) -> Mapping[str, Json]:
        away = any(cause.name == "set_user_location" for fault in made.faults for cause in fault.causes)
        task = words.get((made.family.name, away))
        if task is None or made.persona not in personas:
            raise ValueError(
                f"no task at hand tells of {made.family.name} {'abroad' if away else 'at home'} ({made.persona})"
            )
        scenario = {"persona": personas[made.persona], "instructions": told(task["user_scenario"]["instructions"])}
        return {"description": told(task["description"]), "user_scenario": scenario, "ticket": told(task["ticket"])}

    return texts
