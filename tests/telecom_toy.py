"""A small made-up provider for telecom's desk and phone."""

from rods_jax.environments.tau2 import telecom
from rods_jax.environments.tau2.messages import AGENT, USER
from rods_jax.environments.tau2.telecom_faults import FILE_LINE

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
