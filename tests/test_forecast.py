"""What a run is told before its first step: flows, a rehearsal of synthesis, memory and the first step."""

import random
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from configs.quickstart import CONFIG
from models.counts import parameters as count_parameters
from rods_jax import run, strict_json
from rods_jax.commands import check as command
from rods_jax.environments import toolkit
from rods_jax.environments.protocol import TaskSplits
from rods_jax.run import forecast
from rods_jax.run.learning import learning
from rods_jax.synthesis.attempt import Rejection
from rods_jax.synthesis.author import Synthesis
from rods_jax.synthesis.pipeline import author_tasks, five_stages
from rods_jax.synthesis.rehearsal import rehearse
from rods_jax.task_files import content_hash
from rods_jax.types import Call, Task, Turn, World


class Lent(TypedDict):
    loan_id: int


class Shelf:
    """Lends books."""

    def __init__(self, lent: list[str] = []):
        self.lent = lent

    def lend(self, title: str) -> Lent:
        """Lends a book."""
        if not title.startswith(("Emma", "Dune", "Volume")):
            raise ValueError("no such book")
        self.lent.append(title)
        return {"loan_id": len(self.lent)}

    def extend(self, loan_id: int) -> str:
        """Extends a loan."""
        self.lent[loan_id - 1] += "+"
        return "extended"


def shelves(**functions):
    return toolkit.domain("shelves", {"Shelf": Shelf}, **functions)


def lending(title: str) -> Task:
    return Task(title, title, "base", World(("Shelf",)), (Turn(f"Lend {title}.", (Call("lend", {"title": title}),)),))


def test_flows_by_hand():
    tasks = TaskSplits(seeds=(lending("Emma"),), held_out=())
    assert forecast.tool_flows(shelves(), tasks) == {"lend": {"extend": ["loan_id"]}, "extend": {}}


def test_a_rehearsal_counts_variants_and_the_reasons_of_the_others():
    seeds = [lending(f"book {n}") for n in range(4)]

    def write(order, *, rng, step, known_hashes, attempts):
        number = int(order.seed.id.split()[1])
        failed = tuple(Rejection(n, "vm_exec_failed" if n else "no_pattern", f"{number}.{n}") for n in range(number))
        return Synthesis(lending(f"new {number}") if number < 3 else None, failed)

    found = rehearse(write, seeds, known=(), run_seed=0)
    assert (found.seeds, found.accepted) == (4, 3)
    # Seeds 1, 2 and 3 fail once, twice and three times: the first time for the one reason, then for the other.
    assert [(name, one.attempts, one.detail) for name, one in found.failures.items()] == [
        ("no_pattern", 3, "1.0"),
        ("vm_exec_failed", 3, "2.1"),
    ]


def test_a_domain_that_cannot_draw_a_value_is_told_what_mends_it():
    seeds = [lending(title) for title in ("Emma", "Dune")]
    known = {*map(content_hash, seeds)}
    empty = lambda rng, classes: {"Shelf": {"lent": []}}  # a new state, which suits no value of the seed
    poor = rehearse(five_stages(shelves(sample_state=empty)), seeds, known=known, run_seed=0)
    assert poor.accepted == 0
    titles = lambda rng, tool, parameter: f"Volume {rng.randint(0, 999)}" if parameter == "title" else None
    rich = rehearse(five_stages(shelves(sample_state=empty, sample_argument=titles)), seeds, known=known, run_seed=0)
    assert rich.accepted == 2
    assert all(failing.remedy for failing in poor.failures.values())
    spoken = list(forecast.sentences(SPOKEN | {"synthesis": forecast.asdict(poor)}))
    assert any("no such book" in sentence and "Domain.sample_argument" in sentence for sentence in spoken)


SPOKEN = {
    "flows": {"lend": {}},
    "diversity": {"tasks": 6, "patterns": 3, "effective_patterns": 2.75, "tools": 4, "pairs": 5},
    "synthesis": None,
    "begins_with": "random weights",
    "memory": {"parameters": 4_000_000, "state": 2_500_000_000, "caches": 0},
    "first_step": {"rollouts": 8, "tokens": 1234.0, "dialogues": True, "flops": 2e12, "seconds": 0.5, "seeds": 3},
}


def test_sentences_by_hand():
    begins, flows, varied, memory, step, asked = forecast.sentences(SPOKEN)
    assert "random weights and without a cold start" in begins and "checkpoint" in begins
    assert flows.startswith("0 of 1 tools return something that another tool takes: no task can be a chain")
    told = (
        "the gold of 6 seeds has 3 call patterns, as varied as 2.8 equally frequent ones, and calls 4 tools in 5 pairs"
    )
    assert varied == told
    assert memory.startswith("memory: 2.5 GB of training state on a device, 4.0 MB of it the policy")
    assert (
        step == "a first step plays 8 rollouts, 1,234 tokens if they are as long as gold, 2 TFLOP, at least 0.5 s here"
    )
    assert asked == "each step asks the authors about at most 3 seeds"
    unknown = SPOKEN | {"first_step": SPOKEN["first_step"] | {"dialogues": False}}
    assert "1,234 tokens in their prompts alone: no gold is known, 2 TFLOP" in [*forecast.sentences(unknown)][4]


def test_memory_by_hand():
    learner = CONFIG.learner(CONFIG)(1024)
    found = forecast.memory(CONFIG, learner, learning(CONFIG, learner))
    parameters, r, model = count_parameters(CONFIG.model), CONFIG.rollout, CONFIG.model
    assert found["parameters"] == 4 * parameters
    # Adam's two moments beside the policy, and a few counters; without a KL term there is no reference.
    assert 12 * parameters <= found["state"] <= 12 * parameters + 64
    rows = r.tasks_per_step * (r.group_size * r.max_suffix_tokens + r.max_prompt_tokens)
    assert found["caches"] == rows * 2 * model.layers * model.key_value_heads * model.head_width * 4


def test_frozen_weights_lie_on_the_device_too():
    learner = CONFIG.learner(CONFIG)(1024)
    frozen = ({"base": jax.ShapeDtypeStruct((1000, 10), jnp.bfloat16)},)
    plain = forecast.memory(CONFIG, learner, learning(CONFIG, learner))
    with_base = forecast.memory(CONFIG, learner._replace(frozen=frozen), learning(CONFIG, learner))
    more = {name: with_base[name] - plain[name] for name in plain}
    assert more == {"parameters": 20_000, "state": 20_000, "caches": 0}


def test_the_first_step_by_hand():
    flops = lambda prompts_N, suffixes_NG: 100.0 * (np.sum(prompts_N) + np.sum(suffixes_NG))
    learner = SimpleNamespace(flops=flops, mesh=None)
    lengths = {"stages.online synthesis": {"mean": {"prompt": 10.0, "suffix": 20.0, "action": 3.0}}}
    found = forecast.first_step(CONFIG, CONFIG.domain(), learner, lengths)
    tokens = 12 * (10 + 8 * 20)
    assert found["rollouts"] == 96 and found["tokens"] == tokens and found["flops"] == 100.0 * tokens
    assert found["tokens_at_most"] == 12 * (48 + 8 * 192)
    assert found["seconds"] > 0 and found["seconds_of"] == "measured"  # a CPU has no datasheet here
    ticks = iter(range(0, 100, 2))
    assert forecast.measured_peak(lambda: next(ticks)) == 2 * forecast.MATMUL**3 / 2


def test_a_stage_with_lengths_of_its_own_counts_with_them():
    """384 tokens of a suffix in the place of 192."""
    stage, others = CONFIG.stages[0], CONFIG.stages[1:]
    config = replace(CONFIG, stages=(replace(stage, max_suffix_tokens=384), *others))
    learner = SimpleNamespace(flops=None, mesh=None)
    lengths = {f"stages.{stage.name}": {"mean": {"prompt": 10.0, "suffix": 20.0, "action": 3.0}}}
    assert forecast.first_step(config, config.domain(), learner, lengths)["tokens_at_most"] == 12 * (48 + 8 * 384)
    learner = config.learner(config)(1024)
    caches = [forecast.memory(one, learner, learning(one, learner))["caches"] for one in (CONFIG, config)]
    rows = [12 * (48 + 8 * suffix) for suffix in (192, 384)]
    assert caches[0] * rows[1] == caches[1] * rows[0]


@pytest.mark.parametrize("cold", [True, False])
def test_what_the_policy_begins_with(cold):
    config = CONFIG if cold else replace(CONFIG, cold_start=None)
    learner = config.learner(config)(64)
    assert forecast.begins_with(config, learner) == ("demonstrations" if cold else "random weights")
    assert forecast.begins_with(config, learner._replace(random_weights=False)) != "random weights"


def few_tasks(domain, seed):
    tasks = author_tasks(domain, count=60, rng=random.Random(seed), turns=(1, 2), classes_per_task=(1, 1))
    return TaskSplits(seeds=tasks[:24], held_out=tasks[24:36], practice=tasks[36:48], validation=tasks[48:])


def test_the_command_shows_it_all_and_writes_its_figures_alone(tmp_path, monkeypatch, capsys):
    config = tmp_path / "small.py"
    config.write_text(
        "from dataclasses import replace\nfrom configs.quickstart import CONFIG\nfrom tests.test_forecast import few_tasks\n"
        f"CONFIG = replace(CONFIG, build_tasks=few_tasks, run_dir={str(tmp_path / 'run')!r})\n"
    )
    figures = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["check", "--config", str(config), "--json", str(figures)])
    command.main()
    said = capsys.readouterr().out
    for words in (
        "Flows between tools",
        "create_ticket",
        "call patterns, as varied as",
        "sampled seeds",
        "memory: ",
        "a first step plays 96 rollouts",
    ):
        assert words in said
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"small.py", "figures.json"}
    found = strict_json.loads(figures.read_text())
    assert found["lengths"].keys() == {"stages.online synthesis", "held_out", "validation"}
    assert found["diversity"]["tasks"] == 24 and found["diversity"]["effective_patterns"] == pytest.approx(24)
    assert found["synthesis"]["seeds"] == 16 and found["flows"]["find_day"]["list_events"] == ["day"]
    # A file that is not the command's is left as it is, whatever it holds.
    for text in ("notes", '{"flows": 1}'):
        figures.write_text(text)
        with pytest.raises(SystemExit):
            command.main()
        assert figures.read_text() == text and "is left as it is" in capsys.readouterr().out


def test_a_config_that_synthesises_nothing_rehearses_nothing():
    stages = tuple(replace(stage, synthesis=False) for stage in CONFIG.stages)
    tasks = few_tasks(CONFIG.domain(), 0)
    assert forecast.rehearsed(replace(CONFIG, stages=stages), tasks, CONFIG.domain()) is None
    found = run.check(replace(CONFIG, stages=stages, build_tasks=few_tasks), Console(quiet=True))
    assert found["synthesis"] is None and jax.tree.leaves(found["memory"])


def test_a_place_that_is_not_there_is_refused_before_anything_is_built(tmp_path, monkeypatch, capsys):
    config = tmp_path / "toy.py"
    config.write_text("from training_toy import CONFIG\n")
    monkeypatch.setattr(sys, "argv", ["check", "--config", str(config), "--json", "no/such/folder/x.json"])
    monkeypatch.setattr(run, "check", pytest.fail)
    with pytest.raises(SystemExit) as end:
        command.main()
    said = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 2 and "x.json cannot be written: there is no folder no/such/folder" in said
