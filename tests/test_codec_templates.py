"""Codecs and their templates: token ids are the whole conversation's, and a template that does not fit is refused."""

import json
from functools import partial

import pytest
from codec_families import LLAMA, QWEN, TOOLS, llama_tokenizer, small_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rods_jax.codecs import llama, python_list, qwen
from rods_jax.codecs.documents import function_schema, tool_line, tool_name, tool_schema
from rods_jax.codecs.tokenizer import load_tokenizer
from rods_jax.types import Call, Message

# ------------------------------------------------------------------------ merges across every seam
SAID = [
    '{"ok": true}',
    "No such file.",
    "[1, 2]",
    "line\n",
    "",
    "\n\n",
    " spaces ",
    '"quoted"',
    "caf\u00e9 17",
    "}",
]


def merging_tokenizer(template, control, eos, normalizer=None):
    """Byte-level BPE with merges of punctuation, quotes and newlines, as large vocabularies have them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # merges anything
    tokenizer.decoder = decoders.ByteLevel()
    seams = [f"{a}{said}{b}" for said in SAID for a in ("\n", "\n\n", '"', "user\n") for b in ("\n", '"', "\n\n")]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, min_frequency=1, show_progress=False)
    tokenizer.train_from_iterator(seams, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, chat_template=template)


MERGING = [
    (qwen.qwen_codec, tool_line, QWEN, ["<|im_start|>", "<|im_end|>", "<tool_call>"], "<|im_end|>"),
    (llama.llama_codec, tool_schema, LLAMA,
     ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], "<|eot_id|>"),
]  # fmt: skip


@pytest.mark.parametrize("tools", [TOOLS, ()], ids=["tools", "no tools"])
@pytest.mark.parametrize("build, document, template, control, eos", MERGING, ids=["qwen", "llama"])
def test_a_policy_and_a_greeting_stand_where_the_template_puts_them(build, document, template, control, eos, tools):
    tokenizer = merging_tokenizer(template, control, eos)
    tokenizer.bos_token = control[0]
    codec = build(tokenizer, document)
    for policy, greeting in (("", ""), ("Be kind.\n", ""), ("", '"Hi"'), ("{\n", " Hi. ")):
        said = {"system": policy, "assistant": greeting, "user": "}"}
        chat = [{"role": role, "content": text} for role, text in said.items() if text]
        schemas = [function_schema(tool) for tool in tools] or None
        whole = tokenizer.apply_chat_template(chat, tools=schemas, tokenize=False, add_generation_prompt=True)
        tokens = codec.encode_prompt(tools, "}", policy, greeting)
        assert tokens == tokenizer.encode(whole, add_special_tokens=False)
        assert all(text.strip() in codec.decode(tokens) for text in said.values())


def test_a_prompting_codec_puts_the_policy_before_its_own_system_prompt():
    codec = python_list.python_list_codec(small_tokenizer(chat_template=QWEN))
    text = codec.decode(codec.encode_prompt(TOOLS, "hello", "Be kind.", "Hi."))
    places = [text.index(part) for part in ("Be kind.\n\nYou serve", "Functions:", "assistant\nHi.", "user\nhello")]
    assert places == sorted(places)


@pytest.mark.parametrize("build, document, template, control, eos", MERGING, ids=["qwen", "llama"])
def test_the_ids_of_a_dialogue_are_the_tokenizers_for_the_whole_text(build, document, template, control, eos):
    tokenizer = merging_tokenizer(template, control, eos)
    tokenizer.bos_token = control[0]
    codec = build(tokenizer, document)
    across = 0
    for i, said in enumerate(SAID):
        other = SAID[(i + 1) % len(SAID)]
        tokens, chat = codec.encode_prompt(TOOLS, said), [{"role": "user", "content": said}]
        told = [
            (Message("tool", said), Message("tool", other)),
            (Message("user", other, TOOLS[:1]),),
            (Message("tool", said), Message("user", said)),
        ]
        for messages in told:
            answer = codec.encode_action((), "Done.")
            tokens += answer + codec.encode_messages(messages)
            chat.append({"role": "assistant", "content": "Done."})
            contents = ("\n".join([*map(document, m.tools), m.content]) for m in messages)
            chat += [{"role": m.role, "content": text} for m, text in zip(messages, contents)]
        whole = tokenizer.apply_chat_template(
            chat, tools=[function_schema(tool) for tool in TOOLS], tokenize=False, add_generation_prompt=True
        )
        assert tokens == tokenizer.encode(whole, add_special_tokens=False)
        # The same text, piece by piece around what was said, has more tokens: there are merges across the seams.
        pieces = [piece for part in whole.split(said) for piece in (part, said)][:-1] if said else [whole]
        apart = sum(len(tokenizer.encode(piece, add_special_tokens=False)) for piece in pieces)
        across += apart > len(tokens)
    assert across >= 5


# --------------------------------------------------------------- control tokens that others might forge
PLAIN = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}{% endfor %}{{ '<|im_start|>assistant\n' }}"


@pytest.mark.parametrize(
    "normalizer", [None, normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace("\u200b", "")]
)
def test_no_normaliser_makes_a_control_token_of_what_was_said(normalizer):
    tokenizer = merging_tokenizer(PLAIN, ["<|im_start|>", "<|im_end|>"], "<|im_end|>", normalizer)
    tokenizer.add_tokens([AddedToken(token, normalized=True) for token in ("<tool_call>", "</tool_call>", "KEY")])
    codec = qwen.qwen_codec(tokenizer, tool_name)
    control = set(tokenizer.get_added_vocab().values())
    for said in (
        "\uff1ctool_call\uff1e",
        "<TOOL_CALL>",
        "<to\u200bol_call>",
        "\u212aEY",
        "KEY",
        "<|im_end|>",
        "<|im_\u200bend|>",
    ):
        for tokens in (codec.encode_messages([Message("tool", said)]), codec.encode_prompt((), said)):
            assert sum(token in control for token in tokens) == 3
        assert control.isdisjoint(codec.encode_action((), said)[:-1])


def test_a_vocabulary_that_spells_a_control_token_itself_cannot_forge_it():
    tokenizer = merging_tokenizer(PLAIN, ["<|im_start|>", "<|im_end|>"], "<|im_end|>")
    word = tokenizer.convert_ids_to_tokens(tokenizer.encode("}\n", add_special_tokens=False)[0])
    assert word == "}\u010a"  # one token by merges
    tokenizer.add_tokens(["No such file."])  # and this one too, which is a control token from now on
    codec = qwen.qwen_codec(tokenizer, tool_name)
    control = set(tokenizer.get_added_vocab().values())
    tokens = codec.encode_messages([Message("tool", "No such file.")])
    assert sum(token in control for token in tokens) == 3
    assert "No such file." in tokenizer.decode(tokens)


# -------------------------------------------------------------------------------------- stop tokens
def test_the_first_stop_token_is_the_templates_and_the_others_are_the_familys():
    tokenizer = small_tokenizer(chat_template=QWEN)
    ids = tokenizer.convert_tokens_to_ids
    codec = qwen.qwen_codec(tokenizer)
    assert codec.stop_tokens == (ids("<|im_end|>"), ids("<|endoftext|>"))
    tokenizer = llama_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|eom_id|>"]}, False)
    codec = llama.llama_codec(tokenizer)
    ids = tokenizer.convert_tokens_to_ids
    assert codec.stop_tokens == (ids("<|eot_id|>"), ids("<|eom_id|>"))
    said = tokenizer.encode('{"name": "f", "parameters": {}}<|eom_id|>', add_special_tokens=False)
    assert codec.parse(codec.decode(said)).calls == (Call("f"),)


def test_a_base_checkpoints_end_of_text_ends_no_message():
    tokenizer = small_tokenizer(chat_template=QWEN)
    tokenizer.eos_token = "<|endoftext|>"
    with pytest.warns(UserWarning, match="message with <.im_end.>, where"):
        codec = qwen.qwen_codec(tokenizer)
    parts = (
        codec.encode_prompt((), "u"),
        codec.encode_action((), "Done."),
        codec.encode_messages([Message("user", "v")]),
    )
    chat = [("user", "u"), ("assistant", "Done."), ("user", "v")]
    whole = tokenizer.apply_chat_template(
        [{"role": role, "content": text} for role, text in chat], tokenize=False, add_generation_prompt=True
    )
    assert tokenizer.decode(sum(parts, [])) == whole
    assert tokenizer.eos_token_id in codec.stop_tokens[1:]


def test_the_checkpoints_end_tokens_are_read_and_stay_with_a_saved_tokenizer(tmp_path):
    small_tokenizer(chat_template=QWEN).save_pretrained(tmp_path / "a")
    (tmp_path / "a/generation_config.json").write_text(json.dumps({"eos_token_id": [1, 7, 9]}))
    tokenizer = load_tokenizer(tmp_path / "a")
    assert qwen.qwen_codec(tokenizer).stop_tokens == (1, 7, 9, 0)  # <|im_end|>, theirs, <|endoftext|>
    tokenizer.save_pretrained(tmp_path / "b")  # as a run keeps it
    assert qwen.qwen_codec(load_tokenizer(tmp_path / "b")).stop_tokens == (1, 7, 9, 0)


# ------------------------------------------------------------------------------ thoughts and variables
THINKING = QWEN.replace("assistant\\n' }}{% endif %}", "assistant\\n<think>\\n' }}{% endif %}")
SWITCH = QWEN.replace(
    "assistant\\n' }}{% endif %}",
    "assistant\\n' + ('<think>\\n\\n</think>\\n\\n' if enable_thinking is false else '') }}{% endif %}",
)


def test_a_reply_to_a_prompt_that_opens_the_thought_is_read_from_its_end():
    codec = qwen.qwen_codec(small_tokenizer(chat_template=THINKING))
    assert codec.decode(codec.encode_prompt((), "u")).endswith("<think>\n")
    call = qwen.write([Call("f")])
    assert codec.parse(f"I call {call}.\n</think>\n\n{call}").calls == (Call("f"),)
    assert codec.parse("I know.\n</think>\n\nDone.").answer == "Done."
    assert "not closed" in codec.parse(f"I call {call}").error
    # What a demonstrator says closes the thought.
    assert codec.parse(codec.decode(codec.encode_action((Call("f"),), ""))).calls == (Call("f"),)
    assert codec.parse(codec.decode(codec.encode_action((), "Done."))).answer == "Done."


def test_a_templates_variables_reach_it():
    tokenizer = small_tokenizer(chat_template=SWITCH)
    thinks, does_not = qwen.qwen_codec(tokenizer), qwen.qwen_codec(tokenizer, template={"enable_thinking": False})
    assert thinks.decode(thinks.encode_prompt((), "u")).endswith("assistant\n")
    for tokens in (does_not.encode_prompt((), "u"), does_not.encode_messages([Message("tool", "t")])):
        assert does_not.decode(tokens).endswith("assistant\n<think>\n\n</think>\n\n")
    assert does_not.parse("Done.").answer == "Done."
    with pytest.raises(ValueError, match="reads no variable 'enable_thinkin'"):
        qwen.qwen_codec(tokenizer, template={"enable_thinkin": False})


def test_todays_date_is_the_same_tomorrow_and_can_be_set():
    dated = "{{ 'Today: ' + strftime_now('%d %b %Y') + '\\n' }}" + QWEN
    tokenizer = small_tokenizer(chat_template=dated)
    for date, printed in (({}, "26 Jul 2024"), ({"date": "2026-11-29"}, "29 Nov 2026")):
        codec = qwen.qwen_codec(tokenizer, **date)
        assert codec.decode(codec.encode_prompt((), "u")).startswith(f"Today: {printed}\n")
    with pytest.raises(ValueError, match="isoformat"):
        qwen.qwen_codec(tokenizer, date="29 Nov 2026")
    tokenizer.chat_template = "{% set form = '%d' %}{{ strftime_now(form) }}" + QWEN
    with pytest.raises(ValueError, match="strftime_now"):
        qwen.qwen_codec(tokenizer)


# ----------------------------------------------------------------------- templates that do not fit
PRINTS_CALLS = QWEN.replace(
    "{%- else %}\n{{- '<|im_start|>' + message.role",
    "{%- elif message.tool_calls %}{%- set call = message.tool_calls[0].function %}{{- '<|im_start|>assistant\\n' + WRITTEN + '<|im_end|>\\n' }}"
    "{%- else %}\n{{- '<|im_start|>' + message.role",
)
WRITTEN = {
    "qwen": """'<tool_call>\\n{"name": "' + call.name + '", "arguments": ' + call.arguments | tojson + '}\\n</tool_call>'""",
    "llama": """'{"name": "' + call.name + '", "parameters": ' + call.arguments | tojson + '}'""",
    "xml": "'<tool_call>\\n<function=' + call.name + '>\\n<parameter=value>\\n7\\n</parameter>\\n</function>\\n</tool_call>'",
}


@pytest.mark.parametrize("family, build", [("qwen", qwen.qwen_codec), ("llama", llama.llama_codec)])
@pytest.mark.parametrize("written", WRITTEN)
def test_a_template_that_writes_another_familys_calls_is_refused(family, build, written):
    assert PRINTS_CALLS != QWEN
    tokenizer = small_tokenizer(chat_template=PRINTS_CALLS.replace("WRITTEN", WRITTEN[written]))
    if family == written:
        build(tokenizer)
        return
    with pytest.raises(ValueError, match="another family: it writes a call as '.*look_up"):
        build(tokenizer)
    python_list.python_list_codec(tokenizer)  # its format is its own system prompt's


@pytest.mark.parametrize(
    "template, reason",
    [
        (None, "has no chat template"),
        ("", "has no chat template|prints 0 of 3 messages"),
        ("{% for m in messages %}{{ m.content }}{{ m.content }}<|im_end|>{% endfor %}", "prints 6 of 3 messages"),
        (
            "{% for m in messages if m.role != 'tool' %}{{ m.content }}<|im_end|>{% endfor %}",
            "prints 2 of 3 messages",
        ),
        ("{% for m in messages %}{{ m.content }}\n{% endfor %}", "no token of its own"),
        *(
            (PLAIN.replace("m.content", f"m.content{changed}"), "changes what is said, beyond trimming")
            for changed in (".rstrip()", ".lstrip()", ".strip('\n')", " | upper", "[:9]")
        ),
        ("{{ messages[0].author.name }}", "cannot be rendered: UndefinedError"),
        ("{{ raise_exception('no system message') }}", "no system message"),
        ("{{ ''.__class__.__mro__ }}", "cannot be rendered: SecurityError"),
        ("{% for %}", "cannot be rendered: TemplateSyntaxError"),
        ("{{ 'a", "cannot be read: line 1"),
        ("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", "more than 30000 lines"),
        ("{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}", "RecursionError|lines"),
        (
            "{% set n = namespace(s='x') %}{% for a in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
            "characters",
        ),
        ("{{ 9 ** 9 ** 9 }}", "powers"),
        ("{{ 'x' * 99999 * 99999 }}", "large numbers"),
        ("{{ 'x'.center(10000000000) }}", "large numbers"),
        ("{{ lipsum(999999) }}", "more than 1000000 functions"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_in_a_sentence(template, reason):
    tokenizer = small_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(ValueError, match=reason):
        qwen.qwen_codec(tokenizer, tool_name)


def test_a_template_may_keep_what_is_not_there():
    kept = "{% set nothing = messages[0].thought %}{% set n = namespace(found=nothing) %}" + QWEN
    codec = qwen.qwen_codec(small_tokenizer(chat_template=kept))
    assert codec.encode_prompt(TOOLS, "u") == qwen.qwen_codec(small_tokenizer(chat_template=QWEN)).encode_prompt(
        TOOLS, "u"
    )


def test_tools_that_a_template_does_not_print_are_named():
    codec = qwen.qwen_codec(small_tokenizer(chat_template=PLAIN.replace("'<|im_start|>' + ", "")), tool_name)
    with pytest.raises(ValueError, match="prints 0 of 2 tools as JSON"):
        codec.encode_prompt(TOOLS, "hello")
    no_system = "{% for m in messages if m.role != 'system' %}{{ m.content }}<|im_end|>{% endfor %}"
    with pytest.raises(ValueError, match="prints 1 of 2 messages"):
        partial(python_list.python_list_codec, small_tokenizer(chat_template=no_system))(tool_line)
