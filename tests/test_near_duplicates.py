"""Shingles counted by hand, a search against brute force, and what the gate lets through."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthesis_toy import TASK, TOY

from rods_jax.environments.workplace.domain import WORKPLACE
from rods_jax.synthesis.near_duplicates import NEAR, far_from, is_near, nearest, shingle_index, shingles
from rods_jax.synthesis.pipeline import author_tasks
from rods_jax.types import Call, Task, Turn, World


def task(name, *texts, gold=()):
    turns = tuple(Turn(text) for text in texts)
    return Task(name, name, "base", World((), {}), (replace(turns[0], gold=gold), *turns[1:]))


def test_shingles_by_hand():
    assert shingles(task("a", "One, two THREE four five six.", "Yes!")) == {
        ("one", "two", "three", "four", "five"),
        ("two", "three", "four", "five", "six"),
        ("yes",),
    }
    assert shingles(task("a", "", gold=(Call("lend_book", {"book_id": 7, "to": "Ann"}), Call("pwd")))) == {
        ("lend_book", "book_id", "7", "to", "ann"),
        ("book_id", "7", "to", "ann", "pwd"),
    }
    assert shingles(task("a", "", gold=(Call("mail", {"to": "Zoë Ünal"}),))) == {("mail", "to", "zoë", "ünal")}
    assert shingles(task("a", "")) == frozenset()
    assert shingles(task("a", "去北京3天abc")) == {("去", "北", "京", "3", "天"), ("北", "京", "3", "天", "abc")}


def test_similarity_is_shared_over_all():
    index = shingle_index([task("six", "a b c d e f"), task("other", "x")])
    found = nearest(task("seven", "a b c d e f g"), index)
    assert (found.task_id, found.similarity) == ("six", pytest.approx(2 / 3))
    assert nearest(task("none", "p q"), index) is None
    assert nearest(task("six", "a b c d e f"), index) is None  # a task is not its own neighbour
    assert nearest(task("same", "a b c d e f"), index).similarity == 1


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text("ab ", max_size=14), min_size=1, max_size=5), st.text("ab ", max_size=14))
def test_the_index_finds_what_comparing_all_pairs_finds(texts, text):
    tasks = [task(str(number), text) for number, text in enumerate(texts)]
    own = shingles(looked_up := task("own", text))
    similarities = [len(own & other) / max(1, len(own | other)) for other in map(shingles, tasks)]
    found = nearest(looked_up, shingle_index(tasks))
    if found is None:
        assert max(similarities) == 0
    else:
        assert found == (str(similarities.index(max(similarities))), max(similarities))
    assert is_near(looked_up, shingle_index(tasks)) == (max(similarities) >= NEAR)


def test_the_gate_stops_copies_and_slight_changes_only():
    held_out = author_tasks(WORKPLACE, count=40, rng=random.Random(0))
    gate = far_from(held_out[:20])
    for known in held_out[:20]:
        copied = replace(known, id="copy", scenario="elsewhere", world=replace(known.world, state={}))
        assert known.id in gate(WORKPLACE, copied)
        politely = replace(known.turns[0], user=f"Hello, {known.turns[0].user}")
        assert gate(WORKPLACE, replace(copied, turns=(politely, *known.turns[1:]))) is not None
    assert [gate(WORKPLACE, other) for other in held_out[20:]] == [None] * 20
    assert far_from(())(TOY, TASK) is None


def test_half_of_the_shingles_is_too_near():
    gate = far_from([task("held", "a b c", "d e f")])
    assert gate(TOY, task("half", "a b c")) == "shares 50% of its shingles with held"
    assert gate(TOY, task("a third", "a b c", "x")) is None


# --------------------------------------------------------------------------------------- BFCL
def test_near_duplicates_across_the_bfcl_halves():
    """Near-duplicates cross the split only where long contexts make two tasks quote one simulator output."""
    pytest.importorskip("bfcl_eval", reason="needs the BFCL wheel")
    from rods_jax.environments.bfcl import load_tasks, split

    tasks = load_tasks()
    train, held_out = split(tasks)
    gate, index = far_from(held_out), shingle_index(held_out)
    refused = [task for task in train if gate(None, task) is not None]
    assert len(refused) == 5 and {task.category for task in refused} == {"long_context"}
    quoting = {task.id for task in refused} | {nearest(task, index).task_id for task in refused}
    longest = {task.id: max(len(str(c.arguments)) for t in task.turns for c in t.gold) for task in tasks}
    assert min(longest[name] for name in quoting) > 1000
    # Had the split gone by task and not by scenario, the gate would cry: an index means the same story four times.
    base, siblings = tasks[:200], tasks[200:400]
    gate = far_from(base)
    assert all(gate(None, task) is not None for task in siblings)
