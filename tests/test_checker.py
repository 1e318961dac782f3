"""Checkers as data, and the gate that every authored task passes."""

import random
from dataclasses import replace

import pytest
from evolution_toy import ACCOUNT, BASE, GROUND, OWN, REFUSAL, SLOW, agent, made, user

from rods_jax.dialogue import Said, play
from rods_jax.environments import toolkit
from rods_jax.environments.checker import (
    ABSENT,
    Assertion,
    Checker,
    End,
    Goal,
    check_names,
    checker_of,
    checker_option,
    decided,
    end_of,
    unknown_names,
    value_at,
)
from rods_jax.environments.conversation import AGENT, USER, Line, Reason, Spoken, scripted
from rods_jax.environments.episode import start_episodes
from rods_jax.environments.helpdesk.domain import HELPDESK
from rods_jax.evolution.draft import Draft, gold_of, read_draft, task_of
from rods_jax.evolution.gate import ORDER, REPEAT, require_sound, run
from rods_jax.evolution.ground import Act, Live, of_toolkit
from rods_jax.records import RecordError
from rods_jax.synthesis.errors import Rejected
from rods_jax.synthesis.patch import Patch
from rods_jax.task_files import read_tasks, write_tasks
from rods_jax.types import Action, Call, Observation, World


def refused(draft: Draft, ground=GROUND) -> tuple[str, str]:
    """(error, detail) of the gate."""
    with pytest.raises(Rejected) as rejected:
        require_sound(ground, task_of(ground, BASE, draft))
    return rejected.value.error, rejected.value.detail


def with_checker(draft: Draft, **changes) -> Draft:
    return replace(draft, checker=replace(draft.checker, **changes))


# ---------------------------------------------------------------------------------------- checkers
BEFORE = {"Box": {"lid": "shut", "coins": [1, 2], "owner": {"name": "ann", "age": 3}}}


def end(after=BEFORE, calls=(), words=()) -> End:
    return End(BEFORE, after, tuple(calls), tuple(words))


def test_each_part_is_a_check_and_the_last_is_all_of_them():
    checker = Checker(
        (Goal(("Box", "lid"), "open"), Goal(("Box", "coins", "1"), 2)),
        (Assertion("called", {"tool": "lift"}),),
        ("Key",),
    )
    opened = {"Box": BEFORE["Box"] | {"lid": "open"}}
    assert len(check_names(checker)) == 5
    assert decided(checker, end()) == (False, True, False, False, False)
    assert decided(checker, end(opened, [(AGENT, Call("lift"))], ["the KEY is here"])) == (True,) * 5
    assert decided(checker, end(opened, [(USER, Call("push"))], ["the key"])) == (True, True, False, True, False)


def test_what_must_be_kept_fails_all_of_it_but_the_goals_own_paths():
    goal = (Goal(("Box", "lid"), "open"),)
    opened = {"Box": BEFORE["Box"] | {"lid": "open"}}
    robbed = {"Box": opened["Box"] | {"coins": [1]}}
    older = {"Box": opened["Box"] | {"owner": {"name": "ann", "age": 4, "new": None}}}
    kept = Checker(goal, kept=(("Box",),))
    assert decided(kept, end(opened)) == (True, True)
    assert decided(kept, end(robbed)) == decided(kept, end(older)) == (True, False)
    assert decided(Checker(goal, kept=(("Box", "coins"),)), end(older)) == (True, True)
    second = Goal(("Box", "coins", "1"), 7)  # a goal inside a list is apart, its neighbours are not
    paid, robbed = ({"Box": BEFORE["Box"] | {"coins": coins}} for coins in ([1, 7], [2, 7]))
    assert BEFORE["Box"]["coins"] == [1, 2]
    assert decided(Checker((second,), kept=(("Box",),)), end(paid)) == (True, True)
    assert decided(Checker((second,), kept=(("Box",),)), end(robbed)) == (True, False)
    refusal = Checker(said=("no",), refusal=True)
    assert decided(refusal, end(words=["No!"])) == (True, True)
    assert decided(refusal, end(opened, words=["No!"])) == (True, False)


def test_an_assertion_may_have_to_fail_and_one_that_breaks_does_not_hold():
    predicates = {"has": lambda end, coin: coin in end.after["Box"]["coins"], "breaks": lambda end: 1 / 0}
    holds = Checker(assertions=(Assertion("has", {"coin": 1}), Assertion("has", {"coin": 3}, holds=False)))
    assert decided(holds, end(), predicates) == (True, True, True)
    broken = Checker(assertions=(Assertion("breaks"), Assertion("breaks", holds=False), Assertion("nowhere")))
    assert decided(broken, end(), predicates) == (False, False, False, False)


@pytest.mark.parametrize(
    "checker, sentence",
    [
        (Checker((Goal(("Box", "hinge"), 1),)), "the state has no Box.hinge"),
        (Checker((Goal(("Box", "coins", "2"), 1),)), "the state has no Box.coins.2"),
        (Checker((Goal((), 1),)), "the state has no empty path"),
        (Checker(said=("a",), kept=(("Bag",),)), "the state has no Bag"),
        (Checker(assertions=(Assertion("flies"),)), "there is no predicate flies"),
        (
            Checker(assertions=(Assertion("called", {"name": "x"}),)),
            "the predicate called: missing a required argument: 'tool'",
        ),
        (Checker(said=(" ",)), "nothing is to be said in one of its sayings"),
        (Checker((Goal(("Box", "lid"), 1),), refusal=True), "a refusal states nothing"),
        (Checker(), "the checker checks nothing"),
    ],
)
def test_what_names_nothing_is_named(checker, sentence):
    assert next(unknown_names(checker, BEFORE)) == sentence


def test_a_path_that_no_list_could_have_is_absent():
    for key in ("2", "-1", "x", "9" * 5000):
        assert value_at(BEFORE, ("Box", "coins", key)) is ABSENT
    assert value_at(BEFORE, ("Box", "coins", "1")) == 2 and value_at(BEFORE, ("Box", "lid", "0")) is ABSENT


def test_a_checker_travels_in_its_task_and_a_broken_one_names_its_field(tmp_path):
    task = made(SLOW)
    write_tasks(tmp_path / "tasks.jsonl", [task])
    (read,) = read_tasks(tmp_path / "tasks.jsonl")
    assert checker_of(read) == SLOW.checker and gold_of(read) == SLOW.gold
    assert checker_of(replace(task, world=replace(task.world, options={}))) is None
    option = checker_option(SLOW.checker)
    option["checker"]["goal"][0].pop("value")
    with pytest.raises(RecordError, match=r"missing field options.checker.goal\[0\].value"):
        checker_of(replace(task, world=replace(task.world, options=option)))


# -------------------------------------------------------------------------------------------- gate
@pytest.mark.parametrize("draft", [SLOW, REFUSAL])
def test_a_sound_task_passes_the_gate(draft):
    require_sound(GROUND, made(draft))
    assert (
        made(draft).world.options["faults"]
        == {"slow": ["low_speed", "busy_channel"], "no_internet": ["broken_port"]}[draft.category]
    )


BAD = {
    "unknown_name": [
        (replace(SLOW, gold=(agent("fly"),)), "there is no tool fly of the agent"),
        (replace(SLOW, gold=(agent("change_channel"),)), "there is no tool change_channel of the agent"),
        (replace(SLOW, gold=(agent("set_speed", colour="red"),)), "set_speed has no argument colour"),
        (with_checker(SLOW, goal=(Goal((*OWN, "colour"), 1),)), f"the state has no {'.'.join(OWN)}.colour"),
        (with_checker(SLOW, assertions=(Assertion("fast"),)), "there is no predicate fast"),
        (replace(SLOW, patches=(Patch("Desk", ("colour",), 1),)), "a patch fits nowhere: Desk.colour: no such field"),
        (replace(SLOW, category="loud"), "there is no category loud"),
        (replace(SLOW, gold=()), "the task has no checker, or asks for nothing"),
    ],
    "gold_call_fails": [
        (replace(SLOW, gold=(*SLOW.gold, agent("lift_suspension"))), "the gold call lift_suspension fails: Error: status active, owes 0"),
    ],
    "gold_fails": [
        (replace(SLOW, gold=SLOW.gold[:1]), "the checker refuses the gold: Home.channel is not 'free'"),
        (replace(SLOW, gold=(*SLOW.gold, agent("add_credit", amount=5))), "the checker refuses the gold: something else has changed"),
        (with_checker(SLOW, said=("done",), assertions=(Assertion("called", {"tool": "run_test"}),)),
         "the checker refuses the gold: called does not hold as it should"),
    ],
    "null_passes": [(with_checker(SLOW, goal=(Goal((*OWN, "cap"), "off"),), assertions=()), "the checker accepts that nothing was done")],
    "prefix_passes": [
        (with_checker(SLOW, goal=SLOW.checker.goal[:1], assertions=()), "the checker accepts the first 1 calls of the gold alone"),
        (replace(SLOW, gold=(*SLOW.gold, user("run_test"))), "the checker accepts the first 2 calls of the gold alone"),
    ],
    "perturbed_passes": [
        (with_checker(SLOW, goal=SLOW.checker.goal[1:], assertions=()), "the checker accepts the gold without set_speed"),
        (replace(with_checker(SLOW, assertions=(), goal=(*SLOW.checker.goal, Goal((*OWN, "owes"), 0)), kept=()),
                 gold=(agent("add_credit", amount=5), *SLOW.gold)), "the checker accepts the gold without add_credit"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("error, draft, detail", [(error, *one) for error, some in BAD.items() for one in some])
def test_the_gate_says_what_is_wrong(error, draft, detail):
    assert refused(draft) == (error, detail)


def test_a_checker_that_wants_an_order_is_refused_where_another_ends_the_same():
    def speed_first(end) -> bool:
        return [call.name for _, call in end.calls][:1] == ["set_speed"]

    strict = with_checker(SLOW, assertions=(*SLOW.checker.assertions, Assertion("speed_first")))
    ground = GROUND._replace(predicates={**GROUND.predicates, "speed_first": speed_first})
    assert refused(strict, ground) == (
        ORDER,
        "the checker refuses another order of the gold that ends in the same state",
    )


def test_a_world_that_plays_differently_each_time_is_refused():
    plays = iter(range(1000))

    def live(world) -> Live:
        inner, number = GROUND.live(world), next(plays)

        def call(who, one) -> Observation:
            return replace(inner.call(who, one), text=f"play {number}")

        return Live(call, inner.state)

    assert refused(SLOW, GROUND._replace(live=live)) == (REPEAT, "two plays of the gold differ")


def test_drafts_are_read_strictly_and_no_text_is_run():
    with pytest.raises(ValueError, match="the task: missing field words"):
        read_draft('{"category": "slow"}')
    with pytest.raises(ValueError, match="the task, column 1: not JSON"):
        read_draft("__import__('os').system('x')")
    with pytest.raises(Rejected, match="measured"):  # a composition that is held out
        task_of(GROUND._replace(is_measured=lambda task: True), BASE, SLOW)


# --------------------------------------------------------------------------------- where it is used
def test_the_help_desk_decides_such_a_task_by_its_checker():
    def played(*actions: Action):
        batch = start_episodes(HELPDESK, [made(SLOW)])
        for action in actions:
            answer = batch.act({0: action})[0]
        return answer

    speed = Action(calls=(Call("set_speed", {"account": ACCOUNT, "speed": "full"}),))
    channel, test = Action(answer="Please change the channel."), Action(answer="Please test the internet.")
    done = played(channel, speed, test)
    assert (done.passed, done.ended) == ((True,) * 4, Reason.USER_STOP)
    robbed = played(Action(calls=(Call("add_credit", {"account": ACCOUNT, "amount": 1}),)), channel, speed, test)
    assert robbed.passed == (True, True, True, False)
    assert played(Action(answer="What is your account?")).messages[0].content == f"My account is {ACCOUNT}."
    left = played(channel, test, test)
    assert left.passed == (False, True, False, False) and left.blame == AGENT


class Lamp:
    """A lamp."""

    def __init__(self, on: bool = False, level: float = 0.0):
        self.on, self.level = on, level

    def dim(self, level: float) -> str:
        """Sets its level."""
        self.level = level
        return "done"

    def switch(self, on: bool) -> str:
        """Switches it."""
        self.on = on
        return "done"


def test_a_user_without_the_fact_cannot_tell_its_account():
    batch = start_episodes(HELPDESK, [made(replace(SLOW, facts={}))])
    assert batch.act({0: Action(answer="What is your account?")})[0].messages[0].content == "I do not know it."


def test_any_python_classes_can_be_a_ground():
    ground = of_toolkit(toolkit.domain("lamps", {"Lamp": Lamp}), lambda rng: World(("Lamp",), {"Lamp": {"on": False}}))
    switch = Call("switch", {"on": True})
    draft = Draft("base", "It is dark.", {}, (), (Act(AGENT, switch),), Checker((Goal(("Lamp", "on"), True),)))
    task = task_of(ground, ground.base(random.Random(0)), draft)
    require_sound(ground, task)
    assert run(ground, task, gold_of(task)).outputs == ("done",)
    assert ground.live(task.world).call(USER, switch).ok is False
    # It is played as a conversation, which the checker decides.
    domain = ground.played_with(scripted([Spoken("It is dark."), Spoken("Thanks. ###STOP###")]))
    for calls, passed in (((switch,), (True, True)), ((), (False, False))):
        said = iter([*(Said("", Action(calls=(call,))) for call in calls), Said("Done.", Action(answer="Done."))])
        assert play(domain, task, 0, lambda messages: next(said)).rods == passed


@pytest.mark.parametrize("level", [5.0, 1e17])  # 1e17 + 1 == 1e17: the same call is no perturbation
def test_a_number_of_any_size_can_be_gold(level):
    world = World(("Lamp",), {"Lamp": {"level": 0.0}})
    ground = of_toolkit(toolkit.domain("lamps", {"Lamp": Lamp}), lambda rng: world)
    dim = Act(AGENT, Call("dim", {"level": level}))
    checker = Checker((Goal(("Lamp", "level"), level),))
    require_sound(ground, task_of(ground, world, Draft("base", "Dim it.", {}, (), (dim,), checker)))


def test_a_greeting_says_nothing():
    assert end_of({}, {}, (Line(AGENT, "technician"), Line(AGENT, "hello"))).words == ("hello",)
