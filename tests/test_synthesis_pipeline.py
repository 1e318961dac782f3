"""Gates refuse what they must; authored tasks and variants keep what the pipeline promises."""

import random
import re
from collections import Counter
from dataclasses import replace

import pytest
from synthesis_toy import TASK, TOY

from rods_jax.environments.helpdesk.domain import HELPDESK
from rods_jax.environments.helpdesk.tasks import build
from rods_jax.environments.mixture import mixture
from rods_jax.environments.protocol import STRATA
from rods_jax.environments.scoring import turn_passed, turns_passed
from rods_jax.environments.workplace import WORKPLACE
from rods_jax.synthesis import critique as gates
from rods_jax.synthesis.pipeline import RULE_BASED, author_tasks, synthesize
from rods_jax.synthesis.profile import extract_profile, profile_match
from rods_jax.synthesis.values import atoms, fields, mentions, parse_output
from rods_jax.types import Call, Turn


# -------------------------------------------------------------------------------------- gates
def with_turn(index, **changes):
    turns = list(TASK.turns)
    turns[index] = replace(turns[index], **changes)
    return replace(TASK, turns=tuple(turns))


def test_a_good_task_passes_every_gate():
    profile = extract_profile(TOY, TASK)
    assert gates.critique(TOY, TASK, (*gates.GATES, gates.has_profile(profile), gates.is_new(()))) is None


@pytest.mark.parametrize(
    ("gate", "task"),
    [
        (gates.available_tools, with_turn(2, released_tools=("add_book",))),  # used two turns before
        (gates.available_tools, replace(TASK, world=replace(TASK.world, classes=("Library",)))),
        (gates.available_tools, with_turn(2, gold=(Call("no_such_tool"),))),
        (gates.available_tools, with_turn(2, released_tools=tuple(TOY.tools))),  # none left at the start
        (gates.modest_arguments, with_turn(0, gold=(Call("add_book", {"title": "x" * 201}),))),
        (gates.modest_arguments, with_turn(0, gold=(Call("add_book", {"title": {"a": [0] * 6}}),))),
        (gates.distinct_calls, with_turn(2, gold=(Call("deposit_cash", {"amount": 9}),) * 2)),
        (gates.plain_queries, with_turn(2, user="Use deposit_cash.")),
        (gates.plain_queries, with_turn(2, user="请用deposit_cash存钱")),
        (gates.plain_queries, with_turn(2, user=" ")),
        (gates.executable, with_turn(1, gold=(Call("compute_fine", {"book_id": 1}),))),
        (gates.silence_fails, replace(TASK, turns=(Turn("Hello."),))),
        (gates.is_new({gates.content_hash(TASK)}), replace(TASK, id="other", ancestry=("x",))),
        (gates.has_profile(extract_profile(TOY, TASK)), replace(TASK, turns=TASK.turns[:2])),
    ],
)
def test_each_gate_refuses_what_it_must(gate, task):
    assert isinstance(gate(TOY, task), str)
    assert gate(TOY, TASK) is None or gate.__name__ == "unseen"


def test_a_tool_with_an_odd_name_is_found_in_a_query():
    odd = TOY._replace(tools={"c++_run": next(iter(TOY.tools.values()))})
    assert gates.plain_queries(odd, with_turn(2, user="Use c++_run.")) == "turn 2 names c++_run"
    assert gates.plain_queries(odd, with_turn(2, user="Use cc_run.")) is None


def test_gold_must_pass_on_a_world_that_is_not_deterministic():
    serial = iter(range(1000))

    def fickle(world):
        return TOY.simulator(replace(world, state={**world.state, "Till": {"balance": next(serial)}}))

    assert "gold fails in turn" in gates.gold_passes(TOY._replace(simulator=fickle), TASK)


def test_content_hash_ignores_identity_and_sees_content():
    same = replace(TASK, id="x", scenario="y", ancestry=("z",))
    assert gates.content_hash(TASK) == gates.content_hash(same)
    others = [with_turn(0, user="Hi"), with_turn(2, gold=()), with_turn(2, released_tools=("deposit_cash",))]
    others += [replace(TASK, world=replace(TASK.world, state={})), replace(TASK, category="long_context")]
    assert len({gates.content_hash(task) for task in (TASK, *others)}) == 6


# ------------------------------------------------------------------------------------- author
@pytest.fixture(scope="module")
def authored():
    return author_tasks(WORKPLACE, count=200, rng=random.Random(0))


def test_the_author_keeps_to_its_dials(authored):
    assert Counter(task.category for task in authored) == dict.fromkeys(STRATA, 50)
    assert len({task.id for task in authored}) == len({task.scenario for task in authored}) == 200
    assert all(("long_context" in task.id) == ("long_context" in task.world.options) for task in authored)
    profiles = [extract_profile(WORKPLACE, task) for task in authored]
    assert {sum(map(bool, profile.calls_per_turn)) for profile in profiles} == {2, 3, 4}
    assert {count for profile in profiles for count in profile.calls_per_turn} == {0, 1, 2}
    assert {len(profile.classes) for profile in profiles} == {1, 2}
    depths = Counter(profile.depth for profile in profiles)
    assert set(depths) == {1, 2, 3} and min(depths.values()) > 40


def test_gold_passes_and_silence_fails(authored):
    for task in authored:
        gold = [turn.gold for turn in task.turns]
        assert all(turns_passed(WORKPLACE, task, gold, turn_passed)), task.id
        silent = turns_passed(WORKPLACE, task, [()] * len(gold), turn_passed)
        assert silent == tuple(not turn.gold for turn in task.turns), task.id


def test_no_gold_turn_can_be_skipped(authored):
    for task in authored:
        for index, turn in enumerate(task.turns):
            if turn.gold:
                calls = [other.gold if at != index else () for at, other in enumerate(task.turns)]
                assert not turns_passed(WORKPLACE, task, calls, turn_passed)[index], task.id


def assert_every_value_is_told(domain, task):
    """Each string and number of a gold call stands in user text so far or in an earlier output."""
    simulator = domain.simulator(task.world)
    text, returned = "", []
    for turn in task.turns:
        text += "\n" + turn.user
        for call in turn.gold:
            for value in call.arguments.values():
                was_returned = all(atom in returned for atom in atoms(value))
                assert mentions(text, value) or was_returned, (task.id, call)
            returned += [value for _, value in fields(parse_output(simulator.call(call).text))]


def test_every_value_is_said_or_was_returned(authored):
    for task in authored:
        assert_every_value_is_told(WORKPLACE, task)


def test_queries_hold_no_identifier(authored):
    for task in authored:
        for turn in task.turns:
            assert turn.user and not re.search(r"\w_\w|[{}]", turn.user), turn.user


def test_what_is_withheld_is_withheld(authored):
    for task in authored:
        empty = [index for index, turn in enumerate(task.turns) if not turn.gold]
        if task.category in ("base", "long_context"):
            assert not empty and not task.withheld_tools
            continue
        (index,) = empty
        recovery = task.turns[index + 1]
        names = {call.name for call in recovery.gold}
        if task.category == "missing_function":
            assert len(recovery.released_tools) == 1 and set(recovery.released_tools) <= names
        else:
            assert "a certain" in task.turns[index].user and not task.withheld_tools
            before = "\n".join(turn.user for turn in task.turns[: index + 1])
            values = [value for call in recovery.gold for value in call.arguments.values()]
            assert any(mentions(recovery.user, value) and not mentions(before, value) for value in values)


def test_authoring_is_deterministic_and_its_start_does_not_depend_on_the_count(authored):
    assert author_tasks(WORKPLACE, count=12, rng=random.Random(0)) == authored[:12]
    assert author_tasks(WORKPLACE, count=4, rng=random.Random(1)) != authored[:4]


def test_consecutive_ranges_share_no_id_and_no_scenario():
    rng = random.Random(0)
    first = author_tasks(WORKPLACE, count=6, rng=rng)
    second = author_tasks(WORKPLACE, count=6, rng=rng, first_index=6)
    both = first + second
    assert len({task.id for task in both}) == len({task.scenario for task in both}) == 12
    assert [task.scenario for task in both] == [f"{WORKPLACE.name}_{index}" for index in range(12)]
    assert [task.category for task in both] == list(STRATA) * 3  # in turn, across the seam too
    assert both == author_tasks(WORKPLACE, count=12, rng=random.Random(0))
    assert first == author_tasks(WORKPLACE, count=6, rng=random.Random(0), first_index=0)


def test_weights_make_tools_rare():
    def used(weight):
        weights = {name: weight for name in WORKPLACE.tools if name.startswith("delete_")}
        rng = random.Random(0)
        tasks = author_tasks(WORKPLACE, count=40, rng=rng, tool_weights=weights, chain_length=(1, 1))
        calls = [call.name for task in tasks for turn in task.turns for call in turn.gold]
        return sum(name.startswith("delete_") for name in calls) / len(calls)

    assert used(0.0) == 0 < used(1.0) and used(0.1) < used(1.0) / 2


def test_an_author_needs_states_and_feasible_dials():
    with pytest.raises(ValueError, match="toy has no sample_state"):
        author_tasks(TOY._replace(sample_state=None), count=1, rng=random.Random(0))
    with pytest.raises(RuntimeError, match="no base task after 200 profiles: no_pattern"):
        none = dict.fromkeys(TOY.tools, 0)
        author_tasks(TOY, count=1, rng=random.Random(0), categories=("base",), tool_weights=none)


# ----------------------------------------------------------------------------------- variants
def test_variants_keep_profile_scenario_and_lineage(authored):
    known = {gates.content_hash(task) for task in authored}
    variants = 0
    for index, seed in enumerate(authored):
        result = synthesize(WORKPLACE, seed, rng=random.Random(index), step=7, known_hashes=known)
        task = result.candidate
        assert len(result.rejections) == 3 if task is None else len(result.rejections) < 3
        if task is None:
            continue
        variants += 1
        match = profile_match(extract_profile(WORKPLACE, task), extract_profile(WORKPLACE, seed))
        assert set(match.values()) == {1}, (seed.id, match)
        assert (task.scenario, task.ancestry) == (seed.scenario, (seed.id,))
        assert task.id == f"{seed.id}~7-{gates.content_hash(task)[:8]}"
        assert gates.content_hash(task) not in known
    assert variants >= 0.7 * len(authored)


def test_a_variant_of_a_variant_keeps_its_root(authored):
    rng = random.Random(0)
    child = synthesize(WORKPLACE, authored[0], rng=rng, step=1, known_hashes=()).candidate
    grandchild = synthesize(WORKPLACE, child, rng=rng, step=2, known_hashes=()).candidate
    assert grandchild.ancestry == (authored[0].id, child.id)
    assert grandchild.id.startswith(f"{authored[0].id}~2-")


def test_synthesis_is_deterministic_and_refuses_known_content(authored):
    first = synthesize(WORKPLACE, authored[3], rng=random.Random(5), step=1, known_hashes=())
    assert first == synthesize(WORKPLACE, authored[3], rng=random.Random(5), step=1, known_hashes=())
    known = {gates.content_hash(first.candidate)}
    again = synthesize(WORKPLACE, authored[3], rng=random.Random(5), step=1, known_hashes=known)
    assert "unseen" in [rejection.error for rejection in again.rejections]
    assert again.candidate != first.candidate


def test_rejections_are_records_and_blame_is_remembered():
    """Nothing can be lent from an empty library, and this one knows no other tool."""
    lend = Call("lend_book", {"book_id": 1, "borrower": "anna"})
    seed = replace(TASK, world=replace(TASK.world, classes=("Library",)), turns=(Turn("Lend.", (lend,)),))
    empty = TOY._replace(tools={"lend_book": TOY.tools["lend_book"]}, sample_state=lambda rng, classes: {"Library": {}})
    result = synthesize(empty, seed, rng=random.Random(0), step=1, known_hashes=())
    assert result.candidate is None
    assert [r.error for r in result.rejections] == ["vm_exec_failed", "no_pattern", "no_pattern"]
    assert result.rejections[0].functions == ("lend_book",)


def test_a_world_that_plays_by_itself_has_no_variants_whatever_gold_its_tasks_carry():
    """The desk's user and checks follow from the faults: words about another account would be scored by the old ones."""
    tasks = build(random.Random(0), max_faults=3, seeds=9, held_out=0, validation=0, practice=0).seeds
    seed = next(task for task in tasks if task.turns[0].gold)
    for domain, task in (
        (HELPDESK, seed),
        (mixture("both", [TOY, HELPDESK]), replace(seed, category=f"helpdesk/{seed.category}")),
    ):
        result = synthesize(domain, task, rng=random.Random(0), step=1, known_hashes=())
        assert result.candidate is None and [one.error for one in result.rejections] == ["no_pattern"] * 3
        assert "decides by checks of its own" in result.rejections[0].detail


def test_a_role_that_raises_is_a_counted_rejection():
    def broken(*_):
        raise KeyError("oops")

    roles = RULE_BASED._replace(rewrite=broken)
    result = synthesize(TOY, TASK, rng=random.Random(0), step=1, known_hashes=(), roles=roles)
    assert result.candidate is None
    assert [(r.attempt, r.error) for r in result.rejections] == [(n, "pipeline_exception") for n in range(3)]


# --------------------------------------------------------------------------------------- BFCL
def test_variants_of_real_tasks():
    pytest.importorskip("bfcl_eval", reason="needs the BFCL wheel")
    from rods_jax.environments.bfcl import bfcl_domain, load_tasks, split

    train, _ = split(load_tasks())
    domain = bfcl_domain(train)
    variants = 0
    for index, seed in enumerate(train[::16]):
        task = synthesize(domain, seed, rng=random.Random(index), step=1, known_hashes=()).candidate
        if task is None:
            continue
        variants += 1
        assert all(turns_passed(domain, task, [turn.gold for turn in task.turns], turn_passed)), task.id
        match = profile_match(extract_profile(domain, task), extract_profile(domain, seed))
        assert set(match.values()) == {1}, (seed.id, match)
        assert_every_value_is_told(domain, task)
        for turn in task.turns:
            names = {call.name for call in turn.gold if "_" in call.name}
            assert not any(name in turn.user for name in names)
    assert variants >= 15  # of 25
