"""A pool written before training: counted, resumed to the same bytes, read back, and refused where it leaks."""

import json
import random
import threading
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
from synthesis_toy import TASK, TOY

from rods_jax import journal, replay
from rods_jax.chat import BUDGET_EXHAUSTED, Reply
from rods_jax.config import ReplaySettings
from rods_jax.environments.gold import check_gold
from rods_jax.environments.protocol import TaskSplits
from rods_jax.run.authors import rule_based
from rods_jax.synthesis.ask import ROLES
from rods_jax.synthesis.author import Order, Synthesis
from rods_jax.synthesis.llm import llm_roles
from rods_jax.synthesis.offline import fill, with_offline_pool
from rods_jax.synthesis.pipeline import five_stages
from rods_jax.task_files import TaskFileError, content_hash, write_tasks

SEEDS = tuple(replace(TASK, id=f"s{i}", scenario=f"s{i}") for i in range(3))
WRITE = five_stages(TOY)


def filled(path, count=8, workers=1, write=WRITE):
    return list(fill(path, write, SEEDS, count=count, run_seed=0, known=frozenset(), workers=workers))


def variants(settled):
    return [entry.candidate for entry in settled if entry.candidate is not None]


def test_every_round_writes_one_variant_of_every_seed(tmp_path):
    settled = filled(tmp_path / "journal")
    tasks = variants(settled)
    assert len(tasks) == 8 and len({content_hash(task) for task in tasks}) == len({task.id for task in tasks}) == 8
    assert set(Counter(task.ancestry[-1] for task in tasks).values()) <= {2, 3}
    assert [entry.key for entry in settled[:4]] == ["0/s0", "0/s1", "0/s2", "1/s0"]


def test_what_was_interrupted_goes_on_to_the_same_pool(tmp_path):
    whole = filled(tmp_path / "whole")
    parts = fill(tmp_path / "cut", WRITE, SEEDS, count=8, run_seed=0, known=frozenset())
    first = [next(parts) for _ in range(3)]
    parts.close()
    asked = []
    rest = filled(tmp_path / "cut", write=lambda order, **rest: asked.append(order.seed.id) or WRITE(order, **rest))
    assert rest == whole and first == whole[:3] and len(asked) == len(whole) - 3
    assert filled(tmp_path / "cut", write=None) == whole  # nothing is left to write
    assert (tmp_path / "cut").read_bytes() == (tmp_path / "whole").read_bytes()


def test_threads_write_as_many_and_none_twice(tmp_path):
    tasks = variants(filled(tmp_path / "journal", workers=3))
    assert len(tasks) >= 8 and len({content_hash(task) for task in tasks}) == len(tasks)
    assert len(journal.read(tmp_path / "journal")[0]) >= 8


def test_a_variant_that_two_threads_wrote_is_one_variant_and_one_record_of_a_rejection(tmp_path):
    both = threading.Barrier(2)  # both have seen what is known before either is known

    def write(order, *, rng, step, known_hashes):
        both.wait(timeout=60)
        return Synthesis(replace(TASK, id=f"of {order.seed.id}"))

    pool = fill(tmp_path / "journal", write, SEEDS[:2], count=1, run_seed=0, known=frozenset(), workers=2)
    settled = list(pool)
    again = list(fill(tmp_path / "journal", None, SEEDS[:2], count=1, run_seed=0, known=frozenset()))
    assert again[: len(settled)] == settled and len(again) == 2
    assert sorted((one.candidate is None, one.errors) for one in again) == [(False, ()), (True, ("unseen",))]


def test_a_round_without_a_variant_is_the_last(tmp_path):
    with pytest.raises(RuntimeError, match="round 0 over 3 seeds brought no variant: 0 of 8"):
        filled(tmp_path / "journal", write=lambda order, **_: Synthesis(None))


def test_a_round_that_a_server_left_unanswered_says_so(tmp_path):
    spent = lambda requests: [Reply("", error=BUDGET_EXHAUSTED, detail="2000 tokens spent")]
    write = partial(five_stages(TOY, llm_roles), backends=dict.fromkeys(ROLES, spent))
    with pytest.raises(RuntimeError, match="pipeline_exception: planner: budget_exhausted: 2000 tokens spent"):
        filled(tmp_path / "journal", write=write)


def test_the_rules_write_no_task_that_a_file_would_change():
    """A tuple is a list once it was read back, and a number as a key a text: a resumed run would have another task."""

    def tupled(rng, classes):
        state = TOY.sample_state(rng, classes)
        return state | {"Library": {"books": tuple(state["Library"]["books"])}}

    write = rule_based(TOY._replace(sample_state=tupled), TaskSplits(SEEDS, ()))
    result = write(Order(SEEDS[0]), rng=random.Random(0), step=0, known_hashes=frozenset(), attempts=1)
    assert result.candidate is None and [one.error for one in result.rejections] == ["storable"]


def test_a_run_trains_on_the_file(tmp_path):
    tasks = variants(filled(tmp_path / "journal"))
    write_tasks(tmp_path / "pool.jsonl", tasks)
    splits = TaskSplits(SEEDS, (replace(TASK, id="held", scenario="held"),))
    build = partial(with_offline_pool, build_tasks=lambda domain, seed: splits, path=tmp_path / "pool.jsonl")
    built = build(TOY, 0)
    assert [task.id for task in built.seeds] == [*(task.id for task in SEEDS), *(task.id for task in tasks)]
    assert built.held_out == splits.held_out and not any(task.ancestry for task in built.seeds)
    check_gold(TOY, built.seeds)
    state = replay.create(built.seeds, ReplaySettings())
    assert len(replay.epoch_batches(state, seed=0, epoch=0, batch_size=4)) == 3


@pytest.mark.parametrize("change, words", [
    (lambda task, held: replace(task, scenario=held.scenario), "repeats a held-out task"),
    (lambda task, held: replace(held, id="x", scenario="x"), "repeats a held-out task"),
    (lambda task, held: replace(task, id="s0"), "task s0 is a task of the run already"),
])  # fmt: skip
def test_a_pool_that_leaks_or_repeats_is_refused(tmp_path, change, words):
    held = replace(TASK, id="held", scenario="held")
    task = replace(variants(filled(tmp_path / "journal", count=1))[0])
    write_tasks(tmp_path / "pool.jsonl", [change(task, held)])
    with pytest.raises(TaskFileError, match=words):
        with_offline_pool(
            TOY, 0, build_tasks=lambda domain, seed: TaskSplits(SEEDS, (held,)), path=tmp_path / "pool.jsonl"
        )
    poor = TOY._replace(tools={name: tool for name, tool in TOY.tools.items() if name != "add_book"})
    write_tasks(tmp_path / "pool.jsonl", [task])
    with pytest.raises(TaskFileError, match="calls add_book, which toy lacks"):
        with_offline_pool(poor, 0, build_tasks=lambda domain, seed: TaskSplits((), ()), path=tmp_path / "pool.jsonl")


def test_the_command_writes_refuses_and_goes_on(tmp_path, capsys):
    from rich.console import Console

    from rods_jax.config import ConfigError, load_config
    from scripts.offline_pool import write_pool

    config, out = load_config("configs/quickstart.py"), tmp_path / "pool.jsonl"
    small = replace(config, build_tasks=quickstart_part)
    about = tmp_path / "pool.jsonl.config.json"
    about.write_text('{"mine": 1}')
    with pytest.raises(ConfigError, match="pool.jsonl was begun with another .*: choose another --out"):
        write_pool(small, out, 4, rules=True, workers=1, console=Console())
    assert [path.read_text() for path in tmp_path.iterdir()] == ['{"mine": 1}']
    about.unlink()
    write_pool(small, out, 4, rules=True, workers=1, console=Console())
    assert len(out.read_text().splitlines()) == 4 and "4 variants of" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="pool.jsonl is there already"):
        write_pool(small, out, 5, rules=True, workers=1, console=Console())
    out.unlink()
    with pytest.raises(ConfigError, match="was begun with another seed"):
        write_pool(replace(small, seed=1), out, 5, rules=True, workers=1, console=Console())
    about.rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is missing, so who wrote .*journal is not known"):
        write_pool(small, out, 5, rules=True, workers=1, console=Console())
    (tmp_path / "elsewhere").rename(about)
    with pytest.raises(ConfigError, match="pass --rules"):
        write_pool(small, out, 5, rules=False, workers=1, console=Console())
    write_pool(small, out, 5, rules=True, workers=1, console=Console())
    assert len(out.read_text().splitlines()) == 5
    assert json.loads((tmp_path / "pool.jsonl.config.json").read_text())["rules"] is True


def quickstart_part(domain, seed):
    from rods_jax.synthesis.pipeline import author_tasks

    tasks = author_tasks(domain, count=6, rng=random.Random(seed), turns=(2, 2), classes_per_task=(1, 1))
    return TaskSplits(seeds=tasks[:4], held_out=tasks[4:])
