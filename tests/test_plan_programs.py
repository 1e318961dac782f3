"""Every program of a run is planned: of each shipped configuration, and of a run that trains here."""

import json
import logging
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import jax
import pytest
import training_toy
from plan_twin import twin

from configs.bfcl_llama31_8b import CONFIG as LLAMA31_8B
from configs.bfcl_qwen3_4b import CONFIG as QWEN3_4B
from models import counts
from models.decoder import LoraConfig
from models.planning import ahead_of_time, plan, programs
from models.planning.ahead_of_time import CHIPS, Compiled, Memory, Slice
from rods_jax.codecs.tokenizer import load_tokenizer
from rods_jax.commands.export import export
from rods_jax.config import Config, load_config, rollout_of
from rods_jax.run.forecast import measured_peak


# ------------------------------------------------------------------------------------ the programs
def slice_here(hosts: int = 1) -> Slice:
    """This machine's devices, as if they were a slice's: the same code compiles, without libtpu."""
    devices = jax.devices()[:8]
    return Slice(CHIPS["v5e"], 8, devices, devices[: 8 // hosts])


def only_traced(function, *arguments) -> Compiled:
    function.trace(*arguments)
    return Compiled(Memory(1, 0, 0, 0), "", {}, 0.0)


def shipped() -> dict[str, Config]:
    """The twins of all configurations; of those that have the same programs, one."""
    found: dict[str, tuple[str, Config]] = {}
    runs = (path for path in sorted(Path("configs").glob("[a-z]*.py")) if not path.stem.startswith("evolve"))
    for path in runs:
        config = twin(load_config(path))
        rollouts = [rollout_of(config, stage) for stage in config.stages]
        parts = config.model, rollouts, config.rollout, config.update, config.evaluation
        found.setdefault(repr(parts), (path.stem, config))
    return dict(found.values())


SHIPPED = shipped()
MADE_OF_OTHERS = re.compile("study_|tau2_(airline|retail|telecom)|bfcl_qwen25|gpu_")  # with few settings of their own
NAMES = [pytest.param(name, marks=[pytest.mark.slow] * bool(MADE_OF_OTHERS.match(name))) for name in SHIPPED]


@pytest.mark.parametrize("name", NAMES)
def test_every_program_of_each_shipped_run_is_planned(name):
    """Its shapes and places go together; every stage's lengths and every size of an update are there."""
    config = SHIPPED[name]
    config, result = plan.search([config], plan.model_of(config), slice_here(), compiler=only_traced)
    json.dumps(result, allow_nan=False)
    names = [one["program"] for one in result["programs"]]
    stages = dict.fromkeys(rollout_of(config, stage) for stage in config.stages)
    calls = {"start", "admit", "act", "observe"}
    for sizes in stages:
        suffix = f", {sizes.max_suffix_tokens:,} tokens" if len(stages) > 1 else ""
        assert calls <= {name.removeprefix("rollouts: ").removesuffix(suffix) for name in names}
        assert all(any(name.startswith(f"update, {size:,} tokens") for name in names)
                   for size in (*sizes.suffix_sizes, sizes.max_suffix_tokens))  # fmt: skip
    assert {f"evaluation: {call}" for call in calls} | {"create", "renew", "restore", "export"} <= set(names)
    parts = set(plan.PARTS) - (
        set() if stages else {"rollouts", "update"}
    )  # a run that is its cold start plays nothing
    assert len(names) == len(set(names)) and {one["part"] for one in result["programs"]} == parts


@pytest.mark.slow
def test_of_several_hosts_each_copies_the_weights_and_plays_its_share():
    config = twin(QWEN3_4B)
    config, result = plan.search([config], plan.model_of(config), slice_here(2), compiler=only_traced)
    by_name = {one["program"]: one for one in result["programs"]}
    assert by_name["copy"]["memory"]["resident"] > 0
    played = next(one for name, one in by_name.items() if name.startswith("rollouts: act"))
    assert played["memory"]["resident"] > by_name["renew"]["memory"]["resident"] == 0


class Compilations(logging.Handler):
    """(name, elements of each argument) of every program that jax compiles."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.found = []

    def emit(self, record):
        said = record.getMessage()
        if named := re.match(r"Compiling (?:jit\()?(\S+?)\)? with global shapes and types (.*?)\. Argument", said):
            sizes = [math.prod(map(int, filter(None, x.split(",")))) for x in re.findall(r"\w+\[([\d,]*)\]", named[2])]
            self.found.append((named[1], Counter(sizes)))


def test_a_run_compiles_nothing_of_its_size_that_is_not_planned(tmp_path):
    """Trained, evaluated and exported for real: whatever is called with the parameters is on the list, with its shapes."""
    config = training_toy.toy(tmp_path / "run", max_steps=1)
    measured_peak()  # whose product of matrices is no program of the model
    heard, logger = Compilations(), logging.getLogger("jax._src.interpreters.pxla")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(heard)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        training_toy.play(config)
        export(tmp_path / "run", tmp_path / "out", Path(training_toy.__file__))
    finally:
        logger.removeHandler(heard)
        logger.setLevel(level)
        logger.propagate = propagate
    model = replace(config.model, vocab_size=len(load_tokenizer(tmp_path / "run" / "tokenizer")))
    one = jax.devices()[:1]
    planned = programs.programs(replace(config, mesh=(1, 1, 1, 1)), model, Slice(CHIPS["v5e"], 1, one, one))
    shapes = [
        (program.function.__name__, Counter(x.size for x in jax.tree.leaves(program.arguments)))
        for program in planned if program.function is not None
    ]  # fmt: skip
    large = [found for found in heard.found if sum(found[1].elements()) >= counts.parameters(model)]
    assert len(large) >= 8
    # What a program does not use of its arguments is not compiled: so they are some of those that were planned.
    unplanned = [name for name, sizes in large if not any(name == other and sizes <= all_ for other, all_ in shapes)]
    assert not unplanned


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, alpha=2.0)])
def test_every_program_of_a_run_compiles_and_is_reported(lora):
    config = twin(QWEN3_4B, lora=lora)
    _, result = plan.search([config], plan.model_of(config), slice_here())
    assert result["fits"] and all(one["memory"]["total"] > 0 for one in result["programs"])
    update = result["programs"][0]
    assert update["collectives"] and update["memory"]["resident"] == 0
    unshared = plan.unshared_update(config, plan.model_of(config), slice_here())
    assert unshared["useful_flops"] > update["useful_flops"]


def test_the_count_for_cards_says_what_holds_the_memory():
    config = replace(twin(QWEN3_4B), mesh=(2, 1, 1, 1))
    config, result = plan.search([config], plan.model_of(config), ahead_of_time.slice_of("h100:2"))
    assert result["fits"] and not any(one["compiled"] for one in result["programs"])
    memory = result["programs"][0]["memory"]
    assert memory["total"] == pytest.approx(1.25 * sum(memory[kind] for kind in counts.Held._fields))
    size = 4 * counts.parameters(plan.model_of(config)) / 2
    assert (memory["parameters"], memory["optimizer"], memory["reference"]) == (size, 2 * size, size)
    act = next(one for one in result["programs"] if one["program"].startswith("rollouts: act"))
    assert act["memory"]["caches"] > 0 == act["memory"]["gradients"]


def test_an_export_of_adapters_holds_the_merged_weights_beside_the_base():
    config = replace(twin(QWEN3_4B, lora=LoraConfig(rank=2, alpha=2.0)), mesh=(1, 1, 1, 1))
    _, result = plan.search([config], plan.model_of(config), ahead_of_time.slice_of("h100:1"), ("export",))
    model, memory = plan.model_of(config), result["programs"][0]["memory"]
    assert memory["parameters"] == 4 * counts.adapters(model) + (2 + 2) * counts.parameters(model)  # both in bfloat16


@pytest.mark.parametrize("mesh, cut", [((1, 2, 1, 1), 2), ((1, 1, 1, 2), 1)])
def test_a_sequence_axis_cuts_no_state(mesh, cut):
    config = replace(twin(QWEN3_4B), mesh=mesh)
    _, result = plan.search([config], plan.model_of(config), ahead_of_time.slice_of("h100:2"), ("state",))
    renew = next(one for one in result["programs"] if one["program"] == "renew")
    assert renew["memory"]["parameters"] == 4 * counts.parameters(plan.model_of(config)) / cut


def test_8b_with_a_reference_needs_more_than_one_card():
    config = replace(LLAMA31_8B, rollout=replace(LLAMA31_8B.rollout, concurrent_tasks=1))
    for cards, fits in ((1, False), (8, True)):
        config = replace(config, mesh=(1, cards, 1, 1), update=replace(config.update, micro_batches=32))
        _, result = plan.search([config], plan.model_of(config), ahead_of_time.slice_of(f"h200:{cards}"), ("state",))
        assert result["fits"] is fits
