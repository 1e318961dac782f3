"""How an episode is scored: component by component, as officially, or with the official scorer's faults mended.

    score = grade(domain, task, messages, "user_stop", OFFICIAL, judge)
    score.reward                # the product of the components that the task lists
    score.components            # {"DB": 1.0, "COMMUNICATE": 0.0}

The parts, in this order: the ending; the databases, against those that the gold calls leave; the assertions; the gold
calls; what the agent said; what a judge says of it.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, repeat
from typing import NamedTuple

from rods_jax.environments.tau2.domains import TauDomain
from rods_jax.environments.tau2.environment import Environment
from rods_jax.environments.tau2.messages import AGENT, TOOL, Assertion, GoldCall, Message, TauTask, ToolCall

SCORED_ENDINGS = "user_stop", "agent_stop"
TRANSFER = "transfer_to_human_agents"
COMPONENTS = "DB", "ENV_ASSERTION", "ACTION", "COMMUNICATE", "NL_ASSERTION"

Judge = Callable[[Sequence[str], Sequence[Message]], Sequence[bool]]  # whether each statement is true of a dialogue


class ScoringRules(NamedTuple):
    """Where the official scorer can be misled, each mended where True."""

    own_success_counts: bool = False  # a gold call that the other side made, or that failed, is not made
    all_arguments_count: bool = False  # officially only those that the policy gave: with none, any call matches
    numbers_are_numbers: bool = False  # officially "9" is in "1942.10"
    raising_assertion_fails: bool = False  # officially the episode cannot be scored
    data_stay_apart: bool = False  # officially a task's data for one side give both sides one database
    hasty_transfer_fails: bool = False  # officially a transfer before all else solves what cannot be repaired
    tools_are_mended: bool = False  # officially every item of an order that is changed becomes the last new one


OFFICIAL = ScoringRules()
STRICT = ScoringRules(*[True] * len(ScoringRules._fields))


class ScoringError(ValueError):
    """An episode that cannot be scored; one sentence."""


class Score(NamedTuple):
    """The reward, and what it is made of. Components that a task does not list are diagnostics."""

    reward: float
    components: Mapping[str, float] = {}  # that the task lists, evaluated
    databases: tuple[bool, bool] | None = None  # agent's and user's equal the gold's
    assertions: tuple[bool, ...] | None = None
    actions: tuple[bool, ...] | None = None  # by gold call
    communicated: tuple[bool, ...] | None = None  # by text that the user needs
    statements: tuple[bool, ...] | None = None  # by the judge
    hasty_transfer: bool = False

    @property
    def success(self) -> bool:
        return is_success(self.reward)


def is_success(reward: float) -> bool:
    """The reward is 1, to a millionth."""
    return 1 - 1e-6 <= reward <= 1 + 1e-6


def grade(
    domain: TauDomain,
    task: TauTask,
    messages: Sequence[Message],
    ending: str,
    rules: ScoringRules = OFFICIAL,
    judge: Judge | None = None,
    solo: bool = False,
) -> Score:
    """The score of a dialogue, which begins with the task's own history.

    reward in {0, 1}: the product of `components`.  ScoringError: the dialogue cannot be replayed, an assertion raises,
    or the task needs a judge and there is none.
    """
    criteria = task.criteria
    if ending not in SCORED_ENDINGS:
        return Score(0.0)
    if criteria is None:
        return Score(1.0)
    # Both sides' databases, and the assertions.
    score, part, failing = Score(1.0), {}, set[int]()
    if criteria.actions is not None or criteria.assertions is not None:
        try:
            played = _replayed(domain, task, messages, rules, solo)
            gold_environment, failing = _gold(domain, task, rules)
            databases = played.same(gold_environment)
            assertions = tuple(_holds(played, assertion, rules) for assertion in criteria.assertions or ())
        except Exception as error:
            raise ScoringError(f"tau2 task {task.id} cannot be scored: {type(error).__name__}: {error}") from error
        score = score._replace(databases=databases, assertions=assertions)
        part = {"DB": all(databases), "ENV_ASSERTION": all(assertions)}
    # Gold calls, and what was said.
    made = _calls_with_success(messages)
    said = [message.text for message in messages if message.role == AGENT and message.text]
    wanted, needed = criteria.actions or (), criteria.communicate or ()
    actions = tuple(
        any(
            (succeeded or place in failing or not rules.own_success_counts) and matches(gold, call, rules)
            for call, succeeded in made
        )
        for place, gold in enumerate(wanted)
    )
    communicated = tuple(any(is_said(text, one, rules) for one in said) for text in needed)
    score = score._replace(actions=actions or None, communicated=communicated or None)
    part |= {"ACTION": all(actions), "COMMUNICATE": all(communicated)}
    # What only a judge can tell.
    if "NL_ASSERTION" in criteria.basis:
        statements = _judged(task, messages, judge)
        score = score._replace(statements=statements or None)
        part["NL_ASSERTION"] = all(statements)
    components = {name: float(part[name]) for name in COMPONENTS if name in criteria.basis and name in part}
    reward = math.prod(components.values())
    hasty = is_hasty_transfer(messages)
    return score._replace(
        reward=0.0 if hasty and rules.hasty_transfer_fails else reward, components=components, hasty_transfer=hasty
    )


def checks(score: Score) -> tuple[bool, ...]:
    """What a task asked for, one by one: progress is the share that holds. Empty: the ending could not be scored."""
    parts = {
        "DB": score.databases and (all(score.databases),),
        "ENV_ASSERTION": score.assertions,
        "ACTION": score.actions,
        "COMMUNICATE": score.communicated,
        "NL_ASSERTION": score.statements,
    }
    return tuple(one for name in score.components for one in parts[name] or ())


# ---------------------------------------------------------------------------------------- databases
def _replayed(
    domain: TauDomain, task: TauTask, messages: Sequence[Message], rules: ScoringRules, solo: bool
) -> Environment:
    environment = domain.environment(solo=solo)
    environment.set_up(task.start, messages, apart=rules.data_stay_apart, mended=rules.tools_are_mended)
    return environment


def _gold(domain: TauDomain, task: TauTask, rules: ScoringRules) -> tuple[Environment, set[int]]:
    """After the gold calls, and which of them fail: these are left out, and nothing is synchronised, as officially."""
    environment, failing = domain.environment(), set[int]()
    environment.set_up(task.start, task.start.history, apart=rules.data_stay_apart, mended=rules.tools_are_mended)
    for place, gold in enumerate((task.criteria and task.criteria.actions) or ()):
        try:
            environment.perform(gold.side, gold.name, gold.arguments)
        except Exception:
            failing.add(place)
    return environment, failing


def _holds(environment: Environment, assertion: Assertion, rules: ScoringRules) -> bool:
    try:
        return environment.check(assertion)
    except Exception:
        if rules.raising_assertion_fails:
            return False
        raise


# -------------------------------------------------------------------------------- calls and words
def matches(gold: GoldCall, call: ToolCall, rules: ScoringRules = OFFICIAL) -> bool:
    """Whether a call is the gold one: the same name, and equal arguments among those compared."""
    if call.name != gold.name or (rules.own_success_counts and call.requestor != gold.side):
        return False
    if gold.compared is not None:
        compared = set(gold.compared)
    elif rules.all_arguments_count:
        return all(call.arguments.get(k) == gold.arguments.get(k) for k in {*call.arguments, *gold.arguments})
    else:
        compared = set(call.arguments)
    mine, wanted = ({k: v for k, v in one.arguments.items() if k in compared} for one in (call, gold))
    return mine == wanted


def is_said(wanted: str, text: str, rules: ScoringRules = OFFICIAL) -> bool:
    """Whether a message tells the user something: it contains it, but for case and for commas in the message."""
    if not rules.numbers_are_numbers:
        return wanted.lower() in text.lower().replace(",", "")
    if number := _NUMBER.fullmatch(wanted.strip().lstrip("$")):
        return _value(number[0]) in map(_value, _NUMBER.findall(text))
    plain, within = (" ".join(one.lower().replace(",", "").split()) for one in (wanted, text))
    return re.search(rf"(?<!\w){re.escape(plain)}(?!\w)", within) is not None


_NUMBER = re.compile(r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")  # commas: of thousands alone


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _judged(task: TauTask, messages: Sequence[Message], judge: Judge | None) -> tuple[bool, ...]:
    statements = (task.criteria and task.criteria.statements) or ()
    if not statements:
        return ()
    if judge is None:
        raise ScoringError(f"tau2 task {task.id} has {len(statements)} statements that only a judge can decide")
    verdicts = tuple(map(bool, judge(statements, messages)))
    if len(verdicts) != len(statements):
        raise ScoringError(
            f"tau2 task {task.id}: the judge gave {len(verdicts)} verdicts on {len(statements)} statements"
        )
    return verdicts


def is_hasty_transfer(messages: Sequence[Message]) -> bool:
    """Whether the first call that succeeded, of either side, hands the user over."""
    return next((call.name == TRANSFER for call, succeeded in _calls_with_success(messages) if succeeded), False)


def _calls_with_success(messages: Sequence[Message]) -> list[tuple[ToolCall, bool]]:
    """All calls of both sides in their order, each with whether it succeeded; one without a result did not."""
    calls = [call for message in messages for call in message.calls or ()]
    results = (not message.error for message in messages if message.role == TOOL)
    return list(zip(calls, chain(results, repeat(False))))
