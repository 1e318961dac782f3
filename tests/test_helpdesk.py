"""The help desk: every task is gated, both sides' tools do what they say, the user errs as its dials say, and is found out."""

import pickle
import random
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from grpo_toy import objective_with
from rollout_toy import CODEC

from rods_jax.config import Habits
from rods_jax.demonstrations import can_demonstrate, corpus, demonstrate
from rods_jax.environments.conversation import AGENT, USER, Ended, Heard, Line, Reason, Talk, view
from rods_jax.environments.episode import start_episodes
from rods_jax.environments.helpdesk.demonstrator import demonstrator
from rods_jax.environments.helpdesk.domain import HELPDESK, helpdesk
from rods_jax.environments.helpdesk.errors import blamed, user_errors
from rods_jax.environments.helpdesk.faults import Composition, compositions, gold, is_held_out, shape
from rods_jax.environments.helpdesk.phrases import ASKS, TECHNICIAN, claims, understood
from rods_jax.environments.helpdesk.tasks import build, fault_of, make_task, vary
from rods_jax.environments.helpdesk.user import Dials, by_rules, slips
from rods_jax.environments.helpdesk.world import USER_TOOLS, composition_of, conversation, outcomes
from rods_jax.filtering import mixed
from rods_jax.loop import _without_user_errors
from rods_jax.rollout import Rollouts
from rods_jax.synthesis.algebra import variants_by
from rods_jax.synthesis.author import Order
from rods_jax.task_files import content_hash
from rods_jax.types import Action, Call, Message, RolloutBatch, Task, Trajectory

STOPS = ("###STOP###", "###TRANSFER###")


def a_task(*faults: str, family: str = "no_internet", seed: int = 0) -> Task:
    return make_task(Composition(family, faults), random.Random(seed))


def account(task: Task) -> int:
    return task.world.options["account"]


def talk_of(task: Task, dials: Dials = Dials()) -> Talk:
    talk = Talk(task, world := conversation(task, by_rules(dials), blamed))
    talk.open(world.user)
    return talk


def played(task: Task, dials: Dials, habits: Habits, seed: int):
    """(the transcript, the last answer) of the demonstrator with a user."""
    talk, act = talk_of(task, dials), demonstrator(task, habits, random.Random(seed))
    messages = (Message("user", talk.lines[-1].text),)
    while True:
        answer = talk.hear(act(messages))
        if answer.done:
            return talk.lines, answer
        messages = answer.messages


# ------------------------------------------------------------------------------------------- tasks
def test_every_composition_is_a_task_that_only_its_gold_solves():
    tasks = [make_task(one, random.Random(n)) for n, one in enumerate(compositions())]
    assert len(tasks) == 1349 == len({content_hash(task) for task in tasks})
    assert [(task.id, why) for task in tasks if (why := fault_of(task))] == []
    assert len(HELPDESK.tools) == 15 and len(USER_TOOLS) == 18


def test_the_gate_refuses_what_is_no_task():
    task = a_task("cable_out")
    sound = replace(task, world=replace(task.world, state=task.world.state | {"Home": {}}))
    assert fault_of(sound) == "the first 0 calls of its gold pass"
    assert (
        fault_of(replace(task, category="slow", world=replace(task.world, options=task.world.options | {"faults": []})))
        != ""
    )
    both = replace(task, world=replace(task.world, options=task.world.options | {"faults": ["dns"]}))
    assert fault_of(both) == "its gold does not pass"


def test_gold_of_a_suspended_customer_by_hand():
    """The bill is sent and paid, then the suspension is lifted, and the router loads that as it restarts."""
    task = a_task("suspended")
    own = {"account": account(task)}
    acts = gold(composition_of(task), account(task))
    assert acts == (
        (AGENT, Call("send_bill", own)),
        (USER, Call("pay_bill")),
        (AGENT, Call("lift_suspension", own)),
        (USER, Call("restart_router")),
    )
    # Two checks: the fault is mended, and the internet works when the user leaves.
    assert outcomes(task, acts) == [(False, False)] * 3 + [(True, False), (True, True)]
    assert outcomes(task, acts[1:])[-1] == (False, False)  # nothing can be paid that was not sent


def test_a_case_that_nobody_can_mend_is_looked_at_and_handed_over_with_its_reason():
    task = a_task("broken_router")
    hand_over = {
        reason: (AGENT, Call("hand_over", {"account": account(task), "reason": reason}))
        for reason in ("router", "line")
    }
    look = (USER, Call("check_router"))
    assert outcomes(task, (look, hand_over["router"]))[-1] == (True, True)
    assert outcomes(task, (hand_over["router"],))[-1] == (False, False)
    assert outcomes(task, (look, hand_over["line"]))[-1] == (True, False)
    assert outcomes(task, (hand_over["router"], look))[-1] == (False, False)  # the look comes too late
    failing = AGENT, Call("check_router")  # a tool of the other side
    assert outcomes(task, (failing, hand_over["router"]))[-1] == (False, False)
    mendable = a_task("cable_out")
    own = (AGENT, Call("hand_over", {"account": account(mendable), "reason": "router"}))
    assert outcomes(mendable, ((USER, Call("plug_cable")), own))[-1] == (True, False)


def test_a_change_to_another_customer_fails_the_end():
    task = a_task("cable_out")
    other = next(int(number) for number in task.world.state["Desk"]["accounts"] if int(number) != account(task))
    harm = (AGENT, Call("add_credit", {"account": other, "amount": 5}))
    assert outcomes(task, (harm, (USER, Call("plug_cable"))))[-1] == (True, False)


def test_a_side_cannot_call_the_others_tools():
    answer = talk_of(a_task("cable_out")).hear(Action(calls=(Call("plug_cable"),)))
    assert answer.observations == ("Error: plug_cable is a tool of the other side",) and not answer.done


def test_splits_share_no_composition_and_repeat():
    make = partial(build, max_faults=3, seeds=40, held_out=40, validation=20, practice=200)
    splits = make(random.Random(1))
    assert [len(part) for part in splits] == [40, 40, 200, 20] and splits == make(random.Random(1))
    measured, trained = ({one.scenario for part in parts for one in part} for parts in (splits[1:4:2], splits[0:3:2]))
    assert not measured & trained and all(is_held_out(composition_of(task)) for task in splits.held_out)
    refused = [bool(composition_of(task).refusal) for task in splits.seeds]
    assert sum(refused) == 8 and {task.category for task in splits.held_out} == {"no_internet", "slow", "no_wifi"}


def test_variants_keep_the_shape_and_take_no_held_out_composition():
    write = variants_by(vary, HELPDESK)
    for seed in (a_task("cable_out", "dns"), a_task("suspended", "airplane"), a_task("broken_port")):
        made = write(Order(seed), step=3, rng=random.Random(0), known_hashes=frozenset())
        again = write(Order(seed), step=3, rng=random.Random(0), known_hashes=frozenset())
        task = made.candidate
        assert made == again and task.ancestry == (seed.id,) and task.id.startswith(f"{seed.id}~3-")
        assert shape(composition_of(task)) == shape(composition_of(seed)) and fault_of(task) == ""
        assert not is_held_out(composition_of(task)) and composition_of(task) != composition_of(seed)
        known = frozenset([content_hash(task)])
        second = write(Order(seed), step=3, rng=random.Random(0), known_hashes=known)
        assert second.candidate != task and [one.error for one in second.rejections][:1] == ["unseen"]
        assert (
            write(Order(seed), step=3, rng=random.Random(0), known_hashes=known, history=second.rejections).rejections
            == second.rejections
        )


# -------------------------------------------------------------------------------------------- user
def test_a_user_understands_each_of_the_phrases_and_nothing_else():
    assert {tool: understood(text) for tool, text in ASKS.items()} == {tool: tool for tool in ASKS} != {}
    assert understood(TECHNICIAN) == "TECHNICIAN" and understood("Good morning.") == ""
    assert set(ASKS) == {tool.name for tool in USER_TOOLS}


def test_a_user_does_what_it_is_asked_and_says_what_it_sees():
    talk = talk_of(a_task("cable_out"))
    said = [
        talk.hear(Action(answer=text))
        for text in ("What does the router show?", ASKS["plug_cable"], "What is your account?")
    ]
    assert said[0].messages[0].content == "It shows power on, cable out, wifi on, light green, channel free."
    assert (
        said[1].messages[0].content == "Done."
        and said[2].messages[0].content == f"My account is {account(talk._task)}."
    )
    assert talk.hear(Action(answer="Good morning.")).messages[0].content == "I do not understand."
    over = talk.hear(Action(answer="Please test the internet."))
    assert (
        over.passed == (True, True)
        and over.ended == Reason.USER_STOP
        and over.observations[-1] == "user: It works now. ###STOP###"
    )


@pytest.mark.parametrize("words, last", [(ASKS["run_test"], "I give up. ###STOP###"), ("Hm.", "I give up. ###STOP###")])
def test_a_user_loses_patience(words, last):
    talk = talk_of(a_task("cable_out"))
    assert not talk.hear(Action(answer=words)).done
    over = talk.hear(Action(answer=words))
    assert over.observations[-1] == f"user: {last}" and over.passed == (False, False) and over.blame == AGENT


@pytest.mark.parametrize(
    "dial, words, shown",
    [
        ("ignores", ASKS["plug_cable"], "user: I would rather not."),
        ("invents", ASKS["plug_cable"], "user: Done."),
        ("invents", ASKS["check_router"], "user: It shows power on, cable in, wifi on, light green, channel free."),
        ("stops_early", ASKS["plug_cable"], "user: I must go now. ###STOP###"),
    ],
)
def test_each_dial_is_one_error_which_is_found_and_blamed(dial, words, shown):
    task = a_task("cable_out")
    talk = talk_of(task, Dials(**{dial: 1.0}))
    answer = talk.hear(Action(answer=words))
    assert answer.observations == (shown,)
    assert [kind for _, kind in slips(Dials(**{dial: 1.0}), task, talk.lines)] == [dial]
    (error,) = user_errors(task, talk.lines, STOPS)
    assert (error.kind, error.place) == (dial, len(talk.lines) - 1)
    record = task.world.state["Desk"]["accounts"][str(account(task))]
    home = {"loaded": 0, "cable": "out"}
    assert blamed(Ended(task, Reason.USER_STOP, tuple(talk.lines), 9, 0), record, home, STOPS) == USER


def test_a_misreading_and_an_unasked_act_are_found():
    task = a_task("cable_out")
    talk = talk_of(task, Dials(misreads=1.0))
    talk.hear(Action(answer=ASKS["check_router"]))
    (error,) = user_errors(task, talk.lines, STOPS)
    assert error.kind == "contradicts" and len(error.about) == 1
    assert claims(talk.lines[-1].text)[error.about[0]] != claims(talk.lines[-2].text)[error.about[0]]
    talk = talk_of(task, Dials(acts_unasked=1.0))
    talk.hear(Action(answer=ASKS["check_router"]))
    assert [one.kind for one in user_errors(task, talk.lines, STOPS)] == ["acts_unasked"]
    wrong = [
        Line(AGENT, "Hi."),
        Line(USER, "Down."),
        Line(AGENT, "What is your account?"),
        Line(USER, "My account is 7."),
    ]
    assert [one.about for one in user_errors(task, wrong, STOPS)] == [("account",)]


ALL = Dials(ignores=0.06, misreads=0.1, acts_unasked=0.05, stops_early=0.03, invents=0.06)


def sample(count: int) -> list[Task]:
    some = [one for one in compositions(3) if not one.refusal]
    return [make_task(one, random.Random(n)) for n, one in enumerate(random.Random(5).sample(some, count))]


def test_what_a_user_says_follows_from_what_it_heard():
    task = a_task("cable_out", "dns")
    first, second = (played(task, ALL, Habits(), 0) for _ in range(2))
    assert first == second
    for place, line in enumerate(first[0]):  # a restart in the middle says the same
        if line.who == USER and not line.result:
            spoken = by_rules(ALL)(Heard(task, view(USER, first[0][:place]))) if place else None
            assert spoken is None or (spoken.text, spoken.calls) == (line.text, line.calls)


def test_detectors_find_all_errors_and_no_others():
    """On users whose errors are known: precision and recall of each kind are 1."""
    names = {"misreads": "contradicts"}
    found, made = set(), set()
    for n, task in enumerate(sample(120)):
        lines, _ = played(task, ALL, Habits(stop_early=0.3, skip=0.1), n)
        made |= {(n, place, names.get(dial, dial)) for place, dial in slips(ALL, task, lines)}
        found |= {(n, error.place, error.kind) for error in user_errors(task, lines, STOPS)}
    assert made == found and {kind for *_, kind in made} == {"contradicts", *ALL._fields} - {"misreads"}


def test_failures_are_blamed_on_who_caused_them():
    """The truth: the same agent, with a user that makes no errors."""
    right = {AGENT: [0, 0], USER: [0, 0]}
    for n, task in enumerate(sample(100)):
        habits = Habits(stop_early=0.25, skip=0.05)
        _, answer = played(task, ALL, habits, n)
        _, fair = played(task, Dials(), habits, n)
        assert all(fair.passed) or fair.blame == AGENT  # a user without errors is never blamed
        if not all(answer.passed):
            truth = USER if all(fair.passed) else AGENT
            right[truth][answer.blame == truth] += 1
        else:
            assert answer.blame == ""
    assert right[USER][1] / sum(right[USER]) > 0.9 and sum(right[USER]) > 15
    assert right[AGENT][1] / sum(right[AGENT]) > 0.4 and sum(right[AGENT]) > 15


def test_failures_by_the_user_can_be_kept_out_of_the_gradient():
    batch = RolloutBatch(*[np.ones((1, 3), bool)] * len(RolloutBatch._fields))
    one = Trajectory("t", 0, (False,), ())
    rollouts = Rollouts(batch, (replace(one, blame=USER), replace(one, blame=AGENT), one))
    fair = _without_user_errors(objective_with(mask_user_errors=True), rollouts).batch
    assert fair.valid_NG.tolist() == [[False, True, True]]
    assert _without_user_errors(objective_with(), rollouts) is rollouts
    passed_g = np.array([0, 1, 1])  # nobody but the user failed: the group teaches nothing
    assert mixed(passed_g, 1) and not mixed(passed_g[fair.valid_NG[0]], 1)


# ------------------------------------------------------------------------------------------- agent
def test_a_demonstrator_without_habits_solves_what_it_is_told_of_and_one_with_them_does_not():
    tasks = [make_task(one, random.Random(n)) for n, one in enumerate(random.Random(2).sample(compositions(), 60))]
    assert all(all(played(task, Dials(), Habits(), 0)[1].passed) for task in tasks)
    bent = [all(played(task, Dials(), Habits(stop_early=0.75, skip=0.1), n)[1].passed) for n, task in enumerate(tasks)]
    assert 10 < sum(bent) < 50
    greeted = demonstrator(tasks[0], Habits(), random.Random(0))
    told = greeted([Message("user", f"My account is {'9' * 5_000}.")])  # no integer that Python reads
    assert all(call.arguments.get("account", 0) == 0 for call in told.calls)
    ignoring = Dials(ignores=0.3)  # it asks again
    assert sum(all(played(task, ignoring, Habits(), 0)[1].passed) for task in tasks) > 40


def test_a_demonstration_is_the_rollouts_tokens_with_the_agents_marked():
    task = a_task("cable_out")
    demo = demonstrate(HELPDESK, task, CODEC, Habits(), random.Random(0))
    (opening,) = start_episodes(HELPDESK, [task]).openings
    assert demo.prompt == CODEC.encode_prompt(opening.tools, opening.user, opening.policy, opening.greeting)
    assert demo.passed == (True, True) and can_demonstrate(HELPDESK, task)
    spoken = CODEC.decode([token for token, acted in zip(demo.suffix, demo.acted) if acted])
    assert ASKS["plug_cable"] in spoken and "It shows" not in spoken
    assert not can_demonstrate(HELPDESK._replace(demonstrator=None), task)
    texts = corpus(HELPDESK, [task])
    assert {ASKS["run_test"], "Done.", opening.user, opening.policy} <= set(texts)


def test_the_domain_travels_to_other_processes():
    domain = pickle.loads(pickle.dumps(helpdesk(ALL)))
    task = a_task("cable_out")
    openings = [start_episodes(one, [task] * 2).openings for one in (domain, helpdesk(ALL))]
    assert openings[0] == openings[1] and openings[0][0].num_checks == 2


def test_people_read_checks_by_name_and_the_errors_of_either_side():
    task, refused = a_task("cable_out", "dns"), next(one for one in compositions(3) if one.refusal)
    assert HELPDESK.reading.checks(task) == ("mended: cable_out", "mended: dns", "works, and the user has left")
    assert HELPDESK.reading.checks(make_task(refused, random.Random(0)))[1] == f"handed over: {refused.refusal}"
    talk = talk_of(task, Dials(stops_early=1.0))
    talk.hear(Action((Call("plug_cable"),)))
    talk.hear(Action(answer=ASKS["plug_cable"]))
    stray, early = sorted(HELPDESK.reading.slips(task, talk.lines, "user_stop"))
    assert (stray.who, stray.kind, stray.about) == (AGENT, "wrong_owner", "plug_cable")
    assert (early.who, early.kind, early.place) == (USER, "stops_early", len(talk.lines) - 1)
