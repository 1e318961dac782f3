"""GRPO on device: statistics, advantages, loss, gradient, optimizer and boundary seeds in one jitted step.

The choices between published variants are plain functions that the caller passes: the importance
ratio (`token_ratio`, `sequence_ratio`), the aggregation (`sequence_mean`, `token_mean`) and the boundary
signal (boundary.py).

Left out on purpose: a critic, several epochs over one batch (behaviour log-probabilities come from
sampling, so one pass is on-policy), and filtering of zero-variance groups (the pool reduces them).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rods_jax.boundary import (
    BOUNDARY,
    HARD,
    MASTERED,
    Detection,
    Evidence,
    Seeds,
    mean_band,
    partition,
    select_seeds,
)
from rods_jax.group_statistics import GroupStatistics, group_statistics
from rods_jax.log_probs import LogProbs, log_probs
from rods_jax.types import Policy, RolloutBatch, TrainState


def token_ratio(log_ratio_NGS, mask_NGS):
    """log(pi / pi_behavior) of each token (PPO, GRPO)."""
    return log_ratio_NGS


def sequence_ratio(log_ratio_NGS, mask_NGS):
    """The mean log ratio over a sequence's action tokens, for each of them (GSPO, arXiv 2507.18071)."""
    mean_NG = jnp.sum(log_ratio_NGS * mask_NGS, axis=-1) / jnp.maximum(mask_NGS.sum(-1), 1)
    return jnp.broadcast_to(mean_NG[..., None], log_ratio_NGS.shape)


def sequence_mean(loss_NGS, mask_NGS):
    """Token mean per sequence, then mean over sequences that have action tokens (RODS section 3)."""
    tokens_NG = mask_NGS.sum(-1)
    means_NG = jnp.sum(loss_NGS * mask_NGS, axis=-1) / jnp.maximum(tokens_NG, 1)
    return means_NG.sum() / jnp.maximum((tokens_NG > 0).sum(), 1)


def token_mean(loss_NGS, mask_NGS):
    """Mean over all action tokens of the batch (DAPO, arXiv 2503.14476)."""
    return jnp.sum(loss_NGS * mask_NGS) / jnp.maximum(mask_NGS.sum(), 1)


class Objective(NamedTuple):
    """What the update minimises, and which tasks it reports as seeds. Static: one value, one compilation."""

    ratio: Callable[[jax.Array, jax.Array], jax.Array] = token_ratio
    aggregate: Callable[[jax.Array, jax.Array], jax.Array] = sequence_mean
    normalize: str = "std"  # "none": mean-centred advantages (Dr. GRPO, arXiv 2503.20783)
    clip_low: float = 0.2
    clip_high: float = 0.28
    dual_clip: float = 10.0
    kl_coefficient: float = 0.01  # 0: the reference policy is never run
    entropy_coefficient: float = 0.001  # 0: the entropy is never computed
    signal: Callable[..., Detection] = mean_band  # boundary.py has others
    lower: float = 0.20
    upper: float = 0.85
    quotas: tuple[int, ...] = (4, 4, 4, 4)  # seeds per category and step, in the order of CATEGORIES


class Feedback(NamedTuple):
    """What the host reads of one update: `[N]` statistics, at most k seed indices, and scalars."""

    statistics: GroupStatistics
    passed_turns_N: jax.Array  # int32, over valid rollouts
    total_turns_N: jax.Array  # int32; 0 when fewer than half of the group is valid: no observation
    zones_N: jax.Array  # by the mean reward, whatever the signal, so that runs compare
    seeds: Seeds
    metrics: dict[str, jax.Array]


def clipped_surrogate(log_ratio, advantages, *, clip_low: float, clip_high: float, dual_clip: float):
    """max(-A r, -A clip(r, 1 - low, 1 + high)), at most c |A| where A < 0, with r = exp(log_ratio) (RODS section 3)."""
    ratio = jnp.exp(jnp.clip(log_ratio, -20.0, 20.0))
    loss = jnp.maximum(-advantages * ratio, -advantages * jnp.clip(ratio, 1 - clip_low, 1 + clip_high))
    return jnp.where(advantages < 0, jnp.minimum(loss, -dual_clip * advantages), loss)


def k3(log_probs, reference_log_probs):
    """Unbiased, non-negative estimate of KL(pi || reference): exp(d) - d - 1, d = log reference - log pi."""
    difference = jnp.clip(reference_log_probs - log_probs, -20.0, 20.0)
    return jnp.exp(difference) - difference - 1


def action_log_probs(params, batch: RolloutBatch, temperature, *, policy: Policy, with_entropy: bool = False):
    """`LogProbs` of the tokens that the policy generated in valid rollouts; 0 elsewhere."""
    hidden = policy.forward(params, batch.prompt_tokens_NP, batch.prompt_lengths_N, batch.suffix_tokens_NGS)
    return log_probs(
        hidden,
        policy.unembedding(params),
        batch.suffix_tokens_NGS,
        mask_T=_mask(batch),
        temperature=temperature,
        with_entropy=with_entropy,
    )


def objective_value(
    taken: LogProbs, reference_log_probs_NGS, batch: RolloutBatch, advantages_NG, objective: Objective
):
    """Scalar loss and its terms, from what the policy and the reference give to the tokens that were taken.

    clipped surrogate + kl_coefficient * k3(pi || reference) - entropy_coefficient * entropy, aggregated over
    the action tokens of valid rollouts.  reference_log_probs_NGS: None where the coefficient is 0.
    """
    mask_NGS = _mask(batch)
    log_ratio_NGS = jnp.where(mask_NGS, taken.log_probs_T - batch.behavior_log_probs_NGS, 0.0)
    advantages_NGS = jnp.broadcast_to(advantages_NG[..., None], mask_NGS.shape)
    surrogate_NGS = clipped_surrogate(
        objective.ratio(log_ratio_NGS, mask_NGS),
        advantages_NGS,
        clip_low=objective.clip_low,
        clip_high=objective.clip_high,
        dual_clip=objective.dual_clip,
    )
    terms = {"surrogate": objective.aggregate(surrogate_NGS, mask_NGS)}
    total = terms["surrogate"]
    if objective.kl_coefficient:
        terms["kl"] = objective.aggregate(k3(taken.log_probs_T, reference_log_probs_NGS), mask_NGS)
        total += objective.kl_coefficient * terms["kl"]
    if objective.entropy_coefficient:
        terms["entropy"] = objective.aggregate(taken.entropy_T, mask_NGS)
        total -= objective.entropy_coefficient * terms["entropy"]
    # Clipping would hide a log-probability that is not finite, and train on it.
    finite = jnp.isfinite(log_ratio_NGS).all()
    if objective.kl_coefficient:
        finite &= jnp.isfinite(jnp.where(mask_NGS, reference_log_probs_NGS, 0.0)).all()
    total = jnp.where(finite, total, jnp.nan)
    terms["clip_fraction"] = token_mean(jnp.abs(jnp.expm1(log_ratio_NGS)) > objective.clip_low, mask_NGS)
    return total, terms


def loss(
    params,
    reference_params,
    batch: RolloutBatch,
    advantages_NG,
    temperature,
    *,
    policy: Policy,
    objective: Objective,
):
    """`objective_value` of the policy against the reference policy, which runs only where it counts."""
    score = partial(action_log_probs, batch=batch, temperature=temperature, policy=policy)
    taken = score(params, with_entropy=objective.entropy_coefficient != 0)
    reference = jax.lax.stop_gradient(score(reference_params).log_probs_T) if objective.kl_coefficient else None
    return objective_value(taken, reference, batch, advantages_NG, objective)


def _mask(batch: RolloutBatch):
    return batch.action_mask_NGS & batch.valid_NG[..., None]


def update_step(
    state: TrainState,
    batch: RolloutBatch,
    temperature: jax.Array,
    *,
    policy: Policy,
    optimizer: optax.GradientTransformation,
    objective: Objective,
) -> tuple[TrainState, Feedback]:
    """One GRPO update and the boundary statistics of its tasks; everything is computed on device.

    Where the loss or the gradient is not finite, parameters and optimizer stay as they were, and `skipped` is True.
    """
    statistics = group_statistics(batch.rewards_NG, batch.valid_NG, normalize=objective.normalize)
    (total, terms), gradient = jax.value_and_grad(loss, has_aux=True)(
        state.params,
        state.reference_params,
        batch,
        statistics.advantages_NG,
        temperature,
        policy=policy,
        objective=objective,
    )
    grad_norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(total) & jnp.isfinite(grad_norm)
    updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.params)
    learned = optax.apply_updates(state.params, updates), optimizer_state
    params, optimizer_state = jax.tree.map(
        partial(jnp.where, finite), learned, (state.params, state.optimizer_state)
    )
    state = state._replace(params=params, optimizer_state=optimizer_state, step=state.step + 1)

    observed_N = 2 * statistics.count_N >= batch.rewards_NG.shape[1]  # RODS section 2.4
    evidence = Evidence(
        batch.passed_turns_NG,
        batch.valid_NG & observed_N[:, None],
        batch.num_turns_N,
        batch.earlier_passed_N,
        batch.earlier_total_N,
    )
    passed_N, total_N = evidence.passed_N, evidence.total_N
    zones_N = partition(passed_N, total_N, lower=objective.lower, upper=objective.upper)
    seeds = select_seeds(
        *objective.signal(evidence, lower=objective.lower, upper=objective.upper),
        batch.categories_N,
        batch.eligible_N & observed_N,
        quotas=objective.quotas,
    )
    metrics = {
        "loss": total,
        **terms,
        "grad_norm": grad_norm,
        "skipped": ~finite,
        "reward_mean": jnp.sum(batch.rewards_NG, where=batch.valid_NG) / jnp.maximum(batch.valid_NG.sum(), 1),
        "progress_mean": passed_N.sum() / jnp.maximum(total_N.sum(), 1),
        "zero_variance": jnp.mean(statistics.variance_N == 0),
        "batch_hard": jnp.sum((zones_N == HARD) & observed_N),
        "batch_boundary": jnp.sum(zones_N == BOUNDARY),
        "batch_mastered": jnp.sum(zones_N == MASTERED),
    }
    return state, Feedback(statistics, passed_N, total_N, zones_N, seeds, metrics)


def jit_update(
    policy: Policy,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    complete: Callable[..., Policy] = lambda policy: policy,
):
    """`update_step`, jitted once per shape, the old state donated.

    Returns (state, batch, temperature, *frozen) -> (state, feedback).  Where not all weights train,
    `complete(policy, *frozen)` is the policy of those that do: no gradient, optimizer state or copy of the others.
    """

    @partial(jax.jit, donate_argnums=0)
    def step(state: TrainState, batch: RolloutBatch, temperature, *frozen):
        return update_step(
            state,
            batch,
            temperature,
            policy=complete(policy, *frozen),
            optimizer=optimizer,
            objective=objective,
        )

    return step


def create_optimizer(
    learning_rate: float,
    *,
    warmup_steps: int = 0,
    decay_steps: int | None = None,
    max_grad_norm: float = 1.0,
    weight_decay: float = 0.0,
    b2: float = 0.999,
) -> optax.GradientTransformation:
    """AdamW behind a global-norm clip; linear warm-up, then constant, or linear down to a tenth at `decay_steps`."""
    schedule = optax.linear_schedule(learning_rate / (warmup_steps + 1), learning_rate, warmup_steps)
    if decay_steps is not None:
        down = optax.linear_schedule(learning_rate, learning_rate / 10, decay_steps - warmup_steps)
        schedule = optax.join_schedules([schedule, down], [warmup_steps])
    return optax.chain(
        optax.clip_by_global_norm(max_grad_norm), optax.adamw(schedule, b2=b2, weight_decay=weight_decay)
    )


def create_state(params: Any, optimizer: optax.GradientTransformation, objective: Objective) -> TrainState:
    """Fresh optimizer state, and a reference policy equal to the start (RODS section 3: renewed at each stage)."""
    reference = jax.tree.map(jnp.copy, params) if objective.kl_coefficient else None
    return TrainState(params, reference, optimizer.init(params), jnp.zeros((), jnp.int32))
