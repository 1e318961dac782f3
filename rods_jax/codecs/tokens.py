"""Encodes text of which some is not trusted.

A tokenizer cuts a text at its control tokens, which were added to its vocabulary (<|im_end|>, <tool_call>), and encodes
the text between two of them as one piece.  Here only trusted text is cut.
"""

import json
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple


class Encoder(NamedTuple):
    """What turns a text in parts into tokens."""

    control: dict[str, int]
    find_control: re.Pattern[str]
    encode: Callable[[Iterable[tuple[str, bool]]], list[int]]  # (text, whether it is trusted), part by part


def encoder(tokenizer: Any) -> Encoder:
    """The Encoder of a fast transformers tokenizer. ValueError: it is none."""
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ValueError(f"{type(tokenizer).__name__} is no fast tokenizer: save its tokenizer.json beside it")
    control = tokenizer.get_added_vocab()
    longest_first = sorted(control, key=lambda token: (-len(token), token))
    find_control = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
    plain = _plain(tokenizer.backend_tokenizer, frozenset(control.values()))

    def encode(parts: Iterable[tuple[str, bool]]) -> list[int]:
        tokens: list[int] = []
        run = ""  # the text since the last control token
        for text, trusted in parts:
            position = 0
            for match in find_control.finditer(text) if trusted else ():
                tokens += [*plain(run + text[position : match.start()]), control[match[0]]]
                run, position = "", match.end()
            run += text[position:]
        return [*tokens, *plain(run)]

    return Encoder(control, find_control, encode)


def _plain(backend: Any, control: frozenset[int]) -> Callable[[str], tuple[int, ...]]:
    """Encodes text by a copy of the tokenizer that knows no control token, so that no text can become one."""
    state = json.loads(backend.to_str())
    state |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
    copy = type(backend).from_str(json.dumps(state))

    @lru_cache(maxsize=256)  # the documents of a set of tools are long, and most tasks share theirs
    def plain(text: str) -> tuple[int, ...]:
        tokens = tuple(copy.encode(text, add_special_tokens=False).ids) if text else ()
        if control.isdisjoint(tokens):
            return tokens
        # The vocabulary itself spells a control token. Encode character by character: no single one spells it.
        return tuple(token for character in text for token in copy.encode(character, add_special_tokens=False).ids)

    return plain
