"""Rule-based roles for the help desk that are imperfect in known ways, so that the loop can be seen to work without a model.

The writer slips (slips.py).  The verifiers overlook what their rubric does not name, and refuse for a reason of taste that
the rubric does not forbid.  The dialogues fail at set rates, which fall with the trial's instructions.  Nothing else tells
a role what to do.  A verifier sees a part of what `defects` knows, by chance; the loop knows verdicts alone.
"""

import random
from collections.abc import Mapping, Sequence

from rods_jax.chat import Generate
from rods_jax.config import Habits
from rods_jax.dialogue import Act as Play
from rods_jax.dialogue import Record, Said
from rods_jax.environments.conversation import Reason, User
from rods_jax.environments.helpdesk.demonstrator import demonstrator
from rods_jax.environments.helpdesk.phrases import claims
from rods_jax.environments.helpdesk.user import Dials, by_rules
from rods_jax.evolution.ground import Ground
from rods_jax.evolution.pairs import PlanPair
from rods_jax.evolution.roles import ALLOW, REJECT, TASK, TRAJECTORY, Roles, Verdict, plan_by_rules, reflect_by_rules
from rods_jax.evolution.slips import COMPLAINTS, MISREPORTS, NEGLECTS, TASTE, Rates, defects, heeds, write
from rods_jax.task_files import content_hash
from rods_jax.types import Message, Task


def make_imperfect(ground: Ground, backends: Mapping[str, Generate], rates: Rates = Rates()) -> Roles:
    """The roles; partial(make_imperfect, ground) is a MakeRoles. No backend is asked."""
    return Roles(
        plan=lambda name, earlier, refusals, rng: plan_by_rules(ground, name, earlier, refusals, rng),
        write=lambda pair, base, rng: write(rates, pair, base, rng),
        verify=lambda pair, task: verify(ground, rates, pair, task),
        assistant=lambda pair, task: assistant(rates, pair, task),
        user=lambda pair, task: user(rates, pair),
        judge=lambda pair, task, record: judge(ground, rates, pair, task, record),
        reflect=reflect_by_rules,
    )


# ---------------------------------------------------------------------------------------- verifiers
def verify(ground: Ground, rates: Rates, pair: PlanPair, task: Task) -> Verdict:
    """Looks at the task alone."""
    rng = _noise("verify", pair, task)
    for kind in sorted(defects(ground, task)):
        if rng.random() < (rates.seen if _rejects(pair.rubric, kind) else 1 - rates.overlooked):
            return Verdict(False, COMPLAINTS[kind])
    if rng.random() < rates.taste and not any(line.startswith(ALLOW) and heeds([line], TASTE) for line in pair.rubric):
        return Verdict(False, COMPLAINTS[TASTE])
    return Verdict(True)


def judge(ground: Ground, rates: Rates, pair: PlanPair, task: Task, record: Record) -> Verdict:
    """Looks at the dialogue: whether the user was helped, who is to blame where it was not, and at the user's words."""
    rng = _noise("judge", pair, task)
    for kind in sorted(defects(ground, task)):
        if rng.random() < (rates.seen if _rejects(pair.rubric, kind) else 1 - rates.overlooked):
            return Verdict(False, COMPLAINTS[kind], TASK)
    if record.blame == "user":
        return Verdict(False, COMPLAINTS[MISREPORTS], TRAJECTORY)
    said = [text for move in record.moves for text in move.observations]
    tested = [text for text in said if text.startswith("user's tool: internet")]
    helped = record.ended == Reason.USER_STOP and (
        any(call.name == "hand_over" for move in record.moves for call in move.calls)
        or bool(tested)
        and claims(tested[-1]) == {"internet": "up", "speed": "fast"}
    )
    return Verdict(True) if helped else Verdict(False, COMPLAINTS[NEGLECTS], TRAJECTORY)


def _rejects(rubric: Sequence[str], kind: str) -> bool:
    return any(line.startswith(REJECT) and heeds([line], kind) for line in rubric)


def _noise(who: str, pair: PlanPair, task: Task) -> random.Random:
    """Follows from what is judged and by which text, as a model's verdict would at temperature 0."""
    return random.Random(f"{who}/{content_hash(task)}/{pair.rubric}")


# -------------------------------------------------------------------------------------------- trial
def assistant(rates: Rates, pair: PlanPair, task: Task) -> Play:
    """The demonstrator, with habits that the trial's instructions take away."""
    rate = rates.neglects * (rates.heeded if heeds(pair.trial, NEGLECTS) else 1)
    play = demonstrator(task, Habits(stop_early=rate, skip=rate), random.Random(f"play/{task.id}/{pair.trial}"))

    def act(messages: Sequence[Message]) -> Said:
        action = play(messages)
        return Said(action.answer, action)

    return act


def user(rates: Rates, pair: PlanPair) -> User:
    return by_rules(Dials(misreads=rates.misreports * (rates.heeded if heeds(pair.trial, MISREPORTS) else 1)))
