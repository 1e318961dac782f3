"""Attention of the update and the prefill by jax's own kernel for TPUs, splash attention; a `Layout` chooses it.

The kernel's forward and backward passes are used unchanged.  They take one sequence of keys for each sequence of
queries, so a prompt's keys and values are copied in front of every rollout's own.  Each copy's gradient is rounded to
the compute dtype before the sum.  The mask lets every query see the prompt, and is causal behind it.  Segments hide
the prompt's padding, which is computed and thrown away (`attention.blockwise` skips whole blocks of it).

Left out on purpose: decoding, which stays with `attention.blockwise`; GPUs.

Shapes: those of `models/attention.py`; a rollout's keys are L = P + T, and their padding.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask import CausalMask, MultiHeadMask

from . import attention

LANES = 128  # elements of a TPU's vector; blocks of tokens are multiples of it
LONGEST = 512  # tokens along either side of a block: 1 MB of scores, and a kernel holds several such arrays


def flash_attend(query_NGKQTE, parts: tuple[attention.Part, ...], *, interpret: bool = False):
    """As `attention.attend` with `blockwise`, `[N,G,K,Q,T,E]`; interpret: on any platform, slowly."""
    # Choose keys and segments; decoding has parts of its own, and stays with `blockwise`.
    match parts:
        case (attention.Causal(key, value),):
            prompt, segments = 0, None
        case (attention.Shared(prompt_key, prompt_value, lengths_N), attention.Causal(key, value)):
            prompt = prompt_key.shape[2]
            key, value = _behind(prompt_key, key), _behind(prompt_value, value)
            segments = _segments(lengths_N, prompt, query_NGKQTE.shape[4], key.shape[3])
        case _:
            return attention.attend(query_NGKQTE, parts, attention.blockwise)
    *_, queries, tokens, _ = query_NGKQTE.shape
    # The kernel takes the queries of one key/value head: map it over heads, rollouts and tasks.
    kernel = _kernel(queries, tokens, prompt, interpret)
    for axes in ((0, 0, 0, None), (0, 0, 0, None), (0, 0, 0, 0)):  # heads, rollouts, tasks
        kernel = jax.vmap(kernel, axes)
    # Pad the tokens to whole blocks, attend, and cut the padding off.
    output = kernel(_padded(query_NGKQTE, 4), _padded(key, 3), _padded(value, 3), segments)
    # Times one makes the result another variable than the saved output, as in `attention._forward`.
    return output[..., :tokens, :] * 1


def _kernel(queries: int, tokens: int, prompt: int, interpret: bool):
    """(query_QTE, key_LE, value_LE, segments) -> output_QTE, saved with its log-sum-exp as `attention.SAVED`."""
    (rows, row_block), (keys, key_block) = _blocks(tokens), _blocks(prompt + tokens)
    # Two backward kernels, although they compute the scores twice. The fused kernel would write one gradient of all
    # queries for each block of keys, which is 36 such arrays at 18,432 keys.
    blocks = splash.BlockSizes(
        block_q=row_block, block_kv=key_block,
        block_q_dkv=row_block, block_kv_dkv=key_block,
        block_q_dq=row_block, block_kv_dq=key_block,
    )  # fmt: skip
    # Every query sees the whole prompt, and its own tokens up to itself.
    mask = MultiHeadMask([CausalMask((rows, keys), offset=prompt)] * queries)
    return splash.make_splash_mqa_single_device(
        mask, block_sizes=blocks, residual_checkpoint_name=attention.SAVED, interpret=interpret
    )


def _behind(prompt_NKPE, own_NGKTE):
    """[prompt | own] of every rollout, `[N,G,K,L,E]`."""
    n, g, *_ = own_NGKTE.shape
    prompts = jnp.broadcast_to(prompt_NKPE[:, None], (n, g, *prompt_NKPE.shape[1:]))
    return jnp.concatenate([prompts, own_NGKTE], axis=3)


def _segments(lengths_N, prompt: int, tokens: int, keys: int):
    """Segment ids: 1 for a prompt's padding, which no query sees; 0 for all queries and all other keys."""
    places = jnp.arange(_blocks(keys)[0], dtype=jnp.int32)[None]
    padding_NL = (places >= lengths_N[:, None]) & (places < prompt)
    queries_NT = jnp.zeros((len(lengths_N), _blocks(tokens)[0]), jnp.int32)
    return splash.SegmentIds(queries_NT, padding_NL.astype(jnp.int32))


def _blocks(length: int) -> tuple[int, int]:
    """(padded length, tokens in a block): the fewest blocks of at most LONGEST tokens, as short as they can be."""
    count = -(-length // LONGEST)
    block = -(-length // (count * LANES)) * LANES
    return count * block, block


def _padded(x, axis: int):
    """x with zeros at the end of an axis, up to whole blocks.  Only queries that are padding themselves see them."""
    return attention.pad(x, axis, _blocks(x.shape[axis])[0] - x.shape[axis])
