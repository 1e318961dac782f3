"""Qwen's tool-call format through a tokenizer's own chat template.

    <tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>

An assistant message is either one or more such blocks and nothing else, or a plain answer.  A
leading <think>...</think> block is allowed in both.  What users and tools say is encoded so that no
added token can match, and calls are written without "<": neither can open or close a message.  Tool
documents in the prompt are the domain's own, hence trusted.

Left out on purpose: other families (one module each), and re-tokenising what was generated.
"""

import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from rods_jax.types import Action, Call, Codec, Json, Message, ToolSpec

MAX_ACTION_CHARACTERS = 8_000  # longer text is a parse error: bounds the work that model text can cause
MAX_INTEGER_DIGITS = 400  # more than a float can hold; the interpreter's own limit can be lifted by any library
_BLOCK = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_THINK = re.compile(r"\s*<think>.*?</think>", re.DOTALL)
_MARK = "\u241f"  # stands for untrusted text while a template is rendered


def tool_schema(tool: ToolSpec) -> str:
    """A tool's document as JSON, one line."""
    return json.dumps(_schema(tool)["function"], ensure_ascii=False)


def tool_name(tool: ToolSpec) -> str:
    """Only the name, for policies that know their tools by heart."""
    return tool.name


def qwen_codec(tokenizer: Any, document: Callable[[ToolSpec], str] = tool_schema) -> Codec:
    """Builds the codec of a transformers tokenizer whose template follows Qwen's.

    document: how a tool that is released later is written into the user's message.
    """
    stop = tokenizer.eos_token

    def trusted(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    # `split_special_tokens` would let tokens through that are added but not special, as Qwen's <tool_call>.
    added = re.compile(f"(?={'|'.join(map(re.escape, sorted(tokenizer.get_added_vocab())))})")

    def untrusted(text: str) -> list[int]:
        cuts = [match.start() + 1 for match in added.finditer(text)]
        parts = (text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)]))
        return [token for part in parts for token in trusted(part)]

    def render(messages: Sequence[dict[str, str]], tools: Sequence[ToolSpec] = ()) -> str:
        return tokenizer.apply_chat_template(
            list(messages),
            tools=[_schema(tool) for tool in tools] or None,
            tokenize=False,
            add_generation_prompt=True,
        )

    @lru_cache(maxsize=None)
    def between(roles: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
        """The template's own tokens around the contents of messages that follow an assistant message."""
        messages = [{"role": role, "content": _MARK} for role in ("user", "assistant", *roles)]
        _, _, after = render(messages).split(_MARK, 2)
        return tuple(tuple(trusted(part)) for part in after.removeprefix(stop).split(_MARK))

    def fill(parts: Sequence[Sequence[int]], contents: Sequence[str]) -> list[int]:
        tokens = list(parts[0])
        for part, content in zip(parts[1:], contents, strict=True):
            tokens += [*untrusted(content), *part]
        return tokens

    prompts: dict[
        tuple[str, ...], list[list[int]]
    ] = {}  # a tool's name stands for its document: one codec a domain

    def encode_prompt(tools: Sequence[ToolSpec], user: str) -> list[int]:
        names = tuple(tool.name for tool in tools)
        if names not in prompts:
            rendered = render([{"role": "user", "content": _MARK}], tools)
            prompts[names] = [trusted(part) for part in rendered.split(_MARK)]
        return fill(prompts[names], [user])

    def encode_messages(messages: Sequence[Message]) -> list[int]:
        contents = ["\n".join([*map(document, message.tools), message.content]) for message in messages]
        return fill(between(tuple(message.role for message in messages)), contents)

    def encode_action(calls: Sequence[Call], answer: str) -> list[int]:
        tokens = trusted("\n".join(map(_block, calls))) if calls else untrusted(answer)
        return tokens + [tokenizer.eos_token_id]

    def decode(tokens: Sequence[int]) -> str:
        return tokenizer.decode(tokens, skip_special_tokens=False).removesuffix(stop)

    return Codec(encode_prompt, encode_messages, encode_action, decode, parse, tokenizer.eos_token_id)


def parse(text: str) -> Action:
    """Reads calls or an answer; whatever is neither becomes an Action with an error, never an exception."""
    if len(text) > MAX_ACTION_CHARACTERS:
        return Action(error=f"the message is longer than {MAX_ACTION_CHARACTERS} characters")
    think = _THINK.match(text)
    text = text[think.end() :] if think else text
    blocks = _BLOCK.findall(text)
    outside = _BLOCK.sub("", text).strip()
    if any(tag in outside for tag in ("<tool_call>", "</tool_call>", "<think>", "</think>")):
        return Action(error="a tag is not closed or not opened")
    if not blocks:
        return Action(answer=outside) if outside else Action(error="the message is empty")
    if outside:
        return Action(error="a message with tool calls must hold nothing else")
    try:
        return Action(calls=tuple(_read_call(block) for block in blocks))
    except (ValueError, RecursionError) as error:  # JSON that is malformed, or nested too deeply
        return Action(error=f"the tool call cannot be read: {error}")


def _read_call(block: str) -> Call:
    record = json.loads(block, parse_int=_integer)
    json.dumps(record, ensure_ascii=False, allow_nan=False).encode()  # no NaN, infinity or lone surrogate
    if not isinstance(record, dict) or set(record) != {"name", "arguments"}:
        raise ValueError("expected an object with name and arguments")
    if not isinstance(record["name"], str) or not isinstance(record["arguments"], dict):
        raise ValueError("name must be a string and arguments an object")
    return Call(record["name"], record["arguments"])


def _integer(digits: str) -> int:
    if len(digits.removeprefix("-")) > MAX_INTEGER_DIGITS:
        raise ValueError(f"an integer has more than {MAX_INTEGER_DIGITS} digits")
    return int(digits)


def _block(call: Call) -> str:
    record = json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)
    record = record.replace("<", r"\u003c")  # a string that holds a tag must not close the block
    return f"<tool_call>\n{record}\n</tool_call>"


def _schema(tool: ToolSpec) -> dict[str, Json]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}
