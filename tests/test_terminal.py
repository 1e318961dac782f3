"""What a terminal gets to see: nothing that it obeys, and names as they are; an output that goes away harms nobody."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from rods_jax.terminal import clean, harmless_text, refuse, say

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "text, shown",
    [
        ("plain text, ünïcödé, 漢字, 👩\u200d🚀", "plain text, ünïcödé, 漢字, 👩\u200d🚀"),
        ("two\nlines\tand\r\na third", "two\nlines\tand\na third"),
        ("\x1b]0;title\x07\x1b[2J\x1b[31m", r"\x1b]0;title\x07\x1b[2J\x1b[31m"),
        ("\x1b]52;c;b3duZWQ=\x07", r"\x1b]52;c;b3duZWQ=\x07"),
        ("C1: \x9b31m \x9d0;x\x9c", r"C1: \x9b31m \x9d0;x\x9c"),
        ("over\rwritten\x08\x7f\x00", r"over\rwritten\x08\x7f\x00"),
        ("\u202egpj.exe \u2066a\u2069 \u200f", r"\u202egpj.exe \u2066a\u2069 \u200f"),
        ("hidden \u200b\ufeff\U000e0041 \u2028\u2029", r"hidden \u200b\ufeff\U000e0041 \u2028\u2029"),
        ("half \ud800 a pair, a byte \udcff of a name", r"half \ud800 a pair, a byte \udcff of a name"),
        (ValueError("an \x1b error"), r"an \x1b error"),
        (Path("/runs/a[b]c"), "/runs/a[b]c"),
    ],
)
def test_what_a_terminal_obeys_is_made_visible_and_the_rest_stays(text, shown):
    assert clean(text) == shown
    clean(text).encode()  # and can be written


@pytest.mark.parametrize(
    "name", ["[/x]", "[red]x", "a[b]c", "[link=file:///x]y", ":smile:", "x\\", "\\[x]", "\x1b[31m"]
)
def test_names_that_rich_would_obey_are_printed_as_they_are(name):
    console = Console(file=(said := io.StringIO()), width=200, force_terminal=True, color_system=None)
    say(console, f"the run {name} is done")
    refuse(console, FileNotFoundError(f"{name} holds no run"))
    table = Table(title=harmless_text(name))
    table.add_column(harmless_text(name))
    table.add_row(harmless_text(name))
    console.print(table)
    assert f"the run {clean(name)} is done\n" in said.getvalue()
    assert f"error: {clean(name)} holds no run\n" in said.getvalue()
    assert said.getvalue().count(clean(name)) == 5 and "\x1b[31m" not in said.getvalue()


@pytest.mark.parametrize(
    "error, said",
    [
        (FileNotFoundError(2, "No such file or directory", "a/b"), "a/b: No such file or directory"),
        (OSError(18, "Invalid cross-device link", b"a", None, "b"), "a -> b: Invalid cross-device link"),
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (FileNotFoundError("a/b holds no run"), "a/b holds no run"),
        (ValueError("[Errno 2] was said"), "[Errno 2] was said"),
    ],
)
def test_an_error_of_the_system_names_its_file_and_no_number(error, said):
    refuse(Console(file=(file := io.StringIO()), width=200), error)
    assert file.getvalue() == f"error: {said}\n"


PRINTING = """
import sys
from rich.console import Console
from rods_jax.terminal import outlive_output, say
outlive_output()
outlive_output()  # once is enough, twice does no harm
for line in range(3000):
    say(Console(), f"line {line} \\u00fc")
    print("and", line, file=sys.stderr)
sys.exit(7)
"""


def printing(**where) -> subprocess.Popen:
    environment = os.environ | where.pop("env", {})
    return subprocess.Popen([sys.executable, "-c", PRINTING], cwd=ROOT, env=environment, **where)


def test_a_command_outlives_the_reader_of_its_output():
    running = printing(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout.readline() == "line 0 ü\n".encode()
    running.stdout.close()
    running.stderr.close()
    assert running.wait(60) == 7


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a Linux device")
def test_a_command_outlives_a_full_disk_under_its_output():
    with open("/dev/full", "w") as full:
        running = printing(stdout=full, stderr=subprocess.PIPE)
        said = running.communicate(timeout=60)[1].decode()
    assert running.returncode == 7 and "Error" not in said and said.endswith("and 2999\n")


def test_an_output_that_cannot_encode_a_letter_gets_its_escape():
    running = printing(stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={"PYTHONIOENCODING": "ascii"})
    assert running.communicate(timeout=60)[0].startswith(b"line 0 \\xfc\n") and running.returncode == 7


def test_a_command_that_was_started_without_an_output_runs():
    program = f"import sys; sys.stdout = sys.stderr = None\n{PRINTING}"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60).returncode == 7
