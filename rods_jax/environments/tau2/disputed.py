"""Tasks of tau2-bench whose gold no policy can reach, or must guess: scores are told with them, and without.

The list is of today's task files, known by their version; of other files nothing is said.  A task is on it for one of two reasons:

- playing the gold calls here does not score 1;
- a public report on tau2-bench calls the gold wrong, and the task and the database bear it out.

Left out on purpose: reports that the data contradict.  amazon-agi/tau2-bench-verified, for example, has other gold calls for
retail 18 and 91, but its variants are sold out in today's database; for retail 49, but its item is not of the order that the
user speaks of; and for airline 33, but a gold member's bags are free.
"""

from collections.abc import Mapping

from rods_jax.environments.tau2.data import Files

DISPUTED: Mapping[str, tuple[str, Mapping[str, str]]] = {  # domain -> version of its tasks, id -> why
    "mock": (
        "0d8bcd14",
        {
            "update_task_with_user_tools": "an assertion wants a message read that the database must hold unread",
            "update_task_with_history_and_env_assertions": "an assertion wants a change that no gold call makes",
        },
    ),
    "retail": (
        "8e03ebce",
        {
            "5": "what the user wants depends on how often the agent asks for a confirmation",
            "10": "the user insists on returning both orders, and the gold returns none",
            "105": "the user cannot pay for both exchanges that it wants, and the gold leaves out the one that it can",
        },
    ),
}


def disputed(files: Files, domain: str) -> Mapping[str, str]:
    """Task id -> why its gold is disputed; empty where the task file is another one."""
    version, reasons = DISPUTED.get(domain, ("", {}))
    return reasons if reasons and files.version(domain) == version else {}
