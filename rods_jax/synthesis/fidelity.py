"""How faithful, varied and well placed a run's synthesised tasks are: one report from what the run recorded."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rods_jax.environments.protocol import Domain
from rods_jax.synthesis import errors
from rods_jax.synthesis.ablation import remembered_ablation
from rods_jax.synthesis.diversity import diversity
from rods_jax.synthesis.near_duplicates import NEAR, is_near, nearest, shingle_index
from rods_jax.synthesis.profile import extract_profile, longest_chain, profile_match
from rods_jax.synthesis.values import atoms, is_distinctive
from rods_jax.task_files import content_hash
from rods_jax.types import Json, Task

BAND = (0.25, 0.75)  # of the first measured mean reward: where the variance bound r(1-r) is above 3/4 of its peak

# The stage that raises each error, in the order of the pipeline.  Errors named after gates and judges are critique.
STAGE_ERRORS: Mapping[str, Sequence[str]] = {
    "plan": (errors.NO_PROMPTS, errors.NO_PATTERN, errors.LAYOUT_TOO_LONG, errors.DECOMPOSE_FAILED),
    "execute": (
        errors.PARAM_GEN_FAILED,
        errors.FUNC_SAMPLE_FAILED,
        errors.VM_EXEC_FAILED,
        errors.DUPLICATE_FUNC,
        errors.QUERY_GEN_FAILED,
        errors.QUERY_VERIFY_FAILED,
        errors.QUERY_VERIFY_NO_TAG,
        errors.STRUCTURE_LOST,
    ),
    "rewrite and augment": (errors.CONVERSATION_CONSTRUCT_FAILED,),
}


class DispatchedSeed(NamedTuple):
    """What became of one dispatched seed."""

    seed: Task
    dispatched: int  # step whose feedback chose the seed
    settled: int  # step that had the outcome
    candidate: Task | None
    errors: tuple[str, ...]  # of the attempts that failed, in order
    model_calls: int  # questions to language models, over all attempts


Accepted = tuple[DispatchedSeed, Task]  # and its candidate


class FirstMeasurement(NamedTuple):
    """A task's first training step and its mean reward there."""

    step: int
    mean: float


def fidelity_report(
    domain: Domain,
    outcomes: Sequence[DispatchedSeed],
    measured: Mapping[str, FirstMeasurement],
    held_out: Sequence[Task],
) -> dict[str, Json]:
    """The report as JSON values; shares are in [0, 1], latencies in training steps, None where there is nothing.

    KeyError: a gold call of a tool that the domain lacks.
    """
    accepted = [(outcome, outcome.candidate) for outcome in outcomes if outcome.candidate is not None]
    variants = [candidate for _, candidate in accepted]
    return {
        "acceptance": _acceptance(outcomes, domain.strata),
        "stages": _stages(outcomes),
        "latency": _latency(accepted, measured),
        "profile_match": _profile_match(domain, accepted),
        "diversity": _diversity(accepted),
        "boundary": _boundary(variants, measured),
        "leakage": _leakage(variants, held_out),
    }


def _acceptance(outcomes: Sequence[DispatchedSeed], strata: Iterable[str]) -> dict[str, Json]:
    """Over dispatches, and over distinct seeds; attempts and model calls of failed dispatches count as well."""

    def yields(some: Sequence[DispatchedSeed]) -> dict[str, Json]:
        num_accepted = sum(outcome.candidate is not None for outcome in some)
        seeds = {outcome.seed.id for outcome in some}
        fertile = {outcome.seed.id for outcome in some if outcome.candidate is not None}
        return {
            "dispatched": len(some),
            "accepted": num_accepted,
            "share": _ratio(num_accepted, len(some)),
            "seeds": len(seeds),
            "seeds_with_variant": _ratio(len(fertile), len(seeds)),
            "attempts_per_accepted": _ratio(num_accepted + sum(len(o.errors) for o in some), num_accepted),
            "model_calls_per_accepted": _ratio(sum(o.model_calls for o in some), num_accepted),
        }

    by_category = {c: yields([o for o in outcomes if o.seed.category == c]) for c in strata}
    return yields(outcomes) | {"by_category": by_category}


def _stages(outcomes: Sequence[DispatchedSeed]) -> dict[str, Json]:
    """Attempts that entered each stage, the share that passed it, and its errors.

    An exception may come from any stage, so those attempts are listed first and enter none.
    """
    found = Counter(error for outcome in outcomes for error in outcome.errors)
    staged = {errors.PIPELINE_EXCEPTION, *(name for names in STAGE_ERRORS.values() for name in names)}
    others = [name for name in found if name not in staged]
    entering = found.total() + sum(outcome.candidate is not None for outcome in outcomes)
    stages = {}
    for stage, names in {"any": (errors.PIPELINE_EXCEPTION,), **STAGE_ERRORS, "critique": others}.items():
        own = {name: found[name] for name in sorted(names, key=lambda name: (-found[name], name)) if found[name]}
        failed = sum(own.values())
        stages[stage] = {"attempts": entering, "passed": _ratio(entering - failed, entering), "errors": own}
        entering -= failed
    return stages


def _latency(accepted: Sequence[Accepted], measured: Mapping[str, FirstMeasurement]) -> dict[str, Json]:
    trained = [measured[task.id].step - outcome.dispatched for outcome, task in accepted if task.id in measured]
    return {
        "to_candidate": _spread([outcome.settled - outcome.dispatched for outcome, _ in accepted]),
        "to_first_training": _spread(trained),
    }


def _profile_match(domain: Domain, accepted: Sequence[Accepted]) -> dict[str, Json]:
    """Means of `profile_match` by category, and how often the longest chain of ablation links is as long.

    No gate asks for the latter: it tells what the value flow leaves open.
    """
    ablation = remembered_ablation(domain)

    def ablation_depth(task: Task) -> int:
        return longest_chain(sum(len(turn.gold) for turn in task.turns), ablation(task))

    rows: dict[str, list[Mapping[str, bool | float]]] = {}
    for outcome, variant in accepted:
        seed = outcome.seed
        own = domain.of(seed)
        same = profile_match(extract_profile(own, variant), extract_profile(own, seed))
        same_ablation = ablation_depth(variant) == ablation_depth(seed)
        rows.setdefault(seed.category, []).append({**same, "ablation_depth": same_ablation})
    return {
        category: {"variants": len(rows[category])}
        | {part: float(np.mean([row[part] for row in rows[category]])) for part in rows[category][0]}
        for category in domain.strata
        if category in rows
    }


def _diversity(accepted: Sequence[Accepted]) -> dict[str, Json]:
    variants = [candidate for _, candidate in accepted]
    among, to_seed = shingle_index(variants), []
    for outcome, candidate in accepted:
        found = nearest(candidate, shingle_index([outcome.seed]))
        to_seed.append(found.similarity if found else 0.0)
    shares = (_entity_reuse(outcome.seed, candidate) for outcome, candidate in accepted)
    reuse = [share for share in shares if share is not None]
    calls = diversity(variants)
    return {
        "call_patterns": calls.patterns,
        "effective_call_patterns": calls.effective_patterns,
        "call_patterns_per_variant": _ratio(calls.patterns, len(variants)),
        "near_another_variant": _ratio(sum(is_near(task, among) for task in variants), len(variants)),
        "similarity_to_seed": _mean(to_seed),
        "entity_reuse": _mean(reuse),
    }


def _entity_reuse(seed: Task, variant: Task) -> float | None:
    """Share of the values in a variant's gold calls that its seed's gold calls hold too; short ones tell nothing."""
    old, new = _entities(seed), _entities(variant)
    return _ratio(len(old & new), len(new))


def _entities(task: Task) -> set[str]:
    values = (atom for turn in task.turns for call in turn.gold for atom in atoms(dict(call.arguments)))
    return {str(value) for value in values if is_distinctive(value)}


def _boundary(variants: Sequence[Task], measured: Mapping[str, FirstMeasurement]) -> dict[str, Json]:
    """Where the first measurement of the variants lies that were trained on."""
    means = [measured[task.id].mean for task in variants if task.id in measured]
    lower, upper = BAND
    return {
        "measured": len(means),
        "below": _ratio(sum(mean < lower for mean in means), len(means)),
        "in_band": _ratio(sum(lower <= mean <= upper for mean in means), len(means)),
        "above": _ratio(sum(mean > upper for mean in means), len(means)),
    }


def _leakage(variants: Sequence[Task], held_out: Sequence[Task]) -> dict[str, Json]:
    """All counts should be 0; `closest` shows how far from it they are."""
    index = shingle_index(held_out)
    found = [(neighbour, task.id) for task in variants if (neighbour := nearest(task, index)) is not None]
    closest = max(found, key=lambda pair: pair[0].similarity, default=None)
    scenarios, contents = {task.scenario for task in held_out}, {content_hash(task) for task in held_out}
    return {
        "scenarios_shared": sum(task.scenario in scenarios for task in variants),
        "same_content": sum(content_hash(task) in contents for task in variants),
        "near_duplicates": sum(neighbour.similarity >= NEAR for neighbour, _ in found),
        "closest": closest and {"variant": closest[1], **closest[0]._asdict()},
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _spread(values: Iterable[int]) -> dict[str, Json] | None:
    values = sorted(values)
    return {"median": float(np.median(values)), "largest": values[-1]} if values else None
