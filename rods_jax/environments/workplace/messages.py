"""Messages: whoever writes must be signed in."""

from collections.abc import Sequence

from rods_jax.environments.workplace.vocabulary import Priority, Record, Result, find, history


class MessageId(Result):
    message_id: int


class Sender(Result):
    person: str


class Topic(Result):
    topic: str


class Content(Result):
    person: str
    topic: str


class MessageCount(Result):
    messages: int


class Messages:
    """Messages between the people of an office."""

    def __init__(
        self,
        messages: Sequence[Record] = (),
        signed_in: str = "",
        next_message_id: int = 1,
        long_context: bool = False,
    ):
        # {"message_id": int, "person": str, "topic": str, "priority": str, "state": "new" | "read" | "sent"}
        self.messages = list(messages)
        self.signed_in = signed_in  # "" when nobody is
        self.next_message_id = next_message_id
        self._history = history("wrote", long_context)

    def sign_in(self, person: str) -> Sender:
        """Signs a person in; nobody else may be signed in.

        Args:
            person: Who signs in.
        """
        if self.signed_in:
            raise ValueError(f"{self.signed_in} is signed in")
        self.signed_in = person
        return {"person": person, **self._history}

    def sign_out(self) -> Sender:
        """Signs out whoever is signed in."""
        self._require_signed_in()
        person, self.signed_in = self.signed_in, ""
        return {"person": person, **self._history}

    def send_message(self, person: str, topic: str, priority: Priority = "normal") -> MessageId:
        """Sends a message; needs somebody signed in.

        Args:
            person: Who receives it.
            topic: What it is about.
            priority: How pressing it is.
        """
        self._require_signed_in()
        return {"message_id": self._send(person, topic, priority), **self._history}

    def reply_message(self, message_id: int, topic: str) -> Sender:
        """Answers a message; needs somebody signed in.

        Args:
            message_id: The message to answer.
            topic: What the answer is about.
        """
        message = find(self.messages, "message_id", message_id)
        self._require_signed_in()
        self._send(message["person"], topic, message["priority"])
        return {"person": message["person"], **self._history}

    def forward_message(self, message_id: int, person: str) -> Topic:
        """Passes a message on; needs somebody signed in.

        Args:
            message_id: The message to pass on.
            person: Who receives it.
        """
        message = find(self.messages, "message_id", message_id)
        self._require_signed_in()
        self._send(person, message["topic"], message["priority"])
        return {"topic": message["topic"], **self._history}

    def read_message(self, message_id: int) -> Content:
        """Shows a message, and marks a new one as read.

        Args:
            message_id: The message to show.
        """
        message = find(self.messages, "message_id", message_id)
        if message["state"] == "new":
            message["state"] = "read"
        return {"person": message["person"], "topic": message["topic"], **self._history}

    def find_message(self, person: str) -> MessageId:
        """Finds the newest message from or to a person.

        Args:
            person: Who wrote or received it.
        """
        return {"message_id": find(self.messages, "person", person)["message_id"], **self._history}

    def delete_message(self, message_id: int) -> MessageCount:
        """Deletes a message that is not new.

        Args:
            message_id: The message to delete.
        """
        message = find(self.messages, "message_id", message_id)
        if message["state"] == "new":
            raise ValueError(f"message {message_id} is new")
        self.messages.remove(message)
        return {"messages": len(self.messages), **self._history}

    def _require_signed_in(self) -> None:
        if not self.signed_in:
            raise ValueError("nobody is signed in")

    def _send(self, person: str, topic: str, priority: str) -> int:
        message_id = self.next_message_id
        self.next_message_id += 1
        message = {"message_id": message_id, "person": person, "topic": topic, "priority": priority}
        self.messages.append({**message, "state": "sent"})
        return message_id
