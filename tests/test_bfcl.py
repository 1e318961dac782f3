"""BFCL: tasks, splits, gold and empty replays, isolation, the release. The official checker: test_bfcl_official.py."""

import copy
import json
import pickle
import random
import shutil
import subprocess
import sys
from collections import Counter

import pytest

pytest.importorskip("bfcl_eval", reason="needs pip install --no-deps bfcl-eval==2026.3.23")
pytest.importorskip("mpmath", reason="needs pip install 'mpmath>=1.3,<1.4'")

from bfcl_official import domain, tasks, trace

from rods_jax.environments import bfcl
from rods_jax.environments.bfcl_safety import MAX_RESPONSE_CHARACTERS
from rods_jax.environments.protocol import STRATA
from rods_jax.environments.scoring import official_turn_passed, turn_passed, turns_passed
from rods_jax.types import Call, World

FILES = {"a.txt": {"type": "file", "content": "x"}, "sub": {"type": "directory", "contents": {}}}
FILE_SYSTEM = {"root": {"home": {"type": "directory", "contents": FILES}}}
STATE = {"GorillaFileSystem": FILE_SYSTEM, "TwitterAPI": {"authenticated": True}}


def simulator(*classes, state=STATE, long_context=False):
    return bfcl.BfclSimulator(World(classes, state, {"long_context": long_context}))


def call(sim, name, **arguments):
    return sim.call(Call(name, arguments))


# ---------------------------------------------------------------------------------------- tasks
def test_tasks_as_published():
    assert [task.category for task in tasks()] == [name for name in STRATA for _ in range(200)]
    assert len({task.id for task in tasks()}) == 800
    turns = Counter()
    for task in tasks():
        turns[task.category] += len(task.turns)
    assert turns == {"base": 734, "missing_function": 934, "missing_parameter": 934, "long_context": 734}
    empty = Counter(task.category for task in tasks() for turn in task.turns if not turn.gold)
    assert empty["base"] == empty["long_context"] == 3
    assert empty["missing_function"] == empty["missing_parameter"] == 203


def test_withheld_tools_arrive_with_the_release_message():
    for task in tasks():
        releasing = [turn for turn in task.turns if turn.released_tools]
        assert len(releasing) == (task.category == "missing_function")
        assert all(turn.user == bfcl.RELEASE_MESSAGE and turn.gold for turn in releasing)
        assert all(turn.user for turn in task.turns)
        hidden = task.withheld_tools  # and no gold call needs a tool that is still hidden
        for turn in task.turns:
            hidden = hidden - set(turn.released_tools)
            assert not hidden & {gold.name for gold in turn.gold}


def test_gold_calls_are_values_by_documented_name():
    # written sort('final_report.pdf')
    assert tasks()[0].turns[2].gold == (Call("sort", {"file_name": "final_report.pdf"}),)
    for task in tasks():
        for gold in (gold for turn in task.turns for gold in turn.gold):
            tool = domain().tools[gold.name]
            assert tool.class_name in task.world.classes
            assert set(gold.arguments) <= set(tool.parameters["properties"])


def test_tools_have_json_schema_types():
    assert len(domain().tools) == 128
    types = Counter()

    def visit(schema):
        types[schema["type"]] += 1
        for item in schema.get("properties", {}).values():
            visit(item)
        if "items" in schema:
            visit(schema["items"])

    for tool in domain().tools.values():
        visit(tool.parameters)
        visit(tool.response)
    assert set(types) == {"object", "string", "number", "integer", "array", "boolean"}
    assert len(domain().tools_of(("MathAPI", "TicketAPI"))) == 17 + 9


@pytest.mark.parametrize("seed", [0, 7])
def test_split_halves_every_category_and_block_by_scenario(seed):
    train, held_out = bfcl.split(tasks(), seed=seed)
    for half in (train, held_out):
        assert Counter(task.category for task in half) == dict.fromkeys(STRATA, 100)
        assert Counter(int(scenario[5:]) // 50 for scenario in {task.scenario for task in half}) == dict.fromkeys(
            range(4), 25
        )
    assert not {task.scenario for task in train} & {task.scenario for task in held_out}
    assert bfcl.split(tasks(), seed=seed) == (train, held_out)
    assert bfcl.split(tasks(), seed=seed + 1) != (train, held_out)


def test_vocabulary_holds_free_values_only():
    train, _ = bfcl.split(tasks())
    vocabulary = bfcl.argument_vocabulary(train)
    assert "business" in vocabulary["book_flight", "travel_class"]
    assert vocabulary["lockDoors", "door"] == (["driver", "passenger", "rear_left", "rear_right"],)
    for bound in (("book_flight", "access_token"), ("cancel_booking", "booking_id"), ("cat", "file_name")):
        assert bound not in vocabulary
    sample = bfcl.bfcl_domain(train).sample_argument
    tools = domain().tools
    assert sample(random.Random(0), tools["touch"], "file_name") in vocabulary["touch", "file_name"]
    assert sample(random.Random(0), tools["cat"], "file_name") is None
    assert domain().sample_argument(random.Random(0), tools["touch"], "file_name") is None


# -------------------------------------------------------------------------------------- scoring
def test_gold_responses_are_far_below_the_limit():
    longest = max(len(text) for index in range(600, 800) for turn in trace(index) for text in turn.outputs)
    assert longest == 31_706 < MAX_RESPONSE_CHARACTERS / 2


@pytest.mark.parametrize("passed", [turn_passed, official_turn_passed])
def test_gold_is_right_800_times_and_the_empty_policy_never(passed):
    gold = empty = 0
    for index, task in enumerate(tasks()):
        gold += all(turns_passed(domain(), task, [turn.gold for turn in task.turns], passed, trace(index)))
        empty += all(turns_passed(domain(), task, [()] * len(task.turns), passed, trace(index)))
    assert (gold, empty) == (800, 0)


# ------------------------------------------------------------------------------------ isolation
def test_long_context_cards_belong_to_one_rollout():
    state = {"TravelAPI": {"access_token": "t"}}
    sims = [simulator("TravelAPI", state=state, long_context=True) for _ in range(2)]
    before = copy.deepcopy(sims[1].state())
    cards = sims[0].state()["TravelAPI"]["credit_card_list"]
    card = next(name for name, value in cards.items() if value["balance"] > 1000)
    old = cards[card]["balance"]
    flight = dict(travel_date="2026-11-10", travel_from="SFO", travel_to="LAX", travel_class="economy")
    booked = call(sims[0], "book_flight", access_token="t", card_id=card, **flight)
    assert json.loads(booked.text)["booking_status"]
    assert cards[card]["balance"] < old
    assert sims[1].state() == before
    assert simulator("TravelAPI", state=state, long_context=True).state() == before


def test_default_lists_and_arguments_belong_to_one_rollout():
    sims = [simulator("TwitterAPI") for _ in range(2)]
    mentions = ["@a"]
    for sim in sims:
        call(sim, "post_tweet", content="one")
        call(sim, "post_tweet", content="two", mentions=mentions)
    for tweet in (0, 1):
        call(sims[0], "mention", tweet_id=tweet, mentioned_usernames=["@x"])
    assert [t["mentions"] for t in sims[0].state()["TwitterAPI"]["tweets"].values()] == [["@x"], ["@a", "@x"]]
    assert [t["mentions"] for t in sims[1].state()["TwitterAPI"]["tweets"].values()] == [[], ["@a"]]
    assert mentions == ["@a"]
    call(simulator("TwitterAPI"), "post_tweet", content="three")
    assert json.loads(call(sims[1], "post_tweet", content="four").text)["mentions"] == []


def test_initial_state_is_not_changed():
    task = tasks()[0]
    before = copy.deepcopy(task)
    turns_passed(domain(), task, [turn.gold for turn in task.turns], turn_passed)
    assert task == before


def test_interleaved_rollouts_do_not_interact():
    for index in (0, 90, 650, 790):
        task = tasks()[index]
        start = task.world
        good, bad = bfcl.BfclSimulator(start), bfcl.BfclSimulator(start)
        for turn, calls in enumerate(turn.gold for turn in task.turns):
            outputs = []
            for gold in calls:
                for other in reversed(calls):
                    bad.call(other)
                outputs.append(good.call(gold).text)
            assert (good.state(), tuple(outputs)) == trace(index)[turn]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda sim: pickle.loads(pickle.dumps(sim))])
def test_a_copied_or_pickled_rollout_continues_alike(copied):
    for index in (0, 60, 110, 799):
        task = tasks()[index]
        gold = [a_call for turn in task.turns for a_call in turn.gold]
        sim = domain().simulator(task.world)
        sim.call(gold[0])
        other, before = copied(sim), copy.deepcopy(sim.state())
        answers = [sim.call(a_call) for a_call in gold[1:]]
        assert other.state() == before  # it did not follow
        assert [other.call(a_call) for a_call in gold[1:]] == answers
        assert sim.state() == other.state()


# ---------------------------------------------------------------------------------- the release
def test_state_of_the_file_system_has_the_shape_of_the_initial_state():
    assert simulator("GorillaFileSystem").state()["GorillaFileSystem"]["root"] == FILE_SYSTEM["root"]


@pytest.mark.parametrize("missing", ["bfcl_eval", "mpmath"])
def test_missing_package_names_the_one_command(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    math_api = "bfcl_eval.eval_checker.multi_turn_eval.func_source_code.math_api"
    monkeypatch.delitem(sys.modules, math_api, raising=False)  # so that it is imported again
    for function in (bfcl.release_root, bfcl._backend):
        monkeypatch.setattr(bfcl, function.__wrapped__.__name__, function.__wrapped__)
    with pytest.raises(
        ImportError, match=f"needs {missing}, which .*: pip install --no-deps bfcl-eval==.* 'mpmath>=1.3,<1.4'"
    ):
        bfcl.bfcl_domain()


def test_altered_data_is_refused_with_both_hashes(tmp_path):
    root = shutil.copytree(bfcl.release_root(), tmp_path / "bfcl_eval")
    bfcl.verify(root)
    path = root / "data/possible_answer/BFCL_v4_multi_turn_base.json"
    path.write_text(path.read_text().replace("final_report", "final_repost", 1))
    with pytest.raises(ValueError, match=rf"expected sha256 {bfcl.SHA256}, found [0-9a-f]{{64}}; reinstall"):
        bfcl.verify(root)


def test_import_needs_no_bfcl():
    script = "import sys; sys.modules['bfcl_eval'] = None; import rods_jax.environments.bfcl"
    subprocess.run([sys.executable, "-c", script], check=True)
