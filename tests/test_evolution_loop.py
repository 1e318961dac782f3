"""Roles by imperfect rules, and the loop that keeps what did not do worse."""

import json
import random
from collections import Counter
from dataclasses import replace

import pytest
from evolution_toy import GROUND, MAKE, PACE, PAIR, SLOW, at_first_go, made

from rods_jax import replay
from rods_jax.config import ReplaySettings
from rods_jax.environments.helpdesk.domain import HELPDESK
from rods_jax.environments.helpdesk.faults import is_held_out
from rods_jax.environments.helpdesk.tasks import make_task
from rods_jax.environments.helpdesk.world import composition_of
from rods_jax.evolution.attempt import (
    Checking,
    Tried,
    acceptance,
    agreement,
    attempt,
    without_duplicates,
)
from rods_jax.evolution.author import accepted_tasks
from rods_jax.evolution.draft import base_of, read_draft, task_of
from rods_jax.evolution.evolve import (
    Pace,
    accepted,
    evolve,
    plan_pairs,
)
from rods_jax.evolution.gate import require_sound
from rods_jax.evolution.imperfect import make_imperfect, verify
from rods_jax.evolution.ledger import unwritten
from rods_jax.evolution.lineage import has_fallen
from rods_jax.evolution.roles import ALLOW, AVOID, REJECT, TRAJECTORY, Verdict
from rods_jax.evolution.slips import DUPLICATE, NO_OP, UNSOLVABLE, WRONG_GOAL, Rates, defects, write
from rods_jax.records import encode
from rods_jax.synthesis.author import Order, orders_of
from rods_jax.synthesis.courier.dispatch import at_once
from rods_jax.synthesis.courier.lines import storable
from rods_jax.synthesis.errors import Rejected
from rods_jax.task_files import TaskFileError, content_hash, read_tasks, write_tasks


# ------------------------------------------------------------------------------------ imperfect roles
@pytest.mark.parametrize("kind", [*Rates().slips])
def test_each_slip_is_found_by_the_gate_or_known_to_the_truth(kind):
    rates = Rates(slips={kind: 1.0})
    pair, found = plan_pairs(GROUND, MAKE, Pace(pairs=4), unwritten())[0][0], Counter()
    for number in range(12):
        base = base_of(GROUND, f"{kind}/{number}")
        task = task_of(GROUND, base, write(rates, pair, base, random.Random(number)))
        try:
            require_sound(GROUND, task)
            found.update(defects(GROUND, task) or {"sound"})
        except Rejected as rejected:
            found[rejected.error] += 1
    by_gate = {WRONG_GOAL: "gold_fails", UNSOLVABLE: "gold_call_fails", NO_OP: "null_passes", DUPLICATE: "sound"}
    assert found == {by_gate.get(kind, kind): 12}


def test_a_world_that_the_journal_would_change_ends_it_before_anybody_writes():
    def base(rng):
        world = GROUND.base(rng)
        return replace(world, options={**world.options, "rooms": (1, 2)})

    def make(backends):
        return MAKE(backends)._replace(write=lambda *given: pytest.fail("a writer was asked"))

    found = evolve(GROUND._replace(base=base), make, Pace(pairs=4, attempts=1, rounds=1), unwritten())
    assert found.rounds[0].outcomes == () and found.ended == (
        "nothing could be tried in a whole round: ValueError: the ground's base holds a tuple or a key that is not a "
        "string where JSON has none"
    )


def test_a_writer_that_is_told_slips_rarely_and_one_that_does_not_slip_writes_sound_tasks():
    told = replace(PAIR, synthesis=(f"{AVOID}the user's words give the solution away",))
    slipped = {}
    for pair in (PAIR, told):
        tasks = [
            task_of(
                GROUND,
                base := base_of(GROUND, str(n)),
                write(Rates(slips={"leaky": 0.5}), pair, base, random.Random(n)),
            )
            for n in range(60)
        ]
        slipped[pair.synthesis] = sum("leaky" in defects(GROUND, task) for task in tasks)
        assert not any(is_held_out(composition_of(task)) for task in tasks)
    assert slipped[PAIR.synthesis] > 20 and slipped[told.synthesis] < 6


def test_verifiers_follow_their_rubric():
    rates, leaky = (
        Rates(taste=1.0),
        replace(made(SLOW), turns=(replace(made(SLOW).turns[0], user=SLOW.words + " It must be the speed."),)),
    )
    assert verify(GROUND, rates, PAIR, made(SLOW)) == Verdict(False, "the task is too short")
    mild = replace(PAIR, rubric=(f"{ALLOW}the task is too short", f"{REJECT}the user's words give the solution away"))
    assert verify(GROUND, rates, mild, made(SLOW)).accepted
    assert verify(GROUND, Rates(seen=1.0), mild, leaky).reason == "the user's words give the solution away"


def test_an_attempt_follows_from_its_unit_alone():
    pair = plan_pairs(GROUND, MAKE, Pace(pairs=4), unwritten())[0][0]
    once, again = (attempt(GROUND, MAKE({}), pair, "unit", Checking()) for _ in range(2))
    assert once == again and once.task is not None
    assert attempt(GROUND, MAKE({}), pair, "another", Checking()) != once


def test_a_task_may_be_tried_again_where_only_the_dialogue_was_bad():
    roles, played = MAKE({}), []

    def judge(pair, task, record):
        played.append(record.rollout)
        return Verdict(False, "rude", TRAJECTORY) if len(played) < 3 else Verdict(True)

    roles = roles._replace(write=lambda *_: SLOW, verify=lambda *_: Verdict(True), judge=judge)
    ground = GROUND._replace(base=lambda rng: GROUND.base(random.Random(0)))
    assert attempt(ground, roles, PAIR, "u", Checking(trials=2)).error == "judged_trajectory" and played == [0, 1]
    assert attempt(ground, roles, PAIR, "u", Checking(trials=2)).error == "" and played == [0, 1, 0]


# -------------------------------------------------------------------------------------------- loop
@pytest.fixture(scope="module")
def evolved():
    return evolve(GROUND, MAKE, Pace(pairs=4, attempts=16, rounds=4, patience=4, tasks=20), unwritten())


def test_the_loop_raises_acceptance_agreement_and_soundness(evolved):
    first, last = evolved.rounds[0].outcomes, evolved.rounds[-1].outcomes
    assert acceptance(first) < 0.4 and acceptance(last) > 0.6  # pinned by the seed
    assert agreement(last) > agreement(first)
    sound = [sum(not defects(GROUND, task) for task in accepted(some)) / len(accepted(some)) for some in (first, last)]
    assert sound[0] < 0.9 < sound[1]
    assert evolved.ended == "" and len(evolved.tasks) >= 20
    assert all(one.pair.version > 0 for one in evolved.lineages)


def test_what_is_accepted_is_gated_apart_and_never_held_out(evolved):
    for task in evolved.tasks:
        require_sound(GROUND, task)
        assert not is_held_out(composition_of(task))
    assert (
        len({content_hash(task) for task in evolved.tasks})
        == len({task.id for task in evolved.tasks})
        == len(evolved.tasks)
    )


def test_tasks_that_differ_in_the_users_calls_alone_would_share_an_id_and_are_one():
    """Both are sound, and one world's agent does the same in them."""
    one, other = made(SLOW), made(replace(SLOW, gold=SLOW.gold[::-1]))
    for task in (one, other):
        require_sound(GROUND, task)
    assert one != other and one.id == other.id
    found = without_duplicates([Tried("p00", 0, one), Tried("p00", 0, other)], ())
    assert [outcome.error for outcome in found] == ["", DUPLICATE]


def test_a_draft_that_no_task_file_could_hold_is_refused_as_it_is_read(tmp_path):
    deep = json.loads("[" * 70 + "]" * 70)
    with pytest.raises(ValueError, match="nested more than 64 levels deep"):
        read_draft(json.dumps(encode(replace(SLOW, facts={**SLOW.facts, "x": deep}))))
    deep = json.loads("[" * 60 + "]" * 60)
    draft = read_draft(json.dumps(encode(replace(SLOW, facts={**SLOW.facts, "x": deep}))))
    write_tasks(tmp_path / "tasks.jsonl", [made(draft)])
    assert read_tasks(tmp_path / "tasks.jsonl") == (made(draft),)


PERFECT = Rates(slips={}, taste=0.0, neglects=0.0, misreports=0.0)


def perfect_but(**changes):
    """Roles that make no mistake, with some of them replaced."""
    return lambda backends: make_imperfect(GROUND, backends, PERFECT)._replace(**changes)


def test_a_reflection_that_does_harm_is_taken_back_and_told_so():
    told = []

    def write_(pair, base, rng):
        if "Hurry." in pair.synthesis:
            raise Rejected("unreadable", "in a hurry")
        return write(PERFECT, pair, base, rng)

    def reflect(pair, evidence, worse):
        told.append(worse)
        return pair if worse else replace(pair, synthesis=(*pair.synthesis, "Hurry."))

    found = evolve(
        GROUND, perfect_but(write=write_, reflect=reflect), Pace(pairs=4, attempts=4, rounds=3, tasks=4), unwritten()
    )
    assert [acceptance(one.outcomes) > 0.5 for one in found.rounds] == [True, False, True]
    assert all((one.pair.version, one.latest, one.rolled_back) == (0, 1, 1) for one in found.lineages)
    assert told == [()] * 4 + [("Hurry.",)] * 4 and len(found.tasks) >= 4


def test_a_domain_that_breaks_is_counted_and_nothing_is_recorded_where_all_of_it_does():
    def live(world):
        raise ZeroDivisionError("no world")

    pair, pace = PAIR, Pace(pairs=4, attempts=2, tasks=1)
    found = attempt(GROUND._replace(live=live), MAKE({}), pair, "unit", Checking())
    assert (found.error, found.detail) == ("pipeline_exception", "ZeroDivisionError: no world")
    found = evolve(GROUND._replace(live=live), perfect_but(), pace, unwritten())
    assert found.ended == "nothing could be tried in a whole round: ZeroDivisionError: no world"
    assert found.rounds[0].outcomes == ()


def test_a_pair_that_fails_after_the_pilot_pauses_and_the_others_go_on():
    calls = Counter[str]()

    def write_(pair, base, rng):
        calls[pair.name] += 1
        if pair.name == "p01" and calls["p01"] > 6:
            raise Rejected("unreadable", "tired")
        return write(PERFECT, pair, base, rng)

    found = evolve(GROUND, perfect_but(write=write_), Pace(pairs=4, attempts=6, rounds=1, tasks=40), unwritten())
    assert "p01" in found.paused and len(found.tasks) >= 40 and found.ended == ""
    assert calls["p01"] < calls["p00"] + calls["p02"]
    lineage, poor = found.lineages[0], (Tried("p00", 0, None, "gold_fails"),) * 6
    assert has_fallen(lineage, poor, 6, 3.0)
    assert not has_fallen(lineage, poor[:0], 6, 3.0)


def test_workers_change_nothing():
    assert at_first_go(replace(PACE, rounds=2, workers=4)) == at_first_go(replace(PACE, rounds=2))


def test_an_author_hands_out_accepted_tasks_of_the_seeds_family_each_once(evolved, tmp_path):
    path = tmp_path / "tasks.jsonl"
    write_tasks(path, evolved.tasks)
    author = accepted_tasks(HELPDESK, path)
    family = evolved.tasks[0].category
    seed = make_task(next(composition_of(task) for task in evolved.tasks if task.category == family), random.Random(0))
    known, made_ = frozenset[str](), []
    while (result := author(Order(seed), step=1, rng=random.Random(0), known_hashes=known)).candidate:
        made_.append(result.candidate)
        known |= {content_hash(result.candidate)}
    assert {one.id for one in made_} == {task.id for task in evolved.tasks if task.category == family}
    assert made_[0].ancestry == (seed.id,) and made_[0].world.options["checker"]
    assert [one.error for one in result.rejections] == ["none_left"]
    # They travel to the pool as any variant does.
    (dispatch,) = at_once(author, run_seed=0)(orders_of([seed], ()), 1, frozenset())
    assert storable(HELPDESK, dispatch.result.candidate) is None
    outcome = replay.Outcome(seed.id, 1, dispatch.result.candidate)
    pool = replay.stage(replay.create([seed], ReplaySettings(capacity=4)), [outcome], 0, 0)
    assert [one.task for one in pool.staged] == [dispatch.result.candidate]
    path.write_text("")
    with pytest.raises(TaskFileError, match="holds no task"):
        accepted_tasks(HELPDESK, path)


def test_an_author_hashes_each_accepted_task_once(monkeypatch, tmp_path):
    hashed = []
    monkeypatch.setattr("rods_jax.evolution.author.content_hash", lambda task: hashed.append(task.id) or task.id)
    write_tasks(tmp_path / "tasks.jsonl", [replace(made(SLOW), id=str(number)) for number in range(5)])
    author = accepted_tasks(HELPDESK, tmp_path / "tasks.jsonl")
    given = [author(Order(made(SLOW)), step=1, rng=random.Random(n), known_hashes=frozenset("0")) for n in range(9)]
    assert hashed == [*"01234"] and {one.candidate.id for one in given} <= {*"1234"}
