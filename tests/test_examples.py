"""The tutorial: its page, its notebook and its files are one, and its commands end as the page says."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from wheels import build_wheel

from scripts import tutorial

ROOT = Path(__file__).parent.parent
PAGE = tutorial.PAGE.read_text("utf-8")
EXAMPLES = ROOT / "examples"
SMALL = (  # the page's training, as small as it goes
    " --cold-start.max-steps 2 --cold-start.evaluate-every 2 --max-steps 2 --evaluation.num-tasks 4"
    " --rollout.tasks-per-step 2 --rollout.group-size 2 --rollout.suffix-sizes"
)


def test_the_page_writes_the_files_of_the_example():
    written = tutorial.files(PAGE)
    assert set(written) == {"lending_desk/lending_desk.py", "lending_desk/test_lending_desk.py"}
    for name, text in written.items():
        assert (EXAMPLES / name).read_text("utf-8") == text, name


def test_the_page_shows_the_first_task_of_the_file():
    (shown,) = re.findall(r"^```json\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    first = (EXAMPLES / "lending_desk" / "seeds.jsonl").read_text("utf-8").splitlines()[0]
    assert json.loads(shown) == json.loads(first)


def test_the_commands_of_the_page_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = set(re.findall(r"^rods (\w+)", PAGE, re.MULTILINE))
    assert {"new", "check", "train", "report", "evaluate", "export"} <= named
    assert named <= set(project["entry-points"]["rods_jax.commands"])


def test_the_notebook_is_the_page():
    kept = json.loads(tutorial.NOTEBOOK.read_text("utf-8"))["cells"]
    made = tutorial.cells(PAGE)
    name = lambda cell: (cell["cell_type"], "".join(cell["source"]))
    assert list(map(name, kept)) == list(map(name, made)), "run python -m scripts.tutorial"
    for cell in kept:
        assert len(json.dumps(cell.get("outputs", []), ensure_ascii=False)) < 10_000
        assert not [one for one in cell.get("outputs", []) if one["output_type"] == "error"]


def test_links_of_the_notebook_lead_to_pages():
    made = "\n".join(cell["source"] for cell in tutorial.cells(PAGE) if cell["cell_type"] == "markdown")
    links = [link for link in re.findall(r"\]\(([^)#]+)", made) if not link.startswith("https:")]
    assert links and [link for link in links if not (tutorial.NOTEBOOK.parent / link).is_file()] == []


def test_the_cells_of_a_page():
    page = (
        "# A\n\nSee [b](../why/design.md#c).\n\n```\nrods new a\n```\n\n<!-- not run here: a/b.py -->\n```python\nx = 1\n```\n"
        "More.\n<!-- not run here: a/b.py -->\n```python\ny = 2\n```\n```text\nprinted\n```\n<!-- not run: far -->\n```\nhf\n```\n"
    )
    assert tutorial.files(page) == {"a/b.py": "x = 1\n\n\ny = 2\n"}
    assert [cell["source"] for cell in tutorial.cells(page)] == [
        "%env FORCE_COLOR=",
        "# A\n\nSee [b](../../docs/why/design.md#c).",
        "%%bash -e\nrods new a",
        "%%writefile a/b.py\nx = 1",
        "More.",
        "%%writefile -a a/b.py\n\n\ny = 2",
        "```\nhf\n```",
    ]


# ------------------------------------------------------------------------- as a new user, from a wheel
@pytest.fixture(scope="module")
def user(tmp_path_factory):
    """An environment whose rods_jax is a wheel, with `rods` on its path: (environment variables, an empty folder)."""
    directory = tmp_path_factory.mktemp("wheel")
    site = directory / "site"
    wheel = build_wheel(directory)
    subprocess.run([sys.executable, "-m", "zipfile", "-e", wheel, site], check=True)
    rods = directory / "bin" / "rods"
    rods.parent.mkdir()
    rods.write_text(f"#!{sys.executable}\nfrom rods_jax.commands.main import main\nmain()\n")
    rods.chmod(0o755)
    path = os.pathsep.join([str(rods.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    empty = directory / "empty"
    empty.mkdir()
    return os.environ | {"PATH": path, "PYTHONPATH": str(site), "COLUMNS": "200"}, empty


def shorten(folder: Path) -> None:
    """Practice and training as small as they go."""
    config = folder / "config.py"
    text = config.read_text("utf-8")
    assert text.count("PRACTICE = 3000") == 1
    config.write_text(text.replace("PRACTICE = 3000", "PRACTICE = 40"), "utf-8")


def follow(page: str, environment, folder: Path) -> dict[str, str]:
    """Does what the page says, in its order; what each command printed."""
    said, begun = {}, set()
    for block in tutorial.blocks(page):
        if block.kind == "file":
            path = folder / block.file
            kept = path.read_text("utf-8") + "\n\n" if block.file in begun else ""
            path.write_text(kept + block.text, "utf-8")
            begun.add(block.file)
        for command in block.text.splitlines() if block.kind == "commands" else ():
            small = SMALL if command.startswith("rods train") else ""
            done = subprocess.run(
                ["bash", "-c", command + small], cwd=folder, env=environment, capture_output=True, text=True
            )
            said[command] = done.stdout
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            if command.startswith("rods new"):
                shorten(folder / command.split()[-1])
    return said


@pytest.mark.slow
def test_the_page_is_followed_to_its_end_and_from_what_it_exported(user, tmp_path):
    said = follow(PAGE, user[0], tmp_path)
    assert len(said) == 10
    assert "6 passed" in said["pytest -q lending_desk"]
    assert (tmp_path / "scores" / "trajectories.html").is_file() and (tmp_path / "exported" / "config.json").is_file()
    gold = json.loads((tmp_path / "gold" / "scores.json").read_text())
    assert gold["scores"]["rows"]["all tasks"]["rods"]["mean"] == 1.0
    # Its own export stands in for the checkpoint that from_checkpoint.py names, with its positions and a template that can think.
    checkpoint = tmp_path / "checkpoints" / "Qwen3-0.6B"
    shutil.copytree(tmp_path / "exported", checkpoint)
    settings = json.loads((checkpoint / "config.json").read_text("utf-8"))
    (checkpoint / "config.json").write_text(json.dumps(settings | {"max_position_embeddings": 40_960}), "utf-8")
    template = checkpoint / "chat_template.jinja"
    template.write_text("{%- if enable_thinking is defined %}{%- endif %}" + template.read_text("utf-8"), "utf-8")
    command = ["rods", "check", "--config", "lending_desk/from_checkpoint.py"]
    done = subprocess.run(command, cwd=tmp_path, env=user[0], capture_output=True, text=True)
    assert done.returncode == 0 and "a run could start with this" in done.stdout, done.stdout + done.stderr
    assert "40 seeds, 64 held_out, 0 practice" in done.stdout


@pytest.mark.slow
def test_the_notebook_runs(user, tmp_path, monkeypatch):
    pytest.importorskip("nbclient", reason="the extra `notebook` is not installed")
    pytest.importorskip("ipykernel", reason="the extra `notebook` is not installed")
    for name in ("PATH", "PYTHONPATH", "COLUMNS"):
        monkeypatch.setenv(name, user[0][name])
    made = tutorial.notebook(PAGE)
    for cell in made["cells"]:
        short = "sed -i 's/PRACTICE = 3000/PRACTICE = 40/' lending_desk/config.py"
        cell["source"] = cell["source"].replace("rods new lending_desk", f"rods new lending_desk\n{short}")
        cell["source"] = re.sub(r"(rods train .*)", rf"\1{SMALL}", cell["source"])
    done = tutorial.executed(made, tmp_path)
    printed = "".join("".join(out.get("text", "")) for cell in done["cells"] for out in cell.get("outputs", []))
    assert "a run could start with this" in printed
    assert (tmp_path / "exported" / "model.safetensors").is_file()
