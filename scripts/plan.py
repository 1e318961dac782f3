"""Whether a run fits a TPU slice, and how fast it could be there, before one is rented: compiles its own steps.

    pip install -c constraints.txt -e ".[tpu]"
    python -m scripts.plan --config configs/bfcl_qwen3_4b.py --topology v5e:8x8 --mesh 16 4 1 1
    python -m scripts.plan --config configs/bfcl_qwen3_4b.py --topology v5e:8x8     searches the layouts

Further options are the config's, as in scripts.train (--update.micro-batches 8).  --json FILE writes the figures;
--unshared also compiles the update of the same rollouts with a prompt each.  Exit status: 0 it fits, 1 it does
not, 2 refused.  A search is over in a third of the time with jax's JAX_EXEC_TIME_OPTIMIZATION_EFFORT=-0.5, which
asks the compiler for less.  What it makes so is slower and holds a little less or more: compile the choice again
without it, and train without it.

FLOPs and bytes are counted from shapes (models/counts.py), for rollouts full to their limits; memory and exchange
are the compiler's.  The roofline is the largest of arithmetic, memory and exchange at the datasheet's peaks: no
step is faster.
Left out on purpose: environments, synthesis, several slices.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rich.console import Console

from models import counts, lora
from models.counts import Shape
from models.decoder import DecoderConfig, parameter_axes
from models.families import Pretrained, read_config
from rods_jax import config as configuration, grpo, sharding, terminal
from rods_jax.config import Config, ConfigError
from rods_jax.generation import Sampling, generator, rollout_keys
from rods_jax.types import RolloutBatch
from scripts.ahead_of_time import GIB, Chip, Compiled, Slice, Work, compile_step, parse, roofline, slice_of
from scripts.layouts import check, cuts_of, layouts, parameter_shapes, part_of, share_of, update_work, whole_of
from scripts.policies import complete, for_rollouts, policy_on
from scripts.learning import objective_of, optimizer_of

STEPS = ("update", "start", "act", "observe")
TRIED = 6  # layouts that a search compiles at most


class Step(NamedTuple):
    """A jitted function of the run, and what it is called with: shapes, types and places, no array."""

    name: str
    function: Any
    arguments: tuple[Any, ...]
    work: Work  # `exchanged` is filled in from the compiled program
    useful: float  # FLOPs of one device without what is computed twice
    tasks: int  # on these devices at a time
    resident: float  # bytes of one device that the step does not take, and that are there


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--topology", required=True, help="chip and grid: v5e:8x8")
    parser.add_argument("--mesh", nargs=4, type=int, help="devices along data, fsdp, tensor, sequence")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--step", action="append", choices=STEPS, help="compile this one alone; may be repeated")
    parser.add_argument("--unshared", action="store_true")
    arguments, overrides = parser.parse_known_args()
    try:
        config = configuration.load_config(arguments.config, overrides)
        model = model_of(config)
        chip, count = parse(arguments.topology)
        if arguments.mesh:
            config = replace(config, mesh=tuple(arguments.mesh))
            check(config, model, count)  # before libtpu is asked, which may not be there
        found = slice_of(arguments.topology)
        if arguments.mesh:
            check(config, model, count, found.hosts)
        candidates = [config] if arguments.mesh else layouts(config, model, chip, count, found.hosts)
    except ValueError as error:
        terminal.refuse(Console(stderr=True), error)
        sys.exit(2)
    result = search(candidates, model, found, arguments.step or STEPS, arguments.unshared)
    result = {"config": config.name, "topology": arguments.topology} | result
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    sys.exit(0 if result["fits"] else 1)


def model_of(config: Config) -> DecoderConfig:
    """The run's decoder; of a checkpoint that is not there, the shape that the config names. Raises ValueError."""
    chosen = config.model
    if isinstance(chosen, DecoderConfig):
        return chosen
    assert isinstance(chosen, Pretrained)
    found = (Path(chosen.directory) / "config.json").exists()
    if not found and chosen.shape is None:
        raise ConfigError(f"{chosen.directory} is not there, and the config's model.shape names no preset instead")
    return chosen.decoder(read_config(chosen.directory) if found else chosen.shape)


# ------------------------------------------------------------------------------------------ search
def search(
    candidates: Sequence[Config],
    model: DecoderConfig,
    found: Slice,
    names: Sequence[str] = STEPS,
    unshared: bool = False,
) -> dict[str, Any]:
    """The first candidate whose every step fits, or else the last one tried, reported step by step."""
    if len(candidates) > 1:
        print(f"{len(candidates)} layouts may fit; the fastest on paper is compiled first")
    for tried, config in enumerate(candidates[:TRIED], 1):
        print(f"\nmesh {' '.join(map(str, config.mesh))} (data, fsdp, tensor, sequence), "
              f"{config.update.micro_batches} micro-batches")  # fmt: skip
        reports = []
        for step in (step for step in steps_of(config, model, found) if step.name in names):
            reports.append(report(step, compile_step(step.function, *step.arguments), found.chip, config))
            print(told(reports[-1], found.chip), flush=True)
            if not reports[-1]["fits"] and tried < min(len(candidates), TRIED):
                break
        fits = all(one["fits"] for one in reports)
        if fits or tried == min(len(candidates), TRIED):
            break
    chosen = {"micro_batches": config.update.micro_batches, "concurrent_tasks": config.rollout.concurrent_tasks}
    result = {"mesh": config.mesh, **chosen, "fits": fits, "steps": reports}
    what = "the run" if set(names) == set(STEPS) else " and ".join(names)
    layout = f"--mesh {' '.join(map(str, config.mesh))} --update.micro-batches {config.update.micro_batches}"
    layout += f" --rollout.concurrent-tasks {config.rollout.concurrent_tasks}"
    print(f"\n{what} {'fits' if fits else 'does not fit'} with {layout}")
    if unshared:
        result["unshared"] = compare(config, model, found)
    return result


# ------------------------------------------------------------------------------------------ steps
def placed(shapes: Any, shardings: Any) -> Any:
    """Shapes with places."""
    return jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), shapes, shardings)


def device_bytes(tree: Any) -> float:
    """Bytes of one device's part."""
    return float(
        sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))
    )


def batch_shapes(whole: Shape, mesh: Mesh) -> RolloutBatch:
    sizes = dict(N=whole.tasks, G=whole.group_size, P=whole.prompt, S=whole.suffix)
    kinds = {"behavior_log_probs_NGS": jnp.float32, "rewards_NG": jnp.float32, "earlier_passed_N": jnp.float32}
    kinds |= {"earlier_total_N": jnp.float32, "action_mask_NGS": bool, "valid_NG": bool, "eligible_N": bool}

    def field(name: str) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct([sizes[axis] for axis in name.rsplit("_", 1)[1]], kinds.get(name, jnp.int32))

    shapes = RolloutBatch(**{name: field(name) for name in RolloutBatch._fields})
    return placed(shapes, sharding.batch_shardings(mesh, shapes))


def update_step(config: Config, model: DecoderConfig, mesh: Mesh, whole: Shape, name: str = "update") -> Step:
    """The run's update of a batch of this shape; its arguments are (state, batch, temperature, *frozen)."""
    objective, optimizer = objective_of(config), optimizer_of(config)
    shapes, frozen = parameter_shapes(model), ()
    if model.lora is not None:
        shapes, base = lora.split(shapes)
        base = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16), base)
        frozen = (placed(base, sharding.parameter_shardings(mesh, base, parameter_axes)),)
    trained = sharding.parameter_shardings(mesh, shapes, parameter_axes)
    state = jax.eval_shape(lambda params: grpo.create_state(params, optimizer, objective), shapes)
    shardings = sharding.state_shardings(mesh, state, trained, optimizer)
    state = placed(state, shardings)
    sizes, micro = tuple(mesh.shape.values()), config.update.micro_batches
    reference = objective.kl_coefficient != 0
    shape = part_of(whole, sizes, micro)
    update = grpo.jit_update(
        policy_on(mesh, model, config.flash_attention),
        optimizer,
        objective,
        complete,
        shardings=shardings,
        cuts=(whole.tasks // shape.tasks, whole.group_size // shape.group_size),
        place=lambda gradient: jax.lax.with_sharding_constraint(gradient, trained),
    )
    temperature = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))
    arguments = state, batch_shapes(whole, mesh), temperature, *frozen
    work, _ = update_work(model, whole, sizes, micro, reference, config.flash_attention)
    needed = counts.update(model, whole, reference=reference).total / mesh.size
    return Step(name, update, arguments, work, needed, shape.tasks, 0.0)


def steps_of(config: Config, model: DecoderConfig, found: Slice) -> Iterator[Step]:
    """The update, then what generation calls with the most tasks that are on a host's devices at a time."""
    mesh = sharding.create_mesh(*config.mesh, devices=found.devices)
    update = update_step(config, model, mesh, whole_of(config))
    yield update
    state, _, _, *frozen = update.arguments
    params = lora.join(state.params, *frozen) if frozen else state.params
    resident = device_bytes((state, frozen))
    if found.hosts == 1:
        yield from generation_steps(config, model, mesh, 1, params, resident - device_bytes(params))
        return
    # Of several processes each copies the parameters to its own devices, its rows of the mesh.
    data, *others = config.mesh
    mesh = sharding.create_mesh(data // found.hosts, *others, devices=found.host)
    params = jax.eval_shape(partial(for_rollouts, model), params)
    params = placed(params, sharding.parameter_shardings(mesh, params, parameter_axes))
    yield from generation_steps(config, model, mesh, found.hosts, params, resident)


def generation_steps(
    config: Config, model: DecoderConfig, mesh: Mesh, hosts: int, params: Any, resident: float
) -> Iterator[Step]:
    r, shape = config.rollout, share_of(config, hosts)
    (n, g, p, s), cuts = shape, cuts_of(model, tuple(mesh.shape.values()), shape)
    generate = generator(
        policy_on(mesh, model, config.flash_attention),
        stop_tokens=(0,),
        group_size=g,
        suffix_capacity=s,
        max_action_tokens=r.max_action_tokens,
    )

    def array(axes: str, sizes: Sequence[int], dtype: Any = jnp.int32) -> Any:
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=NamedSharding(mesh, sharding.spec(mesh, axes, sizes)))

    prompts = array("NP", (n, p)), array("N", (n,))
    keys = array("NG", (n, g), jax.eval_shape(lambda: rollout_keys(0, 0, ["task"], 1)).dtype)
    prompt_cache, suffix_cache = counts.cache_bytes(model, shape)
    caches = prompt_cache / cuts.prompt_cache + suffix_cache / cuts.suffix_heads
    weights = counts.parameters(model) / cuts.tensor * counts.itemsize(model)

    passed = counts.forward(model, shape)
    prefill = counts.on_device(passed, cuts)
    flops = prefill.prompt_layers + prefill.prompt_attention
    needed = (passed.prompt_layers + passed.prompt_attention) / mesh.size
    moved = weights + counts.activation_bytes(model, n * p / cuts.prompts) / cuts.tensor
    yield Step("start", generate.start, (params, *prompts, keys), Work(flops, moved, 0.0), needed, n, resident)

    episodes = jax.eval_shape(generate.start, params, *prompts, keys)
    episodes = jax.tree.map(
        lambda entry, x: array(_cache_axes(entry), x.shape, x.dtype), _names(episodes), episodes
    )
    parts = counts.decode_step(model, shape)
    token = counts.on_device(parts, cuts).total, weights + caches
    sampling = Sampling(*(array("", (), dtype) for dtype in (jnp.float32, jnp.float32, jnp.int32)))
    arguments = params, episodes, array("NG", (n, g), bool), sampling
    yield Step("act", generate.act, arguments, Work(*token, 0.0), parts.total / mesh.size, n, resident)

    chunk = r.observation_chunk
    parts = counts.Parts(*(chunk * part for part in parts._replace(vocabulary=0.0)))
    moved = token[1] + counts.activation_bytes(model, n * g * chunk / cuts.rows) / cuts.tensor
    arguments = params, episodes, array("NG", (n, g)), array("NG-", (n, g, chunk)), array("NG", (n, g))
    work = Work(counts.on_device(parts, cuts).total, moved, 0.0)
    yield Step("observe", generate.observe, arguments, work, parts.total / mesh.size, n, resident)


def _names(tree: Any) -> Any:
    """The tree with each leaf's innermost field name in its place."""
    def name(path, _):
        return next(key.name for key in reversed(path) if hasattr(key, "name"))

    return jax.tree_util.tree_map_with_path(name, tree)


def _cache_axes(name: str) -> str:
    """Caches lie as attention reads them: cut by tasks, rollouts and heads."""
    axes = name.rsplit("_", 1)[1]
    return "".join({"K": "H", "N": "N", "G": "G"}.get(letter, "-") for letter in axes)


# ----------------------------------------------------------------------------------------- report
def report(step: Step, compiled: Compiled, chip: Chip, config: Config) -> dict[str, Any]:
    """The figures of a step as plain values."""
    work = step.work._replace(exchanged=sum(compiled.collectives.values()) if compiled.memory else 0.0)
    seconds = roofline(chip, work)
    slowest = max(seconds, key=seconds.get)
    held = None if compiled.memory is None else compiled.memory.total + step.resident
    fits = held is not None and held <= chip.memory
    return {
        "step": step.name,
        "fits": fits,
        "memory": compiled.memory and compiled.memory._asdict() | {"resident": step.resident, "total": held},
        "capacity": chip.memory,
        "refusal": compiled.refusal,
        "flops": work.flops,
        "useful_flops": step.useful,
        "bytes": work.bytes,
        "collectives": compiled.collectives,
        "seconds": seconds | {"roofline": seconds[slowest], "bound_by": slowest},
        "mfu": step.useful / (seconds[slowest] * chip.flops),
        "compile_seconds": compiled.seconds,
        "advice": [] if fits else advice(step, config),
    }


def advice(step: Step, config: Config) -> list[str]:
    """What to change, the cheapest first."""
    r, u = config.rollout, config.update
    if step.name in STEPS[1:]:
        half = f"--rollout.concurrent-tasks {step.tasks // 2}: half the caches at a time"
        fewer = [half] if step.tasks > 1 else []
        return [*fewer, "more devices along tensor: weights that are used lie in parts"]
    more = 2 * u.micro_batches
    finer = sharding.micro_batch_cuts(more, r.tasks_per_step, r.group_size, config.mesh or (1, 1, 1, 1))
    found = [f"--update.micro-batches {more}: half the activations at a time"] if finer else []
    if config.model.keep:
        found.append("--model.keep: with nothing after it, layers are computed again instead of kept")
    return [*found, "more devices along sequence: fewer tokens each; along tensor: a part of each weight"]


def told(one: Mapping[str, Any], chip: Chip) -> str:
    """A step's figures for a reader."""
    gib = lambda size: f"{size / GIB:.2f} GiB"
    if one["memory"] is None:
        lines = [f"does not fit: {one['refusal']}"]
    else:
        *kinds, (_, total) = one["memory"].items()
        listed = ", ".join(f"{name} {gib(size)}" for name, size in kinds)
        verdict = "fits" if one["fits"] else "does not fit"
        lines = [f"{verdict}: {gib(total)} of {gib(chip.memory)} ({listed})"]
    seconds = one["seconds"]
    lines.append(
        f"{one['flops'] / 1e12:.4g} TFLOP and {one['bytes'] / 1e9:.4g} GB a device; "
        f"at least {seconds['roofline']:.4g} s, by {seconds['bound_by']} (arithmetic {seconds['arithmetic']:.3g}, "
        f"memory {seconds['memory']:.3g}, "
        f"exchange {seconds['exchange']:.3g}); MFU at most {one['mfu']:.0%}"
    )
    exchanged = ", ".join(f"{kind} {size / 1e9:.4g} GB" for kind, size in one["collectives"].items())
    lines.append(f"exchanged: {exchanged or 'nothing'}; compiled in {one['compile_seconds']:.0f} s")
    lines += [f"to make it fit: {sentence}" for sentence in one["advice"]]
    once = {"act": "act, a token of every rollout", "observe": "observe, a chunk of every rollout"}
    return "\n  ".join([once.get(one["step"], one["step"]), *lines])


def compare(config: Config, model: DecoderConfig, found: Slice) -> dict[str, Any]:
    """The update of the same rollouts, each with a prompt of its own, where every device holds whole rollouts."""
    whole = whole_of(config)
    lonely = whole._replace(tasks=whole.tasks * whole.group_size, group_size=1)
    data = math.gcd(lonely.tasks, len(found.devices))
    mesh = sharding.create_mesh(data, len(found.devices) // data, 1, 1, devices=found.devices)
    config = replace(config, mesh=None, update=replace(config.update, micro_batches=lonely.tasks // data))
    step = update_step(config, model, mesh, lonely, "update, a prompt for each rollout")
    one = report(step, compile_step(step.function, *step.arguments), found.chip, config)
    print(told(one, found.chip))
    return one


if __name__ == "__main__":
    main()
