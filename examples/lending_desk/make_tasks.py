"""Writes the tasks of lending_desk beside this file: 40 to train on, and two parts to measure on.

They are a beginning.  What your users really ask for is worth more: add lines of the same form.
"""

from dataclasses import replace
from pathlib import Path

from rods_jax.task_files import write_tasks

from lending_desk import authored

PARTS = {"seeds": 40, "held_out": 64, "validation": 32}  # tasks

if __name__ == "__main__":
    for number, (part, count) in enumerate(PARTS.items()):
        path = Path(__file__).with_name(f"{part}.jsonl")
        if path.exists():
            raise SystemExit(f"{path} is there, and is left as it is: remove it to write it anew")
        tasks = authored(count, seed=1000 + number)  # far from the seeds of runs, which write tasks to practise on
        write_tasks(path, [replace(task, id=f"{part}_{n}", scenario=f"{part}_{n}") for n, task in enumerate(tasks)])
        print(f"{path.name}: {count} tasks")
