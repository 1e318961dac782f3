r"""Whether a run fits a machine, how fast it could be there, and what it would cost, before one is rented.

    pip install -c constraints.txt -e ".[tpu]"
    python -m scripts.plan --config configs/bfcl_qwen3_4b.py --topology v5e:8x8 --mesh 16 2 1 2 --update.micro-batches 16 \
        --rollout.concurrent-tasks 1 --rollout.concurrent-rollouts 8 --evaluation.concurrent-tasks 4 --price 1.20
    python -m scripts.plan --config configs/bfcl_qwen3_4b.py --topology v5e:8x8     searches the layouts
    python -m scripts.plan --config configs/gpu_qwen3_06b.py --topology h100:8      1 to 8 cards of a host, counted

Every program of the run (programs.py) is compiled for a TPU slice, on a machine without one; for cards it is
counted from shapes.  The run fits if every program does.  The plan then gives the hours of the whole run (hours.py).
Further options are the config's, as in scripts.train (--update.micro-batches 8).  Exit status: 0 it fits, 1 it does not,
2 refused.  With JAX_EXEC_TIME_OPTIMIZATION_EFFORT=-0.5 the compiler optimises less, and a search takes a third of the
time.  Such programs are slower, and their memory differs a little: compile the chosen layout again without it, and train
without it.

FLOPs and bytes are counted from shapes (models/counts.py), for rollouts full to their limits; memory and exchange
are the compiler's.  The roofline is the longest of the times of arithmetic, memory and exchange, each at the datasheet's
peak: no program is faster.
Left out on purpose: environments, synthesis, several slices, several hosts of cards.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rods_jax import config as configuration
from rods_jax import sharding
from rods_jax.config import Config, ConfigError
from rods_jax.environments.protocol import TaskSplits
from rods_jax.files import require_own, write_atomically
from rods_jax.preemption import stop_requests
from rods_jax.run.learning import learning

from ..decoder import DecoderConfig
from ..families import read_config
from ..learner import describe, learner_of, mesh_of
from . import hours
from .ahead_of_time import CARDS, GIB, Chip, Compiled, Slice, compile_step, parse_topology, roofline, slice_of
from .hours import Lengths
from .layouts import check_layout, layouts, whole_of
from .programs import Program, Resident, meshes_of, programs, update_program

PARTS = ("update", "rollouts", "evaluation", "state", "export")
TRIED = 6  # layouts that a search compiles at most
# Bytes that a card is taken to hold for each byte counted: what TPU programs held that were compiled (docs/log/plan.md).
MARGINS = {"update": 1.25, "rollouts": 1.4, "evaluation": 1.4, "state": 2.0, "export": 1.25}


@stop_requests(seconds=0.0)
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--topology", required=True, help="chip and grid, v5e:8x8, or cards, h100:8")
    parser.add_argument("--mesh", nargs=4, type=int, help="devices along data, fsdp, tensor, sequence")
    parser.add_argument("--json", type=Path, help="writes the figures there")
    parser.add_argument("--part", action="append", choices=PARTS, help="compile this one alone; may be repeated")
    parser.add_argument("--unshared", action="store_true", help="also the update with a prompt for each rollout")
    parser.add_argument("--price", type=float, help="of a chip-hour, or of a card's hour")
    parser.add_argument("--efficiency", type=float, default=0.4, help="share of the roofline that the run reaches")
    stated = parser.add_argument_group("a mean episode, in tokens")
    stated.add_argument("--prompt-tokens", type=int, help="default: three quarters of the limit")
    stated.add_argument("--messages", type=float, default=12.0, help="of the policy")
    stated.add_argument("--message-tokens", type=float, default=100.0)
    stated.add_argument("--observation-tokens", type=float, default=200.0, help="after each message")
    stated.add_argument("--longest-tokens", type=int, help="longest suffix of a step; default: the limit")
    arguments, overrides = parser.parse_known_args()
    try:
        config = configuration.load_config(arguments.config, overrides)
        model = model_of(config)
        chip, count = parse_topology(arguments.topology)
        if arguments.mesh:
            config = replace(config, mesh=tuple(arguments.mesh))
        # The layout that the config or the command line names comes first.
        named = [config] if arguments.mesh or config.mesh is not None and math.prod(config.mesh) == count else []
        for one in named:
            check_layout(one, model, count)  # before libtpu is needed, which may be missing
        if not config.stages:
            raise ConfigError("the config has no stages, and the cold start alone is not planned")
        if config.flash_attention and arguments.topology.partition(":")[0] in CARDS:
            raise ConfigError("flash_attention is a kernel for TPUs, and the topology is of cards")
        if not 0 < arguments.efficiency <= 1:
            raise ConfigError(f"--efficiency must be above 0 and at most 1: got {arguments.efficiency}")
        if arguments.json:
            require_own(arguments.json, ("topology", "fits"))
        found = slice_of(arguments.topology)
        for one in named:
            check_layout(one, model, count, found.hosts)
        others = () if arguments.mesh else layouts(config, model, chip, count, found.hosts)
        candidates = [*named, *(one for one in others if one not in named)]
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    config, result = search(candidates, model, found, arguments.part or PARTS)
    result = {"config": config.name, "topology": arguments.topology} | result
    if arguments.unshared:
        result["unshared"] = unshared_update(config, model, found)
    if result["fits"] and not arguments.part:
        try:
            tasks = config.build_tasks(config.domain(), config.seed)
        except (ImportError, ValueError) as error:  # as where they are the user's to fetch
            print(f"\nthe hours of the whole run are not counted: {error}", file=sys.stderr)
        else:
            result["run"] = whole_run(config, model, found, result["programs"], tasks, arguments)
            print("\n" + hours.hours_text(result["run"], found.count))
    if arguments.json:
        write_atomically(arguments.json, json.dumps(result, indent=2, allow_nan=False) + "\n")
    sys.exit(0 if result["fits"] else 1)


def model_of(config: Config) -> DecoderConfig:
    """The run's decoder.  If its checkpoint is missing, the shape that the config names.  ValueError: it names none."""
    chosen = config.model
    if not hasattr(chosen, "directory"):
        return chosen
    found = (Path(chosen.directory) / "config.json").exists()
    if not found and chosen.shape is None:
        raise ConfigError(f"{chosen.directory} is not there, and the config's model.shape names no preset instead")
    return chosen.decoder(read_config(chosen.directory) if found else chosen.shape)


def whole_run(
    config: Config,
    model: DecoderConfig,
    found: Slice,
    reports: Sequence[Mapping[str, Any]],
    tasks: TaskSplits,
    stated: Any,
) -> dict[str, Any]:
    """The hours of the whole run, for the episodes that the command line states."""
    limits = whole_of(config)
    lengths = Lengths(
        stated.prompt_tokens or 3 * limits.prompt // 4,
        stated.messages,
        stated.message_tokens,
        stated.observation_tokens,
        stated.longest_tokens or limits.suffix,
    )
    return hours.hours(config, model, found, reports, tasks, lengths, stated.efficiency, stated.price)


# ------------------------------------------------------------------------------------------ search
def search(
    candidates: Sequence[Config],
    model: DecoderConfig,
    found: Slice,
    parts: Sequence[str] = PARTS,
    compiler: Callable[..., Compiled] = compile_step,
) -> tuple[Config, dict[str, Any]]:
    """Tries candidates until every program of one fits: (that one or the last, its figures).  Prints each program's."""
    if len(candidates) > 1:
        print(f"{len(candidates)} layouts may fit; the config's own comes first, then the fastest on paper")
    for tried, config in enumerate(candidates[:TRIED], 1):
        print(f"\nmesh {' '.join(map(str, mesh_of(config)))} (data, fsdp, tensor, sequence), "
              f"{config.update.micro_batches} micro-batches")  # fmt: skip
        reports, last = [], tried == min(len(candidates), TRIED)
        for program in (program for program in programs(config, model, found) if program.part in parts):
            compiled = program.function is not None and found.devices
            made = compiler(program.function, *program.arguments) if compiled else None
            reports.append(figures_of(program, made, found.chip, config))
            print(figures_text(reports[-1], found.chip), flush=True)
            if not reports[-1]["fits"] and not last:
                break
        fits = all(one["fits"] for one in reports)
        if fits or last:
            break
    chosen = {
        "--update.micro-batches": config.update.micro_batches,
        "--rollout.concurrent-tasks": config.rollout.concurrent_tasks,
        "--rollout.concurrent-rollouts": config.rollout.concurrent_rollouts,
        "--evaluation.concurrent-tasks": config.evaluation.concurrent_tasks,
    }
    flags = " ".join(f"{name} {value}" for name, value in chosen.items() if value)
    layout = f"--mesh {' '.join(map(str, mesh_of(config)))} {flags}"
    what = "the run" if set(parts) == set(PARTS) else "of the run, " + " and ".join(parts)
    print(f"\n{what} {'fits' if fits else 'does not fit'} with {layout}")
    return config, {"mesh": mesh_of(config), "flags": chosen, "fits": fits, "programs": reports}


# ----------------------------------------------------------------------------------------- report
def figures_of(program: Program, compiled: Compiled | None, chip: Chip, config: Config) -> dict[str, Any]:
    """The figures of a program as plain values.  Without a compilation, memory is counted, times the part's margin."""
    work = program.work
    memory: dict[str, Any] | None
    if compiled is None:
        memory = program.held._asdict()
        margin = MARGINS[program.part]
        memory |= {"margin": (margin - 1) * program.held.total, "total": margin * program.held.total}
        collectives = {"counted": work.exchanged} if work.exchanged else {}
    else:
        collectives = compiled.collectives
        work = work._replace(exchanged=sum(collectives.values()))
        held = compiled.memory and compiled.memory.total + program.resident
        memory = compiled.memory and compiled.memory._asdict() | {"resident": program.resident, "total": held}
    seconds = roofline(chip, work)
    slowest = max(seconds, key=lambda part: seconds[part])
    fits = memory is not None and memory["total"] <= chip.memory
    return {
        "program": program.name,
        "part": program.part,
        "compiled": compiled is not None,
        "fits": fits,
        "memory": memory,
        "capacity": chip.memory,
        "refusal": "" if compiled is None else compiled.refusal,
        "flops": work.flops,
        "useful_flops": program.useful,
        "bytes": work.bytes,
        "collectives": collectives,
        "seconds": seconds | {"roofline": seconds[slowest], "bound_by": slowest},
        "mfu": program.useful / (seconds[slowest] * chip.flops) if program.useful else 0.0,
        "compile_seconds": 0.0 if compiled is None else compiled.seconds,
        "advice": [] if fits else remedies(program, config),
    }


def remedies(program: Program, config: Config) -> list[str]:
    """What to change, the cheapest first."""
    r, u = config.rollout, config.update
    apart = "more devices along tensor: weights that are used lie in parts"
    if program.part == "rollouts":
        half = f"--rollout.concurrent-tasks {program.tasks // 2}: half the caches at a time"
        rows = r.concurrent_rollouts or r.group_size
        rowwise = [f"--rollout.concurrent-rollouts {rows // 2}: half the rows"] if rows > 1 else []
        return [*([half] if program.tasks > 1 else rowwise), apart]
    if program.part == "evaluation":
        half = f"--evaluation.concurrent-tasks {program.tasks // 2}: half the caches at a time"
        return [half if program.tasks > 1 else apart]
    if program.part != "update":
        return ["more devices along data and fsdp: a smaller part of the state each"]
    more = 2 * u.micro_batches
    finer = sharding.micro_batch_cuts(more, r.tasks_per_step, r.group_size, config.mesh or (1, 1, 1, 1))
    found = [f"--update.micro-batches {more}: half the activations at a time"] if finer else []
    if config.model.keep:
        found.append("--model.keep: with nothing after it, layers are computed again instead of kept")
    return [*found, "more devices along sequence: fewer tokens each; along tensor: a part of each weight"]


def figures_text(one: Mapping[str, Any], chip: Chip) -> str:
    """A program's figures for a reader."""
    gib = lambda size: f"{size / GIB:.2f} GiB"
    if one["memory"] is None:
        lines = [f"does not fit: {one['refusal']}"]
    else:
        *kinds, (_, total) = one["memory"].items()
        listed = ", ".join(f"{name} {gib(size)}" for name, size in kinds if size)
        verdict = "fits" if one["fits"] else "does not fit"
        lines = [f"{verdict}: {gib(total)} of {gib(chip.memory)} a device ({listed})"]
    seconds = one["seconds"]
    if one["useful_flops"]:
        lines.append(
            f"{one['flops'] / 1e12:.4g} TFLOP and {one['bytes'] / 1e9:.4g} GB a device; "
            f"at least {seconds['roofline']:.4g} s, by {seconds['bound_by']} (arithmetic {seconds['arithmetic']:.3g}, "
            f"memory {seconds['memory']:.3g}, "
            f"exchange {seconds['exchange']:.3g}); MFU at most {one['mfu']:.0%}"
        )
    exchanged = ", ".join(f"{kind} {size / 1e9:.4g} GB" for kind, size in one["collectives"].items())
    if one["compiled"]:
        lines.append(f"exchanged: {exchanged or 'nothing'}; compiled in {one['compile_seconds']:.0f} s")
    lines += [f"to make it fit: {sentence}" for sentence in one["advice"]]
    return "\n  ".join([one["program"] + ("" if one["compiled"] else ", counted"), *lines])


def unshared_update(config: Config, model: DecoderConfig, found: Slice) -> dict[str, Any]:
    """Figures of the update without shared prompts: each rollout has its own, and each device holds whole rollouts."""
    whole = whole_of(config)
    lonely = whole._replace(tasks=whole.tasks * whole.group_size, group_size=1)
    data = math.gcd(lonely.tasks, found.count)
    alone = replace(
        config,
        mesh=(data, found.count // data, 1, 1),
        rollout=replace(config.rollout, tasks_per_step=lonely.tasks),
        update=replace(config.update, micro_batches=lonely.tasks // data),
    )
    mesh, host = meshes_of(alone, replace(found, host=found.devices))
    parts = describe(alone, model, mesh, host)
    there = Resident(alone, model, found, mesh, host, parts.shapes, 0.0)
    learn = learning(alone, learner_of(alone, parts))
    step = update_program(there, parts, learn, lonely, "update, a prompt for each rollout")
    made = compile_step(step.function, *step.arguments) if found.devices else None
    one = figures_of(step, made, found.chip, config)
    print(figures_text(one, found.chip))
    return one
