"""BFCL V3 multi-turn (800 tasks, 8 tool classes) as a Domain, through the bfcl-eval wheel.

Needs `pip install --no-deps bfcl-eval==2026.3.23 'mpmath>=1.3,<1.4'`; imported on first use, and of it only the
tool classes and their table.  Differences from the official executor, none of which changes a gold answer:

- nothing is evaluated: a call is looked up among the documented tools, arguments are values;
- nothing leaks: cards and bookings of long contexts, the default lists of `post_tweet`, lists in
  arguments, and the precision of mpmath and decimal belong to one rollout (officially to the process);
- calls are bounded (bfcl_safety.py);
- `multi_turn_miss_func_49` withholds two tools, not three: its gold calls the third before the release.

Left out on purpose: the official executor and decoder (they evaluate text), `excluded_function` (unused
there too), and wordings (`phrases`): synthesis words a BFCL call from its description.
"""

import ast
import copy
import functools
import hashlib
import importlib
import importlib.metadata
import json
import random
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rods_jax.environments.bfcl_safety import (
    MAX_RESPONSE_CHARACTERS,
    file_tree,
    isolated,
    refusal,
    with_sorted_error,
)
from rods_jax.environments.protocol import STRATA, Domain
from rods_jax.types import Call, Json, Observation, Task, ToolSpec, Turn, World

RELEASE = "2026.3.23"
INSTALL = f"pip install --no-deps bfcl-eval=={RELEASE} 'mpmath>=1.3,<1.4'"
SHA256 = "fbe492a8efa79c5bc556fd77287ff8f7893b7db32e09cc3573e2824fa806dee2"

CLASSES = (
    "GorillaFileSystem",
    "MathAPI",
    "MessageAPI",
    "TwitterAPI",
    "TicketAPI",
    "TradingBot",
    "TravelAPI",
    "VehicleControlAPI",
)
RELEASE_MESSAGE = "I have updated some more functions you can choose from. What about now?"

_FILE_NAMES = dict(zip(STRATA, ("base", "miss_func", "miss_param", "long_context"), strict=True))
_JSON_TYPES = {"dict": "object", "float": "number"}


# ---------------------------------------------------------------------------------- the release
class _Backend(NamedTuple):
    classes: Mapping[str, type]
    tools: Mapping[str, ToolSpec]
    defaults: Mapping[str, Mapping[str, Json]]  # tool -> its default lists, of which each call gets a copy
    stateless: Collection[str]


@functools.cache
def _backend() -> _Backend:
    documents = release_root() / "data/multi_turn_func_doc"
    classes, tools = {}, {}
    try:
        table = importlib.import_module("bfcl_eval.constants.executable_backend_config")
        for name in CLASSES:
            classes[name] = getattr(importlib.import_module(table.CLASS_FILE_PATH_MAPPING[name]), name)
    except ImportError as error:
        raise ImportError(f"BFCL needs {error.name}, which is not installed: {INSTALL}") from error
    for name in CLASSES:
        for doc in _lines(documents / table.MULTI_TURN_FUNC_DOC_FILE_MAPPING[name]):
            schemas = _schema(doc["parameters"]), _schema(doc["response"])
            tools[doc["name"]] = ToolSpec(doc["name"], doc["description"], schemas[0], name, schemas[1])
    defaults: dict[str, dict[str, Json]] = {}
    for tool in tools.values():
        for parameter, schema in tool.parameters["properties"].items():
            if isinstance(schema.get("default"), list):
                defaults.setdefault(tool.name, {})[parameter] = schema["default"]
    return _Backend(classes, tools, defaults, table.STATELESS_CLASSES)


@functools.cache
def release_root() -> Path:
    """Where the wheel lies, its files verified. ImportError with the one command if there is none."""
    try:
        package = importlib.import_module("bfcl_eval")
    except ImportError as error:
        raise ImportError(f"BFCL needs bfcl_eval, which is not installed: {INSTALL}") from error
    root = Path(package.__path__[0])
    verify(root)
    return root


def verify(root: Path) -> None:
    """ValueError, with both hashes, unless tasks, answers, documents and tool classes are the release's."""
    digest = hashlib.sha256()
    paths = [
        *(root / "data").glob("*multi_turn*.json"),
        *(root / "data/possible_answer").glob("*multi_turn*.json"),
        *(root / "data/multi_turn_func_doc").glob("*.json"),
        *(root / "eval_checker/multi_turn_eval/func_source_code").glob("*.py"),
    ]
    for path in sorted(paths):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    if digest.hexdigest() != SHA256:
        raise ValueError(
            f"BFCL files in {root} are not those of bfcl-eval {RELEASE}: expected sha256 {SHA256}, "
            f"found {digest.hexdigest()}; reinstall with {INSTALL}"
        )


def _lines(path: Path) -> list[dict[str, Json]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _schema(node: Mapping[str, Json]) -> dict[str, Json]:
    """A documented schema with JSON schema's own type names."""
    schema = {key: _schema(value) if key == "items" else value for key, value in node.items()}
    schema["type"] = _JSON_TYPES.get(node["type"], node["type"])
    if "properties" in node:
        schema["properties"] = {name: _schema(value) for name, value in node["properties"].items()}
    return schema


# ---------------------------------------------------------------------------------------- tasks
def load_tasks(categories: Iterable[str] = STRATA) -> tuple[Task, ...]:
    """The tasks with their gold calls: 200 for each category, in the order of the files.

    ImportError and ValueError as in `release_root`.
    """
    data = release_root() / "data"
    tasks = []
    for category in categories:
        file_name = f"BFCL_v4_multi_turn_{_FILE_NAMES[category]}.json"
        answers = _lines(data / "possible_answer" / file_name)
        for entry, answer in zip(_lines(data / file_name), answers, strict=True):
            tasks.append(task_of(category, entry, answer["ground_truth"]))
    return tuple(tasks)


def task_of(category: str, entry: Mapping[str, Json], ground_truth: Sequence[Sequence[str]]) -> Task:
    """A task from an entry of a question file and the gold calls of its turns; its number is its scenario's."""
    number = re.fullmatch(r"multi_turn_.*_(\d+)", entry["id"])
    gold = [tuple(_gold_call(text) for text in turn) for turn in ground_truth]
    released = {int(turn): names for turn, names in entry.get("missed_function", {}).items()}
    turns = []
    for index, (messages, calls) in enumerate(zip(entry["question"], gold, strict=True)):
        called_before = {call.name for earlier in gold[:index] for call in earlier}
        names = tuple(name for name in released.get(index, ()) if name not in called_before)
        turns.append(Turn(messages[0]["content"] if messages else RELEASE_MESSAGE, calls, names))
    return Task(
        id=entry["id"],
        scenario=f"bfcl_{number[1]}" if number else entry["id"],
        category=category,
        world=World(tuple(entry["involved_classes"]), entry["initial_config"], STRATA[category].options),
        turns=tuple(turns),
    )


def _gold_call(text: str) -> Call:
    """`f(1, b='x')` as a Call; positional arguments take the documented names in documented order. ValueError: it is none."""
    node = ast.parse(text, mode="eval").body
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise ValueError(f"{text!r} is no call by name, as in f(a=1)")
    names = _backend().tools[node.func.id].parameters["properties"]
    if len(node.args) > len(names):
        raise ValueError(f"{text!r} has more positional arguments than {node.func.id} has parameters")
    arguments = dict(zip(names, map(ast.literal_eval, node.args)))
    return Call(node.func.id, arguments | {item.arg: ast.literal_eval(item.value) for item in node.keywords})


def split(tasks: Sequence[Task], *, seed: int = 0) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
    """(train, held out) by scenario: half of every block of 50 indices (RODS section 9: 100 a category).

    The four categories of one index are one scenario and stay together. Consumes its own Random(seed).
    """
    blocks: dict[int, list[int]] = {}
    for index in sorted({int(task.scenario.removeprefix("bfcl_")) for task in tasks}):
        blocks.setdefault(index // 50, []).append(index)
    rng = random.Random(seed)
    train = {f"bfcl_{index}" for block in blocks.values() for index in rng.sample(block, len(block) // 2)}
    return (
        tuple(task for task in tasks if task.scenario in train),
        tuple(task for task in tasks if task.scenario not in train),
    )


# ------------------------------------------------------------------------------------ simulator
class BfclSimulator:
    """Live tool objects of one rollout; picklable. Raises KeyError for a class that BFCL lacks."""

    def __init__(self, world: World):
        backend, long_context = _backend(), bool(world.options.get("long_context", False))
        self._objects: dict[str, Any] = {}
        for name in world.classes:
            self._objects[name] = instance = backend.classes[name]()
            if name not in backend.stateless:
                instance._load_scenario(copy.deepcopy(world.state.get(name, {})), long_context=long_context)
            if name == "TravelAPI" and long_context:  # these hold references to module-level dicts
                instance.credit_card_list = copy.deepcopy(instance.credit_card_list)
                instance.booking_record = copy.deepcopy(instance.booking_record)

    def call(self, call: Call) -> Observation:
        """Runs one documented tool. Text: str as is, dict as JSON (or str), anything else as str."""
        backend = _backend()
        try:
            tool = backend.tools.get(call.name)
            if tool is None or tool.class_name not in self._objects:
                return _error(f"no tool is named {call.name!r:.80}")
            instance = self._objects[tool.class_name]
            arguments = copy.deepcopy({**backend.defaults.get(call.name, {}), **call.arguments})
            refused = refusal(call.name, instance, arguments)
            if refused:
                return _error(refused)
            with isolated():
                return Observation(_text(with_sorted_error(getattr(instance, call.name)(**arguments))))
        except Exception as error:  # whatever the model wrote
            return _error(str(error))

    def state(self) -> Mapping[str, Mapping[str, Json]]:
        """Public attributes by class; the file system as a tree in the shape of `World.state`."""
        return {
            name: {key: _plain(value) for key, value in vars(instance).items() if not key.startswith("_")}
            for name, instance in self._objects.items()
        }


def _text(result: Any) -> str:
    if isinstance(result, dict):
        try:
            result = json.dumps(result)
        except (TypeError, ValueError):
            pass
    return str(result)[:MAX_RESPONSE_CHARACTERS]


def _error(reason: str) -> Observation:
    return Observation(f"Error during execution: {reason}"[:MAX_RESPONSE_CHARACTERS], ok=False)


def _plain(value: Any) -> Json:
    if isinstance(value, set):
        return sorted(value)
    if hasattr(value, "contents"):
        tree = file_tree(value)
        return float("nan") if tree is None else tree  # NaN: beyond the limits, equal to nothing
    return value


# --------------------------------------------------------------------------------------- domain
def bfcl_domain(vocabulary_tasks: Sequence[Task] = ()) -> Domain:
    """BFCL as a Domain; free values come from the gold calls of `vocabulary_tasks`: training tasks only."""
    vocabulary = argument_vocabulary(vocabulary_tasks)

    def sample_argument(rng: random.Random, tool: ToolSpec, parameter: str) -> Json:
        values = vocabulary.get((tool.name, parameter))
        return rng.choice(values) if values else None

    return Domain("bfcl", _backend().tools, BfclSimulator, sample_argument=sample_argument)


def argument_vocabulary(tasks: Sequence[Task]) -> Mapping[tuple[str, str], tuple[Json, ...]]:
    """(tool, parameter) -> distinct free values in gold calls, in order of first use.

    A value is free unless an earlier output holds it, or the initial state does and those of most tasks
    with that class do not (doors and well-known stocks are everywhere). A parameter whose values mostly
    are not free (ids, names of existing files) is left out: it must come from state or outputs.
    """
    simulators = [BfclSimulator(task.world) for task in tasks]
    held = [
        {(name, leaf) for name, state in simulator.state().items() for leaf in _leaves(state)}
        for simulator in simulators
    ]  # per task: (class, leaf of its initial state)
    num_holding = Counter(pair for pairs in held for pair in pairs)
    num_tasks = Counter(name for task in tasks for name in task.world.classes)
    uses: dict[tuple[str, str], list[tuple[Json, bool]]] = {}
    for task, simulator, pairs in zip(tasks, simulators, held):
        known = {leaf for name, leaf in pairs if 2 * num_holding[name, leaf] < num_tasks[name]}
        for call in (call for turn in task.turns for call in turn.gold):
            for parameter, value in call.arguments.items():
                free = isinstance(value, bool) or not known.issuperset(_leaves(value))
                uses.setdefault((call.name, parameter), []).append((value, free))
            text = simulator.call(call).text
            try:
                known.update(_leaves(json.loads(text)))
            except ValueError:
                known.add(text)
    return {
        key: tuple({json.dumps(value): value for value, free in found if free}.values())
        for key, found in uses.items()
        if 2 * sum(free for _, free in found) >= len(found)
    }


def _leaves(value: Json) -> Iterator[Json]:
    """Keys and scalars inside a value."""
    if isinstance(value, Mapping):
        yield from value
        value = value.values()
    elif not isinstance(value, list | tuple):
        yield value
        return
    for item in value:
        yield from _leaves(item)
