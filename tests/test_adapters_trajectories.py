"""Played episodes as chat messages and as ATIF: complete, valid, and the same from a run and from an evaluation."""

import json
import random
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rich.console import Console
from rollout_toy import TASKS
from training_toy import CONFIG, few_tasks
from worlds_toy import asked, rubric

from rods_jax import config as configuration
from rods_jax.adapters import trajectories
from rods_jax.codecs import qwen
from rods_jax.codecs.documents import function_schema
from rods_jax.codecs.tokenizer import train_tokenizer
from rods_jax.commands.convert import convert
from rods_jax.dialogue import Said, Stop, gold_player, play
from rods_jax.environments import toolkit
from rods_jax.environments.conversation import Conversation, Spoken, conversations
from rods_jax.environments.protocol import Domain
from rods_jax.environments.workplace import WORKPLACE
from rods_jax.metrics import open_metrics
from rods_jax.older import LAYOUT
from rods_jax.rewards import CALL_FAILED, CALLED, PARSE_ERROR, TURN_FAILED
from rods_jax.run.evaluating import evaluate
from rods_jax.run.splits import Evaluation
from rods_jax.strict_json import JsonError
from rods_jax.synthesis.pipeline import author_tasks
from rods_jax.task_files import task_to_json, write_tasks
from rods_jax.types import Action, Call, Observation, Step, ToolSpec, Trajectory

CONFIG_FILE = Path(__file__).parent / "training_toy.py"
WITHHELD = next(task for task in TASKS if task.withheld_tools)
RECORDS = [play(WORKPLACE, task, 0, gold_player(task)) for task in TASKS]
BAD = [  # every way in which a message goes wrong
    Said("??", Action(error="it cannot be read")),
    Said("", Action(calls=(Call("no_such_tool"), Call("find_ticket", {"title": "\ud800"})))),
    Said("half", Action(calls=(Call("find_ticket", {}),), error="the rest cannot be read")),
    Said("I give up \ud800.", Action(answer="I give up."), 3, "hm"),
]


def bad_record(task=TASKS[0]):
    said = iter(BAD)
    return play(WORKPLACE, task, 1, lambda messages: next(said, Stop("too long")))


def check_chat(line, record):
    """What OpenAI's endpoints ask of messages: every call is answered, at once and in order, and every answer is one's."""
    open_calls, seen = [], set()
    for message in line["messages"]:
        if message["role"] == "tool":
            assert message["tool_call_id"] == open_calls.pop(0) and isinstance(message["content"], str)
            continue
        assert not open_calls and message["role"] in ("user", "assistant") and isinstance(message["content"], str)
        for call in message.get("tool_calls", ()):
            assert call["type"] == "function" and isinstance(json.loads(call["function"]["arguments"]), dict)
            open_calls.append(call["id"])
            assert call["id"] not in seen and len(call["id"]) == 9
            seen.add(call["id"])
    assert not open_calls and line["messages"][0]["role"] == "user"
    assert sum(one["role"] == "assistant" for one in line["messages"]) == len(record.moves)


KEYS = {  # of ATIF 1.7, as its reference models have them: required and allowed
    "trajectory": (
        {"schema_version", "agent", "steps"},
        {"session_id", "trajectory_id", "final_metrics", "notes", "extra", "continued_trajectory_ref"},
    ),
    "agent": ({"name", "version"}, {"model_name", "tool_definitions", "extra"}),
    "step": ({"step_id", "source", "message"}, {"observation", "llm_call_count", "extra", "timestamp"}),
    "agent step": ({"step_id", "source", "message"}, {"tool_calls", "observation", "reasoning_content", "llm_call_count",
                   "extra", "metrics", "timestamp", "model_name"}),
    "call": ({"tool_call_id", "function_name", "arguments"}, {"extra"}),
    "result": (set(), {"source_call_id", "content", "extra"}),
    "metrics": (set(), {"total_prompt_tokens", "total_completion_tokens", "total_steps", "extra"}),
}  # fmt: skip


def check_keys(kind, value):
    required, allowed = KEYS[kind]
    assert required <= set(value) <= required | allowed, (kind, value)


def check_atif(line):
    check_keys("trajectory", line)
    check_keys("agent", line["agent"])
    check_keys("metrics", line["final_metrics"])
    assert line["schema_version"] == "ATIF-v1.7" and line["final_metrics"]["total_steps"] == len(line["steps"])
    for number, step in enumerate(line["steps"], start=1):
        check_keys("agent step" if step["source"] == "agent" else "step", step)
        assert step["step_id"] == number and step["source"] in ("user", "agent") and isinstance(step["message"], str)
        ids = [call["tool_call_id"] for call in step.get("tool_calls", ())]
        for call in step.get("tool_calls", ()):
            check_keys("call", call)
            assert isinstance(call["arguments"], dict)
        for result in step.get("observation", {"results": ()})["results"]:
            check_keys("result", result)
            assert isinstance(result["content"], str) and result.get("source_call_id", "call00000")[:4] == "call"
            assert "source_call_id" not in result or result["source_call_id"] in ids


# ------------------------------------------------------------------------------------- the forms
@pytest.mark.parametrize("record", [*RECORDS, bad_record()], ids=lambda one: f"{one.task_id}-{one.rollout}")
def test_every_episode_is_valid_in_both_forms(record):
    task = next(task for task in TASKS if task.id == record.task_id)
    check_chat(trajectories.chat(record, task, WORKPLACE), record)
    check_atif(trajectories.atif(record, task, WORKPLACE, session="s", model="m"))


def test_the_packages_own_models_take_the_documents():
    models = pytest.importorskip("harbor.models.trajectories", reason="harbor, which defines ATIF, needs Python 3.12")
    for record in [*RECORDS, bad_record()]:
        task = next(task for task in TASKS if task.id == record.task_id)
        document = trajectories.atif(record, task, WORKPLACE, session="s")
        model = models.Trajectory.model_validate_json(
            json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
        )
        assert len(model.steps) == len(document["steps"])


def test_gold_is_what_a_chat_holds():
    (record,) = [one for one in RECORDS if one.task_id == WITHHELD.id]
    line = trajectories.chat(record, WITHHELD, WORKPLACE)
    users = [message["content"] for message in line["messages"] if message["role"] == "user"]
    assert [text.split("\n")[-1] for text in users] == [turn.user for turn in WITHHELD.turns]
    calls = [
        Call(call["function"]["name"], json.loads(call["function"]["arguments"]))
        for message in line["messages"]
        for call in message.get("tool_calls", ())
    ]
    assert calls == [call for turn in WITHHELD.turns for call in turn.gold]
    (late,) = WITHHELD.withheld_tools
    assert late not in {tool["function"]["name"] for tool in line["tools"]}
    (released,) = [text for text in users if "\n" in text]  # as the policy reads it, with the tool before the words
    assert json.loads(released.split("\n")[0]) == function_schema(WORKPLACE.tools[late])


def test_what_went_wrong_is_told():
    record = bad_record()
    assert [move.code for move in record.moves] == [PARSE_ERROR, CALL_FAILED, CALL_FAILED, TURN_FAILED]
    messages = trajectories.chat(record, TASKS[0], WORKPLACE)["messages"]
    assert [one["role"] for one in messages] == [
        *("user", "assistant", "user", "assistant", "tool", "tool", "assistant", "tool", "user", "assistant")
    ]
    assert messages[8]["content"] == "Error: the rest cannot be read." and messages[9]["reasoning_content"] == "hm"
    document = trajectories.atif(record, TASKS[0], WORKPLACE, session="s")
    assert [step["extra"]["event"] for step in document["steps"] if step["source"] == "agent"] == [
        *("parse_error", "call_failed", "call_failed", "turn_failed")
    ]
    assert document["extra"]["truncated"] == "too long" and document["final_metrics"]["total_completion_tokens"] == 3
    unrun = replace(record, moves=(replace(record.moves[1], observations=()),))
    check_chat(trajectories.chat(unrun, TASKS[0], WORKPLACE), unrun)
    check_atif(trajectories.atif(unrun, TASKS[0], WORKPLACE, session="s"))


def test_a_world_of_another_kind_is_written_too():
    essay, task = rubric({"whale": 1, "sea": 1}), asked("e", "Tell.", "essay")
    said = iter([Said("A whale.", Action(answer="A whale.")), Said("The sea.", Action(answer="The sea."))])
    record = play(essay, task, 0, lambda messages: next(said))
    line = trajectories.chat(record, task, essay)
    assert [one["content"] for one in line["messages"]] == ["Tell.", "A whale.", "The sea."] and line["tools"] == []
    check_atif(trajectories.atif(record, task, essay, session="s"))


def test_what_a_world_says_at_its_start_is_written_as_the_policy_read_it():
    essay, task, read = rubric({"whale": 1, "sea": 1}), asked("e", "Tell.", "essay"), []

    def start(tasks, rules):
        batch = essay.start(tasks, rules)
        return batch._replace(openings=tuple(one._replace(user=f"{one.user}\n\nIt rains.") for one in batch.openings))

    def act(messages):
        read.extend(one.content for one in messages)
        return Said("A whale.", Action(answer="A whale."))

    rainy = essay._replace(start=start)
    record = play(rainy, task, 0, act)
    chat, document = trajectories.chat(record, task, rainy), trajectories.atif(record, task, rainy, session="s")
    assert read[0] == chat["messages"][0]["content"] == document["steps"][0]["message"] == "Tell.\n\nIt rains."


def test_a_conversation_of_ones_own_is_written_with_its_policy_text_its_greeting_and_its_tools():
    lamp = ToolSpec("light", "Lights the lamp.", {"type": "object", "properties": {}, "required": []}, "Room")
    words = iter(["It is dark.", "Thank you. ###STOP###", "You ask me again, and I say something else."])

    def make(task):
        user, light = lambda heard: Spoken(next(words)), lambda who, call: Observation("lit")
        return Conversation((lamp,), user, light, 1, lambda ended: (True,), policy="Be kind.")

    room = Domain("room", {}, toolkit.simulator({}), start=conversations(make))
    said = iter([Said("", Action((Call("light"),))), Said("It is lit.", Action(answer="It is lit."))])
    record = play(room, (task := asked("r", "Wish.", "room")), 0, lambda messages: next(said))
    line = trajectories.chat(record, task, room)
    assert [(one["role"], one["content"], one.get("weight")) for one in line["messages"]] == [
        ("system", "Be kind.", None),
        ("assistant", "Hi! How can I help you today?", 0),
        ("user", "It is dark.", None),
        ("assistant", "", None),
        ("tool", "lit", None),
        ("assistant", "It is lit.", None),
        ("user", "Thank you. ###STOP###", None),
    ]
    assert line["tools"] == [function_schema(lamp)]


# ------------------------------------------------------------------------------------- the command
@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory as far as the command reads it: two gold rollouts, one of a variant, and one that failed."""
    directory = tmp_path_factory.mktemp("runs") / "toy"
    (directory / "tasks").mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps({"layout": LAYOUT} | configuration.plain_values(CONFIG)))
    train_tokenizer(["find the report"], vocab_size=CONFIG.model.vocab_size).save_pretrained(directory / "tokenizer")
    tasks = few_tasks(WORKPLACE, 0)
    for part, some in tasks._asdict().items():
        write_tasks(directory / "tasks" / f"{part}.jsonl", some)
    first, variant = tasks.seeds[0], replace(tasks.seeds[1], id="variant")
    with open_metrics(directory / "candidates.jsonl") as write:
        write(1, {"seed": "s", "candidate": None})
        write(1, {"seed": "s", "candidate": task_to_json(variant)})
    with open_metrics(directory / "trajectories.jsonl") as write:
        for task in (first, variant):
            record = play(WORKPLACE, task, 0, gold_player(task))
            steps = tuple(
                Step(move.turn, qwen.write(move.calls) if move.calls else "Done.", move.code, move.observations)
                for move in record.moves
            )
            write(1, asdict(Trajectory(task.id, 0, record.rods, steps)))
        lost = Step(0, qwen.write(first.turns[0].gold), CALLED, ("x",))
        write(11, asdict(Trajectory(first.id, 1, (False,), (lost,), truncated="full")))
        write(11, asdict(Trajectory(first.id, 2, (False,), (), failure="it fell")))
    with (directory / "journal.jsonl").open("w") as file:
        records = [play(WORKPLACE, task, 0, gold_player(task)) for task in tasks.held_out]
        file.writelines(
            json.dumps(line) + "\n" for line in [{"player": "gold"}, *map(asdict, records), asdict(records[0])]
        )
    return directory


def lines_of(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_run_is_converted(run, tmp_path, capsys):
    convert("chat", tmp_path / "chat.jsonl", run, config=CONFIG_FILE, passed=True)
    assert "2 of 4 episodes" in capsys.readouterr().out
    convert("atif", tmp_path / "atif.jsonl", run, config=CONFIG_FILE)
    chats, documents = lines_of(tmp_path / "chat.jsonl"), lines_of(tmp_path / "atif.jsonl")
    seed = few_tasks(WORKPLACE, 0).seeds[0]
    assert chats[0] == trajectories.chat(play(WORKPLACE, seed, 0, gold_player(seed)), seed, WORKPLACE)
    assert [one["extra"]["task_id"] for one in documents] == [seed.id, "variant", seed.id]
    assert documents[2]["extra"]["truncated"] == "full"
    for document in documents:
        check_atif(document)
    with pytest.raises(ValueError, match="is there already"):
        convert("chat", tmp_path / "chat.jsonl", run, config=CONFIG_FILE)


def test_an_evaluation_is_converted(run, tmp_path):
    convert("atif", tmp_path / "atif.jsonl", run, run / "journal.jsonl", config=CONFIG_FILE)
    documents = lines_of(tmp_path / "atif.jsonl")
    assert len(documents) == 4 and all(one["final_metrics"]["extra"]["progress"] == 1 for one in documents)


def test_an_evaluation_of_other_tasks_of_the_same_names_is_refused(run, tmp_path):
    # Authored tasks of two seeds have the same ids: the words of one would stand beside the calls of the other.
    for seed in (0, 1):
        options = {"tasks": "workplace", "num_tasks": 4, "split_seed": seed, "out": tmp_path / str(seed)}
        evaluate(Evaluation(player="gold", **options), Console(quiet=True))
    convert("chat", tmp_path / "same.jsonl", journal=tmp_path / "0" / "journal.jsonl", tasks="workplace")
    words = [line["messages"][0]["content"] for line in lines_of(tmp_path / "same.jsonl")]
    assert words == [task.turns[0].user for task in author_tasks(WORKPLACE, count=4, rng=random.Random("evaluation/0"))]
    for where in ({"tasks": "workplace"}, {"run_dir": run, "config": CONFIG_FILE}):
        with pytest.raises(ValueError, match="is of workplace, seed 1, whose tasks are not those that are named here"):
            convert("chat", tmp_path / "other.jsonl", journal=tmp_path / "1" / "journal.jsonl", **where)
    assert not (tmp_path / "other.jsonl").exists()


def test_damage_is_named(run, tmp_path):
    path = tmp_path / "trajectories.jsonl"
    for line, words in [
        ({"step": 1, "task_id": "t", "rollout": 0, "turns_passed": [], "steps": []}, "line 1.*passed"),
        ({"step": 1, "task_id": "t", "rollout": 0, "passed": [True], "steps": [{"turn": 0}]}, "line 1: no step"),
    ]:
        path.write_text(json.dumps(line) + "\n")
        with pytest.raises(JsonError, match=words):
            trajectories.read_run(path, qwen.parse)
    path.write_text('{"player": "x"}\n{"task_id": "t"}\n')
    with pytest.raises(JsonError, match="line 2: no record"):
        trajectories.read_evaluation(path)
    with pytest.raises(ValueError, match="which is none of the 0 given"):
        trajectories.export(tmp_path / "out", RECORDS, [], WORKPLACE, trajectories.chat)
    export = trajectories.export(tmp_path / "out", [bad_record()], TASKS, WORKPLACE, trajectories.chat)
    assert export == 1 and "I give up ?." in (tmp_path / "out").read_text("utf-8")
