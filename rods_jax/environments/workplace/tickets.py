"""Tickets: only an open ticket with an owner can be closed."""

from collections.abc import Sequence
from typing import Literal

from rods_jax.environments.workplace.vocabulary import Priority, Record, Result, find, history


class TicketId(Result):
    ticket_id: int


class TicketIds(Result):
    ticket_ids: list[int]


class Owner(Result):
    person: str


class Comments(Result):
    comments: int


class TicketStatus(Result):
    status: str


class Tickets:
    """Tickets of a help desk."""

    def __init__(self, tickets: Sequence[Record] = (), next_ticket_id: int = 1, long_context: bool = False):
        # {"ticket_id": int, "title": str, "priority": str, "status": str, "owner": str, "comments": [str]}
        self.tickets = list(tickets)
        self.next_ticket_id = next_ticket_id
        self._history = history("reported", long_context)

    def create_ticket(self, title: str, priority: Priority = "normal") -> TicketId:
        """Creates an open ticket without an owner.

        Args:
            title: What the ticket is about.
            priority: How pressing it is.
        """
        ticket_id = self.next_ticket_id
        self.next_ticket_id += 1
        self.tickets.append(
            {
                "ticket_id": ticket_id,
                "title": title,
                "priority": priority,
                "status": "open",
                "owner": "",
                "comments": [],
            }
        )
        return {"ticket_id": ticket_id, **self._history}

    def find_ticket(self, title: str) -> TicketId:
        """Finds the newest ticket with a title.

        Args:
            title: What the ticket is about.
        """
        return {"ticket_id": find(self.tickets, "title", title)["ticket_id"], **self._history}

    def find_owner(self, ticket_id: int) -> Owner:
        """Finds the person who owns a ticket.

        Args:
            ticket_id: The ticket.
        """
        return {"person": self._owned(ticket_id)["owner"], **self._history}

    def assign_ticket(self, ticket_id: int, person: str) -> Owner:
        """Gives an open ticket to a person.

        Args:
            ticket_id: The ticket.
            person: Its new owner.
        """
        ticket = find(self.tickets, "ticket_id", ticket_id)
        _require_status(ticket, "open")
        if ticket["owner"] == person:
            raise ValueError(f"{person} has ticket {ticket_id}")
        ticket["owner"] = person
        return {"person": person, **self._history}

    def comment_ticket(self, ticket_id: int, topic: str) -> Comments:
        """Adds a comment to an open ticket.

        Args:
            ticket_id: The ticket.
            topic: What the comment is about.
        """
        ticket = find(self.tickets, "ticket_id", ticket_id)
        _require_status(ticket, "open")
        ticket["comments"].append(topic)
        return {"comments": len(ticket["comments"]), **self._history}

    def close_ticket(self, ticket_id: int) -> TicketStatus:
        """Closes an open ticket that has an owner.

        Args:
            ticket_id: The ticket.
        """
        ticket = self._owned(ticket_id)
        _require_status(ticket, "open")
        ticket["status"] = "closed"
        return {"status": "closed", **self._history}

    def reopen_ticket(self, ticket_id: int) -> TicketStatus:
        """Opens a closed ticket again.

        Args:
            ticket_id: The ticket.
        """
        ticket = find(self.tickets, "ticket_id", ticket_id)
        _require_status(ticket, "closed")
        ticket["status"] = "open"
        return {"status": "open", **self._history}

    def list_tickets(self, kind: Literal["open", "closed"] = "open") -> TicketIds:
        """Lists the open or the closed tickets.

        Args:
            kind: Which tickets to list.
        """
        ids = [ticket["ticket_id"] for ticket in self.tickets if ticket["status"] == kind]
        return {"ticket_ids": ids, **self._history}

    def _owned(self, ticket_id: int) -> Record:
        ticket = find(self.tickets, "ticket_id", ticket_id)
        if not ticket["owner"]:
            raise ValueError(f"ticket {ticket_id} has no owner")
        return ticket


def _require_status(ticket: Record, status: str) -> None:
    if ticket["status"] != status:
        raise ValueError(f"ticket {ticket['ticket_id']} is {ticket['status']}")
