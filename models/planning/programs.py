"""Every program of a run that holds arrays of the model's size: its arguments, its work, and the bytes that it holds.

    state        create, renew, restore, and the copy of the weights that each host rolls out with
    rollouts     start, admit, act, observe: for each set of lengths that a stage has
    evaluation   the same for the held-out tasks, one rollout each
    update       for each size that a stage's suffixes are cut to
    export       one tensor at a time; adapters merged before

scripts.plan compiles this list for a TPU slice and counts it for GPUs.  A test trains, evaluates and exports, and finds no
program of that size that is not on it.  Left out on purpose: the cold start, which trains small policies.
"""

import math
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from rods_jax import sharding
from rods_jax.config import Config, RolloutConfig, rollout_of
from rods_jax.generation import Sampling, capacities, rollout_keys
from rods_jax.rollout import Player
from rods_jax.run.learning import Learning, learning
from rods_jax.run.playing import evaluation_player, training_player
from rods_jax.types import RolloutBatch, Standing

from .. import counts, lora
from ..counts import Held, Shape
from ..decoder import DecoderConfig
from ..learner import Parts, describe, learner_of, mesh_of
from .ahead_of_time import Slice, Work
from .layouts import cuts_of, part_of, update_work


class Program(NamedTuple):
    """A jitted function of the run, and its arguments as shapes, dtypes and shardings."""

    name: str
    part: str  # of the run that calls it
    function: Any  # None: arrays are held, and nothing is compiled
    arguments: tuple[Any, ...]
    work: Work  # `exchanged` is filled in from the compiled program
    useful: float  # FLOPs of one device, without recomputation
    held: Held  # all bytes that one device holds while it runs, counted from shapes
    resident: float = 0.0  # bytes that one device holds beside the program's arguments
    tasks: int = 0  # at a time


def programs(config: Config, model: DecoderConfig, found: Slice) -> list[Program]:
    """The list of a run on a machine.  Without devices or descriptions, it can be counted and not compiled."""
    mesh, host = meshes_of(config, found)
    parts = describe(config, model, mesh, host)
    learn = learning(config, learner_of(config, parts))
    whole = lora.join_adapters(parts.shapes, *parts.frozen) if parts.frozen else parts.shapes
    params, resident = whole, device_bytes((learn.state, parts.frozen)) - device_bytes(whole)
    if parts.copy is not None:
        # Each process copies the parameters to its own devices. Its part of the train state stays beside the copy.
        params = with_places(jax.eval_shape(parts.copy, whole), parts.on_host)
        resident = device_bytes((learn.state, parts.frozen))
    there = Resident(config, model, found, mesh, host, params, resident)
    result = [*update_programs(there, parts, learn)]
    for (part, _), (play, name) in players_of(config, parts).items():
        result += generation_programs(there, part, play, name)
    return [*result, *state_programs(there, parts, learn, whole)]


def players_of(config: Config, parts: Parts) -> dict[tuple[str, RolloutConfig | None], tuple[Player, str]]:
    """(part of the run, a stage's sizes) -> (its player, the suffix of its programs' names)."""
    stages = list(dict.fromkeys(rollout_of(config, stage) for stage in config.stages))
    learner, tokens = learner_of(config, parts), parts.model.vocab_size
    result = {}
    for sizes in stages:
        name = f", {sizes.max_suffix_tokens:,} tokens" if len(stages) > 1 else ""
        result["rollouts", sizes] = training_player(config, learner, CODEC, sizes, tokens), name
    evaluation = evaluation_player(config, learner, CODEC, tokens, config.evaluation.num_tasks)
    return result | {("evaluation", None): (evaluation, "")}


CODEC = SimpleNamespace(stop_tokens=(0,), stop_token=0)  # no shape depends on the stop tokens


def update_sizes(sizes: RolloutConfig) -> tuple[int, ...]:
    """The sizes that a stage's suffixes are cut to."""
    return (*sizes.suffix_sizes, sizes.max_suffix_tokens)


class Resident(NamedTuple):
    """The run, the machine, and what its devices hold."""

    config: Config
    model: DecoderConfig
    found: Slice
    mesh: Any
    host: Any  # the mesh of one process
    params: Any  # the rollouts' parameters: shapes and shardings
    resident: float  # bytes of one device beside those

    @property
    def reference(self) -> bool:
        return self.config.update.kl_coefficient != 0

    def state(self) -> Held:
        stored = self.mesh.size // self.mesh.shape["sequence"]  # no parameter is cut along it
        return counts.state(self.model, reference=self.reference, stored=stored)


def meshes_of(config: Config, found: Slice) -> tuple[Any, Any]:
    """(the run's mesh, that of one process); both abstract if devices are only counted."""
    data, fsdp, tensor, sequence = mesh_of(config)
    if not found.devices:
        counted = sharding.abstract_mesh(data, fsdp, tensor, sequence)
        return counted, counted
    mesh = sharding.create_mesh(data, fsdp, tensor, sequence, devices=found.devices)
    if found.hosts == 1:
        return mesh, mesh
    return mesh, sharding.create_mesh(data // found.hosts, fsdp, tensor, sequence, devices=found.host)


def with_places(shapes: Any, shardings: Any) -> Any:
    """The shapes with these shardings."""
    return jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), shapes, shardings)


def device_bytes(tree: Any) -> float:
    """Bytes of a tree of shapes on one device."""
    return float(sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)))


# ------------------------------------------------------------------------------------------ state
def state_programs(there: Resident, parts: Parts, learn: Learning, whole: Any) -> Iterator[Program]:
    """The programs that create and move a train state; none of them computes."""
    state, held = device_bytes(learn.state), there.state()

    def moving(name: str, part: str, function: Any, arguments: tuple, held: Held, resident: float = 0.0) -> Program:
        moved = 2 * sum(map(device_bytes, arguments))
        return Program(name, part, function, arguments, Work(0.0, moved, 0.0), 0.0, held, resident)

    frozen = device_bytes(parts.frozen)
    # The trained parameters are on the devices already, and the new state holds them.
    yield moving("create", "state", learn.create, (parts.shapes,), held, frozen)
    yield moving("renew", "state", learn.renew, (learn.state,), held, frozen)
    yield moving("restore", "state", None, (learn.state,), held, frozen)
    if parts.copy is not None:
        copied = held._replace(parameters=held.parameters + device_bytes(there.params))
        yield moving("copy", "state", parts.copy, (whole,), copied, state + frozen - device_bytes(whole))
    largest = max(jax.tree.leaves(whole), key=lambda x: x.size)
    tensor = largest.size / (1 if largest.ndim == 2 else largest.shape[0]) * 4
    # Adapters are merged into a copy of the base; then a layer of a parameter is written, whole on every device.
    parameters = held.parameters + frozen
    everywhere = held._replace(parameters=parameters, optimizer=0.0, reference=0.0, activations=2 * tensor)
    yield moving("export", "export", None, (whole,), everywhere)


# ----------------------------------------------------------------------------------------- update
def batch_shapes(whole: Shape, mesh: Mesh | AbstractMesh) -> tuple[RolloutBatch, Standing]:
    """A batch of this shape, and what the pool knows of its tasks."""
    sizes = dict(N=whole.tasks, G=whole.group_size, P=whole.prompt, S=whole.suffix)
    known = ("earlier_passed_N", "earlier_total_N", "best_before_N", "weights_N")
    kinds = dict.fromkeys(("behavior_log_probs_NGS", "rewards_NG", *known), jnp.float32)
    kinds |= dict.fromkeys(("action_mask_NGS", "valid_NG", "eligible_N"), jnp.bool_)

    def field(name: str) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct([sizes[axis] for axis in name.rsplit("_", 1)[1]], kinds.get(name, jnp.int32))

    batch, standing = RolloutBatch._make(map(field, RolloutBatch._fields)), Standing._make(map(field, Standing._fields))
    return (
        with_places(batch, sharding.batch_shardings(mesh, batch)),
        with_places(standing, sharding.batch_shardings(mesh, standing)),
    )


def update_programs(there: Resident, parts: Parts, learn: Learning) -> Iterator[Program]:
    """The update for every size that some stage's suffixes are cut to, the longest first."""
    r, stages = there.config.rollout, [rollout_of(there.config, stage) for stage in there.config.stages]
    lengths = {(stage.max_prompt_tokens, size) for stage in stages for size in update_sizes(stage)}
    for prompt, suffix in sorted(lengths, reverse=True):
        name = f"update, {suffix:,} tokens" + (f" after {prompt:,}" if len({p for p, _ in lengths}) > 1 else "")
        yield update_program(there, parts, learn, Shape(r.tasks_per_step, r.group_size, prompt, suffix), name)


def update_program(there: Resident, parts: Parts, learn: Learning, whole: Shape, name: str) -> Program:
    """The run's update of a batch of this shape; its arguments are (state, batch, standing, temperature, *frozen)."""
    config, model, mesh = there.config, there.model, there.mesh
    sizes, micro = tuple(mesh.shape.values()), config.update.micro_batches
    temperature = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))
    arguments = learn.state, *batch_shapes(whole, mesh), temperature, *parts.frozen
    work, held = update_work(model, whole, sizes, micro, there.reference, config.flash_attention)
    needed = counts.update(model, whole, reference=there.reference).total / mesh.size
    tasks = part_of(whole, sizes, micro).tasks
    return Program(name, "update", learn.update, arguments, work, needed, held, 0.0, tasks)


# ------------------------------------------------------------------------------------- generation
def generation_programs(there: Resident, part: str, play: Player, suffix: str) -> Iterator[Program]:
    """The programs that play episodes, with as many tasks as a host plays at a time, and with the largest caches."""
    model, generate = there.model, play.generator
    mesh = sharding.for_groups(there.host, play.rows)
    n, g, p, s = play.slots, play.rows, play.sizes.max_prompt_tokens, capacities(play.sizes.max_suffix_tokens)[-1]
    shape = Shape(n, g, p, s)
    cuts = cuts_of(model, tuple(mesh.shape.values()), shape)

    def array(axes: str, sizes: Sequence[int], dtype: Any = jnp.int32) -> Any:
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=NamedSharding(mesh, sharding.spec(mesh, axes, sizes)))

    prompt_cache, suffix_cache = counts.cache_bytes(model, shape)
    caches = prompt_cache / cuts.prompt_cache + suffix_cache / cuts.suffix_heads
    weights = counts.parameters(model) / cuts.tensor * counts.itemsize(model)
    held = there.state()._replace(caches=caches, logits=3 * 4.0 * n * g * model.vocab_size / cuts.vocabulary)
    held = held._replace(parameters=held.parameters + (0 if there.host is there.mesh else device_bytes(there.params)))

    def program(name: str, function: Any, arguments: tuple, parts: counts.Flops, bytes: float, tokens: float):
        """parts: FLOPs of all devices.  tokens: those whose activations of one layer a device holds at a time."""
        work = Work(counts.on_device(parts, cuts).total, bytes, 0.0)
        activations = counts.activation_bytes(model, tokens) / model.layers / cuts.tensor
        busy = held._replace(activations=activations)
        name = f"{part}: {name}{suffix}"
        return Program(name, part, function, arguments, work, parts.total / mesh.size, busy, there.resident, n)

    # Prompts, once for each task.
    prompts = array("NP", (n, p)), array("N", (n,))
    keys = array("NG", (n, g), jax.eval_shape(lambda: rollout_keys(0, 0, ["task"], 1)).dtype)
    passed = counts.forward(model, shape)
    prefill = counts.Flops(passed.prompt_layers, passed.prompt_attention, 0.0, 0.0, 0.0)
    tokens, all_bytes = n * p / cuts.prompts, counts.activation_bytes(model, n * p / cuts.prompts) / cuts.tensor
    arguments: tuple[Any, ...] = there.params, *prompts, keys
    yield program("start", generate.start, arguments, prefill, weights + all_bytes, tokens)

    # The other programs are compiled for the largest caches, to which an episode's caches grow.
    def grown(name: str, x: Any) -> Any:
        sizes = [s if letter == "S" else size for letter, size in zip(_axes(name), x.shape, strict=True)]
        return array(_cache_axes(name), sizes, x.dtype)

    episodes = jax.eval_shape(generate.start, there.params, *prompts, keys)
    episodes = jax.tree.map(grown, _names(episodes), episodes)
    one = counts.Flops(*(part / n for part in prefill))
    arguments = there.params, episodes, array("", ()), array("-", (p,)), array("", ()), array("-", (g,), keys.dtype)
    yield program("admit", generate.admit, arguments, one, weights + all_bytes / n, tokens / n)

    # A token of every row.
    token = counts.decode_step(model, shape)
    sampling = Sampling(*(array("", (), dtype) for dtype in (jnp.float32, jnp.float32, jnp.int32)))
    arguments = there.params, episodes, array("NG", (n, g), bool), sampling
    yield program("act", generate.act, arguments, token, weights + caches, n * g / cuts.rows)

    # A chunk of an observation, for c rows of each task.
    c, chunk = play.columns, play.sizes.observation_chunk
    heard = counts.Flops(*(chunk * c / g * part for part in token._replace(vocabulary=0.0)))
    tokens = n * c * chunk / cuts.rows
    moved = weights + caches + counts.activation_bytes(model, tokens) / cuts.tensor
    arguments = there.params, episodes, array("NG", (n, c)), array("NG-", (n, c, chunk)), array("NG", (n, c))
    yield program("observe", generate.observe, arguments, heard, moved, tokens)


def _names(tree: Any) -> Any:
    """The tree with each leaf's innermost field name in its place."""

    def name(path, _):
        return next(key.name for key in reversed(path) if hasattr(key, "name"))

    return jax.tree_util.tree_map_with_path(name, tree)


def _axes(name: str) -> str:
    return name.rsplit("_", 1)[1]


def _cache_axes(name: str) -> str:
    """Axes of the caches as attention reads them: tasks, rollouts and heads are cut."""
    return "".join({"K": "H", "N": "N", "G": "G"}.get(letter, "-") for letter in _axes(name))
