"""Renders a tokenizer's chat template as text, with a fixed date and limited work.

transformers renders it in jinja's sandbox.  A template comes with a checkpoint, so it is not trusted: whatever it raises
becomes one sentence, and a template that loops or grows without end is stopped.

Left out on purpose: a limit on what one operation of jinja costs, apart from powers and large numbers.
"""

import datetime
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

import jinja2
from jinja2.utils import Namespace

from rods_jax.types import Json

DATE = "2024-07-26"  # the day that Llama 3's templates print where no clock is given

MAX_LINES = 30_000  # of a template that one rendering runs; the families' templates run some hundreds
MAX_CHARACTERS = 10_000_000  # of any text while it renders
MAX_CALLS = 1_000_000  # of functions of jinja and transformers
MAX_NUMBER = 1_000_000  # a number in a template, or the product of its factors

_STRFTIME = re.compile(r"""strftime_now\(\s*(["'])((?:(?!\1).)*)\1\s*\)""")


def renderer(tokenizer: Any, variables: Mapping[str, Json], date: str) -> Callable[..., str]:
    """(messages, tools=()) -> the template's text up to the next assistant header.

    variables: those that the template reads beside messages and tools.
    date: the template's today, e.g. 2026-11-29; fixed, so that a prompt is the same on every day.
    ValueError, here and when it renders: the template cannot be used, and why.
    """
    today = datetime.date.fromisoformat(date)

    def render(messages: Sequence[Mapping[str, Json]], tools: Sequence[Json] = ()) -> str:
        source = _on(today, _source(tokenizer, tools, variables))
        try:
            return _watched(
                lambda: tokenizer.apply_chat_template(
                    list(messages),
                    tools=list(tools) or None,
                    chat_template=source,
                    tokenize=False,
                    add_generation_prompt=True,
                    **variables,
                )
            )
        except Exception as error:  # a template may raise anything
            whose = f"the chat template of the tokenizer {tokenizer.name_or_path or '(without a name)'}"
            raise ValueError(f"{whose} cannot be rendered: {type(error).__name__}: {error}") from error

    return render


def _source(tokenizer: Any, tools: Sequence[Json], variables: Mapping[str, Json]) -> str:
    """The template's text. ValueError: there is none, or it does what no conversation needs."""
    try:
        source = tokenizer.get_chat_template(tools=list(tools) or None)
    except ValueError as error:
        raise ValueError(f"the tokenizer {tokenizer.name_or_path} has no chat template: {error}") from error
    for name in variables:
        if not re.search(rf"\b{re.escape(name)}\b", source):
            raise ValueError(f"the chat template reads no variable {name!r}: take it out of template=")
    try:
        tokens = [(kind, text) for _, kind, text in jinja2.Environment().lex(source) if kind != "whitespace"]
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"the chat template cannot be read: line {error.lineno}: {error.message}") from error
    # jinja multiplies constants before a line runs, so numbers and factors are limited here.
    numbers = [int(text.replace("_", ""), 0) for kind, text in tokens if kind == "integer"]
    beside = zip([("", ""), *tokens], [*tokens[1:], ("", "")])
    factors = [
        int(text.replace("_", ""), 0)
        for (kind, text), ((_, before), (_, after)) in zip(tokens, beside)
        if kind == "integer" and "*" in (before, after)
    ]
    if ("operator", "**") in tokens or max([math.prod(factors), *numbers]) > MAX_NUMBER:
        raise ValueError("the chat template computes with powers or large numbers, which no conversation needs")
    return source


def _on(today: datetime.date, source: str) -> str:
    """The template with each call of `strftime_now` replaced by that day's text."""
    frozen = _STRFTIME.sub(lambda match: repr(today.strftime(match[2])), source)
    if re.search(r"strftime_now\s*\(", frozen):
        raise ValueError(
            "the chat template asks for the date in a form that cannot be held fixed: strftime_now of a value"
        )
    return frozen


def _watched(render: Callable[[], str]) -> str:
    """The result of `render`. RuntimeError: its template runs or calls too much, or builds too long a text."""
    lines = calls = 0

    def line(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        lines += 1
        if lines > MAX_LINES:
            raise RuntimeError(f"it runs more than {MAX_LINES} lines")
        if any(len(text) > MAX_CHARACTERS for value in frame.f_locals.values() for text in _texts(value)):
            raise RuntimeError(f"it builds a text of more than {MAX_CHARACTERS} characters")
        return line

    def call(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > MAX_CALLS:
            raise RuntimeError(f"it calls more than {MAX_CALLS} functions")
        return line if frame.f_code.co_filename == "<template>" else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        return render()
    finally:
        sys.settrace(before)


def _texts(value: Any) -> list[str]:
    if isinstance(value, Namespace):
        value = object.__getattribute__(value, "_Namespace__attrs")
        return [text for text in value.values() if isinstance(text, str)]
    return [value] if isinstance(value, str) else []
