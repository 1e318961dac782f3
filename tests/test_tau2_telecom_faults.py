"""Faults that combine: counts and orders worked out by hand, and tasks that are played."""

import copy
import json
import math
import os
import random

import pytest
from telecom_toy import BASES, NUMBER, fresh

from rods_jax import task_files
from rods_jax.config import load_config
from rods_jax.environments.protocol import Domain
from rods_jax.environments.tau2 import data
from rods_jax.environments.tau2.domains import DOMAINS
from rods_jax.environments.tau2.episodes import episode_task
from rods_jax.environments.tau2.faults import (
    Check,
    Composition,
    Deed,
    Family,
    Fault,
    alike,
    compose,
    flaw,
    kin_of,
    name_of,
    sample_bins,
    solvable,
    task_json,
)
from rods_jax.environments.tau2.messages import USER, task_from_json
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
from rods_jax.environments.tau2.telecom_variants import variants
from rods_jax.synthesis.algebra import NO_VARIANT, variants_by
from rods_jax.synthesis.author import Order
from rods_jax.task_files import content_hash

A, B, C, D = (Fault(name, (Deed(USER, f"break_{name}"),), (Deed(USER, f"mend_{name}"),)) for name in "abcd")
HOPELESS = Fault("z", (Deed(USER, "break_z"),), None)
TOY = Family("toy", ((D,), (B, HOPELESS), (A, C)), 1, (), (Check(USER, "well"),), (Check(USER, "ill"),))


def test_compositions_are_sorted_and_personas_take_turns():
    made = compose((TOY,), ("None", "Easy"))
    # 2 x 3 x 3 picks; "d" alone and nothing at all do not explain the complaint
    assert [name_of(one) for one in made] == [
        f"[toy]{names}[PERSONA:{persona}]"
        for names, persona in zip(
            "b z a c b|d d|z a|d c|d a|b b|c a|z c|z a|b|d b|c|d a|d|z c|d|z".split(), ["None", "Easy"] * 8
        )
    ]


def test_variants_have_equal_structure():
    def kin(id, taken=()):
        return [kin_of(one) for one in alike(id, (TOY,), ("None",), taken)]

    assert kin("[toy]b|d[PERSONA:None]") == ["[toy]a|d", "[toy]c|d", "[toy]a|b", "[toy]b|c"]
    assert kin("[toy]d|z[PERSONA:Hard]", taken=["[toy]a|z[PERSONA:Easy]"]) == ["[toy]c|z"]
    assert {one.persona for one in alike("[toy]z[PERSONA:None]", (TOY,), PERSONAS)} == set()
    assert [one.persona for one in alike("[toy]a[PERSONA:None]", (TOY,), PERSONAS)] == 2 * list(PERSONAS)
    with pytest.raises(ValueError, match=r"\[toy\]d"):
        kin("[toy]d[PERSONA:None]")


def test_bins_hold_so_many_and_no_single_faults():
    made = compose((TOY,), ("None",))
    drawn = sample_bins(made, random.Random(0), 3)
    assert [len(one.faults) for one in drawn] == [2, 2, 2, 3, 3, 3]
    assert len(set(map(name_of, drawn))) == 6


def told(family, abroad):
    """A task of a copy of tasks.json as far as its words go."""
    causes = [{"func_name": "set_user_location"}] * abroad
    place = "abroad" if abroad else "at home"
    return [
        {
            "id": f"[{family}]x[PERSONA:{persona}]",
            "description": {"purpose": family},
            "user_scenario": {
                "persona": None if persona == "None" else persona,
                "instructions": {"known_info": f"You are Ada Quill, {NUMBER}, {place}.", "unknown_info": None},
            },
            "ticket": f"Ada Quill, {NUMBER}: {family}",
            "initial_state": {"initialization_actions": causes},
        }
        for persona in PERSONAS
    ]


FAMILIES = families(subject(BASES[0].tables, FILE_LINE))
WORDS = [task for family in FAMILIES for abroad in (False, True) for task in told(family.name, abroad)]


def test_the_sizes_of_telecom():
    made = compose(FAMILIES, PERSONAS)
    sizes = [math.prod(len(choice) + 1 for choice in family.choices) for family in FAMILIES]
    assert sizes == [384, 48, 3072]
    assert len(made) == (384 - 2) + (48 - 1) + (3072 - 96) == 3405
    assert len(released(made)) == 2285 and len(base(made)) == 114
    assert sum(not solvable(one) for one in released(made)) == 32


def test_sampled_tasks_of_every_line_need_all_of_their_gold():
    assert [(one.line_id, one.limit_gb) for one in subjects(BASES[0].tables)] == [(FILE_LINE, 10.0), ("L2", 11.5)]
    desk = BASES[0].tables
    texts = texts_of(WORDS, desk)
    for who in subjects(desk):
        for made in random.Random(0).sample(compose(families(who), PERSONAS), 80):
            task = task_json(made, texts)
            assert flaw(task_from_json(task), fresh) == "", task["id"]
            assert who.phone_number in task["ticket"]
            assert task["id"].endswith("[L2]") == (who.line_id == "L2")


def test_tasks_of_faults_are_written_and_read_back(tmp_path):
    made = random.Random(1).sample(compose(FAMILIES, PERSONAS), 12)
    entries = [task_json(one, texts_of(WORDS, BASES[0].tables)) for one in made]
    ids = [one["id"] for one in entries]
    data.write_tasks(tmp_path, "telecom", entries, {"train": ids[:8], "test": ids[8:], "base": ids})
    read = data.tasks(data.find([tmp_path]), "telecom", "test")
    assert read == tuple(map(task_from_json, entries[8:])) and all(flaw(task, fresh) == "" for task in read)


def test_a_task_that_needs_less_or_more_than_its_gold_is_refused():
    made = next(
        one for one in compose(FAMILIES, PERSONAS) if kin_of(one) == "[mms_issue]bad_wifi_calling|data_mode_off"
    )
    whole = task_json(made, texts_of(WORDS, BASES[0].tables))
    assert whole["evaluation_criteria"]["reward_basis"] == ["ENV_ASSERTION"]

    def reason(change):
        task = copy.deepcopy(whole)
        change(task["evaluation_criteria"], task["initial_state"]["initialization_actions"])
        return flaw(task_from_json(task), fresh)

    assert reason(lambda criteria, causes: None) == ""
    assert reason(lambda criteria, causes: criteria["actions"].pop()) == "the checks fail after all gold calls"
    assert reason(lambda criteria, causes: causes.clear()) == "after 0 gold calls the checks hold already"
    again = {**whole["evaluation_criteria"]["actions"][0], "name": "check_status_bar"}
    assert (
        reason(lambda criteria, causes: criteria["actions"].append(again))
        == "after 2 gold calls the checks hold already"
    )
    wrong = {**again, "name": "grant_app_permission"}
    assert reason(lambda criteria, causes: criteria["actions"].insert(0, wrong)).startswith(
        "the gold call grant_app_permission fails: Error: TelecomUserTools.grant_app_permission() missing 2"
    )
    assert reason(lambda criteria, causes: causes.append({"env_type": "user", "func_name": "explode"})) == (
        "ValueError: the side of the user has no method explode"
    )
    assert reason(lambda criteria, causes: criteria.update(actions=[])) == "it has no gold calls or no assertions"


def test_what_nobody_can_mend_is_to_be_handed_over():
    made = Composition(
        FAMILIES[1], (Fault("lock_sim_card_pin", (Deed(USER, "lock_sim_card", {"mode": "pin"}),), None),), "None"
    )
    task = task_json(made, texts_of(WORDS, BASES[0].tables))
    criteria = task["evaluation_criteria"]
    assert [(gold["name"], gold["compare_args"]) for gold in criteria["actions"]] == [("transfer_to_human_agents", [])]
    assert criteria["reward_basis"] == ["ENV_ASSERTION", "ACTION"]
    assert flaw(task_from_json(task), fresh) == ""


def test_words_that_the_copy_lacks_are_named():
    texts = texts_of(told("service_issue", False), BASES[0].tables)
    with pytest.raises(ValueError, match="nothing of mms_issue at home, persona Easy"):
        texts(Composition(FAMILIES[2], (), "Easy"))
    with pytest.raises(ValueError, match="'L3' cannot be a subject; L1002, L2 can"):
        subject(BASES[0].tables, "L3")


# ------------------------------------------------------------------------------- variants as an author
def order_of(kin):
    made = next(one for one in compose(FAMILIES, PERSONAS) if kin_of(one) == kin)
    return Order(episode_task("telecom", task_json(made, texts_of(WORDS, BASES[0].tables))))


def wrote(kin, taken=(), seed=0, **settings):
    write = variants_by(variants(fresh, WORDS, taken), Domain("telecom", {}, fresh))
    return write(order_of(kin), step=3, rng=random.Random(seed), **{"known_hashes": frozenset()} | settings)


def test_an_author_writes_other_faults_of_the_same_structure():
    kin = "[mms_issue]bad_network_preference|bad_wifi_calling|data_mode_off"
    first = wrote(kin).candidate
    assert wrote(kin).candidate == first and wrote(kin, seed=1).candidate != first
    own = task_from_json(first.world.state["telecom"])
    assert own.id.startswith("[mms_issue]") and own.id.partition("[PERSONA:")[0] != kin and own.id.count("|") == 2
    seed = order_of(kin).seed
    assert first.ancestry == (seed.id,) and first.id.startswith(f"{seed.id}~3-") and first.category == "telecom"
    again = variants_by(variants(fresh, WORDS, ()), Domain("telecom", {}, fresh))(
        Order(first), step=9, rng=random.Random(5), known_hashes=frozenset()
    ).candidate  # a variant has variants
    assert again.ancestry == (seed.id, first.id) and again.world.state["telecom"]["id"].count("|") == 2
    # What is known is a counted rejection, and the next draw is taken.
    second = wrote(kin, known_hashes=frozenset([content_hash(first)]))
    assert second.candidate != first and [one.error for one in second.rejections] == ["unseen"]
    assert (
        task_files.task_from_json(json.loads(json.dumps(task_files.task_to_json(first)))) == first
    )  # it can be stored


def test_no_variant_has_the_faults_of_what_is_measured():
    """Of the pairs of faults of service that can be mended, all but two are taken: one is the seed."""
    pairs = [one for one in compose(FAMILIES[1:2], ("None",)) if len(one.faults) == 2 and solvable(one)]
    seed, left, *taken = map(kin_of, pairs)
    found = {wrote(seed, [f"{kin}[PERSONA:Easy]" for kin in taken], n).candidate.scenario for n in range(6)}
    assert {one.partition("[PERSONA:")[0] for one in found} == {f"telecom/{left}"}
    none = wrote(seed, [f"{kin}[PERSONA:Easy]" for kin in (left, *taken)])
    assert none.candidate is None and [one.error for one in none.rejections] == [NO_VARIANT] * 3
    assert f"no other composition has the structure of {seed}[PERSONA:" in none.rejections[0].detail


@pytest.mark.skipif(not os.environ.get("RODS_TAU2"), reason="needs RODS_TAU2, a folder with tau2-bench's data")
def test_every_training_task_of_the_benchmark_but_two_has_a_variant():
    config = load_config("configs/tau2_telecom.py")
    domain = config.domain()
    tasks = config.build_tasks(domain, 0)
    write, measured = config.synthesis.author(domain), (*tasks.held_out, *tasks.validation)
    without, kin = 0, {one.id.partition("[PERSONA:")[0] for one in measured}
    assert (len(tasks.seeds), len(tasks.held_out), len(tasks.validation)) == (68, 40, 6)
    for seed in tasks.seeds:
        made = write(Order(seed), step=1, rng=random.Random(seed.id), known_hashes=frozenset()).candidate
        without += made is None
        if made is not None:
            assert made.world.state["telecom"]["id"].partition("[PERSONA:")[0] not in kin and made.turns[0].user
            assert flaw(task_from_json(made.world.state["telecom"]), DOMAINS["telecom"](data.find()).environment) == ""
    assert without == 2
