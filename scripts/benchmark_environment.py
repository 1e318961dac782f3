"""How much time the BFCL environment takes: ours beside the official executor and checker, and in worker processes.

    python -m scripts.benchmark_environment [--workers 2] [--json-path benchmark.json]

CPU seconds of this process, the best of a few repeats over the 200 tasks of a category with their gold calls;
for workers wall seconds of 512 rollouts.  The official executor evaluates the text of the calls: here only
text that ships with the data.  Left out on purpose: everything that is no environment work.
"""

import copy
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from rods_jax.environments import bfcl
from rods_jax.environments.episode import Episode, start_episodes
from rods_jax.environments.protocol import Domain, Failure, StartEpisodes
from rods_jax.environments.scoring import gold_trace
from rods_jax.environments.workers import Workers
from rods_jax.types import Action, Call, Task

NUM_ROLLOUTS, GROUP_SIZE = 512, 16
DONE = Action(answer="Done.")


@dataclass(frozen=True)
class Options:
    workers: int = 2  # processes that play 512 rollouts
    repeats: int = 3  # the best one counts
    json_path: Path | None = None  # where the figures go as JSON


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    domain = bfcl.bfcl_domain()
    figures = {}
    with Workers(bfcl.bfcl_domain, num_workers=options.workers) as workers:
        for category in ("base", "long_context"):
            tasks = bfcl.load_tasks([category])
            pools = {"this process": partial(start_episodes, domain), f"{options.workers} workers": workers.start}
            figures[category] = {
                "ours": ours(domain, tasks, options.repeats),
                "official": official(tasks, options.repeats),
                "rollouts per second": {name: rollouts(start, tasks) for name, start in pools.items()},
            }
    show(figures, Console())
    if options.json_path:
        options.json_path.write_text(json.dumps(figures, indent=2) + "\n")


# ------------------------------------------------------------------------------------- measurements
def ours(domain: Domain, tasks: Sequence[Task], repeats: int) -> dict[str, float]:
    """Seconds for each kind of work; an episode is its construction, its calls and its scoring."""
    traces = [gold_trace(domain, task) for task in tasks]
    golds = [gold_calls(task) for task in tasks]

    def construct() -> list:
        return [domain.simulator(task.world) for task in tasks]

    def call(simulators: list) -> None:
        for simulator, gold in zip(simulators, golds):
            for one in gold:
                simulator.call(one)

    def play(episodes: list[Episode]) -> None:
        for episode in episodes:
            for action in actions(episode.task):
                episode.act(action)
            assert all(episode.passed)

    def start() -> list[Episode]:
        return [Episode(domain, task, trace) for task, trace in zip(tasks, traces)]

    return {
        "construct": best(repeats, construct) / len(tasks),
        "call": best(repeats, call, construct) / sum(map(len, golds)),
        "episode": best(repeats, lambda: play(start())) / len(tasks),
        "snapshot": best(repeats, copy.deepcopy, construct) / len(tasks),
        "gold trace, once a task": best(repeats, lambda: [gold_trace(domain, task) for task in tasks]) / len(tasks),
    }


def official(tasks: Sequence[Task], repeats: int) -> dict[str, float]:
    """The same by the official executor and checker, which construct on the first call and share by name."""
    from bfcl_eval.eval_checker.multi_turn_eval import multi_turn_checker, multi_turn_utils

    names = (f"run_{number}" for number in count())  # live objects become variables with such names
    golds = [[text(call) for call in gold_calls(task)] for task in tasks]

    def execute(name: str, steps: Sequence[Sequence[Sequence[str]]]) -> None:
        for task, some in zip(tasks, steps):
            for step in some:
                outputs, _ = multi_turn_utils.execute_multi_turn_func_call(
                    step,
                    task.world.state,
                    list(task.world.classes),
                    name,
                    task.id,
                    "long_context" in task.world.options,
                )
                assert not any(output.startswith("Error during execution") for output in outputs)

    def construct() -> str:
        execute(name := next(names), [[[]]] * len(tasks))
        return name

    def check() -> None:
        for task in tasks:
            turns = [[text(call) for call in turn.gold] for turn in task.turns]
            entry = {"id": task.id, "initial_config": task.world.state, "involved_classes": list(task.world.classes)}
            said = [[turn] if turn else [] for turn in turns]
            assert multi_turn_checker.multi_turn_checker(said, turns, entry, task.category, next(names))["valid"]

    one_call_a_step = [[[call] for call in gold] for gold in golds]
    seconds = {
        "construct": best(repeats, construct) / len(tasks),
        "call": best(repeats, lambda name: execute(name, one_call_a_step), construct) / sum(map(len, golds)),
        "episode": best(repeats, check) / len(tasks),
    }
    for key in [key for key in vars(multi_turn_utils) if key.endswith("_instance")]:
        del vars(multi_turn_utils)[key]  # they are never freed
    return seconds


def rollouts(start: StartEpisodes, tasks: Sequence[Task]) -> float:
    """Rollouts per wall second of a batch that plays the gold calls, gold traces included."""
    batch_tasks = [task for task in tasks[:: len(tasks) * GROUP_SIZE // NUM_ROLLOUTS] for _ in range(GROUP_SIZE)]
    batch_tasks = batch_tasks[:NUM_ROLLOUTS]
    scripts = [actions(task) for task in batch_tasks]
    started = time.perf_counter()
    batch = start(batch_tasks)
    for step in range(max(map(len, scripts))):
        said = {place: script[step] for place, script in enumerate(scripts) if step < len(script)}
        assert not any(isinstance(feedback, Failure) for feedback in batch.act(said).values())
    return len(batch_tasks) / (time.perf_counter() - started)


def gold_calls(task: Task) -> list[Call]:
    return [call for turn in task.turns for call in turn.gold]


def actions(task: Task) -> list[Action]:
    """All gold calls of a turn in one message, then an answer."""
    return [one for turn in task.turns for one in (Action(calls=turn.gold), DONE)[not turn.gold :]]


def text(call: Call) -> str:
    return f"{call.name}({', '.join(f'{key}={value!r}' for key, value in call.arguments.items())})"


def best(repeats: int, work: Callable[..., Any], prepare: Callable[[], Any] | None = None) -> float:
    """CPU seconds of `work`, the least of some repeats; what `prepare` makes is passed and not counted."""
    seconds = []
    for _ in range(repeats):
        prepared = () if prepare is None else (prepare(),)
        started = time.process_time()
        work(*prepared)
        seconds.append(time.process_time() - started)
    return min(seconds)


# ------------------------------------------------------------------------------------------- output
def show(figures: dict[str, Any], console: Console) -> None:
    table = Table("BFCL V3 multi-turn", "ours, ms", "ours, per s", "official, ms", "official, per s")
    for category, measured in figures.items():
        for name, seconds in measured["ours"].items():
            table.add_row(f"{category}: {name}", *cells(seconds), *cells(measured["official"].get(name)))
        for name, rate in measured["rollouts per second"].items():
            table.add_row(f"{category}: {NUM_ROLLOUTS} rollouts in {name}, wall", *cells(1 / rate), "", "")
    console.print(table)


def cells(seconds: float | None) -> tuple[str, str]:
    return ("", "") if seconds is None else (f"{seconds * 1e3:.3f}", f"{1 / seconds:,.0f}")


if __name__ == "__main__":
    main()
