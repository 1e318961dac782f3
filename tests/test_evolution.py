"""Pairs of plans, whose fault a failure is, and what a reflection makes of it."""

from collections import Counter
from dataclasses import replace

import pytest
from evolution_toy import GROUND, MAKE, PAIR, REFUSAL, SLICE, SLOW, made

from rods_jax.dialogue import Record
from rods_jax.evolution.attempt import (
    Tried,
    acceptance,
    agreement,
    complaints_of,
    likeness,
    without_duplicates,
)
from rods_jax.evolution.draft import base_of, task_of
from rods_jax.evolution.evolve import (
    Pace,
    plan_pairs,
)
from rods_jax.evolution.ledger import unwritten
from rods_jax.evolution.lineage import Lineage, Round, after_trying, is_settled, is_worse, score
from rods_jax.evolution.pairs import (
    Slice,
    coverage,
    difference,
    overlap,
    require_apart,
    require_pair,
    text_of,
)
from rods_jax.evolution.roles import (
    ALLOW,
    AVOID,
    REJECT,
    TASK,
    TRAJECTORY,
    Complaints,
    Verdict,
    counted,
    gist,
    reflect_by_rules,
)
from rods_jax.synthesis.errors import Rejected


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
    mute = (
        outcome("unreadable", "verifier: 3 unusable replies"),
        outcome("unreadable", "judge: 3 unusable replies", YES),
    )
    assert complaints_of(mute) == Complaints()
    written = replace(mute[0], task=None, detail="writer: 3 unusable replies")
    assert complaints_of([written]) == Complaints(task=("writer: 3 unusable replies",))
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
    apart = ("the user's words lack the customer's name", "the user's mood is the assistant's name")
    assert [*counted(apart)] == [*apart]


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


def test_letters_of_any_script_tell_tasks_apart():
    vera, rada = (made(replace(SLOW, words=f"Меня зовут {name}. My account is 12.")) for name in ("Вера", "Рада"))
    assert likeness(vera) != likeness(rada)
    assert likeness(vera) == likeness(made(replace(SLOW, words="Меня зовут Вера. My account is 7.")))


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
