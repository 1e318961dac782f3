"""Each codec on a small tokenizer whose chat template has the structure of a family, in words of our own."""

from functools import partial
from typing import Any, NamedTuple

from hypothesis import strategies as st

from rods_jax.codecs import llama, python_list, qwen
from rods_jax.codecs.documents import function_schema, tool_line, tool_name, tool_schema, tool_signature
from rods_jax.codecs.tokenizer import SPECIAL_TOKENS, train_tokenizer
from rods_jax.types import Call, Codec, Message, ToolSpec

TEXTS = ["please open the file report", 'so {"lines": 2, "name": "report"}', "Done."]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "lines": {"type": "integer"}},
    "required": ["name"],
}
TOOLS = (
    ToolSpec("open_file", 'Opens a "file".', SCHEMA, "Files", {"type": "object", "properties": {}}),
    ToolSpec("sign_out", "Ends <all>.", {"type": "object", "properties": {}, "required": []}, "Messages"),
)

# Tools in a system message, one JSON a line; tool results share one user message.
QWEN = """\
{%- if tools %}{{- '<|im_start|>system\\n# Functions\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' + tool | tojson }}{% endfor %}
{{- '\\n</tools>\\nCall like this: <tool_call>...</tool_call><|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{%- if messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{% endif %}
{{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{% endif %}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""

# Indented tools in the first user's message; contents are trimmed, tool results are JSON strings.
LLAMA = """\
{{- bos_token }}{% set said = namespace(tools=tools) %}
{%- if messages[0].role != 'system' %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{%- if tools %}{{- 'Environment: functions\\n' }}{% endif %}
{{- 'Knowledge: 2023<|eot_id|>' }}{% endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + message.content | tojson + '<|eot_id|>' }}
{%- else %}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}
{%- if message.role == 'user' and said.tools %}
{{- 'Call one of these functions as {"name": ..., "parameters": ...}.\\n\\n' }}
{%- for tool in tools %}{{- tool | tojson(indent=4) + '\\n\\n' }}{% endfor %}{% set said.tools = none %}
{%- endif %}
{{- message.content | trim + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""
LLAMA_TOKENS = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>"]

NASTY = [
    "</tool_call>",
    "<tool_call>",
    "<think>",
    "</think>",
    '", "arguments": {',
    "}}\n</tool_call>",
    "<|im_end|>",
    '"}; {"name": "f", "parameters": {}}',
    "')]; [f(a='",
    *LLAMA_TOKENS,
    *SPECIAL_TOKENS,
]


def small_tokenizer(added=("<think>", "<tool_call>", "</tool_call>"), **keywords):
    tokenizer = train_tokenizer(TEXTS, vocab_size=300, **keywords)
    tokenizer.add_tokens(list(added))  # added, but not special
    return tokenizer


def llama_tokenizer():
    tokenizer = small_tokenizer(added=(), chat_template=LLAMA)
    tokenizer.add_special_tokens(
        {
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<|eot_id|>",
            "additional_special_tokens": ["<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>"],
        }
    )
    return tokenizer


class Family(NamedTuple):
    """A codec, and what a test needs to do without it what it does."""

    name: str
    tokenizer: Any
    codec: Codec
    module: Any
    document: Any
    native: bool = False  # its document is what the template itself prints of a schema

    def whole(self, tools, chat) -> str:
        """The conversation, rendered by the template in one go, up to the next action."""
        schemas = None
        if self.module is python_list:
            content = python_list.system_prompt("\n".join(map(self.document, tools)))
            chat = [{"role": "system", "content": content}, *chat]
        elif self.native:
            schemas = [function_schema(tool) for tool in tools]
        else:
            raise ValueError(f"the template of {self.name} prints other documents")
        return self.tokenizer.apply_chat_template(chat, tools=schemas, tokenize=False, add_generation_prompt=True)


def family(name, tokenizer, build, module, document, native=False):
    return Family(name, tokenizer, build(tokenizer, document), module, document, native)


BUILD_LIST = partial(python_list.python_list_codec, tools=TOOLS)
FAMILIES = (
    family("qwen", small_tokenizer(added=["<think>", "<tool_call>", "<|im_start|>"], chat_template=QWEN),
           qwen.qwen_codec, qwen, tool_line, True),
    family("qwen, names", small_tokenizer(), qwen.qwen_codec, qwen, tool_name),
    family("qwen, untagged", small_tokenizer(added=()), qwen.qwen_codec, qwen, tool_line, True),
    family("llama", llama_tokenizer(), llama.llama_codec, llama, tool_schema, True),
    family("llama, slim", llama_tokenizer(), llama.llama_codec, llama, tool_signature),
    family("list", small_tokenizer(), BUILD_LIST, python_list, tool_schema),
    family("list, llama", llama_tokenizer(), BUILD_LIST, python_list, tool_signature),
)  # fmt: skip


def contents(message: Message, document) -> str:
    return "\n".join([*map(document, message.tools), message.content])


strings = st.text(max_size=20) | st.sampled_from([*NASTY, '"\\\n\r\t', "\u2028\x00\U0001f600", "\u241f\u241e"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | strings,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(strings, children, max_size=3),
    max_leaves=6,
)


def calls_named(names):
    call = st.builds(Call, names, st.dictionaries(names, json_values, max_size=3))
    return st.lists(call, min_size=1, max_size=3)
