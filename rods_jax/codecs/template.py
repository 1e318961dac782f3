"""A codec through a tokenizer's own chat template, which prints everything but the text of a call.

The template is rendered with holes, once for each shape of conversation.  Texts of tools, users and documents fill the
holes.  Everything between two control tokens of the template is encoded as one text, as the tokenizer does, so token
ids are those of the whole conversation.  Control tokens are searched in the template's own text only: no text in a hole
can open or close a message.

Left out on purpose: tokenizing generated messages again.  A template that rewrites earlier messages (drops a thought,
trims an answer) is therefore not followed there.
"""

import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from rods_jax.codecs import grammar
from rods_jax.codecs.rendering import DATE, renderer
from rods_jax.codecs.tokens import encoder
from rods_jax.types import Action, Call, Codec, Json, Message, ToolSpec

_HOLE = '\t\u241f"\u241f\t'  # stands for a content; its tabs show whether the template trims, its quote how it escapes
_ODD = '\n\t "Is it <17>?" caf\u00e9 \t\n'
_TOOL = {"\u241e": 0}  # stands for a tool; templates print one as JSON
_PRINTED = re.compile('(?P<tab>\t|\\\\t)?\u241f(?P<escape>\\\\)?"\u241f(?:\t|\\\\t)?|(?P<tool>{\\s*"\u241e": 0\\s*})')
_PROBE = Call("look_up", {"value": 7})


class _Hole(NamedTuple):
    tool: bool
    trims: bool
    escapes: bool  # as JSON does


_Frame = Sequence[str | _Hole]  # the template's own text, before, between and after the holes


def template_codec(
    tokenizer: Any,
    *,
    document: Callable[[ToolSpec], str],
    write: Callable[[Sequence[Call]], str],
    parse: Callable[[str], Action],
    official: Callable[[str], Action],
    stops: Sequence[str] = (),
    system: Callable[[str], str] | None = None,
    template: Mapping[str, Json] | None = None,
    date: str = DATE,
) -> Codec:
    """Builds the codec of a transformers tokenizer with a chat template, and checks that they belong together.

    document: how a tool is written, in the prompt and in the user's message that releases it later.
    write: calls -> text; parse: its inverse, for any text; official: as the leaderboard reads a text.
    stops: control tokens that end a message of this family, beside the template's own and the checkpoint's.
    system: documents -> the system prompt that holds them; without it they stand where the template prints tools.
    template: variables that the template reads, e.g. enable_thinking.
    date: the day that a template prints as today's.

    ValueError: the template drops messages or changes what is said, writes calls that `parse` does not read, or cannot be
    rendered.  The codec raises it for tools that the template does not print as JSON.
    """
    control, find_control, encode = encoder(tokenizer)
    render = renderer(tokenizer, dict(template or {}), date)

    @lru_cache(maxsize=256)
    def opening(num_tools: int, roles: tuple[str, ...]) -> _Frame:
        return _cut(
            render([{"role": role, "content": _HOLE} for role in roles], [_TOOL] * num_tools), len(roles), num_tools
        )

    def after(roles: Sequence[str]) -> str:
        """The template's text behind an assistant's message, before messages of these roles."""
        rendered = render([{"role": role, "content": _HOLE} for role in ("user", "assistant", *roles)])
        holes = list(_PRINTED.finditer(rendered))
        if len(holes) != 2 + len(roles):
            raise ValueError(f"the chat template prints {len(holes)} of {2 + len(roles)} messages")
        return rendered[holes[1].end() :]

    end = find_control.match(after(["user"]))
    if end is None:
        raise ValueError("the chat template ends an assistant's message with no token of its own")
    stop_tokens = _stop_tokens(tokenizer, end[0], control, stops)

    @lru_cache(maxsize=256)
    def following(roles: tuple[str, ...]) -> _Frame:
        return _cut(after(roles).removeprefix(end[0]), len(roles))

    # The prompt may open the thought. A reply is then read as if it began with that tag; a gold action closes it at once.
    last = following(("user",))[-1]
    assert isinstance(last, str)
    begun = grammar.THOUGHT if last.rstrip().endswith(grammar.THOUGHT) else ""
    end_of_thought = begun and f"\n{grammar.END_OF_THOUGHT}\n\n"

    def encode_prompt(tools: Sequence[ToolSpec], user: str, policy: str = "", greeting: str = "") -> list[int]:
        documents = [document(tool) for tool in tools]
        if system is not None:
            policy, documents = "\n\n".join(filter(None, (policy, system("\n".join(documents))))), []
        said = {"system": policy, "assistant": greeting, "user": user}
        roles = tuple(role for role, text in said.items() if text or role == "user")
        return encode(_filled(opening(len(documents), roles), [said[role] for role in roles], documents))

    @lru_cache(maxsize=1024)  # a group's rollouts get the same messages
    def follow(roles: tuple[str, ...], contents: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(encode(_filled(following(roles), contents)))

    def encode_messages(messages: Sequence[Message]) -> list[int]:
        contents = ("\n".join([*map(document, message.tools), message.content]) for message in messages)
        return [*follow(tuple(message.role for message in messages), tuple(contents))]

    def encode_action(calls: Sequence[Call], answer: str) -> list[int]:
        said = (write(calls), True) if calls else (answer, False)
        return [*encode([(end_of_thought, True), said]), stop_tokens[0]]

    @lru_cache(maxsize=1024)  # a group's rollouts often say the same
    def read(tokens: tuple[int, ...]) -> str:
        said = tokens[:-1] if tokens and tokens[-1] in stop_tokens else tokens
        # "Cleaning up" takes spaces out of what was said; Llama 3's files ask for it.
        return tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    # Render and check the frames that every run needs: a wrong template is refused before anything is computed.
    opening(0, ("user",) if system is None else ("system", "user"))
    following(("tool",))
    _check_contents(render, ["user", "assistant", "tool", "user"] if system is None else ["system", "user"])
    _check_tokens(tokenizer, encode, render)
    if system is None:
        _check_calls(render, end[0], parse)
        render([{"role": "user", "content": _HOLE}], [_TOOL])

    return Codec(
        encode_prompt,
        encode_messages,
        encode_action,
        lambda tokens: read(tuple(tokens)),
        lambda text: parse(begun + text),
        official,
        stop_tokens,
    )


# ----------------------------------------------------------------------------------------- frames
def _cut(rendered: str, num_messages: int, num_tools: int = 0) -> _Frame:
    """The template's text and its holes, in order.  ValueError: it prints a wrong number of messages or tools."""
    parts: list[str | _Hole] = []
    position = 0
    for match in _PRINTED.finditer(rendered):
        parts += [
            rendered[position : match.start()],
            _Hole(bool(match["tool"]), not match["tab"], bool(match["escape"])),
        ]
        position = match.end()
    holes = [part for part in parts if isinstance(part, _Hole)]
    tools = sum(hole.tool for hole in holes)
    if tools != num_tools:
        raise ValueError(f"the chat template prints {tools} of {num_tools} tools as JSON")
    if len(holes) - tools != num_messages:
        raise ValueError(f"the chat template prints {len(holes) - tools} of {num_messages} messages")
    return [*parts, rendered[position:]]


def _filled(frame: _Frame, contents: Sequence[str], documents: Sequence[str] = ()) -> Iterator[tuple[str, bool]]:
    """The conversation in parts, and whether each is the template's own."""
    said, shown = iter(contents), iter(documents)
    for part in frame:
        if isinstance(part, str):
            yield part, True
        elif part.tool:
            yield next(shown), False
        else:
            yield _printed(next(said), part), False


def _printed(content: str, hole: _Hole) -> str:
    """A content as the template prints it."""
    content = content.strip() if hole.trims else content
    return json.dumps(content, ensure_ascii=False)[1:-1] if hole.escapes else content


# ----------------------------------------------------------------------------------------- checks
def _stop_tokens(tokenizer: Any, end: str, control: Mapping[str, int], stops: Sequence[str]) -> tuple[int, ...]:
    """The stop tokens: the template's end of a message, then those of the tokenizer, the checkpoint and the family."""
    own, eos = control[end], tokenizer.eos_token_id
    if eos != own:  # base checkpoints end texts, not messages
        warnings.warn(
            f"the tokenizer ends texts with {tokenizer.eos_token}, its chat template a message with {end},"
            " where messages end from now on",
            stacklevel=4,
        )
    listed = tokenizer.init_kwargs.get("stop_tokens", ())
    named = [control[token] for token in stops if token in control]
    return tuple(dict.fromkeys([own, *([] if eos is None else [eos]), *listed, *named]))


def _check_contents(render: Callable[..., str], roles: Sequence[str]) -> None:
    """ValueError: what the template prints of a content is not what its hole shows."""

    def said(content: str) -> str:
        return render([{"role": role, "content": "Yes." if role == "assistant" else content} for role in roles])

    count = len(roles) - roles.count("assistant")
    if "".join(text for text, _ in _filled(_cut(said(_HOLE), count), [_ODD] * count)) != said(_ODD):
        raise ValueError(
            "the chat template changes what is said, beyond trimming it or writing it as JSON, which codecs do not follow"
        )


def _check_tokens(tokenizer: Any, encode: Callable[..., list[int]], render: Callable[..., str]) -> None:
    """ValueError: a conversation cut at its control tokens has other tokens than when it is encoded whole."""
    said = {"user": "Hello, is it 17?", "assistant": "Yes.", "tool": '{"a": [1]}'}
    whole = render([{"role": role, "content": said[role]} for role in ("user", "assistant", "tool", "user")])
    if encode([(whole, True)]) != tokenizer.encode(whole, add_special_tokens=False):
        raise ValueError("the tokenizer's control tokens change the text beside them, which codecs do not follow")


def _check_calls(render: Callable[..., str], end: str, parse: Callable[[str], Action]) -> None:
    """ValueError: `parse` does not read the calls that the template writes."""
    function = {"name": _PROBE.name, "arguments": dict(_PROBE.arguments)}
    user = {"role": "user", "content": "Hello."}
    answer, call = (
        render([user, {"role": "assistant", "content": content} | calls])
        for content, calls in (
            (_HOLE, {}),
            ("", {"tool_calls": [{"id": "call00000", "type": "function", "function": function}]}),
        )
    )
    written = call[len(os.path.commonprefix([answer, call])) :].split(end)[0]
    if _PROBE.name in written and parse(written).calls != (_PROBE,):
        raise ValueError(f"the chat template is of another family: it writes a call as {written.strip()!r}")
