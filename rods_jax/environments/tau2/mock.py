"""The domain `mock`: a to-do list, and a user with notifications."""

from typing import Literal

from rods_jax.environments.tau2.shapes import choice, items, maybe, record, table, text
from rods_jax.environments.tau2.toolkit import GENERIC, READ, WRITE, Toolkit, tool
from rods_jax.environments.tau2.values import Record

TASK = record(
    "Task",
    {"task_id": text, "title": text, "description": (maybe(text), None), "status": choice("pending", "completed")},
)
USER = record("User", {"user_id": text, "name": text, "tasks": items(text)})
NOTIFICATION = record(
    "Notification",
    {
        "notification_id": text,
        "message": text,
        "status": (choice("unread", "read"), "unread"),
        "task_id": (maybe(text), None),
    },
    closed=True,
)
AGENT_DB = record("MockDB", {"tasks": table(TASK), "users": table(USER)}, closed=True)
USER_DB = record("MockUserDB", {"notifications": (table(NOTIFICATION), dict)}, closed=True)


class MockTools(Toolkit):
    @tool(WRITE)
    def create_task(self, user_id: str, title: str, description: str | None = None) -> Record:
        """Adds a task to a user's list."""
        self._user(user_id)
        task_id = f"task_{self.db.count('tasks') + 1}"
        task = TASK({"task_id": task_id, "title": title, "description": description, "status": "pending"})
        self.db.put("tasks", task_id, task)
        self.db.write("users", user_id)["tasks"].append(task_id)
        return task

    @tool(READ)
    def get_users(self) -> list[Record]:
        """All users."""
        return [user for _, user in self.db.records("users")]

    @tool(WRITE)
    def update_task_status(self, task_id: str, status: Literal["pending", "completed"]) -> Record:
        """Sets the status of a task."""
        self._task(task_id)
        task = self.db.write("tasks", task_id)
        task["status"] = status
        return task

    @tool(GENERIC)
    def transfer_to_human_agents(self, summary: str) -> str:
        """Hands the user over to a person."""
        return "Transfer successful"

    def assert_number_of_tasks(self, user_id: str, expected_number: int) -> bool:
        return len(self._user(user_id)["tasks"]) == expected_number

    def assert_task_status(self, task_id: str, expected_status: str) -> bool:
        return self._task(task_id)["status"] == expected_status

    def _user(self, user_id: str) -> Record:
        return self.db.find("users", user_id, "User")

    def _task(self, task_id: str) -> Record:
        return self.db.find("tasks", task_id, "Task")


class MockUserTools(Toolkit):
    @tool(READ)
    def check_notifications(self) -> list[Record]:
        """All notifications in the inbox."""
        return [notification for _, notification in self.db.records("notifications")]

    @tool(WRITE)
    def dismiss_notification(self, notification_id: str) -> str:
        """Marks a notification as read."""
        self._notification(notification_id)
        self.db.write("notifications", notification_id)["status"] = "read"
        return f"Notification {notification_id} dismissed"

    def add_notification(self, notification_id: str, message: str, task_id: str | None = None) -> None:
        entry = {"notification_id": notification_id, "message": message, "task_id": task_id}
        self.db.put("notifications", notification_id, NOTIFICATION(entry))

    def assert_notification_status(self, notification_id: str, expected_status: str) -> bool:
        return self._notification(notification_id)["status"] == expected_status

    def _notification(self, notification_id: str) -> Record:
        return self.db.find("notifications", notification_id, "Notification")
