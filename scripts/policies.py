"""The policy of a run: a decoder from scratch or a checkpoint's, trained whole or through adapters.

Left out on purpose: the models themselves; this file only packs them for rods_jax.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, SingleDeviceSharding

from models import flash, lora, weights
from models.decoder import PROJECTIONS, DecoderConfig, parameter_axes
from models.families import read_config
from models.layout import Layout
from models.policy import callables
from rods_jax import processes, sharding
from rods_jax.config import Config, ConfigError
from rods_jax.keys import seed_key
from rods_jax.types import Policy


class RunPolicy(NamedTuple):
    """Callables for rods_jax, and what they need beside the parameters that train."""

    model: DecoderConfig
    policy: Policy  # takes whole parameters; its `init` gives those that train
    shapes: Any  # of what trains, each with its place
    frozen: tuple[Any, ...] = ()  # passed to every update: (base,) under adapters, else nothing
    mesh: Mesh | None = None
    host: Mesh | None = None  # its part that is this process's own
    copy: Any = None  # where processes share the mesh: jitted, whole parameters -> a part for each process
    on_host: Any = None  # where that part lies on the process's own devices

    def place(self, tree: Any) -> Any:
        """Inside a jitted function: a tree shaped like what trains lies as that does."""
        return tree if self.mesh is None else jax.lax.with_sharding_constraint(tree, self.shardings)

    @property
    def hosts(self) -> int:
        """Processes that share the mesh."""
        return 1 if self.mesh is None else self.mesh.size // self.host.size

    @property
    def shardings(self) -> Any:
        """Of what trains."""
        return jax.tree.map(lambda x: x.sharding, self.shapes)

    def whole(self, trained: Any) -> Any:
        """What trains -> whole parameters for the actor, on the devices of this process."""
        params = lora.join(trained, *self.frozen) if self.frozen else trained
        return params if self.copy is None else processes.own_part(self.copy(params), self.on_host)


def policy_on(mesh: Mesh | None, model: DecoderConfig, flash_attention: bool = False) -> Policy:
    """A model's functions, its arrays cut as the table says of the mesh; flash_attention: for TPUs alone."""
    layout = Layout() if mesh is None else Layout(**sharding.layout(mesh))
    return Policy(**callables(model, layout._replace(attend=flash.attend) if flash_attention else layout))


def policy_of(config: Config, vocab_size: int) -> RunPolicy:
    """Reads the checkpoint's config, and its weights where they do not train; CheckpointError, ConfigError.

    On a mesh, parameters lie as its table says, and what is made of them (optimizer state, reference) like them.
    ValueError: the processes of the run cannot share the mesh.
    """
    chosen, mesh = config.model, None if config.mesh is None else sharding.create_mesh(*config.mesh)
    data = 1 if mesh is None else mesh.shape["data"]
    processes.require_shares(data, config.rollout.tasks_per_step, jax.process_count())
    if isinstance(chosen, DecoderConfig):
        model = replace(chosen, vocab_size=vocab_size)
    else:
        model = chosen.decoder(read_config(chosen.directory))
        if vocab_size > model.vocab_size:
            raise ConfigError(
                f"the tokenizer has {vocab_size} tokens, and {chosen.directory} embeds {model.vocab_size}"
            )
    if model.lora is not None and config.cold_start is not None:
        raise ConfigError("cold_start must be None where model.lora is given: adapters train on rollouts only")
    learner = describe(config, model, mesh, mesh and mesh.local_mesh)
    bare = replace(model, lora=None)
    cut = jax.tree.map(lambda x: x.sharding, placed(bare, mesh))
    if isinstance(chosen, DecoderConfig):
        init = callables(bare)["init"]
        init = init if mesh is None else jax.jit(init, out_shardings=cut)
    else:
        dtype = jnp.float32 if model.lora is None else jnp.bfloat16

        def init(key: jax.Array) -> Any:
            return weights.load(chosen.directory, model, dtype=dtype, shardings=cut)

    if model.lora is None:
        return learner._replace(policy=learner.policy._replace(init=init))
    adapters = partial(lora.init, model)
    if mesh is not None:
        adapters = jax.jit(adapters, out_shardings=learner.shardings)
    policy = learner.policy._replace(init=adapters)
    return learner._replace(policy=policy, frozen=(init(seed_key(config.seed)),))


def describe(config: Config, model: DecoderConfig, mesh: Mesh | None, host: Mesh | None) -> RunPolicy:
    """The run's policy as shapes alone, the frozen ones too: what scripts.plan compiles, and a run fills with arrays.

    host: the mesh's part that is a process's own.
    """
    policy = policy_on(mesh, model, config.flash_attention)
    shapes, frozen = placed(model, mesh), ()
    if model.lora is not None:
        base = placed(replace(model, lora=None), mesh)
        frozen = (jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=x.sharding), base),)
        shapes = lora.split(shapes)[0]
    learner = RunPolicy(model, policy, shapes, frozen, mesh, host)
    if learner.hosts == 1:
        return learner
    params = lora.join(shapes, *frozen) if frozen else shapes
    on_host = sharding.parameter_shardings(host, params, parameter_axes)
    copy = processes.copier(mesh, learner.hosts, on_host, partial(for_rollouts, model))
    return learner._replace(copy=copy, on_host=on_host)


def placed(model: DecoderConfig, mesh: Mesh | None) -> Any:
    """The shapes of all parameters, each with its place: as the table says, or on the first device."""
    shapes = jax.eval_shape(callables(model)["init"], jax.random.key(0))
    if mesh is None:
        places = jax.tree.map(lambda _: SingleDeviceSharding(jax.devices()[0]), shapes)
    else:
        places = sharding.parameter_shardings(mesh, shapes, parameter_axes)
    shape = lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at)
    return jax.tree.map(shape, shapes, places)


def actor_for(config: Config, learner: RunPolicy, group_size: int) -> Policy:
    """The policy for rollouts, on the devices of this process: caches of groups of this size are cut over all of them."""
    if learner.host is None:
        return learner.policy
    return policy_on(sharding.for_groups(learner.host, group_size), learner.model, config.flash_attention)


def for_rollouts(model: DecoderConfig, params: Any) -> Any:
    """The layers' matrices in the compute dtype, as every use of them casts them: half the copy, the same results."""
    dtype = jnp.dtype(model.compute_dtype)
    layers = {name: x.astype(dtype) if name in PROJECTIONS else x for name, x in params["layers"].items()}
    return params | {"layers": layers}


def complete(policy: Policy, *frozen: Any) -> Policy:
    """The policy of what trains alone, once the rest is given."""
    if not frozen:
        return policy
    (base,) = frozen
    return policy._replace(
        forward=lambda adapters, *batch: policy.forward(lora.join(adapters, base), *batch),
        unembedding=lambda adapters: policy.unembedding(lora.join(adapters, base)),
    )


def export(
    directory: str | Path,
    run: RunPolicy,
    params: Any,
    tokenizer: Any,
    *,
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
        if run.model.lora is None:
            raise ConfigError("the run has no adapters: its model.lora is None")
        lora.save_adapters(directory, params, run.model, base)
        return
    model = replace(run.model, max_positions=run.model.max_positions or max_positions)
    if model.lora is not None:
        params = jax.jit(lambda adapters, base: lora.merge(adapters, base, model, dtype)[0])(params, *run.frozen)
    weights.save(directory, params, replace(model, lora=None), tokenizer, dtype=dtype, source=source)
