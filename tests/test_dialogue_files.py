"""Recorded dialogues: which are learned from, which of their tokens carry loss, and whose token ids these are."""

import json
import random
from dataclasses import replace
from functools import partial

import pytest
from rollout_toy import TOKENIZER
from training_toy import CONFIG, few_tasks

from rods_jax.adapters import trajectories
from rods_jax.checks import check_start
from rods_jax.codecs.documents import function_schema
from rods_jax.codecs.qwen import qwen_codec, write
from rods_jax.config import ColdStartConfig, ConfigError, Habits
from rods_jax.demonstrations import demonstrate, demonstration_of
from rods_jax.dialogue import Said, gold_player, play
from rods_jax.dialogue_files import recorded
from rods_jax.environments.helpdesk.demonstrator import demonstrator
from rods_jax.environments.helpdesk.domain import HELPDESK
from rods_jax.environments.helpdesk.faults import Composition
from rods_jax.environments.helpdesk.tasks import make_task
from rods_jax.environments.protocol import TaskSplits
from rods_jax.environments.workplace import WORKPLACE
from rods_jax.strict_json import JsonError
from rods_jax.synthesis.pipeline import author_tasks
from rods_jax.types import Call, ToolSpec

CODEC = qwen_codec(TOKENIZER)
LAMP = ToolSpec("light", "Lights it.", {"type": "object", "properties": {"n": {"type": "integer"}}}, "")
CALL = {"id": "c0", "type": "function", "function": {"name": "light", "arguments": '{"n": 3}'}}
MESSAGES = [
    {"role": "system", "content": "Be kind."},
    {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": "Light two of them."},
    {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]},
    {"role": "tool", "tool_call_id": "c0", "content": "lit"},
    {"role": "tool", "tool_call_id": "c0", "content": "lit again"},
    {"role": "assistant", "content": "Done."},
    {"role": "user", "content": "Thanks."},
]
EMPTY = TaskSplits((), ())


def line(messages=MESSAGES, **labels):
    return {"messages": messages, "tools": [function_schema(LAMP)], **labels}


@pytest.fixture
def read(tmp_path):
    def read(*lines, tasks=EMPTY, **options):
        path = tmp_path / "dialogues.jsonl"
        path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines) + "\n")
        return recorded(tasks, path=path, **options)

    return read


# -------------------------------------------------------------------------------------------- which
def test_success_alone_is_learned_and_all_else_is_counted(read):
    good = [
        line(passed=[True, True]),
        line(reward=1.0),
        line(correct=True),
        line(reward=1, correct=True, passed=[True]),
    ]
    bad = [line(passed=[True, False]), line(reward=0.5), line(passed=[])]
    odd = [line(reward=1.0, correct=False), line(reward=0.0, correct=True), line()]
    unreadable = [line([*MESSAGES[:3], {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}], reward=1),
                  line([*MESSAGES[:3], {"role": "assistant", "content": " "}], reward=1)]  # fmt: skip
    found = read(*good, *bad, *odd, *unreadable)
    assert len(found.dialogues) == 4 and len(set(map(repr, found.dialogues))) == 1
    assert found.left_out == {"failed": 3, "conflict": 2, "unlabelled": 1, "unreadable": 2}
    every = read(*good, *bad, *odd, success_only=False)
    assert [one.passed for one in every.dialogues] == [True] * 4 + [False] * 3
    assert every.sha256 != found.sha256  # other lines: a cold start that goes on with them is refused
    assert every.left_out == {"conflict": 2, "unlabelled": 1}


def test_a_dialogue_without_a_message_that_is_learned_is_left_out(read):
    """A batch of such rows alone would have the loss 0 / 0."""
    silent = [one | {"weight": 0} if one["role"] == "assistant" else one for one in MESSAGES]
    last = [*MESSAGES[:-2], MESSAGES[-2] | {"weight": 0}]
    found = read(line(silent, reward=1), line(last, reward=1), line(reward=1))
    assert found.left_out == {"without a message that is learned": 1} and len(found.dialogues) == 2
    assert read(line(last, reward=1), line(reward=1), last_turn_only=True).left_out == found.left_out


def test_measured_tasks_teach_nothing(read):
    tasks = author_tasks(WORKPLACE, count=2, rng=random.Random(0))
    splits = TaskSplits((), held_out=tasks[:1], validation=tasks[1:])
    found = read(line(reward=1, task_id=tasks[1].id), line(reward=1, task_id="another"), tasks=splits)
    assert len(found.dialogues) == 1 and found.left_out == {"of validation tasks": 1}
    with pytest.raises(ConfigError, match=f"line 1: the dialogue is of the held-out task {tasks[0].id}"):
        read(line(reward=1, task_id=tasks[0].id), tasks=splits)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("{", "line 2.*not JSON"),
        ("[]", "line 2: it must be an object"),
        (line(reward="yes"), "line 2: reward must be a number"),
        (line([{"role": "ghost", "content": "x"}], reward=1), "line 2: a message has a role of system"),
        (line(MESSAGES[3:], reward=1), "line 2: before the first words of the user"),
        (line(MESSAGES[:3], reward=1), "line 2: no message of the agent follows"),
        (line([*MESSAGES[:4], MESSAGES[6]], reward=1), "line 2: two messages of the agent follow"),
        (line([*MESSAGES, MESSAGES[0], MESSAGES[6]], reward=1), "line 2: a system message stands after"),
        (line(reward=1) | {"tools": [{"name": "x"}]}, "line 2: it lacks the key function"),
        (line(reward=1) | {"tools": 5}, "line 2: tools must be a list"),
        (
            line(reward=1) | {"tools": [{"function": {"name": "f", "description": ["x"]}}]},
            "line 2: description must be a str",
        ),
        (
            line(reward=1) | {"tools": [{"function": {"name": "f", "parameters": "n"}}]},
            "line 2: parameters must be an obj",
        ),
        (line(reward=1, task_id=["t"]), "line 2: task_id must be a name or a number"),
        (line(reward=1, task_id="t", rollout={}), "line 2: rollout must be a name or a number"),
    ],
)
def test_what_is_no_dialogue_is_named_by_its_line(read, broken, words):
    with pytest.raises(JsonError, match=words):
        read(line(reward=1), broken)


def test_a_start_says_what_it_learns_from_and_refuses_a_file_that_teaches_nothing(read, tmp_path):
    read(line(reward=1), line(reward=0))

    def start(path, habits=Habits()):
        cold = ColdStartConfig(
            learning_rate=1e-3, dialogues=partial(recorded, path=path), habits=habits, batch_size=1, suffix_sizes=(64,),
            max_steps=1, target_reward=1.0, evaluate_every=1,
        )  # fmt: skip
        return check_start(replace(CONFIG, cold_start=cold), few_tasks(WORKPLACE, 0)._replace(practice=()), WORKPLACE)

    assert "the cold start has 1 recorded dialogues; left out: 1 failed" in start(tmp_path / "dialogues.jsonl")
    with pytest.raises(ConfigError, match="cold_start.dialogues: .*none cannot be read"):
        start(tmp_path / "none")
    read_nothing = tmp_path / "bad.jsonl"
    read_nothing.write_text(json.dumps(line(reward=0)) + "\n")
    with pytest.raises(ConfigError, match="bad.jsonl has no dialogue to learn from: 1 failed"):
        start(read_nothing)
    with pytest.raises(ConfigError, match="cold_start.habits are a demonstrator's"):
        start(tmp_path / "dialogues.jsonl", Habits(skip=0.1))


# -------------------------------------------------------------------------------------- which tokens
def test_token_ids_are_the_templates_and_the_agents_messages_carry_loss(read):
    (dialogue,) = read(line(reward=1)).dialogues
    demo = demonstration_of(dialogue, CODEC)
    # Up to the agent's last message, as the tokenizer's own template writes the whole.
    calls = {"role": "assistant", "content": write([Call("light", {"n": 3})] * 2)}
    said = [calls if "tool_calls" in one else one for one in MESSAGES[:7]]
    text = TOKENIZER.apply_chat_template(said, tools=[function_schema(LAMP)], tokenize=False)
    whole = TOKENIZER.encode(text.removesuffix("\n"), add_special_tokens=False)
    assert demo.prompt + demo.suffix == whole
    # By hand: two calls, two results, an answer.
    called, done = (CODEC.encode_action(*one) for one in (([Call("light", {"n": 3})] * 2, ""), ([], "Done.")))
    results = len(demo.suffix) - len(called) - len(done)
    assert results > 0 and demo.acted == [True] * len(called) + [False] * results + [True] * len(done)
    assert demo.passed == (True,) and len(demo.suffix) == len(demo.acted)


def test_of_a_prefix_the_last_message_alone_is_learned(read):
    """Two rows of one dialogue, as per-turn files have them: no message is taught twice."""
    rows = read(line(MESSAGES[:4], reward=1), line(reward=1), last_turn_only=True).dialogues
    first, second = (demonstration_of(row, CODEC) for row in rows)
    called, done = len(first.suffix), len(CODEC.encode_action([], "Done."))
    assert first.acted == [True] * called
    assert second.acted == [False] * (len(second.suffix) - done) + [True] * done
    assert second.suffix[:called] == first.suffix


def test_what_a_world_recorded_is_read_back(read, tmp_path):
    """The exported gold of the office is learned in the tokens in which its episodes are played."""
    task = next(one for one in few_tasks(WORKPLACE, 0).seeds if not one.withheld_tools)
    record = play(WORKPLACE, task, 0, gold_player(task))
    trajectories.export(tmp_path / "sft.jsonl", [record], [task], WORKPLACE, trajectories.chat)
    (dialogue,) = recorded(EMPTY, path=tmp_path / "sft.jsonl").dialogues
    demo = demonstration_of(dialogue, CODEC)
    assert dialogue.passed and demo.prompt == CODEC.encode_prompt(
        WORKPLACE.tools_of(task.world.classes), task.turns[0].user
    )
    assert demo.suffix[: demo.acted.index(False)] == CODEC.encode_action(task.turns[0].gold, "")


def test_a_conversation_is_learned_in_the_tokens_in_which_it_was_played(tmp_path):
    """What the user calls and sees stands in the record, and not in what the agent learns from."""
    task = make_task(Composition("no_internet", ("cable_out", "dns")), random.Random(0))
    act = demonstrator(task, Habits(), random.Random(0))

    def say(messages):
        action = act(messages)
        return Said(action.answer, action)

    record = play(HELPDESK, task, 0, say)
    assert any("user calls: " in text for move in record.moves for text in move.observations)
    trajectories.export(tmp_path / "sft.jsonl", [record], [task], HELPDESK, trajectories.chat)
    (dialogue,) = recorded(EMPTY, path=tmp_path / "sft.jsonl").dialogues
    played = demonstrate(HELPDESK, task, CODEC, Habits(), random.Random(0))
    assert demonstration_of(dialogue, CODEC) == played._replace(passed=(True,))
