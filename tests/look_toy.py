"""The files of a run, written by what writes them, with numbers that are easy to check; and texts that would be code."""

import json
import random
from dataclasses import replace
from pathlib import Path

from rods_jax.environments.workplace.domain import WORKPLACE
from rods_jax.metrics import open_metrics
from rods_jax.synthesis.pipeline import author_tasks
from rods_jax.task_files import task_to_json, write_tasks
from rods_jax.types import Task, Turn

OWNED = "document.documentElement.setAttribute('owned', 'yes')"
HOSTILE = (
    f"</script><script>{OWNED}</script>",
    f'"><img src=x onerror="{OWNED}"><svg onload="{OWNED}">',
    f"<iframe srcdoc='<script>parent.{OWNED}</script>'></iframe>{{{{ 7 * 7 }}}}<!--",
)


def variant_of(task: Task, name: str, words: str) -> Task:
    """Its first turn asks for something else; the rest is the parent's."""
    turns = (Turn(words, task.turns[0].gold), *task.turns[1:])
    return replace(task, id=f"{task.id}~{name}", turns=turns, ancestry=(*task.ancestry, task.id))


def write_run(
    directory: Path, *, seeds: int = 4, steps: int = 6, words: str = "Ask for that.", **settings
) -> list[Task]:
    """A run whose first seed has a variant that entered before step 3 and left before step 5, and a grandchild in the queue.

    Every step plays the first two seeds, with means 0.1 and 0.5 and variances 0.05 and 0.15; the variant is played in the
    steps 3 and 4 and reaches 0.9. Returns seed, variant and grandchild first.
    """
    authored = author_tasks(WORKPLACE, count=8, rng=random.Random(0), turns=(2, 2), calls_per_turn=(1, 1))
    human = [replace(authored[n % 8], id=f"seed_{n}", scenario=f"s{n}") for n in range(seeds)]
    variant = variant_of(human[0], "a", words)
    grandchild = variant_of(variant, "b", words)
    (directory / "tasks").mkdir(parents=True)
    write_tasks(directory / "tasks" / "seeds.jsonl", human)
    config = {"name": "toy", "seed": 0, "run_dir": str(directory), "replay": {"lower": 0.25, "upper": 0.75}} | settings
    (directory / "config.json").write_text(json.dumps(config))
    with open_metrics(directory / "metrics.jsonl") as write:
        write(0, {"epoch": 0, "held_out_progress": 0.25, "pool_human": seeds})
        for step in range(1, steps + 1):
            write(step, metrics_of(step, human, variant))
    with open_metrics(directory / "candidates.jsonl") as write:
        refused = {
            "attempt": 0,
            "error": "vm_exec_failed",
            "detail": words,
            "functions": ["find_day"],
            "plan": [],
            "patch": {},
        }
        for step, seed, candidate, rejections in (
            (1, human[0], variant, [refused]),
            (2, human[1], None, [refused, refused]),
            (4, variant, grandchild, []),
        ):
            made = {"seed": seed.id, "dispatched": step, "rejections": rejections, "exchanges": []}
            write(step, made | {"candidate": candidate and task_to_json(candidate)})
    with open_metrics(directory / "trajectories.jsonl") as write:
        said = [
            {"turn": 0, "text": f"{words} Done.", "code": 1, "observations": [words]},
            {"turn": 1, "text": "No.", "code": 0, "observations": []},
        ]
        kept = {"rollout": 0, "passed": [True, False], "steps": said, "truncated": None, "failure": None, "reward": 0.5}
        tokens = {"tokens": [[words, " Done."], ["No."]], "log_probs": [[-0.01, -3.0], [-0.7]]}
        write(1, {"task_id": human[0].id} | kept | tokens)
        write(1, {"task_id": variant.id} | kept)  # as older runs wrote it
    return [human[0], variant, grandchild, *human[1:]]


def metrics_of(step: int, human: list[Task], variant: Task) -> dict:
    played = [(human[0].id, 0.1, 0.05), (human[1].id, 0.5, 0.15)] + [(variant.id, 0.9, 0.01)] * (step in (3, 4))
    names, means, variances = zip(*played)
    changed = {
        3: {"entered_ids": [variant.id], "left_ids": {}},
        5: {"entered_ids": [], "left_ids": {"mastered": [variant.id]}},
    }
    return {
        "epoch": (step - 1) // 2, "stage": "online", "loss": -step / 10, "skipped": False, "reward_mean": 0.3, "rejections": {"x": 1},
        "zone_hard": 1, "zone_boundary": step, "zone_mastered": 2, "valid_rollouts": 7, "failed_rollouts": 1, "tokens_generated": 80 * step,
        "task_ids": names, "task_mean": means, "task_variance": variances,
    } | changed.get(step, {})  # fmt: skip
