"""What each layout of a slice means for a run, from shapes alone: what it cuts, and which are worth compiling.

Left out on purpose: where on the slice's wires an axis lies.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import jax
from jax.sharding import AbstractMesh, NamedSharding

from models import counts
from models.attention import LONGEST
from models.counts import Cuts, Shape
from models.decoder import DecoderConfig, parameter_axes
from models.policy import callables
from rods_jax import sharding
from rods_jax.config import Config, ConfigError
from scripts.ahead_of_time import GIB, Chip, Work, meshes, roofline


@cache
def parameter_shapes(model: DecoderConfig) -> Any:
    return jax.eval_shape(callables(model)["init"], jax.random.key(0))


def check(config: Config, model: DecoderConfig, count: int) -> None:
    """Raises ValueError, in one sentence, where the layout or the lengths cannot be."""
    sharding.create_mesh(*config.mesh, devices=[None] * count)
    r = config.rollout
    needed = r.max_prompt_tokens + r.max_suffix_tokens
    if model.max_positions is not None and needed > model.max_positions:
        raise ConfigError(
            f"rollout.max_prompt_tokens + rollout.max_suffix_tokens = {needed}, and the model has "
            f"{model.max_positions} positions"
        )
    sharding.parameter_shardings(AbstractMesh(config.mesh, sharding.AXES), parameter_shapes(model), parameter_axes)


def cuts_of(model: DecoderConfig, sizes: Sequence[int], shape: Shape) -> Cuts:
    """Among how many devices of a mesh of `sizes` the table shares out each part of a step."""
    mesh = AbstractMesh(tuple(sizes), sharding.AXES)
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
    """A step's batch, every rollout full."""
    r = config.rollout
    return Shape(r.tasks_per_step, r.group_size, r.max_prompt_tokens, r.max_suffix_tokens)


def part_of(whole: Shape, sizes: Sequence[int], micro_batches: int) -> Shape:
    """A micro-batch of it. Raises ValueError where it cannot be cut so."""
    cuts = sharding.micro_batch_cuts(micro_batches, whole.tasks, whole.group_size, sizes)
    if cuts is None:
        rollouts = f"{whole.tasks} x {whole.group_size}"
        raise ValueError(f"{micro_batches} micro-batches do not divide {rollouts} rollouts")
    return whole._replace(tasks=whole.tasks // cuts[0], group_size=whole.group_size // cuts[1])


def update_work(
    model: DecoderConfig, whole: Shape, sizes: Sequence[int], micro_batches: int, reference: bool
) -> tuple[Work, float]:
    """What one device does in an update (exchange counted, too), and the bytes that it holds at least."""
    shape = part_of(whole, sizes, micro_batches)
    cuts = cuts_of(model, sizes, shape)
    parts = counts.executed_update(model, shape, reference=reference, tile=LONGEST)
    how = dict(reference=reference, micro_batches=micro_batches, cuts=cuts)
    work = Work(
        micro_batches * counts.on_device(parts, cuts).total,
        counts.update_bytes(model, shape, **how),
        counts.update_exchange(model, **how),
    )
    return work, counts.update_memory(model, shape, **how)


def layouts(config: Config, model: DecoderConfig, chip: Chip, count: int) -> list[Config]:
    """All layouts that divide the model and may fit, with the fewest micro-batches each; fastest on paper first.

    Raises ConfigError where there is none.
    """
    found = []
    for mesh in meshes(count):
        for micro in (2**n for n in range(12)):
            try:
                one = replace(config, mesh=mesh, update=replace(config.update, micro_batches=micro))
                check(one, model, count)
            except ValueError:
                continue
            work, held = update_work(model, whole_of(one), mesh, micro, config.update.kl_coefficient != 0)
            if held < 0.85 * chip.memory:  # the rest is what a layer needs while it runs
                found.append((max(roofline(chip, work).values()), micro, one))
                break
    if not found:
        size = f"{count} devices of {chip.memory / GIB:.2f} GiB"
        raise ConfigError(f"no layout of {size} holds the update of this run")
    return [one for *_, one in sorted(found, key=lambda entry: entry[:2])]
