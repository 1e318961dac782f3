"""The learning part of a run: objective, optimizer, train state and update.

The computations are in grpo.py; this file gives them the run's settings.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import SingleDeviceSharding

from rods_jax import grpo, processes
from rods_jax.config import Config, ConfigError, UpdateConfig
from rods_jax.environments.protocol import STRATA
from rods_jax.grpo import create_optimizer
from rods_jax.run.learner import Learner
from rods_jax.sharding import micro_batch_cuts, state_shardings
from rods_jax.types import RolloutBatch, Standing, TrainState


def quotas_of(update: UpdateConfig, strata: Sequence[str]) -> tuple[int, ...]:
    """Seeds per step of each stratum, in their order.  ConfigError: the update names one that is none."""
    quotas = update.quotas if isinstance(update.quotas, dict) else dict.fromkeys(strata, update.quotas)
    if unknown := sorted(quotas.keys() - set(strata)):
        raise ConfigError(f"update.quotas names {', '.join(unknown)}: the domain's strata are {', '.join(strata)}")
    return tuple(quotas.get(stratum, 0) for stratum in strata)


def optimizer_of(u: UpdateConfig) -> optax.GradientTransformation:
    return create_optimizer(
        u.learning_rate, warmup_steps=u.warmup_steps, max_grad_norm=u.max_grad_norm, weight_decay=u.weight_decay
    )


class Learning(NamedTuple):
    """The jitted programs that create and change a run's train state, and its shapes."""

    state: TrainState  # shapes, each with its sharding
    create: Any  # (trained parameters) -> TrainState
    renew: Any  # (state, donated) -> TrainState with a fresh optimizer, and the policy as its own reference
    update: Any  # (state, donated, batch, standing, temperature, *frozen) -> (TrainState, Feedback)


def learning(config: Config, learner: Learner, strata: Sequence[str] = tuple(STRATA)) -> Learning:
    """What a run trains with; of a described policy, what it would train with.  strata: the domain's."""
    r, u, mesh = config.rollout, config.update, learner.mesh
    optimizer = optimizer_of(u)
    create = partial(grpo.create_state, optimizer=optimizer, objective=u)
    state = jax.eval_shape(create, learner.shapes)
    if mesh is None:
        (device,) = jax.tree.leaves(learner.shardings)[0].device_set
        places = jax.tree.map(lambda _: SingleDeviceSharding(device), state)
    else:
        places = state_shardings(mesh, state, learner.shardings, optimizer)
    shardings = None if mesh is None else places
    return Learning(
        jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), state, places),
        jax.jit(create, out_shardings=shardings),
        # Unused parts of the old state stay arguments: only then can their memory be donated to the new state.
        jax.jit(lambda state: create(state.params), donate_argnums=0, keep_unused=True, out_shardings=shardings),
        grpo.jit_update(
            learner.policy,
            optimizer,
            u,
            learner.complete,
            shardings=shardings,
            band=(config.replay.lower, config.replay.upper),
            quotas=quotas_of(u, strata),
            cuts=micro_batch_cuts(u.micro_batches, r.tasks_per_step, r.group_size, config.mesh or (1, 1, 1, 1)),
            place=learner.place,
        ),
    )


def updating(
    learner: Learner, learn: Learning, temperature: float
) -> Callable[[TrainState, RolloutBatch, Standing], tuple[TrainState, grpo.Feedback]]:
    """(state, batch, standing) -> (state, feedback); the batch is this process's share, and `standing` is of all tasks."""

    def update(state: TrainState, batch: RolloutBatch, standing: Standing) -> tuple[TrainState, grpo.Feedback]:
        if learner.mesh is not None:
            batch, standing = processes.assemble(learner.mesh, batch, standing)
        return learn.update(state, batch, standing, temperature, *learner.frozen)

    return update


def cache_compilations() -> None:
    """Programs that took half a second or more to compile are kept in .cache/jax, or where JAX is told to keep them."""
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        jax.config.update("jax_compilation_cache_dir", str(Path(".cache/jax").absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
