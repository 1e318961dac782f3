"""All tasks with their gold traces, and the official BFCL executor and checker as oracles.

Those evaluate text: only for calls that tests make.
"""

from collections.abc import Mapping, Sequence
from functools import cache

from bfcl_eval.eval_checker.multi_turn_eval import multi_turn_utils
from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import multi_turn_checker

from rods_jax.environments import bfcl
from rods_jax.environments.scoring import gold_trace
from rods_jax.types import Call, Task

Steps = Sequence[Sequence[Call]]  # of one turn


@cache
def tasks():
    return bfcl.load_tasks()


@cache
def domain():
    return bfcl.bfcl_domain()


@cache
def trace(index):
    return gold_trace(domain(), tasks()[index])


def text(call: Call) -> str:
    return f"{call.name}({', '.join(f'{key}={value!r}' for key, value in call.arguments.items())})"


def verdict(task: Task, turns: Sequence[Steps], name: str) -> bool:
    """Whether the checker calls the trajectory valid; `name` must not have been used for this task before."""
    entry = {"id": task.id, "initial_config": task.world.state, "involved_classes": list(task.world.classes)}
    gold = [[text(call) for call in turn.gold] for turn in task.turns]
    decoded = [[[text(call) for call in step] for step in steps] for steps in turns]
    try:
        return multi_turn_checker(decoded, gold, entry, task.category, name)["valid"]
    finally:
        forget()


def execute(task: Task, calls: Sequence[Call], name: str) -> list[str]:
    """What the executor answers; live objects stay until `forget`."""
    texts = [text(call) for call in calls]
    state: Mapping = task.world.state
    outputs, _ = multi_turn_utils.execute_multi_turn_func_call(
        texts, state, list(task.world.classes), name, task.id, "long_context" in task.world.options
    )
    return outputs


def forget() -> None:
    """Drops the live objects, which the official executor keeps in its module's globals."""
    for key in [key for key in vars(multi_turn_utils) if key.endswith("_instance")]:
        del vars(multi_turn_utils)[key]
