"""The list of disputed tasks is what the rule finds, and the rule finds the one that was reported."""

from dataclasses import replace

from rods_jax.environments import bfcl
from rods_jax.environments.bfcl_disputed import DISPUTED, find, reason


def test_the_list_is_what_playing_the_gold_of_all_800_tasks_finds():
    assert find(bfcl.bfcl_domain(), bfcl.load_tasks()) == DISPUTED


def test_a_gold_text_that_the_user_says_is_not_disputed():
    (task,) = [task for task in bfcl.load_tasks(("base",)) if task.id == "multi_turn_base_4"]
    assert "turn 2: post_tweet must send as content a text" in reason(task.id)
    (content,) = [c.arguments["content"] for turn in task.turns for c in turn.gold if c.name == "post_tweet"]
    told = tuple(replace(turn, user=f"{turn.user} {content}") for turn in task.turns)
    assert not find(bfcl.bfcl_domain(), [replace(task, turns=told)])
    assert reason("multi_turn_base_5") is None
