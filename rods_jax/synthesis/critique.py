"""Stage IV: deterministic gates; each returns None or the reason why a task is refused (RODS section 5).

A quality judge is one more gate.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence

from rods_jax.environments.protocol import Domain
from rods_jax.environments.scoring import turn_passed, turns_passed
from rods_jax.synthesis.arguments import is_modest
from rods_jax.synthesis.profile import Profile, extract_profile, profile_match
from rods_jax.synthesis.values import holds
from rods_jax.task_files import content_hash
from rods_jax.types import Task

Gate = Callable[[Domain, Task], str | None]


def available_tools(domain: Domain, task: Task) -> str | None:
    """Every gold call uses a tool of the task's classes that no later turn releases."""
    hidden = set(task.withheld_tools)
    visible = {tool.name for tool in domain.tools_of(task.world.classes)}
    if not visible - hidden:
        return "no tool is left at the start"
    for index, turn in enumerate(task.turns):
        hidden -= set(turn.released_tools)
        for call in turn.gold:
            if call.name not in visible or call.name in hidden:
                return f"{call.name} is not available in turn {index}"
    return None


def modest_arguments(domain: Domain, task: Task) -> str | None:
    """Strings of at most 200 characters and lists of at most 5 items, at every depth."""
    for turn in task.turns:
        for call in turn.gold:
            if not is_modest(call.arguments):
                return f"{call.name}: an argument is too large"
    return None


def distinct_calls(domain: Domain, task: Task) -> str | None:
    """No turn makes the same call twice."""
    for turn in task.turns:
        for index, call in enumerate(turn.gold):
            if call in turn.gold[:index]:
                return f"{call.name} twice with the same arguments"
    return None


def executable(domain: Domain, task: Task) -> str | None:
    """All gold calls run on a new simulator."""
    simulator = domain.simulator(task.world)
    for turn in task.turns:
        for call in turn.gold:
            observation = simulator.call(call)
            if not observation.ok:
                return f"{call.name}: {observation.text[:200]}"
    return None


def gold_passes(domain: Domain, task: Task) -> str | None:
    """The gold answer passes every turn."""
    passed = turns_passed(domain, task, [turn.gold for turn in task.turns], turn_passed)
    return None if all(passed) else f"gold fails in turn {passed.index(False)}"


def silence_fails(domain: Domain, task: Task) -> str | None:
    """An agent that never calls a tool passes no turn that asks for calls, and there is one."""
    passed = turns_passed(domain, task, [() for _ in task.turns], turn_passed)
    asking = [index for index, turn in enumerate(task.turns) if turn.gold]
    if not asking:
        return "no turn asks for a call"
    return next((f"silence passes turn {index}" for index in asking if passed[index]), None)


def plain_queries(domain: Domain, task: Task) -> str | None:
    """No query is empty or names a tool by its snake_case or camelCase identifier."""
    names = [name for name in domain.tools if re.search(r"_|[a-z][A-Z]", name)]
    for index, turn in enumerate(task.turns):
        if not turn.user.strip():
            return f"turn {index} has no query"
        for name in names:
            if name in turn.user and holds(turn.user, name):
                return f"turn {index} names {name}"
    return None


GATES: tuple[Gate, ...] = (
    available_tools,
    modest_arguments,
    distinct_calls,
    plain_queries,
    executable,
    gold_passes,
    silence_fails,
)


def has_profile(profile: Profile) -> Gate:
    """Gate: the task has this profile, in every part."""

    def same_profile(domain: Domain, task: Task) -> str | None:
        match = profile_match(extract_profile(domain, task), profile)
        differing = [part for part, value in match.items() if value != 1]
        return f"differs from its seed in {', '.join(differing)}" if differing else None

    return same_profile


def is_new(known_hashes: Collection[str]) -> Gate:
    """Gate: no known task has the same content."""

    def unseen(domain: Domain, task: Task) -> str | None:
        return "same content as a known task" if content_hash(task) in known_hashes else None

    return unseen


def critique(domain: Domain, task: Task, gates: Sequence[Gate]) -> tuple[str, str] | None:
    """(name of the first gate that refuses, its reason), or None."""
    for gate in gates:
        reason = gate(domain, task)
        if reason is not None:
            return gate.__name__, reason
    return None


Known = Callable[[Iterable[Task]], frozenset[str]]  # (pool and queue) -> hashes of what no candidate may repeat


def known_contents(held_out: Iterable[Task]) -> Known:
    """Content hashes that no candidate may repeat: those of held-out tasks and of `tasks`.  Each id is hashed once."""
    avoid = frozenset(map(content_hash, held_out))
    hashes: dict[str, str] = {}

    def known(tasks: Iterable[Task]) -> frozenset[str]:
        tasks = list(tasks)
        hashes.update((task.id, content_hash(task)) for task in tasks if task.id not in hashes)
        return avoid | {hashes[task.id] for task in tasks}

    return known
