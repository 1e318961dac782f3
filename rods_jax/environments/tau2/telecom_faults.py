"""What is wrong in telecom's tasks: 20 faults in three families, on any line of the provider.

    who = subject(desk, FILE_LINE)             # desk: the tables of telecom.bases(...)[0]
    made = compose(families(who), PERSONAS)    # 3,405; released(made) are the 2,285 of tasks.json, in its order
    texts = texts_of(tasks, desk)              # the words of the user's copy of tasks.json
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
FILE_LINE = "L1002"  # whom the tasks of the file are about
_LOCATION = "set_user_location"
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
    """Everyone whose line can have all faults.

    The line is active.  The customer has a draft bill, and none that is overdue or asked for.
    """
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
def families(who: Subject) -> tuple[Family, ...]:
    """Mobile data, service, picture messages: in the order of the file."""
    line: Mapping[str, Json] = {"customer_id": who.customer_id, "line_id": who.line_id}
    reboot, search = _user("reboot_device"), _user("simulate_network_search")

    # What one part of the phone has wrong.
    airplane = _one("airplane_mode_on", _user("turn_airplane_mode_on"), _user("toggle_airplane_mode"))
    no_sim = _one("unseat_sim_card", _user("unseat_sim_card"), _user("reseat_sim_card"))
    locked_sim = (Fault("lock_sim_card_pin", (_user("lock_sim_card", mode="pin"),), None),)
    no_data = _one("data_mode_off", _user("turn_data_off"), _user("toggle_data"))
    saver = _one("data_saver_mode_on", _user("turn_data_saver_mode_on"), _user("toggle_data_saver_mode"))
    slow, fast = (_user("set_network_mode_preference", mode=mode) for mode in ("2g_only", "4g_5g_preferred"))
    old_network = _one("bad_network_preference", slow, fast)
    slow_vpn = _one("bad_vpn", _user("break_vpn"), _user("disconnect_vpn"))
    over_wifi = _user("set_wifi_calling", enabled=True, mms_over_wifi=True)
    wifi_calling = _one("bad_wifi_calling", over_wifi, _user("toggle_wifi_calling"))
    bad_apn, bad_mmsc = (
        _one(name, _user(name), _user("reset_apn_settings"), reboot)
        for name in ("break_apn_settings", "break_apn_mms_setting")
    )
    refused_apps = (
        _refused("sms_permission", "sms"),
        _refused("storage_permission", "storage"),
        _refused("both_permissions", "sms", "storage"),
    )

    # What the line has wrong, or the line and the phone.
    abroad, toggle = _user(_LOCATION, abroad=True), _user("toggle_roaming")
    on, off = _user("turn_roaming_on"), _user("turn_roaming_off")
    allow, forbid = _agent("enable_roaming", **line), _agent("disable_roaming", **line)
    roaming = (
        Fault("user_abroad_roaming_enabled_off", (abroad, off, allow), (toggle,)),
        Fault("user_abroad_roaming_disabled_on", (abroad, on, forbid, search), (allow,)),
        Fault("user_abroad_roaming_disabled_off", (abroad, off, forbid, search), (allow, toggle)),
    )
    refuel = _agent("refuel_data", **line, gb_amount=_REFUEL_GB)
    used, used_more = (
        _agent("set_data_usage", **line, data_used_gb=round(who.limit_gb + more, 1))
        for more in (_OVER_GB, _REFUEL_GB + _OVER_GB)
    )
    amount = {**line, "expected_amount": who.refuelled_gb + _REFUEL_GB}
    usage = (
        Fault("data_usage_exceeded", (used,), (refuel,), (Check(AGENT, "assert_data_refueling_amount", amount),)),
        Fault(_NO_REFUEL, (refuel, used_more), None),
    )
    unpaid, ended = (
        _agent("suspend_line_for_overdue_bill", **line, new_bill_id=_BILL, contract_ended=ended)
        for ended in (False, True)
    )
    request = _agent("send_payment_request", customer_id=who.customer_id, bill_id=_BILL)
    pay_and_resume = request, _user("make_payment"), _agent("resume_line", **line), reboot
    suspension = (
        Fault("overdue_bill_suspension", (unpaid, search), pay_and_resume),
        Fault("contract_end_suspension", (ended, search), None),
    )

    # What each complaint may come from, and what ends it.
    opening = (_user("set_user_info", name=who.name, phone_number=who.phone_number),)
    about = "" if who.line_id == FILE_LINE else who.line_id
    return (
        Family(
            "mobile_data_issue",
            (airplane, roaming, no_data, saver, old_network, slow_vpn, usage),
            complaint=1,
            opening=opening,
            solved=(
                Check(USER, "assert_mobile_data_status", {"expected_status": True}),
                Check(USER, "assert_internet_speed", {"expected_speed": 200, "expected_desc": "excellent"}),
            ),
            unsolved=(
                Check(USER, "assert_mobile_data_status", {"expected_status": False}),
                Check(USER, "assert_internet_speed", {"expected_speed": 0}),
            ),
            about=about,
        ),
        Family(
            "service_issue",
            (airplane, no_sim, locked_sim, bad_apn, suspension),
            complaint=0,
            opening=opening,
            solved=(
                _service("connected", "Service status is not as expected"),
                Check(AGENT, "assert_no_overdue_bill", {"overdue_bill_id": _BILL}, "Overdue bill is not as expected"),
            ),
            unsolved=(_service("no_service"),),
            about=about,
        ),
        Family(
            "mms_issue",
            (airplane, no_sim, no_data, usage, roaming, old_network, wifi_calling, bad_mmsc, refused_apps),
            complaint=5,
            opening=opening,
            solved=(Check(USER, "assert_can_send_mms", {"expected_status": True}),),
            unsolved=(Check(USER, "assert_can_send_mms", {"expected_status": False}),),
            about=about,
        ),
    )


def _user(name: str, /, **arguments: Json) -> Deed:
    return Deed(USER, name, arguments)


def _agent(name: str, /, **arguments: Json) -> Deed:
    return Deed(AGENT, name, arguments)


def _one(name: str, cause: Deed, *fixes: Deed) -> tuple[Fault]:
    """A choice of one fault."""
    return (Fault(name, (cause,), fixes),)


def _refused(name: str, *permissions: str) -> Fault:
    apps = [{"app_name": "messaging", "permission": permission} for permission in permissions]
    causes = tuple(_user("remove_app_permission", **app) for app in apps)
    return Fault(f"break_app_{name}", causes, tuple(_user("grant_app_permission", **app) for app in apps))


def _service(status: str, message: str | None = None) -> Check:
    return Check(USER, "assert_service_status", {"expected_status": status}, message)


# ------------------------------------------------------------------------------------- the splits
def released(made: Iterable[Composition]) -> list[Composition]:
    """Those that the file has: all but those whose data nobody refuels."""
    return [one for one in made if all(fault.name != _NO_REFUEL for fault in one.faults)]


def base(made: Iterable[Composition]) -> list[Composition]:
    """Those of the split that is scored, in the order in which they are drawn."""
    return released(sample_bins(made, random.Random(_BASE_SEED), _BASE_SIZE))


# ------------------------------------------------------------------------------------------ words
def texts_of(tasks: Sequence[Mapping[str, Json]], desk: Mapping[str, Json]) -> Texts:
    """The words of a copy of tasks.json, with name and number of whom a composition is about.

    ValueError, at the first composition whose family, place or persona the copy has no task of.
    """
    told: dict[tuple[str, bool], Mapping[str, Json]] = {}
    personas: dict[str, Json] = {}
    for task in tasks:
        family, _, name = task["id"].removeprefix("[").partition("]")
        causes = task["initial_state"]["initialization_actions"]
        told.setdefault((family, any(cause["func_name"] == _LOCATION for cause in causes)), task)
        personas.setdefault(name.rpartition("[PERSONA:")[2].removesuffix("]"), task["user_scenario"]["persona"])
    teller, others = subject(desk, FILE_LINE), {one.line_id: one for one in subjects(desk)}

    def texts(made: Composition) -> Mapping[str, Json]:
        away = any(cause.name == _LOCATION for fault in made.faults for cause in fault.causes)
        task, who = told.get((made.family.name, away)), others.get(made.family.about, teller)
        if task is None or made.persona not in personas:
            place = "abroad" if away else "at home"
            raise ValueError(f"the tasks at hand tell nothing of {made.family.name} {place}, persona {made.persona}")
        instructions = {key: _about(who, teller, text) for key, text in task["user_scenario"]["instructions"].items()}
        return {
            "description": task["description"],
            "user_scenario": {"persona": personas[made.persona], "instructions": instructions},
            "ticket": _about(who, teller, task["ticket"]),
        }

    return texts


def _about(who: Subject, teller: Subject, text: str | None) -> str | None:
    return text and text.replace(teller.name, who.name).replace(teller.phone_number, who.phone_number)
