"""Makes a task file from files in BFCL's own format: questions, and the gold calls that answer them.

    python -m scripts.import_tasks --questions Q.json --answers possible_answer/Q.json --out tasks/mine.jsonl

A config reads it with `read_tasks` (docs/guide/bfcl.md).
"""

from collections import Counter
from pathlib import Path

import tyro
from rich.console import Console

from rods_jax import terminal
from rods_jax.commands.common import running
from rods_jax.environments.bfcl_files import read_bfcl_tasks
from rods_jax.task_files import TaskFileError, write_tasks


def main(questions: Path, answers: Path, out: Path, category: str | None = None) -> None:
    """Reads both files, plays the gold, and writes the tasks.

    Args:
        questions: an object a line with id, question, initial_config, involved_classes, and perhaps missed_function.
        answers: an object a line with id and ground_truth, in any order.
        out: the task file to write; must be new.
        category: of all tasks; else as their ids say.
    """
    if out.exists():
        raise TaskFileError(f"{out} is there already: choose another --out")
    tasks = read_bfcl_tasks(questions, answers, category)
    if not tasks:
        raise TaskFileError(f"{questions} holds no question")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_tasks(out, tasks)
    counts = Counter(task.category for task in tasks)
    named = ", ".join(f"{kind} {number}" for kind, number in counts.items())
    terminal.say(Console(), f"{len(tasks)} tasks: {out} ({named})")


if __name__ == "__main__":
    with running(Console(stderr=True)):
        tyro.cli(main, prog="python -m scripts.import_tasks", description=__doc__)
