"""The layouts of a run on a slice, from shapes alone: what each one cuts, and which are worth compiling.

Left out on purpose: how the mesh's axes lie on the slice's links.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import jax
from jax.sharding import NamedSharding

from rods_jax import processes, sharding
from rods_jax.config import Config, ConfigError, rollout_of

from .. import counts
from ..attention import LONGEST
from ..counts import Cuts, Shape
from ..decoder import DecoderConfig, parameter_axes
from ..learner import mesh_of, require_positions
from ..policy import callables
from .ahead_of_time import GIB, Chip, Work, meshes, roofline


@cache
def parameter_shapes(model: DecoderConfig) -> Any:
    return jax.eval_shape(callables(model)["init"], jax.random.key(0))


def check_layout(config: Config, model: DecoderConfig, count: int, hosts: int = 1) -> None:
    """ValueError, in one sentence: the layout or the lengths are impossible."""
    require_positions(config, model)
    mesh = mesh_of(config)
    sharding.create_mesh(*mesh, devices=[None] * count)
    processes.require_shares(mesh[0], config.rollout.tasks_per_step, hosts)
    sharding.parameter_shardings(sharding.abstract_mesh(*mesh), parameter_shapes(model), parameter_axes)


def cuts_of(model: DecoderConfig, sizes: Sequence[int], shape: Shape) -> Cuts:
    """The number of devices of a mesh of `sizes` that share each part of a step, by the table of sharding.py."""
    mesh = sharding.abstract_mesh(*sizes)
    lengths = dict(N=shape.tasks, B=shape.tasks, G=shape.group_size, P=shape.prompt, S=shape.suffix)
    lengths |= dict(H=model.key_value_heads, I=model.key_value_heads)
    lengths |= dict(D=model.width, F=model.feed_forward, W=model.vocab_size)

    def parts(axes: str) -> int:
        whole = tuple(lengths[letter] for letter in axes)
        part = NamedSharding(mesh, sharding.spec(mesh, axes, whole)).shard_shape(whole)
        return math.prod(whole) // math.prod(part)

    return Cuts(
        prompts=parts("BP"),
        prompt_heads=parts("BI"),
        suffixes=parts("NGS"),
        suffix_heads=parts("NGH"),
        prompt_cache=parts("NH"),
        rows=parts("NG"),
        tensor=parts("F"),
        vocabulary=parts("W"),
        stored=parts("DF"),
    )


def whole_of(config: Config) -> Shape:
    """A step's batch in the stage with the longest episodes, every rollout full."""
    r = max(
        (rollout_of(config, stage) for stage in config.stages), key=lambda r: (r.max_suffix_tokens, r.max_prompt_tokens)
    )
    return Shape(r.tasks_per_step, r.group_size, r.max_prompt_tokens, r.max_suffix_tokens)


def host_share(config: Config, hosts: int) -> Shape:
    """The part of a step's batch that a host's devices hold at a time during the rollouts."""
    r, share = config.rollout, config.rollout.tasks_per_step // hosts
    rows = min(r.concurrent_rollouts or r.group_size, r.group_size)
    return whole_of(config)._replace(tasks=min(r.concurrent_tasks or share, share), group_size=rows)


def part_of(whole: Shape, sizes: Sequence[int], micro_batches: int) -> Shape:
    """One micro-batch of a batch.  ValueError: it cannot be cut into so many."""
    cuts = sharding.micro_batch_cuts(micro_batches, whole.tasks, whole.group_size, sizes)
    if cuts is None:
        rollouts = f"{whole.tasks} x {whole.group_size}"
        raise ValueError(f"{micro_batches} micro-batches do not divide {rollouts} rollouts")
    return whole._replace(tasks=whole.tasks // cuts[0], group_size=whole.group_size // cuts[1])


def update_work(
    model: DecoderConfig,
    whole: Shape,
    sizes: Sequence[int],
    micro_batches: int,
    reference: bool,
    flash_attention: bool = False,
) -> tuple[Work, counts.Held]:
    """(the work of one device in an update, its exchange counted too; the bytes that it holds at least)."""
    shape = part_of(whole, sizes, micro_batches)
    cuts = cuts_of(model, sizes, shape)
    parts = counts.executed_update(model, shape, reference=reference, tile=LONGEST, flash_attention=flash_attention)
    how: dict[str, Any] = dict(reference=reference, micro_batches=micro_batches, cuts=cuts)
    work = Work(
        micro_batches * counts.on_device(parts, cuts).total,
        counts.update_bytes(model, shape, **how),
        counts.update_exchange(model, **how),
    )
    return work, counts.update_memory(model, shape, **how)


def generation_memory(config: Config, model: DecoderConfig, hosts: int, shape: Shape) -> float:
    """Bytes that one device holds at least while tasks and rows of `shape` are played.

    They are the train state, a host's copy of the weights, the caches, and one layer's activations of all prompts.
    """
    data, fsdp, tensor, sequence = mesh_of(config)
    cut = math.gcd(fsdp, shape.group_size)  # as in sharding.for_groups
    cuts = cuts_of(model, (max(1, data // hosts * fsdp // cut), cut, tensor, sequence), shape)
    prompts, suffixes = counts.cache_bytes(model, shape)
    stored = data * fsdp * tensor  # no parameter is cut along the sequence
    copied = 0 if hosts == 1 else counts.parameters(model) * counts.itemsize(model) * hosts / stored
    state = counts.state(model, reference=config.update.kl_coefficient != 0, stored=stored).total
    at_work = counts.activation_bytes(model, shape.tasks * shape.prompt / cuts.prompts) / model.layers / cuts.tensor
    return state + copied + prompts / cuts.prompt_cache + suffixes / cuts.suffix_heads + at_work


def spare_caches(config: Config, model: DecoderConfig, chip: Chip, hosts: int) -> Config:
    """The configuration with as many tasks at a time as may fit, or with one task and as many of its rollouts as may.

    The number of an evaluation's tasks at a time is chosen likewise.
    """

    def fits(shape: Shape) -> bool:
        return (
            generation_memory(config, model, hosts, shape) < 0.7 * chip.memory
        )  # the rest: a call copies a part of the caches

    def halved(shape: Shape, axis: str, least: int = 1) -> Shape:
        while getattr(shape, axis) > least and not fits(shape):
            shape = shape._replace(**{axis: max(least, getattr(shape, axis) // 2)})
        return shape

    share, (data, fsdp, *_) = host_share(config, hosts), mesh_of(config)
    held = halved(halved(share, "tasks"), "group_size")
    rows = config.rollout.concurrent_rollouts if held.group_size == share.group_size else held.group_size
    every = config.evaluation.concurrent_tasks or -(-config.evaluation.num_tasks // hosts)
    alone = Shape(min(every, held.tasks * held.group_size), 1, share.prompt, config.rollout.max_suffix_tokens)
    alone = halved(alone, "tasks", data // hosts * fsdp)
    return replace(
        config,
        rollout=replace(config.rollout, concurrent_tasks=held.tasks, concurrent_rollouts=rows),
        evaluation=replace(config.evaluation, concurrent_tasks=alone.tasks),
    )


def layouts(config: Config, model: DecoderConfig, chip: Chip, count: int, hosts: int) -> list[Config]:
    """The configuration with each layout that divides the model and may fit, the fastest on paper first.

    Each has the fewest micro-batches and the most tasks at a time that may fit.  ConfigError: there is none.
    """
    found = []
    for mesh in meshes(count):
        for micro in (2**n for n in range(12)):
            try:
                one = replace(config, mesh=mesh, update=replace(config.update, micro_batches=micro))
                check_layout(one, model, count, hosts)
            except ValueError:
                continue
            reference, flash_attention = config.update.kl_coefficient != 0, config.flash_attention
            work, held = update_work(model, whole_of(one), mesh, micro, reference, flash_attention)
            if held.total < 0.95 * chip.memory:  # the rest is for a compiler's copies
                found.append((max(roofline(chip, work).values()), micro, spare_caches(one, model, chip, hosts)))
                break
    if not found:
        size = f"{count} devices of {chip.memory / GIB:.2f} GiB"
        raise ConfigError(f"no layout of {size} holds the update of this run")
    return [one for *_, one in sorted(found, key=lambda entry: entry[:2])]
