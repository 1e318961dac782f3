"""Fuzzes codecs and executor under guard, in a process of its own: what the guard sees it also stops.

    python tests/bfcl_fuzz.py --inputs 1000000 [--seed 0]

An input is one assistant message.  Each goes through a family's parser into an episode of a real task, under
the rules that run every call.  Prints a JSON report.  The guard is an audit hook, which cannot be removed:
any file, process, socket, import or execution of code while an input runs is a violation, as are an exception,
more than SECONDS of CPU time, an answer that is too long, and one that cannot be encoded.
"""

import argparse
import json
import random
import signal
import sys
import time
from collections import Counter
from functools import cache, partial

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from rods_jax.codecs import llama, python_list, qwen
from rods_jax.environments import bfcl
from rods_jax.environments.bfcl_safety import MAX_RESPONSE_CHARACTERS
from rods_jax.environments.episode import Episode
from rods_jax.environments.scoring import OFFICIAL, gold_trace
from rods_jax.types import Call, Observation

SECONDS = 1.0  # of CPU time for one message of up to 8,000 characters
# compile: `ast.parse` makes a syntax tree, which runs nothing; the others are the guard's own and the interpreter's
HARMLESS = {"compile", "builtins.id", "sys._getframe", "signal.setitimer", "gc.get_objects"}

# Section B7 of the method notes, and what a careless parser or executor would do with it.
HOSTILE = [
    "__import__('os').system('touch /tmp/bfcl_fuzz')",
    "open(file='/tmp/bfcl_fuzz', mode='w')",
    "[ls(), __import__('subprocess').getoutput('id')]",
    "ls(a=exit(7))",
    "globals()",
    "[ls(a=__import__('os').getpid()+0)]",
    "ls(a=open(file='/etc/passwd',mode='r'))",
    "__import__('os').getpid() or ls",
    "[f(a=(lambda: 1)())]",
    "[f(*[1], **{'a': 2})]",
    "[ls().__class__.__mro__]",
    "GorillaFileSystem.ls",
    "_load_scenario",
    "__init__",
    "__class__",
    "../../etc/passwd",
    "$(touch /tmp/bfcl_fuzz)",
    "{0.__class__}",
    "%s%n",
    "\ud800",
    "\0",
    "1e" + "9" * 90,
]  # fmt: skip
SYNTAX = [
    "<tool_call>", "</tool_call>", "<think>", "</think>", "<|python_tag|>", '{"name": "', '", "arguments": {', '", "parameters": {',
    '"', "}", "}}", "{", "[", "]", "(", ")", ",", "; ", "=", ": ", "'", "\\", "\n", "`", "-", "1", "9" * 400, "1e999", "NaN",
    "null", "true", "None", "[" * 300, '{"a":' * 100, "*", "**", ".",
]  # fmt: skip
EXTREMES = [
    0, 1, -1, 2, 10, 4300, -4300, 10**6, 10**18, 10**399, -(10**399), 0.5, -0.0, 1e308, 5e-324, True, False, None, "", ".", "..",
    "/", "a" * 500, "1", "-1", "2024-09-01", [], ["a", 1], [[[]]], {}, {"a": {"b": []}}, {"status": "Closed"},
]  # fmt: skip
FAMILIES = {
    "qwen": (qwen.write, qwen.parse),
    "llama": (llama.write, llama.parse),
    "python_list": (python_list.write, partial(python_list.parse, parameters={})),
}


# --------------------------------------------------------------------------------------------- guard
class Hang(BaseException):
    """Raised by the timer; no `except Exception` of a tool can swallow it."""


class Guard:
    """Stops and records what an input must not cause."""

    def __init__(self):
        self.armed = False
        self.events: list[str] = []
        signal.signal(signal.SIGPROF, self._on_timer)
        sys.addaudithook(self._on_event)

    def __enter__(self):
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        self.armed = True
        return self

    def __exit__(self, *_):
        self.armed = False
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _on_event(self, event, arguments):
        if self.armed and event not in HARMLESS:
            self.events.append(f"{event} {arguments!r:.80}")
            raise PermissionError(f"an input caused {event}")

    def _on_timer(self, *_):
        if self.armed:
            raise Hang


# -------------------------------------------------------------------------------------------- inputs
def leaves(value):
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def write_message(rng, tools, values):
    """(family, assistant message): any text, crumbs of every syntax, or written calls, whole or cut."""
    family = rng.choice(sorted(FAMILIES))
    kind = rng.randrange(8)
    crumbs = SYNTAX + HOSTILE + [rng.choice(tools).name]
    if kind == 0:
        return family, "".join(chr(rng.randrange(0x500)) for _ in range(rng.randrange(40)))
    if kind == 1:
        return family, "".join(rng.choice(crumbs) for _ in range(rng.randrange(12)))
    text = FAMILIES[family][0]([write_call(rng, tools, values) for _ in range(rng.randint(1, 4))])
    if kind == 2:
        text = text[: rng.randrange(len(text))] + rng.choice(crumbs) + text[rng.randrange(len(text)) :]
    return family, text


def write_call(rng, tools, values):
    tool = rng.choice(tools)
    parameters = [
        key
        for key in tool.parameters["properties"]
        if rng.random() < (0.97 if key in tool.parameters["required"] else 0.5)
    ]
    arguments = {key: write_value(rng, values, 2) for key in parameters}
    if rng.random() < 0.03:
        arguments[rng.choice(["self", "bogus", "__class__"])] = rng.choice(values)
    return Call(tool.name if rng.random() < 0.97 else rng.choice(["exit", "__init__", "a.ls", "globals"]), arguments)


def write_value(rng, values, levels):
    match rng.randrange(8) if levels else 0:
        case 6:
            return [write_value(rng, values, levels - 1) for _ in range(rng.randrange(4))]
        case 7:
            return {rng.choice(["a", "self", "status"]): write_value(rng, values, levels - 1)}
    return rng.choice(values)


# ----------------------------------------------------------------------------------------------- runs
class Report:
    """What a run has seen; `violations` must stay empty."""

    def __init__(self):
        self.codes = Counter()
        self.violations: list[str] = []
        self.slowest = 0.0

    @property
    def inputs(self):
        return sum(self.codes.values())

    def json(self):
        return {"inputs": self.inputs, "slowest": self.slowest, "codes": self.codes, "violations": self.violations}


@cache
def some_tasks():
    """20 tasks, of every category and class, and their traces: imports what is imported on first use."""
    tasks = bfcl.load_tasks()[::41]
    return tasks, [gold_trace(bfcl.bfcl_domain(), task) for task in tasks]


def player(domain, report, guard):
    """A function that plays one episode of messages drawn from an rng, and reports."""
    tasks, traces = some_tasks()
    tools = [domain.tools_of(task.world.classes) for task in tasks]
    values = []
    for task in tasks:
        known = sorted({str(leaf) for leaf in leaves(task.world.state)})[:100]
        gold = [value for turn in task.turns for call in turn.gold for value in call.arguments.values()]
        values.append(EXTREMES + [text for text in HOSTILE if text.isprintable()] + 2 * known + 4 * gold)
    rules = OFFICIAL._replace(max_attempts=10**6, unreadable_ends_turn=False)  # everything runs

    def play(rng):
        index = rng.randrange(len(tasks))
        episode = Episode(domain, tasks[index], traces[index], rules)
        for _ in range(rng.randint(1, 30)):
            family, text = write_message(rng, tools[index], values[index])
            feedback, started = None, time.process_time()
            try:
                with guard:
                    feedback = episode.act(FAMILIES[family][1](text))
                problem = wrong(feedback)
            except BaseException as error:
                problem = repr(error)
            report.slowest = max(report.slowest, time.process_time() - started)
            report.codes[feedback.code if feedback else "none"] += 1
            if problem or guard.events:
                report.violations.append(f"{family} {text!r:.300}: {problem} {guard.events}")
                guard.events.clear()
            if feedback is None or feedback.done:
                return

    return play


def wrong(feedback):
    for text in feedback.observations:
        if len(text) > MAX_RESPONSE_CHARACTERS:
            return f"an answer of {len(text)} characters"
        if text.encode("utf-8", "replace").decode() != text:
            return "an answer that cannot be encoded"
    return None


def hypothesis_test(play):
    """The same episodes, drawn by hypothesis."""
    return given(st.randoms(use_true_random=False))(play)


def run(play, report, num_inputs, number):
    """A hundredth of the inputs by hypothesis, which seeks the odd ones; the others at random, which is fast."""
    quiet = dict(database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    examples = max(1, num_inputs // 1000)  # of several inputs each
    seed(number)(settings(max_examples=examples, **quiet)(hypothesis_test(play)))()
    rng = random.Random(number)
    while report.inputs < num_inputs and not report.violations:
        play(rng)


# ------------------------------------------------------------------------- does the guard see anything?
def sabotaged(domain, sabotage):
    """The domain with one tool world that does what no input may cause."""

    class Simulator(bfcl.BfclSimulator):
        def call(self, call):
            try:
                return sabotage(call)
            except Exception:  # as an executor that swallows everything would
                return super().call(call)

    return domain._replace(simulator=Simulator)


def _evaluates(call):
    return eval(call.name)


def _opens(call):
    open("/tmp/bfcl_fuzz", "w")


def _starts(call):
    import subprocess

    subprocess.run(["true"])


def _hangs(call):
    while True:
        pass


def _floods(call):
    return Observation("x" * 10**6)


def _garbles(call):
    return Observation("\ud800")


def _crashes(call):
    raise SystemExit


SABOTAGES = (_evaluates, _opens, _starts, _hangs, _floods, _garbles, _crashes)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--self-test", action="store_true", help="let the tools do what the guard must see")
    arguments = parser.parse_args()
    guard, domain = Guard(), bfcl.bfcl_domain()
    if arguments.self_test:
        seen = {}
        for sabotage in SABOTAGES:
            report = Report()
            run(player(sabotaged(domain, sabotage), report, guard), report, 300, arguments.seed)
            seen[sabotage.__name__] = report.violations[:1]
        print(json.dumps(seen))
        return
    started = time.perf_counter()
    report = Report()
    run(player(domain, report, guard), report, arguments.inputs, arguments.seed)
    print(json.dumps(report.json() | {"seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
