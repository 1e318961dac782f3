"""The thirteen tools of telecom's agent over customers, lines, bills and plans, and what set-up and checks call there.

The class and its parameters are named as the official ones, which errors quote.  Today is 2025-02-25.
Source: tau2-bench 1.0.1, domain telecom.
"""

from collections.abc import Callable

from rods_jax.environments.tau2.database import Key
from rods_jax.environments.tau2.telecom_records import BILL, ITEM
from rods_jax.environments.tau2.toolkit import GENERIC, READ, WRITE, Toolkit, tool
from rods_jax.environments.tau2.values import Record
from rods_jax.types import Json

TODAY = "2025-02-25"
_CYCLE_END = "2025-02-28"
_LAST_MONTH = {
    "period_start": "2025-01-01",
    "period_end": "2025-01-31",
    "issue_date": "2025-01-01",
    "due_date": "2025-01-15",
}
_NEXT_MONTH = {
    "period_start": "2025-03-01",
    "period_end": "2025-03-31",
    "issue_date": "2025-03-01",
    "due_date": "2025-03-15",
}
_ASKED = "Awaiting Payment"
_TOLERANCE_GB = 1e-6
_TABLES = {"L": "lines", "D": "devices", "B": "bills", "C": "customers", "P": "plans"}  # by first letter of an id


class TelecomTools(Toolkit):
    """The provider's desk."""

    # ----------------------------------------------------------------------------------- look-ups
    def _place(self, table: str, fits: Callable[[Record], bool], otherwise: str) -> Key:
        """Where the first record that fits stands. ValueError: none does."""
        for place, record in self.db.records(table):
            if fits(record):
                return place
        raise ValueError(otherwise)

    def _place_by_id(self, table: str, id: str) -> Key:
        field = f"{table[:-1]}_id"
        otherwise = f"{table[:-1].capitalize()} with ID {id} not found"
        return self._place(table, lambda record: record[field] == id, otherwise)

    def _by_id(self, table: str, id: str) -> Record:
        return self.db.read(table, self._place_by_id(table, id))

    def line_by_phone(self, phone_number: str) -> Record:
        otherwise = f"Line with phone number {phone_number} not found"
        place = self._place("lines", lambda line: line["phone_number"] == phone_number, otherwise)
        return self.db.read("lines", place)

    def plan_of(self, line: Record) -> Record:
        return self._by_id("plans", line["plan_id"])

    def _place_of_line(self, customer_id: str, line_id: str) -> Key:
        """Of a line that is the customer's own."""
        if line_id not in self.get_customer_by_id(customer_id)["line_ids"]:
            raise ValueError(f"Line {line_id} not found for customer {customer_id}")
        return self._place_by_id("lines", line_id)

    def _line(self, customer_id: str, line_id: str) -> Record:
        """Not to be changed."""
        return self.db.read("lines", self._place_of_line(customer_id, line_id))

    def _change_line(self, customer_id: str, line_id: str, **fields: Json) -> Record:
        line = self.db.write("lines", self._place_of_line(customer_id, line_id))
        line.update(fields)
        return line

    def bills_of(self, customer: Record, status: str) -> list[Record]:
        """In the order of the customer's list."""
        bills = [self._by_id("bills", id) for id in customer["bill_ids"]]
        return [bill for bill in bills if bill["status"] == status]

    def awaited_bill(self, phone_number: str) -> Record | None:
        """The first that the customer of a number is asked to pay."""
        if all(bill["status"] != _ASKED for _, bill in self.db.records("bills")):  # nearly always, and cheap to see
            return None
        return next(iter(self.bills_of(self.get_customer_by_phone(phone_number), _ASKED)), None)

    @tool(READ)
    def get_customer_by_phone(self, phone_number: str) -> Record:
        """The customer whose own number, or the number of one of whose lines, this is."""
        numbers = {line["line_id"]: line["phone_number"] for _, line in self.db.records("lines")}
        place = self._place(
            "customers",
            lambda customer: (
                customer["phone_number"] == phone_number
                or any(numbers.get(id) == phone_number for id in customer["line_ids"])
            ),
            f"Customer with phone number {phone_number} not found",
        )
        return self.db.read("customers", place)

    @tool(READ)
    def get_customer_by_id(self, customer_id: str) -> Record:
        """The customer of an id."""
        return self._by_id("customers", customer_id)

    @tool(READ)
    def get_customer_by_name(self, full_name: str, dob: str) -> list:
        """All customers of a name, in any case, and a date of birth."""
        wanted = full_name.lower(), dob
        customers = [customer for _, customer in self.db.records("customers")]
        return [one for one in customers if (one["full_name"].lower(), one["date_of_birth"]) == wanted]

    @tool(READ)
    def get_details_by_id(self, id: str) -> Record:
        """The line, device, bill, customer or plan of an id; its first letter says which."""
        for letter, table in _TABLES.items():
            if id.startswith(letter):
                return self._by_id(table, id)
        raise ValueError(f"Unknown ID format or type: {id}")

    # ----------------------------------------------------------------------- lines, bills, payments
    @tool(WRITE)
    def suspend_line(self, customer_id: str, line_id: str, reason: str) -> dict:
        """Suspends an active line."""
        if self._line(customer_id, line_id)["status"] != "Active":
            raise ValueError("Line must be active to suspend")
        line = self._change_line(customer_id, line_id, status="Suspended", suspension_start_date=TODAY)
        return {"message": "Line suspended successfully. $5/month holding fee will apply.", "line": line}

    @tool(WRITE)
    def resume_line(self, customer_id: str, line_id: str) -> dict:
        """Makes a line active that is suspended or waits for its activation."""
        if self._line(customer_id, line_id)["status"] not in ("Suspended", "Pending Activation"):
            raise ValueError("Line must be suspended to resume")
        line = self._change_line(customer_id, line_id, status="Active", suspension_start_date=None)
        return {"message": "Line resumed successfully", "line": line}

    @tool(READ)
    def get_bills_for_customer(self, customer_id: str, limit: int = 12) -> list:
        """The customer's bills, the latest first."""
        bills = [self._by_id("bills", id) for id in self.get_customer_by_id(customer_id)["bill_ids"]]
        return sorted(bills, key=lambda bill: bill["issue_date"], reverse=True)[:limit]

    @tool(WRITE)
    def send_payment_request(self, customer_id: str, bill_id: str) -> str:
        """Asks the customer to pay a bill, a paid one too; one bill at a time."""
        customer = self.get_customer_by_id(customer_id)
        if self.bills_of(customer, _ASKED):
            raise ValueError("A bill is already awaiting payment for this customer")
        if bill_id not in customer["bill_ids"]:
            raise ValueError(f"Bill {bill_id} not found for customer {customer_id}")
        self.set_bill_status(bill_id, _ASKED)
        return f"Payment request sent to the customer for bill {bill_id}"

    @tool(READ)
    def get_data_usage(self, customer_id: str, line_id: str) -> dict:
        """Data that a line used in this cycle, and what it may use."""
        line = self._line(customer_id, line_id)
        return {
            "line_id": line_id,
            "data_used_gb": line["data_used_gb"],
            "data_limit_gb": self.plan_of(line)["data_limit_gb"],
            "data_refueling_gb": line["data_refueling_gb"],
            "cycle_end_date": _CYCLE_END,
        }

    def _switch_roaming(self, customer_id: str, line_id: str, on: bool) -> str:
        state = "enabled" if on else "disabled"
        if self._line(customer_id, line_id)["roaming_enabled"] == on:
            return f"Roaming was already {state}"
        self._change_line(customer_id, line_id, roaming_enabled=on)
        return f"Roaming {state} successfully"

    @tool(WRITE)
    def enable_roaming(self, customer_id: str, line_id: str) -> str:
        """Lets a line be used abroad."""
        return self._switch_roaming(customer_id, line_id, True)

    @tool(WRITE)
    def disable_roaming(self, customer_id: str, line_id: str) -> str:
        """Keeps a line from being used abroad."""
        return self._switch_roaming(customer_id, line_id, False)

    @tool(GENERIC)
    def transfer_to_human_agents(self, summary: str) -> str:
        """Hands the customer over to a human agent."""
        return "Transfer successful"

    @tool(WRITE)
    def refuel_data(self, customer_id: str, line_id: str, gb_amount: float) -> dict:
        """Adds data to a line, and its price to the customer's next bill."""
        line = self._line(customer_id, line_id)
        if gb_amount <= 0:
            raise ValueError("Refuel amount must be positive")
        rate = self.plan_of(line)["data_refueling_price_per_gb"]
        charge = gb_amount * rate
        line = self._change_line(customer_id, line_id, data_refueling_gb=line["data_refueling_gb"] + gb_amount)
        self._charge(customer_id, charge, f"Data refueling: {gb_amount} GB at ${rate}/GB")
        return {
            "message": f"Successfully added {gb_amount} GB of data for line {line_id} for ${charge:.2f}",
            "new_data_refueling_gb": line["data_refueling_gb"],
            "charge": charge,
        }

    # -------------------------------------------------------------------------------------- bills
    def set_bill_status(self, bill_id: str, status: str) -> None:
        self.db.write("bills", self._place_by_id("bills", bill_id))["status"] = status

    def _charge(self, customer_id: str, amount: float, description: str) -> None:
        """One more item on the customer's draft bill, a new one where there is none."""
        drafts = self.bills_of(self.get_customer_by_id(customer_id), "Draft")
        bill_id = drafts[0]["bill_id"] if drafts else self._new_bill(self._unused_bill_id(), customer_id, _NEXT_MONTH)
        bill = self.db.write("bills", self._place_by_id("bills", bill_id))
        bill["line_items"].append(_charged(description, amount))
        bill["total_due"] += amount

    def _unused_bill_id(self) -> str:
        """Officially a random one."""
        known = {bill["bill_id"] for _, bill in self.db.records("bills")}
        return next(id for number in range(1, len(known) + 2) if (id := f"B{number:08d}") not in known)

    def _new_bill(self, bill_id: str, customer_id: str, month: dict[str, str], status: str = "Draft") -> str:
        made = BILL({"bill_id": bill_id, "customer_id": customer_id, "total_due": 0, "status": status, **month})
        self.db.append("bills", made)
        self.db.write("customers", self._place_by_id("customers", customer_id))["bill_ids"].append(bill_id)
        return bill_id

    # --------------------------------------------------------------------------------- for set-up
    def set_data_usage(self, customer_id: str, line_id: str, data_used_gb: float) -> None:
        self._change_line(customer_id, line_id, data_used_gb=data_used_gb)

    def suspend_line_for_overdue_bill(
        self, customer_id: str, line_id: str, new_bill_id: str, contract_ended: bool
    ) -> None:
        """An overdue bill of last month's plan price, and the line suspended for it.

        contract_ended: the line's contract ended with last month, so that it cannot be resumed by the policy's rules.
        """
        line = self._line(customer_id, line_id)
        if line["status"] != "Active":
            raise ValueError("Line must be active to suspend for unpaid bill")
        if self.bills_of(self.get_customer_by_id(customer_id), "Overdue"):
            raise ValueError("Customer already has an overdue bill")
        price = self.plan_of(line)["price_per_month"]
        self._new_bill(new_bill_id, customer_id, _LAST_MONTH, "Overdue")
        bill = self.db.write("bills", self.db.count("bills") - 1)
        bill["line_items"].append(_charged(f"Charge for line {line_id}", price))
        bill["total_due"] += price
        self._change_line(customer_id, line_id, status="Suspended", suspension_start_date=TODAY)
        if contract_ended:
            self._change_line(customer_id, line_id, contract_end_date=_LAST_MONTH["period_end"])

    # --------------------------------------------------------------------------------- assertions
    def assert_data_refueling_amount(self, customer_id: str, line_id: str, expected_amount: float) -> bool:
        """expected_amount: GB."""
        return abs(self._line(customer_id, line_id)["data_refueling_gb"] - expected_amount) < _TOLERANCE_GB

    def assert_line_status(self, customer_id: str, line_id: str, expected_status: str) -> bool:
        return self._line(customer_id, line_id)["status"] == expected_status

    def assert_overdue_bill_exists(self, customer_id: str, overdue_bill_id: str) -> bool:
        """ValueError, and never False: the customer has no such bill, or it is not overdue."""
        if overdue_bill_id not in self.get_customer_by_id(customer_id)["bill_ids"]:
            raise ValueError(f"Overdue bill {overdue_bill_id} not found")
        if self._by_id("bills", overdue_bill_id)["status"] != "Overdue":
            raise ValueError(f"Overdue bill {overdue_bill_id} is not overdue")
        return True

    def assert_no_overdue_bill(self, overdue_bill_id: str) -> bool:
        """Whether a bill is paid, or there is none of this id."""
        found = [bill for _, bill in self.db.records("bills") if bill["bill_id"] == overdue_bill_id]
        return not found or found[0]["status"] == "Paid"


def _charged(description: str, amount: float) -> Record:
    return ITEM({"description": description, "amount": amount, "date": TODAY, "item_type": "Charge"})
