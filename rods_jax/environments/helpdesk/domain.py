"""HELPDESK: the help desk as a Domain, with a user whose error rates are the domain's, or with a model as its user.

`customer` is its other side: there a policy learns to be the user, and the demonstrator is the agent.
"""

from functools import partial

from rods_jax.chat import Generate
from rods_jax.environments.conversation import Conversation, User, conversations
from rods_jax.environments.helpdesk.demonstrator import demonstrator
from rods_jax.environments.helpdesk.errors import blamed, slips
from rods_jax.environments.helpdesk.faults import FAMILIES
from rods_jax.environments.helpdesk.tau2_format import tau2_entry, told
from rods_jax.environments.helpdesk.user import Dials, by_rules
from rods_jax.environments.helpdesk.world import TOOLKIT, USER_TOOLS, check_names, conversation, policy
from rods_jax.environments.protocol import Domain, Reading, Stratum
from rods_jax.environments.turned import agent_by, demonstrator_of, turned
from rods_jax.environments.users import model_user
from rods_jax.types import Task, ToolSpec


def helpdesk(dials: Dials = Dials(), model: Generate | None = None) -> Domain:
    """The domain; its strata are the families of faults.

    model: it speaks for the user in the place of the rules; nothing is then demonstrated, since that would ask it one
    message at a time.
    """
    user = by_rules(dials) if model is None else model_user(model, told, USER_TOOLS)
    return TOOLKIT._replace(
        tools={tool.name: tool for tool in TOOLKIT.tools_of(("Desk",))},
        strata={family: Stratum() for family in FAMILIES},
        start=conversations(partial(_make, user), waits=model is not None),
        demonstrator=demonstrator if model is None else None,
        reading=Reading(policy, told, user_tools, check_names, slips, tau2_entry),
    )


def user_tools(task: Task) -> tuple[ToolSpec, ...]:
    return USER_TOOLS


def customer(dials: Dials = Dials()) -> Domain:
    """The other side: its demonstrator is the user with these rates, and an agent without bad habits talks to it."""
    domain, user = helpdesk(dials), by_rules(dials)
    return turned(domain, USER_TOOLS, partial(_make, user), agent_by(demonstrator), demonstrator_of(user))


def _make(user: User, task: Task) -> Conversation:
    return conversation(task, user, blamed)


HELPDESK = helpdesk()
