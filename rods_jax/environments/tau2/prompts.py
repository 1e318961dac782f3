"""What the agent and the user's model are told, byte for byte."""

import textwrap
from collections.abc import Mapping

from rods_jax.environments.tau2.data import Files, constant
from rods_jax.environments.tau2.domains import TauDomain
from rods_jax.environments.tau2.messages import TauTask
from rods_jax.types import Json

GREETING = "Hi! How can I help you today?"
_PERSONA = "<PERSONA_GUIDELINES>"  # a place in the guidelines that stays empty
_HEADINGS = {
    "reason_for_call": "Reason for call",
    "known_info": "Known info",
    "unknown_info": "Unknown info",
    "task_instructions": "Task instructions",
}


def agent_prompt(domain: TauDomain, ticket: str | None = None) -> str:
    """The agent's system message; with a ticket, that of an agent on its own. TauDataError: the words are not there."""
    name = "AGENT_INSTRUCTION" if ticket is None else "AGENT_SOLO_INSTRUCTION"
    instruction = constant(domain.files, "agent/llm_agent.py", name)
    policy = domain.policy if ticket is None else domain.solo_policy
    prompt = f"<instructions>\n{instruction}\n</instructions>\n<policy>\n{policy}\n</policy>"
    return prompt if ticket is None else f"{prompt}\n<ticket>\n{ticket}\n</ticket>"


def user_prompt(files: Files, task: TauTask, tools: bool) -> str:
    """The system message of the user's model; tools: it has some of its own."""
    guidelines = files.guidelines(tools).replace(_PERSONA, "")
    return f"{guidelines}\n\n<scenario>\n{scenario(task)}\n</scenario>"


def scenario(task: TauTask) -> str:
    """Persona and instructions, as the user's model reads them."""
    told = task.instructions if isinstance(task.instructions, str) else _sections(task.instructions)
    parts = [f"Persona:\n{_indented(task.persona)}"] if task.persona is not None else []
    return "\n".join([*parts, f"Instructions:\n{_indented(told)}"])


def _sections(instructions: Mapping[str, Json]) -> str:
    told = [(heading, instructions.get(field)) for field, heading in _HEADINGS.items()]
    parts = [f"{heading}:\n{_indented(body)}" for heading, body in told if body is not None]
    return "\n".join([f"Domain: {instructions.get('domain')}", *parts])


def _indented(body: str) -> str:
    return textwrap.indent(body, "\t")
