"""`rods new`: what it writes runs under its new name, and what would be hidden or overwritten is refused."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from rods_jax.commands import new
from rods_jax.files import FolderError
from rods_jax.task_files import read_tasks
from scripts import tutorial

SKELETON = new.SKELETON
LENDING_DESK = tutorial.NOTEBOOK.parent
SAME = ("config.py", "make_tasks.py", "from_checkpoint.py")  # the tutorial leaves them as they are written


def told(monkeypatch, capsys, *arguments: str) -> tuple[object, str]:
    """The exit status of `rods new`, and what it printed."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["rods new", *arguments])
    try:
        new.main()
    except SystemExit as ended:
        return ended.code, capsys.readouterr().out
    return 0, capsys.readouterr().out


def test_the_folder_has_all_files_under_its_own_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, text = told(monkeypatch, capsys, "tea_shop")
    assert status == 0
    assert "    rods check --config tea_shop/config.py\n    rods train --config tea_shop/config.py" in text
    expected = {path.name.replace("my_env", "tea_shop") for path in SKELETON.iterdir() if path.is_file()}
    assert {path.name for path in Path("tea_shop").iterdir()} == expected
    assert {"tea_shop.py", "test_tea_shop.py", "config.py", "seeds.jsonl", "README.md"} < expected
    for path in Path("tea_shop").iterdir():
        written = path.read_text("utf-8")
        assert path.name in text and not [old for old in ("my_env", "MyEnv") if old in written], path
    assert read_tasks("tea_shop/seeds.jsonl")[0].world.classes == ("TeaShop",)


def test_a_name_that_holds_the_skeletons_is_put_in_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert told(monkeypatch, capsys, "OldMyEnv")[0] == 0
    assert Path("OldMyEnv/OldMyEnv.py").is_file() and "pytest -q OldMyEnv\n" in Path("OldMyEnv/README.md").read_text()


def test_its_tests_pass_and_those_of_the_example(tmp_path):
    new.write_skeleton(tmp_path / "tea_shop")
    folders = ["tea_shop", str(LENDING_DESK)]
    options = ["-q", "-o", "addopts=", "-W", "error", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, *folders]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "10 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    "name, words",
    [
        ("my-env", "'my-env' cannot name a Python module: use letters"),
        ("2nd", "'2nd' cannot name"),
        ("class", "'class' cannot name"),
        ("_hidden", "'_hidden' cannot name"),
        ("calendar", "Python has a module calendar already"),
        ("numpy", "Python has a module numpy already"),
        ("task", "uses the name Task already"),
        ("tool_spec", "uses the name ToolSpec already"),
        ("config", "uses the name config already"),
    ],
)
def test_a_name_that_will_not_do_is_refused_in_a_sentence(name, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, text = told(monkeypatch, capsys, name)
    assert status == 2 and words in text and text.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("tea_shop").mkdir()
    Path("tea_shop/letter.txt").write_text("mine")
    status, text = told(monkeypatch, capsys, "tea_shop")
    assert status == 2 and "tea_shop holds 'letter.txt' and is left as it is" in text
    assert [path.read_text() for path in Path("tea_shop").iterdir()] == ["mine"]
    with pytest.raises(FolderError, match="holds"):
        new.write_skeleton(Path("tea_shop"))


def test_an_empty_folder_and_an_interrupted_one_are_filled(tmp_path):
    folder = tmp_path / "tea_shop"
    folder.mkdir()
    first = new.write_skeleton(folder)
    (folder / "config.py").unlink()
    new.files.write_atomically(folder / new.files.MARK, new.files._WORDS)
    assert new.write_skeleton(folder) == first
    assert not new.files.is_unfinished(folder) and (folder / "config.py").is_file()


@pytest.mark.parametrize("folder", [SKELETON, LENDING_DESK], ids=lambda folder: folder.name)
def test_the_task_files_are_what_their_script_writes(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(folder))
    script = tmp_path / "make_tasks.py"  # it writes beside itself
    script.write_bytes((folder / "make_tasks.py").read_bytes())
    runpy.run_path(str(script), run_name="__main__")
    for part, count in (("seeds", 40), ("held_out", 64), ("validation", 32)):
        assert (tmp_path / f"{part}.jsonl").read_bytes() == (folder / f"{part}.jsonl").read_bytes()
        assert len(read_tasks(folder / f"{part}.jsonl")) == count
    assert capsys.readouterr().out.count(" tasks") == 3
    with pytest.raises(SystemExit, match=r"seeds\.jsonl is there, and is left as it is"):
        runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("name", SAME)
def test_the_lending_desk_is_such_a_folder(name, tmp_path):
    written = (
        (SKELETON / name).read_text("utf-8").replace("my_env", "lending_desk").replace("rods_jax_models", "models")
    )
    assert (LENDING_DESK / name).read_text("utf-8") == written
