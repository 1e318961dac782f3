"""my_env: its tools do what they say, and its tasks can be solved."""

from pathlib import Path

import pytest

from rods_jax.environments.gold import check_gold
from rods_jax.task_files import read_tasks

from my_env import MyEnv, domain


def test_an_entry_is_finished_once():
    env = MyEnv([{"entry_id": 7, "title": "piano", "done": False}])
    assert env.finish_entry(**env.find_entry("piano")) == {"entry_id": 7}
    assert env.entries[0]["done"]
    with pytest.raises(ValueError, match="entry 7 is done"):
        env.finish_entry(7)


@pytest.mark.parametrize("part", ["seeds", "held_out", "validation"])
def test_the_gold_calls_of_every_task_run(part):
    tasks = read_tasks(Path(__file__).with_name(f"{part}.jsonl"))
    assert tasks
    check_gold(domain(), tasks)  # twice, with the same results
