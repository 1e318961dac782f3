"""Who does what: six roles as callables, what they hand to each other, and a planner and a reflection by rules.

A role that cannot do its work raises Rejected, which is counted.  All chance comes from the `rng` that it is given.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from rods_jax.chat import Generate
from rods_jax.dialogue import Act as Play
from rods_jax.dialogue import Record
from rods_jax.environments.conversation import User
from rods_jax.evolution.draft import Draft
from rods_jax.evolution.ground import Ground
from rods_jax.evolution.pairs import MAX_LINES, PlanPair, Slice, least_used
from rods_jax.types import Task, World

TASK, TRAJECTORY = "task", "trajectory"  # whose fault a bad dialogue is


@dataclass(frozen=True)
class Verdict:
    """What a verifier thinks."""

    accepted: bool
    reason: str = ""  # of a refusal
    fault: str = ""  # of a refused dialogue: TASK or TRAJECTORY


class Complaints(NamedTuple):
    """What went wrong with a version of a pair, by the side at fault: sentences, each as often as it was said."""

    task: tuple[str, ...] = ()  # for the synthesis plan
    trajectory: tuple[str, ...] = ()  # for the trial's instructions
    harsh: tuple[str, ...] = ()  # the verifier refused tasks for this, and trial and checker found nothing wrong
    lax: tuple[str, ...] = ()  # the verifier let this pass, and the trial showed it


class Roles(NamedTuple):
    """Everyone who takes part."""

    plan: Callable[[str, Sequence[PlanPair], Sequence[str], random.Random], PlanPair]  # (name, earlier, refusals, rng)
    write: Callable[[PlanPair, World, random.Random], Draft]
    verify: Callable[[PlanPair, Task], Verdict]  # by the rubric, before anything is played
    assistant: Callable[[PlanPair, Task], Play]  # both play as the pair's trial says
    user: Callable[[PlanPair, Task], User]
    judge: Callable[
        [PlanPair, Task, Record], Verdict
    ]  # a dialogue, by the rubric; it is not told what the checker says
    reflect: Callable[[PlanPair, Complaints, Sequence[str]], PlanPair]  # (pair, complaints, lines that did worse)


# (backends by role) -> Roles.  Made anew for each unit of work, whose replies are remembered apart.
MakeRoles = Callable[[Mapping[str, Generate]], Roles]


# ---------------------------------------------------------------------------------------- by rules
def plan_by_rules(
    ground: Ground, name: str, earlier: Sequence[PlanPair], refusals: Sequence[str], rng: random.Random, width: int = 3
) -> PlanPair:
    """The tools, clauses and styles that earlier pairs use least; a refused slice is drawn again."""
    tools, clauses = (
        rng.sample([*ground.domain.tools], len(ground.domain.tools)),
        rng.sample(ground.clauses, len(ground.clauses)),
    )
    used = Counter(one for pair in earlier for one in (*pair.slice.tools, *pair.slice.clauses, pair.slice.style))
    part = Slice(
        tuple(least_used(tools, used, width)),
        tuple(least_used(clauses, used, 1)),
        least_used(ground.styles, used, 1)[0],
        (len(earlier) % 3 + 1, len(earlier) % 3 + 2),
    )
    return PlanPair(
        name,
        part,
        (f"Write tasks that need {', '.join(part.tools)}.", f"The user is {part.style}."),
        ("Play the task to its end.",),
        ("Accept a task that a real customer could have.",),
    )


LINES_A_ROUND = 3  # of each part
AVOID, REJECT, ALLOW = (
    "See to it that this does not happen: ",
    "Reject where this holds: ",
    "Do not reject because of this: ",
)


def reflect_by_rules(pair: PlanPair, complaints: Complaints, worse: Sequence[str]) -> PlanPair:
    """The complaints that came most often become instructions, in their own words, to the side at fault.

    A line that did worse before is not written again.  A complaint that was allowed is no ground for rejection, and the
    other way round: the later line takes the place of the earlier one.
    """

    def with_lines(lines: Sequence[str], kind: str, said: Sequence[str]) -> tuple[str, ...]:
        new = [f"{kind}{gist}" for gist in counted(said)]
        new = [line for line in new if line not in lines and line not in worse][:LINES_A_ROUND]
        bare = {line.removeprefix(kind) for line in new}
        kept = [line for line in lines if not any(line == f"{other}{one}" for other in (REJECT, ALLOW) for one in bare)]
        return (*kept, *new)[-MAX_LINES:]

    rubric = with_lines(with_lines(pair.rubric, ALLOW, complaints.harsh), REJECT, complaints.lax)
    return replace(
        pair,
        synthesis=with_lines(pair.synthesis, AVOID, complaints.task),
        trial=with_lines(pair.trial, AVOID, complaints.trajectory),
        rubric=rubric,
    )


def gist(sentence: str) -> str:
    """What complaints of a kind have in common: the sentence up to a colon, without numbers and quoted values."""
    plain = re.sub(r"(?<!\w)'[^']*'(?!\w)|\d+", "...", sentence.partition(":")[0])  # an apostrophe quotes nothing
    return re.sub(r"\s+", " ", plain).strip()[:200]


def counted(complaints: Sequence[str]) -> dict[str, int]:
    """How often each gist was said, the most frequent first."""
    return dict(Counter(map(gist, complaints)).most_common())
