"""Killed at any moment and resumed, a run is the uninterrupted one, bit for bit."""

import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from forks import forks

from rods_jax import journal
from rods_jax.metrics import TIMED, read_metrics
from rods_jax.run.compare import compare, leaves
from rods_jax.synthesis.courier.lines import OUTCOMES, SEEDS, TAKEN, WORK

BESIDE_CONFIG = Path(__file__).parent / "training_beside.py"

# Where a run kills itself: before a call of a function, or with half a line in a file.
POINTS = {
    "start": (
        "rods_jax.run.directory.write_tasks",
        "rods_jax.run.training.inputs_of",
        "rods_jax.run.directory.has_begun",
        "rods_jax.checkpoint.damage",
    ),
    "logs cut for a resumed run": ("rods_jax.journal._cut",),
    "injection": ("rods_jax.replay.begin_epoch",),
    "rollout": ("rods_jax.rollout._hear", "rods_jax.rollout._answer"),
    "update": ("rods_jax.run.stages.trim", "rods_jax.loop._settle"),
    "feedback": ("rods_jax.loop._observe", "rods_jax.replay.lessons.mark_seeds"),
    "evaluation": ("rods_jax.run.measure.progress_reward",),
    "checkpoint": (
        "rods_jax.checkpoint.save",
        "rods_jax.checkpoint._seal_unfinished",
        "rods_jax.checkpoint._digest",
        "rods_jax.checkpoint.write_atomically",
    ),
    "log": ("/metrics.jsonl", "/candidates.jsonl", "/trajectories.jsonl"),
    "any": ("seconds",) * 4,
}
AT_ONCE = {"synthesis": ("rods_jax.synthesis.pipeline.synthesize",)}
BESIDE = {
    "synthesis": ("rods_jax.synthesis.courier.worker._settle", "rods_jax.synthesis.pipeline.synthesize"),
    "journal": (f"/{SEEDS}", f"/{OUTCOMES}", f"/{TAKEN}", f"/{WORK}/"),
}


def deaths(rng: random.Random, judged: bool):
    """Every kind of moment in turn, in another order each round."""
    while True:
        kinds = list((POINTS | (BESIDE if judged else AT_ONCE)).values())
        rng.shuffle(kinds)
        for points in kinds:
            at = rng.choice(points)
            yield (at, round(rng.uniform(0, 2), 2)) if at == "seconds" else (at, rng.randint(1, 4))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """start(directory, options, death): trains in a process of its own; all share what was compiled."""
    cache = str(tmp_path_factory.getbasetemp() / "compiled")
    with forks("training_toy") as fork:
        yield lambda directory, options=(), death=None, devices=8: fork(
            "train", str(directory), cache, options, death, devices
        )


@pytest.fixture(scope="module")
def whole(tmp_path_factory, start):
    """The run that nobody kills, whose synthesis answers at once."""
    return uninterrupted(tmp_path_factory.mktemp("whole") / "run", start)


def end_of(directory: Path) -> str | None:
    """Exit status and last words of the process that trained here; None: it was killed."""
    path = Path(f"{directory}.end")
    return path.read_text() if path.exists() else None


def train_through(directory: Path, start, options, moments, kills: int) -> int:
    """Trains to the end in as many lives as it takes; returns in how many of them it was killed."""
    died = 0
    while end_of(directory) is None:
        start(directory, options, next(moments) if died < kills else None).join()
        died += end_of(directory) is None
    assert end_of(directory).startswith("0 "), end_of(directory)
    return died


def uninterrupted(directory: Path, start, options=(), like: Path | None = None) -> Path:
    """A run that nobody kills; `like`: with the variants of another run, each at the step at which it took it."""
    if like is not None:
        start(directory, [*options, "--synthesis.workers", "0"], ("rods_jax.run.training.synthesis_of", 1)).join()
        (directory / "synthesis").mkdir()
        for name in (SEEDS, TAKEN):
            shutil.copy(like / "synthesis" / name, directory / "synthesis")
        taken = sum(record["outcomes"] for record in records(like / "synthesis" / TAKEN))
        with journal.writing(directory / "synthesis" / OUTCOMES) as append:
            append(*records(like / "synthesis" / OUTCOMES)[:taken])
        options = [*options, "--synthesis.workers", "0"]
    assert train_through(directory, start, options, iter(()), 0) == 0
    return directory


def records(path: Path) -> list:
    return [entry.record for entry in journal.read(path)[0]]


def divergences(run: Path, whole: Path) -> list[str]:
    """What differs between the two, in words; nothing may."""
    where = (
        "settings: synthesis.workers",
        "settings: rollout.environment_workers",
    )  # who works, not what is computed
    found = [sentence for sentence in compare(run, whole) if sentence not in where]
    steps = [sorted(path.name for path in (each / "checkpoints").iterdir()) for each in (run, whole)]
    found += [f"checkpoints: {steps}"] if steps[0] != steps[1] else []
    for name in (SEEDS, TAKEN):
        paths = [each / "synthesis" / name for each in (run, whole)]
        if paths[0].exists() and paths[0].read_bytes() != paths[1].read_bytes():
            found.append(f"journals: {name}")
    return found


def survive(directory: Path, start, whole: Path | None, *, kills: int, seed: int, options=()) -> list[str]:
    """Kills runs so many times, compares each with the uninterrupted one, and prints how many differed and in what.

    Without `whole`, synthesis works beside the trainer, and each run has its own uninterrupted one."""
    options = [*options] if whole else [*options, "--config", str(BESIDE_CONFIG)]
    moments, died, runs, found = deaths(random.Random(seed), judged=whole is None), 0, 0, []
    while died < kills:
        run = directory / f"run{runs}"
        died += train_through(run, start, options, moments, kills - died)
        like = whole or uninterrupted(directory / f"whole{runs}", start, options, run)
        found += [f"run {runs}: {sentence}" for sentence in divergences(run, like)]
        runs += 1
        last = read_metrics(run / "metrics.jsonl")[-1]  # a life with everything in it
        assert last["pool_staged"] + last["injected"] > 0
    print(f"synthesis {directory.name}: {died} kills in {runs} runs, {len(found)} divergences {found}")
    return found


def survive_both(directory: Path, start, whole: Path, *, kills: int, seed: int) -> None:
    """Half of the kills while synthesis answers at once, and half while it works beside the trainer."""
    with ThreadPoolExecutor(2) as both:
        jobs = [
            both.submit(survive, directory / name, start, like, kills=kills // 2, seed=seed)
            for name, like in (("at once", whole), ("beside", None))
        ]
    assert [job.result() for job in jobs] == [[], []]


def test_a_run_killed_4_times_is_the_uninterrupted_one(tmp_path, start, whole):
    survive_both(tmp_path, start, whole, kills=4, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_runs_killed_50_times_are_the_uninterrupted_ones(tmp_path, start, whole, seed):
    survive_both(tmp_path, start, whole, kills=50, seed=seed)


@pytest.mark.slow
def test_runs_killed_25_times_with_environment_workers_are_the_one_without(tmp_path, start, whole):
    workers = ["--rollout.environment-workers", "2"]
    assert survive(tmp_path / "workers", start, whole, kills=25, seed=5, options=workers) == []


# ----------------------------------------------------------------------------- another layout
@pytest.mark.slow
def test_on_other_devices_a_run_goes_on_with_the_same_tasks_and_noise(tmp_path, start):
    options = ["--max-steps", "4", "--retention.latest", "9"]
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    start(whole, [*options, "--mesh", "2", "4", "1", "1"]).join()
    assert end_of(whole).startswith("0 "), end_of(whole)
    shutil.copytree(whole, moved)
    start(moved, [*options, "--mesh", "2", "2", "1", "1", "--resume-step", "2"], devices=4).join()
    assert end_of(moved).startswith("0 ") and "\nresumed at step 2, epoch 0" in end_of(moved), end_of(moved)
    for x, y in zip(*(read_metrics(run / "metrics.jsonl") for run in (whole, moved)), strict=True):
        exact = {"stage", "task_ids", "seeds", "rejections", "failures"}
        assert [x.get(key) for key in exact] == [y.get(key) for key in exact]
        for key in (x.keys() & y.keys()) - exact:
            assert key.startswith(TIMED) or np.allclose(x[key], y[key], rtol=0, atol=1e-5), (x["step"], key)
    expected, found = (leaves(run / "checkpoints" / "4") for run in (whole, moved))
    assert expected.keys() == found.keys()
    for key, leaf in expected.items():
        if isinstance(leaf, np.ndarray):
            np.testing.assert_allclose(found[key], leaf, rtol=0, atol=1e-5, err_msg=key)
        else:
            assert found[key] == leaf, key
