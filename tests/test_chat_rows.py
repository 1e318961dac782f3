"""Rows to learn from: what is left out is counted, and nothing is learned twice."""

from rods_jax.chat_rows import chosen, last_turn_only, turns_of

USER, OWN, RESULT = ({"role": role, "content": role} for role in ("user", "assistant", "tool"))


def row(**labels):
    return {"messages": [USER, OWN], "tools": []} | labels


def test_only_undisputed_successes_are_kept_and_the_rest_is_counted():
    rows = [
        row(task_id="a", passed=[True], reward=1.0),
        row(task_id="a", correct=True),
        row(task_id="b", correct=True, reward=0.0),  # its two verdicts disagree,
        row(task_id="b", correct=True, reward=1.0),  # which takes its other rows along
        row(task_id="c", correct=True),
        row(task_id="c", correct=False),
        row(task_id="d", passed=[True, False], reward=0.5),
        row(reward=1.0),
        row(reward=0.0),  # without names they are two dialogues
        row(task_id=None, rollout=None, reward=1.0),
        row(task_id=None, rollout=None, reward=0.0),  # no more than with names that tables write where there are none
        {"messages": [USER, OWN], "tools": []},
    ]
    found = chosen(rows)
    assert found.rows == (rows[0], rows[1], rows[7], rows[9])
    assert found.counts == {"kept": 4, "conflict": 4, "failed": 3, "unlabelled": 1}


def test_a_side_learns_from_dialogues_without_errors_of_the_user_where_asked():
    rows = [row(correct=True, user_errors=0), row(correct=True, user_errors=2), row(correct=True)]
    assert chosen(rows).counts == {"kept": 3}
    found = chosen(rows, faultless_user=True)
    assert found.rows == (rows[0],) and found.counts == {"kept": 1, "user_erred": 2}


def test_of_ever_longer_rows_the_last_message_alone_is_learned():
    whole = {"messages": [{**OWN, "weight": 0}, USER, OWN, RESULT, OWN, USER, OWN], "tools": ["t"]}
    parts = turns_of(whole)
    assert [len(part["messages"]) for part in parts] == [3, 5, 7] and all(part["tools"] == ["t"] for part in parts)
    for part in parts:
        weights = [one.get("weight", 1) for one in part["messages"] if one["role"] == "assistant"]
        assert weights == [0] * (len(weights) - 1) + [1]
    assert last_turn_only(whole) == parts[-1] and "weight" not in OWN  # what was given is as it was
    assert last_turn_only({"messages": [USER], "tools": []}) == {"messages": [USER], "tools": []}


def test_rollouts_of_a_task_are_dialogues_of_their_own():
    rows = [row(task_id="a", rollout=0, correct=True), row(task_id="a", rollout=1, correct=False)]
    assert chosen(rows).counts == {"kept": 1, "failed": 1}
    assert chosen([row(reward=1 - 1e-7)]).counts == {"kept": 1}  # as tau2-bench counts
