"""Compiles for a named TPU slice on a machine without one, and reads the compiler's report.

    pip install -c constraints.txt -e ".[tpu]"

libtpu's compiler needs no devices: jax's descriptions of a topology are enough.  A topology is a chip and its grid,
"v5e:8x8".  A device is one of jax's: a chip, or half a chip of tpu7x.  Cards of one host, "h100:8", are described by their
datasheets alone.

Left out on purpose: the compiler's own FLOPs, bytes and seconds, because it counts a loop's body once and leaves
kernels out (models/counts.py counts instead).
"""

import math
import os
import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

GIB = 2**30


class Chip(NamedTuple):
    """One device's datasheet; memory is what the compiler may use of it."""

    memory: float  # bytes
    flops: float  # bf16, a second
    bandwidth: float  # bytes a second, of its own memory
    exchange: float  # bytes a second, all links of the interconnect together
    of_a_chip: float = 1.0  # the share of a chip, as it is rented, that the device is


# Published at cloud.google.com/tpu/docs, a page for each; usable memory is what the compiler names as available.
CHIPS = {
    "v5e": Chip(15.75 * GIB, 197e12, 819e9, 200e9),
    "v5p": Chip(95.74 * GIB, 459e12, 2765e9, 600e9),
    "v6e": Chip(31.25 * GIB, 918e12, 1640e9, 448e9),
    "tpu7x": Chip(94.75 * GIB, 1153.5e12, 3690e9, 600e9, of_a_chip=0.5),
}
# Published in NVIDIA's datasheets (SXM, without sparsity; NVLink in one direction); usable memory is 95 % of what a card
# reports, as with XLA_PYTHON_CLIENT_MEM_FRACTION=0.95. These are counted, not compiled for.
CARDS = {
    "h100": Chip(0.95 * 79.6 * GIB, 989e12, 3350e9, 450e9),
    "h200": Chip(0.95 * 140.4 * GIB, 989e12, 4800e9, 450e9),
    "a100-80": Chip(0.95 * 79.2 * GIB, 312e12, 2039e9, 300e9),
    "a100-40": Chip(0.95 * 39.4 * GIB, 312e12, 1555e9, 300e9),
}


class Memory(NamedTuple):
    """Bytes of one device while a step runs."""

    arguments: int
    outputs: int  # without those in the place of a donated argument
    temporaries: int
    program: int

    @property
    def total(self) -> int:
        return sum(self)


class Compiled(NamedTuple):
    """A compiled step.  If it does not fit, memory is None and `refusal` says by how much."""

    memory: Memory | None
    refusal: str
    collectives: dict[str, float]  # bytes that one device receives, by kind
    seconds: float  # lowering and compiling


def parse_topology(topology: str) -> tuple[Chip, int]:
    """The chip of a topology's name and its number of devices. Raises ValueError."""
    name, _, grid = topology.partition(":")
    if name in CARDS and re.fullmatch("[1-8]", grid):
        return CARDS[name], int(grid)
    if name in CHIPS and re.fullmatch(r"\d+(x\d+){1,2}", grid) and "0" not in grid.split("x"):
        return CHIPS[name], round(math.prod(map(int, grid.split("x"))) / CHIPS[name].of_a_chip)
    raise ValueError(
        f"the topology must be one of {', '.join(CHIPS)} and a grid, as v5e:8x8, or one of {', '.join(CARDS)} and 1 to "
        f"8 cards of a host, as h100:8: got {topology}"
    )


@dataclass(frozen=True)
class Slice:
    """The machine of a plan: TPU devices or their descriptions.  Cards have neither, because they are only counted."""

    chip: Chip
    count: int
    devices: Sequence[Any] = ()  # all of them, host by host
    host: Sequence[Any] = ()  # those of one process, which compiles its rollouts for them alone

    @property
    def hosts(self) -> int:
        return len(self.devices) // len(self.host) if self.devices else 1


def slice_of(topology: str) -> Slice:
    """The slice of that name.  ValueError: there is no such slice, or no libtpu."""
    chip, count = parse_topology(topology)
    name, _, grid = topology.partition(":")
    if name in CARDS:
        return Slice(chip, count)
    devices = _devices_of(topology)
    if devices[-1].process_index == 0:
        return Slice(chip, count, devices, devices)
    return Slice(chip, count, devices, _devices_of(f"{name}:2x2" + "x1" * (grid.count("x") - 1)))


def _devices_of(topology: str) -> Sequence[Any]:
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no metadata server: nothing here asks a cloud
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
        return sorted(devices, key=lambda device: (device.process_index, device.id))
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"there is no TPU slice {topology}: {_first_line(error)}") from error
    except (RuntimeError, ImportError, NotImplementedError) as error:
        sentence = "planning needs libtpu, which the tpu extra installs: pip install -e '.[tpu]'"
        raise ValueError(f"{sentence} ({_first_line(error)})") from error


def compile_step(function: Any, *arguments: Any) -> Compiled:
    """Lowers and compiles a jitted function for arguments that carry shapes, types and shardings."""
    start = time.perf_counter()
    lowered = function.lower(*arguments)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Compiled(None, _refusal(str(error)), {}, time.perf_counter() - start)
    seconds = time.perf_counter() - start
    m = compiled.memory_analysis()
    memory = Memory(
        m.argument_size_in_bytes,
        m.output_size_in_bytes - m.alias_size_in_bytes,
        m.temp_size_in_bytes,
        m.generated_code_size_in_bytes,
    )
    return Compiled(memory, "", collectives(compiled.as_text()), seconds)


def _refusal(message: str) -> str:
    used = re.search(r"Used \S+ of \S+ hbm", message)
    return used[0] if used else _first_line(message)


def _first_line(error: Any) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


# -------------------------------------------------------------------------------- the compiled program
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_HEADER = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"(?:calls|body|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_SHAPE = re.compile(r"\b(pred|[suf]\d+|bf16|f8\w+)\[([\d,]*)\]")


class Instruction(NamedTuple):
    """One line of a program."""

    name: str
    shape: str
    operation: str
    rest: str  # operands and attributes


def collectives(program: str) -> dict[str, float]:
    """Bytes that one device receives in a run of the program (HLO text), by kind of exchange.

    A collective in a loop counts once for each turn; if the number of turns depends on data, it counts once.  A device
    receives the result of an all-gather or an all-to-all, the operand of a reduce-scatter, and twice the operand of an
    all-reduce, which is both.
    """
    computations, entry = _computations(program)
    totals: dict[str, float] = defaultdict(float)

    def visit(name: str, times: float, seen: set[str]) -> None:
        lines = computations.get(name, ())
        sizes = {line.name: _bytes(line.shape) for line in lines}
        for line in lines:
            kind = line.operation.removesuffix("-start")
            channel = re.search(r"channel_id=(\d+)", line.rest)
            if kind in COLLECTIVES and (channel is None or channel[1] not in seen):
                seen |= {channel[1]} if channel else set()
                fused = kind == "all-reduce" and "all-reduce-scatter" in name  # how a TPU spells a reduce-scatter
                kind = "reduce-scatter" if fused else kind
                operands = sum(sizes.get(operand, 0) for operand in _operands(line.rest))
                received = {"reduce-scatter": operands, "all-reduce": 2 * operands}.get(kind, _bytes(line.shape))
                started = kind == "all-gather" and line.operation.endswith("-start")  # (operands, results)
                totals[kind] += times * (received - operands * started)
            turns = 1
            if line.operation == "while":
                condition = re.search(r"condition=%?([\w.\-]+)", line.rest)
                turns = _turns(line.rest, computations.get(condition[1] if condition else "", ()))
            if kind not in COLLECTIVES:
                called = _CALLED.findall(line.rest)
                branches = re.search(r"branch_computations=\{([^}]*)\}", line.rest)
                called += re.findall(r"[\w.\-]+", branches[1]) if branches else []
                for other in called:
                    # A TPU may start an exchange in one fusion and end it in another. Both name its channel: count it once.
                    visit(other, times * turns, seen if line.operation == "fusion" else set())

    visit(entry, 1.0, set())
    return dict(totals)


def _computations(program: str) -> tuple[Mapping[str, list[Instruction]], str]:
    found: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in program.splitlines():
        header = _HEADER.match(line)
        if header:
            current = found.setdefault(header[1], [])
            entry = header[1] if line.startswith("ENTRY") else entry
        elif current is not None and (instruction := _INSTRUCTION.match(line)):
            current.append(Instruction(*instruction.groups()))
    return found, entry


def _turns(attributes: str, condition: Sequence[Instruction]) -> int:
    """The number of turns of a loop; 1 if it depends on data."""
    if known := re.search(r"known_trip_count[^\d]*(\d+)", attributes):
        return int(known[1])
    constants = {line.name: line.rest for line in condition if line.operation == "constant"}
    for line in condition:
        if line.operation == "compare" and "direction=LT" in line.rest:
            for operand in _operands(line.rest):
                if bound := re.match(r"(\d+)\)", constants.get(operand, "")):
                    return int(bound[1])
    return 1


def _operands(rest: str) -> list[str]:
    return re.findall(r"%([\w.\-]+)", rest.split("), ")[0])


def _bytes(shape: str) -> float:
    """Bytes of a shape in HLO text, tuples too; layouts are ignored."""
    return sum(
        math.prod(map(int, filter(None, dimensions.split(",")))) * _itemsize(dtype)
        for dtype, dimensions in _SHAPE.findall(shape)
    )


def _itemsize(dtype: str) -> float:
    if dtype == "pred" or dtype.startswith("f8"):
        return 1
    return int(re.sub(r"\D", "", dtype)) / 8


# ---------------------------------------------------------------------------------------- the machine
class Work(NamedTuple):
    """What one device does in a step."""

    flops: float
    bytes: float  # to and from its memory
    exchanged: float  # bytes received over the interconnect


def roofline(chip: Chip, work: Work) -> dict[str, float]:
    """Seconds of arithmetic, memory and exchange at the datasheet's peaks, each alone."""
    return {
        "arithmetic": work.flops / chip.flops,
        "memory": work.bytes / chip.bandwidth,
        "exchange": work.exchanged / chip.exchange,
    }


def meshes(count: int) -> list[tuple[int, int, int, int]]:
    """All sizes of data, fsdp, tensor and sequence whose product is `count`."""
    divisors = [d for d in range(1, count + 1) if count % d == 0]
    three = [(a, b, c) for a in divisors for b in divisors for c in divisors if count % (a * b * c) == 0]
    return [(a, b, c, count // (a * b * c)) for a, b, c in three]
