"""A small lossless tokenizer, trained on the texts of a run and loaded through transformers.

A frequent word is one token, with the space before it if there is one.  A digit is one token, so that ids can be copied.
All other text is spelled in bytes.  The chat template follows Qwen's, without its instructions.

There are no merges, because a run's vocabulary is closed: counting whole words is enough.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rods_jax.files import CheckpointError, require_checkpoint

os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that PyTorch is missing: nothing here needs it

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_end|>",
    # The format's fixed strings are single tokens: they need fewer steps, and no spelling has to be learned.
    "<|im_start|>user\n",
    "<|im_start|>assistant\n",
    '<tool_call>\n{"name": "',
    '", "arguments": {',
    "}}\n</tool_call>",
    "<tool_response>",
    "</tool_response>",
)
# A space belongs to the word or digit after it; no token of its own then stands between two words.
_PIECES = Regex(r" ?[A-Za-z_]+| ?\d|(?:[^A-Za-z_\d ]| (?![A-Za-z_\d]))+")

CHAT_TEMPLATE = """\
{%- for tool in tools or [] %}{{- tool | tojson + '\\n' }}{% endfor %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- '<tool_response>' + message.content + '</tool_response>' }}
{%- elif message.role == 'user' %}
{{- '<|im_start|>user\\n' + message.content }}
{%- elif message.role == 'system' %}
{{- message.content + '\\n' }}
{%- else %}
{{- '<|im_start|>assistant\\n' + message.content + '<|im_end|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int, chat_template: str = CHAT_TEMPLATE
) -> PreTrainedTokenizerFast:
    """Bytes, special tokens, and the most frequent pieces of `texts`, at most `vocab_size` in all.

    ValueError: `vocab_size` has no room for the bytes and the special tokens.
    """
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_PIECES, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < len(SPECIAL_TOKENS) + len(alphabet):
        raise ValueError(f"vocab_size must be at least {len(SPECIAL_TOKENS) + len(alphabet)}: got {vocab_size}")
    counts = Counter(piece for text in texts for piece, _ in split.pre_tokenize_str(text))
    pieces = sorted(counts, key=lambda piece: (-counts[piece], piece))
    vocabulary = list(dict.fromkeys([*SPECIAL_TOKENS, *alphabet, *pieces]))
    # ignore_merges: a piece that is in the vocabulary is one token, any other is spelled in bytes.
    model = models.BPE(
        vocab={token: i for i, token in enumerate(vocabulary[:vocab_size])}, merges=[], ignore_merges=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
    )


def checkpoint_tokenizer(texts: Iterable[str], *, directory: str | Path) -> PreTrainedTokenizerFast:
    """A checkpoint's own tokenizer, for `Config.tokenizer`; `texts` are not used."""
    return load_tokenizer(directory)


def load_tokenizer(directory: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer in a directory, a checkpoint's or one that `save_pretrained` wrote; no network is ever asked.

    The end tokens of a `generation_config.json` beside it stay with it, as `init_kwargs["stop_tokens"]`.
    CheckpointError: there is no such directory, or the file that is missing or cannot be read.
    """
    directory = Path(directory)
    require_checkpoint(directory)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        _read_object(directory / name, required=name == "tokenizer.json")
    ends = _end_tokens(directory / "generation_config.json")
    kept: dict[str, Any] = {"stop_tokens": ends} if ends else {}
    try:
        return PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True, **kept)
    except Exception as error:  # of whatever kind the libraries raise
        raise CheckpointError(
            f"{directory / 'tokenizer.json'} holds no tokenizer: {type(error).__name__}: {error}"
        ) from error


def _end_tokens(path: Path) -> list[int]:
    listed = _read_object(path, required=False).get("eos_token_id")
    ends = listed if isinstance(listed, list) else [] if listed is None else [listed]
    if not all(type(end) is int and end >= 0 for end in ends):
        raise CheckpointError(f"{path}: eos_token_id must be token ids: got {listed!r}"[:200])
    return ends


def _read_object(path: Path, *, required: bool) -> dict:
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        if not required:
            return {}
        raise CheckpointError(f"no tokenizer at {path.parent}: {path.name} is missing") from error
    except (OSError, ValueError, RecursionError) as error:  # also of bytes that are not UTF-8
        raise CheckpointError(f"{path} cannot be read (empty, or cut off?): {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object: got {type(value).__name__}")
    return value
