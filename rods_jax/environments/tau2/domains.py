"""The domains of tau2-bench by name, each over the user's files."""

import functools
from collections.abc import Callable
from typing import NamedTuple

from rods_jax.environments.tau2 import airline, airline_records, mock, retail, telecom
from rods_jax.environments.tau2.data import Files
from rods_jax.environments.tau2.database import Base, Database
from rods_jax.environments.tau2.environment import Environment
from rods_jax.environments.tau2.specs import tool_specs
from rods_jax.environments.tau2.toolkit import Toolkit
from rods_jax.types import ToolSpec


class TauDomain(NamedTuple):
    """One domain, ready to start episodes."""

    name: str
    folder: str  # of its files
    files: Files
    policy: str  # what the agent must follow
    solo_policy: str | None  # the same for an agent that has both sides' tools; None: there is no such task
    agent: type[Toolkit]
    user: type[Toolkit] | None
    environment: Callable[..., Environment]  # (solo=False) -> a fresh one, for the cost of two small objects

    def agent_tools(self) -> tuple[ToolSpec, ...]:
        return tool_specs(self.agent, self.files, self.folder)

    def user_tools(self) -> tuple[ToolSpec, ...]:
        return () if self.user is None else tool_specs(self.user, self.files, self.folder)


@functools.cache
def mock_domain(files: Files) -> TauDomain:
    agent = Base("MockDB", mock.AGENT_DB, files.json("mock", "db.json"))
    user = Base("MockUserDB", mock.USER_DB, files.json("mock", "user_db.json"))

    def environment(solo: bool = False) -> Environment:
        return Environment(mock.MockTools(Database(agent)), mock.MockUserTools(Database(user)), solo=solo)

    policy, solo_policy = files.text("mock", "policy.md"), files.text("mock", "policy_solo.md")
    return TauDomain("mock", "mock", files, policy, solo_policy, mock.MockTools, mock.MockUserTools, environment)


@functools.cache
def airline_domain(files: Files) -> TauDomain:
    return _one_sided(
        files, "airline", Base("FlightDB", airline_records.DB, files.json("airline", "db.json")), airline.AirlineTools
    )


@functools.cache
def retail_domain(files: Files) -> TauDomain:
    return _one_sided(files, "retail", Base("RetailDB", retail.DB, files.json("retail", "db.json")), retail.RetailTools)


@functools.cache
def telecom_domain(files: Files, workflow: bool = False) -> TauDomain:
    """workflow: the agent follows the steps of a workflow, not a manual."""
    name = "telecom-workflow" if workflow else "telecom"
    environment = functools.partial(telecom.environment, *_telecom_bases(files))
    policy, solo_policy = (telecom.policy(files, workflow, solo) for solo in (False, True))
    agent, user = telecom.TelecomTools, telecom.TelecomUserTools
    return TauDomain(name, "telecom", files, policy, solo_policy, agent, user, environment)


@functools.cache
def _telecom_bases(files: Files) -> tuple[Base, Base]:
    return telecom.bases(files.toml("telecom", "db.toml"), files.toml("telecom", "user_db.toml"))


def _one_sided(files: Files, name: str, base: Base, agent: type[Toolkit]) -> TauDomain:
    """A domain whose users have no tools."""

    def environment(solo: bool = False) -> Environment:
        if solo:
            raise ValueError(f"{name} has no solo mode")
        return Environment(agent(Database(base)))

    return TauDomain(name, name, files, files.text(name, "policy.md"), None, agent, None, environment)


DOMAINS: dict[str, Callable[[Files], TauDomain]] = {
    "mock": mock_domain,
    "airline": airline_domain,
    "retail": retail_domain,
    "telecom": telecom_domain,
    "telecom-workflow": functools.partial(telecom_domain, workflow=True),
}
