"""What a set-up is made of: extras and their page, images, the workflow, the citation, and what `make` and `rods` say."""

import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml

import rods_jax
from rods_jax.commands.main import load

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
IMAGES = sorted((ROOT / "docker").glob("*.Dockerfile"))


def name_of(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


# ------------------------------------------------------------------------------------------ extras
def test_the_page_lists_every_extra_with_its_size():
    page = (ROOT / "docs" / "start" / "install.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*?\| ([^|]+) \|$", page, re.MULTILINE)
    assert [name for name, _ in rows if not re.search(r"\d MB", dict(rows)[name])] == []
    assert {name for name, _ in rows} == EXTRAS.keys()


def test_what_make_installs_is_pinned():
    constraints = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = {name_of(line) for line in constraints if line and not line.startswith("#")}
    wanted = [*PROJECT["dependencies"], *(one for extra in ("bfcl", "docs", "test") for one in EXTRAS[extra])]
    assert {name_of(one) for one in wanted} - {"rods-jax"} <= pinned


def test_a_command_without_its_packages_says_what_brings_them(capsys):
    with pytest.raises(SystemExit) as ended:
        load("train", EntryPoint("train", "package_that_nobody_has.train:main", "rods_jax.commands"))
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "'package_that_nobody_has'" in said and "pip install rods_jax" in said


# ------------------------------------------------------------------------------------------ images
def instructions(image: Path) -> list[tuple[str, str]]:
    """(instruction, what follows it), continued lines joined, comments left out."""
    text = re.sub(r"^#.*\n", "", image.read_text("utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path of the top level from the image: the last line that fits decides."""
    out = False
    for line in (ROOT / ".dockerignore").read_text("utf-8").split():
        if fnmatch(path, line.removeprefix("!")):
            out = not line.startswith("!")
    return out


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.stem)
def test_an_image_copies_what_is_there_and_installs_what_is_pinned(image):
    steps = instructions(image)
    copied = [path for word, rest in steps if word == "COPY" for path in rest.split()[1:-1]]
    assert {"pyproject.toml", "constraints.txt", "rods_jax", "models", "configs"} <= set(copied)
    assert [path for path in copied if not (ROOT / path).exists() or ignored(path)] == []
    assert ignored("runs") and ignored(".git")
    installs = [part for word, rest in steps if word == "RUN" for part in rest.split("&&") if "pip install" in part]
    assert installs and all("-c constraints.txt" in part for part in installs)
    named = {extra for part in installs for group in re.findall(r"\.\[([\w,]+)\]", part) for extra in group.split(",")}
    assert named == {image.stem, "bfcl"} and named <= EXTRAS.keys()


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.stem)
def test_an_image_runs_without_rights_from_a_base_with_a_version(image):
    words = dict(instructions(image))
    assert words["USER"] == "1000" and words["ENTRYPOINT"] == '["rods"]'
    assert re.fullmatch(r"python:3\.1[123]-slim-\w+", words["FROM"])


def test_there_are_two_images():
    assert [image.name for image in IMAGES] == ["gpu.Dockerfile", "tpu.Dockerfile"]


# ---------------------------------------------------------------------------- workflow and citation
def test_the_workflow_reads_only_and_calls_what_ci_calls():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    job = workflow["jobs"]["test"]
    assert "permissions" not in job and job["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    lines = [line.partition("  #")[0] for line in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()]
    assert lines[-2:] == ["make -s -j2 -O check docs </dev/null", "make -s test </dev/null"]
    for step in job["steps"]:  # a tag can be moved, a commit cannot
        assert "uses" not in step or re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"])


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == rods_jax.__version__ and citation["license"] == PROJECT["license"]
    assert f"\n## {rods_jax.__version__}\n" in (ROOT / "CHANGELOG.md").read_text("utf-8")


# -------------------------------------------------------------------------------------------- make
def test_make_help_has_a_line_for_every_target():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split()
    listed = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split()[1] for line in listed.splitlines()] == targets
    assert all(len(line.split()) > 3 for line in listed.splitlines())


@pytest.mark.parametrize("known", [True, False])
def test_make_test_passes_no_flag_that_this_jax_does_not_know(tmp_path, known):
    """XLA ends a process that names an unknown flag: with jax 0.12 no test came to its end."""
    refuses = "case $XLA_FLAGS in *emitters*) exit 1;; esac\n" * (not known)
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\n{refuses}[ "$1" = -c ] || echo "$1 $2 with $XLA_FLAGS"\n')
    python.chmod(0o755)
    (tmp_path / ".installed").touch()
    command = ["make", "-s", "test", f"VENV={tmp_path}", "XLA_FLAGS=--mine=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    flags = "--mine=1 --xla_backend_optimization_level=0" + " --xla_cpu_use_fusion_emitters=false" * known
    assert (done.returncode, done.stdout) == (0, f"-m pytest with {flags}\n"), done.stderr


def test_rods_finds_the_configs_and_models_of_the_checkout_it_stands_in():
    """As `python -m` does; -P keeps Python from looking there by itself."""
    command = "import sys; sys.argv = ['rods', 'check', '--config', 'configs/quickstart.py', '--help']\n"
    command += "from rods_jax.commands.main import main; main()"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and "--rollout.group-size" in done.stdout, done.stderr
