"""The trainer's and the workers' sides of synthesis beside training, for tests that let one of them fail."""

import contextlib
import json
import random
import threading
import time
from dataclasses import replace
from pathlib import Path

from beside_toy import AUTHOR, CONFIG, TASKS, model, moody
from chat_server import completion, send
from synthesis_model import Model
from synthesis_toy import TOY

from rods_jax import journal
from rods_jax.config import Config, load_config
from rods_jax.fields import plain_values
from rods_jax.older import LAYOUT
from rods_jax.synthesis.ask import ROLES
from rods_jax.synthesis.author import Order, Synthesis
from rods_jax.synthesis.courier.dispatch import beside, random_of
from rods_jax.synthesis.courier.worker import working
from rods_jax.synthesis.pipeline import synthesize
from rods_jax.task_files import write_tasks

ROOT = Path(__file__).parent.parent
LOADED = load_config(ROOT / "tests/beside_toy.py")  # as the command names its functions


def records(path: Path) -> list:
    return [entry.record for entry in journal.read(path)[0]]


def wait_until(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def at_first_go(seed, step) -> Synthesis:
    """What the author writes of a seed when nothing comes in between."""
    rng = random.Random(random_of(CONFIG.seed, step, seed))
    roles = CONFIG.synthesis.roles(AUTHOR.backends)
    return synthesize(TOY, seed, rng=rng, step=step, known_hashes=AUTHOR.known, roles=roles)


class Trainer:
    """The trainer's side, in this process: sends and receives when a test says so."""

    def __init__(self, directory: Path, dispatch, told: list[str]):
        self.directory, self.dispatch, self.told = directory, dispatch, told
        self.received = []

    def send(self, *seeds, step: int = 1) -> None:
        self.received += self.dispatch(tuple(map(Order, seeds)), step, frozenset())

    def receive(self, count: int) -> dict:
        """By (seed, step), once there are so many."""

        def arrived():
            self.send()
            return len(self.received) >= count

        wait_until(arrived)
        found = {(d.seed.id, d.step): d.result for d in self.received}
        assert len(found) == len(self.received) == count
        return found


@contextlib.contextmanager
def trainer(directory: Path, taken: int = 0):
    told: list[str] = []
    with beside(directory, CONFIG.seed, taken=taken, tell=told.append) as dispatch:
        yield Trainer(directory, dispatch, told)


@contextlib.contextmanager
def workers(directory: Path, author=AUTHOR, workers: int = 1, pause: float = 0.02):
    """What they tell; they have ended when the block has."""
    told: list[str] = []
    with working(directory, author, workers=workers, tell=told.append, poll=0.005, pause=pause) as threads:
        yield told
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


class Counting:
    """The model, and how often it was asked; `limit`: after so many answers it breaks down for good."""

    def __init__(self):
        self.asked = 0
        self.lock = threading.Lock()

    def __call__(self, requests):
        with self.lock:
            self.asked += len(requests)
        return model(requests)


def author_with(generate, **changes):
    return AUTHOR._replace(backends=dict.fromkeys(ROLES, generate), **changes)


def serve(handler, body):
    (text,) = [reply.text for reply in Model(judge=moody)([RequestOf(body)])]
    send(handler, completion(text, usage=(100, 20)))


class RequestOf:
    def __init__(self, body):
        self.messages = body["messages"]


def begun_run(directory: Path, config: Config = LOADED) -> Path:
    """A run directory as training begins it."""
    directory.mkdir()
    (directory / "config.json").write_text(
        json.dumps({"layout": LAYOUT} | plain_values(replace(config, run_dir="elsewhere")))
    )
    (directory / "tasks").mkdir()
    for part, some in TASKS._asdict().items():
        write_tasks(directory / "tasks" / f"{part}.jsonl", some)
    return directory
