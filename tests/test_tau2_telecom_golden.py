"""Telecom against the official rows: every one equal.

RODS_TAU2=checkout:wheel RODS_TAU2_GOLDEN=golden pytest tests/test_tau2_telecom_golden.py
"""

import gzip
import hashlib
import json
import random
from collections import Counter
from functools import cache

import pytest
from tau2_golden import GOLDEN, SIDES, begun, files, hashes, needs_rows, played, rows, sha16

from rods_jax.environments.tau2 import data, scoring
from rods_jax.environments.tau2.domains import DOMAINS
from rods_jax.environments.tau2.faults import alike, compose, flaw, kin_of, name_of, task_json
from rods_jax.environments.tau2.messages import AGENT, TOOL, USER, Message, ToolCall, task_from_json
from rods_jax.environments.tau2.prompts import agent_prompt
from rods_jax.environments.tau2.telecom_faults import (
    FILE_LINE,
    PERSONAS,
    base,
    families,
    released,
    subject,
    subjects,
    texts_of,
)
from rods_jax.environments.tau2.toolkit import marks

pytestmark = [needs_rows, pytest.mark.slow]
STOP = ("user_stop", "agent_stop")


def domain(name="telecom"):
    return DOMAINS[name](files())


@cache
def tasks():
    return data.all_tasks(files(), "telecom")


def started(task):
    return begun(domain(), task)


def vector(episode, task):
    return [int(episode.check(one)) for one in task.criteria.assertions]


def as_recorded(row, solo=False):
    """The dialogue of a row; each result is the row's."""
    messages, differing = played(domain(), tasks()[row["task"]], row, solo)
    assert differing == [], row
    return messages


# ------------------------------------------------------------------------------- data, tools, words
def test_counts_and_initial_states():
    sizes = {name: len(ids) for name, ids in data.splits(files(), "telecom").items()}
    assert sizes == {"small": 20, "train": 74, "test": 40, "base": 114, "full": 2285}
    gold = [call.side for task in tasks().values() for call in task.criteria.actions]
    assert Counter(gold) == {USER: 10_927, AGENT: 2_288}
    gold = [call.side for task in data.tasks(files(), "telecom") for call in task.criteria.actions]
    assert Counter(gold) == {USER: 393, AGENT: 123}
    episode = domain().environment()
    for side, toolkit in (("agent", episode.agent), ("user", episode.user)):
        assert toolkit.db.text() == gzip.open(GOLDEN / f"canonical/telecom.{side}.json.gz", "rt").read()
    assert hashes(episode) == ["304cf5ef059852e1", "e1f3a86373888082"]


@pytest.mark.parametrize("name", ["telecom", "telecom-workflow"])
def test_what_the_agent_is_told(name):
    assert agent_prompt(domain(name)) == (GOLDEN / f"prompts/{name}.agent_system.txt").read_text("utf-8")


def test_tools_are_shown_as_officially():
    shown = [
        {
            "side": side,
            "name": spec.name,
            "type": marks(toolkit)[spec.name].kind,
            "mutates": marks(toolkit)[spec.name].mutates,
            "discoverable": False,
            "schema": {
                "type": "function",
                "function": {"name": spec.name, "description": spec.description, "parameters": spec.parameters},
            },
        }
        for side, toolkit, specs in (
            (AGENT, domain().agent, domain().agent_tools()),
            (USER, domain().user, domain().user_tools()),
        )
        for spec in specs
    ]
    assert Counter(one["side"] for one in shown) == {AGENT: 13, USER: 30}
    assert shown == rows("telecom.tools")


# ------------------------------------------------------------------------------------------- calls
@pytest.mark.parametrize("name, num_tasks, num_steps, num_equal", [
    ("telecom.base.gold", 114, 516, 43), ("telecom.full.gold", 2285, 13_215, 597)
])  # fmt: skip
def test_every_gold_step_leaves_the_official_states(name, num_tasks, num_steps, num_equal):
    found, steps, equal = rows(name), 0, 0
    for row in found:
        task = tasks()[row["task"]]
        episode, nothing = started(task), started(task)
        assert (hashes(episode), vector(episode, task)) == (row["init"], row["init_assert"]), row["task"]
        for gold, step in zip(task.criteria.actions, row["steps"], strict=True):
            told = episode.call(gold.side, gold.name, gold.arguments)
            seen = [sha16(told.text), int(not told.ok), *hashes(episode), vector(episode, task)]
            assert seen == step, (row["task"], gold)
            steps += 1
        after = started(task)
        for gold in task.criteria.actions:
            after.run(gold.side, gold.name, gold.arguments)
        assert int(all(episode.same(after))) == row["gold_replay"]["db"], row["task"]
        assert vector(episode, task) == row["gold_replay"]["env"]
        assert int(all(nothing.same(after))) == row["null"]["db"]
        assert vector(nothing, task) == row["null"]["env"]
        equal += all(episode.same(after))
    assert (len(found), steps, equal) == (num_tasks, num_steps, num_equal)


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_every_call_answers_word_for_word():
    num_calls = 0
    for row in rows("telecom.calls"):
        episode = started(tasks()[row["task"]]) if row["task"] else domain().environment()
        for call in row["calls"]:
            told = episode.call(SIDES[call["q"]], call["n"], call["a"])
            shown = (told.text[:300], digest(told.text), len(told.text)) if "sha" in call else told.text
            assert shown == ((call["c"], call["sha"], call["len"]) if "sha" in call else call["c"]), (row["id"], call)
            assert int(not told.ok) == call["e"]
            num_calls += 1
        assert hashes(episode) == row["end"], row["id"]
    assert num_calls == 3_390


def test_episodes_side_by_side_are_as_alone():
    """Officially a VPN that breaks in one episode is slow in all later ones."""
    found = [row for row in rows("telecom.calls") if row["task"]]
    episodes = [started(tasks()[row["task"]]) for row in found]
    for place in range(max(len(row["calls"]) for row in found)):
        for row, episode in zip(found, episodes):
            for call in row["calls"][place : place + 1]:
                episode.call(SIDES[call["q"]], call["n"], call["a"])
    assert [hashes(episode) for episode in episodes] == [row["end"] for row in found]


# ----------------------------------------------------------------------------------------- rewards
@pytest.mark.parametrize("name, num_rows, num_raising", [("telecom", 1500, 47), ("telecom-workflow", 150, 5)])
def test_every_trajectory_is_scored_as_officially(name, num_rows, num_raising):
    found, raised = rows(f"{name}.traj.main"), 0
    for row in found:
        task, messages = tasks()[row["task"]], as_recorded(row)
        if "raises" in row:
            with pytest.raises(scoring.ScoringError):
                scoring.grade(domain(name), task, messages, row["term"])
            raised += 1
            continue
        score, expected = scoring.grade(domain(name), task, messages, row["term"]), row["exp"]
        assert score.reward == expected["reward"], row["id"]
        if row["term"] not in STOP:
            assert score.components == {}
            continue
        assert score.components == {
            name: expected["ENVPART" if name == "ENV_ASSERTION" else name] for name in expected["basis"]
        }
        assert [int(one) for one in score.assertions] == expected["env"], row["id"]
        assert score.actions is None or [int(one) for one in score.actions] == expected["act"], row["id"]
        assert int(all(score.databases)) == expected["db"], row["id"]
        final = started(task)
        final.replay(messages)
        assert hashes(final) == [expected["agent"], expected["user"]], row["id"]
    assert len(found) == num_rows
    assert raised == num_raising


def test_an_agent_alone_is_scored_as_officially():
    found, solved = rows("telecom.solo"), Counter()
    for row in found:
        task, expected = tasks()[row["task"]], row.get("exp")
        if expected is None:
            with pytest.raises(scoring.ScoringError):
                scoring.grade(domain(), task, as_recorded(row, solo=True), "agent_stop", solo=True)
            continue
        score = scoring.grade(domain(), task, as_recorded(row, solo=True), "agent_stop", solo=True)
        assert score.reward == expected["reward"], row
        assert [int(one) for one in score.assertions] == expected["env"]
        assert int(all(score.databases)) == expected["db"]
        solved[row["kind"]] += score.reward
    assert len(found) == 342
    assert solved["gold"] == 114


@pytest.mark.parametrize("side", (AGENT, USER))
def test_floors(side):
    """Nothing done solves nothing; handing over at once solves what cannot be mended, whoever does it."""
    done = Counter()
    for task in data.tasks(files(), "telecom"):
        ends = [Message(AGENT, "Hi!"), Message(USER, "Help."), Message(USER, "###STOP###")]
        done["nothing"] += scoring.grade(domain(), task, ends, "user_stop").success
        call = ToolCall("c0", scoring.TRANSFER, {"summary": "any"}, side)
        told = started(task).call(side, call.name, call.arguments)
        ends[2:2] = [Message(side, calls=(call,)), Message(TOOL, told.text, id="c0", requestor=side, error=not told.ok)]
        done["transfer"] += scoring.grade(domain(), task, ends, "user_stop").success
    assert done == {"nothing": 0, "transfer": 20}


# ------------------------------------------------------------------------------------------ faults
def test_the_faults_make_the_file():
    desk = domain().environment().agent.db.base.tables
    made = compose(families(subject(desk, FILE_LINE)), PERSONAS)
    sizes = Counter(one.family.name for one in made)
    assert sizes == {"mobile_data_issue": 382, "service_issue": 47, "mms_issue": 2976}
    wanted = files().json("telecom", "tasks.json")
    texts = texts_of(wanted, desk)
    again = [task_json(one, texts) for one in released(made)]
    assert len(again) == 2285
    for ours, theirs in zip(again, wanted, strict=True):
        assert ours == theirs
    splits = data.splits(files(), "telecom")
    drawn = base(made)
    assert {name_of(one) for one in drawn} == set(splits["base"]) and len(drawn) == 114
    assert {name_of(one) for one in released(made) if len(one.faults) == 1} == set(splits["small"])
    kin = {name: {id.partition("[PERSONA:")[0] for id in splits[name]} for name in ("train", "test")}
    assert not kin["train"] & kin["test"]
    assert kin["train"] | kin["test"] == {kin_of(one) for one in drawn}


def test_every_task_needs_all_of_its_gold():
    """Those of the file, and some about another line, which no file has."""
    desk = domain().environment().agent.db.base.tables
    assert Counter(flaw(task, domain().environment) for task in tasks().values()) == {"": 2285}
    assert [one.line_id for one in subjects(desk)] == ["L1001", "L1002"]
    texts = texts_of(files().json("telecom", "tasks.json"), desk)
    for one in random.Random(0).sample(compose(families(subject(desk, "L1001")), PERSONAS), 300):
        task = task_json(one, texts)
        assert flaw(task_from_json(task), domain().environment) == "", task["id"]
        assert "555-123-2002" not in json.dumps(task) and "555-123-2001" in task["ticket"]


def test_variants_of_a_training_task_are_no_test_tasks():
    splits, desk = data.splits(files(), "telecom"), domain().environment().agent.db.base.tables
    everyone = [family for who in subjects(desk) for family in families(who)]
    test = {id.partition("[PERSONA:")[0] for id in splits["test"]}
    without = 0
    for id in splits["train"]:
        made = alike(id, everyone, PERSONAS, taken=splits["test"])
        kin = {kin_of(one) for one in made}
        assert not kin & test and id.partition("[PERSONA:")[0] not in kin
        assert {(one.family.name, len(one.faults)) for one in made} <= {(id[1:].partition("]")[0], id.count("|") + 1)}
        without += not made
    assert (len(splits["train"]), without) == (74, 2)  # those two are the only ones of their kind
