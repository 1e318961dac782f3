"""One attempt at a task: written, gated, verified, played and judged; and what its failure says about whom."""

import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rods_jax.dialogue import Record, play
from rods_jax.environments.foreign import told
from rods_jax.evolution.draft import base_of, task_of
from rods_jax.evolution.gate import require_sound
from rods_jax.evolution.ground import Ground
from rods_jax.evolution.ledger import Halted
from rods_jax.evolution.pairs import PlanPair
from rods_jax.evolution.roles import TASK, TRAJECTORY, Complaints, Roles, Verdict
from rods_jax.synthesis.errors import PIPELINE_EXCEPTION, Rejected
from rods_jax.task_files import content_hash
from rods_jax.types import Task

# Why an attempt brought no task, beside the names of the gate and of drafts.
DUPLICATE = "duplicate"  # the same as an accepted task, but for numbers
BY_VERIFIER = "verifier"  # the task verifier refused it
BY_CHECKER = "checker"  # no trial satisfied the checker
JUDGED_TASK, JUDGED_TRAJECTORY = "judged_task", "judged_trajectory"  # the trajectory verifier refused the dialogue
SAME = "it has the same content as an accepted task, but for numbers"
UNFULFILLED = "a dialogue that serves the user fails the checker"


@dataclass(frozen=True)
class Tried:
    """What became of one attempt."""

    pair: str
    version: int
    task: Task | None  # None: no draft could be read, or it names what does not exist
    error: str = ""  # empty: it is accepted
    detail: str = ""
    verdict: Verdict | None = None  # of the task verifier
    judged: Verdict | None = None  # of the trajectory verifier, on the last trial
    trial: Record | None = None


@dataclass(frozen=True)
class Checking:
    """How attempts are made."""

    verifies: bool = True  # False: no task verifier and no trajectory verifier (ablation)
    audits: bool = True  # tasks that the verifier refuses are played too, so that its harshness shows
    trials: int = 1  # dialogues that may fail through no fault of the task


def attempt(ground: Ground, roles: Roles, pair: PlanPair, unit: str, checking: Checking) -> Tried:
    """Writes a task of the pair's slice and finds out whether it is one.  All chance follows from `unit`."""
    task, verdict = None, None
    try:
        # Write it, and let the gate find what is mechanically wrong.
        base = base_of(ground, unit)
        draft = roles.write(pair, base, random.Random(f"write/{unit}"))
        task = task_of(ground, base, draft)
        require_sound(ground, task)
        # Ask the verifier; then play it.
        verdict = roles.verify(pair, task) if checking.verifies else Verdict(True)
        if not verdict.accepted and not checking.audits:
            return Tried(pair.name, pair.version, task, BY_VERIFIER, verdict.reason, verdict)
        return _tried(ground, roles, pair, task, verdict, checking)
    except Rejected as rejected:
        return Tried(pair.name, pair.version, task, rejected.error, rejected.detail, verdict)
    except Halted:
        raise
    except Exception as error:  # what a model wrote may break a domain's own code
        return Tried(pair.name, pair.version, task, PIPELINE_EXCEPTION, told(error), verdict)


def _tried(ground: Ground, roles: Roles, pair: PlanPair, task: Task, verdict: Verdict, checking: Checking) -> Tried:
    """Plays the task until a dialogue is good, or the trials are used up."""
    domain = ground.played_with(roles.user(pair, task))
    for number in range(checking.trials):
        record = play(domain, task, number, roles.assistant(pair, task))
        if record.failure:
            raise Rejected(PIPELINE_EXCEPTION, f"the trial broke: {record.failure}")
        judged = roles.judge(pair, task, record) if checking.verifies else Verdict(True)
        found = Tried(pair.name, pair.version, task, *_error(verdict, judged, record), verdict, judged, record)
        if not found.error or judged.fault != TRAJECTORY:
            break
    return found


def _error(verdict: Verdict, judged: Verdict, record: Record) -> tuple[str, str]:
    """(error, detail); empty where verifier, trajectory verifier and checker all accept."""
    if not verdict.accepted:
        return BY_VERIFIER, verdict.reason
    if not judged.accepted:
        return (JUDGED_TASK if judged.fault == TASK else JUDGED_TRAJECTORY), judged.reason
    return ("", "") if all(record.rods) else (BY_CHECKER, UNFULFILLED)


def likeness(task: Task) -> str:
    """What two tasks share that are the same but for numbers: the user's words and both sides' gold."""
    said = json.dumps([task.turns[0].user, task.world.options["gold"]], sort_keys=True, ensure_ascii=False)
    return re.sub(r"\d+", "0", said)  # letters are not escaped: an escape holds digits


def without_duplicates(outcomes: Iterable[Tried], before: Iterable[Task]) -> list[Tried]:
    """In their order: of tasks that are alike the first counts, unless one stood before."""
    seen, kept = {key for task in before for key in _keys(task)}, []
    for one in outcomes:
        keys = _keys(one.task) if one.task is not None and not one.error else ()
        if seen.isdisjoint(keys):
            seen.update(keys)
            kept.append(one)
        else:
            kept.append(replace(one, error=DUPLICATE, detail=SAME))
    return kept


def _keys(task: Task) -> tuple[str, str]:
    """What no two tasks of a file may share; the second makes their ids."""
    return likeness(task), content_hash(task)


# -------------------------------------------------------------------------------------- what it says
def is_fine(one: Tried) -> bool:
    """Whether trial, trajectory verifier and checker found nothing wrong, whatever the verifier thinks."""
    return one.trial is not None and all(one.trial.rods) and one.judged is not None and one.judged.accepted


def complaints_of(outcomes: Sequence[Tried]) -> Complaints:
    """Each failure, as a sentence, goes to the side at fault.

    The verifier refused it, and nothing was found wrong: the rubric is too harsh.  The verifier let it pass, and the
    trial blames the task: the task is at fault, and the rubric is too lax.  The dialogue was bad: the trial's
    instructions.  A verifier said nothing usable: nobody is.  Anything else: the synthesis plan.
    """
    task, trajectory, harsh, lax = list[str](), list[str](), list[str](), list[str]()
    for one in outcomes:
        match one.error:
            case "" | "pipeline_exception":
                pass  # nothing failed, or a server
            case "unreadable" if one.task is not None:
                pass  # a verifier's reply: the task may be fine
            case "verifier":
                (harsh if is_fine(one) else task).append(one.detail)
            case "judged_trajectory":
                trajectory.append(one.detail)
            case "judged_task" | "checker":
                task.append(one.detail)
                lax.append(one.detail)
            case _:
                task.append(one.detail)
    return Complaints(tuple(task), tuple(trajectory), tuple(harsh), tuple(lax))


def acceptance(outcomes: Sequence[Tried]) -> float:
    """Accepted tasks per attempt."""
    return sum(not one.error for one in outcomes) / max(1, len(outcomes))


def agreement(outcomes: Sequence[Tried]) -> float | None:
    """How often verifier and trial agree on a task, where the dialogue itself is not to blame. None: no such trial."""
    both = [
        one.verdict.accepted == is_fine(one)
        for one in outcomes
        if one.verdict is not None and one.trial is not None and (one.judged is None or one.judged.fault != TRAJECTORY)
    ]
    return sum(both) / len(both) if both else None
