"""tau2-bench's tasks as what an evaluation plays: tau2-airline-test, tau2-telecom-base and the like, with their floors.

The user is a model behind a server of its own.  The floors need none: their user leaves after it was answered once.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from rods_jax.chat import Endpoint, http_generate
from rods_jax.dialogue import Act, Record, Said, null_player, play
from rods_jax.environments.conversation import STOP, Heard, Spoken, User, scripted
from rods_jax.environments.protocol import Domain
from rods_jax.environments.scoring import RODS
from rods_jax.environments.tau2 import data
from rods_jax.environments.tau2.disputed import disputed
from rods_jax.environments.tau2.domains import DOMAINS
from rods_jax.environments.tau2.episodes import split_tasks, tau2, told, user_tools
from rods_jax.environments.tau2.judge import agreeing, model_judge
from rods_jax.environments.tau2.messages import task_from_json
from rods_jax.environments.tau2.scoring import OFFICIAL, STRICT, TRANSFER
from rods_jax.environments.users import model_user
from rods_jax.types import Action, Call, Task

NAMES = re.compile(r"tau2-(?P<domain>[a-z]+(?:-workflow)?)-(?P<split>\w+)")
SCORING = {"official": OFFICIAL, "strict": STRICT}
_LEAVES = scripted([Spoken("I need help with my account."), Spoken(f"Never mind. {STOP}")])


class TauTasks(NamedTuple):
    """The tasks of a split, and who plays their users."""

    name: str  # with the version of the task file, the rules of scoring, and what was left out
    domain: Domain
    tasks: tuple[Task, ...]
    floors: Domain  # the same world, with a user that leaves and a judge that agrees to everything
    disputed: Mapping[str, str]  # task id -> why its gold is disputed


def tau2_tasks(chosen: str, user: Endpoint | None, judge: Endpoint | None, scoring: str, seed: int) -> TauTasks | None:
    """None: the name is not tau2-bench's.  TauDataError, ValueError: no such domain or split, or nobody plays the user.

    Without a judge, tasks with statements that only one can decide are left out, and counted in the name.
    """
    if (listing := listed(chosen)) is None:
        return None
    files, domain, every = listing
    if user is None:
        raise ValueError(
            f"--tasks {chosen}: name the server of the user's model in --user, and the model in --user-model"
        )
    rules = SCORING[scoring]
    judged = {task.id for task in every if needs_judge(task, domain)}
    tasks = every if judge else tuple(task for task in every if task.id not in judged)
    left = f", {len(judged)} with a judge" if judge else f", without {len(judged)} that need a judge"
    version = files.version(domain.removesuffix("-workflow"))
    name = f"{chosen}, tasks {version}, {scoring} scoring{left if judged else ''}"
    decides = model_judge(http_generate(judge, seed=seed)) if judge else None
    played = tau2(domain, files, served_user(files, domain, user, seed), rules, decides)
    known = {task.id: why for task in tasks if (why := disputed(files, domain).get(task.id))}
    return TauTasks(name, played, tasks, tau2(domain, files, _LEAVES, rules, agreeing), known)


def listed(chosen: str) -> tuple[data.Files, str, tuple[Task, ...]] | None:
    """(files, name of the domain, tasks of the split) of a name.  None, errors: as for `tau2_tasks`."""
    found = NAMES.fullmatch(chosen)
    if found is None:
        return None
    domain, split = found["domain"], found["split"]
    if domain not in DOMAINS:
        raise ValueError(f"--tasks {chosen}: tau2-bench has the domains {', '.join(DOMAINS)}")
    files = data.find()
    return files, domain, split_tasks(files, domain, split)


def silent(files: data.Files, domain: str) -> Domain:
    """The domain for those who only look: its user leaves, and no server is asked."""
    return tau2(domain, files, _LEAVES)


def needs_judge(task: Task, domain: str) -> bool:
    """Whether the reward of a task asks for statements about the dialogue."""
    criteria = task_from_json(task.world.state[domain]).criteria
    return criteria is not None and "NL_ASSERTION" in criteria.basis and bool(criteria.statements)


def served_user(files: data.Files, domain: str, endpoint: Endpoint, seed: int) -> User:
    """A model that reads the scenario of its task, and has the tools that the task gives its user."""
    known, generate = DOMAINS[domain](files), http_generate(endpoint, seed=seed)

    def user(heard: Heard) -> Spoken:
        tools = user_tools(known, heard.task)
        return model_user(generate, partial(told, known), tools, endpoint.url)(heard)

    return user


# --------------------------------------------------------------------------------------- the floors
def transfer_player(task: Task) -> Act:
    """Hands every customer over at once."""
    handed = iter([Action((Call(TRANSFER, {"summary": "The customer needs help."}),))])
    words = Action(answer="You are being transferred.")

    def act(messages) -> Said:
        action = next(handed, words)
        return Said(action.answer, action)

    return act


FLOORS = {"nothing done": null_player, "handed over at once": transfer_player}


def floor_records(domain: Domain, name: str, tasks: Sequence[Task]) -> list[Record]:
    """What a policy that looks at nothing scores.  domain: with a user that leaves."""
    return [play(domain, task, 0, FLOORS[name](task), RODS) for task in tasks]
