"""How many of a sample of seeds an author finds a variant of, before a run relies on it; and what mends a failure."""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from rods_jax.synthesis import errors
from rods_jax.synthesis.attempt import UNSEEN
from rods_jax.synthesis.author import Order, Write
from rods_jax.task_files import content_hash
from rods_jax.types import Task

ATTEMPTS = 3  # for each seed, as in a run

# What the author of a domain can do, by the error type or the gate that ended an attempt.
REMEDIES: Mapping[str, str] = {
    errors.PARAM_GEN_FAILED: "let Domain.sample_argument draw the values that neither the state nor an output holds",
    errors.FUNC_SAMPLE_FAILED: "let states hold more (Domain.sample_state), so that calls find and change something",
    errors.VM_EXEC_FAILED: "let Domain.sample_argument draw values that the tools accept in this state",
    errors.NO_PATTERN: "type what tools return (TypedDict), and give a value the name of the parameter that takes it",
    errors.QUERY_GEN_FAILED: "give the tools wordings (Domain.phrases), and nouns to refer by (Domain.nouns)",
    errors.CONVERSATION_CONSTRUCT_FAILED: "give the class more tools, so that one can be withheld from a turn",
    errors.PIPELINE_EXCEPTION: "mend what raised: a function of the domain, most often",
    "plain_queries": "word requests without the tools' names: Domain.phrases",
    "silence_fails": "let gold calls change the state, or return what nobody could know",
    "gold_passes": "make the tools deterministic: gold played again led elsewhere",
    "modest_arguments": "let Domain.sample_argument draw shorter values",
    "same_profile": "give the tools wordings that name every argument: Domain.phrases",
    UNSEEN: "let states and arguments vary more: Domain.sample_state, Domain.sample_argument",
    "storable": "let states and arguments hold plain JSON alone: lists, and keys that are text",
    "far_from_held_out": "let states, arguments and wordings vary more: variants resemble held-out tasks",
}


@dataclass(frozen=True)
class Failing:
    """Attempts that ended for one reason."""

    attempts: int
    detail: str  # of the first of them
    remedy: str


@dataclass(frozen=True)
class Rehearsal:
    """What became of a sample of seeds."""

    seeds: int
    accepted: int
    failures: Mapping[str, Failing]  # by error type or gate, the most frequent first


def rehearse(write: Write, seeds: Sequence[Task], *, known: Collection[str], run_seed: int) -> Rehearsal:
    """Asks `write` for a variant of each seed, and keeps none.  known: content hashes that no variant may have."""
    contents, accepted = set(known), 0
    ended: dict[str, list[str]] = {}
    for seed in seeds:
        rng = random.Random(f"rehearsal {run_seed} {seed.id}")
        made = write(Order(seed), rng=rng, step=0, known_hashes=contents, attempts=ATTEMPTS)
        for rejection in made.rejections:
            ended.setdefault(rejection.error, []).append(rejection.detail)
        if made.candidate is not None:
            accepted += 1
            contents.add(content_hash(made.candidate))
    often = sorted(ended.items(), key=lambda item: -len(item[1]))
    failures = {name: Failing(len(details), details[0], REMEDIES.get(name, "")) for name, details in often}
    return Rehearsal(len(seeds), accepted, failures)
