"""Which messages of a recorded dialogue carry loss (ToolMind, arXiv 2511.15718: quality by turn, not by dialogue).

    trajectories.export("sft.jsonl", records, tasks, domain, weighed(trajectories.chat))

A dialogue that succeeds may hold messages that nobody should learn.  They stay in it, because later ones answer them,
and get the weight 0, which trainers for chat messages read as context alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

from rods_jax.dialogue import Move, Record
from rods_jax.environments.protocol import Domain
from rods_jax.rewards import CALL_FAILED, CALLED, PARSE_ERROR
from rods_jax.types import Json, Task

Keep = Callable[[Sequence[Move], int], bool]  # (all messages of the policy, one's place) -> is it learned?


def repaired(moves: Sequence[Move], place: int) -> bool:
    """False for a message that failed, unless a later one of its turn ran: a mistake is kept with its correction."""
    failed = moves[place].code in (CALL_FAILED, PARSE_ERROR)
    return not failed or any(one.turn == moves[place].turn and one.code == CALLED for one in moves[place + 1 :])


def weighed(form: Callable[[Record, Task, Domain], dict[str, Json]], keep: Keep = repaired) -> Callable[..., Any]:
    """The form, `trajectories.chat`, with weight 0 on the policy's messages that `keep` refuses.

    A message that has a weight already, as a greeting has, is none of the policy's.
    """

    def weighed_form(record: Record, task: Task, domain: Domain) -> dict[str, Json]:
        row = form(record, task, domain)
        own = [one for one in row["messages"] if one["role"] == "assistant" and "weight" not in one]
        for place, message in enumerate(own):
            if not keep(record.moves, place):
                message["weight"] = 0
        return row

    return weighed_form
