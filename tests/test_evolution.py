"""Plans, roles by rules, whose fault a failure is, and the loop that keeps what did not do worse."""

import random
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
from evolution_toy import GROUND, PACE, at_first_go
from test_checker import REFUSAL, SLOW, made

from rods_jax import replay
from rods_jax.config import ReplaySettings
from rods_jax.dialogue import Record
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
    complaints_of,
    without_duplicates,
)
from rods_jax.evolution.author import accepted_tasks
from rods_jax.evolution.draft import base_of, task_of
from rods_jax.evolution.evolve import (
    Pace,
    accepted,
    evolve,
    plan_pairs,
)
from rods_jax.evolution.gate import require_sound
from rods_jax.evolution.imperfect import (
    DUPLICATE,
    NO_OP,
    UNSOLVABLE,
    WRONG_GOAL,
    Rates,
    defects,
    make_imperfect,
    verify,
    write,
)
from rods_jax.evolution.ledger import unwritten
from rods_jax.evolution.lineage import Lineage, Round, after_trying, has_fallen, is_settled, is_worse, score
from rods_jax.evolution.pairs import (
    PlanPair,
    Slice,
    coverage,
    difference,
    overlap,
    require_apart,
    require_pair,
    text_of,
)
from rods_jax.evolution.roles import ALLOW, AVOID, REJECT, TASK, TRAJECTORY, Complaints, Verdict, gist, reflect_by_rules
from rods_jax.synthesis.author import Order, orders_of
from rods_jax.synthesis.courier.dispatch import at_once
from rods_jax.synthesis.courier.lines import storable
from rods_jax.synthesis.errors import Rejected
from rods_jax.task_files import TaskFileError, content_hash, write_tasks

SLICE = Slice(("set_speed", "change_channel"), (GROUND.clauses[1],), "plain", (1, 2))
PAIR = PlanPair("p00", SLICE, ("Write.",), ("Play.",), ("Judge.",))
MAKE = partial(make_imperfect, GROUND)


# ------------------------------------------------------------------------------------------- pairs
def test_overlap_by_hand():
    other = Slice(("set_speed", "lift_cap"), (GROUND.clauses[1],), "hurried", (2,))
    # 8 features and 6: two tools, their pair, a clause, a style, depths; shared: a tool, the clause, a depth.
    assert overlap(SLICE, SLICE) == 1.0 and overlap(SLICE, other) == 3 / (7 + 6 - 3)
    assert require_apart(replace(PAIR, slice=other), [PAIR], 0.3).name == "p00"
    with pytest.raises(Rejected, match="overlaps: 30% of the slice is that of p00: choose other tools and clauses"):
        require_apart(replace(PAIR, slice=other), [PAIR], 0.29)


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"slice": replace(SLICE, tools=("fly",))}, "there is no tool 'fly'"),
        ({"slice": replace(SLICE, clauses=("Fly.",))}, "there is no clause 'Fly.'"),
        ({"slice": replace(SLICE, style="rude")}, "there is no style 'rude'"),
        ({"slice": replace(SLICE, depth=(0,))}, "a slice needs tools, and depths from 1 to 12"),
        ({"trial": ("x",) * 41}, "a plan has at most 40 lines of 600 characters"),
    ],
)  # fmt: skip
def test_a_pair_that_names_what_does_not_exist_is_refused(changes, sentence):
    with pytest.raises(Rejected, match=sentence):
        require_pair(GROUND, replace(PAIR, **changes))


def test_versions_can_be_compared_line_by_line():
    new = replace(PAIR, synthesis=("Write.", "Write well."), version=1)
    assert text_of(PAIR).splitlines()[:3] == [
        "[slice]",
        "tools: set_speed, change_channel",
        f"clauses: {GROUND.clauses[1]}",
    ]
    assert difference(PAIR, new) == "--- p00 version 0\n+++ p00 version 1\n@@ -7,0 +8 @@\n+Write well.\n"


@pytest.mark.parametrize("number", [4, 64])
def test_pairs_are_made_one_after_another_and_lie_apart(number):
    pairs, refusals, _ = plan_pairs(GROUND, MAKE, Pace(pairs=number), unwritten())
    assert [pair.name for pair in pairs] == [f"p{n:02}" for n in range(number)] and len(refusals) < 4
    assert max(overlap(a.slice, b.slice) for a in pairs for b in pairs if a is not b) <= 0.5
    named = {tool for pair in pairs for tool in pair.slice.tools}
    assert len(named) == min(3 * number, len(GROUND.domain.tools))


def test_a_planner_that_repeats_itself_is_told_and_counted():
    told = []

    def plan(name, earlier, refusals, rng):
        told.append(list(refusals))
        return replace(PAIR, name=name)

    pairs, refusals, _ = plan_pairs(
        GROUND, lambda backends: MAKE(backends)._replace(plan=plan), Pace(pairs=4), unwritten()
    )
    assert [pair.name for pair in pairs] == ["p00"]
    assert Counter(one.error for one in refusals) == {"overlaps": 9} and len(told[3]) == 2


def test_coverage_by_hand():
    found = coverage(GROUND, [made(SLOW), made(REFUSAL)])
    assert found == {"tools": 4 / 33, "tool_pairs": 2, "clauses": 0.0, "styles": 0.0, "depths": {"2": 2}}


# --------------------------------------------------------------------------------------- reflection
def record(passed: bool) -> Record:
    return Record("t", 0, (passed,), (passed,), passed, ((),), ())


def outcome(error="", detail="", verdict=None, judged=None, passed=None) -> Tried:
    trial = None if passed is None else record(passed)
    return Tried("p00", 0, made(SLOW), error, detail, verdict, judged, trial)


YES, NO = Verdict(True), Verdict(False, "short")
BAD_TASK, BAD_PLAY = Verdict(False, "leaky", TASK), Verdict(False, "rude", TRAJECTORY)
SOME = (
    outcome(verdict=YES, judged=YES, passed=True),
    outcome("null_passes", "nothing"),
    outcome("verifier", "short", NO, YES, True),  # refused, and nothing was wrong
    outcome("verifier", "empty", replace(NO, reason="empty"), BAD_TASK, True),  # refused rightly
    outcome("judged_task", "leaky", YES, BAD_TASK, True),
    outcome("judged_trajectory", "rude", YES, BAD_PLAY, False),
    outcome("checker", "served in vain", YES, YES, False),
    outcome("pipeline_exception", "no server"),
)


def test_failures_go_to_the_side_at_fault():
    assert complaints_of(SOME) == Complaints(
        task=("nothing", "empty", "leaky", "served in vain"),
        trajectory=("rude",),
        harsh=("short",),
        lax=("leaky", "served in vain"),
    )
    assert acceptance(SOME) == 1 / 8
    assert (
        agreement(SOME) == 2 / 5
    )  # of the first, the harsh one, the right refusal, the lax two; bad play tells nothing
    assert agreement(()) is None and score(SOME) == (1 / 8 + 2 / 5) / 2


def test_reflection_quotes_what_was_said_most_often():
    complaints = ("call 3 fails: no account 3", "call 7 fails: x", "leaky", "b", "c", "c")
    new = reflect_by_rules(PAIR, Complaints(task=complaints, lax=("leaky",), harsh=("short",)), worse=[f"{AVOID}c"])
    assert new.synthesis == ("Write.", f"{AVOID}call ... fails", f"{AVOID}leaky", f"{AVOID}b")
    assert new.rubric == ("Judge.", f"{ALLOW}short", f"{REJECT}leaky") and new.trial == PAIR.trial
    turned = reflect_by_rules(new, Complaints(harsh=("leaky",)), ())
    assert turned.rubric == ("Judge.", f"{ALLOW}short", f"{ALLOW}leaky")  # the later line takes the earlier one's place
    assert gist("the gold call 'x' of 12 fails: port broken") == "the gold call ... of ... fails"


def test_a_version_that_does_worse_is_taken_back_and_its_lines_are_kept_in_mind():
    good, bad = (outcome(verdict=YES, judged=YES, passed=True),) * 8, (outcome("gold_fails", "x"),) * 8
    first = after_trying(Lineage(PAIR), PAIR, good, 1.0)
    new = replace(PAIR, rubric=("Judge.", "Judge harder."), version=1)
    back = after_trying(first, new, bad, 1.0)
    assert (back.pair, back.outcomes, back.worse, back.rolled_back) == (PAIR, good, ("Judge harder.",), 1)
    assert after_trying(first, new, good, 1.0).pair == new
    assert after_trying(first, PAIR, good, 1.0).outcomes == good * 2  # the same version: more is known of it
    assert is_worse(bad, good, 1.0) and not is_worse(good, bad, 1.0) and not is_worse((), good, 1.0)


def test_a_pilot_ends_when_nothing_gets_better():
    def round_of(passing: int) -> Round:
        return Round((PAIR,), (SOME[0],) * passing + (outcome("gold_fails"),) * (10 - passing))

    assert not is_settled([round_of(n) for n in (3, 5, 6)], 2, 0.01)
    assert is_settled([round_of(n) for n in (6, 5, 6)], 2, 0.01)
    assert not is_settled([round_of(n) for n in (6, 5)], 2, 0.01)


def test_tasks_that_are_the_same_but_for_numbers_count_once():
    one = outcome()
    other = replace(one, task=task_of(GROUND, base_of(GROUND, "x"), _for(base_of(GROUND, "x"))))
    assert [found.error for found in without_duplicates([one, other, one], [])] == ["", "duplicate", "duplicate"]
    assert [found.error for found in without_duplicates([other], [one.task])] == ["duplicate"]
    known = frozenset({content_hash(one.task)})
    assert [found.error for found in without_duplicates([one, other], [], known)] == ["duplicate", ""]


def _for(base):
    """SLOW for another customer."""
    account = base.options["account"]
    others = [number for number in base.state["Desk"]["accounts"] if int(number) != account]
    old, kept = made(SLOW).world.options["account"], SLOW.checker.kept[0][-1]

    def moved(path):
        return tuple({str(old): str(account), kept: others[0]}.get(key, key) for key in path)

    checker = replace(
        SLOW.checker,
        goal=tuple(replace(goal, path=moved(goal.path)) for goal in SLOW.checker.goal),
        kept=tuple(map(moved, SLOW.checker.kept)),
    )
    gold = (
        SLOW.gold[0]._replace(call=replace(SLOW.gold[0].call, arguments={"account": account, "speed": "full"})),
        SLOW.gold[1],
    )
    patches = (SLOW.patches[0]._replace(path=moved(SLOW.patches[0].path)), SLOW.patches[1])
    return replace(SLOW, words=SLOW.words.replace(str(old), str(account)), patches=patches, gold=gold, checker=checker)


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
        return BAD_PLAY if len(played) < 3 else Verdict(True)

    roles = roles._replace(write=lambda *_: SLOW, verify=lambda *_: YES, judge=judge)
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
    standing, poor = found.lineages[0], (outcome("gold_fails"),) * 6
    assert has_fallen(standing, [replace(one, pair="p00") for one in poor], 6, 3.0)
    assert not has_fallen(standing, poor[:0], 6, 3.0)


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
    pool = replay.stage(replay.create([seed], ReplaySettings(capacity=4)), [outcome], 0)
    assert [one.task for one in pool.staged] == [dispatch.result.candidate]
    path.write_text("")
    with pytest.raises(TaskFileError, match="holds no task"):
        accepted_tasks(HELPDESK, path)
