"""A task of the help desk as tau2-bench's files have tasks, so that others can play it.

The data of both sides is whole, and an episode succeeds where both databases end as after the gold calls (basis DB).
"""

from rods_jax.environments.conversation import AGENT
from rods_jax.environments.helpdesk.faults import gold
from rods_jax.environments.helpdesk.world import account_of, composition_of
from rods_jax.types import Json, Task

_HOW = "Do what you are asked, and say what you see."
_SIDES = {True: "assistant", False: "user"}


def told(task: Task) -> str:
    """What a model that speaks for the user is told."""
    return f"{_HOW} {task.turns[0].user}"


def tau2_entry(task: Task) -> dict[str, Json]:
    """An entry of tasks.json."""
    composition, account = composition_of(task), account_of(task)
    return {
        "id": task.id,
        "description": {"purpose": composition.name, "relevant_policies": None, "notes": None},
        "user_scenario": {
            "persona": None,
            "instructions": {
                "domain": "helpdesk",
                "reason_for_call": task.turns[0].user,
                "known_info": f"Your account is {account}.",
                "unknown_info": None,
                "task_instructions": _HOW,
            },
        },
        "ticket": None,
        "initial_state": {
            "initialization_data": {"agent_data": task.world.state["Desk"], "user_data": task.world.state["Home"]},
            "initialization_actions": None,
            "message_history": None,
        },
        "evaluation_criteria": {
            "actions": [
                {
                    "action_id": f"{call.name}_{place}",
                    "requestor": _SIDES[who == AGENT],
                    "name": call.name,
                    "arguments": dict(call.arguments),
                    "info": None,
                    "compare_args": None,
                }
                for place, (who, call) in enumerate(gold(composition, account))
            ],
            "env_assertions": None,
            "communicate_info": None,
            "nl_assertions": None,
            "reward_basis": ["DB"],
        },
    }
