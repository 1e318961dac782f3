"""Telecom: a provider's desk and a customer's phone, which see each other through the line.

telecom_tools.py has the desk, phone_tools.py the phone, telecom_faults.py what is wrong with it in the tasks.
"""

from rods_jax.environments.tau2 import phone
from rods_jax.environments.tau2.data import Files
from rods_jax.environments.tau2.database import Base, Database
from rods_jax.environments.tau2.environment import Environment
from rods_jax.environments.tau2.phone_records import PHONE
from rods_jax.environments.tau2.phone_tools import TelecomUserTools
from rods_jax.environments.tau2.telecom_records import DESK
from rods_jax.environments.tau2.telecom_tools import TelecomTools
from rods_jax.types import Json


def bases(desk: Json, owner: Json) -> tuple[Base, Base]:
    """What db.toml and user_db.toml hold, as the bases of all episodes; missing parts of a phone take their defaults.

    ShapeError: they are of another shape.
    """
    whole = {"device": {}, "surroundings": {}, **owner}
    return Base("TelecomDB", DESK, desk), Base("TelecomUserDB", PHONE, whole)


def environment(desk: Base, owner: Base, solo: bool = False) -> Environment:
    """A fresh episode."""
    return Environment(TelecomTools(Database(desk)), TelecomUserTools(Database(owner)), see_each_other, solo)


def policy(files: Files, workflow: bool = False, solo: bool = False) -> str:
    """What the agent must follow: the main rules, and how to mend a phone. TauDataError: the files are not there."""
    alone = "_solo" if solo else ""
    support = f"tech_support_workflow{alone}" if workflow else "tech_support_manual"
    rules, steps = (files.text("telecom", f"{name}.md") for name in (f"main_policy{alone}", support))
    return f"<main_policy>\n{rules}\n</main_policy>\n<tech_support_policy>\n{steps}\n</tech_support_policy>"


def see_each_other(episode: Environment) -> None:
    """What the line and the bills do to the phone, and a payment to the bill. ValueError: the number is no line's."""
    desk, owner = episode.agent, episode.user
    if not isinstance(desk, TelecomTools) or not isinstance(owner, TelecomUserTools):
        raise TypeError("telecom has two sides")
    number = owner.around["phone_number"]
    if number is None:
        return
    line = desk.line_by_phone(number)
    limit = desk.plan_of(line)["data_limit_gb"] + line["data_refueling_gb"]
    seen: dict[str, Json] = {
        "line_active": line["status"] == "Active",
        "roaming_allowed": line["roaming_enabled"],
        "mobile_data_usage_exceeded": line["data_used_gb"] >= limit,
    }
    request = owner.around["payment_request"]
    if request is not None and request["paid"]:
        desk.set_bill_status(request["bill_id"], "Paid")
        request = None
    if request is None:
        bill = desk.awaited_bill(number)
        request = phone.payment_request(bill["bill_id"], bill["total_due"]) if bill else None
    seen["payment_request"] = request
    if any(owner.around[name] != value for name, value in seen.items()):
        owner.db.write("surroundings").update(seen)
