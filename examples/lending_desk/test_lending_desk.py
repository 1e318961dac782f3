"""The lending desk: its tools do what they say, its reward is the one that is meant, and its tasks can be solved."""

from pathlib import Path

import pytest

from rods_jax.environments.gold import check_gold
from rods_jax.rewards import CALL_FAILED, CALLED, TURN_PASSED
from rods_jax.task_files import read_tasks
from rods_jax.types import Step, Trajectory

from lending_desk import Desk, domain, reward


def desk() -> Desk:
    return Desk([{"item_id": 41, "title": "canoe", "person": "ada", "weeks": 2, "holds": []}])


def test_who_waits_comes_first():
    one = desk()
    one.hold_item(41, "ben")
    with pytest.raises(ValueError, match="ben waits for item 41"):
        one.renew_item(41)
    assert one.return_item(41) == {"person": "ada"}
    with pytest.raises(ValueError, match="ben waits for item 41"):
        one.lend_item(41, "cleo")
    one.lend_item(**one.find_item("canoe"), person="ben")
    assert one.items == [{"item_id": 41, "title": "canoe", "person": "ben", "weeks": 2, "holds": []}]


def test_fees_add_up_until_they_are_paid():
    one = desk()
    assert [one.charge_fee("ada", 3), one.charge_fee("ada", 4), one.settle_fees("ada")] == [
        {"fee": n} for n in (3, 7, 7)
    ]
    with pytest.raises(ValueError, match="no person ada"):
        one.settle_fees("ada")


def test_a_refused_call_costs_a_twentieth():
    steps = [Step(0, "", code) for code in (CALL_FAILED, CALLED, TURN_PASSED)]
    assert reward(Trajectory("t", 0, passed=(True, False), steps=tuple(steps))) == 0.45


@pytest.mark.parametrize("part", ["seeds", "held_out", "validation"])
def test_the_gold_calls_of_every_task_run(part):
    tasks = read_tasks(Path(__file__).with_name(f"{part}.jsonl"))
    assert tasks
    check_gold(domain(), tasks)  # twice, with the same results
