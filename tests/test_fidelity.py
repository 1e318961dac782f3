"""The fidelity report: figures computed by hand, and a run directory written and read as training does."""

import io
import json
import random
import statistics
from dataclasses import replace

import pytest
from rich.console import Console
from synthesis_toy import TASK, TOY
from worlds_toy import asked, questions

from rods_jax.config import Habits
from rods_jax.demonstrations import demonstrate
from rods_jax.environments.mixture import mixture
from rods_jax.environments.workplace.domain import WORKPLACE
from rods_jax.metrics import open_metrics
from rods_jax.rollout import Rollouts
from rods_jax.run.fidelity import first_measurements, print_fidelity, write_fidelity
from rods_jax.run.stages import shower
from rods_jax.synthesis.courier.dispatch import Dispatch
from rods_jax.synthesis.errors import ADVICE, LAYOUT_TOO_LONG, PIPELINE_EXCEPTION
from rods_jax.synthesis.fidelity import STAGE_ERRORS, DispatchedSeed, FirstMeasurement, fidelity_report
from rods_jax.synthesis.near_duplicates import far_from
from rods_jax.synthesis.pipeline import RULE_BASED, author_tasks, synthesize
from rods_jax.task_files import content_hash, write_tasks
from rods_jax.types import Call, Codec, Turn


def variant(name, **changes):
    return replace(TASK, id=name, ancestry=(TASK.id,), **changes)


FAUST = Call("add_book", {"title": "Faust"})
LENT = Call("lend_book", {"book_id": 700, "borrower": "boris"})
# The same calls as the seed with other values in the first turn, and no flow into the till.
OTHER = variant(
    "other",
    turns=(
        Turn("Please put Faust on the shelf and give it to boris.", (FAUST, LENT)),
        Turn("How late is that one?", (Call("compute_fine", {"book_id": 700}),)),
        Turn("Add 55 to the money.", (Call("deposit_cash", {"amount": 55}),)),
    ),
)
OUTCOMES = (
    DispatchedSeed(TASK, 3, 3, variant("copy"), ("no_pattern", "silence_fails"), 7),
    DispatchedSeed(TASK, 4, 6, OTHER, (), 5),
    DispatchedSeed(replace(TASK, id="barren"), 4, 6, None, ("vm_exec_failed", "vm_exec_failed", PIPELINE_EXCEPTION), 3),
)
MEASURED = {"copy": FirstMeasurement(8, 0.25), "other": FirstMeasurement(12, 0.8), TASK.id: FirstMeasurement(1, 0.5)}


def report(**changes):
    arguments = {"outcomes": OUTCOMES, "measured": MEASURED, "held_out": ()} | changes
    return fidelity_report(TOY, **arguments)


def test_a_step_without_a_finite_reward_measures_nothing():
    """As a log has it: a step that was skipped, and a group of which too few rollouts were valid, have null."""
    records = [{"step": 1, "task_ids": None, "task_mean": None}]
    records += [{"step": 2, "task_ids": ["copy", "other"], "task_mean": [None, 0.8]}]
    records += [{"step": 5, "task_ids": ["copy", "other"], "task_mean": [0.25, 0.1]}]
    found = first_measurements(records)
    assert found == {"copy": FirstMeasurement(5, 0.25), "other": FirstMeasurement(2, 0.8)}
    assert report(measured=found)["boundary"]["measured"] == 2


def test_acceptance_counts_dispatches_seeds_attempts_and_model_calls():
    acceptance = report()["acceptance"]
    by_category = acceptance.pop("by_category")
    assert by_category.pop("base") == acceptance
    assert acceptance == {
        "dispatched": 3,
        "accepted": 2,
        "share": pytest.approx(2 / 3),
        "seeds": 2,
        "seeds_with_variant": 0.5,
        "attempts_per_accepted": (2 + 5) / 2,
        "model_calls_per_accepted": 15 / 2,
    }
    assert all(row["dispatched"] == 0 and row["share"] is None for row in by_category.values())


def test_every_attempt_goes_through_the_stages_until_it_fails():
    stages = report()["stages"]
    assert [(name, row["attempts"], row["errors"]) for name, row in stages.items()] == [
        ("any", 7, {PIPELINE_EXCEPTION: 1}),
        ("plan", 6, {"no_pattern": 1}),
        ("execute", 5, {"vm_exec_failed": 2}),
        ("rewrite and augment", 3, {}),
        ("critique", 3, {"silence_fails": 1}),
    ]
    assert stages["execute"]["passed"] == 0.6 and stages["rewrite and augment"]["passed"] == 1


def test_every_error_type_has_one_stage():
    staged = [name for names in STAGE_ERRORS.values() for name in names]
    assert sorted([*staged, PIPELINE_EXCEPTION]) == sorted([*ADVICE, LAYOUT_TOO_LONG])


def test_latency_in_steps():
    assert report()["latency"] == {
        "to_candidate": {"median": 1.0, "largest": 2},
        "to_first_training": {"median": 6.5, "largest": 8},
    }
    assert report(measured={})["latency"]["to_first_training"] is None


def test_profile_match_by_category_with_the_ablation_beside_it():
    match = report()["profile_match"]["base"]
    assert (match["variants"], match["classes"], match["calls_per_turn"]) == (2, 1, 1)
    assert match["depth"] == 0.5  # the fine that flows into the till is gone
    assert match["edges"] == pytest.approx((1 + 2 / 3) / 2)
    assert match["ablation_depth"] == 1  # leaving a call out never saw that flow
    assert set(report()["profile_match"]) == {"base"}


def test_a_variant_of_a_mixture_is_measured_in_its_own_domain():
    """A question needs no class, and so nothing else would tell whose it is."""
    both = mixture("both", [TOY, questions(lambda task, said: True)])
    seed = replace(asked("q", "Why?"), category="questions/question")
    again = DispatchedSeed(seed, 1, 1, replace(seed, id="q~1", ancestry=("q",)), (), 0)
    match = fidelity_report(both, [again], {}, [])["profile_match"]["questions/question"]
    assert match["variants"] == match["classes"] == match["edges"] == match["ablation_depth"] == 1


def test_diversity():
    diversity = report()["diversity"]
    assert (diversity["call_patterns"], diversity["call_patterns_per_variant"]) == (1, 0.5)
    assert diversity["effective_call_patterns"] == 1
    assert diversity["near_another_variant"] == 0
    # The copy's values are all its seed's; of faust, 700, boris (and 55, too short to tell) one is.
    assert diversity["entity_reuse"] == pytest.approx((1 + 1 / 3) / 2)
    twice = (*OUTCOMES, OUTCOMES[0]._replace(candidate=variant("copy of the copy")))
    assert report(outcomes=twice)["diversity"]["near_another_variant"] == pytest.approx(2 / 3)


def test_the_boundary_band_holds_its_edges():
    assert report()["boundary"] == {"measured": 2, "below": 0, "in_band": 0.5, "above": 0.5}
    assert report(measured={})["boundary"] == {"measured": 0, "below": None, "in_band": None, "above": None}


def test_leakage():
    assert report()["leakage"]["closest"] is None
    clean = replace(TASK, id="held", scenario="elsewhere", turns=(Turn("Say hello."),))
    assert report(held_out=[clean])["leakage"] == {
        "scenarios_shared": 0,
        "same_content": 0,
        "near_duplicates": 0,
        "closest": None,
    }
    leaked = report(held_out=[clean, replace(TASK, id="held too")])["leakage"]
    assert (leaked["scenarios_shared"], leaked["same_content"], leaked["near_duplicates"]) == (2, 1, 1)
    assert leaked["closest"] == {"variant": "copy", "task_id": "held too", "similarity": 1}


def test_a_run_without_synthesis_has_a_report_too():
    empty = report(outcomes=(), measured={})
    assert empty["acceptance"]["share"] is None and empty["profile_match"] == {}
    print_fidelity(empty, Console(file=io.StringIO()))


# --------------------------------------------------------------------------------- a run directory
@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """The rule-based author on the bundled office, recorded by what records a training run."""
    directory = tmp_path_factory.mktemp("run")
    tasks = author_tasks(WORKPLACE, count=60, rng=random.Random(1))
    seeds, held_out = list(tasks[:40]), tasks[40:]
    (directory / "tasks").mkdir()
    for part, some in (("seeds", seeds), ("held_out", held_out), ("practice", ()), ("validation", ())):
        write_tasks(directory / "tasks" / f"{part}.jsonl", some)
    roles = RULE_BASED._replace(gates=(*RULE_BASED.gates, far_from(held_out)))
    known = set(map(content_hash, tasks))
    with (
        open_metrics(directory / "metrics.jsonl") as write_metrics,
        open_metrics(directory / "trajectories.jsonl") as write_trajectory,
        open_metrics(directory / "candidates.jsonl") as write_candidate,
    ):
        write_metrics(0, {"epoch": 0})
        show = shower(write_trajectory, write_candidate, decode=str)
        for step in range(4):
            dispatches = []
            for seed in seeds[step * 10 : step * 10 + 10]:
                rng = random.Random(f"{step}/{seed.id}")
                result = synthesize(WORKPLACE, seed, rng=rng, step=step, known_hashes=known, roles=roles)
                dispatches.append(Dispatch(seed, step, result))
            variants = [dispatch.result.candidate for dispatch in dispatches if dispatch.result.candidate]
            seeds += variants[:1]  # a variant becomes a seed
            # Each step trains on the variants of the one before; means alternate between 0.5 and 1.
            means = [0.5, 1.0] * len(variants)
            write_metrics(step + 2, {"task_ids": [v.id for v in variants], "task_mean": means[: len(variants)]})
            show(step + 1, Rollouts(None, ()), dispatches)
    return directory


def test_the_office_meets_its_figures(run_dir):
    found = write_fidelity(run_dir, WORKPLACE)
    assert json.loads((run_dir / "fidelity.json").read_text()) == found
    assert found["acceptance"]["dispatched"] == 40 and found["acceptance"]["share"] >= 0.7
    assert found["acceptance"]["seeds_with_variant"] >= 0.7
    gated = ("category", "num_turns", "calls_per_turn", "classes", "depth", "edges")
    assert all(row[part] == 1 for row in found["profile_match"].values() for part in gated)
    assert set(found["profile_match"]) == {"base", "missing_function", "missing_parameter", "long_context"}
    assert found["latency"]["to_candidate"]["largest"] == 0
    assert found["latency"]["to_first_training"] == {"median": 1, "largest": 1}
    assert found["boundary"]["measured"] == found["acceptance"]["accepted"]
    assert 0.4 < found["boundary"]["in_band"] < 0.6
    leakage = found["leakage"]
    assert (leakage["scenarios_shared"], leakage["same_content"], leakage["near_duplicates"]) == (0, 0, 0)


def test_variants_of_boundary_tasks_lie_at_the_boundary_of_a_player_that_never_changes():
    """The demonstrator of the quickstart: what training adds is that the policy improves while a variant waits."""
    nothing = {name: lambda *_: [] for name in Codec._fields}
    habits, rng = Habits(stop_early=0.65, skip=0.15, repeat=0.1), random.Random(0)

    def observe(task):
        passed = [demonstrate(WORKPLACE, task, Codec(**nothing), habits, rng).passed for _ in range(16)]
        return sum(map(sum, passed)) / (16 * len(task.turns))

    pairs = []
    for seed in author_tasks(WORKPLACE, count=120, rng=random.Random(0)):
        if 0.20 <= (before := observe(seed)) <= 0.85:
            variant = synthesize(WORKPLACE, seed, rng=random.Random(seed.id), step=0, known_hashes=()).candidate
            pairs += [(before, observe(variant))] if variant else []
    before, after = zip(*pairs, strict=True)
    assert len(pairs) > 80 and sum(0.25 <= mean <= 0.75 for mean in after) >= 0.6 * len(pairs)
    assert statistics.correlation(before, after) > 0.5  # of one difficulty, not of the domain's average one


def test_the_tables_show_every_stage_and_category(run_dir):
    text = io.StringIO()
    print_fidelity(write_fidelity(run_dir, WORKPLACE), Console(file=text, width=200))
    for words in ("missing_parameter", "rewrite and augment", "reward in [0.25, 0.75]", "ablation depth"):
        assert words in text.getvalue()


def test_wrong_records_are_one_clear_sentence(run_dir, tmp_path):
    with pytest.raises(ValueError, match="which toy lacks"):
        write_fidelity(run_dir, TOY)
    (tmp_path / "tasks").symlink_to(run_dir / "tasks")
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "candidates.jsonl").write_text('{"step": 1, "task": {}}\n')
    with pytest.raises(ValueError, match="older run"):
        write_fidelity(tmp_path, WORKPLACE)
    line = {"step": 1, "seed": "nobody", "dispatched": 1, "candidate": None, "rejections": [], "exchanges": []}
    (tmp_path / "candidates.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(ValueError, match="seed nobody"):
        write_fidelity(tmp_path, WORKPLACE)
