"""One run of a study, from the cold start that it shares to its line.

    cold start of the seed -> fork -> training to the budget -> held-out tasks at points on the way -> result.json

Killed, it goes on from its checkpoints.  When its result is written, its checkpoints go: the command makes them again.
"""

import contextlib
import fcntl
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

import rods_jax
from rods_jax import checkpoint
from rods_jax.config import Config
from rods_jax.curriculum import rules_of
from rods_jax.environments.episode import start_episodes
from rods_jax.fields import require
from rods_jax.files import write_atomically
from rods_jax.metrics import read_metrics
from rods_jax.rewards import progress_reward
from rods_jax.rollout import collect
from rods_jax.run import directory as place
from rods_jax.run.fidelity import first_measurements
from rods_jax.run.learning import cache_compilations
from rods_jax.run.measure import EVALUATION
from rods_jax.run.playing import evaluation_player
from rods_jax.run.training import advance
from rods_jax.types import Json
from scripts.study.plan import Planned, Study, cold_config_of, config_of, digest_of
from scripts.study.pool import drops_groups, stretches, without_variance

RESULT, SCORES = "result.json", "held_out.json"


class Point(NamedTuple):
    """A place on a run's way: after so many rollouts, with the step of its checkpoint."""

    step: int
    rollouts: int
    tokens: int
    seconds: float  # of training and synthesis, by the host's clock


def train_and_measure(study: Study, run: Planned, console: Console) -> Mapping[str, Json]:
    """The line of a run; what was done before is not done again."""
    cache_compilations()
    code = code_version()
    config = config_of(study, run)
    directory = Path(config.run_dir)
    if (directory / RESULT).exists():
        line = json.loads((directory / RESULT).read_text("utf-8"))
        require(line["config"] == digest_of(config), f"{directory} holds the result of other settings: move it away")
        return line
    cold = cold_start(study, run, console)
    if not (directory / "config.json").exists():
        place.fork(config, cold, 0)
    if not has_ended(config):
        advance(config, resume=True, console=console)
    ways = points(read_metrics(directory / "metrics.jsonl"), checkpoint.steps(directory / "checkpoints"), study)
    started = time.perf_counter()
    first = json.loads((cold / SCORES).read_text("utf-8"))
    scores = [first, *held_out_scores(study, config, [point.step for point in ways])]
    line = line_of(study, run, [Point(0, 0, 0, 0.0), *ways], scores) | code
    line["seconds_evaluation"] = round(time.perf_counter() - started, 1)
    write_atomically(directory / RESULT, json.dumps(line) + "\n")
    shutil.rmtree(directory / "checkpoints")
    return line


def cold_start(study: Study, run: Planned, console: Console) -> Path:
    """The folder of a seed's cold start, with the held-out scores of step 0; made by whichever run comes first."""
    config = cold_config_of(study, run)
    directory = Path(config.run_dir)
    with _alone(directory.with_suffix(".lock")):
        if not (directory / SCORES).exists():
            if not has_ended(config):
                advance(config, resume=(directory / "config.json").exists(), console=console)
            (scores,) = held_out_scores(study, config, [0])
            write_atomically(directory / SCORES, json.dumps(scores) + "\n")
    return directory


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def has_ended(config: Config) -> bool:
    """Whether a run has come to the end of its budget, and that is saved."""
    directory = Path(config.run_dir)
    if not (directory / "metrics.jsonl").exists() or not (records := read_metrics(directory / "metrics.jsonl")):
        return False
    last = records[-1]
    saved = max(checkpoint.steps(directory / "checkpoints"), default=0)
    spent = last.get("rollouts_spent", 0)
    ended = last["step"] >= (config.max_steps or np.inf) or spent >= (config.max_rollouts or np.inf)
    return ended and saved == last["step"]


# ------------------------------------------------------------------------------------ held-out scores
def points(records: Sequence[Mapping[str, Any]], saved: Sequence[int], study: Study) -> list[Point]:
    """At equal shares of the budget, the last checkpoint that is not beyond; the last of them is the run's end."""
    steps = [record for record in records if record["step"] > 0]
    seconds = np.cumsum([record["seconds_step"] for record in steps])
    way = [
        Point(record["step"], record["rollouts_spent"], record["tokens_spent"], round(float(spent), 1))
        for record, spent in zip(steps, seconds, strict=True)
        if record["step"] in saved
    ]
    bounds = [study.budget * share / study.points for share in range(1, study.points)]
    chosen = [max((one for one in way if one.rollouts <= bound), default=way[0]) for bound in bounds]
    return [*chosen, way[-1]]


def held_out_scores(study: Study, config: Config, steps: Sequence[int]) -> list[dict[str, Json]]:
    """Of each checkpoint: progress and whole tasks of every held-out task, over several rollouts at temperature 1.

    The noise follows seed, number of the checkpoint, task and rollout, so that arms share it.
    """
    directory, domain = Path(config.run_dir), config.domain()
    tasks, tokenizer = place.read_inputs(directory)
    learner = config.learner(config)(len(tokenizer))
    held_out, rollouts = tasks.held_out, study.held_out_rollouts
    play = evaluation_player(
        config, learner, config.codec(tokenizer), len(tokenizer), len(held_out), group_size=rollouts
    )
    found = []
    for number, step in enumerate(steps, start=int(steps != [0])):
        _, params = checkpoint.read_params(directory / "checkpoints", learner.shapes, step)
        played = collect(
            learner.whole(params),
            held_out,
            play,
            start=partial(start_episodes, domain, rules=rules_of(config)),
            seed=config.seed,
            step=EVALUATION | number,
            reward=progress_reward,
        ).trajectories
        failed_NG = np.array([one.failure is not None for one in played]).reshape(-1, rollouts)
        progress_NG = np.array([progress_reward(one) for one in played]).reshape(-1, rollouts)
        valid_NG = np.where(failed_NG, np.nan, progress_NG)
        if lost := [task.id for task, failed in zip(held_out, failed_NG.all(1)) if failed]:
            raise RuntimeError(
                f"all rollouts of {len(lost)} held-out tasks failed, such as {lost[0]}: there is no score"
            )
        found.append(
            {
                "progress": round(float(np.nanmean(valid_NG)), 6),
                "strict": round(float(np.nanmean(np.where(failed_NG, np.nan, valid_NG == 1))), 6),
                "failed": int(failed_NG.sum()),
                "by_task": [round(one, 4) for one in np.nanmean(valid_NG, axis=1).tolist()],
                "solved_by_task": (valid_NG == 1).sum(1).tolist(),
            }
        )
    return found


# ------------------------------------------------------------------------------------------ the line
def line_of(study: Study, run: Planned, ways: Sequence[Point], scores: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """All that is kept of a run."""
    config = config_of(study, run)
    records = read_metrics(Path(config.run_dir) / "metrics.jsonl")
    first, last = scores[0], scores[-1]
    way = [{**point._asdict(), **{k: s[k] for k in ("progress", "strict", "failed")}} for point, s in zip(ways, scores)]
    return {
        "study": study.name,
        "arm": run.arm.name,
        "seed": run.seed,
        "config": digest_of(config),
        "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "progress": last["progress"],
        "strict": last["strict"],
        "area": round(area([one["rollouts"] for one in way], [one["progress"] for one in way]), 6),
        "collapsed": last["progress"] < first["progress"],
        "way": way,
        "by_task": last["by_task"],
        "solved_by_task": last["solved_by_task"],
        **trained(records),
        **({"stretches": stretches(Path(config.run_dir), records, study.stretches)} if study.stretches else {}),
    }


def area(rollouts: Sequence[float], progress: Sequence[float]) -> float:
    """The mean of the curve over the rollouts, by trapezia."""
    return float(np.trapezoid(progress, rollouts) / (rollouts[-1] - rollouts[0]))


def trained(records: Sequence[Mapping[str, Any]]) -> dict[str, Json]:
    """What the training itself tells: the pool at its end, variants, seconds, and where rewards varied."""
    steps = [record for record in records if record["step"] > 0]
    last = steps[-1]
    means, variances = (  # nan: too few rollouts of the group were valid
        np.array([x for record in steps for x in record[name]], float) for name in ("task_mean", "task_variance")
    )
    middle, outside = (means >= 0.25) & (means <= 0.75), (means < 0.25) | (means > 0.75)
    tenth, dropping = max(1, len(steps) // 10), drops_groups(steps)
    entered = {task_id for record in steps for task_id in record.get("entered_ids", ())}
    firsts = [first.mean for task_id, first in first_measurements(steps).items() if task_id in entered]
    pool = ("pool_human", "pool_trial", "pool_active", "zone_hard", "zone_boundary", "zone_mastered", "injected")
    return {
        "steps": len(steps),
        "pool": {name: last[name] for name in pool},
        "retired": {name: last.get(f"retired_{name}", 0) for name in ("mastered", "hard", "stuck", "stale")},
        "seeds_sent": sum(record["seeds"] for record in steps),
        "candidates": sum(record["candidates"] for record in steps),
        "failed_rollouts": sum(record["failed_rollouts"] for record in steps),
        "skipped_steps": sum(bool(record["skipped"]) for record in steps),
        "zero_variance": [None if dropping else without_variance(part) for part in (steps[:tenth], steps[-tenth:])],
        "variance": [
            round(float(part.mean()), 5) if part.size else None for part in (variances[middle], variances[outside])
        ],
        "first_in_band": [sum(0.25 <= mean <= 0.75 for mean in firsts), len(firsts)],
        "seconds": {
            name: round(sum(record[f"seconds_{name}"] for record in steps), 1)
            for name in ("step", "rollout", "synthesis")
        },
    }


def code_version() -> dict[str, Json]:
    """The commit that runs, and whether a tracked file outside docs/ differs from it."""
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude,top)docs")
    return {"commit": _git("rev-parse", "HEAD"), "changed": bool(changes)}


def machine() -> dict[str, Json]:
    names = [line.partition(":")[2].strip() for line in _text("/proc/cpuinfo").splitlines() if "model name" in line]
    return {
        "device": jax.devices()[0].device_kind,
        "cpu": names[0] if names else platform.processor(),
        "cores": len(usable_cores()) or os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "rods_jax": rods_jax.__version__,
    }


def usable_cores() -> list[int]:
    """Those that this process may use; none where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _text(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def _git(*command: str) -> str:
    return subprocess.run(["git", *command], capture_output=True, text=True).stdout.strip()
