"""Dependencies by leaving calls out: a task known by hand, and all of BFCL."""

import copy
import time
from collections import Counter
from dataclasses import replace

import pytest
from synthesis_toy import TASK, TOY

from rods_jax.synthesis.ablation import ablation_links, remembered_ablation
from rods_jax.synthesis.profile import extract_profile, longest_chain
from rods_jax.types import Call, Turn


def test_effects_are_found_and_spelled_out_values_are_not():
    # Without the book nobody can borrow it or owe a fine; the deposit spells its amount out.
    assert ablation_links(TOY, TASK) == {(0, 1), (0, 2)}
    assert extract_profile(TOY, TASK).links == {(0, 1), (0, 2), (2, 3)}
    deposits = replace(TASK, turns=(Turn("", (Call("deposit_cash", {"amount": 1}),) * 3),))
    assert ablation_links(TOY, deposits) == {(0, 1), (0, 2), (1, 2)}  # each balance tells of those before


def test_longest_chain():
    assert longest_chain(0, frozenset()) == 0
    assert longest_chain(3, frozenset()) == 1
    assert longest_chain(5, frozenset({(3, 4), (0, 3), (1, 4), (0, 1)})) == 3


def test_equal_content_is_run_once():
    built = []

    def counted(start):
        built.append(start)
        return TOY.simulator(start)

    links = remembered_ablation(TOY._replace(simulator=counted))
    assert links(TASK) == ablation_links(TOY, TASK)
    assert len(built) == 5  # once complete, once without each of the 4 calls
    assert links(replace(TASK, id="other", ancestry=("x",))) == links(TASK) and len(built) == 5
    links(replace(TASK, turns=TASK.turns[:1]))
    assert len(built) == 8


# --------------------------------------------------------------------------------------- BFCL
def depths(links_of, tasks):
    numbers = Counter()
    for task in tasks:
        num_calls = sum(len(turn.gold) for turn in task.turns)
        numbers[longest_chain(num_calls, links_of(task))] += 1
    return numbers


@pytest.fixture(scope="module")
def bfcl():
    pytest.importorskip("bfcl_eval", reason="needs the BFCL wheel")
    return pytest.importorskip("rods_jax.environments.bfcl")


def test_depths_of_all_of_bfcl(bfcl):
    domain, expected = bfcl.bfcl_domain(), {1: 29, 2: 139, 3: 25, 4: 7}
    started = time.process_time()
    links = {task.id: ablation_links(domain, task) for task in bfcl.load_tasks()}
    assert time.process_time() - started < 60
    for category in ("base", "missing_parameter", "long_context"):
        tasks = bfcl.load_tasks((category,))
        assert depths(lambda task: links[task.id], tasks) == expected
    tasks = bfcl.load_tasks(("missing_function",))
    assert depths(lambda task: links[task.id], tasks) == {1: 28, 2: 140, 3: 25, 4: 7}

    base = bfcl.load_tasks(("base",))
    edges = [(task, edge) for task in base for edge in links[task.id]]
    turn_of = {task.id: [index for index, turn in enumerate(task.turns) for _ in turn.gold] for task in base}
    crossing = [edge for task, edge in edges if turn_of[task.id][edge[0]] != turn_of[task.id][edge[1]]]
    assert (len(edges), len(crossing)) == (514, 308)


def test_lists_shared_between_runs_would_make_up_edges(bfcl):
    """The tool classes append to lists that they are given: a run that does not copy them changes the next one's task.

    Two tasks then look deeper than they are (29, 137, 26, 8 instead of 29, 139, 25, 7).
    """
    backend = bfcl._backend()

    def responses(task, left_out=None):
        objects = {name: backend.classes[name]() for name in task.world.classes}
        for name, instance in objects.items():
            if name not in backend.stateless:
                instance._load_scenario(copy.deepcopy(task.world.state.get(name, {})))
        for index, call in enumerate(call for turn in task.turns for call in turn.gold):
            try:
                tool = getattr(objects[backend.tools[call.name].class_name], call.name)
                yield index == left_out or str(tool(**call.arguments))
            except Exception as error:  # what a call does without the ones it needs
                yield str(error)

    def shared(task):
        complete = list(responses(task))
        return {
            (left_out, later)
            for left_out in range(len(complete))
            for later, text in enumerate(responses(task, left_out))
            if later > left_out and text != complete[later]
        }

    assert depths(shared, bfcl.load_tasks(("base",))) == {1: 29, 2: 137, 3: 26, 4: 8}
