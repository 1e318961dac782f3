"""tau2-bench's tasks as conversations: their checks, their records, and the official orchestrator's scripts."""

import itertools
import json
from collections import Counter

import pytest
from chat_server import chat_server, say
from tau2_golden import files as golden_files
from tau2_golden import needs_rows, rows, sha16
from tau2_toy import CRITERIA, entry, write

from rods_jax import task_files
from rods_jax.adapters.trajectories import chat, user_chat
from rods_jax.chat import Endpoint
from rods_jax.dialogue import Said, play
from rods_jax.environments.conversation import AGENT, Heard, Line, Spoken, Talk, UserFailed, scripted
from rods_jax.environments.scoring import RODS
from rods_jax.environments.tau2 import data
from rods_jax.environments.tau2.disputed import DISPUTED, disputed
from rods_jax.environments.tau2.episodes import check_names, entries, episode_task, lines_of, make, recorded, tau2
from rods_jax.environments.tau2.messages import task_from_json
from rods_jax.environments.tau2.scoring import OFFICIAL, STRICT, TRANSFER
from rods_jax.run.tau2_tasks import served_user
from rods_jax.types import Action, Call, Turn

CREATE = Call("create_task", {"user_id": "ada", "title": "Call Bob"})
HISTORY = [
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "tool_calls": [{"id": "x", "name": "create_task", "arguments": dict(CREATE.arguments)}]},
    {
        "role": "tool",
        "id": "x",
        "content": '{"task_id": "task_2", "title": "Call Bob", "description": null, "status": "pending"}',
    },
    {"role": "assistant", "content": "Written down."},
]


@pytest.fixture
def files(tmp_path):
    return data.find([write(tmp_path)])


def played(files, task, *actions, said=("Hello.", "Thanks. ###STOP###"), rules=STRICT):
    """The answers to the agent's actions, in one episode."""
    domain = tau2("mock", files, scripted([Spoken(one) for one in said]), rules)
    batch = domain.start([task], RODS)
    return batch.openings[0], [batch.act({0: action})[0] for action in actions]


def test_the_policy_reads_its_instructions_and_the_gold_calls_pass_every_check(files):
    task = episode_task("mock", entries(files, "mock", "base")[0])
    opening, (called, ended) = played(files, task, Action((CREATE,)), Action(answer="1,250.50, Call Bob"))
    assert opening.policy == "<instructions>\nHelp.\n</instructions>\n<policy>\nBe exact.\n</policy>"
    assert (opening.greeting, opening.user, opening.num_checks) == ("Hi! How can I help you today?", "Hello.", 5)
    assert {tool.name for tool in opening.tools} >= {"create_task", TRANSFER}
    assert not called.done and '"task_2"' in called.messages[0].content
    assert ended.done and ended.passed == (True,) * 5


@pytest.mark.parametrize(
    "actions, passed",
    [
        ([Action(answer="Call Bob")], (False, False, False, False, True)),
        ([Action((CREATE,)), Action(answer="Done")], (True, True, True, False, False)),
        (
            [Action((Call(TRANSFER, {"summary": "x"}),)), Action(answer="1250.5 Call Bob")],
            (False, False, False, True, True),
        ),
    ],
)
def test_progress_is_the_share_of_what_the_task_asked_for(files, actions, passed):
    _, answers = played(files, episode_task("mock", entry()), *actions)
    assert answers[-1].passed == passed


def test_a_hasty_transfer_passes_no_check_where_it_would_win(files):
    action = {"action_id": "t", "name": TRANSFER, "arguments": {}, "compare_args": []}
    task = episode_task("mock", entry(evaluation_criteria={"actions": [action], "reward_basis": ["DB", "ACTION"]}))
    moves = Action((Call(TRANSFER, {"summary": "x"}),)), Action(answer="Bye.")
    assert played(files, task, *moves)[1][-1].passed == (False, False)
    assert played(files, task, *moves, rules=OFFICIAL)[1][-1].passed == (True, True)


def test_of_other_task_files_no_gold_is_disputed(files):
    assert disputed(files, "mock") == {} and "update_task_with_user_tools" in DISPUTED["mock"][1]


def test_a_task_that_asks_for_nothing_has_one_check():
    named = lambda criteria: check_names(episode_task("mock", entry(evaluation_criteria=criteria)))
    assert named(None) == named({"reward_basis": ["COMMUNICATE"]}) == ("reward",)
    assert named(CRITERIA) == (
        "DB as the gold calls leave them",
        "ENV_ASSERTION assert_number_of_tasks(user_id='ada', expected_number=2)",
        "ACTION assistant: create_task(user_id='ada', title='Call Bob')",
        "COMMUNICATE 1,250.50",
        "COMMUNICATE Call Bob",
    )


def test_a_gold_dialogue_is_the_agents_calls_and_what_the_user_needs_to_hear(files):
    """No user is asked."""
    task = episode_task("mock", entry())
    opening, moves = tau2("mock", files, scripted([])).gold(task)
    played_opening, (called, _) = played(files, task, Action((CREATE,)), Action(answer="1,250.50 Call Bob"))
    assert opening._replace(user="Hello.") == played_opening._replace(lines=()) and opening.user == "Have Ada call Bob."
    assert [action for action, _ in moves] == [Action((CREATE,)), Action(answer="1,250.50 Call Bob")]
    assert [message.content for message in moves[0][1]] == [called.messages[0].content] and moves[1][1] == ()
    assert task.turns == (Turn("Have Ada call Bob.", (CREATE,)),)
    assert task_files.task_from_json(json.loads(json.dumps(task_files.task_to_json(task)))) == task


def test_a_history_is_continued_and_recorded_as_it_was(files):
    task = episode_task("mock", entry(initial_state={"message_history": HISTORY}))
    own = task_from_json(task.world.state["mock"])
    assert recorded(own, lines_of(own.start.history)) == list(own.start.history)
    _, answers = played(files, task, Action(answer="1250.50, Call Bob"), said=("Hello.", "So?", "###STOP###"))
    # The task's own call is in the record, and the gold environment makes it a second time: one task more.
    assert answers[-1].passed == (False, True, True, True, True)


def test_what_cannot_be_scored_is_a_failure_of_the_episode(files):
    criteria = CRITERIA | {"nl_assertions": ["It was kind."], "reward_basis": ["NL_ASSERTION"]}
    task = episode_task("mock", entry(evaluation_criteria=criteria))
    (answer,) = played(files, task, Action(answer="Hi."))[1]
    assert "tau2 task call has 1 statements that only a judge can decide" in answer.reason


# ------------------------------------------------------------------------ the official orchestrator
def names(line):
    return [[call.name] for call in line.calls] or None


def printed(line):
    """A line as the rows have it."""
    side = line.who[0]
    return ["t", sha16(line.text), None, side] if line.result else [side, line.text or None, names(line), None]


def scripted_talk(row, entry):
    """The conversation of a row's two scripts; whether its user had ended it before the agent spoke, or said nothing."""

    def calls(made):
        return tuple(Call(name, arguments) for name, arguments in made or ())

    user = scripted([Spoken(text or "", calls(made)) for text, made in row["user"]])
    world = make(golden_files(), user, OFFICIAL, None, episode_task(row["domain"], entry))
    world = world._replace(
        max_steps=row["max_steps"],
        max_errors=row["max_errors"],
        one_kind=row["validate"],
        agent_stop_words=("###STOP###",),
        decide=lambda ended: (False,) * world.num_checks,
    )
    talk = Talk(episode_task(row["domain"], entry), world)
    try:
        talk.open(user)
        for text, made in itertools.cycle(row["agent"]):
            if talk.reason is not None:
                break
            talk.hear(Action(calls(made), text or ""))
    except UserFailed as error:
        return talk, str(error)
    return talk, ""


@needs_rows
@pytest.mark.slow
def test_the_official_orchestrators_scripts():
    """Reason, steps, errors and dialogue. In 54 scripts somebody says nothing, which raised officially: no row to compare."""
    held = {name: {one["id"]: one for one in golden_files().json(name, "tasks.json")} for name in ("mock", "telecom")}
    reasons = Counter()
    for row in rows("orchestrator"):
        talk, failure = scripted_talk(row, held[row["domain"]][row["task"]])
        if "raises" in row:
            nothing = "User" in row["raises"]
            assert failure == "the user said nothing" or (not nothing and talk.errors), row["id"]
            continue
        assert not failure or "over before the agent spoke" in failure, row["id"]
        assert (str(talk.reason), talk.steps, talk.errors) == (row["term"], row["steps"], row["errors"]), row["id"]
        assert list(map(printed, talk.lines)) == row["traj"], row["id"]
        reasons[row["term"]] += 1
    endings = {
        "max_steps": 94,
        "user_stop": 96,
        "too_many_errors": 103,
        "user_error": 9,
        "agent_error": 18,
        "agent_stop": 26,
    }
    assert reasons == endings


@pytest.mark.parametrize(
    "named, tools, told",
    [
        ({}, ["check_notifications", "dismiss_notification"], "Speak or look."),
        ({"user_tools": None}, ["check_notifications", "dismiss_notification"], "Speak or look."),
        ({"user_tools": ["dismiss_notification"]}, ["dismiss_notification"], "Speak or look."),
        ({"user_tools": []}, [], "Speak."),
    ],
)
def test_a_served_user_is_offered_the_tools_that_its_task_names(files, named, tools, told):
    with chat_server(say("Hello.")) as (url, requests):
        user = served_user(files, "mock", Endpoint(url=url, model="u"), seed=0)
        assert user(Heard(episode_task("mock", entry(**named)), (Line(AGENT, "Hi."),))) == Spoken("Hello.")
        (asked,) = requests
    assert [one["function"]["name"] for one in asked.get("tools", ())] == tools
    assert asked["messages"][0]["content"].startswith(f"{told}\n\n<scenario>")


def test_a_users_row_has_the_tools_that_its_task_names(files):
    task = episode_task("mock", entry(user_tools=["dismiss_notification"]))
    domain = tau2("mock", files, scripted([Spoken("Thanks. ###STOP###")]))
    record = play(domain, task, 0, lambda messages: Said("Hi.", Action(answer="Hi.")))
    (tool,) = user_chat(record, task, domain)["tools"]
    assert tool["function"]["name"] == "dismiss_notification"


# ----------------------------------------------------------------------------------- what is learned from
def test_both_sides_of_a_recorded_dialogue_are_written(files):
    """A task of tau2-bench has no turns: the words are the record's, the tools and instructions the domain's."""
    (raw,) = entries(files, "mock", "base")
    task = episode_task("mock", raw)
    look = Spoken(calls=(Call("check_notifications", {}),))
    domain = tau2("mock", files, scripted([Spoken("Hello."), look, Spoken("Thanks. ###STOP###")]))
    said = iter([Said("", Action((CREATE,))), Said("Call Bob", Action(answer="Call Bob"))])
    record = play(domain, task, 0, lambda messages: next(said))
    assert (record.failure, record.ended) == ("", "user_stop")
    agent, user = chat(record, task, domain), user_chat(record, task, domain)
    roles = [one["role"] for one in agent["messages"]]
    assert roles == ["system", "assistant", "user", "assistant", "tool", "assistant", "user"]
    assert [one["content"] for one in agent["messages"][::6]] == [
        "<instructions>\nHelp.\n</instructions>\n<policy>\nBe exact.\n</policy>",
        "Thanks. ###STOP###",
    ]
    assert [one["role"] for one in user["messages"]] == [
        *("system", "user", "assistant", "user", "assistant", "tool", "assistant")
    ]
    assert user["messages"][4]["tool_calls"][0]["function"]["name"] == "check_notifications"
    assert "Have Ada call Bob." in user["messages"][0]["content"] and user["user_errors"] == 0
    assert domain.reading.tau2_entry(task) == raw
