"""How long tau2-bench's worlds take here, beside what the official implementation was measured at.

    python -m scripts.benchmark_tau2                      # data: RODS_TAU2, or the installed wheel
    python -m scripts.benchmark_tau2 --json speeds.json

start: a fresh episode, its set-up included.  call: one gold call, its own work included.  hash: what tells two
databases apart, after one write.  grade: a whole gold episode, both replays included.  Milliseconds, minimum and median
over the tasks of a domain.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rods_jax.environments.tau2.data import TauDataError, find, tasks
from rods_jax.environments.tau2.domains import DOMAINS
from rods_jax.environments.tau2.messages import AGENT, TOOL, Message, TauTask, ToolCall
from rods_jax.environments.tau2.scoring import ScoringError, grade

REPEATS = 5  # of each measurement; the fastest counts
# Of tau2-bench 1.0.1, Python 3.12, two busy cores: minimum and median. A call is a mean.
OFFICIAL = {
    "mock": {"start": (0.05, 0.05), "call": (0.042, 0.042), "hash": (0.007, 0.008), "grade": (5.1, 9.8)},
    "airline": {"start": (161, 183), "call": (0.090, 0.090), "hash": (81, 115), "grade": (682, 696)},
    "retail": {"start": (41, 67), "call": (0.25, 0.25), "hash": (50, 58), "grade": (383, 430)},
    "telecom": {"start": (3.6, 5.7), "call": (0.035, 0.035), "hash": (0.18, 0.18), "grade": (57, 62)},
}


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """(milliseconds, result)."""
    begin = time.perf_counter()
    result = work()
    return 1e3 * (time.perf_counter() - begin), result


def measured(domain: Any, task: TauTask) -> dict[str, list[float]]:
    """Milliseconds of one gold episode by what was done."""
    spent: dict[str, list[float]] = {"start": [], "call": [], "hash": [], "grade": []}

    def begun() -> Any:
        environment = domain.environment()
        environment.set_up(task.start, task.start.history)
        return environment

    start, environment = timed(begun)
    spent["start"].append(start)
    messages = list(task.start.history)
    for number, gold in enumerate((task.criteria and task.criteria.actions) or ()):
        took, observation = timed(lambda: environment.call(gold.side, gold.name, gold.arguments))
        call = ToolCall(f"b{number}", gold.name, gold.arguments, gold.side)
        messages += [
            Message(gold.side, None, (call,)),
            Message(TOOL, observation.text, None, call.id, gold.side, not observation.ok),
        ]
        spent["call"].append(took)
        if environment.mark(gold.name) and environment.mark(gold.name).mutates:
            toolkit = environment.toolkit(gold.side)
            spent["hash"].append(timed(toolkit.db.changes)[0])
    said = " ".join((task.criteria and task.criteria.communicate) or ("Done.",))
    messages.append(Message(AGENT, said))
    try:
        took, _ = timed(lambda: grade(domain, task, messages, "user_stop", judge=lambda told, _: [True] * len(told)))
        spent["grade"].append(took)
    except ScoringError:
        pass  # officially some of mock's tasks cannot be scored
    return spent


def best(domain: Any, task: TauTask) -> dict[str, list[float]]:
    runs = [measured(domain, task) for _ in range(REPEATS)]
    return {name: [min(times) for times in zip(*(run[name] for run in runs), strict=True)] for name in runs[0]}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folders with tau2-bench's files, as RODS_TAU2 names them")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args(arguments)
    try:
        files = find(options.data)
        held = [name for name in DOMAINS if any((folder / "domains" / name).is_dir() for folder in files.data)]
        domains = {name: DOMAINS[name](files) for name in held if name in OFFICIAL}
    except TauDataError as error:
        parser.exit(2, f"{error}\n")
    figures: dict[str, Any] = {}
    print(f"{'':10}{'':8}{'here: minimum, median':>26}{'official':>24}{'times':>8}   ms")
    for name, domain in domains.items():
        print(f"{name} ...", end="\r", file=sys.stderr)
        found = [best(domain, task) for task in tasks(files, domain.folder)]
        for what, official in OFFICIAL[name].items():
            times = [one for spent in found for one in spent[what]]
            ours = min(times), statistics.median(times)
            figures.setdefault(name, {})[what] = {"here": ours, "official": official}
            row = f"{ours[0]:14.4f}{ours[1]:12.4f}{official[0]:12g}{official[1]:12g}{official[1] / ours[1]:8.0f}"
            print(f"{name:10}{what:8}{row}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
