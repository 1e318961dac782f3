"""The agent's side: the provider's customers, their lines, routers and bills.

Every result is a short line of `field value` pairs, so that a small policy can read it.
"""

from typing import Any, Literal

Reason = Literal["contract", "outage", "line", "router"]
Topic = Literal["billing", "line", "router", "wifi"]


def described(record: dict[str, Any], *fields: str) -> str:
    return ", ".join(f"{field} {record[field]}" for field in fields)


def new_account(name: str) -> dict[str, Any]:
    """A customer whose internet works."""
    return {
        "name": name,
        "status": "active",  # or suspended, ended
        "owes": 0,
        "billed": False,
        "area": "ok",  # or outage
        "router": "known",  # or unknown: the network lets it in only when it is known
        "firmware": "new",  # or old, which is slow
        "settings": 0,  # how often the provider has changed them; a router loads them as it restarts
        "port": "up",  # or locked, broken
        "speed": "full",  # or low
        "cap": "off",  # or on, which is slow
        "password": "set",  # or lost: the laptop cannot join
        "credit": 0,
        "tickets": [],
        "handed": "",
    }


class Desk:
    """The provider's customers."""

    def __init__(self, accounts: dict[str, Any] | None = None):
        self.accounts = accounts or {}

    def find_account(self, name: str) -> str:
        """Finds a customer's account number."""
        for number, record in self.accounts.items():
            if record["name"] == name:
                return f"account {number}"
        raise ValueError(f"no account of {name}")

    def get_account(self, account: int) -> str:
        """Shows contract, bill, area and router of an account."""
        return described(self._of(account), "status", "owes", "area", "router", "firmware")

    def test_line(self, account: int) -> str:
        """Measures the line of an account from the provider's side."""
        return described(self._of(account), "port", "speed", "cap", "password")

    def read_tickets(self, account: int) -> str:
        """Lists the open tickets of an account."""
        return ", ".join(self._of(account)["tickets"]) or "none"

    def send_bill(self, account: int) -> str:
        """Sends the customer the bill that is owed."""
        record = self._of(account)
        if not record["owes"]:
            raise ValueError("nothing is owed")
        record["billed"] = True
        return f"sent, owes {record['owes']}"

    def lift_suspension(self, account: int) -> str:
        """Activates a suspended account whose bill is paid; its router loads that as it restarts."""
        record = self._of(account)
        if record["status"] != "suspended" or record["owes"]:
            raise ValueError(described(record, "status", "owes"))
        record["status"] = "active"
        record["settings"] += 1
        return "status active"

    def add_router(self, account: int) -> str:
        """Lets the customer's router into the network; it loads that as it restarts."""
        return self._set(account, "router", "known", loaded=True)

    def push_firmware(self, account: int) -> str:
        """Sends the router new firmware; it loads that as it restarts."""
        return self._set(account, "firmware", "new", loaded=True)

    def reset_port(self, account: int) -> str:
        """Unlocks the port of a line."""
        if self._of(account)["port"] == "broken":
            raise ValueError("port broken")
        return self._set(account, "port", "up")

    def set_speed(self, account: int, speed: Literal["low", "full"]) -> str:
        """Sets the speed of a line."""
        return self._set(account, "speed", speed)

    def lift_cap(self, account: int) -> str:
        """Ends the slow rate after too much traffic."""
        return self._set(account, "cap", "off")

    def reset_password(self, account: int) -> str:
        """Sets a new wifi password, which the customer's laptop uses when it joins."""
        return self._set(account, "password", "set")

    def add_credit(self, account: int, amount: int) -> str:
        """Gives a customer money back."""
        self._of(account)["credit"] += amount
        return f"credit {self._of(account)['credit']}"

    def open_ticket(self, account: int, topic: Topic) -> str:
        """Opens a ticket."""
        self._of(account)["tickets"].append(topic)
        return f"ticket {topic}"

    def hand_over(self, account: int, reason: Reason) -> str:
        """Hands the case over to a technician, for what no agent can mend."""
        self._of(account)["handed"] = reason
        return f"handed over, {reason}"

    def _of(self, account: int) -> dict[str, Any]:
        if str(account) not in self.accounts:
            raise ValueError(f"no account {account}")
        return self.accounts[str(account)]

    def _set(self, account: int, field: str, value: str, loaded: bool = False) -> str:
        record = self._of(account)
        if loaded and record[field] != value:
            record["settings"] += 1
        record[field] = value
        return f"{field} {value}"
