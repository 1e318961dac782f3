"""How good the synthesised tasks of a run are: acceptance, latency, profile match, diversity, boundary, leakage.

It is read from candidates.jsonl, metrics.jsonl and tasks/, and written to fidelity.json; docs/guide/fidelity.md explains
the figures.  What computes them is in synthesis/fidelity.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rods_jax import strict_json
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.files import require_object, write_atomically
from rods_jax.metrics import read_metrics
from rods_jax.synthesis.fidelity import BAND, DispatchedSeed, FirstMeasurement, fidelity_report
from rods_jax.task_files import read_tasks, task_from_json
from rods_jax.terminal import harmless_text
from rods_jax.types import Task


def write_fidelity(run_dir: str | Path, domain: Domain) -> dict[str, Any]:
    """Reads a run's records, writes and returns the report. ValueError: they are not of this domain, or older."""
    run_dir = Path(run_dir)
    parts = {part: read_tasks(run_dir / "tasks" / f"{part}.jsonl") for part in TaskSplits._fields}
    called = {call.name for task in parts["seeds"] for turn in task.turns for call in turn.gold}
    if not called <= domain.tools.keys():
        lacking = min(called - domain.tools.keys())
        raise ValueError(f"{run_dir} calls {lacking}, which {domain.name} lacks: this is not the run's config")
    candidates = run_dir / "candidates.jsonl"
    outcomes = tuple(read_outcomes(read_metrics(candidates), parts["seeds"], candidates))
    measured = first_measurements(read_metrics(run_dir / "metrics.jsonl"))
    report = fidelity_report(domain, outcomes, measured, parts["held_out"])
    write_atomically(run_dir / "fidelity.json", strict_json.dumps(report, indent=2) + "\n")
    return report


def read_outcomes(
    records: Sequence[Mapping[str, Any]], seeds: Sequence[Task], path: Path = Path("candidates.jsonl")
) -> Iterator[DispatchedSeed]:
    """What became of every dispatched seed, in order; a variant may be a seed later. ValueError: file, line and key."""
    tasks = {task.id: task for task in seeds}
    for number, record in enumerate(records, start=1):
        where = f"{path}, line {number}"
        if "seed" not in record:
            raise ValueError(f"{where}: it is of an older run, which recorded accepted variants only")
        require_object(record, where, seed=str, dispatched=int, rejections=list, exchanges=list)
        try:
            candidate = task_from_json(record["candidate"]) if record.get("candidate") else None
        except ValueError as error:
            raise ValueError(f"{where}: candidate: {error}") from error
        errors = tuple(str(require_object(one, where, error=str)["error"]) for one in record["rejections"])
        seed = tasks.get(record["seed"])
        if seed is None:
            raise ValueError(f"{where}: it names the seed {record['seed']}, which is no task of the run")
        yield DispatchedSeed(seed, record["dispatched"], record["step"], candidate, errors, len(record["exchanges"]))
        if candidate is not None:
            tasks[candidate.id] = candidate


def first_measurements(records: Sequence[Mapping[str, Any]]) -> dict[str, FirstMeasurement]:
    """Task id -> the first step that measured it, and its mean reward there."""
    measured: dict[str, FirstMeasurement] = {}
    for record in records:
        for name, mean in zip(record.get("task_ids") or (), record.get("task_mean") or ()):
            if mean is not None:
                measured.setdefault(name, FirstMeasurement(record["step"], mean))
    return measured


# ------------------------------------------------------------------------------------------- table
def print_fidelity(report: Mapping[str, Any], console: Console) -> None:
    """The report as a few tables; shares in per cent."""
    if not report["acceptance"]["dispatched"]:
        console.print("Synthesis: no seed was chosen, so no variant was asked for.")
        return
    _acceptance(report["acceptance"], console)
    stages = Table("stage", "attempts", "passed", "errors", title="Attempts by stage", title_justify="left")
    for stage, row in report["stages"].items():
        errors = ", ".join(f"{name} {count}" for name, count in row["errors"].items())
        stages.add_row(harmless_text(stage), str(row["attempts"]), _share(row["passed"]), harmless_text(errors))
    console.print(stages)
    if report["profile_match"]:
        parts = list(next(iter(report["profile_match"].values())))
        names = [part.replace("_", " ") for part in parts[1:]]
        match = Table("category", "variants", *names, title="Same as the seed", title_justify="left")
        for category, row in report["profile_match"].items():
            match.add_row(harmless_text(category), str(row["variants"]), *(_share(row[part]) for part in parts[1:]))
        console.print(match)
    _sentences(report, console)


def _acceptance(acceptance: Mapping[str, Any], console: Console) -> None:
    columns = ("dispatched", "accepted", "share", "seeds", "with a variant", "attempts each", "model calls each")
    table = Table("category", *columns, title="Variants", title_justify="left")
    for category, row in {**acceptance["by_category"], "all": acceptance}.items():
        table.add_row(
            harmless_text(category),
            str(row["dispatched"]),
            str(row["accepted"]),
            _share(row["share"]),
            str(row["seeds"]),
            _share(row["seeds_with_variant"]),
            _number(row["attempts_per_accepted"]),
            _number(row["model_calls_per_accepted"]),
        )
    console.print(table)


def _sentences(report: Mapping[str, Any], console: Console) -> None:
    for name, spread in report["latency"].items():
        if spread is not None:
            words = name.replace("_", " ")
            console.print(f"Steps from seed {words}: median {spread['median']:g}, at most {spread['largest']}.")
    diversity, boundary, leakage = report["diversity"], report["boundary"], report["leakage"]
    console.print(
        f"Diversity: {diversity['call_patterns']} call patterns ({_share(diversity['call_patterns_per_variant'])} of the "
        f"variants), as varied as {diversity['effective_call_patterns']:.1f} equally frequent ones, {_share(diversity['near_another_variant'])} near another variant, similarity to the seed "
        f"{_number(diversity['similarity_to_seed'])}, values shared with it {_share(diversity['entity_reuse'])}.",
        soft_wrap=True,
    )
    console.print(
        f"Boundary: {boundary['measured']} variants trained on; first mean reward in {list(BAND)} "
        f"{_share(boundary['in_band'])}, below {_share(boundary['below'])}, above {_share(boundary['above'])}.",
        soft_wrap=True,
    )
    closest = leakage["closest"]
    console.print(
        f"Leakage to held-out tasks: {leakage['scenarios_shared']} scenarios, {leakage['same_content']} contents, "
        f"{leakage['near_duplicates']} near-duplicates; the closest shares "
        f"{_share(closest and closest['similarity'])} of its shingles.",
        soft_wrap=True,
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
