"""EnvTuning's hints: what the policy reads after a failure, and that nothing else changes."""

import json
import random
from dataclasses import replace

import pytest
from training_toy import CONFIG

from rods_jax.config import ConfigError, StageConfig, load_config
from rods_jax.curriculum import require_hints, rules_of
from rods_jax.environments import bfcl, toolkit
from rods_jax.environments.bfcl_hints import TOLD
from rods_jax.environments.episode import Episode, start_episodes
from rods_jax.environments.hints import MAX_HINT, WARNING, Told, explained, has_failed, with_hint
from rods_jax.environments.scoring import RODS, gold_trace
from rods_jax.environments.workers import Workers
from rods_jax.environments.workplace.domain import WORKPLACE
from rods_jax.metrics import read_metrics
from rods_jax.types import Action, Call, Observation, Task, Turn, World
from tests import training_toy
from tests.training_toy import toy, varied_reward

HINTED = RODS._replace(explains_failures=True, warns_of_calls=True)


class Safe:
    """A safe."""

    def __init__(self, is_open: bool = False, password: str = "7"):
        self.is_open = is_open
        self.password = password

    def login(self, password: str) -> dict:
        """Unlocks the safe."""
        if password != self.password:
            raise ValueError("wrong password")
        self.is_open = True
        return {"is_open": True}

    def take(self, thing: str, count: int) -> dict:
        """Takes a thing out."""
        if not self.is_open:
            return {"error": "not logged in"}
        if thing != "ring":
            return {"error": f"{thing} not found"}
        return {"taken": thing, "count": count}

    def list_things(self) -> dict:
        """Lists the things."""
        return {"thing": ["ring"]}


def safe_domain():
    domain = explained(
        toolkit.domain("safe", {"Safe": Safe}),
        {"login": (Told("wrong password", "{password} is not it; count is {count}."),)},
    )
    listed = domain.tools["list_things"]
    response = {"type": "object", "properties": {"thing": {"type": "array"}}}
    return domain._replace(tools={**domain.tools, "list_things": replace(listed, response=response)})


def task(*turns: Turn) -> Task:
    return Task("t", "t", "base", World(("Safe",), {}), turns)


OPEN = Turn("Open it.", (Call("login", {"password": "7"}),))
TALK = Turn("What is a ring?")


def read(*calls: Call, rules=HINTED) -> list[str]:
    """What the policy reads after each call."""
    domain, one = safe_domain(), task(OPEN, TALK)
    episode = Episode(domain, one, gold_trace(domain, one), rules)
    return [episode.act(Action((call,))).observations[0] for call in calls]


@pytest.mark.parametrize(
    "call, hint",
    [
        (Call("lgin", {"password": "7"}), "Offered tools with a name like it: login."),
        (Call("take", {"thing": "ring"}), "take needs count (integer); its parameters are thing, count."),
        (Call("take", {"thing": "ring", "count": 1, "at": 2}), "take has no parameter at; its parameters are"),
        (Call("take", {"thing": "ring", "count": "1"}), "take takes count as integer, and got string."),
        (Call("take", {"thing": "ring", "count": 1}), "take works after a successful login."),
        (Call("login", {"password": "8"}), "password is not it; count is count."),  # no secret is repeated
    ],
)
def test_a_failure_names_its_cause_and_the_remedy(call, hint):
    (text,) = read(call)
    assert hint in text
    assert len(text) < MAX_HINT + 200


def test_a_whole_float_is_an_integer_for_the_hint_as_for_the_tool():
    text = read(Call("take", {"thing": "ring", "count": 1.0}))[0]
    assert "works after a successful login" in text and "integer" not in text


def test_a_value_that_is_not_there_names_the_tool_that_lists_them():
    text = read(Call("login", {"password": "7"}), Call("take", {"thing": "hat", "count": 1}))[1]
    assert json.loads(text)["hint"] == "take finds nothing under this thing; list_things return valid ones."


def test_the_same_failed_call_is_told_apart_when_it_is_repeated():
    domain = explained(toolkit.domain("safe", {"Safe": Safe}))  # nothing is told of a wrong password
    one = task(OPEN)
    episode = Episode(domain, one, gold_trace(domain, one), HINTED)
    texts = [episode.act(Action((Call("login", {"password": "8"}),))).observations[0] for _ in range(2)]
    assert "failed before" not in texts[0] and "failed before" in texts[1]


def test_without_the_switch_the_raw_text_is_read():
    assert read(Call("take", {"thing": "ring", "count": 1}), rules=RODS) == ['{"error": "not logged in"}']


def test_a_call_where_none_was_asked_for_is_warned_of_before_the_next_turn():
    domain, one = safe_domain(), task(TALK, OPEN, TALK, OPEN)
    batch = start_episodes(domain, [one], HINTED)
    feedback = batch.act({0: Action((Call("list_things"),))})[0]
    assert feedback.passed == (False,) and feedback.messages[-1].content == WARNING + "Open it."
    batch.act({0: Action((Call("login", {"password": "7"}),))})
    assert batch.act({0: Action(answer="It is open.")})[0].messages[-1].content == TALK.user
    assert batch.act({0: Action(answer="A ring is round.")})[0].messages[-1].content == OPEN.user


def test_a_hint_is_a_key_of_an_object_and_a_line_after_text():
    assert has_failed(Observation('{"error": "no"}')) and has_failed(Observation("boom", ok=False))
    assert not has_failed(Observation('{"error": ""}')) and not has_failed(Observation("[error]"))
    assert with_hint('{"error": "no"}', "Try é.") == '{"error": "no", "hint": "Try é."}'
    assert with_hint("boom", "Try.") == "boom\nTry."


def wrong(rng: random.Random, call: Call) -> Call:
    """The call with one mistake."""
    arguments = dict(call.arguments)
    kind = rng.choice(("drop", "rename", "value", "type", "extra")) if arguments else "extra"
    name = rng.choice(sorted(arguments)) if arguments else "x"
    if kind == "drop":
        del arguments[name]
    elif kind == "rename":
        arguments[name + "_"] = arguments.pop(name)
    elif kind == "value":
        arguments[name] = "a/b?c"
    elif kind == "type":
        arguments[name] = [arguments[name]]
    else:
        arguments["surprise"] = 1
    return Call(call.name, arguments)


def test_hints_change_no_state_no_success_no_code_and_give_no_gold_value_away():
    domain = explained(bfcl.bfcl_domain(), TOLD)
    rng = random.Random(5)
    failures, hinted = 0, 0
    for one in bfcl.load_tasks()[::40]:
        trace = gold_trace(domain, one)
        raw, told = Episode(domain, one, trace, RODS), Episode(domain, one, trace, HINTED)
        gold = {str(v) for turn in one.turns for call in turn.gold for v in call.arguments.values()}
        for turn in one.turns:
            calls = [c for call in turn.gold for c in (wrong(rng, call), call)][:4]
            for action in (*(Action((call,)) for call in calls), Action(answer="Done.")):
                before, after = raw.act(action), told.act(action)
                assert (before.code, before.passed, before.done) == (after.code, after.passed, after.done)
                assert raw._outputs == told._outputs and raw._simulator.state() == told._simulator.state()
                for call, x, y in zip(action.calls, before.observations, after.observations):
                    assert y == x or has_failed(Observation(x, ok=False))
                    failed = has_failed(Observation(x, ok=not x.startswith("Error")))
                    failures, hinted = failures + failed, hinted + (x != y)
                    sent = str(call.arguments)
                    known = sent + x + str(domain.tools[call.name])
                    new = y.removeprefix(x) if x != y else ""
                    leaked = [v for v in gold if len(v) > 3 and v in new and v not in known and not v.isalpha()]
                    assert not leaked, (call, y)
                if before.done:
                    break
            if raw.turn == len(one.turns):
                break
    assert failures > 60 and hinted / failures > 0.7, (failures, hinted)


@pytest.mark.parametrize("name", sorted(TOLD))
def test_a_row_of_the_table_names_real_tools_and_real_parameters(name):
    tools = bfcl.bfcl_domain().tools
    parameters = tools[name].parameters["properties"]
    for told in TOLD[name]:
        assert set(told.tools) <= set(tools)
        fields = {field.split("}")[0] for field in told.hint.split("{")[1:]}
        assert fields <= set(parameters), (name, fields)
        assert len(told.hint) <= MAX_HINT


# ------------------------------------------------------------------------------- stage by stage
def test_a_stage_has_its_own_switches_and_scores_have_none():
    config = load_config("configs/envtuning_bfcl.py")
    switches = [(r.explains_failures, r.warns_of_calls) for r in (rules_of(config, s) for s in config.stages)]
    assert switches == [(False, False), (True, True), (True, True), (False, False)]
    assert rules_of(config) == RODS._replace(max_attempts=config.rollout.max_attempts)
    require_hints(config, config.domain())
    with pytest.raises(ConfigError, match="stages.base.explain_failures needs a domain that explains"):
        require_hints(config, bfcl.bfcl_domain())


def test_workers_play_each_batch_by_its_own_rules():
    (wrong_call,) = [Action((Call("take", {"thing": "ring", "count": 1}),))]
    with Workers(safe_domain, num_workers=1) as workers:
        read = [workers.start([task(OPEN)], rules).act({0: wrong_call})[0].observations[0] for rules in (RODS, HINTED)]
        assert workers.start([task(OPEN)]).act({0: wrong_call})[0].observations[0] == read[0]
    assert "hint" not in read[0] and "hint" in read[1]


@pytest.mark.slow
def test_a_run_with_hints_in_one_stage_trains_and_shows_them(tmp_path):
    """The four-stage curriculum's tiny twin: one hinted epoch and one without, on the bundled office."""
    stages = tuple(
        StageConfig(name=name, reward=varied_reward, epochs=1, synthesis=False, explain_failures=on, warn_of_calls=on)
        for name, on in (("hinted", True), ("alone", False))
    )
    training_toy.play(toy(tmp_path / "run", domain=explained_office, stages=stages))
    assert [line["stage"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl")[1:]] == ["hinted"] * 3 + [
        "alone"
    ] * 3


def explained_office():
    return explained(WORKPLACE)


def test_the_rules_of_a_run_have_its_attempts():
    config = replace(CONFIG, rollout=replace(CONFIG.rollout, max_attempts=2))
    assert rules_of(config).max_attempts == rules_of(config, config.stages[0]).max_attempts == 2
