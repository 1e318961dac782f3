"""What the records of telecom's desk look like: plans, customers, lines, bills, devices."""

from rods_jax.environments.tau2 import shapes
from rods_jax.types import Json

ITEM = shapes.record(
    "LineItem",
    {"description": shapes.text, "amount": shapes.number, "date": shapes.text, "item_type": shapes.text},
    closed=True,
)
BILL = shapes.record(
    "Bill",
    {
        "bill_id": shapes.text,
        "customer_id": shapes.text,
        "period_start": shapes.text,
        "period_end": shapes.text,
        "issue_date": shapes.text,
        "total_due": shapes.number,
        "due_date": shapes.text,
        "line_items": (shapes.items(ITEM), list),
        "status": (shapes.choice("Draft", "Issued", "Awaiting Payment", "Paid", "Overdue", "Disputed"), "Draft"),
    },
    closed=True,
)
_LINE = shapes.record(
    "Line",
    {
        "line_id": shapes.text,
        "phone_number": shapes.text,
        "status": (shapes.choice("Active", "Suspended", "Pending Activation", "Closed"), "Pending Activation"),
        "plan_id": shapes.text,
        "device_id": (shapes.maybe(shapes.text), None),
        "data_used_gb": (shapes.number, 0.0),
        "data_refueling_gb": (shapes.number, 0.0),
        "roaming_enabled": (shapes.boolean, False),
        "contract_end_date": (shapes.maybe(shapes.text), None),
        "last_plan_change_date": (shapes.maybe(shapes.text), None),
        "last_sim_replacement_date": (shapes.maybe(shapes.text), None),
        "suspension_start_date": (shapes.maybe(shapes.text), None),
    },
    closed=True,
)
_PLAN = shapes.record(
    "Plan",
    {
        "plan_id": shapes.text,
        "name": shapes.text,
        "data_limit_gb": shapes.number,
        "price_per_month": shapes.number,
        "data_refueling_price_per_gb": shapes.number,
    },
    closed=True,
)


def _moment(value: Json) -> str:
    """A date and a time as the hashed text has them, with a space between."""
    return shapes.text(value).replace("T", " ")


_DEVICE = shapes.record(
    "Device",
    {
        "device_id": shapes.text,
        "device_type": shapes.choice("phone", "router", "tablet", "watch", "other"),
        "model": shapes.text,
        "imei": (shapes.maybe(shapes.text), None),
        "is_esim_capable": shapes.boolean,
        "activated": (shapes.boolean, False),
        "activation_date": (shapes.maybe(_moment), None),
        "last_esim_transfer_date": (shapes.maybe(_moment), None),
    },
    closed=True,
)
_ADDRESS = shapes.record("Address", dict.fromkeys(("street", "city", "state", "zip_code"), shapes.text), closed=True)
_PAYMENT = shapes.record(
    "PaymentMethod",
    {
        "method_type": shapes.choice("Credit Card", "Debit Card", "PayPal"),
        "account_number_last_4": shapes.text,
        "expiration_date": shapes.text,
    },
    closed=True,
)
_ACCOUNT = shapes.choice("Active", "Suspended", "Pending Verification", "Closed")
_CUSTOMER = shapes.record(
    "Customer",
    {
        "customer_id": shapes.text,
        "full_name": shapes.text,
        "date_of_birth": shapes.text,
        "email": shapes.text,
        "phone_number": shapes.text,
        "address": _ADDRESS,
        "account_status": (_ACCOUNT, "Pending Verification"),
        "payment_methods": (shapes.items(_PAYMENT), list),
        "line_ids": (shapes.items(shapes.text), list),
        "bill_ids": (shapes.items(shapes.text), list),
        "created_at": (_moment, "2025-01-01 00:00:00"),
        "last_extension_date": (shapes.maybe(shapes.text), None),
        "goodwill_credit_used_this_year": (shapes.number, 0.0),
    },
    closed=True,
)
DESK = shapes.record(
    "TelecomDB",
    {
        "plans": (shapes.items(_PLAN), list),
        "customers": (shapes.items(_CUSTOMER), list),
        "lines": (shapes.items(_LINE), list),
        "bills": (shapes.items(BILL), list),
        "devices": (shapes.items(_DEVICE), list),
    },
    closed=True,
)
