"""Runs a study: every arm with every seed, one line each, and tables and pictures of the lines that are there.

    python -m scripts.study --config configs/study_office.py --dry-run      the plan, and how long it will take
    python -m scripts.study --config configs/study_office.py                runs what is left; interrupted, it goes on
    python -m scripts.study --config configs/study_office.py --run rods@3   one run, whose line is printed
    python -m scripts.study --config configs/study_office.py --report       the study's page and its pictures

A run's folder is runs/study/NAME/ARM-SEED, its line stands in docs/study/NAME.jsonl once it has ended.  Ctrl-C or SIGTERM:
the runs under way save after their step, and the same command goes on (exit 75).  A study's page, its
pictures and what was decided before its first counted run stand in docs/study/.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from rods_jax import terminal
from rods_jax.commands.common import running
from rods_jax.config import ConfigError
from rods_jax.fields import require
from rods_jax.journal import writing_log
from rods_jax.preemption import SAVED, Stopped, stop_requests
from rods_jax.types import Json
from scripts.study.one import RESULT, train_and_measure, usable_cores
from scripts.study.plan import RUNS, Planned, Study, folder_of, lines_of, load, named, planned, read_lines, remaining
from scripts.study.report import write_report

LOOK = 0.5  # seconds between two looks at the runs under way
GRACE = 10.0  # seconds beyond a run's own deadline, in which it may end


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A study."""

    config: Path
    """a Python file that holds STUDY = Study(...)"""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """print the plan and stop"""
    run: str | None = None
    """only this run, ARM@SEED; its line is printed, and counts only where the study's own command finds it"""
    jobs: int = 1
    """runs at a time, each in a process and on cores of its own"""
    most: int | None = None
    """stop after so many runs"""
    only: tuple[str, ...] = ()
    """these arms alone; none: all"""
    report: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """write tables and pictures of the lines that are there"""
    beside: tuple[Path, ...] = ()
    """with --report: studies of other suites, whose arms are ranked too"""


def main() -> None:
    settings, console = tyro.cli(Settings, description=__doc__), Console()
    with running(console):
        enough = settings.jobs >= 1 and (settings.most is None or settings.most >= 1)
        require(enough, "--jobs and --most must be at least 1")
        study = load(settings.config)
        if settings.run is not None:
            line = train_and_measure(study, named(study, settings.run), Console(stderr=True))
            print(json.dumps(line))
        elif settings.report:
            studies = [study, *map(load, settings.beside)]
            write_report([(one, read_lines(one)) for one in studies], console)
        else:
            tell(study, read_lines(study), console, settings.jobs)
            if not settings.dry_run:
                run_all(study, settings, console)


# ------------------------------------------------------------------------------------------ the plan
def tell(study: Study, lines: Sequence[Mapping[str, Json]], console: Console, jobs: int) -> None:
    """The arms, what is done of them, and how long the rest will take."""
    left = remaining(study, lines)
    table = Table("arm", "what differs", "seeds", "done", "minutes a run", box=None)
    for arm in study.arms:
        own = [line for line in lines if line["arm"] == arm.name]
        minutes = f"{statistics.median(map(_seconds, own)) / 60:.1f}" if own else "-"
        name = f"{arm.name} *" if arm.name in study.primary_arms else arm.name
        table.add_row(name, arm.about, str(min(arm.seeds, len(study.seeds))), str(len(own)), minutes)
    console.print(table)
    terminal.say(
        console, f"{len(left)} of {len(planned(study))} runs remain; * primary, first; {time_left(lines, left, jobs)}"
    )


def time_left(lines: Sequence[Mapping[str, Json]], left: Sequence[Planned], jobs: int) -> str:
    """From the seconds of the runs that have ended, of the same arm where there are any."""
    if not lines:
        return "how long they take is said when the first has ended"
    usual = statistics.median(map(_seconds, lines))
    own = {
        arm: statistics.median(_seconds(line) for line in lines if line["arm"] == arm)
        for arm in {x["arm"] for x in lines}
    }
    hours = sum(own.get(run.arm.name, usual) for run in left) / 3600 / jobs
    return f"about {hours:.1f} h, from {len(lines)} runs"


def _seconds(line: Mapping[str, Json]) -> float:
    return line["seconds_run"]


# ------------------------------------------------------------------------------------------ running
def run_all(study: Study, settings: Settings, console: Console) -> None:
    """Runs what has no line, `jobs` at a time; a run that fails is told and left for the next call."""
    path = lines_of(study)
    path.parent.mkdir(parents=True, exist_ok=True)
    (RUNS / study.name).mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    told = False  # the runs under way have been asked to stop
    with stop_requests(study.config.stop_seconds + GRACE) as requested, writing_log(path) as (_, append):
        waiting = chosen(remaining(study, read_lines(study)), settings, study)
        under_way: dict[Planned, tuple[subprocess.Popen, float, set[int]]] = {}
        free = shares(usable_cores(), settings.jobs)
        while (waiting and not requested.is_set()) or under_way:
            while waiting and len(under_way) < settings.jobs and not requested.is_set():
                run = waiting.pop(0)
                cores = free.pop(0)
                under_way[run] = _started(study, run, settings.config, cores), time.monotonic(), cores
                terminal.say(console, f"{time.strftime('%H:%M:%S')} {run.name} begins; {len(waiting)} wait")
            for run, (process, began, cores) in list(under_way.items()):
                if (status := process.poll()) is None:
                    continue
                del under_way[run]
                free.append(cores)
                seconds = round(time.monotonic() - began, 1)
                if status == 0:
                    line = _read_result(study, run) | {"seconds_run": seconds}
                    append(line)
                    terminal.say(console, f"{run.name}: progress {line['progress']:.3f}, {seconds / 60:.1f} min")
                elif not requested.is_set():
                    failed.append(run.name)
                    log = _log_of(study, run)
                    terminal.say(console, f"{run.name} failed with status {status}: {log} says why", "bold red")
            if requested.is_set() and not told:
                told = True
                for process, *_ in under_way.values():
                    process.send_signal(signal.SIGTERM)
            time.sleep(LOOK)
    if requested.is_set():
        raise Stopped(SAVED, "stopped, and what was under way is saved: the same command goes on")
    if failed:
        raise ConfigError(
            f"{len(failed)} runs failed and have no line: {', '.join(failed)}; the same command tries again"
        )


def chosen(left: Sequence[Planned], settings: Settings, study: Study) -> list[Planned]:
    """The runs of this call.  ConfigError: --only names an arm that the study does not have."""
    if unknown := sorted(set(settings.only) - {arm.name for arm in study.arms}):
        raise ConfigError(f"--only names {', '.join(unknown)}: {study.name} has no such arm")
    return [run for run in left if not settings.only or run.arm.name in settings.only][: settings.most]


def shares(cores: Sequence[int], jobs: int) -> list[set[int]]:
    """Cores of each job: disjoint ones, or all where there are fewer than jobs.

    A job on a core of its own needs a quarter less processor time than two that share two, and its results are those of so
    many cores: in their last bits they differ from those of more.
    """
    return [set(cores[job::jobs] if len(cores) >= jobs else cores) for job in range(jobs)]


def _started(study: Study, run: Planned, config: Path, cores: set[int]) -> subprocess.Popen:
    command = [sys.executable, "-m", "scripts.study", "--config", str(config), "--run", run.name]
    with _log_of(study, run).open("a") as log:  # a session of its own: Ctrl-C reaches it through this process alone
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True)
    if cores:  # before it has begun: what it starts later stays there
        os.sched_setaffinity(process.pid, cores)
    return process


def _log_of(study: Study, run: Planned) -> Path:
    return folder_of(study, run).with_suffix(".log")


def _read_result(study: Study, run: Planned) -> dict[str, Json]:
    return json.loads((folder_of(study, run) / RESULT).read_text("utf-8"))


if __name__ == "__main__":
    main()
