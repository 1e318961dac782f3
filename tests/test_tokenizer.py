"""The small tokenizer loses nothing, learns the same thing every time, and survives the disk."""

import json
import socket

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rods_jax.codecs.qwen import qwen_codec
from rods_jax.codecs.tokenizer import CHAT_TEMPLATE, SPECIAL_TOKENS, load_tokenizer, train_tokenizer
from rods_jax.files import CheckpointError

TEXTS = ["please open the report", 'the report {"file_name": "budget"}', "the ticket 42"]


def train(texts=TEXTS, vocab_size=300, **keywords):
    return train_tokenizer(texts, vocab_size=vocab_size, **keywords)


TOKENIZER = train()
CORRUPTS = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"


def pieces(text, tokenizer=TOKENIZER):
    return tokenizer.convert_ids_to_tokens(tokenizer.encode(text, add_special_tokens=False))


@settings(deadline=None, max_examples=300)
@given(st.text())
@example("the report  \r\n\t\u00a0 \u200b\x00e\u0301 \U0001f600 \u0662\u0663 \u4f60\u597d\ufffd .  ,  n't")
@example("".join(SPECIAL_TOKENS))
def test_any_text_comes_back_whole(text):
    tokens = TOKENIZER.encode(text, add_special_tokens=False)
    assert TOKENIZER.decode(tokens, skip_special_tokens=False) == text
    assert all(0 <= token < len(TOKENIZER) for token in tokens)


def test_frequent_words_and_fixed_strings_are_one_token_and_digits_stand_alone():
    assert pieces("the report 42") == ["the", "Ġreport", "Ġ4", "2"]  # though "42" was seen
    assert pieces("427") == ["4", "2", "7"]
    assert pieces("7", train(texts=[])) == ["7"]
    for token in SPECIAL_TOKENS:
        assert pieces(token) == [token]
    assert "".join(pieces("tho")) == "tho" and len(pieces("tho")) == 3  # never seen: bytes


def test_a_space_belongs_to_the_word_or_digit_behind_it():
    tokenizer = train([*TEXTS, '{"report": 42}'])  # seen with a space and without
    for before in ("the", ",", "3", '"'):
        assert pieces(f"{before} report", tokenizer)[-1] == "Ġreport"
        assert pieces(f"{before} 4", tokenizer)[-1] == "Ġ4"
    for before in ("", '{"', "\n", "1"):
        assert pieces(f"{before}report", tokenizer)[-1] == "report"
    assert pieces('{"report": 42}', tokenizer)[-3:-1] == ["Ġ4", "2"]  # an id in JSON is the same tokens as in text


def test_the_most_frequent_pieces_win_and_ties_are_alphabetical():
    least = 256 + len(SPECIAL_TOKENS)
    small = train([" cc cc cc bb aa bb aa zz"], vocab_size=least + 3)
    assert len(small) == least + 3
    assert small.convert_ids_to_tokens([least, least + 1, least + 2]) == ["Ġcc", "Ġaa", "Ġbb"]
    assert len(train(["aa bb"], vocab_size=1000)) == least + 2  # no more than there is
    with pytest.raises(ValueError, match=f"vocab_size must be at least {least}: got {least - 1}"):
        train(vocab_size=least - 1)


def test_training_is_deterministic_and_does_not_see_the_order_of_texts():
    assert train().get_vocab() == TOKENIZER.get_vocab()
    assert train(reversed(TEXTS)).get_vocab() == TOKENIZER.get_vocab()


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, "{{ messages[0].content }}"])
def test_saved_and_loaded_is_the_same_tokenizer(tmp_path, template):
    tokenizer = train(chat_template=template)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.chat_template == template
    assert (loaded.eos_token, loaded.pad_token) == ("<|im_end|>", "<|endoftext|>")
    text = "the report 42 , .  don 't \u00e9\n" + "".join(SPECIAL_TOKENS)
    for split in (True, False):
        tokens = tokenizer.encode(text, split_special_tokens=split)
        assert loaded.encode(text, split_special_tokens=split) == tokens
    assert loaded.decode(tokens) == text
    chat = [{"role": "user", "content": text}, {"role": "assistant", "content": "Done."}]
    assert loaded.apply_chat_template(chat, tokenize=False) == tokenizer.apply_chat_template(chat, tokenize=False)


def test_the_template_prints_tools_as_json_and_then_what_is_said():
    tools = [
        {
            "type": "function",
            "function": {"name": "open_file", "description": 'Opens "it" <now>.', "parameters": {}},
        },
        {"type": "function", "function": {"name": "quit", "description": "\u00fc", "parameters": {}}},
    ]
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u1"},
        {"role": "assistant", "content": "a1"},
        {"role": "tool", "content": "t1"},
        {"role": "tool", "content": "t2"},
        {"role": "assistant", "content": "a2"},
        {"role": "user", "content": "u2"},
    ]
    chat = (
        "s\n<|im_start|>user\nu1<|im_start|>assistant\na1<|im_end|>"
        "<tool_response>t1</tool_response><tool_response>t2</tool_response>"
        "<|im_start|>assistant\na2<|im_end|><|im_start|>user\nu2<|im_start|>assistant\n"
    )
    for some, head in ((None, []), (tools, tools)):
        rendered = TOKENIZER.apply_chat_template(messages, tools=some, tokenize=False, add_generation_prompt=True)
        assert rendered == "".join(json.dumps(tool, ensure_ascii=False) + "\n" for tool in head) + chat


# -------------------------------------------------------------------------------- what cannot be read
def test_a_directory_that_is_not_there_is_named_and_no_network_is_asked(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: asked.append(address))
    monkeypatch.chdir(tmp_path)
    for name in ("Qwen/typo", "runs/none/tokenizer"):
        with pytest.raises(CheckpointError, match=f"no checkpoint at {name}: .*hf download NAME --local-dir {name}"):
            load_tokenizer(name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no tokenizer at empty: tokenizer.json is missing"):
        load_tokenizer("empty")
    assert not asked


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("text", ["", '{"version": "1', "[1]", "\0", "null"])
def test_a_file_that_is_empty_cut_or_no_object_is_named(tmp_path, name, text):
    TOKENIZER.save_pretrained(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=name):
        load_tokenizer(tmp_path)


def test_no_space_is_taken_out_of_what_is_decoded(tmp_path):
    """Llama 3's file asks transformers to clean up; before its version 5 it does so, and afterwards where it is told twice."""
    TOKENIZER.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings |= {"clean_up_tokenization_spaces": True, CORRUPTS: True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    loaded = load_tokenizer(tmp_path)
    tokens = loaded.encode("a , b . do n't", add_special_tokens=False)
    assert loaded.decode(tokens) == "a, b. don't"
    assert qwen_codec(loaded).decode(tokens) == "a , b . do n't"


def test_a_file_of_another_kind_is_named(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"added_tokens": []}')
    with pytest.raises(CheckpointError, match="tokenizer.json holds no tokenizer"):
        load_tokenizer(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": ["<|im_end|>"]}')
    with pytest.raises(CheckpointError, match="eos_token_id must be token ids"):
        load_tokenizer(tmp_path)
