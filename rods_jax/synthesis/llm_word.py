"""Stages III and V by a language model: the whole dialogue in one pass, and the value that it withholds."""

import random
from collections.abc import Mapping, Sequence

from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.ask import Ask
from rods_jax.synthesis.attempt import Attempt
from rods_jax.synthesis.augment import Gap, augment
from rods_jax.synthesis.errors import CONVERSATION_CONSTRUCT_FAILED
from rods_jax.synthesis.execute import ExecutedCall, Execution
from rods_jax.synthesis.llm_execute import call_data, wordings
from rods_jax.synthesis.plan import Plan
from rods_jax.synthesis.structure import ToldValues, check_words, told_values
from rods_jax.synthesis.told import check_query, numbers_are_told
from rods_jax.synthesis.values import mentions
from rods_jax.types import Task, Turn


def rewrite_by_model(ask: Ask, attempt: Attempt, plan: Plan, execution: Execution) -> tuple[str, ...]:
    """One query for each turn, which names every value that nothing else tells (RODS section 5, C.3).

    Rejected: "conversation_construct_failed" after 3 replies with another number of queries, or unusable ones;
    "structure_lost" where the last one names what must flow, or does not name what must not.
    """
    said: list[ToldValues] = []
    done: list[ExecutedCall] = []
    for turn in execution.turns:
        said.append(told_values(attempt, done, turn))
        done += turn
    data = {
        "narrative": plan.narrative,
        "turns": [[call_data(call) for call in turn] for turn in execution.turns],
        "wordings": wordings(attempt, execution.turns),
        "must_name": [list(turn.named) for turn in said],
        "must_not_name": [list(turn.unnamed) for turn in said],
    }

    def read(parts: Mapping[str, str]) -> tuple[str, ...]:
        turns = []
        for number, calls in enumerate(execution.turns, 1):
            gold = tuple(call.call for call in calls)
            turns.append(Turn(check_query(attempt.domain, parts[f"query_{number}"], gold), gold))
        task = Task("", "", attempt.profile.category, execution.world, tuple(turns))
        untold = numbers_are_told(attempt.domain, task)
        if untold is not None:
            raise ValueError(f"{untold} (turns counted from 0)")
        check_words(attempt, turns)
        return tuple(turn.user for turn in turns)

    count = len(execution.turns)
    return ask(attempt, "rewriter", data, read, failed=CONVERSATION_CONSTRUCT_FAILED, count=count)


def withhold(ask: Ask, attempt: Attempt, execution: Execution, queries: tuple[str, ...]) -> tuple[Turn, ...]:
    """The turns, with what the category withholds. Rejected("conversation_construct_failed"): nothing can be."""

    def word(
        domain: Domain, calls: Sequence[ExecutedCall], gap: Gap, rng: random.Random, turns: Sequence[Turn]
    ) -> tuple[str, str]:
        *earlier, turn = (turn.user for turn in turns)
        data = {
            "earlier_queries": earlier,
            "query": turn,
            "calls": [call_data(call) for call in calls],
            "function": calls[gap.call].tool,
            "parameter": gap.parameter,
            "value": gap.value,
        }

        def read(parts: Mapping[str, str]) -> tuple[str, str]:
            gold = [call.call for call in calls]
            query, supply = (check_query(domain, parts[part], gold) for part in ("query", "supply"))
            if mentions(query, gap.value) or not mentions(supply, gap.value):
                raise ValueError("the value must stand in the supply and not in the query")
            check_words(attempt, [*turns[:-1], Turn(query), Turn(supply, tuple(gold))])
            return query, supply

        return ask(attempt, "withholder", data, read, failed=CONVERSATION_CONSTRUCT_FAILED)

    profile = attempt.profile
    withholds = attempt.domain.strata[profile.category].withholds
    return augment(attempt.domain, execution, queries, withholds, profile.withheld_turn, attempt.rng, word)
