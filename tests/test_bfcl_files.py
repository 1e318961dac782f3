"""BFCL's own format read from any file: equal to the release, and each fault named with file and line."""

import json

import pytest

pytest.importorskip("bfcl_eval", reason="needs pip install --no-deps bfcl-eval==2026.3.23")

from rods_jax.environments import bfcl
from rods_jax.environments.bfcl_files import read_bfcl_tasks
from rods_jax.environments.protocol import STRATA
from rods_jax.task_files import TaskFileError, read_tasks, write_tasks
from scripts.import_tasks import main as import_tasks

QUESTION = {
    "id": "mine",
    "question": [[{"role": "user", "content": "Post hello."}]],
    "initial_config": {"TwitterAPI": {"authenticated": True}},
    "involved_classes": ["TwitterAPI"],
}
ANSWER = {"id": "mine", "ground_truth": [["post_tweet(content='hello')"]]}


def files(tmp_path, *records):
    paths = tmp_path / "questions.json", tmp_path / "answers.json"
    for path, record in zip(paths, records, strict=True):
        lines = record if isinstance(record, list) else [record]
        path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return paths


def test_the_release_read_as_files_is_the_release(tmp_path):
    data, found = bfcl.release_root() / "data", ()
    for name in ("base", "miss_func", "miss_param", "long_context"):
        file = f"BFCL_v4_multi_turn_{name}.json"
        found += read_bfcl_tasks(data / file, data / "possible_answer" / file)
    assert {task.id: task for task in found} == {task.id: task for task in bfcl.load_tasks()} and len(found) == 800
    assert {task.category for task in found} == set(STRATA)


def test_a_file_of_ones_own_becomes_tasks(tmp_path):
    (task,) = read_bfcl_tasks(*files(tmp_path, QUESTION, ANSWER), category="long_context")
    assert (task.id, task.scenario, task.category) == ("mine", "mine", "long_context")
    assert task.turns[0].user == "Post hello." and task.turns[0].gold[0].arguments == {"content": "hello"}
    write_tasks(tmp_path / "tasks.jsonl", [task])
    assert read_tasks(tmp_path / "tasks.jsonl") == (task,)


@pytest.mark.parametrize("question, answer, words", [
    (QUESTION, {"id": "other", "ground_truth": [[]]}, "questions.json, line 1: field id 'mine' has no answer in"),
    (QUESTION, ["", "{"], "answers.json, line 2: "),
    (QUESTION, [ANSWER, ANSWER], "answers.json, line 2: field id 'mine' is already on line 1"),
    (QUESTION, ANSWER | {"ground_truth": "post"}, "answers.json, line 1: field ground_truth must be a list"),
    (QUESTION, ANSWER | {"ground_truth": [[], []]}, "field question has 1 turns, and line 1 of .* 2"),
    (QUESTION, ANSWER | {"ground_truth": [["nothing()"]]}, "answer on line 1 of .*: KeyError: 'nothing'"),
    (QUESTION, ANSWER | {"ground_truth": [["post_tweet("]]}, "SyntaxError"),
    (QUESTION, ANSWER | {"ground_truth": [["post_tweet(content=open('x'))"]]}, "ValueError"),
    (QUESTION, ANSWER | {"ground_truth": [["post_tweet"]]}, "answer on line 1 .*: 'post_tweet' is no call by name"),
    (QUESTION, ANSWER | {"ground_truth": [["TwitterAPI.post_tweet(content='hello')"]]}, "is no call by name, as in f"),
    (QUESTION, ANSWER | {"ground_truth": [["post_tweet('a', [], [], 'b')"]]}, "has more positional arguments than"),
    (QUESTION | {"initial_config": {"TwiterAPI": {}}}, ANSWER, "line 1: field initial_config names TwiterAPI, which"),
    (QUESTION, ANSWER | {"ground_truth": [["ls()"]]}, "answers.json, line 1: ls is of no class of involved_classes"),
    ([7], ANSWER, "questions.json, line 1: a record must be an object"),
    (QUESTION | {"involved_classes": ["Nothing"]}, ANSWER, "field involved_classes must name some of .*Nothing"),
    (QUESTION | {"initial_config": None}, ANSWER, "field initial_config must be an object"),
    (QUESTION | {"involved_classes": [["TwitterAPI"]]}, ANSWER, "line 1: field involved_classes must name some of"),
    (QUESTION | {"question": [[{"role": "user", "content": 5}]]}, ANSWER, "questions.json, line 1 .*turns"),
    (QUESTION | {"question": [[{"role": "user"}]]}, ANSWER, r"field question\[0\]\[0\] must be an object with role"),
    (QUESTION | {"question": [None]}, ANSWER, r"line 1: field question\[0\] must be a list of one user message"),
    (QUESTION | {"question": [QUESTION["question"][0] * 2]}, ANSWER, r"field question\[0\] must be a list of one"),
    (QUESTION | {"missed_function": ["ls"]}, ANSWER, "line 1: field missed_function must be an object"),
    (QUESTION | {"missed_function": {"7": ["ls"]}}, ANSWER, "missed_function has turn '7', and the turns are 0 to 0"),
    (QUESTION | {"missed_function": {"0": "ls"}}, ANSWER, "field missed_function.0 must be a list of functions"),
    (QUESTION | {"missed_function": {"0": ["nothing"]}}, ANSWER, "field missed_function.0 must be .*'nothing'"),
    (QUESTION, ANSWER | {"ground_truth": [["post_tweet(nothing=1)"]]}, "answers.json, line 1: the gold of 1 of 1"),
    (QUESTION | {"initial_config": {"TwitterAPI": 5}}, ANSWER, "answers.json, line 1: the gold of 1 of 1"),
])  # fmt: skip
def test_each_fault_names_file_and_line(tmp_path, question, answer, words):
    with pytest.raises(TaskFileError, match=words):
        read_bfcl_tasks(*files(tmp_path, question, answer))


def test_the_command_writes_a_task_file_and_never_writes_over_one(tmp_path, capsys):
    questions, answers = files(tmp_path, QUESTION, ANSWER)
    out = tmp_path / "new" / "tasks.jsonl"
    import_tasks(questions, answers, out)
    assert read_tasks(out) == read_bfcl_tasks(questions, answers) and "(base 1)" in capsys.readouterr().out
    with pytest.raises(TaskFileError, match="tasks.jsonl is there already: choose another --out"):
        import_tasks(questions, answers, out)
    questions.write_text("\n")
    with pytest.raises(TaskFileError, match="questions.json holds no question"):
        import_tasks(questions, answers, tmp_path / "none.jsonl")


def test_what_is_no_file_or_category_is_refused(tmp_path):
    with pytest.raises(TaskFileError, match="nowhere cannot be read"):
        read_bfcl_tasks(tmp_path / "nowhere", tmp_path / "nowhere")
    with pytest.raises(TaskFileError, match="the category must be one of base, .*: got odd"):
        read_bfcl_tasks(*files(tmp_path, QUESTION, ANSWER), category="odd")
