"""The plan: chips and grids, the program's exchange, layouts, memory by hand, refusals before compiling."""

import importlib.util
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plan_twin import twin

from configs.bfcl_qwen3_4b import CONFIG as QWEN3_4B
from models import counts, presets
from models.counts import Cuts, Shape
from models.planning import ahead_of_time, layouts, plan, programs
from models.planning.ahead_of_time import (
    CARDS,
    CHIPS,
    GIB,
    Compiled,
    Memory,
    Work,
    collectives,
    meshes,
    parse_topology,
    roofline,
)
from rods_jax import sharding
from rods_jax.commands import train

without = importlib.util.find_spec("libtpu") is None
needs_libtpu = pytest.mark.skipif(without, reason="the tpu extra is not installed")


# ------------------------------------------------------------------------------- chips and grids
def test_a_topology_is_a_chip_and_a_grid():
    assert parse_topology("v5e:8x8") == (CHIPS["v5e"], 64)
    assert parse_topology("v5p:4x4x4") == (CHIPS["v5p"], 64)
    assert parse_topology("tpu7x:2x2x1") == (CHIPS["tpu7x"], 8)  # a device is half a chip


@pytest.mark.parametrize(
    "name", ["h100", "h100:9", "h100:2x2", "h100:0", "v9:8x8", "v5e", "v5e:", "v5e:8", "v5e:0x8", "v5e:8xx8", "8x8"]
)
def test_another_topology_is_refused(name):
    with pytest.raises(
        ValueError, match="the topology must be one of v5e, v5p, v6e, tpu7x and a grid.* or one of h100"
    ):
        parse_topology(name)


@pytest.mark.parametrize("name, cards", [("h100", 8), ("h200", 1), ("a100-80", 4), ("a100-40", 2)])
def test_cards_of_one_host_are_counted(name, cards):
    assert parse_topology(f"{name}:{cards}") == (CARDS[name], cards)
    found = ahead_of_time.slice_of(f"{name}:{cards}")  # needs no library of theirs
    assert (found.count, found.hosts, found.devices) == (cards, 1, ())


def test_the_roofline_by_hand():
    seconds = roofline(CHIPS["v5e"], Work(flops=394e12, bytes=819e9, exchanged=100e9))
    assert seconds == pytest.approx({"arithmetic": 2.0, "memory": 1.0, "exchange": 0.5})


def test_meshes_are_all_ways_to_factor():
    found = meshes(4)
    assert len(found) == len(set(found)) == 10  # 4 of one axis, 6 of two axes of 2
    assert all(np.prod(mesh) == 4 for mesh in found)


# -------------------------------------------------------------------------- the compiler's program
PROGRAM = """HloModule step

%condition (arg: (s32[], f32[8])) -> pred[] {
  %arg = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %bound = s32[] constant(5)
  ROOT %less = pred[] compare(%i, %bound), direction=LT
}

%body (arg: (s32[], f32[8])) -> (s32[], f32[8]) {
  %arg = (s32[], f32[8]{0}) parameter(0)
  %x = f32[2,4]{1,0} get-tuple-element(%arg), index=1
  %all-gather.1 = bf16[16,4]{1,0:T(8,128)(2,1)} all-gather(%x), dimensions={0}
  %reduce-scatter.1 = f32[1,4]{1,0} reduce-scatter(%x), dimensions={0}, to_apply=%sum
}

%all-reduce-scatter.3 (x: f32[2,4]) -> f32[1,4] {
  %p = f32[2,4]{1,0} parameter(0)
  %all-reduce.9 = f32[2,4]{1,0} all-reduce(%p), to_apply=%sum
  ROOT %cut = f32[1,4]{1,0} dynamic-slice(%all-reduce.9)
}

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %add = f32[] add(%a, %b)
}

ENTRY %main (x: f32[2,4]) -> f32[2,4] {
  %x = f32[2,4]{1,0} parameter(0)
  %fusion.1 = f32[1,4]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.3
  %while.1 = (s32[], f32[8]{0}) while(%start), condition=%condition, body=%body
  %all-reduce.1 = (f32[2,4]{1,0}, f32[2,4]{1,0}) all-reduce(%x, %x), to_apply=%sum
  %gather-start = (f32[2,4]{1,0}, f32[4,4]{1,0}) all-gather-start(%x), dimensions={0}
  %gather-done = f32[4,4]{1,0} all-gather-done(%gather-start)
  ROOT %all-to-all.1 = f32[2,4]{1,0} all-to-all(%x)
}
"""


def test_exchange_by_kind_counts_loops_as_often_as_they_turn():
    assert collectives(PROGRAM) == {
        "all-gather": 5 * 128 + 64,
        "reduce-scatter": 5 * 32 + 32,  # and a TPU's spelling of it
        "all-reduce": 2 * 64,
        "all-to-all": 32,
    }


def test_what_starts_in_one_fusion_and_ends_in_another_is_exchanged_once():
    started = """
%start (p: f32[4]) -> f32[16] {
  %p = f32[4]{0} parameter(0)
  ROOT %g.1 = f32[16]{0} all-gather(%p), channel_id=7, dimensions={0}
}

%done (p: f32[4]) -> f32[16] {
  %p = f32[4]{0} parameter(0)
  ROOT %g.2 = f32[16]{0} all-gather(%p), channel_id=7, dimensions={0}
}

ENTRY %main (x: f32[4]) -> f32[16] {
  %x = f32[4]{0} parameter(0)
  %f.1 = f32[16]{0} fusion(%x), kind=kCustom, calls=%start
  %f.2 = f32[16]{0} fusion(%x), kind=kCustom, calls=%done
  ROOT %g.3 = f32[16]{0} all-gather(%x), channel_id=8, dimensions={0}
}
"""
    assert collectives(started) == {"all-gather": 2 * 64}


def test_exchange_of_a_compiled_program():
    mesh = sharding.create_mesh(8, 1, 1, 1)
    cut = jax.NamedSharding(mesh, sharding.spec(mesh, "N-", (16, 4)))
    whole = jax.NamedSharding(mesh, sharding.spec(mesh, "--", (16, 4)))
    step = jax.jit(lambda x: x * 2, in_shardings=cut, out_shardings=whole)
    program = step.lower(jax.ShapeDtypeStruct((16, 4), jnp.float32)).compile().as_text()
    assert collectives(program) == {"all-gather": 16 * 4 * 4}


def test_a_refusal_is_the_compilers_sentence():
    message = (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
        "Used 24.60G of 15.75G hbm. Exceeded hbm capacity by 8.85G.\n\nTotal hbm usage"
    )
    assert "24.60G of 15.75G" in ahead_of_time._refusal(message)


# ---------------------------------------------------------------------------------------- layouts
def test_what_each_part_of_a_step_is_shared_among():
    shape = Shape(tasks=8, group_size=16, prompt=64, suffix=64)
    cuts = layouts.cuts_of(presets.TINY_QWEN3, (2, 4, 2, 1), shape)
    assert cuts == Cuts(
        prompts=8,
        prompt_heads=16,
        suffixes=8,
        suffix_heads=16,
        prompt_cache=4,
        rows=8,
        tensor=2,
        vocabulary=16,
        stored=16,
    )


def test_memory_of_an_update_by_hand():
    c = replace(presets.TINY_QWEN3, compute_dtype="bfloat16")
    shape, size = Shape(2, 4, 8, 16), counts.parameters(c)
    cuts = Cuts(prompts=2, prompt_heads=2, suffixes=4, suffix_heads=4, stored=4)
    held = counts.update_memory(c, shape, reference=True, micro_batches=2, cuts=cuts)
    kept = 2 * 2 * (32 * (16 / 2 + 128 / 4) + 64 * (16 / 2 + 128 / 4))  # layers, bytes, width, heads
    # The layer at work: activations and gradients of 40 tokens, and its weights four times, in 2 bytes.
    at_work = 2 * counts.activation_bytes(c, 40) / c.layers + 4 * counts.layer_weights(c) * 2
    assert held.total == pytest.approx(4 * size * (4 + 2) / 4 + kept + at_work + counts.logits_memory(c, cuts))
    assert (held.parameters, held.optimizer, held.reference, held.gradients) == (size, 2 * size, size, 2 * size)
    # Two products that are kept, of every layer, 40 tokens and 2 bytes; a device has half of them where it has half
    # of the weights.
    keeping, halves = replace(c, keep=("gate", "up")), cuts._replace(tensor=2)
    for cut in (cuts, halves):
        held, more = (counts.update_memory(x, shape, reference=True, micro_batches=2, cuts=cut) for x in (c, keeping))
        assert more.total - held.total == pytest.approx(2 * c.feed_forward * c.layers * 40 * 2 / cut.tensor)
    # The residual stream is whole on every device, so what is added to it is, too; the last product is not kept.
    keeping = replace(c, keep=("output", "down"))
    held, more = (counts.update_memory(x, shape, reference=True, micro_batches=2, cuts=halves) for x in (c, keeping))
    assert more.total - held.total == pytest.approx(c.width * c.layers * 40 * 2)


@pytest.mark.parametrize("preset, mesh, micro_batches, compiled", [
    ("QWEN3_4B", (16, 4, 1, 1), 8, 11.91),
    ("QWEN3_4B", (16, 2, 1, 2), 8, 12.63),
    ("QWEN3_4B", (16, 1, 1, 4), 4, 27.47),
    ("QWEN3_4B", (16, 1, 1, 4), 1, 74.03),
    ("QWEN2_5_7B", (16, 4, 1, 1), 8, 14.44),
    ("QWEN2_5_7B", (16, 4, 1, 1), 4, 22.02),
    ("QWEN2_5_7B", (16, 1, 1, 4), 1, 81.98),
    ("LLAMA_3_1_8B", (16, 2, 2, 1), 16, 12.61),
    ("LLAMA_3_1_8B", (16, 4, 1, 1), 8, 16.22),
    ("LLAMA_3_1_8B", (16, 2, 1, 2), 4, 29.41),
    ("LLAMA_3_1_8B", (16, 1, 1, 4), 1, 89.54),
])  # fmt: skip
def test_memory_on_paper_is_near_what_was_compiled(preset, mesh, micro_batches, compiled):
    """GiB of whole updates on 64 devices (docs/log/plan.md); so a search begins with what may fit."""
    model = replace(getattr(presets, preset), compute_dtype="bfloat16")
    _, held = layouts.update_work(model, Shape(32, 16, 8192, 10240), mesh, micro_batches, True)
    assert 0.8 < held.total / ahead_of_time.GIB / compiled < 1.02


def test_more_micro_batches_hold_less_and_move_more():
    whole = layouts.whole_of(QWEN3_4B)
    works = [layouts.update_work(presets.QWEN3_4B, whole, (8, 8, 1, 1), micro, True) for micro in (1, 4)]
    (one, held_one), (four, held_four) = works
    assert held_four.total < held_one.total and four.bytes > one.bytes and four.exchanged > one.exchanged
    assert four.flops == one.flops  # whole tasks: no prompt is computed twice


def test_layouts_come_fastest_on_paper_first_and_may_fit():
    config, model = QWEN3_4B, plan.model_of(QWEN3_4B)
    found = layouts.layouts(config, model, CHIPS["v5p"], 64, 1)

    def seconds_of(c):
        work, _ = layouts.update_work(model, layouts.whole_of(c), c.mesh, c.update.micro_batches, True)
        return max(roofline(CHIPS["v5p"], work).values())

    seconds = [seconds_of(c) for c in found]
    assert seconds == sorted(seconds) and len(found) > 10
    with pytest.raises(ValueError, match="no layout of 1 devices of 15.75 GiB holds the update of this run"):
        layouts.layouts(config, model, CHIPS["v5e"], 1, 1)


def test_hosts_cut_the_data_axis_and_hold_a_copy_of_the_weights():
    config, model = QWEN3_4B, plan.model_of(QWEN3_4B)
    with pytest.raises(ValueError, match="16 processes need a mesh whose data axis they divide"):
        layouts.check_layout(replace(config, mesh=(8, 8, 1, 1)), model, 64, 16)
    found = layouts.layouts(config, model, CHIPS["v5e"], 64, 16)
    assert found and all(c.mesh[0] % 16 == 0 for c in found)
    assert all(layouts.host_share(c, 16).tasks == c.rollout.concurrent_tasks for c in found)

    one = replace(config, mesh=(16, 4, 1, 1))
    # 4 chips share a task's rollouts, not its prompt.
    prompts, suffixes = 2 * 2 * 36 * 8 * 128 * 8192, 2 * 2 * 36 * 8 * 128 * 16 * 10_240 / 4
    weights = 2 * counts.parameters(model) / 4
    state = 4 * 4 * counts.parameters(model) / 64
    at_work = counts.activation_bytes(model, 8192 / 4) / 36
    held = layouts.generation_memory(one, model, 16, Shape(1, 16, 8192, 10_240))
    assert held == pytest.approx(prompts + suffixes + weights + state + at_work)
    # Held-out tasks have one rollout each: every chip has tasks of its own.
    held = layouts.generation_memory(one, model, 16, Shape(4, 1, 8192, 10_240))
    assert held == pytest.approx(prompts + 2 * 2 * 36 * 8 * 128 * 10_240 + weights + state + 4 * at_work)


# ------------------------------------------------------------------------------------ bad input
def refused(monkeypatch, capsys, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["plan", *arguments])
    monkeypatch.setattr(plan, "compile_step", None)  # refused before anything is compiled
    with pytest.raises(SystemExit) as stopped:
        plan.main()
    assert stopped.value.code == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("error: ") and "\n" not in told
    return told


CONFIG = ("--config", "configs/bfcl_qwen3_4b.py")
MESH = ("--mesh", "8", "8", "1", "1")


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (("--topology", "v9:8x8", *MESH), "the topology must be one of"),
        (("--topology", "v5e:4x4", *MESH), "needs 64 devices, and there are 16"),
        (("--topology", "v5e:4x4", "--mesh", "1", "1", "16", "1"), "cuts axis K of layers.key into 16 parts"),
        (("--topology", "v5e:8x8", *MESH, "--rollout.max-suffix-tokens", "40960"), "the model has 40960 positions"),
        (("--topology", "v5e:8x8", *MESH, "--update.micro-batches", "512"), "update.micro_batches must divide"),
        (("--topology", "h100:9"), "1 to 8 cards of a host"),
        (("--topology", "h100:8", "--flash-attention"), "flash_attention is a kernel for TPUs"),
        (("--topology", "h100:8", "--efficiency", "2"), "--efficiency must be above 0 and at most 1"),
        (("--topology", "h100:8", "--json", "no/such/folder/x.json"), "there is no folder no/such/folder"),
    ],
)
def test_bad_input_is_one_sentence_before_compiling(monkeypatch, capsys, arguments, sentence):
    assert sentence in refused(monkeypatch, capsys, *CONFIG, *arguments)


def test_a_file_that_is_not_the_commands_is_left_as_it_is(monkeypatch, capsys, tmp_path):
    (tmp_path / "notes.json").write_text('{"topology": "mine"}')
    arguments = "--topology", "h100:8", "--json", str(tmp_path / "notes.json")
    assert "notes.json is no file of this command, and is left as it is" in refused(
        monkeypatch, capsys, *CONFIG, *arguments
    )
    assert (tmp_path / "notes.json").read_text() == '{"topology": "mine"}'


def test_a_cold_start_alone_is_not_planned(monkeypatch, capsys, tmp_path):
    (tmp_path / "cold.py").write_text(
        "from dataclasses import replace\nfrom configs.quickstart import CONFIG\nCONFIG = replace(CONFIG, stages=())\n"
    )
    arguments = "--config", str(tmp_path / "cold.py"), "--topology", "h100:1"
    assert "no stages, and the cold start alone" in refused(monkeypatch, capsys, *arguments)


def test_the_layout_of_the_config_comes_first(monkeypatch):
    tried = []
    monkeypatch.setattr(plan, "search", lambda candidates, *_: tried.extend(candidates) or sys.exit(0))
    config = "--config", "configs/study_qwen3_4b.py", "--topology"
    for card, own in (("h100:8", (4, 2, 1, 1)), ("h100:4", None)):
        tried.clear()
        monkeypatch.setattr(sys, "argv", ["plan", *config, card])
        with pytest.raises(SystemExit):
            plan.main()
        assert own in (None, tried[0].mesh) and len(tried) > 2
        assert len({(one.mesh, one.update.micro_batches) for one in tried}) == len(tried)


def test_ctrl_c_ends_it_in_one_sentence():
    code = (
        "import os, signal, time\nfrom models.planning import plan\n"
        "plan.search = lambda *_: os.kill(os.getpid(), signal.SIGINT) or time.sleep(60)\nplan.main()"
    )
    command = [sys.executable, "-c", code, "--config", "configs/quickstart.py", "--topology", "h100:1"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 130
    assert ended.stderr.startswith("ended by SIGINT: ") and ended.stderr.count("\n") == 1


def dispatched_too_large(*_, **__):
    """As a computation says it that was under way already."""
    raise jax.errors.JaxRuntimeError("INTERNAL: Error dispatching computation: Out of memory allocating 9 bytes.")


@pytest.mark.parametrize(
    "run, words", [(lambda *_, **__: jnp.zeros(1 << 46), "RESOURCE_EXHAUSTED"), (dispatched_too_large, "INTERNAL")]
)
def test_a_run_out_of_memory_names_the_plan(monkeypatch, capsys, run, words):
    monkeypatch.setattr(sys, "argv", ["train", *CONFIG])
    with pytest.raises(SystemExit) as stopped:
        train.main(train=run)
    told = capsys.readouterr().out
    assert stopped.value.code == 2 and told.startswith(f"error: out of memory ({words}")
    assert "python -m scripts.plan --config configs/bfcl_qwen3_4b.py --topology" in told


def test_a_checkpoint_that_is_not_there_needs_a_shape():
    assert plan.model_of(QWEN3_4B).layers == 36 and plan.model_of(QWEN3_4B).compute_dtype == "bfloat16"
    with pytest.raises(ValueError, match="is not there"):
        plan.model_of(replace(QWEN3_4B, model=replace(QWEN3_4B.model, shape=None)))


def test_what_does_not_fit_says_what_to_change():
    config = twin(QWEN3_4B)
    held = counts.Held(parameters=float(GIB))
    step = programs.Program("update", "update", None, (), Work(1.0, 1.0, 0.0), 1.0, held, float(GIB), 8)
    memory = Memory(arguments=10 * GIB, outputs=0, temporaries=5 * GIB, program=0)
    one = plan.figures_of(step, Compiled(memory, "", {"all-gather": 200e9}, 1.0), CHIPS["v5e"], config)
    assert not one["fits"] and one["seconds"]["roofline"] == 1.0 and one["seconds"]["bound_by"] == "exchange"
    assert "--update.micro-batches 4" in one["advice"][0]
    assert "does not fit: 16.00 GiB of 15.75" in plan.figures_text(one, CHIPS["v5e"])
    fitting = plan.figures_of(step._replace(resident=0.0), Compiled(memory, "", {}, 1.0), CHIPS["v5e"], config)
    assert fitting["fits"] and fitting["advice"] == []
    # What is one already has no half.
    alone = replace(config, rollout=replace(config.rollout, concurrent_rollouts=1))
    for part, tasks, cfg, words in (
        ("rollouts", 2, config, "--rollout.concurrent-tasks 1:"),
        ("rollouts", 1, config, "--rollout.concurrent-rollouts"),
        ("rollouts", 1, alone, "more devices along tensor"),
        ("evaluation", 4, config, "--evaluation.concurrent-tasks 2:"),
        ("evaluation", 1, config, "more devices along tensor"),
    ):
        assert plan.remedies(step._replace(part=part, tasks=tasks), cfg)[0].startswith(words)


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("flash_attention", [False, True])
def test_a_tpu_slice_compiles_here(flash_attention):
    config = replace(twin(QWEN3_4B, compute_dtype="bfloat16"), flash_attention=flash_attention)
    _, result = plan.search([config], plan.model_of(config), ahead_of_time.slice_of("v5e:2x4"))
    assert result["fits"] and result["programs"][0]["memory"]["program"] > 0
    with pytest.raises(ValueError, match="there is no TPU slice v5e:7x8"):
        ahead_of_time.slice_of("v5e:7x8")
