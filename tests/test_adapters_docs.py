"""The examples of docs/guide/adapters.md run, each where its package is installed; without it the extra is named."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest
from rollout_toy import TASKS

from rods_jax.adapters import gymnasium_env, hub_tasks, mcp_tools, verifiers_env
from rods_jax.dialogue import Said, gold_player, play
from rods_jax.environments.workplace import WORKPLACE
from rods_jax.task_files import write_tasks
from rods_jax.types import Action, Call

PAGE = (Path(__file__).parent.parent / "docs" / "guide" / "adapters.md").read_text("utf-8")


@pytest.fixture
def example(tmp_path, monkeypatch):
    """What the blocks of a section define; a block that begins with a file's name is that file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    write_tasks("tasks.jsonl", TASKS)

    def run(section):
        (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
        names = {"__name__": "example", "TASKS": TASKS}
        blocks = [block.split("```")[0] for block in text.split("```python\n")[1:]]
        assert blocks
        for block in blocks:
            if file := re.match(r"# (\w+\.py)\n", block):
                Path(file[1]).write_text(block)
            else:
                exec(block, names)
        return names

    return run


def test_gymnasium(example):
    pytest.importorskip("gymnasium")
    names = example("Gymnasium")
    calls = [Call("act", {"action": step}) for step in ["down", "down", "right", "right", "down", "right"]]
    said = Said("", Action(calls=tuple(calls)))
    assert all(play(names["LAKE"], names["LAKE_TASKS"][0], 0, lambda messages: said).rods)
    assert not names["terminated"] and names["reward"] == 0 and names["info"]["passed"] == [False]


def test_verifiers(example):
    pytest.importorskip("verifiers.v1")
    names = example("verifiers")
    record = play(names["SUMS"], names["SUM_TASKS"][0], 0, lambda messages: Said("5", Action(answer="5")))
    assert record.rods == (True,) * 10
    office = importlib.import_module("office_env")
    assert [task.data.id for task in names["vf"].load_taskset(names["vf"].TasksetConfig(id="office_env"))] == [
        task.id for task in TASKS
    ]
    assert names["vf"].load_harness(names["vf"].HarnessConfig(id="office_env")).__class__ is office.OfficeHarness


def test_mcp(example):
    pytest.importorskip("mcp.client.client")
    names = example("MCP servers")
    assert set(names["COUNTER"].tools) == {"add"}
    assert play(names["COUNTER"], names["COUNT"], 0, gold_player(names["COUNT"])).rods == (True,)


def test_data_sets(example):
    pytest.importorskip("pyarrow")
    assert example("Tasks as data sets")["hub_tasks"].read("tasks.parquet") == tuple(TASKS)


def test_trajectories(example):
    example("Trajectories")
    for name, key in (("sft", "messages"), ("atif", "steps")):
        lines = [json.loads(line) for line in Path(f"{name}.jsonl").read_text("utf-8").splitlines()]
        assert len(lines) == len(TASKS) and all(line[key] for line in lines)


# ------------------------------------------------------------------------------ without the packages
@pytest.mark.parametrize(
    "package, extra, use",
    [
        ("gymnasium", "gymnasium", lambda: gymnasium_env.environment(WORKPLACE, TASKS)),
        ("verifiers", "verifiers", lambda: verifiers_env.exported(WORKPLACE, TASKS)),
        ("verifiers", "verifiers", lambda: verifiers_env.domain("x", None)),
        ("pyarrow", "parquet", lambda: hub_tasks.write("tasks.parquet", TASKS)),
        ("mcp", "mcp", lambda: mcp_tools.domain("x", ["python", "x.py"])),
    ],
)
def test_an_extra_that_lacks_is_named(package, extra, use, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(package), *sys.meta_path])
    with pytest.raises(ImportError, match=rf"cannot be imported .*pip install 'rods_jax\[{extra}\]'"):
        use()


class Absent:
    """A package that is not installed."""

    def __init__(self, package):
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}")
