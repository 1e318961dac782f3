"""A run's learner made of a decoder: from scratch or a checkpoint's, trained whole or through adapters.

Only this module and planning/ know the training library; the models themselves do not.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, SingleDeviceSharding

from rods_jax import processes, sharding
from rods_jax.config import Config, ConfigError, positions_of
from rods_jax.keys import seed_key
from rods_jax.run.learner import Learner
from rods_jax.types import Policy

from . import counts, flash, lora, weights
from .decoder import PROJECTIONS, DecoderConfig, parameter_axes
from .families import Pretrained, read_config
from .layout import Layout
from .policy import callables


def decoder(config: Config, checkpoint: Path | None = None) -> Callable[[int], Learner]:
    """The learner of `config.model`, a DecoderConfig (its vocabulary is the tokenizer's) or a Pretrained.

    checkpoint: a directory of weights that plays in the place of the config's model, in its compute dtype.
    CheckpointError: its config.json cannot be read.  ConfigError, ValueError, when the vocabulary comes: it is larger
    than the checkpoint's, adapters are to learn from demonstrations, the processes cannot share the mesh, or an episode
    may be longer than the model has positions.
    """
    chosen = config.model
    if checkpoint is not None:
        chosen = Pretrained(directory=str(checkpoint), compute_dtype=chosen.compute_dtype)
    read = chosen.decoder(read_config(chosen.directory)) if hasattr(chosen, "directory") else None

    def make(vocab_size: int) -> Learner:
        mesh = None if config.mesh is None else sharding.create_mesh(*mesh_of(config))
        data = 1 if mesh is None else mesh.shape["data"]
        processes.require_shares(data, config.rollout.tasks_per_step, jax.process_count())
        model = replace(chosen, vocab_size=vocab_size) if read is None else read
        if vocab_size > model.vocab_size:
            raise ConfigError(
                f"the tokenizer has {vocab_size} tokens, and {chosen.directory} embeds {model.vocab_size}"
            )
        if model.lora is not None and config.cold_start is not None:
            raise ConfigError("cold_start must be None where model.lora is given: adapters train on rollouts only")
        require_positions(config, model)
        parts = describe(config, model, mesh, mesh and mesh.local_mesh)

        # `init` gives the whole model's parameters, each with its sharding.
        bare = replace(model, lora=None)
        cut = jax.tree.map(lambda x: x.sharding, placed(bare, mesh))
        init: Callable[[jax.Array], Mapping[str, Any]]
        if read is not None:
            trains = model.lora is None and checkpoint is None
            dtype = jnp.float32 if trains else jnp.dtype(model.compute_dtype)
            dtype = jnp.bfloat16 if model.lora is not None else dtype
            init = lambda key: weights.load_weights(chosen.directory, model, dtype=dtype, shardings=cut)
        else:
            init = callables(bare)["init"]
            init = init if mesh is None else jax.jit(init, out_shardings=cut)

        # With adapters, these parameters are frozen, and `init` gives the adapters.
        if model.lora is not None:
            parts = parts._replace(frozen=(init(seed_key(config.seed)),))
            init = partial(lora.init, model)
            init = init if mesh is None else jax.jit(init, out_shardings=parts.shardings)
        learner = learner_of(config, parts, source=getattr(chosen, "directory", None))
        return learner._replace(policy=learner.policy._replace(init=init))

    return make


def require_positions(config: Config, model: DecoderConfig) -> None:
    """ConfigError: a prompt and its suffix may be longer than the model has positions, in a part of the run."""
    for where, needed in positions_of(config).items():
        if model.max_positions is not None and needed > model.max_positions:
            raise ConfigError(
                f"the longest prompt and suffix of {where} have {needed} tokens together, and the model has "
                f"{model.max_positions} positions"
            )


def mesh_of(config: Config) -> tuple[int, int, int, int]:
    """Devices along data, fsdp, tensor and sequence. ConfigError: the run has no mesh."""
    if config.mesh is None:
        raise ConfigError("mesh must be given: devices along data, fsdp, tensor, sequence")
    data, fsdp, tensor, sequence = config.mesh
    return data, fsdp, tensor, sequence


class Parts(NamedTuple):
    """A decoder on its devices."""

    model: DecoderConfig
    policy: Policy  # takes whole parameters
    shapes: Any  # of the trained parameters: ShapeDtypeStructs, each with its sharding
    frozen: tuple[Any, ...] = ()  # (base,) with adapters, else empty
    mesh: Mesh | None = None
    host: Mesh | None = None  # the mesh of this process's own devices
    copy: Any = None  # jitted: whole parameters -> a copy for each process; None: no other process shares the mesh
    on_host: Any = None  # the shardings of such a copy on the process's own devices

    @property
    def hosts(self) -> int:
        """Processes that share the mesh."""
        return 1 if self.mesh is None or self.host is None else self.mesh.size // self.host.size

    @property
    def shardings(self) -> Any:
        """Those of the trained parameters."""
        return jax.tree.map(lambda x: x.sharding, self.shapes)


def learner_of(config: Config, parts: Parts, source: str | None = None) -> Learner:
    """The decoder as a run's Learner.  source: the checkpoint that the run begins with."""

    def actor(group_size: int) -> Policy:
        if parts.host is None:
            return parts.policy
        return policy_on(sharding.for_groups(parts.host, group_size), parts.model, config.flash_attention)

    def whole(trained: Any) -> Any:
        params = lora.join_adapters(trained, *parts.frozen) if parts.frozen else trained
        return params if parts.copy is None else processes.own_part(parts.copy(params), parts.on_host)

    write = partial(export_model, parts=parts, source=source)
    flops = partial(counts.played_step, parts.model, reference=config.update.kl_coefficient > 0)
    return Learner(
        parts.policy, parts.shapes, actor, whole, complete, parts.frozen, parts.mesh, parts.hosts, write, flops,
        random_weights=source is None,
    )  # fmt: skip


def describe(config: Config, model: DecoderConfig, mesh: Mesh | None, host: Mesh | None) -> Parts:
    """The parts with shapes in the place of arrays, the frozen ones too.  A plan compiles them; a run fills in arrays.

    host: the mesh of one process's own devices.
    """
    policy = policy_on(mesh, model, config.flash_attention)
    shapes = placed(model, mesh)
    frozen: tuple[Any, ...] = ()
    if model.lora is not None:
        base = placed(replace(model, lora=None), mesh)
        frozen = (jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=x.sharding), base),)
        shapes = lora.split_adapters(shapes)[0]
    parts = Parts(model, policy, shapes, frozen, mesh, host)
    if mesh is None or host is None or parts.hosts == 1:
        return parts
    params = lora.join_adapters(shapes, *frozen) if frozen else shapes
    on_host = sharding.parameter_shardings(host, params, parameter_axes)
    copy = processes.copier(mesh, parts.hosts, on_host, partial(for_rollouts, model))
    return parts._replace(copy=copy, on_host=on_host)


def policy_on(mesh: Mesh | AbstractMesh | None, model: DecoderConfig, flash_attention: bool = False) -> Policy:
    """A model's functions.  The table of sharding.py cuts its arrays over the mesh.  flash_attention: on TPUs only."""
    layout = Layout() if mesh is None else Layout(**sharding.layout_fields(mesh))
    return Policy(**callables(model, layout._replace(attend=flash.flash_attend) if flash_attention else layout))


def placed(model: DecoderConfig, mesh: Mesh | None) -> Any:
    """The shapes of all parameters with their shardings: by the table of sharding.py, or on the first device."""
    shapes = jax.eval_shape(callables(model)["init"], jax.random.key(0))
    if mesh is None:
        places = jax.tree.map(lambda _: SingleDeviceSharding(jax.devices()[0]), shapes)
    else:
        places = sharding.parameter_shardings(mesh, shapes, parameter_axes)
    shape = lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at)
    return jax.tree.map(shape, shapes, places)


def for_rollouts(model: DecoderConfig, params: Any) -> Any:
    """The parameters, their layers' matrices in the compute dtype.  Every use casts them to it, so results are the same.

    In bfloat16 the matrices take half the bytes.
    """
    dtype = jnp.dtype(model.compute_dtype)
    layers = {name: x.astype(dtype) if name in PROJECTIONS else x for name, x in params["layers"].items()}
    return params | {"layers": layers}


def complete(policy: Policy, *frozen: Any) -> Policy:
    """The policy as a function of the trained parameters alone; `frozen` are the others."""
    if not frozen:
        return policy
    (base,) = frozen
    return policy._replace(
        forward=lambda adapters, *batch: policy.forward(lora.join_adapters(adapters, base), *batch),
        unembedding=lambda adapters: policy.unembedding(lora.join_adapters(adapters, base)),
    )


def export_model(
    directory: str | Path,
    params: Any,
    tokenizer: Any,
    *,
    parts: Parts,
    max_positions: int,
    base: str | None = None,
    dtype: Any = jnp.bfloat16,
    source: str | Path | None = None,
) -> None:
    """Writes whole weights, adapters merged; or, given the base's name, the adapters alone as PEFT files.

    max_positions: what the run used, for a model that sets no limit of its own.  dtype: of whole weights; adapters are
    float32.  source: the checkpoint that the run began with.  All processes of a mesh call it; the first one writes.
    """
    if base is not None:
        if parts.model.lora is None:
            raise ConfigError("the run has no adapters: its model.lora is None")
        lora.save_adapters(directory, params, parts.model, base)
        return
    model = replace(parts.model, max_positions=parts.model.max_positions or max_positions)
    if model.lora is not None:
        params = jax.jit(lambda adapters, base: lora.merge(adapters, base, model, dtype)[0])(params, *parts.frozen)
    weights.save_weights(directory, params, replace(model, lora=None), tokenizer, dtype=dtype, source=source)
