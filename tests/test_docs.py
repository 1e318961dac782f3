"""The documentation: its links resolve, its blocks run, its commands and files exist, and its lists are those of the code."""

import ast
import contextlib
import io
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from rods_jax import held_out, replay
from rods_jax.config import ReplaySettings
from rods_jax.run.speed import speeds
from rods_jax.types import Task, Turn, World
from scripts import reference

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")), *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^(?:<!-- (not run[^>]*) -->\n)?```([\w{}]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TEXTS = {page: page.read_text("utf-8") for page in PAGES}


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(text: str) -> str:
    return FENCE.sub("", text)


def anchors(page: Path) -> set[str]:
    """As GitHub and MyST name headings."""
    titles = re.findall(r"^#+ (.+)$", prose(TEXTS[page]), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def dead(page: Path) -> list[str]:
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(TEXTS[page])):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_and_their_anchors_resolve(page):
    assert dead(page) == []


def test_the_link_check_can_tell_right_from_wrong(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("x")
    monkeypatch.setitem(
        TEXTS, page, "# A title, here\n[a](page.md#a-title-here) [b](#no) [c](other.md) [d](https://x.y)"
    )
    assert dead(page) == ["#no", "other.md"]


def headless(text: str) -> list[str]:
    """First rows of tables without a line under them that makes them a head: a site shows those as plain text."""
    tables = re.findall(r"^(?:\|.*\n)+", prose(text) + "\n", re.MULTILINE)
    return [table.splitlines()[0] for table in tables if not re.match(r".*\n\|[ :|-]+\|\n", table)]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_table_has_a_head(page):
    assert headless(TEXTS[page]) == []


def test_a_blank_line_ends_a_table():
    assert headless("| a |\n| --- |\n| b |\n\n| c |\n| d |\n\n```\n| e |\n```\n| f |") == ["| c |", "| f |"]


def test_the_index_names_every_page():
    links = re.findall(r"\]\((\w+/\w+\.md)\)", TEXTS[DOCS / "index.md"])
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} - {"index.md"}
    assert set(links) == pages


def test_the_first_pages_are_short():
    assert len(TEXTS[ROOT / "README.md"].splitlines()) < 120
    assert len(TEXTS[DOCS / "start" / "quickstart.md"].splitlines()) <= 60


# ------------------------------------------------------------------------------------------ blocks
BLOCKS = {page: [block for block in FENCE.findall(text) if block[1] == "python"] for page, text in TEXTS.items()}


@pytest.mark.parametrize("page", [page for page, blocks in BLOCKS.items() if blocks], ids=named)
def test_python_blocks_run_in_their_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "example"}
    for mark, _, code in BLOCKS[page]:
        compiled = compile(code, named(page), "exec")
        if not mark:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compiled, names)
    assert not list(tmp_path.iterdir())


def commands() -> dict[str, set[str]]:
    """Each script that a page names, with all its options there."""
    found: dict[str, set[str]] = {}
    for text in TEXTS.values():
        text = text.replace("\\\n", " ")
        lines = [line for _, kind, block in FENCE.findall(text) if kind in ("", "text") for line in block.splitlines()]
        for line in [*lines, *re.findall(r"`([^`\n]+)`", prose(text))]:
            if match := re.search(r"python -m scripts\.([a-z0-9_]+)(.*)", line):
                words = shlex.split(match[2].split("  # ")[0].replace("'", "").replace('"', ""), comments=True)
                options = {word.split("=")[0] for word in words if word.startswith("--")}
                found.setdefault(match[1], set()).update(options)
    return found


def test_commands_and_their_options_exist(monkeypatch, capsys):
    found = commands()
    assert found.pop("reference") == set()  # it has no options, and would write
    assert {"train", "evaluate", "plan", "export", "synthesize"} <= found.keys()
    keys = helped("train", monkeypatch, capsys)  # a configuration's, which other commands take as well
    for name, options in found.items():
        places = (ROOT / "scripts" / f"{name}.py", ROOT / "scripts" / name / "__main__.py")
        assert any(place.is_file() for place in places), name
        text = helped(name, monkeypatch, capsys) + (keys if "--config" in options else "")
        missing = [option for option in options if option != "--config" and _plain(option) not in text]
        assert not missing, f"{name}: {missing}"


def helped(name: str, monkeypatch, capsys) -> str:
    """What a script says under --help, names with dashes."""
    monkeypatch.setenv("COLUMNS", "1000")
    config = ["--config", str(ROOT / "configs" / "bfcl_qwen3_4b.py")] if name == "train" else []
    monkeypatch.setattr(sys, "argv", [f"scripts/{name}.py", *config, "--help"])
    for module in (f"scripts.{name}", f"scripts.{name}.__main__"):  # that another test imported
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(SystemExit):
        runpy.run_module(f"scripts.{name}", run_name="__main__")
    return capsys.readouterr().out.replace("_", "-")


def _plain(option: str) -> str:
    """--no-rules is the other half of --rules."""
    return re.sub(r"(--|\.)no-", r"\1", option)


# ------------------------------------------------------------------------------------------- names
FILE = re.compile(r"`((?:rods_jax|models|configs|scripts|tests|docs)/[\w/.]+\.\w+)`")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_files_that_a_page_names_exist(page):
    assert [path for path in FILE.findall(TEXTS[page]) if not (ROOT / path).is_file()] == []


def test_tests_that_a_page_names_exist():
    """`test_x.py: test_a..., test_b` in one pair of backticks, and files alone."""
    everywhere = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    count = 0
    for page, text in TEXTS.items():
        for code in re.findall(r"`([^`\n]+)`", prose(text)):
            for file in re.findall(r"\btest_\w+\.py\b", code):
                assert [*ROOT.glob(f"tests/{file}"), *ROOT.glob(f"examples/*/{file}")], f"{named(page)}: {file}"
            for name in re.findall(r"\b(test_\w+)(?:\.\.\.|$|,)", code.replace(".py", ".py ")):
                count += 1
                assert f"def {name}" in everywhere, f"{named(page)}: {name}"
    assert count > 50


def test_pages_that_the_code_names_exist():
    for folder in ("rods_jax", "models", "configs", "scripts", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for page in re.findall(r"docs/[\w/]+\.(?:md|png)\b", path.read_text("utf-8")):
                assert (ROOT / page).is_file(), f"{named(path)}: {page}"


# ------------------------------------------------------------------------------------------- lists
@pytest.mark.parametrize("name", ["configuration", "functions"])
def test_generated_pages_are_what_is_generated(name):
    written = getattr(reference, name)()
    assert (DOCS / "reference" / f"{name}.md").read_text("utf-8") == written, "run python -m scripts.reference"


def test_the_page_of_functions_says_what_may_be_left_out_and_what_options_mean():
    page = TEXTS[DOCS / "reference" / "functions.md"]
    assert (
        "    temperature: float = 1.0  # 0: greedy\n" in page
    )  # of run.Evaluation, whose fields are a command's options
    assert "    instructions: Callable[[Task], str]  # what the user is told\n" in page  # required
    assert "    top_p: float = 0.7\n" in page  # of chat.Endpoint


def test_every_key_of_the_configuration_has_a_meaning():
    for where, kind in reference.SECTIONS.items():
        if kind.__module__ == "rods_jax.config":
            assert [key.name for key in reference.keys_of(kind) if not key.meaning] == [], where


def written_metrics() -> set[str]:
    """Names that the code gives: keys of the records that it makes, and of what two functions return."""
    keys = set()
    for module, function in (
        ("loop", "_settle"),
        ("loop", "train"),
        ("grpo", "update_step"),
        ("lengths", "scores_apart"),
    ):
        tree = ast.parse((ROOT / "rods_jax" / f"{module}.py").read_text("utf-8"))
        (node,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function)
        for literal in (n for n in ast.walk(node) if isinstance(n, ast.Dict)):
            keys |= {key.value for key in literal.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    tree = ast.parse((ROOT / "rods_jax" / "grpo.py").read_text("utf-8"))
    (terms,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "objective_value")
    for n in ast.walk(terms):
        if isinstance(n, ast.Subscript) and isinstance(n.value, ast.Name) and n.value.id == "terms":
            keys |= {get.value for get in [n.slice] if isinstance(get, ast.Constant)}
    task = Task("t", "t", "CATEGORY", World(("A",)), (Turn("u"),))
    pool = replay.create([task], ReplaySettings())
    keys = {key for key in keys if not key.endswith(("_NG", "_N"))}  # arrays, no metrics
    keys |= speeds({"tokens_generated": 1, "seconds_rollout": 1, "flops": 1, "seconds_step": 1}, 1.0).keys()
    keys |= replay.counts(pool).keys() | {"age_at_injection", "step"}
    return keys | held_out.scores("held_out", [task, task], [1.0, 1.0], [1.0, 1.0], unfit=()).keys() | {
        f"held_out_{name}" for name in ("unfit", "fitting", "fitting_greedy_solved")
    }  # fmt: skip


def test_the_page_of_metrics_lists_what_is_written():
    rows = re.findall(r"^\| (`.+?) \|", TEXTS[DOCS / "reference" / "metrics.md"], re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert len(listed) == len(set(listed))
    assert set(listed) == written_metrics()


def test_the_page_of_files_lists_what_is_written():
    code = "\n".join(path.read_text("utf-8") for path in (ROOT / "rods_jax" / "run").glob("*.py"))
    code += (ROOT / "rods_jax" / "synthesis" / "courier" / "lines.py").read_text("utf-8")
    names = set(re.findall(r'"([a-z_]+\.(?:jsonl|json|png|html))"', code))
    page = TEXTS[DOCS / "reference" / "files.md"]
    assert names and [name for name in sorted(names) if f"`{name}`" not in page] == []
