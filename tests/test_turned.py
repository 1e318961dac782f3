"""The user's side: a policy learns there to be the user, from rows that hold what a user reads, says and calls."""

import json
import random
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import jax
import pytest

from models.decoder import DecoderConfig
from rods_jax import config as configuration
from rods_jax import run
from rods_jax.adapters.trajectories import chat, formed, user_chat
from rods_jax.chat import Request
from rods_jax.chat_rows import chosen
from rods_jax.codecs.documents import tool_name
from rods_jax.codecs.qwen import qwen_codec
from rods_jax.codecs.tokenizer import checkpoint_tokenizer, train_tokenizer
from rods_jax.commands.convert import convert
from rods_jax.config import ConfigError, Habits, from_file
from rods_jax.demonstrations import corpus, demonstrate
from rods_jax.dialogue import demonstrator_player, play
from rods_jax.environments.conversation import AGENT, STOP, TRANSFER, USER, Heard, Line
from rods_jax.environments.episode import start_episodes
from rods_jax.environments.helpdesk.domain import HELPDESK, customer, helpdesk
from rods_jax.environments.helpdesk.errors import user_errors
from rods_jax.environments.helpdesk.faults import compositions
from rods_jax.environments.helpdesk.tasks import build, make_task, of_customer
from rods_jax.environments.helpdesk.user import Dials
from rods_jax.environments.helpdesk.world import USER_TOOLS, composition_of
from rods_jax.environments.protocol import TaskSplits
from rods_jax.environments.tau2 import data
from rods_jax.environments.turned import agent_by
from rods_jax.environments.workplace import WORKPLACE
from rods_jax.keys import seed_key
from rods_jax.older import LAYOUT
from rods_jax.policy_chat import _encode
from rods_jax.run.played import begun_with, newest
from rods_jax.run.users import with_user
from rods_jax.task_files import write_tasks
from rods_jax.types import Action, Call
from scripts.user_errors import measured

ROOT = Path(__file__).parent.parent
ERRS = Dials(ignores=0.06, misreads=0.1, acts_unasked=0.05, stops_early=0.03, invents=0.06)
TASKS = [make_task(one, random.Random(n)) for n, one in enumerate(random.Random(3).sample(compositions(3), 40))]
DESK = helpdesk(ERRS)
RECORDS = [play(DESK, task, 0, demonstrator_player(DESK, task)) for task in TASKS]
CODEC = qwen_codec(train_tokenizer(corpus(customer(ERRS), TASKS), vocab_size=512), tool_name)


# ------------------------------------------------------------------------------------------ rows
def test_a_users_row_holds_the_tokens_that_its_side_learns():
    """The row of a recorded conversation and the turned domain's demonstration are one text."""
    side = customer(ERRS)
    for task, record in zip(TASKS, RECORDS):
        row = user_chat(record, task, DESK)
        demo = demonstrate(side, task, CODEC, Habits(), random.Random(0))
        whole = row["messages"]
        assert [one["role"] for one in whole[:3]] == ["system", "user", "assistant"]
        assert whole[-1]["role"] == "assistant" and len(row["tools"]) == len(USER_TOOLS)
        said = CODEC.encode_action((), whole[-1]["content"])
        asked = _encode(CODEC, Request(tuple(whole[:-1]), tuple(row["tools"])))
        assert [*asked, *said] == demo.prompt + demo.suffix
        assert demo.passed == (all(row["passed"]), row["user_errors"] == 0)


def test_an_agents_row_holds_the_tokens_that_its_side_learns():
    for task, record in zip(TASKS[:10], RECORDS):
        row = chat(record, task, DESK)
        demo = demonstrate(DESK, task, CODEC, Habits(), random.Random(0))
        system, greeting, user, *later = row["messages"]
        assert greeting["weight"] == 0 and not any("weight" in one for one in later)
        opening = [greeting["content"], user["content"], system["content"]]
        (found,) = start_episodes(DESK, [task]).openings
        assert opening == [found.greeting, found.user, found.policy]
        texts = [one["content"] for one in later if one["role"] in ("user", "tool")]
        assert not any(text.startswith("user") for text in texts)  # of the user's side the words alone are heard
        *_, last = (one for one in later if one["role"] == "assistant")
        tokens = CODEC.encode_action((), last["content"])
        assert demo.suffix[-len(tokens) :] == tokens and len(row["tools"]) == 15


def test_of_many_conversations_the_flawless_ones_are_kept_and_the_rest_is_counted():
    found = chosen(formed(RECORDS, TASKS, DESK, user_chat), faultless_user=True)
    assert sum(found.counts.values()) == len(TASKS) and set(found.counts) == {"kept", "failed", "user_erred"}
    solved = sum(all(record.rods) for record in RECORDS)
    assert found.counts["kept"] + found.counts["user_erred"] == solved and 0 < found.counts["kept"] < solved
    assert chosen(formed(RECORDS, TASKS, DESK, chat)).counts["kept"] == solved


def test_a_domain_that_says_nothing_of_its_users_is_refused():
    with pytest.raises(ValueError, match="nothing is known of the users of workplace"):
        user_chat(RECORDS[0], TASKS[0], WORKPLACE)
    with pytest.raises(ValueError, match="workplace has no demonstrator"):
        demonstrator_player(WORKPLACE, TASKS[0])


# ------------------------------------------------------------------------------------ the other side
def test_the_user_is_the_one_who_learns_and_the_agent_answers():
    side, task = customer(), TASKS[0]
    (opening,) = start_episodes(side, [task]).openings
    assert opening.tools == USER_TOOLS and opening.user == "Hello, how can I help?" and opening.greeting == ""
    assert opening.policy.endswith(task.turns[0].user) and opening.num_checks == 2
    batch = start_episodes(side, [task])
    assert batch.act({0: Action((Call("get_account", {"account": 1}),))})[0].observations == (
        "Error: get_account is a tool of the other side",
    )
    left = batch.act({0: Action(answer="I must go. ###STOP###")})[0]
    assert left.done and left.passed == (False, False) and left.ended == "agent_stop"


def test_a_user_without_errors_passes_both_checks_of_its_side():
    for task in TASKS:
        record = play(customer(), task, 0, demonstrator_player(customer(), task))
        assert record.rods == (True, True), task.id


def test_errors_are_counted_on_either_side_alike():
    side = customer(ERRS)
    assert side.reading is not None
    records = [play(side, task, 0, demonstrator_player(side, task)) for task in TASKS]
    found = measured(TASKS, [replace(records[0], failure="it fell"), *records[1:]])
    made = [
        len([*user_errors(task, record.lines, (STOP, TRANSFER))]) for task, record in zip(TASKS[1:], RECORDS[1:])
    ]  # in the help desk itself
    assert found["errors"]["mean"] == pytest.approx(sum(made) / 39) and found["flawless"]["mean"] == made.count(0) / 39
    assert (found["conversations"], found["broke"]) == (39, 1)
    with pytest.raises(ValueError, match="every conversation broke, the first by it fell"):
        measured(TASKS[:1], [replace(records[0], failure="it fell")])


def test_an_agent_says_again_what_it_said_and_goes_on():
    agent = agent_by(HELPDESK.demonstrator)
    first = Line(AGENT, TASKS[0].turns[0].user)
    spoken = agent(Heard(TASKS[0], (first,)))
    assert [call.name for call in spoken.calls] == ["get_account"]
    lines = first, Line(USER, "", spoken.calls), Line(USER, "status active, owes 0", result=True)
    assert [call.name for call in agent(Heard(TASKS[0], lines)).calls] == ["test_line"]


def test_a_customers_gold_is_what_the_customer_calls():
    suspended = next(task for task in map(of_customer, [make_task(one, random.Random(0)) for one in compositions(1)])
                     if composition_of(task).faults == ("suspended",))  # fmt: skip
    assert [call.name for call in suspended.turns[0].gold] == ["pay_bill", "restart_router"]


# -------------------------------------------------------------------------------------- the command
@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A run directory of the help desk as far as the command reads it, and an evaluation's journal."""
    directory = tmp_path_factory.mktemp("runs") / "helpdesk"
    (directory / "tasks").mkdir(parents=True)
    own = from_file(ROOT / "configs/helpdesk.py")
    (directory / "config.json").write_text(json.dumps({"layout": LAYOUT} | configuration.plain_values(own)))
    train_tokenizer([], vocab_size=512).save_pretrained(directory / "tokenizer")
    for part, some in TaskSplits(TASKS[:20], TASKS[20:35], TASKS[35:], ())._asdict().items():
        write_tasks(directory / "tasks" / f"{part}.jsonl", tuple(some))
    with (directory / "journal.jsonl").open("w") as file:
        file.writelines(json.dumps(line) + "\n" for line in [{"player": "p"}, *map(asdict, RECORDS)])
    return directory


def test_the_users_side_is_exported_and_counted(directory, tmp_path, capsys):
    to = partial(
        convert, "chat", run_dir=directory, journal=directory / "journal.jsonl", config=ROOT / "configs/helpdesk.py"
    )
    to(tmp_path / "user.jsonl", side="user", passed=True)
    said = " ".join(capsys.readouterr().out.split())
    rows = [json.loads(line) for line in (tmp_path / "user.jsonl").read_text().splitlines()]
    assert f"{len(rows)} of 40 episodes (left out: " in said and "user_erred" in said and "failed" in said
    assert chosen(rows, faultless_user=True).counts == {"kept": len(rows)}
    to(tmp_path / "turns.jsonl", side="user", passed=True, each_turn=True)
    count = sum(one["role"] == "assistant" for row in rows for one in row["messages"])
    parts = [json.loads(line) for line in (tmp_path / "turns.jsonl").read_text().splitlines()]
    assert len(parts) == count and all(part["messages"][-1]["role"] == "assistant" for part in parts)
    with pytest.raises(ValueError, match="of --to chat alone"):
        convert("atif", tmp_path / "no.jsonl", directory, side="user")


def test_tasks_are_exported_as_tau2_bench_has_them_and_read_back(directory, tmp_path, capsys):
    convert("tau2", tmp_path / "out", directory, config=ROOT / "configs/helpdesk.py")
    assert "40 tasks, 25 to train on and 15 to test on" in " ".join(capsys.readouterr().out.split())
    files = data.find([tmp_path / "out"])
    assert [task.id for task in data.tasks(files, "helpdesk", "test")] == [task.id for task in TASKS[20:35]]
    for task, read in zip(TASKS[:5], data.tasks(files, "helpdesk", "train")):
        assert read.start.agent_data == task.world.state["Desk"] and read.start.user_data == task.world.state["Home"]
        sides = {"assistant": AGENT, "user": USER}
        assert read.criteria.basis == ("DB",) and task.turns[0].user in read.instructions["reason_for_call"]
        played = [(sides[one.side], Call(one.name, one.arguments)) for one in read.criteria.actions]
        assert [call for who, call in played if who == AGENT] == [*task.turns[0].gold]
    for part in ({"passed": True}, {"tasks": "workplace"}, {"journal": directory / "journal.jsonl"}):
        with pytest.raises(ValueError, match="--to tau2 writes all tasks of a run"):
            convert("tau2", tmp_path / "some", directory, config=ROOT / "configs/helpdesk.py", **part)
    with pytest.raises(ValueError, match="is there already"):
        convert("tau2", tmp_path / "out", directory, config=ROOT / "configs/helpdesk.py")


# ------------------------------------------------------------------------------- a run that is its cold start
def few(domain, seed):
    tasks = build(random.Random(seed), max_faults=2, seeds=4, held_out=4, validation=4, practice=60)
    return TaskSplits(*(tuple(map(of_customer, part)) for part in tasks))


@pytest.mark.slow
def test_a_run_may_be_its_cold_start_alone_and_then_speaks_for_users(tmp_path):
    own = from_file(ROOT / "configs/helpdesk_user.py")
    sizes = replace(own.cold_start, max_steps=3, evaluate_every=3, suffix_sizes=(160,), batch_size=4)
    small = replace(
        own, run_dir=str(tmp_path / "user"), build_tasks=few, cold_start=sizes,
        model=DecoderConfig(512, 1, 16, 2, 1, 8, 16), rollout=replace(own.rollout, max_suffix_tokens=64, max_action_tokens=8),
        evaluation=replace(own.evaluation, num_tasks=4),
    )  # fmt: skip
    summary = run.train(small)
    assert summary and json.loads((tmp_path / "user/cold_start.json").read_text())["steps"] == 3
    # Another run begins with its weights and its tokenizer.
    tuned = replace(small, learner=partial(begun_with, small.run_dir, small.learner))
    learner = tuned.learner(tuned)(len(checkpoint_tokenizer([], directory=tmp_path / "user/tokenizer")))
    step, params = newest(tmp_path / "user", learner)
    begun = learner.policy.init(seed_key(1))
    same = jax.tree.map(lambda a, b: bool((a == b).all()), params, begun)
    assert step == 0 and not learner.random_weights and all(jax.tree.leaves(same))
    # Its policy speaks for users: the domain is a help desk like any other, and an untrained user's errors are its own.
    desk = with_user(helpdesk, small.run_dir)
    record = play(desk, TASKS[0], 0, demonstrator_player(HELPDESK, TASKS[0]))
    assert record.failure == "" or "over before the agent spoke: user_error" in record.failure  # it said nothing twice
    assert desk.demonstrator is None
    with pytest.raises(ConfigError, match="no run in nowhere: train the model that speaks for the user first"):
        with_user(helpdesk, "nowhere")
    with pytest.raises(ConfigError, match="no run in nowhere, whose policy this one begins with"):
        begun_with("nowhere", small.learner, small)
