"""Conversations: who speaks next, what ends them, what a group shares, and that the agent's tokens alone carry loss."""

import json
import threading
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from grpo_toy import objective_with
from rollout_toy import CODEC, SCRIPTED, V, compiled, gather, script

from rods_jax import grpo
from rods_jax.dialogue import Record, Said, Stop, play
from rods_jax.environments import toolkit
from rods_jax.environments.conversation import (
    AGENT,
    STOP,
    USER,
    Conversation,
    Heard,
    Line,
    Reason,
    Spoken,
    Talk,
    UserFailed,
    conversations,
    noise,
    scripted,
    view,
    without_thought,
)
from rods_jax.environments.episode import start_episodes
from rods_jax.environments.lanes import Lanes
from rods_jax.environments.protocol import Domain, Failure, Opening, Stratum
from rods_jax.records import decode, encode
from rods_jax.rewards import CALL_FAILED, CALLED, PARSE_ERROR, SPOKE, TURN_FAILED, TURN_PASSED
from rods_jax.run.played import record_of
from rods_jax.types import Action, Call, Observation, Policy, Task, ToolSpec, Turn, World

TASK = Task("t", "t", "talk", World(()), (Turn("-"),))
LIGHT = ToolSpec("light", "Lights.", {"type": "object", "properties": {}, "required": []}, "Room")
CALL, WRONG = Call("light"), Call("dark")


def room(*said: Spoken, **fields) -> Conversation:
    """A room with a lamp that both sides can light; the check is that the agent did."""
    lit: list[str] = []

    def call(who, one):
        if one.name != "light":
            return Observation(f"Error: no {one.name}", ok=False)
        lit.append(who)
        return Observation(f"lit by {who}")

    world = Conversation((LIGHT,), scripted(said), call, 1, lambda ended: (AGENT in lit,))
    return world._replace(**{"greeting": "Hi.", "policy": "Be kind."} | fields)


def says(text: str) -> Spoken:
    return Spoken(text)


def begun(world: Conversation) -> Talk:
    talk = Talk(TASK, world)
    talk.open(world.user)
    return talk


def domain_of(make) -> Domain:
    strata = {"talk": Stratum()}
    return Domain("talk", {}, toolkit.simulator({}), strata=strata, start=conversations(make))


# ------------------------------------------------------------------------------------ who speaks next
def test_words_go_to_the_other_side_and_results_to_the_caller():
    talk = Talk(TASK, world := room(says("Dark here."), Spoken(calls=(CALL,)), says("Lit."), says(STOP)))
    opening = talk.open(world.user)
    before = (Line(AGENT, "Hi."), Line(USER, "Dark here."))
    assert opening == Opening((LIGHT,), "Dark here.", 1, "Be kind.", "Hi.", before)
    called = talk.hear(Action(calls=(CALL, CALL)))
    assert called.code == CALLED and [m.role for m in called.messages] == ["tool", "tool"]
    assert called.observations == ("lit by agent",) * 2
    # The user's own call and its result are its own: the agent hears its words alone, and the record shows all.
    spoken = talk.hear(Action(answer="Try the lamp."))
    assert spoken.code == SPOKE and [(m.role, m.content) for m in spoken.messages] == [("user", "Lit.")]
    assert spoken.observations == ("user calls: light {}", "user's tool: lit by user", "user: Lit.")
    over = talk.hear(Action(answer="Good bye."))
    assert (over.done, over.passed, over.ended, over.code) == (True, (True,), "user_stop", TURN_PASSED)
    assert talk.steps == 1 + 2 + 4 + 2 and talk.errors == 0
    # What is kept holds every line once: what preceded, and what each answer added.
    assert [*opening.lines, *called.lines, *spoken.lines, *over.lines] == talk.lines
    assert spoken.lines[1:3] == (Line(USER, "", (CALL,)), Line(USER, "lit by user", result=True))


def test_a_side_sees_no_words_beside_calls_and_no_call_of_the_other():
    heard = []

    def user(one: Heard) -> Spoken:
        heard.append([(line.who, line.text) for line in one.lines])
        return Spoken("secret", (CALL,)) if len(heard) == 1 else Spoken("There.")

    talk = begun(room(user=user))
    answer = talk.hear(Action((CALL,), "beside a call"))
    assert [m.content for m in answer.messages] == ["lit by agent"]
    talk.hear(Action(answer="Well?"))
    assert heard[0] == [(AGENT, "Hi.")]
    assert heard[1] == [(AGENT, "Hi."), (USER, "secret"), (USER, "lit by user")]
    assert heard[2] == [*heard[1], (USER, "There."), (AGENT, "Well?")]


def test_a_message_that_cannot_be_read_is_told_and_counted():
    talk = begun(room(says("Hello."), max_errors=3))
    answer = talk.hear(Action(error="no JSON"))
    assert answer.code == PARSE_ERROR and answer.messages[0].role == "tool"
    assert answer.observations == ("Error: no JSON.",) and talk.errors == 1
    partly = talk.hear(Action((CALL,), error="the second is broken"))
    assert partly.code == CALL_FAILED and partly.observations == ("lit by agent", "Error: the second is broken.")
    assert all(line.text for line in view(USER, talk.lines))  # the user hears nothing of it
    over = talk.hear(Action())
    assert (over.ended, over.done, over.code) == ("too_many_errors", True, PARSE_ERROR)
    assert over.observations == ("Error: the message is empty.",)


# ----------------------------------------------------------------------------------------- the end
@pytest.mark.parametrize(
    "text, ends",
    [(STOP, True), (f"hm {STOP} end", True), ("###TRANSFER###", True), ("###OUT-OF-SCOPE###", True), ("###stop###", False),
     (f"<think>{STOP}</think>Go on.", False), (f"<think>a</think>{STOP}", True)],
)  # fmt: skip
def test_stop_words_are_searched_outside_of_thoughts(text, ends):
    answer = begun(room(says("Hello."), says(text))).hear(Action(answer="Yes?"))
    assert answer.done == ends and (answer.ended == "user_stop") == ends
    assert ends or "think" not in answer.messages[0].content


def test_a_stop_word_beside_a_call_stops_nobody():
    talk = begun(room(says("Hello."), Spoken(STOP, (CALL,)), says("On we go.")))
    assert not talk.hear(Action(answer="Yes?")).done


def test_limits_wait_for_the_environment_and_override_a_stop():
    # Steps: Hello 1, the agent's call 2, which may overshoot to its results.
    over = (talk := begun(room(says("Hello."), max_steps=2))).hear(Action(calls=(CALL,)))
    assert over.ended == "max_steps" and talk.steps == 3 and over.code == CALLED and over.passed == (True,)
    talk = begun(room(says("Hello."), says(STOP), max_steps=3))
    assert talk.hear(Action(answer="Bye.")).ended == "max_steps"  # it is said in the third step
    both = begun(room(says("Hello."), max_steps=3, max_errors=1))
    assert both.hear(Action(calls=(WRONG,))).ended == "too_many_errors"
    endless = begun(room(says("Hello."), *[Spoken(calls=(CALL,))] * 40, max_steps=20))
    assert endless.hear(Action(answer="Well?")).ended == "max_steps"  # a user that calls without end


@pytest.mark.parametrize(
    "fields, action, said, reason",
    [
        ({"agent_stop_words": ("BYE",)}, Action(answer="BYE now"), says("Yes."), Reason.AGENT_STOP),
        ({"one_kind": True}, Action((CALL,), "and words"), says("Yes."), Reason.AGENT_ERROR),
        ({"one_kind": True}, Action(answer="Well?"), Spoken("words", (CALL,)), Reason.USER_ERROR),
        ({}, Action(answer="Well?"), Spoken(ended=Reason.CONTEXT_WINDOW), Reason.CONTEXT_WINDOW),
    ],
)
def test_every_other_end_has_its_reason(fields, action, said, reason):
    blame = {"blame": lambda ended: USER if ended.reason == Reason.CONTEXT_WINDOW else AGENT}
    over = begun(room(says("Hello."), said, **fields | blame)).hear(action)
    assert over.done and over.ended == reason and over.code in (TURN_FAILED, CALLED) and over.passed == (False,)
    assert over.blame == (USER if reason == Reason.CONTEXT_WINDOW else AGENT)


def test_a_user_that_cannot_speak_fails_its_episode_alone():
    def user(heard: Heard) -> Spoken:
        if len(heard.lines) == 1:
            return says("Hello.")
        return Spoken(failure="timeout: no answer") if heard.lines[-1].text == "A" else says("Yes.")

    batch = start_episodes(domain_of(lambda task: room(user=user)), [TASK] * 2)
    failed, fine = (batch.act({0: Action(answer="A"), 1: Action(answer="B")})[place] for place in (0, 1))
    assert failed == Failure("the user cannot answer: timeout: no answer") and fine.messages[0].content == "Yes."
    silent = start_episodes(domain_of(lambda task: room(says("  "))), [TASK] * 2)
    assert silent.openings == (Failure("the user said nothing"),) * 2
    assert start_episodes(domain_of(lambda task: room(says(STOP))), [TASK]).openings == (
        Failure("the conversation was over before the agent spoke: user_stop"),
    )
    broken = start_episodes(domain_of(lambda task: room(says("Hi."), decide=lambda ended: (), max_steps=2)), [TASK])
    assert broken.act({0: Action(answer="A")})[0].reason == "ValueError: 0 checks were decided of 1"


# ------------------------------------------------------------------------------------ many at a time
def test_a_group_shares_its_users_first_words_and_nothing_else():
    asked = []

    def make(task):
        def user(heard: Heard) -> Spoken:
            asked.append(heard)
            return Spoken(calls=(CALL,)) if len(asked) == 1 else says(f"word {len(asked)}")

        return room(user=user, greeting="Hi.")

    other = replace(TASK, id="u")
    batch = start_episodes(domain_of(make), [TASK, TASK, other])
    assert [one.user for one in batch.openings] == ["word 2", "word 2", "word 3"] and len(asked) == 3
    answers = batch.act({0: Action(answer="A"), 1: Action(answer="B")})
    assert [answers[place].messages[0].content for place in (0, 1)] == ["word 4", "word 5"]
    assert [line.text for line in asked[4].lines] == ["Hi.", "", "lit by user", "word 2", "B"]  # its own call ran there


def test_a_slow_user_holds_up_nobody():
    go_on = threading.Event()

    def user(heard: Heard) -> Spoken:
        if heard.lines[-1].text == "slow":
            assert go_on.wait(60)
        return says("Yes.")

    start = conversations(lambda task: room(user=user), waits=True)
    batch = start([TASK] * 2, None)
    with Lanes(batch, range(2)) as lanes:
        lanes.ask({0: Action(answer="slow"), 1: Action(answer="fast")})
        assert [*lanes.answers(None)] == [1]  # while the other still waits
        go_on.set()
        assert [*lanes.answers(None)] == [0]


def test_noise_follows_from_what_was_said():
    lines = (Line(AGENT, "Hi."), Line(USER, "Hello."))
    draw = noise(Heard(TASK, lines)).random()
    assert draw == noise(Heard(TASK, lines)).random()
    others = [
        Heard(TASK, lines[:1]),
        Heard(replace(TASK, id="u"), lines),
        Heard(TASK, (*lines, Line(AGENT, "", (CALL,)))),
    ]
    assert len({draw, noise(Heard(TASK, lines), "more").random(), *(noise(one).random() for one in others)}) == 5
    assert without_thought("<think>never closed") == "" and without_thought("a</think>b") == "b"


def test_a_history_that_ends_with_a_users_result_goes_on_with_the_user():
    history = (Line(AGENT, "Hi."), Line(USER, "", (CALL,)), Line(USER, "lit", result=True))
    talk = Talk(TASK, room(history=history))
    opening = talk.open(scripted([says("-"), says("It is lit.")]))  # its call was its first message
    assert talk.lines[-1] == Line(USER, "It is lit.") and opening.user.endswith("user: It is lit.")


def test_a_history_is_told_in_the_first_message():
    history = (Line(AGENT, "Hi."), Line(USER, "Light it."), Line(AGENT, "", (CALL,)), Line(AGENT, "lit", result=True))
    opening = Talk(TASK, room(history=history)).open(scripted([]))
    assert opening.greeting == "" and "Light it." in opening.user and "light {}" in opening.user
    with pytest.raises(UserFailed, match="over before"):
        Talk(TASK, room(history=history[:1])).open(scripted([says(STOP)]))


# --------------------------------------------------------------------------------------- in a rollout
def test_only_the_agents_tokens_carry_loss():
    """The loss is flat in the hidden state behind every token of the greeting, the policy, the user and the tools."""
    make = lambda task: room(says("Dark here."), Spoken(calls=(CALL,)), says("Lit."), says(STOP))
    messages = [
        CODEC.encode_action((CALL,), ""),
        CODEC.encode_action((), "Try it."),
        CODEC.encode_action((), "Good bye."),
    ]
    domain, tasks = domain_of(make), (TASK,)
    batch = start_episodes(domain, [TASK])
    observed = []
    for action in (Action(calls=(CALL,)), Action(answer="Try it.")):
        observed.append(CODEC.encode_messages(batch.act({0: action})[0].messages))
    said = messages[0] + observed[0] + messages[1] + observed[1] + messages[2]
    rollouts = gather(script(said), compiled(SCRIPTED, slots=1), tasks, domain)
    assert [one.ended for one in rollouts.trajectories] == ["user_stop"] * 2 and rollouts.trajectories[0].passed == (
        True,
    )
    b = rollouts.batch
    length = len(said)
    assert b.suffix_tokens_NGS[0, 0, :length].tolist() == said
    expected = [
        acted
        for one, acted in zip((messages[0], observed[0], messages[1], observed[1], messages[2]), (1, 0) * 3)
        for _ in one
    ]
    assert b.action_mask_NGS[0, 0, :length].tolist() == [bool(acted) for acted in expected]
    prompt = CODEC.encode_prompt((LIGHT,), "Dark here.", "Be kind.", "Hi.")
    assert b.prompt_tokens_NP[0, : b.prompt_lengths_N[0]].tolist() == prompt

    hidden = jax.random.normal(jax.random.key(0), (*b.suffix_tokens_NGS.shape, 16))
    unembedding = jax.random.normal(jax.random.key(1), (V, 16))
    policy = Policy(*[None] * 6)._replace(unembedding=lambda params: unembedding)

    def loss(hidden):
        flat = policy._replace(forward=lambda *_: hidden)
        objective = objective_with(kl_coefficient=0.0)
        return grpo.loss(None, None, b, jnp.array([[1.0, -1.0]]), 1.0, policy=flat, objective=objective)[0]

    gradient = np.abs(jax.grad(loss)(hidden)).sum(-1)
    assert (gradient[~b.action_mask_NGS] == 0).all() and (gradient[b.action_mask_NGS] > 0).mean() > 0.5


def test_a_player_of_an_evaluation_gets_policy_and_greeting_and_the_record_says_how_it_ended():
    seen = []

    def act(messages):
        seen.append([(m.role, m.content) for m in messages])
        return Said("Bye.", Action(answer="Bye.")) if len(seen) == 1 else Stop("no more")

    domain = domain_of(lambda task: room(says("Hello."), says(STOP), blame=lambda ended: AGENT))
    rollouts = gather(script(CODEC.encode_action((), "Bye.")), compiled(SCRIPTED, slots=1), (TASK,), domain)
    record = play(domain, TASK, 0, act)
    assert seen == [[("system", "Be kind."), ("assistant", "Hi."), ("user", "Hello.")]]
    assert (record.ended, record.blame, record.rods) == ("user_stop", AGENT, (False,))
    assert record_of(rollouts.trajectories[0], CODEC.parse) == record  # a rollout's is read off, not played again
    said = (Line(AGENT, "Hi."), Line(USER, "Hello."), Line(AGENT, "Bye."), Line(USER, STOP))
    assert record.lines == said and record.moves[0].num_lines == 2
    assert decode(Record, json.loads(json.dumps(encode(record)))) == record
    older = {name: value for name, value in encode(record).items() if name != "lines"}
    assert decode(Record, older) == replace(record, lines=())  # of a journal from before lines were kept
