"""What arms gain by the number of different tasks: gains by hand, copies, and the page."""

import pytest
from rich.console import Console
from test_study_report import TWELVE, line, lines

from scripts.study import report, variety

ENDS = {"static": (0.5, 0.25), "other": (0.25, 0.25), "rods": (0.75, 0.75), "few": (0.5, 0.75, 0.125)}
INJECTED = {"static": 0, "other": 9, "rods": 8, "few": 2}


def ends(**more):
    return [
        line(arm, seed, 0.0) | {"progress": x, "pool": {"pool_human": 4, "injected": INJECTED[arm] + seed}}
        for arm, some in (ENDS | more).items()
        for seed, x in enumerate(some)
    ]


def test_gains_are_those_of_a_calculation_by_hand_and_copies_are_no_other_tasks():
    other, few, rods = variety.gains(TWELVE, ends())
    # Over the two seeds that static has: 4 + (2 + 3) / 2 tasks and 4 + (8 + 9) / 2; `other` plays its seeds again.
    assert [(one.arm, one.tasks) for one in (other, few, rods)] == [("other", 4), ("few", 6.5), ("rods", 12.5)]
    assert [one.paired.mean for one in (other, few, rods)] == pytest.approx([-0.125, 0.25, 0.375])
    assert "Over 3 arms" in variety.sentence(TWELVE, [other, few, rods])
    assert "is 1.00." in variety.sentence(TWELVE, [other, few, rods])


def test_an_arm_without_two_common_seeds_has_no_gain():
    assert [one.arm for one in variety.gains(TWELVE, ends(other=(0.25,)))] == ["few", "rods"]
    assert variety.gains(TWELVE, ends(static=())) == []


def test_neighbours_within_a_tenth_stand_side_by_side():
    made = [variety.Gain(str(tasks), tasks, None) for tasks in (10, 10, 11, 11.5, 12.6, 40)]
    assert [[one.tasks for one in group] for group in variety._near(made)] == [[10, 10, 11], [11.5, 12.6], [40]]


def test_the_page_tells_and_shows_it_where_there_are_enough_arms(tmp_path):
    report.write_report([(TWELVE, lines())], Console(quiet=True), tmp_path)
    text = (tmp_path / "toy.md").read_text("utf-8")
    assert "### By the number of different tasks" in text and "(toy_tasks.png)" in text
    assert (tmp_path / "toy_tasks.png").read_bytes().startswith(b"\x89PNG")
    two = [one for one in lines() if one["arm"] != "few"]
    assert "By the number of different tasks" not in report.section(TWELVE, two)
