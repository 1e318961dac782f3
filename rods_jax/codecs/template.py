"""A codec through a tokenizer's own chat template: everything but the text of a call.

The template is rendered with holes, once for each shape of conversation, and cut into tokens around
them.  What users and tools say then fills the holes, encoded so that no added token can match, hence
it can neither open nor close a message.  Tool documents in the prompt are the domain's own, hence
trusted; so are calls, which every family writes without "<".

Left out on purpose: re-tokenising what was generated, so a template that rewrites earlier messages
(dropping what was thought, trimming an answer) is not followed there.
"""

import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from rods_jax.types import Action, Call, Codec, Message, ToolSpec

MAX_ACTION_CHARACTERS = 8_000  # longer text is a parse error: bounds the work that model text can cause

_HOLE = '\t\u241f"\u241f\t'  # stands for a content; its tab and quote tell what the template does to one
_PRINTED_HOLE = re.compile('(\t|\\\\t)?\u241f(\\\\)?"\u241f(?:\t|\\\\t)?')
_TOOL = {"\u241e": 0}  # stands for a tool; templates print one as JSON
_PRINTED_TOOL = re.compile('{\\s*"\u241e": 0\\s*}')


class _Hole(NamedTuple):
    trims: bool
    escapes: bool  # as JSON does


class _Frame(NamedTuple):
    texts: list[list[int]]  # the template's own tokens, before, between and after the holes
    holes: list[_Hole]


def template_codec(
    tokenizer: Any,
    *,
    document: Callable[[ToolSpec], str],
    write: Callable[[Sequence[Call]], str],
    parse: Callable[[str], Action],
    system: Callable[[str], str] | None = None,
) -> Codec:
    """Builds the codec of a transformers tokenizer with a chat template.

    document: how a tool is written, in the prompt and in the user's message that releases it later.
    write: calls -> text; parse: its inverse, for any text.
    system: documents -> the system prompt that holds them; without it they stand where the template prints tools.

    The codec raises ValueError when the template does not print every message, or tools as JSON.
    """
    stop = tokenizer.eos_token

    def trusted(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    # `split_special_tokens` would let tokens through that are added but not special, as Qwen's <tool_call>.
    added = re.compile(f"(?={'|'.join(map(re.escape, sorted(tokenizer.get_added_vocab())))})")

    @lru_cache(maxsize=1024)  # a task's question and a demonstration's answer come again
    def untrusted(text: str) -> tuple[int, ...]:
        cuts = [match.start() + 1 for match in added.finditer(text)]
        parts = (text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)]))
        return tuple(token for part in parts for token in trusted(part))

    def render(messages: list[dict[str, str]], num_tools: int = 0) -> str:
        return tokenizer.apply_chat_template(
            messages, tools=[_TOOL] * num_tools or None, tokenize=False, add_generation_prompt=True
        )

    def cut(rendered: str, num_holes: int) -> _Frame:
        pieces = _PRINTED_HOLE.split(rendered)
        texts, tabs, escapes = pieces[::3], pieces[1::3], pieces[2::3]
        if len(tabs) != num_holes:
            raise ValueError(f"the chat template prints {len(tabs)} of {num_holes} messages")
        return _Frame(
            [trusted(text) for text in texts], [_Hole(not tab, bool(e)) for tab, e in zip(tabs, escapes)]
        )

    @lru_cache(maxsize=256)
    def opening(documents: tuple[str, ...]) -> _Frame:
        user = {"role": "user", "content": _HOLE}
        if system is not None:
            return cut(render([{"role": "system", "content": system("\n".join(documents))}, user]), 1)
        rendered, *rest = _PRINTED_TOOL.split(render([user], len(documents)))
        if len(rest) != len(documents):
            raise ValueError(f"the chat template prints {len(rest)} of {len(documents)} tools as JSON")
        return cut(rendered + "".join(map("".join, zip(documents, rest))), 1)

    @lru_cache(maxsize=256)
    def following(roles: tuple[str, ...]) -> _Frame:
        """The template's own tokens around the contents of messages that follow an assistant message."""
        rendered = render([{"role": role, "content": _HOLE} for role in ("user", "assistant", *roles)])
        after = rendered[list(_PRINTED_HOLE.finditer(rendered))[1].end() :]
        return cut(after.removeprefix(stop), len(roles))

    def fill(frame: _Frame, contents: Sequence[str]) -> list[int]:
        tokens = list(frame.texts[0])
        for hole, content, text in zip(frame.holes, contents, frame.texts[1:], strict=True):
            tokens += [*untrusted(_printed(content, hole)), *text]
        return tokens

    def encode_prompt(tools: Sequence[ToolSpec], user: str) -> list[int]:
        return fill(opening(tuple(map(document, tools))), [user])

    @lru_cache(maxsize=1024)  # a group's rollouts meet the same messages
    def follow(roles: tuple[str, ...], contents: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(fill(following(roles), contents))

    def encode_messages(messages: Sequence[Message]) -> list[int]:
        contents = ("\n".join([*map(document, message.tools), message.content]) for message in messages)
        return [*follow(tuple(message.role for message in messages), tuple(contents))]

    def encode_action(calls: Sequence[Call], answer: str) -> list[int]:
        return [*(trusted(write(calls)) if calls else untrusted(answer)), tokenizer.eos_token_id]

    @lru_cache(maxsize=1024)  # and often say the same
    def read(tokens: tuple[int, ...]) -> str:
        return tokenizer.decode(tokens, skip_special_tokens=False).removesuffix(stop)

    def decode(tokens: Sequence[int]) -> str:
        return read(tuple(tokens))

    return Codec(encode_prompt, encode_messages, encode_action, decode, parse, (tokenizer.eos_token_id,))


def read_bounded(read: Callable[[str], Action], text: str) -> Action:
    """`read(text)`, whose exceptions and over-long texts become Actions with an error."""
    if len(text) > MAX_ACTION_CHARACTERS:
        return Action(error=f"the message is longer than {MAX_ACTION_CHARACTERS} characters")
    try:
        return read(text)
    except ValueError as error:
        return Action(error=f"the tool call cannot be read: {error}")
    except (RecursionError, MemoryError):  # what the parsers of JSON and Python say
        return Action(error="the tool call cannot be read: it is nested too deeply")


def _printed(content: str, hole: _Hole) -> str:
    """A content as the template prints it."""
    content = content.strip() if hole.trims else content
    return json.dumps(content, ensure_ascii=False)[1:-1] if hole.escapes else content
