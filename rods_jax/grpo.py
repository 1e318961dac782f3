"""GRPO on device: statistics, advantages, loss, gradient, optimizer and boundary seeds in one jitted step.

Published variants differ in plain functions that the caller passes: the importance ratio (`token_ratio`,
`sequence_ratio`), the aggregation (`sequence_mean`, `token_mean`) and the boundary signal (boundary.py).

Left out on purpose: a critic, several epochs over one batch (behaviour log-probabilities come from
sampling, so one pass is on-policy), and filtering of zero-variance groups (filtering.py).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rods_jax.boundary import BAND, BOUNDARY, HARD, MASTERED, Evidence, Seeds, partition, select_seeds
from rods_jax.config import UpdateConfig
from rods_jax.group_statistics import GroupStatistics, group_statistics
from rods_jax.log_probs import LogProbs, log_probs
from rods_jax.micro_batches import accumulate, gathered, own_part
from rods_jax.types import Policy, RolloutBatch, Standing, TrainState


def token_ratio(log_ratio_NGS, mask_NGS):
    """log(pi / pi_behavior) of each token (PPO, GRPO)."""
    return log_ratio_NGS


def sequence_ratio(log_ratio_NGS, mask_NGS):
    """The mean log ratio over a sequence's action tokens, for each of them (GSPO, arXiv 2507.18071)."""
    mean_NG = jnp.sum(log_ratio_NGS * mask_NGS, axis=-1) / jnp.maximum(mask_NGS.sum(-1), 1)
    return jnp.broadcast_to(mean_NG[..., None], log_ratio_NGS.shape)


class Whole(NamedTuple):
    """What an aggregation counts in the whole batch.  Its other arguments may be of a part; the parts' results add up."""

    tokens_N: jax.Array  # int32, action tokens of each task of the part, also of its rollouts in other parts
    tokens: jax.Array  # int32, action tokens
    sequences: jax.Array  # int32, rollouts that have some
    groups: jax.Array  # int32, tasks that have some


def whole_of(mask_NGS) -> Whole:
    """The counts of a batch that is its only part."""
    lengths_NG = mask_NGS.sum(-1)
    tokens_N = lengths_NG.sum(-1)
    return Whole(tokens_N, mask_NGS.sum(), (lengths_NG > 0).sum(), (tokens_N > 0).sum())


def sequence_mean(loss_NGS, mask_NGS, whole: Whole):
    """Token mean per sequence, then mean over sequences that have action tokens (RODS section 3)."""
    means_NG = jnp.sum(loss_NGS * mask_NGS, axis=-1) / jnp.maximum(mask_NGS.sum(-1), 1)
    return means_NG.sum() / jnp.maximum(whole.sequences, 1)


def token_mean(loss_NGS, mask_NGS, whole: Whole):
    """Mean over all action tokens (DAPO, arXiv 2503.14476)."""
    return jnp.sum(loss_NGS * mask_NGS) / jnp.maximum(whole.tokens, 1)


def group_mean(loss_NGS, mask_NGS, whole: Whole):
    """Token mean per group, then mean over groups that have action tokens (AReaL-SEA, arXiv 2601.22607)."""
    means_N = jnp.sum(loss_NGS * mask_NGS, axis=(1, 2)) / jnp.maximum(whole.tokens_N, 1)
    return means_N.sum() / jnp.maximum(whole.groups, 1)


class Feedback(NamedTuple):
    """The part of an update's results that the host reads: `[N]` statistics, at most k seed indices, and scalars."""

    statistics: GroupStatistics
    passed_N: jax.Array  # int32, over valid rollouts
    total_N: jax.Array  # int32; 0, which is no observation, when fewer than half of the group is valid
    low_N: jax.Array  # int32, fewest checks that a valid rollout passed
    high_N: jax.Array  # int32, most of them
    checks_N: jax.Array  # int32, of each rollout
    zones_N: jax.Array  # by the mean reward, under every signal, so that runs can be compared
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


def action_log_probs(
    params, batch: RolloutBatch[jax.Array], temperature, *, policy: Policy, with_entropy: bool = False
):
    """`LogProbs` of the tokens that the policy generated in valid rollouts; 0 elsewhere."""
    hidden = policy.forward(params, batch.prompt_tokens_NP, batch.prompt_lengths_N, batch.suffix_tokens_NGS)
    return log_probs(
        hidden,
        policy.unembedding(params),
        batch.suffix_tokens_NGS,
        mask_T=_mask(batch),
        temperature=temperature,
        chunk_size=policy.chunk_size,
        with_entropy=with_entropy,
        gather=policy.gather,
    )


def objective_value(
    taken: LogProbs,
    reference_log_probs_NGS,
    batch: RolloutBatch[jax.Array],
    advantages_NG,
    objective: UpdateConfig,
    whole: Whole | None = None,
):
    """Scalar loss and its terms, from the policy's and the reference's log-probabilities of the taken tokens.

    clipped surrogate + kl_coefficient * k3(pi || reference) - entropy_coefficient * entropy, aggregated over
    the action tokens of valid rollouts.  reference_log_probs_NGS: None where the coefficient is 0.
    whole: of all valid rollouts, if `batch` is a part of a batch; the parts' results add up.
    """
    mask_NGS = _mask(batch)
    whole = whole_of(mask_NGS) if whole is None else whole
    aggregate = lambda loss_NGS: objective.aggregate(loss_NGS, mask_NGS, whole)
    # The clipped surrogate of each action token, with its rollout's advantage.
    log_ratio_NGS = jnp.where(mask_NGS, taken.log_probs_T - batch.behavior_log_probs_NGS, 0.0)
    log_importance_NGS = objective.ratio(log_ratio_NGS, mask_NGS)
    advantages_NGS = jnp.broadcast_to(advantages_NG[..., None], mask_NGS.shape)
    surrogate_NGS = clipped_surrogate(
        log_importance_NGS,
        advantages_NGS,
        clip_low=objective.clip_low,
        clip_high=objective.clip_high,
        dual_clip=objective.dual_clip,
    )
    # Aggregate; add the KL penalty and subtract the entropy bonus where their coefficients are not 0.
    terms = {"surrogate": aggregate(surrogate_NGS)}
    total = terms["surrogate"]
    if objective.kl_coefficient:
        terms["kl"] = aggregate(k3(taken.log_probs_T, reference_log_probs_NGS))
        total += objective.kl_coefficient * terms["kl"]
    if objective.entropy_coefficient:
        terms["entropy"] = aggregate(taken.entropy_T)
        total -= objective.entropy_coefficient * terms["entropy"]
    # The loss is NaN if a log-probability is not finite: the clip would hide it, and the update would train on it.
    finite = jnp.isfinite(log_ratio_NGS).all()
    if objective.kl_coefficient:
        finite &= jnp.isfinite(jnp.where(mask_NGS, reference_log_probs_NGS, 0.0)).all()
    total = jnp.where(finite, total, jnp.nan)
    change_NGS = jnp.expm1(log_importance_NGS)
    clipped_NGS = (change_NGS < -objective.clip_low) | (change_NGS > objective.clip_high)
    terms["clip_fraction"] = token_mean(clipped_NGS, mask_NGS, whole)
    return total, terms


def loss(
    params,
    reference_params,
    batch: RolloutBatch[jax.Array],
    advantages_NG,
    temperature,
    *,
    policy: Policy,
    objective: UpdateConfig,
    whole: Whole | None = None,
):
    """`objective_value` of the policy.  The reference policy runs only if `kl_coefficient` is not 0."""
    score = partial(action_log_probs, batch=batch, temperature=temperature, policy=policy)
    taken = score(params, with_entropy=objective.entropy_coefficient != 0)
    reference = jax.lax.stop_gradient(score(reference_params).log_probs_T) if objective.kl_coefficient else None
    return objective_value(taken, reference, batch, advantages_NG, objective, whole)


def _mask(batch: RolloutBatch[jax.Array]):
    return batch.action_mask_NGS & batch.valid_NG[..., None]


def update_step(
    state: TrainState,
    batch: RolloutBatch[jax.Array],
    standing: Standing[jax.Array],
    temperature: jax.Array,
    *,
    policy: Policy,
    optimizer: optax.GradientTransformation,
    objective: UpdateConfig,
    band: tuple[float, float] = BAND,
    quotas: tuple[int, ...] = (),
    cuts: tuple[int, int] = (1, 1),
    place: Callable[[Any], Any] = lambda gradient: gradient,
    axis_name: str | None = None,
    split: Literal["N", "G"] = "G",
) -> tuple[TrainState, Feedback]:
    """One GRPO update and the boundary statistics of its tasks; everything is computed on device.

    band: the mean rewards at which tasks are at the boundary, both inclusive.  quotas: seeds of each stratum.
    cuts: parts that N and G are cut into.  The gradient is summed over these micro-batches: the result is that of
    (1, 1), with the activations of one micro-batch in memory.
    place: gives the gradient the parameters' sharding on a mesh, so that it is reduced and scattered in one step.
    axis_name: mapped axis (pmap, shard_map) over which the batch is split: its rollouts, as for `group_statistics`,
    or its tasks with `split="N"`.  State and feedback are then those of the whole batch, the same on every device.
    Under plain jit with shardings leave it None: the compiler inserts the collectives.

    Parameters and optimizer state do not change at all if the loss or the gradient is not finite (`skipped` is True).
    Nor do they if the gradient is 0, because momentum or weight decay alone would move them.

    AssertionError: as for `check_batch`.
    """
    check_batch(batch, standing)
    whole, known = gathered(batch, axis_name, split), gathered(standing, axis_name, split)
    statistics = group_statistics(whole.rewards_NG, whole.valid_NG, normalize=objective.normalize)
    advantages_NG, learnt = statistics.advantages_NG, whole
    if objective.subset is not None:  # some rollouts of each group are learnt from, and all are measured
        learnt = whole._replace(valid_NG=objective.subset(whole.rewards_NG, whole.valid_NG))
        advantages_NG = group_statistics(whole.rewards_NG, learnt.valid_NG, normalize=objective.normalize).advantages_NG
        batch = batch._replace(valid_NG=own_part(learnt.valid_NG, batch.valid_NG.shape, axis_name, split))

    counts = whole_of(_mask(learnt))

    def differentiate(advantages_NG, tokens_N, **fields):
        return jax.value_and_grad(loss, has_aux=True)(
            state.params,
            state.reference_params,
            RolloutBatch(**fields),
            advantages_NG,
            temperature,
            policy=policy,
            objective=objective,
            whole=counts._replace(tokens_N=tokens_N),
        )

    # The gradient of this device's part of the batch, summed over the devices.
    advantages_NG = own_part(advantages_NG, batch.rewards_NG.shape, axis_name, split)
    weights_N, tokens_N = (
        own_part(x_N, batch.checks_N.shape, axis_name if split == "N" else None, "N")
        for x_N in (known.weights_N, counts.tokens_N)
    )
    arrays = {"advantages_NG": weights_N[:, None] * advantages_NG, "tokens_N": tokens_N} | batch._asdict()
    (total, terms), gradient = accumulate(differentiate, arrays, cuts, lambda results: (results[0], place(results[1])))
    if axis_name is not None:
        (total, terms), gradient = jax.lax.psum(((total, terms), gradient), axis_name)

    # The optimizer's step, taken only if the loss and the gradient are finite and the gradient is not 0.
    grad_norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(total) & jnp.isfinite(grad_norm)
    updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.params)
    learned = optax.apply_updates(state.params, updates), optimizer_state
    params, optimizer_state = jax.tree.map(
        partial(jnp.where, finite & (grad_norm > 0)), learned, (state.params, state.optimizer_state)
    )
    state = state._replace(params=params, optimizer_state=optimizer_state, step=state.step + 1)

    # Measurements, zones and seeds of the tasks. A group counts if at least half of its rollouts are valid.
    observed_N = 2 * statistics.count_N >= whole.rewards_NG.shape[1]  # RODS section 2.4
    evidence = Evidence(
        whole.passed_NG,
        whole.valid_NG & observed_N[:, None],
        whole.checks_N,
        known.earlier_passed_N,
        known.earlier_total_N,
        known.best_before_N,
    )
    passed_N, total_N = evidence.passed_N, evidence.total_N
    low_N, high_N = evidence.low_N, evidence.high_N
    zones_N = partition(passed_N, total_N, lower=band[0], upper=band[1])
    seeds = select_seeds(
        *objective.signal(evidence, lower=band[0], upper=band[1]),
        known.categories_N,
        known.eligible_N & observed_N,
        quotas=quotas,
    )
    metrics = {
        "loss": total,
        **terms,
        "grad_norm": grad_norm,
        "skipped": ~finite,
        "valid_rollouts": whole.valid_NG.sum(),
        "reward_mean": _mean(jnp.sum(whole.rewards_NG, where=whole.valid_NG), whole.valid_NG.sum()),
        "progress_mean": _mean(passed_N.sum(), total_N.sum()),
        "zero_variance": jnp.mean(statistics.variance_N == 0),
        "batch_hard": jnp.sum((zones_N == HARD) & observed_N),
        "batch_boundary": jnp.sum(zones_N == BOUNDARY),
        "batch_mastered": jnp.sum(zones_N == MASTERED),
    }
    return state, Feedback(statistics, passed_N, total_N, low_N, high_N, whole.checks_N, zones_N, seeds, metrics)


def _mean(total: jax.Array, count: jax.Array) -> jax.Array:
    """NaN where nothing was counted: a mean of 0 would say that all had failed."""
    return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)


def first_seen(num_tasks: int) -> Standing[np.ndarray]:
    """The standing of tasks that no pool knows: of one stratum, all eligible, and never measured before."""
    nothing_N = np.zeros(num_tasks, np.float32)
    ones_N = np.ones(num_tasks, np.float32)
    return Standing(np.zeros(num_tasks, np.int32), np.ones(num_tasks, bool), nothing_N, nothing_N, nothing_N, ones_N)


def check_batch(batch: RolloutBatch, standing: Standing) -> None:
    """AssertionError: a field has another shape than its letters, or tokens, checks, rewards or masks another dtype."""
    sizes = dict(zip("NGS", batch.suffix_tokens_NGS.shape, strict=True)) | {"P": batch.prompt_tokens_NP.shape[1]}
    for name, x in (batch._asdict() | standing._asdict()).items():
        chex.assert_shape(x, tuple(sizes[axis] for axis in name.rsplit("_", 1)[1]))
    chex.assert_type([batch.action_mask_NGS, batch.valid_NG, standing.eligible_N], bool)
    chex.assert_type([batch.prompt_tokens_NP, batch.suffix_tokens_NGS, batch.passed_NG, batch.checks_N], int)
    chex.assert_type([batch.behavior_log_probs_NGS, batch.rewards_NG], float)


def jit_update(
    policy: Policy,
    optimizer: optax.GradientTransformation,
    objective: UpdateConfig,
    complete: Callable[..., Policy] = lambda policy: policy,
    *,
    shardings: TrainState | None = None,
    **how: Any,
):
    """`update_step`, jitted once per shape, the old state donated; `how`: its `cuts` and `place`.

    shardings: those of the state, on a mesh; the feedback is then whole on every device.
    Returns (state, batch, standing, temperature, *frozen) -> (state, feedback).  If only some weights train, `frozen` are the
    others, and `complete(policy, *frozen)` is the policy of those that do.  Frozen weights have no gradient, no
    optimizer state and no copy.
    """

    results = None if shardings is None else (shardings, shardings.step)

    @partial(jax.jit, donate_argnums=0, out_shardings=results)
    def step(state: TrainState, batch: RolloutBatch[jax.Array], standing: Standing[jax.Array], temperature, *frozen):
        return update_step(
            state,
            batch,
            standing,
            temperature,
            policy=complete(policy, *frozen),
            optimizer=optimizer,
            objective=objective,
            **how,
        )

    return step


def create_state(params: Any, optimizer: optax.GradientTransformation, objective: UpdateConfig) -> TrainState:
    """Fresh optimizer state, and a reference policy equal to the start (RODS section 3: renewed at each stage)."""
    reference = jax.tree.map(jnp.copy, params) if objective.kl_coefficient else None
    return TrainState(params, reference, optimizer.init(params), jnp.zeros((), jnp.int32))


def create_optimizer(
    learning_rate: float,
    *,
    warmup_steps: int = 0,
    decay_steps: int | None = None,
    max_grad_norm: float = 1.0,
    weight_decay: float = 0.0,
    b2: float = 0.999,
) -> optax.GradientTransformation:
    """AdamW behind a global-norm clip; linear warm-up, then constant, or linear down to a tenth at `decay_steps`.

    weight_decay: for matrices; norms and biases do not decay (`decays`).
    """
    schedule = optax.linear_schedule(learning_rate / (warmup_steps + 1), learning_rate, warmup_steps)
    if decay_steps is not None:
        down = optax.linear_schedule(learning_rate, learning_rate / 10, decay_steps - warmup_steps)
        schedule = optax.join_schedules([schedule, down], [warmup_steps])
    return optax.chain(
        optax.clip_by_global_norm(max_grad_norm),
        optax.adamw(schedule, b2=b2, weight_decay=weight_decay, mask=decays),
    )


def decays(params: Any) -> Any:
    """Which parameters decay: none that is a vector or a scalar, and none whose name contains norm, bias or scale.

    The name counts because stacked layers make a matrix of their norms.
    """

    def matrix(path, x) -> bool:
        name = jax.tree_util.keystr(path).lower()
        return x.ndim > 1 and not any(word in name for word in ("norm", "bias", "scale"))

    return jax.tree_util.tree_map_with_path(matrix, params)
