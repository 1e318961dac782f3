"""Rows that the official tau2-bench gave: a folder named by RODS_TAU2_GOLDEN, beside the data that RODS_TAU2 names.

RODS_TAU2_OLDER names a folder of older task files that some rows are of.
"""

import functools
import gzip
import hashlib
import json
import os
from pathlib import Path

import pytest

from rods_jax.environments.tau2 import data
from rods_jax.environments.tau2.messages import AGENT, TOOL, USER, Message, ToolCall

GOLDEN = Path(os.environ.get("RODS_TAU2_GOLDEN", ""))
needs_rows = pytest.mark.skipif(
    not (os.environ.get("RODS_TAU2") and os.environ.get("RODS_TAU2_GOLDEN")),
    reason="needs RODS_TAU2 and RODS_TAU2_GOLDEN, folders with tau2-bench's data and golden rows",
)
SIDES = {"a": AGENT, "u": USER}


def rows(name):
    with gzip.open(GOLDEN / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@functools.cache
def files(older=False):
    """Where the rows' tasks are."""
    named = os.environ["RODS_TAU2"]
    return data.find(f"{os.environ['RODS_TAU2_OLDER']}{os.pathsep}{named}" if older else named)


def sha16(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hashes(environment):
    return [one and one[:16] for one in environment.hashes()]


def begun(domain, task, solo=False):
    environment = domain.environment(solo=solo)
    environment.set_up(task.start, task.start.history)
    return environment


def played(domain, task, row, solo=False):
    """(messages, the results that differ from the row's): the row's calls, made here; some results altered as it says."""
    environment = begun(domain, task, solo)
    messages, differing, number = list(task.start.history), [], 0
    for said in row["msgs"]:
        side, calls = SIDES[said["r"]], said.get("c")
        made = calls and tuple(ToolCall(f"c{number + i}", name, given, side) for i, (name, given) in enumerate(calls))
        number += len(calls or ())
        messages.append(Message(side, said.get("t"), made))
        for place, call in enumerate(made or ()):
            seen = environment.call(side, call.name, call.arguments)
            if [sha16(seen.text), int(not seen.ok)] != said["o"][place]:
                differing.append((call, seen.text))
            text = f"ALTERED {seen.text}" if place in said.get("altered", ()) else seen.text
            messages.append(Message(TOOL, text, None, call.id, side, not seen.ok))
    return messages, differing
