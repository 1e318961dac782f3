"""HELPDESK: the help desk as a Domain, with a user whose error rates are the domain's."""

from functools import partial

from rods_jax.environments.conversation import Conversation, conversations
from rods_jax.environments.helpdesk.demonstrator import demonstrator
from rods_jax.environments.helpdesk.errors import blamed, slips
from rods_jax.environments.helpdesk.faults import FAMILIES
from rods_jax.environments.helpdesk.user import Dials, by_rules
from rods_jax.environments.helpdesk.world import TOOLKIT, check_names, conversation, policy
from rods_jax.environments.protocol import Domain, Reading, Stratum
from rods_jax.types import Task


def helpdesk(dials: Dials = Dials()) -> Domain:
    """The domain; its strata are the families of faults."""
    return TOOLKIT._replace(
        tools={tool.name: tool for tool in TOOLKIT.tools_of(("Desk",))},
        strata={family: Stratum() for family in FAMILIES},
        start=conversations(partial(_make, dials)),
        demonstrator=demonstrator,
        reading=Reading(policy, check_names, slips),
    )


def _make(dials: Dials, task: Task) -> Conversation:
    return conversation(task, by_rules(dials), blamed)


HELPDESK = helpdesk()
