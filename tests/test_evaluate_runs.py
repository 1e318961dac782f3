"""An evaluated run directory plays its own policy; the page shows everything and runs nothing."""

import contextlib
import io
import json
import os
import random
import socket
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from evaluate_toy import TASKS, run
from forks import host_devices
from rich.console import Console

from models.policy import callables
from rods_jax import checkpoint, grpo, replay
from rods_jax import config as configuration
from rods_jax.codecs.qwen import parse, write
from rods_jax.config import ConfigError, RolloutConfig
from rods_jax.dialogue import Said, Stop, gold_player, play
from rods_jax.environments.conversation import Conversation, Spoken, conversations
from rods_jax.environments.scoring import OFFICIAL, RODS
from rods_jax.environments.workplace.domain import WORKPLACE
from rods_jax.files import FolderError
from rods_jax.generation import Sampling
from rods_jax.journal import JournalError
from rods_jax.loop import Position
from rods_jax.rollout import Player
from rods_jax.run import directory as run_directories
from rods_jax.run import learning, played, positions
from rods_jax.run.played import recorded, run_config
from rods_jax.run.trajectory_page import write_page
from rods_jax.types import Action, Call, Policy, Step, Trajectory

# ---------------------------------------------------------------------------------- run directory
CONFIG_FILE = """
import random
from functools import partial
from models.decoder import DecoderConfig
from models.learner import decoder
from rods_jax.codecs.tokenizer import train_tokenizer
from rods_jax import grpo
from rods_jax.codecs.documents import tool_name
from rods_jax.codecs.qwen import qwen_codec
from rods_jax.config import Config, EvaluationConfig, RolloutConfig, StageConfig, UpdateConfig
from rods_jax.environments.protocol import TaskSplits
from rods_jax.environments.workplace.domain import WORKPLACE
from rods_jax.rewards import progress_reward
from rods_jax.synthesis.pipeline import author_tasks

def domain():
    return WORKPLACE

def build_tasks(domain, seed):
    tasks = author_tasks(domain, count=12, rng=random.Random(seed), turns=(1, 2), calls_per_turn=(1, 1))
    return TaskSplits(seeds=tasks[4:], held_out=tasks[:4])

CONFIG = Config(
    name="tiny", seed=0, run_dir="", domain=domain, build_tasks=build_tasks,
    tokenizer=partial(train_tokenizer, vocab_size=640), codec=partial(qwen_codec, document=tool_name),
    learner=decoder,
    model=DecoderConfig(640, 1, 16, 2, 1, 8, 16), cold_start=None,
    stages=(StageConfig(name="online", reward=progress_reward, epochs=1, synthesis=True),),
    rollout=RolloutConfig(tasks_per_step=2, group_size=2, max_prompt_tokens=128, max_suffix_tokens=96,
        max_action_tokens=8, observation_chunk=32, max_attempts=2),
    update=UpdateConfig(learning_rate=1e-3, ratio=grpo.token_ratio, aggregate=grpo.sequence_mean),
    evaluation=EvaluationConfig(num_tasks=4, every_epochs=1), checkpoint_every=1,
)
"""


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory):
    """(directory, config file) of a run that has saved its first checkpoint, with another seed than the file's."""
    path = tmp_path_factory.mktemp("run") / "tiny.py"
    directory = path.parent / "run"
    path.write_text(CONFIG_FILE)
    config = configuration.load_config(path, ["--seed", "7", "--run-dir", str(directory)])
    console = Console(file=io.StringIO())
    built = run_directories.build(config, config.domain(), console)
    with contextlib.ExitStack() as held:
        run_directories.take(config, built, directory, held)
        run_directories.has_begun(directory)
    tasks, tokenizer = run_directories.read_inputs(directory)
    policy = Policy(**callables(replace(config.model, vocab_size=len(tokenizer))))
    state = grpo.create_state(policy.init(jax.random.key(7)), learning.optimizer_of(config.update), config.update)
    with checkpoint.open_checkpoints(directory / "checkpoints") as checkpoints:
        position = Position(state, replay.create(tasks.seeds, config.replay), step=3)
        positions.save_position(checkpoints, position)
    return directory, path


def test_a_run_is_played_and_continued_to_the_same_numbers(run_directory, tmp_path):
    directory, path = run_directory
    options = {"player": str(directory), "tasks": "", "num_tasks": None, "config": path, "rollouts": 2, "seed": 7}
    result, console = run(tmp_path, **options)
    assert f"{directory} step 3 on {directory} held-out, seed 7: 4 tasks" in console.file.getvalue().replace("\n", "")
    assert result["max_attempts"] == 2 and result["scores"]["failures"] == {}
    assert result["scores"]["tokens"] > 0 < result["scores"]["codes"]["parse_error"]
    journal = tmp_path / "journal.jsonl"
    whole, scores = journal.read_bytes(), (tmp_path / "scores.json").read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 1 + 4 * 2
    journal.write_bytes(b"".join(lines[:6]) + lines[6][:30])
    run(tmp_path, **options)
    assert journal.read_bytes() == whole and (tmp_path / "scores.json").read_bytes() == scores
    texts = {json.loads(line)["moves"][0]["text"] for line in lines[1:]}
    assert len(texts) == 8  # noise differs from task to task and from rollout to rollout


def test_a_folder_of_others_is_refused_before_weights_are_read(run_directory, tmp_path, monkeypatch):
    directory, path = run_directory
    monkeypatch.setattr(played, "played", lambda *_: pytest.fail("weights are read"))
    (tmp_path / "scores.json").write_text("mine")
    with pytest.raises(FolderError, match="holds 'scores.json' and is left as it is"):
        run(tmp_path, player=str(directory), tasks="", num_tasks=None, config=path)


def test_official_rules_read_a_runs_messages_as_the_leaderboard_does(run_directory, tmp_path, monkeypatch):
    directory, path = run_directory
    options = {"player": str(directory), "tasks": "", "num_tasks": 1, "config": path, "rollouts": 2, "seed": 7}
    monkeypatch.setattr("rods_jax.codecs.qwen.official", lambda text: Action(answer=f"read: {text}"))
    monkeypatch.setattr("rods_jax.codecs.template._stop_tokens", lambda *_: tuple(range(640)))  # one token a message
    result, _ = run(tmp_path, **options, rules="official")
    assert "parse_error" not in {code for code, count in result["scores"]["codes"].items() if count}


@pytest.mark.parametrize("rules", [RODS, OFFICIAL])
def test_a_rollout_is_said_again_word_by_word(rules):
    rng = random.Random(0)
    for task in TASKS * 4:
        gold = gold_player(task)

        def act(messages):
            match rng.randrange(6):
                case 0:
                    return Said("<tool_call>{", Action(error="the message is longer than 8 tokens"))
                case 1:
                    return Said("Wait.", Action(answer="Wait."))
                case 2:
                    return Stop(truncated="full")
            said = gold(messages)
            if isinstance(said, Stop):
                return said
            return said._replace(text=write(said.action.calls) if said.action.calls else said.action.answer)

        record = play(WORKPLACE, task, 0, act, rules)
        steps = tuple(Step(m.turn, m.text, m.code, m.observations) for m in record.moves)
        trajectory = Trajectory(task.id, 0, record.rods, steps, record.truncated or None, record.failure or None)
        assert play(WORKPLACE, task, 0, recorded(trajectory, parse), rules) == record


def test_a_prompt_that_does_not_fit_is_not_solved_rather_than_left_out(run_directory, tmp_path):
    directory, path = run_directory
    options = {"player": str(directory), "tasks": "workplace", "num_tasks": 4, "config": path}
    short = tmp_path / "tiny.py"
    for name in ("config.json", "tokenizer", "checkpoints"):
        (tmp_path / name).symlink_to(directory / name)
    (tmp_path / "config.json").unlink()
    text = (directory / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"max_prompt_tokens": 128', '"max_prompt_tokens": 8'))
    short.write_text(path.read_text())
    result, _ = run(tmp_path / "out", **options | {"player": str(tmp_path), "config": short})
    scores = result["scores"]
    assert scores["truncated"] == {"the prompt is longer than 8 tokens": 4} and scores["failures"] == {}
    assert scores["rows"]["all tasks"]["official"]["mean"] == 0


def test_the_users_of_an_evaluation_are_asked_for_their_first_words_together(monkeypatch):
    """One after the other, 2,000 tasks whose users need a second each would wait half an hour."""
    together = threading.Barrier(4)

    def make(task):
        said = lambda heard: Spoken(f"Hi number {together.wait(20)}.")
        return Conversation((), said, lambda *call: None, 1, lambda ended: (True,))

    domain = WORKPLACE._replace(start=conversations(make, waits=True))
    codec = SimpleNamespace(encode_prompt=lambda *texts: [1])
    limits = dict(group_size=2, max_prompt_tokens=9, max_suffix_tokens=9, max_action_tokens=9)
    config = SimpleNamespace(rollout=RolloutConfig(tasks_per_step=4, **limits), codec=lambda tokenizer: codec)
    nobody = Player(None, codec, config.rollout, 1, 1, 1, 1, Sampling(1.0))
    monkeypatch.setattr(played, "evaluation_player", lambda *sizes: nobody)
    own = played.Played("it", 0, config, [], SimpleNamespace(hosts=1), None)
    played.policy_player(own, domain, TASKS, rollouts=1, sampling=Sampling(1.0), seed=0, rules=RODS)
    assert not together.broken and together.n_waiting == 0


def test_a_run_with_another_codec_is_refused(run_directory, tmp_path):
    directory, path = run_directory
    other = tmp_path / "tiny.py"
    other.write_text(path.read_text().replace("tool_name", "tool_line"))
    with pytest.raises(ConfigError, match="was trained with another codec.keywords.document: name its file in --conf"):
        run_config(directory, other)
    with pytest.raises(ConfigError, match="holds no run"):
        run_config(tmp_path, path)


# ---------------------------------------------------------------------------------------- the page
HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}\ud800&amp;"


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = Counter(), ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attributes)

    def handle_data(self, data):
        self.text += data


def test_the_page_shows_everything_and_escapes_what_a_model_wrote(tmp_path):
    task = TASKS[0]
    said = [
        Said(HOSTILE, Action(error=HOSTILE)),
        Said(HOSTILE, Action(calls=(Call(HOSTILE, {HOSTILE: HOSTILE}),))),
        Said("x" * 5000, Action(answer="x")),
        Stop(truncated=HOSTILE),
    ]
    script = iter(said)
    record = play(WORKPLACE, task, 0, lambda _: next(script), RODS)
    records = [record, replace(record, rollout=1, failure=HOSTILE)]
    result, _ = run(tmp_path / "gold", player="gold")
    write_page(tmp_path / "page.html", HOSTILE, WORKPLACE, [task], records, result)
    page = Page((tmp_path / "page.html").read_text())
    assert page.tags["details"] == 2 and not {"script", "img", "a", "link", "iframe"} & set(page.tags)
    shown = HOSTILE.replace("\ud800", "?")
    for part in (task.turns[0].user, f"→ {shown}(", f"Failed by infrastructure: {shown}", f"Ended early: {shown}"):
        assert part in page.text
    assert "x" * 2000 + "... (3000 more characters)" in page.text and "why it failed" in page.text
    assert "default-src 'none'" in (tmp_path / "page.html").read_text()


def test_a_turn_of_the_page_holds_expected_and_found(tmp_path):
    run(tmp_path, player="null")
    text = Page((tmp_path / "trajectories.html").read_text()).text
    for task in TASKS:
        for turn in task.turns:
            assert turn.user in text
            assert not turn.gold or ", ".join(call.name for call in turn.gold) in text
    assert text.count("why it failed") == sum(bool(turn.gold) for task in TASKS for turn in task.turns)


@pytest.mark.slow
def test_two_processes_evaluate_on_one_mesh_as_one(run_directory, tmp_path):
    """Each plays its tasks with a part of the parameters; the first one writes and speaks."""
    directory, path = run_directory
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "scripts.evaluate", "--player", str(directory), "--config", str(path)]
    both = [
        subprocess.Popen(
            [*command, "--mesh", "2", "2", "1", "1", "--out", str(tmp_path / "two"),
             "--coordinator", address, "--num-processes", "2", "--process-id", str(index)],
            cwd=Path(__file__).parent.parent,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": host_devices(2)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]  # fmt: skip
    ended = [process.communicate(timeout=500)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert "written to" in ended[0] and "written to" not in ended[1]
    one, _ = run(tmp_path / "one", player=str(directory), tasks="", num_tasks=None, config=path)
    two = json.loads((tmp_path / "two" / "scores.json").read_text())
    assert two["num_tasks"] == 4 and two["scores"]["failures"] == {} and two["scores"]["rows"] == one["scores"]["rows"]
    lines = (tmp_path / "two" / "journal.jsonl").read_text().splitlines()
    assert len(lines) == 5 and sum(json.loads(line)["tokens"] > 0 for line in lines[1:]) == 4


def test_a_checkpoint_plays_as_the_run_that_wrote_it(run_directory, tmp_path):
    """In float32 and greedily, message by message; it needs a config that says how it plays, and tasks."""
    directory, path = run_directory
    exported = tmp_path / "exported"
    subprocess.run(
        [sys.executable, "-m", "scripts.export", "--run-dir", str(directory), "--to", str(exported),
         "--config", str(path), "--dtype", "float32"],
        cwd=Path(__file__).parent.parent, check=True, capture_output=True,
    )  # fmt: skip
    options = {"tasks": str(directory), "num_tasks": None, "config": path, "temperature": 0.0}
    own, _ = run(tmp_path / "run", player=str(directory), **options)
    same, console = run(tmp_path / "checkpoint", player=str(exported), **options)
    assert f"{exported} by tiny on {directory} held-out" in console.file.getvalue().replace("\n", "")
    assert same["scores"] == own["scores"] and same["max_attempts"] == 2
    journals = [(tmp_path / name / "journal.jsonl").read_text().splitlines()[1:] for name in ("run", "checkpoint")]
    assert journals[0] == journals[1] and len(journals[0]) == 4
    other = tmp_path / "other.py"  # whose episodes would stand among those of the first
    other.write_text(path.read_text().replace("max_action_tokens=8", "max_action_tokens=16"))
    with pytest.raises(JournalError, match="was begun with another max_action_tokens: give another folder"):
        run(tmp_path / "checkpoint", player=str(exported), **options | {"config": other})
    with pytest.raises(ConfigError, match="is a checkpoint: name in --config"):
        run(tmp_path / "none", player=str(exported), **options | {"config": None})
    with pytest.raises(ValueError, match="--tasks must be"):
        run(tmp_path / "none", player=str(exported), **options | {"tasks": ""})
