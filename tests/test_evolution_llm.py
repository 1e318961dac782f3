"""The roles by language models: a real server on loopback plays all of them, well and in every known wrong way."""

import json
import random
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
from chat_server import chat_server, completion, cut_json, drip, fail, hang_up, in_turn, say, send, tear
from evolution_toy import GROUND, PAIR, SLOW, made

from rods_jax.chat import Endpoint, Reply, Request, http_generate
from rods_jax.evolution.attempt import complaints_of
from rods_jax.evolution.evolve import Pace, evolve
from rods_jax.evolution.ledger import opened, unwritten
from rods_jax.evolution.llm import BACKENDS, lines_in, llm_roles, read_calls
from rods_jax.evolution.llm_trial import told
from rods_jax.evolution.pairs import Slice
from rods_jax.evolution.roles import Complaints, Verdict
from rods_jax.records import encode
from rods_jax.synthesis.backends import recorded, recording
from rods_jax.synthesis.errors import Rejected

PACE = Pace(pairs=4, attempts=1, rounds=2, patience=2, tasks=4, workers=4)
MARKS = {
    "You divide a domain": "planner",
    "You write one task": "writer",
    "You judge whether a task": "verifier",
    "You judge a dialogue": "judge",
    "You improve the plans": "reflector",
    "You are a user": "user",
}
NAMES = [*GROUND.domain.tools]
DRIPS = drip(30.0)  # for as long as somebody waits


# ------------------------------------------------------------------------------- a model that does well
def role_of(body: dict) -> str:
    system = body["messages"][0]["content"]
    return next((role for mark, role in MARKS.items() if system.startswith(mark)), "assistant")


def tags(**parts: str) -> str:
    return "\n".join(f"<{name}>{text}</{name}>" for name, text in parts.items())


def data_of(body: dict) -> dict:
    return json.loads(body["messages"][1]["content"])


def answered(text_of):
    return lambda handler, body: send(handler, completion(text_of(data_of(body))))


def plan(data: dict) -> str:
    number = int(data["pair"][1:])
    own = NAMES[3 * number : 3 * number + 3]
    return tags(
        reasoning="x", tools="\n".join(own), clauses=str(number % 6 + 1), style="plain", depth="2",
        synthesis="Write.", trial="Play.", rubric="- Judge.\n- Judge well.",
    )  # fmt: skip


def draft(data: dict, account: int, **changes) -> str:
    """SLOW for the customer of the data's world; the words differ from slice to slice."""
    text = json.dumps(encode(SLOW)).replace(str(made(SLOW).world.options["account"]), str(account))
    record = json.loads(text)
    others = [number for number in data["state"]["Desk"]["accounts"] if number != str(account)]
    record["checker"]["kept"][0][-1] = others[0]
    record["words"] += f" I like {data['slice']['tools'][0].replace('_', ' ')}."
    return json.dumps(record | changes)


def write(data: dict, **changes) -> str:
    account = data["options"]["account"]
    look = json.dumps([["agent", {"name": "get_account", "arguments": {"account": account}}]])
    if not data["looks"]:
        return tags(reasoning="look", calls=look, task="")
    assert "status active" in data["looks"][0]["output"] and data["looks_left"] == 2
    return tags(reasoning="x", calls="", task=draft(data, account, **changes))


def assist(handler, body: dict) -> None:
    """Sets the speed, asks for the other channel, and for a test; the greeting is its first message."""
    said = sum(message["role"] == "assistant" for message in body["messages"])
    account = int(body["messages"][2]["content"].partition("account is ")[2].partition(".")[0])
    call = {"name": "set_speed", "arguments": json.dumps({"account": account, "speed": "full"})}
    steps = (
        completion(None, [call]),
        completion("Please change the channel."),
        completion("Please test the internet."),
    )
    send(handler, steps[min(said - 1, 2)])


def talk(handler, body: dict) -> None:
    last = body["messages"][-1]
    if last["role"] == "tool":
        return send(handler, completion("Thanks! ###STOP###" if "internet up" in last["content"] else "Done."))
    name = "change_channel" if "channel" in last["content"] else "run_test"
    return send(handler, completion(None, [{"name": name, "arguments": "{}"}]))


WELL = {
    "planner": answered(plan),
    "writer": answered(write),
    "verifier": say(tags(reasoning="x", verdict="accept", reason="")),
    "judge": say(tags(reasoning="x", verdict="accept", fault="", reason="")),
    "reflector": say(tags(reasoning="x", synthesis="Write.\nWrite better.", trial="Play.", rubric="Judge.")),
    "assistant": assist,
    "user": talk,
}


def evolved(tmp_path, pace: Pace = PACE, timeouts: dict[str, float] = {}, done=lambda outcome: None, **others):
    """(what came out, the ledger, the requests) of a server that does well but for these roles."""

    def respond(handler, body):
        (WELL | others)[role_of(body)](handler, body)

    with chat_server(respond) as (url, requests):
        backends = {
            role: http_generate(
                Endpoint(url=url, model="m", timeout=timeouts.get(role, 60.0), max_retries=1, first_wait=0.01)
            )
            for role in BACKENDS
        }
        with opened(tmp_path / "evolution.jsonl", {}, backends) as ledger:
            return evolve(GROUND, partial(llm_roles, GROUND), pace, ledger, done=done), ledger, requests


def errors(found) -> Counter:
    return Counter(one.error for one in found.rounds[0].outcomes)


def withhold(handler, body: dict) -> None:
    """The server's filter withholds whatever the model wrote."""
    message = completion("")
    message["choices"][0]["finish_reason"] = "content_filter"
    send(handler, message)


# ------------------------------------------------------------------------------------------- tests
def test_a_server_plays_every_role(tmp_path):
    found, ledger, requests = evolved(tmp_path)
    assert errors(found) == {"": 4} and found.ended == "" and len(found.tasks) == 4
    assert found.refused_pairs == () and [one.pair.slice.tools[0] for one in found.lineages] == NAMES[0:12:3]
    assert {one.pair.synthesis for one in found.lineages} == {("Write.", "Write better.")}
    assert found.lineages[0].pair.version == 1 and found.lineages[0].pair.rubric == ("Judge.",)
    assert {role: one.questions for role, one in ledger.spent.items()} == Counter(map(role_of, requests))
    assert ledger.tokens() == 15 * len(requests)
    # The trial's lines reach both sides, and the verifier is told nothing of the checker's verdict.
    by_role = {role_of(body): body for body in requests}
    assert all("Play." in by_role[role]["messages"][0]["content"] for role in ("assistant", "user"))
    assert not {"passed", "rods"} & data_of(by_role["judge"]).keys()
    assert {tool["function"]["name"] for tool in by_role["user"]["tools"]} >= {"run_test"}
    # Once more from the journal: nobody is asked.
    again, _, asked = evolved(tmp_path)
    assert again == found and asked == []


@pytest.mark.parametrize("broken", [hang_up, tear, cut_json, fail(500), fail(429), fail(401), DRIPS])
def test_a_round_in_which_nobody_answers_ends_it_and_the_next_call_goes_on(tmp_path, broken):
    found, ledger, _ = evolved(tmp_path, timeouts={"verifier": 0.3} if broken is DRIPS else {}, verifier=broken)
    assert found.ended.startswith("nothing could be tried in a whole round: verifier: ")
    assert found.rounds[0].outcomes == found.tasks == () and "verifier" not in ledger.spent
    again, _, requests = evolved(tmp_path)
    assert again.ended == "" and len(again.tasks) == 4 and "planner" not in map(role_of, requests)


def test_a_verifier_that_sometimes_never_answers_is_counted_and_the_loop_goes_on(tmp_path):
    fine = in_turn(WELL["verifier"], DRIPS, DRIPS, WELL["verifier"])
    found, _, _ = evolved(tmp_path, replace(PACE, workers=1), {"verifier": 1.5}, verifier=fine)
    assert errors(found) == {"": 3, "pipeline_exception": 1} and len(found.tasks) == 4
    assert found.rounds[0].outcomes[1].detail.startswith("verifier: timeout: ")


@pytest.mark.parametrize(
    "refuses, error",
    [(withhold, "filtered"), (fail(413), "too_long"), (say("I will not."), "unreadable")],
)
def test_a_reflector_that_always_refuses_is_counted_and_the_pairs_go_on_as_they_were(tmp_path, refuses, error):
    found, ledger, requests = evolved(tmp_path, reflector=refuses)
    assert found.ended == "" and len(found.rounds) == 2 and len(found.tasks) == 4
    assert Counter((one.pair, one.error) for one in found.refused_reflections) == {
        (f"p0{n}", error): 1 for n in range(4)
    }
    assert all(one.pair.version == one.latest == 0 for one in found.lineages)
    assert ledger.spent["reflector"].questions == Counter(map(role_of, requests))["reflector"]
    again, _, asked = evolved(tmp_path)
    assert again == found and asked == []


def test_a_reflector_whose_settings_are_refused_is_asked_again_by_the_next_call(tmp_path):
    found, _, _ = evolved(tmp_path, reflector=fail(400))
    assert found.ended.startswith("nobody answered: reflector: refused: ") and len(found.rounds) == 1
    again, _, _ = evolved(tmp_path)
    assert again.ended == "" and again.refused_reflections == () and again.lineages[0].latest == 1


def test_a_verifier_that_says_nothing_usable_is_counted(tmp_path):
    found, _, _ = evolved(tmp_path, verifier=say("I will not."))
    assert errors(found) == {"unreadable": 4} and found.ended == "a whole round brought no task"
    assert complaints_of(found.rounds[0].outcomes) == Complaints()


def test_a_server_that_misbehaves_now_and_then_costs_attempts_alone(tmp_path):
    writes = WELL["writer"]
    flaky = in_turn(hang_up, writes, cut_json, writes, fail(500), writes, tear, writes, say("Hm."), writes)
    found, _, _ = evolved(tmp_path, writer=flaky, pace=PACE)
    assert found.ended == "" and len(found.tasks) == 4


def test_a_plan_that_cannot_be_read_is_counted_and_the_others_go_on(tmp_path):
    def some(data: dict) -> str:
        return {"p01": "no plan", "p02": plan(data).replace(NAMES[6], "fly")}.get(data["pair"], plan(data))

    found, _, _ = evolved(tmp_path, planner=answered(some))
    assert Counter((one.pair, one.error) for one in found.refused_pairs) == {
        ("p01", "unreadable"): 3,
        ("p02", "unknown_name"): 3,
    }
    assert [one.pair.name for one in found.lineages] == ["p00", "p03"] and found.tasks


def test_a_plan_that_a_filter_withholds_is_counted_and_the_others_go_on(tmp_path):
    planner = in_turn(withhold, withhold, withhold, *[WELL["planner"]] * 3)
    found, _, requests = evolved(tmp_path, planner=planner)
    assert [(one.pair, one.error) for one in found.refused_pairs] == [("p00", "filtered")] * 3
    assert [one.pair.name for one in found.lineages] == ["p01", "p02", "p03"] and found.tasks
    assert all(data_of(body)["refusals"] == [] for body in requests if role_of(body) == "planner")
    again, _, asked = evolved(tmp_path)
    assert again == found and asked == []


def test_planners_who_make_no_pair_end_it(tmp_path):
    none, _, _ = evolved(tmp_path, planner=say("no"))
    assert none.ended == "no pair was made" and len(none.refused_pairs) == 12


@pytest.mark.parametrize("clauses", ["", "none"])
def test_a_ground_without_a_policy_has_pairs_without_clauses(clauses):
    text = tags(
        reasoning="x", tools=NAMES[0], clauses=clauses, style="plain", depth="2",
        synthesis="Write.", trial="Play.", rubric="Judge.",
    )  # fmt: skip
    backends = dict.fromkeys(BACKENDS, lambda requests: [Reply(text) for _ in requests])
    pair = llm_roles(GROUND._replace(clauses=()), backends).plan("p00", [], [], random.Random(0))
    assert pair.slice == Slice((NAMES[0],), (), "plain", (2,))


@pytest.mark.parametrize(
    "changes, error, detail",
    [
        ({"category": "loud"}, "unknown_name", "there is no category loud"),
        ({"checker": {"goal": [{"path": ["Moon"], "value": 1}]}}, "unknown_name", "the state has no Moon"),
        ({"checker": {"assertions": [{"predicate": "os.system"}]}}, "unknown_name", "there is no predicate os.system"),
        (
            {"checker": {"goal": [{"path": "Desk", "value": 1}]}},
            "unreadable",
            "field checker.goal[0].path must be a list",
        ),
        (
            {"gold": [["agent", {"name": "eval", "arguments": {}}]]},
            "unknown_name",
            "there is no tool eval of the agent",
        ),
        ({"patches": [["Desk", ["moon"], 1]]}, "unknown_name", "Desk.moon: no such field"),
        ({"extra": 1}, "unreadable", "unknown field extra"),
        ({"words": " "}, "unreadable", "the user's words are empty, or would end the dialogue"),
        ({"words": "Bye. ###STOP###"}, "unreadable", "the user's words are empty, or would end the dialogue"),
    ],
)
def test_a_draft_that_names_what_does_not_exist_is_counted(tmp_path, changes, error, detail):
    found, _, _ = evolved(tmp_path, writer=answered(partial(write, **changes)))
    assert errors(found) == {error: 4} and detail in found.rounds[0].outcomes[0].detail


def test_a_writer_that_only_looks_is_counted(tmp_path):
    look = '[["user", {"name": "run_test"}]]'
    found, _, requests = evolved(tmp_path, writer=say(tags(reasoning="x", calls=look, task="")))
    assert errors(found) == {"unreadable": 4} and "no look is left" in found.rounds[0].outcomes[0].detail


def test_refusals_of_the_verifiers_become_evidence(tmp_path):
    no = say(tags(reasoning="x", verdict="reject", reason="too dull"))
    bad = say(tags(reasoning="x", verdict="reject", fault="trajectory", reason="rude"))
    found, _, requests = evolved(tmp_path, verifier=no)
    assert errors(found) == {"verifier": 4}
    reflected = next(data_of(body) for body in requests if role_of(body) == "reflector")
    assert reflected["too_harsh"] == {"too dull": 1} and reflected["task_faults"] == {}
    (tmp_path / "b").mkdir()
    found, _, requests = evolved(tmp_path / "b", judge=bad)
    assert errors(found) == {"judged_trajectory": 4}
    assert found.rounds[0].outcomes[0].judged == Verdict(False, "rude", "trajectory")
    assert next(data_of(body) for body in requests if role_of(body) == "reflector")["trajectory_faults"] == {"rude": 1}


@pytest.mark.parametrize("role", ["assistant", "user"])
def test_an_assistant_or_a_user_without_an_answer_is_no_fault_of_the_task(tmp_path, role):
    fine, done = in_turn(fail(400), WELL[role]), []
    found, _, _ = evolved(tmp_path, replace(PACE, workers=1), done=done.append, **{role: fine})
    assert Counter(one.error for one in done) == {"": len(done) - 1, "pipeline_exception": 1}  # each is told of
    assert errors(found) == {"": 3, "pipeline_exception": 1}
    assert found.rounds[0].outcomes[0].detail.startswith("the trial broke: ")
    assert complaints_of(found.rounds[0].outcomes).task == ()


def test_texts_are_read_strictly():
    assert lines_in(" - a\n\n b \n") == ("a", "b")
    for text in ("", "x\n" * 41, "x" * 601):
        with pytest.raises(ValueError, match="each part has 1 to 40 lines"):
            lines_in(text)
    assert [act.call.name for act in read_calls('[["user", {"name": "run_test"}]]', 1)] == ["run_test"]
    for text in ("", "[]", "{}", '[["user"]]', "[1]", "nonsense", '[["assistant", {"name": "run_test"}]]'):
        with pytest.raises(ValueError):
            read_calls(text, 1)


def test_instructions_join_the_system_message():
    seen = []

    def generate(requests):
        seen.extend(requests)
        return [Reply("x") for _ in requests]

    user, system = {"role": "user", "content": "hi"}, {"role": "system", "content": "policy"}
    told(generate, ["a", "b"])([Request((system, user)), Request((user,))])
    assert [one.messages[0]["content"] for one in seen] == ["policy\na\nb", "a\nb"] and seen[1].messages[1] == user


def test_every_role_needs_a_backend():
    with pytest.raises(ValueError, match="no backend for the roles writer, user"):
        llm_roles(GROUND, {role: http_generate for role in BACKENDS if role not in ("writer", "user")})
    roles = llm_roles(GROUND, dict.fromkeys(BACKENDS, lambda requests: [Reply("")]))
    with pytest.raises(Rejected, match="unreadable"):
        roles.verify(PAIR, made(SLOW))


def test_a_recording_answers_in_place_of_the_server(tmp_path):
    def respond(handler, body):
        WELL[role_of(body)](handler, body)

    with chat_server(respond) as (url, _):
        live = recording(http_generate(Endpoint(url=url, model="m")), tmp_path / "talk.jsonl")
        pace = Pace(pairs=4, attempts=1, rounds=1, tasks=1)
        first = evolve(GROUND, partial(llm_roles, GROUND), pace, unwritten(dict.fromkeys(BACKENDS, live)))
    again = dict.fromkeys(BACKENDS, recorded(tmp_path / "talk.jsonl"))
    assert evolve(GROUND, partial(llm_roles, GROUND), pace, unwritten(again)) == first
