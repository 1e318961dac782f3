"""Held-out evaluation: a sample of every category from any list, and means over what was measured alone."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rods_jax.environments.protocol import STRATA
from rods_jax.held_out import sample_tasks, sampling_order, scores, set_aside
from rods_jax.types import Task, Turn, World


def make(category: str, number: int) -> Task:
    return Task(f"{category}_{number}", f"scenario_{number}", category, World((), {}), (Turn("?"),))


SORTED = tuple(make(category, number) for category in STRATA for number in range(100))


def test_a_sample_of_a_sorted_list_holds_every_category_from_all_over_it():
    chosen = sample_tasks(SORTED, 100)
    assert Counter(task.category for task in chosen) == dict.fromkeys(STRATA, 25)
    for category in STRATA:  # one of every four neighbours, give or take
        numbers = sorted(int(task.id.rsplit("_", 1)[1]) for task in chosen if task.category == category)
        assert max(np.diff(numbers)) <= 8 and numbers[0] < 8 and numbers[-1] > 91


def test_a_rare_category_is_in_every_sample_that_has_room_for_it():
    tasks = (*SORTED[:100], make("long_context", 0))
    assert "long_context" in {task.category for task in sample_tasks(tasks, 2)}


def test_no_fewer_tasks_than_asked_for_are_all_as_they_stand():
    assert sample_tasks(SORTED, 400) == sample_tasks(SORTED, 1000) == sample_tasks(SORTED, None) == SORTED
    assert sample_tasks((), 8) == ()


@given(st.lists(st.sampled_from(list(STRATA)), max_size=40))
@settings(deadline=None, max_examples=25)
def test_every_beginning_of_the_order_has_each_categorys_share(categories):
    tasks = [make(category, number) for number, category in enumerate(categories)]
    ordered = sampling_order(tasks)
    assert sorted(task.id for task in ordered) == sorted(task.id for task in tasks)
    totals = Counter(categories)
    for count in range(1, len(tasks) + 1):
        for category, found in Counter(task.category for task in ordered[:count]).items():
            assert abs(found - count * totals[category] / len(tasks)) <= len(totals)


def test_what_is_set_aside_of_many_tasks_is_counted_once():
    """Three looks through the tasks: one that counts, and one for each part; it was one for each scenario."""
    looks = []

    class Tasks(list):
        def __iter__(self):
            looks.append(1)
            return super().__iter__()

    tasks = Tasks(replace(SORTED[0], id=str(n), scenario=str(n)) for n in range(100))
    assert [*map(len, set_aside(tasks, 50, seed=0))] == [50, 50] and len(looks) == 3


def test_what_is_set_aside_is_whole_scenarios():
    rest, aside = set_aside(SORTED, 30, seed=3)
    assert len(aside) == 32 and len(rest) == 368  # 8 scenarios of 4 tasks
    assert not {task.scenario for task in rest} & {task.scenario for task in aside}
    assert set_aside(SORTED, 30, seed=3) == (rest, aside) != set_aside(SORTED, 30, seed=4)
    assert set_aside(SORTED, 0, seed=3) == (SORTED, ())


def test_scores_by_hand():
    tasks = [make("base", 0), make("base", 1), make("long_context", 2), make("missing_function", 3)]
    found = scores("held_out", tasks, [1.0, 0.5, None, 0.0], [1.0, 1.0, 0.25, None], unfit={"base_1"})
    assert found == pytest.approx(
        {
            "held_out_progress": 0.5,
            "held_out_solved": 1 / 3,
            "held_out_base": 0.75,
            "held_out_missing_function": 0.0,  # long_context failed by infrastructure: it has no score
            "held_out_failed": 1,
            "held_out_greedy": 0.75,
            "held_out_greedy_solved": 2 / 3,
            "held_out_greedy_solved_base": 1.0,
            "held_out_greedy_solved_long_context": 0.0,
            "held_out_unfit": 1,
            "held_out_fitting": 0.5,
            "held_out_fitting_greedy_solved": 0.5,
        }
    )


def test_a_mean_over_nothing_is_absent():
    assert scores("held_out", [make("base", 0)], [None]) == {"held_out_failed": 1}
