"""Prints to a terminal: foreign text is made harmless, and a command survives the loss of its output.

Texts of servers, models, files and paths are foreign.  A terminal obeys control characters, and rich obeys markup such
as `[red]` and `:smile:`.  Foreign text is printed with neither.  All that a command prints goes through this file.
"""

import os
import sys
import unicodedata
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

_KEPT = "\n\t\u200c\u200d"  # line breaks, tabs, and the joiners of Indic and Arabic scripts and of emoji
# Cc: control characters (ESC and C1 among them), Cf: marks that turn or hide text, Cs: halves of surrogate pairs,
# Zl and Zp: the line breaks that only some programs obey.
_HARMFUL = ("Cc", "Cf", "Cs", "Zl", "Zp")


def clean(text: object) -> str:
    """The text with each control character written as its escape, such as \\x1b; line breaks and tabs stay."""
    text = str(text).replace("\r\n", "\n")
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character in _KEPT or unicodedata.category(character) not in _HARMFUL:
        return character
    return character.encode("unicode_escape").decode()


def harmless_text(text: object, style: str = "") -> Text:
    """Foreign text as a part of what rich prints: cleaned, and neither markup nor emoji codes of its own."""
    return Text(clean(text), style)


def say(console: Console, text: object, style: str = "") -> None:
    """Prints foreign text as it stands, long lines unbroken."""
    console.print(harmless_text(text, style), soft_wrap=True)


def refuse(console: Console, error: object) -> None:
    """Prints why a command ends with 2, in one sentence."""
    console.print(Text.assemble(("error:", "bold red"), " ", harmless_text(_reason(error))), soft_wrap=True)


def _reason(error: object) -> object:
    """The error; of one of the operating system the files and what is wrong with them, without a number."""
    if not (isinstance(error, OSError) and error.strerror):
        return error
    files = " -> ".join(
        os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)
    )
    return f"{files}: {error.strerror}" if files else error.strerror


# ---------------------------------------------------------------------------- an output that goes away
class _Lasting:
    """A text file whose writes never fail: once the reader is gone, or the disk full, they go nowhere."""

    def __init__(self, file: TextIO):
        self._file = file

    def write(self, text: str) -> int:
        try:
            return self._file.write(text)
        except (OSError, ValueError):  # ValueError: it was closed
            self._leave()
            return len(text)

    def flush(self) -> None:
        try:
            self._file.flush()
        except (OSError, ValueError):
            self._leave()

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def _leave(self) -> None:
        """Sends the buffer and all later writes to nowhere, because the interpreter flushes the buffer at its end."""
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._file.fileno())
            os.close(nowhere)
        except (OSError, ValueError):  # a closed file has no descriptor, and nothing to flush
            pass


def outlive_output() -> None:
    """From here on a command survives the loss of its output: `train | head`, a full disk, a closed terminal.

    Characters that the output cannot encode are printed as escapes.
    """
    for name in ("stdout", "stderr"):
        file = getattr(sys, name)
        if file is None:  # the process was started without it
            setattr(sys, name, open(os.devnull, "w"))
        elif not isinstance(file, _Lasting):
            if hasattr(file, "reconfigure"):
                file.reconfigure(errors="backslashreplace")
            setattr(sys, name, _Lasting(file))
